/* A library in the place of NVIDIA's driver: memory is the host's, kernels are the emulated GPU's or only counted, and
 * any call can be made to fail. What is given out and not given back is counted.
 *
 * Work is done as late as a stream allows: when it is waited for, or work that comes after it. So whoever reads a result
 * too soon, or fills memory anew that a copy has yet to read, gets other bytes than on the processors. */
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

typedef int (*Launcher)(const char *, unsigned, unsigned, unsigned, void **);
typedef const size_t *(*Arguments)(const char *);

namespace {

std::recursive_mutex lock;
std::map<std::string, long> calls;
std::map<void *, std::string> live; /* what was given out, and by which function */
std::map<void *, size_t> sizes;
std::string failing;
long fails_at, contexts;
int fails_with, sticky, lost, devices = 1, version = 13000;
Launcher launcher;
Arguments arguments;
long of_device[16]; /* launches; the address of one is the context of its device */
thread_local std::vector<long *> current;
thread_local int capture_mode;
int capturing;
std::map<void *, long *> owners; /* the context in which something was made, by the address of its launches */
std::map<void *, std::set<std::string>> kernels; /* of a module */

/* A stream: the work that waits, what of it one piece touches of memory, and how many pieces were done before. */
struct Piece {
    std::function<void()> does;
    const char *from, *to; /* of memory that it reads or writes: freed while it waits, it is torn */
};
struct Queue {
    std::deque<Piece> waiting;
    long done;
};
struct Mark { /* an event: a stream, and how much of its work comes before */
    void *stream;
    long upto;
};
std::map<void *, Queue> queues;
std::map<void *, Mark> marks;
long torn;

/* Does a stream's work up to the piece of that number. */
void finish(void *stream, long upto)
{
    Queue &queue = queues[stream];
    while (queue.done < upto && !queue.waiting.empty()) {
        const Piece piece = queue.waiting.front();
        queue.waiting.pop_front();
        queue.done++;
        piece.does();
    }
}

long given_to(void *stream) { return queues[stream].done + (long)queues[stream].waiting.size(); }

void later(void *stream, std::function<void()> does, const void *at = nullptr, size_t size = 0)
{
    queues[stream].waiting.push_back({does, (const char *)at, (const char *)at + size});
}

/* Counts the work that still waits for memory which is given back. */
void tear(const void *at, size_t size)
{
    for (auto &each : queues) {
        for (Piece &piece : each.second.waiting) {
            if (piece.from < (const char *)at + size && (const char *)at < piece.to) {
                torn++;
                piece.does = [] {};
            }
        }
    }
}

/* The work of a lost device is lost, too. */
void lose(int code)
{
    lost = code;
    for (auto &each : queues) {
        each.second.done += (long)each.second.waiting.size();
        each.second.waiting.clear();
    }
}

bool is_default(void *stream) { return (uintptr_t)stream <= 2; }

/* The streams 0 and 1 are the same one. */
void *named(void *stream) { return stream ? stream : (void *)1; }

/* What a driver says to a handle of another context, or to one that is none. */
int foreign(void *handle)
{
    return live.count(handle) && owners[handle] == current.back() ? 0 : 400;
}

/* The result of a call: that of a device that is lost, the one to be injected, or success. */
int called(const char *name)
{
    calls[name]++;
    if (lost && strcmp(name, "cuGetErrorName") != 0) {
        return lost;
    }
    if (failing == name && --fails_at == 0) {
        if (sticky) {
            lose(fails_with);
        }
        return fails_with;
    }
    return 0;
}

int give(const char *name, void **to, size_t size)
{
    if (int code = called(name)) {
        return code;
    }
    if (current.empty()) {
        return 201;
    }
    if (!size) {
        return 1;
    }
    if (capturing && capture_mode != 2) {
        return 900;
    }
    *to = size > (size_t)1 << 40 ? nullptr : malloc(size ? size : 1);
    if (!*to) {
        return 2;
    }
    memset(*to, 0xA5, size < 1 << 16 ? size : 1 << 16);
    live[*to] = name;
    sizes[*to] = size;
    owners[*to] = current.back();
    return 0;
}

/* Frees even where the device is lost, whose memory is gone with it. */
int take(const char *name, void *at)
{
    const int code = capturing && capture_mode != 2 ? 900 : called(name);
    if (code >= 900 && code <= 908) {
        return code;
    }
    if (live.erase(at)) {
        tear(at, sizes[at]);
        sizes.erase(at);
        owners.erase(at);
        queues.erase(at);
        marks.erase(at);
        kernels.erase(at);
        free(at);
    } else if (!code) {
        return 1;
    }
    return code;
}

} // namespace

#define GUARDED std::lock_guard<std::recursive_mutex> guard(lock)
#define PLAIN(name, parameters, does)         \
    extern "C" int name parameters            \
    {                                         \
        GUARDED;                              \
        if (int code = called(#name)) {       \
            return code;                      \
        }                                     \
        does;                                 \
        return 0;                             \
    }
/* Calls that need a current context, and those that a stream of it is given to. */
#define HERE(name, parameters, does) PLAIN(name, parameters, if (current.empty()) return 201; does)
#define ON_STREAM(name, parameters, does) \
    HERE(name, parameters, if (!is_default(stream) && foreign(stream)) return 400; stream = named(stream); does)
#define GIVES(name, parameters, to, size) \
    extern "C" int name parameters        \
    {                                     \
        GUARDED;                          \
        return give(#name, (void **)to, size); \
    }
#define TAKES(name, type)             \
    extern "C" int name(type at)      \
    {                                 \
        GUARDED;                      \
        return take(#name, (void *)at); \
    }

PLAIN(cuInit, (unsigned), if (!devices) return 100)
PLAIN(cuDriverGetVersion, (int *v), *v = version)
PLAIN(cuGetErrorName, (int, const char **name), *name = "CUDA_ERROR_INJECTED")
PLAIN(cuDeviceGetCount, (int *n), *n = devices)
PLAIN(cuDeviceGet, (int *d, int i), *d = i)
PLAIN(cuDeviceGetName, (char *name, int, int), strcpy(name, "Stub"))
PLAIN(cuDeviceGetAttribute, (int *v, int which, int), *v = which == 75 ? 9 : 0)
PLAIN(cuDeviceTotalMem_v2, (size_t *n, int), *n = (size_t)80e9)
PLAIN(cuDevicePrimaryCtxRetain, (void **c, int device), (*c = &of_device[device], contexts++))
extern "C" int cuDevicePrimaryCtxRelease_v2(int)
{
    GUARDED;
    contexts--;
    return 0;
}
PLAIN(cuCtxPushCurrent_v2, (void *c), current.push_back((long *)c))
extern "C" int cuCtxPopCurrent_v2(void **)
{
    GUARDED;
    const int code = called("cuCtxPopCurrent_v2");
    if (current.empty()) {
        return 201;
    }
    current.pop_back();
    return code;
}
PLAIN(cuThreadExchangeStreamCaptureMode, (int *mode), std::swap(*mode, capture_mode))
HERE(cuMemGetInfo_v2, (size_t *f, size_t *t), (*f = (size_t)1.5e9, *t = (size_t)80e9))
/* A file of kernels: a head of 16 bytes, and their names. */
extern "C" int cuModuleLoadData(void **m, const void *image)
{
    GUARDED;
    if (int code = give("cuModuleLoadData", m, 1)) {
        return code;
    }
    uint64_t size;
    memcpy(&size, (const char *)image + 8, sizeof size);
    std::string name;
    for (const char *at = (const char *)image + 16; size--; at++) {
        if (*at == '\n') {
            kernels[*m].insert(name);
            name.clear();
        } else {
            name += *at;
        }
    }
    return 0;
}
TAKES(cuModuleUnload, void *)
HERE(cuModuleGetFunction, (void **f, void *module, const char *name), static std::set<std::string> names;
     if (foreign(module)) return 400; if (!kernels[module].count(name)) return 500;
     *f = (void *)names.insert(name).first->c_str())
GIVES(cuMemAlloc_v2, (unsigned long long *at, size_t size), at, size)
TAKES(cuMemFree_v2, unsigned long long)
GIVES(cuMemHostAlloc, (void **at, size_t size, unsigned), at, size)
TAKES(cuMemFreeHost, void *)
ON_STREAM(cuMemcpyHtoDAsync_v2, (unsigned long long to, const void *from, size_t n, void *stream),
      later(stream, [=] { memcpy((void *)to, from, n); }, from, n))
ON_STREAM(cuMemcpyDtoHAsync_v2, (void *to, unsigned long long from, size_t n, void *stream),
      later(stream, [=] { memcpy(to, (void *)from, n); }, to, n))
ON_STREAM(cuMemcpyDtoDAsync_v2, (unsigned long long to, unsigned long long from, size_t n, void *stream),
      later(stream, [=] { memmove((void *)to, (void *)from, n); }, (void *)to, n))
HERE(cuPointerGetAttribute, (void *value, int, unsigned long long at),
     for (auto &each : sizes) {
         if (owners.count(each.first) && at >= (size_t)each.first && at - (size_t)each.first < each.second) {
             *(int *)value = (int)(owners[each.first] - of_device);
             return 0;
         }
     } return 1)
ON_STREAM(cuMemsetD8Async, (unsigned long long at, unsigned char v, size_t n, void *stream),
      later(stream, [=] { memset((void *)at, v, n); }, (void *)at, n))
GIVES(cuStreamCreate, (void **s, unsigned), s, 1)
extern "C" int cuStreamDestroy_v2(void *stream)
{
    GUARDED;
    if (!lost) {
        finish(stream, given_to(stream));
    }
    return take("cuStreamDestroy_v2", stream);
}
ON_STREAM(cuStreamSynchronize, (void *stream), finish(stream, given_to(stream)))
ON_STREAM(cuStreamWaitEvent, (void *stream, void *event, unsigned), if (!live.count(event)) return 400;
      const Mark mark = marks[event]; later(stream, [=] { finish(mark.stream, mark.upto); }))
GIVES(cuEventCreate, (void **e, unsigned), e, 1)
TAKES(cuEventDestroy_v2, void *)
ON_STREAM(cuEventRecord, (void *event, void *stream), if (foreign(event)) return 400;
          (marks[event] = {stream, given_to(stream)}))
HERE(cuEventSynchronize, (void *event), if (foreign(event)) return 400; finish(marks[event].stream, marks[event].upto))

struct Copy { /* CUDA_MEMCPY2D */
    size_t src_x, src_y;
    int src_kind;
    const void *src_host;
    unsigned long long src;
    void *src_array;
    size_t src_pitch, dst_x, dst_y;
    int dst_kind;
    void *dst_host;
    unsigned long long dst;
    void *dst_array;
    size_t dst_pitch, width, height;
};
ON_STREAM(cuMemcpy2DAsync_v2, (const Copy *given, void *stream), const Copy c = *given; later(
          stream,
          [=] {
              for (size_t i = 0; i < c.height; i++) {
                  memcpy((char *)c.dst + i * c.dst_pitch, (char *)c.src + i * c.src_pitch, c.width);
              }
          },
          (void *)c.dst, c.height ? (c.height - 1) * c.dst_pitch + c.width : 0))

/* The arguments are copied at once, as the driver does. */
int launched(const char *name, unsigned grid, unsigned threads, void *stream, void **args)
{
    if (!grid || grid > 0x7FFFFFFF || !threads || threads > 1024) {
        return 1;
    }
    ++*current.back();
    if (!launcher) {
        return 0;
    }
    const size_t *sizes = arguments(name);
    if (!sizes) {
        return 500;
    }
    std::vector<std::vector<char>> values;
    for (size_t i = 0; sizes[i]; i++) {
        values.emplace_back((char *)args[i], (char *)args[i] + sizes[i]);
    }
    later(stream, [=] {
        std::vector<void *> at;
        for (const std::vector<char> &value : values) {
            at.push_back((void *)value.data());
        }
        launcher(name, 0, grid, threads, at.data());
    });
    return 0;
}

ON_STREAM(cuLaunchKernel,
      (void *f, unsigned grid, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned, void *stream,
       void **args, void **),
      return launched((const char *)f, grid, threads, stream, args))

extern "C" {
/* As new; what is live stays counted. */
void stub_reset(int seen, int is_version, Launcher emulated, Arguments of_emulated)
{
    GUARDED;
    calls.clear();
    torn = capturing = 0;
    failing.clear();
    memset(of_device, 0, sizeof of_device);
    lost = 0;
    devices = seen, version = is_version, launcher = emulated, arguments = of_emulated;
}

/* Has the k-th call of a function from now on fail, and with `stays` every call after it. */
void stub_fail(const char *name, long k, int code, int stays)
{
    GUARDED;
    failing = name, fails_at = k, fails_with = code, sticky = stays;
}

/* Memory of the host that passes for the first device's. */
void stub_adopt(void *at, size_t size)
{
    GUARDED;
    sizes[at] = size;
    owners[at] = of_device;
}

/* Has calls that make or free memory fail unless their thread's mode is relaxed, as while a stream is captured. */
void stub_capture(int on)
{
    GUARDED;
    capturing = on;
}

/* The device whose context is the calling thread's; -1 without one. */
long stub_current(void) { return current.empty() ? -1 : current.back() - of_device; }

/* Launches of a device's kernels. */
long stub_launches(int device)
{
    GUARDED;
    return of_device[device];
}

long stub_calls(const char *name)
{
    GUARDED;
    return calls[name];
}

/* Pieces of work that waited yet when memory of theirs was given back. */
long stub_torn(void)
{
    GUARDED;
    return torn;
}

/* How much is given out and not given back: memory of both kinds, modules, streams, events, contexts. */
long stub_live(void)
{
    GUARDED;
    return (long)live.size() + contexts;
}
}

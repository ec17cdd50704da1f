/* A library in the place of NVIDIA's driver: memory is the host's, kernels are the emulated GPU's or only counted, and
 * any call can be made to fail. What is given out and not given back is counted. */
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

typedef int (*Launcher)(const char *, unsigned, unsigned, unsigned, void **);

namespace {

std::recursive_mutex lock;
std::map<std::string, long> calls;
std::map<void *, std::string> live; /* what was given out, and by which function */
std::string failing;
long fails_at, contexts;
int fails_with, sticky, lost, devices = 1, version = 13000;
Launcher launcher;
long of_device[16]; /* launches; the address of one is the context of its device */
thread_local std::vector<long *> current;

/* The result of a call: that of a device that is lost, the one to be injected, or success. */
int called(const char *name)
{
    calls[name]++;
    if (lost && strcmp(name, "cuGetErrorName") != 0) {
        return lost;
    }
    if (failing == name && --fails_at == 0) {
        lost = sticky ? fails_with : 0;
        return fails_with;
    }
    return 0;
}

int give(const char *name, void **to, size_t size)
{
    if (int code = called(name)) {
        return code;
    }
    *to = size > (size_t)1 << 40 ? nullptr : malloc(size ? size : 1);
    if (!*to) {
        return 2;
    }
    memset(*to, 0xA5, size < 1 << 16 ? size : 1 << 16);
    live[*to] = name;
    return 0;
}

/* Frees even where the device is lost, whose memory is gone with it. */
int take(const char *name, void *at)
{
    const int code = called(name);
    if (live.erase(at)) {
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
PLAIN(cuCtxPopCurrent_v2, (void **), current.pop_back())
PLAIN(cuMemGetInfo_v2, (size_t *f, size_t *t), (*f = (size_t)1.5e9, *t = (size_t)80e9))
GIVES(cuModuleLoadData, (void **m, const void *), m, 1)
TAKES(cuModuleUnload, void *)
PLAIN(cuModuleGetFunction, (void **f, void *, const char *name), *f = strdup(name))
GIVES(cuMemAlloc_v2, (unsigned long long *at, size_t size), at, size)
TAKES(cuMemFree_v2, unsigned long long)
GIVES(cuMemHostAlloc, (void **at, size_t size, unsigned), at, size)
TAKES(cuMemFreeHost, void *)
PLAIN(cuMemcpyHtoDAsync_v2, (unsigned long long to, const void *from, size_t n, void *), memcpy((void *)to, from, n))
PLAIN(cuMemcpyDtoHAsync_v2, (void *to, unsigned long long from, size_t n, void *), memcpy(to, (void *)from, n))
PLAIN(cuMemcpyDtoDAsync_v2, (unsigned long long to, unsigned long long from, size_t n, void *),
      memmove((void *)to, (void *)from, n))
PLAIN(cuPointerGetAttribute, (void *value, int, unsigned long long at), *(int *)value = at % 4096 == 0xFFF)
PLAIN(cuMemsetD8Async, (unsigned long long at, unsigned char v, size_t n, void *), memset((void *)at, v, n))
GIVES(cuStreamCreate, (void **s, unsigned), s, 1)
TAKES(cuStreamDestroy_v2, void *)
PLAIN(cuStreamSynchronize, (void *), )
PLAIN(cuStreamWaitEvent, (void *, void *, unsigned), )
GIVES(cuEventCreate, (void **e, unsigned), e, 1)
TAKES(cuEventDestroy_v2, void *)
PLAIN(cuEventRecord, (void *, void *), )

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
PLAIN(cuMemcpy2DAsync_v2, (const Copy *c, void *),
      for (size_t i = 0; i < c->height; i++)
          memcpy((char *)c->dst + i * c->dst_pitch, (char *)c->src + i * c->src_pitch, c->width))

PLAIN(cuLaunchKernel,
      (void *f, unsigned grid, unsigned, unsigned, unsigned threads, unsigned, unsigned, unsigned, void *, void **args,
       void **),
      if (current.empty()) return 201; else ++*current.back();
      if (launcher && launcher((const char *)f, 0, grid, threads, args)) return 500)

extern "C" {
/* As new; what is live stays counted. */
void stub_reset(int seen, int is_version, Launcher emulated)
{
    GUARDED;
    calls.clear();
    failing.clear();
    memset(of_device, 0, sizeof of_device);
    lost = 0;
    devices = seen, version = is_version, launcher = emulated;
}

/* Has the k-th call of a function from now on fail, and with `stays` every call after it. */
void stub_fail(const char *name, long k, int code, int stays)
{
    GUARDED;
    failing = name, fails_at = k, fails_with = code, sticky = stays;
}

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

/* How much is given out and not given back: memory of both kinds, modules, streams, events, contexts. */
long stub_live(void)
{
    GUARDED;
    return (long)live.size() + contexts;
}
}

/* Stands before the C library's calls that touch files (LD_PRELOAD), counts them, and has the n-th end in a fault.

   arm(at, how, error, ever): the call number `at`, counted from now on and from 0, or with `ever` all from it on,
     COUNT  none: only counted
     KILL   ends the process before it, by SIGKILL
     FAIL   fails with `error`, if it is one that changes files
     SHORT  writes half of what it is given, if it writes
   calls(): how many came so far; faults(): how many of them ended in a fault; name(i): which call number i was. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FAIL, SHORT };
enum { MOST = 4096 };
static atomic_int armed, count, faulted;
static int at, how, error, ever;
static const char *names[MOST];

void arm(int at_, int how_, int error_, int ever_)
{
    at = at_, how = how_, error = error_, ever = ever_;
    count = faulted = 0;
    armed = 1;
}
int calls(void) { return count; }
int faults(void) { return faulted; }
const char *name(int i) { return i < MOST ? names[i] : "?"; }

/* Counts a call. `kind`: 0 reads, 1 changes files, 2 writes. Whether the call is to fail (1) or to write less (2). */
static int hit(const char *which, int kind)
{
    if (!armed)
        return 0;
    int now = count++;
    if (now < MOST)
        names[now] = which;
    if (how == COUNT || (ever ? now < at : now != at))
        return 0;
    if (how == KILL)
        kill(getpid(), SIGKILL);
    if ((how == FAIL && kind) || (how == SHORT && kind == 2)) {
        faulted++;
        errno = error;
        return how == FAIL ? 1 : 2;
    }
    return 0;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define PASS(name, kind, failed, ...)       \
    if (hit(#name, kind) == 1)              \
        return failed;                      \
    return REAL(name)(__VA_ARGS__)

static mode_t mode_of(int flags, va_list given) { return flags & (O_CREAT | O_TMPFILE) ? va_arg(given, mode_t) : 0; }

#define OPENS(name)                                                 \
    int name(const char *path, int flags, ...)                      \
    {                                                               \
        va_list given;                                              \
        va_start(given, flags);                                     \
        mode_t mode = mode_of(flags, given);                        \
        va_end(given);                                              \
        PASS(name, (flags & O_ACCMODE) != O_RDONLY, -1, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)
int openat(int folder, const char *path, int flags, ...)
{
    va_list given;
    va_start(given, flags);
    mode_t mode = mode_of(flags, given);
    va_end(given);
    PASS(openat, (flags & O_ACCMODE) != O_RDONLY, -1, folder, path, flags, mode);
}

#define WRITES(name, ...)                       \
    switch (hit(#name, 2)) {                    \
    case 1: return -1;                          \
    case 2: size = size > 1 ? size / 2 : size;  \
    }                                           \
    return REAL(name)(__VA_ARGS__)
ssize_t write(int fd, const void *data, size_t size) { WRITES(write, fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t where) { WRITES(pwrite, fd, data, size, where); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t where) { WRITES(pwrite64, fd, data, size, where); }

int fsync(int fd) { PASS(fsync, 1, -1, fd); }
int ftruncate(int fd, off_t size) { PASS(ftruncate, 1, -1, fd, size); }
int ftruncate64(int fd, off64_t size) { PASS(ftruncate64, 1, -1, fd, size); }
int posix_fallocate(int fd, off_t from, off_t size) { PASS(posix_fallocate, 1, error, fd, from, size); }
int posix_fallocate64(int fd, off64_t from, off64_t size) { PASS(posix_fallocate64, 1, error, fd, from, size); }
int rename(const char *from, const char *to) { PASS(rename, 1, -1, from, to); }
int unlink(const char *path) { PASS(unlink, 1, -1, path); }
int fchmod(int fd, mode_t mode) { PASS(fchmod, 1, -1, fd, mode); }
int flock(int fd, int operation) { PASS(flock, 1, -1, fd, operation); }
int mkdir(const char *path, mode_t mode) { PASS(mkdir, 1, -1, path, mode); }
int rmdir(const char *path) { PASS(rmdir, 1, -1, path); }
ssize_t read(int fd, void *data, size_t size) { PASS(read, 0, -1, fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t where) { PASS(pread, 0, -1, fd, data, size, where); }
ssize_t preadv(int fd, const struct iovec *v, int n, off_t where) { PASS(preadv, 0, -1, fd, v, n, where); }
ssize_t preadv64(int fd, const struct iovec *v, int n, off64_t where) { PASS(preadv64, 0, -1, fd, v, n, where); }

/* A file that cannot be closed is closed all the same, as Linux has it. */
int close(int fd)
{
    int failed = hit("close", 1) == 1;
    int found = REAL(close)(fd);
    return failed ? (errno = error, -1) : found;
}

/* Equal pieces of a file that lie a stride apart, read in one call from Python: a call for each would let go of its
 * interpreter lock, and take it again, as often as there are pieces. */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64
#include "forge.h"

#if !defined(_WIN32)
#include <unistd.h>

int64_t forge_read_strided(int fd, int64_t offset, int64_t stride, int64_t bytes, int64_t pieces, uint8_t *out)
{
    int64_t i = 0;
    while (i < pieces && pread(fd, out + i * bytes, (size_t)bytes, (off_t)(offset + i * stride)) == bytes) {
        i++;
    }
    return i;
}
#else
int64_t forge_read_strided(int fd, int64_t offset, int64_t stride, int64_t bytes, int64_t pieces, uint8_t *out)
{
    (void)fd, (void)offset, (void)stride, (void)bytes, (void)pieces, (void)out;
    return 0;
}
#endif

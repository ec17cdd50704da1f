/* The encode kernels of larger blocks that a thread makes by itself. */
#include "kernels.h"

#define SHAPE_WHOLE(name, threads, blocks, beside)                    \
    static_assert((threads) == (blocks), #name ": a thread a block"); \
    ENCODE_KERNEL(name, threads, encode_whole<SIZE_##name, BYTES_##name, blocks, encode_alone<name##_encode>>(&job))
#define SHAPE_SORTED(name, threads, blocks, beside)                   \
    static_assert((threads) == (blocks), #name ": a thread a block"); \
    ENCODE_KERNEL(name, threads, encode_whole<256, BYTES_##name, blocks, encode_iq1<name##_block, name##_fit>>(&job))
#define SHAPE_FLAT(...)
#define SHAPE_FLOATS(...)
#define SHAPE_WARP(...)
#define MATVEC(...)
#include "launch.def"

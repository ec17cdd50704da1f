/* The encode kernels of superblocks of lattice points, each made by a warp. */
#include "kernels.h"

#define SHAPE_WARP(name, threads, blocks, beside)                                                                 \
    static_assert((threads) == WARP * (blocks) && (threads) <= LATTICE_THREADS, #name ": a warp a superblock"); \
    ENCODE_KERNEL(name, threads, encode_warp<BYTES_##name, blocks, name##_fit, name##_pack>(&job, name##_kind))
#define SHAPE_FLAT(...)
#define SHAPE_FLOATS(...)
#define SHAPE_WHOLE(...)
#define SHAPE_SORTED(...)
#define MATVEC(...)
#include "launch.def"

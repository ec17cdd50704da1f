/* What makes kernels of the rows of launch.def: ENCODE_KERNEL(type, threads, how) with how(const Job *). */
#ifndef FORGE_CUDA_KERNELS_H
#define FORGE_CUDA_KERNELS_H

#include "encode.h"

#define REMOVED(id, NAME)
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) enum { SIZE_##name = block, BYTES_##name = bytes };
#include "../types.def"
#undef REMOVED
#undef TYPE

#define ENCODE_KERNEL(name, threads, ...)                                                                           \
    extern "C" __global__ void __launch_bounds__(threads) forge_encode_##name(                                      \
        const float *values, const float *importance, const float *mean_squares, const forge_lattice *lattice,      \
        uint8_t *blocks, uint64_t rows, uint64_t width, float limit, forge_failure *failure)                        \
    {                                                                                                               \
        const Job job = {values, importance, mean_squares, lattice, blocks, rows, width, limit, failure};           \
        __VA_ARGS__;                                                                                                \
    }

#define ENCODER(name, shape, threads, blocks, lattice, beside) SHAPE_##shape(name, threads, blocks, beside)

#endif

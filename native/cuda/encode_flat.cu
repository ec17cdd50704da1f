/* The encode kernels of floats, and of blocks of up to 64 weights. */
#include "kernels.h"

#define WANTS_ROW_SQUARES(name) encode_32<name##_plain, name##_weighted>
#define WANTS_NOTHING(name) encode_alone<name##_encode>
#define SHAPE_FLAT(name, threads, blocks, beside)                     \
    static_assert((threads) == (blocks), #name ": a thread a block"); \
    ENCODE_KERNEL(name, threads, encode_flat<SIZE_##name, BYTES_##name, blocks, WANTS_##beside(name)>(&job))
#define SHAPE_FLOATS(name, threads, elements, beside) \
    ENCODE_KERNEL(name, threads, encode_floats<BYTES_##name, threads, elements, name##_encode>(&job))
#define SHAPE_WHOLE(...)
#define SHAPE_SORTED(...)
#define SHAPE_WARP(...)
#define MATVEC(...)
#include "launch.def"

extern "C" __global__ void __launch_bounds__(FORGE_ROW_THREADS)
    forge_row_mean_squares(const float *values, float *mean_squares, uint64_t rows, uint64_t width)
{
    mean_squares_of_rows(values, mean_squares, rows, width);
}

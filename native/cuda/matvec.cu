/* The kernels of products with vectors, named as launch.h has it: for one vector, and for four at a time, on matrix
 * units where the GPU has them. Of those for one, an SM is to hold four CTAs: then 8192 rows are at work all at once on
 * a GPU of 132 SMs. */
#include "matvec.h"
#include "tiles.h"

#define REMOVED(id, NAME)
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) enum { SIZE_##name = block, BYTES_##name = bytes };
#include "../types.def"
#undef REMOVED
#undef TYPE

#define PRODUCT(name, suffix, most, n_rows)                                                                          \
    extern "C" __global__ void __launch_bounds__(FORGE_MATVEC_THREADS, 4 / most)                                     \
        forge_matvec_##name##_##suffix##_##most(const uint8_t *blocks, const void *x, float *y, uint64_t rows,       \
                                                uint64_t width, uint64_t vectors)                                    \
    {                                                                                                                \
        if (!MATRIX_UNITS) {                                                                                         \
            multiply<SIZE_##name, BYTES_##name, name##_product, of_##suffix, n_rows, most>(                          \
                blocks, (const of_##suffix::element *)x, y, rows, width, vectors);                                   \
        } else {                                                                                                     \
            multiply_tiles<SIZE_##name, BYTES_##name, name##_product, of_##suffix, most>(                            \
                blocks, (const of_##suffix::element *)x, y, rows, width, vectors);                                   \
        }                                                                                                            \
    }
#define MATVEC(name, n_rows)                             \
    PRODUCT(name, f32, 1, n_rows)                        \
    PRODUCT(name, f32, 4, ROWS_OF_FOUR)                  \
    PRODUCT(name, f16, 1, n_rows)                        \
    PRODUCT(name, f16, 4, ROWS_OF_FOUR)
#define ENCODER(...)
#include "launch.def"

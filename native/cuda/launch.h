/* How the kernels of the block codecs are started: what the driver's side and the kernels' side both read.
 *
 * Names. forge_decode_<type>_<f32|f16|bf16>, forge_encode_<type>, <type> as the first column of ../types.def has it:
 * forge_decode_q4_k_f16. All are extern "C" and one-dimensional; any grid does all the work, each CTA taking every
 * gridDim.x-th piece, so a grid may be cut to what a device allows. All sizes and indices are 64 bits wide.
 *
 * Decode    (const uint8_t *blocks, void *out, uint64_t count)
 *           count: blocks; elements of float types. `blocks` may lie at any address, `out` on a boundary of its
 *           elements; where that is one of 16 bytes, 16 bytes are stored at a time.
 *           FORGE_DECODE_THREADS threads a CTA, which makes FORGE_DECODE_TILE elements at a time: a grid of
 *           ceil(elements / FORGE_DECODE_TILE).
 *
 * Encode    (const float *values, const float *importance, const float *mean_squares, const forge_lattice *lattice,
 *            uint8_t *blocks, uint64_t rows, uint64_t width, float limit, forge_failure *failure)
 *           values: rows x width, on a float boundary, no padding. importance: `width` values for every row, none
 *           negative, all finite (the driver's side looks at them); or NULL, but not for types that need them.
 *           mean_squares: with importance and a type whose row in launch.def says ROW_SQUARES, what
 *           forge_row_mean_squares made; else NULL. lattice: of types whose row names one, made by
 *           forge_lattice_image; else NULL. limit: magnitudes above it are refused, FLT_MAX, or 2^29 where
 *           forge_convert is strict. failure: in device memory, its key all ones before the call.
 *           Float types have no limit and no failure: any value is written.
 *           launch.def says how many threads a CTA has and how many blocks it makes: a grid of ceil(blocks / those).
 *
 * Squares   forge_row_mean_squares(const float *values, float *mean_squares, uint64_t rows, uint64_t width)
 *           FORGE_ROW_THREADS threads a CTA, a row each; width a multiple of 32.
 *
 * Products  forge_matvec_<type>_<f32|f16>_<1|4>
 *           (const uint8_t *blocks, const void *x, float *y, uint64_t rows, uint64_t width, uint64_t vectors)
 *           y[v * rows + r] = the sum over i of weight (r, i) times x[v * width + i], for the types that launch.def
 *           names under MATVEC. x: float32 or half floats, on a boundary of 16 bytes. _4 takes four vectors at a time,
 *           _1 one; any number is right. FORGE_MATVEC_THREADS threads a CTA, which makes FORGE_MATVEC_ROWS rows at a
 *           time: a grid of ceil(rows / those) * ceil(vectors / 4 or 1).
 *
 * The kernels allocate nothing and keep nothing between calls; the stack that a thread needs is in the report that
 * `make cuda` prints.
 */
#ifndef FORGE_CUDA_LAUNCH_H
#define FORGE_CUDA_LAUNCH_H

#include <stdint.h>

enum {
    FORGE_DECODE_THREADS = 256,
    FORGE_DECODE_TILE = 8192, /* elements: whole blocks of every type */
    FORGE_ROW_THREADS = 64,
    FORGE_MATVEC_THREADS = 128,
    FORGE_MATVEC_ROWS = 16
};

/* The first value that an encoder refused: twice its index, and one more when it is finite (above the limit). All ones
 * where there was none. What was not refused is written but for the CTA's other blocks. */
typedef struct {
    unsigned long long key;
} forge_failure;

#endif

/* What one instruction set provides: a table of codecs by type id. */
#ifndef FORGE_BACKEND_H
#define FORGE_BACKEND_H

#include "exact.h"
#include "forge.h"
#include <stddef.h>

enum { FORGE_TYPES = 43 }; /* ids run below this */

/* Encodes `blocks` > 0 consecutive blocks from x. w: NULL, or the importance values of one row of `row_blocks` blocks;
 * block b takes the weights of column block b % row_blocks, and x holds whole rows. Bytes may lie at any address. */
typedef void (*forge_encode_fn)(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks);
typedef void (*forge_decode_fn)(const uint8_t *in, float *y, int64_t blocks);

struct forge_backend {
    const char *name;
    int (*supported)(void);
    /* Index of the first NaN among n floats, or number above the limit in magnitude; n when there is none. */
    int64_t (*first_above)(const float *x, int64_t n, float limit);
    /* As forge_moments. */
    void (*moments)(const float *slices, int64_t tokens, int64_t count, int64_t first, int64_t last, float *tiles);
    /* Copies past the caches, for results too large to stay there; stream_end after the last copy. */
    void (*stream)(uint8_t *dst, const uint8_t *src, size_t bytes);
    void (*stream_end)(void);
    /* As forge_fit_scratch, forge_fit_prepare and forge_fit_rows. */
    int64_t (*fit_scratch)(int64_t width);
    int64_t (*fit_prepare)(float *h, const forge_fit *fit);
    int (*fit_rows)(const forge_fit *fit, int type, const float *x, int64_t x_stride, uint8_t *out, int64_t out_stride,
                    int64_t rows, int rounds, int again, double *error, void *scratch);
    /* As the forge_ functions of these names. */
    void (*turn_words)(const float *words, int64_t height, int64_t stride, int64_t width, float *out);
    void (*turn_nibbles)(const float *words, int64_t height, int64_t stride, int64_t width, const uint8_t *order,
                         float *out);
    int (*grid_blocks)(int type, const forge_grid *grid, int64_t rows, int64_t width, uint8_t *blocks);
    /* Elements at .. at + n - 1 of 8-bit floats, counted over rows of `width`, as float32. */
    void (*floats8)(const forge_floats8 *src, int64_t width, int64_t at, int64_t n, float *out);
    /* Adds the sums of (y - x)^2 and of x^2 over some thousand floats to sums[0] and sums[1]. */
    void (*squares)(const float *x, const float *y, int64_t n, double *sums);
    forge_encode_fn encode[FORGE_TYPES];
    forge_decode_fn decode[FORGE_TYPES];
};

#endif

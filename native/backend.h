/* What one instruction set provides: a table of codecs by type id. */
#ifndef FORGE_BACKEND_H
#define FORGE_BACKEND_H

#include "forge.h"
#include <stddef.h>

enum { FORGE_TYPES = 43 };

/* Encodes `blocks` consecutive blocks from x. w: NULL, or the importance values of one row of `row_blocks` blocks;
 * block b takes the weights of column block b % row_blocks. x starts at a row's first block when w is given. */
typedef void (*forge_encode_fn)(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks);
typedef void (*forge_decode_fn)(const uint8_t *in, float *y, int64_t blocks);

struct forge_backend {
    const char *name;
    int (*supported)(void);
    /* Index of the first NaN or infinity among n floats; n when there is none. */
    int64_t (*first_not_finite)(const float *x, int64_t n);
    forge_encode_fn encode[FORGE_TYPES];
    forge_decode_fn decode[FORGE_TYPES];
};

#endif

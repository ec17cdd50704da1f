/* Weights on a grid that is given: codes out of the words they are packed in, and blocks out of codes and scales.
 *
 * What a compiler makes vectors of by itself is here; the rest is in the vocabulary of instruction sets (turned.h,
 * grid_blocks.h). */
#include "backend.h"

int forge_fields(const uint8_t *packed, int64_t bytes, int bits, uint8_t *fields)
{
    if (bits == 4) {
        for (int64_t i = 0; i < bytes; i++) {
            fields[2 * i] = packed[i] & 15;
            fields[2 * i + 1] = packed[i] >> 4;
        }
    } else if (bits == 2) {
        for (int64_t i = 0; i < bytes; i++) {
            for (int k = 0; k < 4; k++) {
                fields[4 * i + k] = packed[i] >> 2 * k & 3;
            }
        }
    } else if (bits == 1) {
        for (int64_t i = 0; i < bytes; i++) {
            for (int k = 0; k < 8; k++) {
                fields[8 * i + k] = packed[i] >> k & 1;
            }
        }
    } else {
        return FORGE_E_WIDTH;
    }
    return FORGE_OK;
}

void forge_turn_words(const forge_backend *backend, const float *words, int64_t height, int64_t stride, int64_t width,
                      float *out)
{
    backend->turn_words(words, height, stride, width, out);
}

void forge_turn_nibbles(const forge_backend *backend, const float *words, int64_t height, int64_t stride, int64_t width,
                        const uint8_t *order, float *out)
{
    backend->turn_nibbles(words, height, stride, width, order, out);
}

int forge_grid_blocks(const forge_backend *backend, int type, const forge_grid *grid, int64_t rows, int64_t width,
                      uint8_t *blocks)
{
    return backend->grid_blocks(type, grid, rows, width, blocks);
}

/* IQ2_XS: 256 weights; each eight are a point of a lattice of 512 with an even number of minus signs.
 *
 *   d (f16)   qs[32]: 7 signs | 9 bits of index   scales[8]: a nibble for each 16 weights, low one first
 *   weight = d (0.5 + s) / 4 * point */
typedef struct {
    uint8_t d[2], qs[64], scales[8];
} iq2_xs_block;
_Static_assert(sizeof(iq2_xs_block) == 74, "IQ2_XS");

#include "../signed_grid.h"

static void iq2_xs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq2_xs_block *block = (const iq2_xs_block *)in + b;
        float d = load_f16(block->d), scale[16];
        uint64_t points[32];
        uint32_t signs[8];
        for (int k = 0; k < 8; k++) {
            scale[2 * k] = d * (0.5f + (float)(block->scales[k] & 15)) * 0.25f;
            scale[2 * k + 1] = d * (0.5f + (float)(block->scales[k] >> 4)) * 0.25f;
            signs[k] = 0;
            for (int i = 0; i < 4; i++) {
                unsigned q = load_u16(block->qs + 8 * k + 2 * i);
                points[4 * k + i] = forge_grid_iq2_xs[q & 511];
                signs[k] |= (uint32_t)forge_even_signs[q >> 9] << 8 * i;
            }
        }
        signed_grid_decode((const uint8_t *)points, signs, scale, 16, y);
    }
}

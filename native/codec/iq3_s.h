/* IQ3_S: 256 weights; each four are a point of a lattice of 512 with any signs.
 *
 *   d (f16)   index[64]: low eight bits   high[8]: the ninth bit of each of eight points   signs[32]
 *   scales[4]: a nibble for each 32 weights, low one first         weight = d (1 + 2 s) * point */
typedef struct {
    uint8_t d[2], index[64], high[8], signs[32], scales[4];
} iq3_s_block;
_Static_assert(sizeof(iq3_s_block) == 110, "IQ3_S");

#include "../signed_grid.h"

static void iq3_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq3_s_block *block = (const iq3_s_block *)in + b;
        float d = load_f16(block->d), scale[8];
        uint32_t points[64], signs[8];
        for (int k = 0; k < 8; k++) {
            scale[k] = d * (float)(1 + 2 * (block->scales[k / 2] >> 4 * (k % 2) & 15));
            signs[k] = load_u32(block->signs + 4 * k);
            for (int i = 0; i < 8; i++) {
                points[8 * k + i] = forge_grid_iq3_s[block->index[8 * k + i] | (block->high[k] >> i & 1) << 8];
            }
        }
        signed_grid_decode((const uint8_t *)points, signs, scale, 32, y);
    }
}

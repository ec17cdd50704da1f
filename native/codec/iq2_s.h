/* IQ2_S: 256 weights; each eight are a point of a lattice of 1024 with any signs.
 *
 *   d (f16)   index[32]: low eight bits   signs[32]   high[8]: two bits for each of four points
 *   scales[8]: a nibble for each 16 weights, low one first         weight = d (0.5 + s) / 4 * point */
typedef struct {
    uint8_t d[2], index[32], signs[32], high[8], scales[8];
} iq2_s_block;
_Static_assert(sizeof(iq2_s_block) == 82, "IQ2_S");

#include "../signed_grid.h"

static void iq2_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq2_s_block *block = (const iq2_s_block *)in + b;
        float d = load_f16(block->d), scale[16];
        uint64_t points[32];
        uint32_t signs[8];
        for (int k = 0; k < 8; k++) {
            scale[2 * k] = d * (0.5f + (float)(block->scales[k] & 15)) * 0.25f;
            scale[2 * k + 1] = d * (0.5f + (float)(block->scales[k] >> 4)) * 0.25f;
            signs[k] = load_u32(block->signs + 4 * k);
            for (int i = 0; i < 4; i++) {
                points[4 * k + i] = forge_grid_iq2_s[block->index[4 * k + i] | (block->high[k] >> 2 * i & 3) << 8];
            }
        }
        signed_grid_decode((const uint8_t *)points, signs, scale, 16, y);
    }
}

/* IQ1_M: 256 weights; each eight are a point of a lattice of 2048 in -1, 0, 1, shifted by an eighth.
 *
 *   index[32]: low eight bits   high[16]: - | 3 bits of index, a nibble for each 8 weights, low one first
 *   scales[4] (u16): 4 bits of d | 3 | 3 | 3 | 3 bits s, for each 16 weights; d (f16) is spread lowest bits first
 *   weight = d (2 s + 1) * (point + 1/8), or - 1/8 when the nibble's top bit is set */
typedef struct {
    uint8_t index[32], high[16], scales[8];
} iq1_m_block;
_Static_assert(sizeof(iq1_m_block) == 56, "IQ1_M");

#include "../iq1.h"

static void iq1_m_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq1_m_block *block = (const iq1_m_block *)in + b;
        unsigned words[4], half = 0;
        for (int k = 0; k < 4; k++) {
            words[k] = load_u16(block->scales + 2 * k);
            half |= words[k] >> 12 << 4 * k;
        }
        float d = f16_to_f32((uint16_t)half), scale[16], shift[32];
        uint64_t points[32];
        for (int k = 0; k < 16; k++) {
            scale[k] = d * (float)(2 * (words[k / 4] >> 3 * (k % 4) & 7) + 1);
        }
        for (int i = 0; i < 32; i++) {
            unsigned high = block->high[i / 2] >> 4 * (i % 2);
            shift[i] = high & 8 ? -0.125f : 0.125f;
            points[i] = forge_grid_iq1[block->index[i] | (high & 7) << 8];
        }
        iq1_finish(points, scale, shift, y);
    }
}

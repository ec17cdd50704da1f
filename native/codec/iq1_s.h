/* IQ1_S: 256 weights; each eight are a point of a lattice of 2048 in -1, 0, 1, all shifted by an eighth.
 *
 *   d (f16)   index[32]: low eight bits   high[8] (u16): - | sss | 3 | 3 | 3 | 3 bits of index, for each 32 weights
 *   weight = d (2 s + 1) * (point + 1/8), or - 1/8 when the top bit is set */
typedef struct {
    uint8_t d[2], index[32], high[16];
} iq1_s_block;
_Static_assert(sizeof(iq1_s_block) == 50, "IQ1_S");

#include "../iq1.h"

static void iq1_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq1_s_block *block = (const iq1_s_block *)in + b;
        float d = load_f16(block->d), scale[16], shift[32];
        uint64_t points[32];
        for (int k = 0; k < 8; k++) {
            unsigned high = load_u16(block->high + 2 * k);
            scale[2 * k] = scale[2 * k + 1] = d * (float)(2 * (high >> 12 & 7) + 1);
            for (int i = 0; i < 4; i++) {
                shift[4 * k + i] = high & 0x8000 ? -0.125f : 0.125f;
                points[4 * k + i] = forge_grid_iq1[block->index[4 * k + i] | (high >> 3 * i & 7) << 8];
            }
        }
        iq1_finish(points, scale, shift, y);
    }
}

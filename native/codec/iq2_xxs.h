/* IQ2_XXS: 256 weights; each eight are a point of a lattice of 256 with an even number of minus signs.
 *
 *   d (f16)   then for each 32 weights: index[4], and a word: ssss | 7 signs | 7 signs | 7 signs | 7 signs
 *   weight = d (0.5 + s) / 4 * point, the eighth sign making the number of signs even */
typedef struct {
    uint8_t d[2];
    struct {
        uint8_t index[4], word[4];
    } part[8];
} iq2_xxs_block;
_Static_assert(sizeof(iq2_xxs_block) == 66, "IQ2_XXS");

#include "../signed_grid.h"

static void iq2_xxs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq2_xxs_block *block = (const iq2_xxs_block *)in + b;
        float d = load_f16(block->d), scale[8];
        uint64_t points[32];
        uint32_t signs[8];
        for (int k = 0; k < 8; k++) {
            uint32_t word = load_u32(block->part[k].word);
            scale[k] = d * (0.5f + (float)(word >> 28)) * 0.25f;
            signs[k] = signed_grid_even(word);
            for (int i = 0; i < 4; i++) {
                points[4 * k + i] = forge_grid_iq2_xxs[block->part[k].index[i]];
            }
        }
        signed_grid_decode((const uint8_t *)points, signs, scale, 32, y);
    }
}

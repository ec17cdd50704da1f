/* IQ3_XXS: 256 weights; each four are a point of a lattice of 256; an even number of minus signs in each eight.
 *
 *   d (f16)   index[64]   word[8]: ssss | 7 signs | 7 signs | 7 signs | 7 signs, for each 32 weights
 *   weight = d (0.5 + s) / 2 * point */
typedef struct {
    uint8_t d[2], index[64], word[32];
} iq3_xxs_block;
_Static_assert(sizeof(iq3_xxs_block) == 98, "IQ3_XXS");

#include "../signed_grid.h"

static void iq3_xxs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq3_xxs_block *block = (const iq3_xxs_block *)in + b;
        float d = load_f16(block->d), scale[8];
        uint32_t points[64], signs[8];
        for (int k = 0; k < 8; k++) {
            uint32_t word = load_u32(block->word + 4 * k);
            scale[k] = d * (0.5f + (float)(word >> 28)) * 0.5f;
            signs[k] = signed_grid_even(word);
        }
        for (int i = 0; i < 64; i++) {
            points[i] = forge_grid_iq3_xxs[block->index[i]];
        }
        signed_grid_decode((const uint8_t *)points, signs, scale, 32, y);
    }
}

/* IQ3_XXS: 256 weights; each four are a point of a lattice of 256; an even number of minus signs in each eight.
 *
 *   d (f16)   index[64]   word[8]: ssss | 7 signs | 7 signs | 7 signs | 7 signs, for each 32 weights
 *   weight = d (0.5 + s) / 2 * point */
typedef struct {
    uint8_t d[2], index[64], word[32];
} iq3_xxs_block;
_Static_assert(sizeof(iq3_xxs_block) == 98, "IQ3_XXS");

#include "../lattice_fit.h"
#include "../signed_grid.h"

static const lattice_kind iq3_xxs_kind = {LATTICE_IQ3_XXS, 32, 4, 15, 0.2f, 1, 1, 0.f};

static VM iq3_xxs_fit(lattice_run *r, const forge_lattice *t)
{
    r->scale = vf_div(r->max, vf_set1(15.f));
    for (int k = 0; k < 8; k++) {
        r->code[k] = vi_set1(0);
    }
    lattice_try(r, iq3_xxs_kind, t, r->max);
    VM unsettled = lattice_unsettled(r, iq3_xxs_kind);
    if (vm_any(unsettled)) {
        lattice_refine(r, iq3_xxs_kind, t, unsettled, 0);
    }
    return vm_not(vf_lt(r->max, vf_set1(1e-8f)));
}

static void iq3_xxs_pack(uint8_t *out, const lattice_result *r)
{
    iq3_xxs_block *block = (iq3_xxs_block *)out;
    uint8_t bits[8];
    float d;
    memset(block, 0, sizeof *block);
    if (!lattice_scales(r->scale, 8, bits, &d)) {
        return;
    }
    store_scale(block->d, d * 1.0125f);
    for (int i = 0; i < 64; i++) {
        block->index[i] = (uint8_t)r->index[i];
    }
    for (int k = 0; k < 8; k++) {
        store_u32(block->word + 4 * k, signed_grid_sevens(r->signs + 4 * k) | (uint32_t)bits[k] << 28);
    }
}

static void iq3_xxs_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    lattice_encode(iq3_xxs_kind, iq3_xxs_fit, iq3_xxs_pack, sizeof(iq3_xxs_block), x, out, blocks, w, row_blocks);
}

static void iq3_xxs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++) {
        const iq3_xxs_block *block = (const iq3_xxs_block *)in + b;
        const float d = load_f16(block->d) * 0.25f;
        for (int k = 0; k < 8; k += 2) {
            const uint64_t words = load_u64(block->word + 4 * k), minus = signed_grid_eights(words);
            for (int i = 0; i < 4; i++, y += 16) {
                const uint8_t *q = block->index + 8 * k + 4 * i;
                const uint16_t index[4] = {q[0], q[1], q[2], q[3]};
                const int half = 32 * (i / 2);
                const float scale = d * signed_grid_odd[words >> half >> 28 & 15];
                grid_fours(forge_grid_iq3_xxs, index, (uint32_t)(minus >> half), 16 * (i % 2), scale, y);
            }
        }
    }
}

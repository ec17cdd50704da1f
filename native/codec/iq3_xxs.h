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
    store_u16(block->d, f32_to_f16(d * 1.0125f));
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
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq3_xxs_block *block = (const iq3_xxs_block *)in + b;
        const float d = load_f16(block->d) * 0.25f;
        for (int k = 0; k < 8; k++) {
            const uint32_t word = load_u32(block->word + 4 * k);
            const float scale = d * signed_grid_odd[word >> 28];
            for (int i = 0; i < 4; i += 2) {
                const uint8_t *index = block->index + 8 * k + 2 * i;
                const VB points = vb_set4(forge_grid_iq3_xxs[index[0]], forge_grid_iq3_xxs[index[1]],
                                          forge_grid_iq3_xxs[index[2]], forge_grid_iq3_xxs[index[3]]);
                const uint32_t signs = word >> 7 * i;
                const VB minus = vb_set(forge_even_signs[signs & 127], forge_even_signs[signs >> 7 & 127]);
                signed_grid_store(vb_negate(points, minus), scale, y + 32 * k + 8 * i);
            }
        }
    }
}

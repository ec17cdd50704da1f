/* IQ2_XS: 256 weights; each eight are a point of a lattice of 512 with an even number of minus signs.
 *
 *   d (f16)   qs[32]: 7 signs | 9 bits of index   scales[8]: a nibble for each 16 weights, low one first
 *   weight = d (0.5 + s) / 4 * point */
typedef struct {
    uint8_t d[2], qs[64], scales[8];
} iq2_xs_block;
_Static_assert(sizeof(iq2_xs_block) == 74, "IQ2_XS");

#include "../lattice_fit.h"
#include "../signed_grid.h"

static const lattice_kind iq2_xs_kind = {LATTICE_IQ2_XS, 16, 8, 9, 0.1f, 1, 0, 0.f};

static VM iq2_xs_fit(lattice_run *r, const forge_lattice *t)
{
    r->scale = vf_div(r->max, vf_set1(5.f));
    for (int k = 0; k < 2; k++) {
        r->code[k] = vi_set1(0);
    }
    lattice_try(r, iq2_xs_kind, t, r->max);
    VM unsettled = lattice_unsettled(r, iq2_xs_kind);
    if (vm_any(unsettled)) {
        lattice_refine(r, iq2_xs_kind, t, unsettled, 0);
    }
    return vm_not(vf_lt(r->max, vf_set1(1e-15f)));
}

static void iq2_xs_pack(uint8_t *out, const lattice_result *r)
{
    iq2_xs_block *block = (iq2_xs_block *)out;
    uint8_t bits[16];
    float d;
    memset(block, 0, sizeof *block);
    if (!lattice_scales(r->scale, 16, bits, &d)) {
        return;
    }
    store_scale(block->d, d);
    for (int i = 0; i < 32; i++) {
        store_u16(block->qs + 2 * i, r->index[i] | (unsigned)r->signs[i] << 9);
    }
    for (int k = 0; k < 8; k++) {
        block->scales[k] = (uint8_t)(bits[2 * k] | bits[2 * k + 1] << 4);
    }
}

static void iq2_xs_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    lattice_encode(iq2_xs_kind, iq2_xs_fit, iq2_xs_pack, sizeof(iq2_xs_block), x, out, blocks, w, row_blocks);
}

static void iq2_xs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq2_xs_block *block = (const iq2_xs_block *)in + b;
        const float d = load_f16(block->d) * 0.125f;
        for (int k = 0; k < 8; k++) {
            const unsigned s = block->scales[k];
            for (int i = 0; i < 4; i += 2) {
                const unsigned q0 = load_u16(block->qs + 8 * k + 2 * i), q1 = load_u16(block->qs + 8 * k + 2 * i + 2);
                const VB points = vb_set(forge_grid_iq2_xs[q0 & 511], forge_grid_iq2_xs[q1 & 511]);
                const VB minus = vb_set(forge_even_signs[q0 >> 9], forge_even_signs[q1 >> 9]);
                vb_times(y + 32 * k + 8 * i, vb_negate(points, minus), vf_set1(d * signed_grid_odd[s >> 2 * i & 15]));
            }
        }
    }
}

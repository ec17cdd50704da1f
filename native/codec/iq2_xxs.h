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

#include "../lattice_fit.h"
#include "../signed_grid.h"

static const lattice_kind iq2_xxs_kind = {LATTICE_IQ2_XXS, 32, 8, 6, 0.1f, 1, 0, 0.f};

/* A scale for magnitudes rounded to 0..4, as ggml's make_qp_quants finds it: nine first scales, then five rounds of
 * moving one weight at a time. A few magnitudes are negative; the reference keeps their integers in unsigned bytes in
 * some places and not in others, and so does this. */
V_FN VF iq2_xxs_first_scale(const lattice_run *r, VF max)
{
    const VI top = vi_set1(4), byte = vi_set1(255);
    VF zero = vf_set1(0.f), inverse = vf_div(vf_set1(4.f), max), step = vf_div(vf_set1(1.f), inverse), best = zero;
    for (int i = 0; i < 32; i++) {
        VF x = vf_load(r->x[i]);
        VF diff = vf_sub(x, vf_mul(step, vi_to_f(vi_and(vi_nearest(vf_mul(inverse, x)), byte))));
        best = vf_add(best, vf_mul(vf_mul(vf_load(r->w[i]), diff), diff));
    }
    for (int k = -4; k <= 4; k++) {
        if (k == 0) {
            continue;
        }
        VF other = vf_div(vf_set1(0.1f * (float)k + 4.f), max), error = zero;
        step = vf_div(vf_set1(1.f), other);
        for (int i = 0; i < 32; i++) {
            VF x = vf_load(r->x[i]);
            VF diff = vf_sub(x, vf_mul(step, vi_to_f(vi_min(vi_nearest(vf_mul(other, x)), top))));
            error = vf_add(error, vf_mul(vf_mul(vf_load(r->w[i]), diff), diff));
        }
        VM less = vf_lt(error, best);
        best = vf_select(less, error, best);
        inverse = vf_select(less, other, inverse);
    }
    VF lx = zero, l2 = zero;
    VI level[32];
    for (int i = 0; i < 32; i++) {
        VF x = vf_load(r->x[i]), w = vf_load(r->w[i]);
        VI l = vi_min(vi_nearest(vf_mul(inverse, x)), top);
        VF f = vi_to_f(l);
        level[i] = vi_and(l, byte);
        lx = vf_add(lx, vf_mul(vf_mul(w, x), f));
        l2 = vf_add(l2, vf_mul(vf_mul(w, f), f));
    }
    for (int round = 0; round < 5; round++) {
        VM moved = vf_lt(zero, zero);
        for (int i = 0; i < 32; i++) {
            VF x = vf_load(r->x[i]), w = vf_load(r->w[i]), f = vi_to_f(level[i]);
            VF without_lx = vf_sub(lx, vf_mul(vf_mul(w, x), f)), without_l2 = vf_sub(l2, vf_mul(vf_mul(w, f), f));
            VI l = vi_min(vi_nearest(vf_div(vf_mul(x, without_l2), without_lx)), top);
            f = vi_to_f(l);
            VF new_lx = vf_add(without_lx, vf_mul(vf_mul(w, x), f));
            VF new_l2 = vf_add(without_l2, vf_mul(vf_mul(w, f), f));
            VM better = vf_gt(vf_mul(vf_mul(new_lx, new_lx), l2), vf_mul(vf_mul(lx, lx), new_l2));
            better = vm_and(better, vm_and(vf_gt(without_lx, zero), vf_gt(without_l2, zero)));
            better = vm_andnot(better, vi_eq(l, level[i]));
            level[i] = vi_select(better, vi_and(l, byte), level[i]);
            lx = vf_select(better, new_lx, lx);
            l2 = vf_select(better, new_l2, l2);
            moved = vm_or(moved, better);
        }
        if (!vm_any(moved)) {
            break;
        }
    }
    return vf_select(vf_gt(l2, zero), vf_div(lx, l2), zero);
}

static VM iq2_xxs_fit(lattice_run *r, const forge_lattice *t)
{
    VF zero = vf_set1(0.f);
    r->scale = iq2_xxs_first_scale(r, vf_max(r->max, zero));
    VF reach = vf_mul(r->scale, vf_set1(3.f));
    VM live = vm_not(vm_or(vf_lt(r->max, vf_set1(1e-15f)), vf_le(reach, zero)));
    for (int k = 0; k < 4; k++) {
        r->code[k] = vi_set1(0);
    }
    lattice_try(r, iq2_xxs_kind, t, reach);
    VM positive = vf_gt(r->scale, zero);
    if (vm_any(positive)) {
        lattice_refine(r, iq2_xxs_kind, t, positive, 1);
    }
    return live;
}

static void iq2_xxs_pack(uint8_t *out, const lattice_result *r)
{
    iq2_xxs_block *block = (iq2_xxs_block *)out;
    uint8_t bits[8];
    float d;
    memset(block, 0, sizeof *block);
    if (!lattice_scales(r->scale, 8, bits, &d)) {
        return;
    }
    store_scale(block->d, d);
    for (int k = 0; k < 8; k++) {
        for (int i = 0; i < 4; i++) {
            block->part[k].index[i] = (uint8_t)r->index[4 * k + i];
        }
        store_u32(block->part[k].word, signed_grid_sevens(r->signs + 4 * k) | (uint32_t)bits[k] << 28);
    }
}

static void iq2_xxs_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    lattice_encode(iq2_xxs_kind, iq2_xxs_fit, iq2_xxs_pack, sizeof(iq2_xxs_block), x, out, blocks, w, row_blocks);
}

static void iq2_xxs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq2_xxs_block *block = (const iq2_xxs_block *)in + b;
        const float d = load_f16(block->d) * 0.125f;
        for (int k = 0; k < 8; k++) {
            const uint8_t *index = block->part[k].index;
            const uint32_t word = load_u32(block->part[k].word);
            const float scale = d * signed_grid_odd[word >> 28];
            for (int i = 0; i < 4; i += 2) {
                const VB points = vb_set(forge_grid_iq2_xxs[index[i]], forge_grid_iq2_xxs[index[i + 1]]);
                const uint32_t signs = word >> 7 * i;
                const VB minus = vb_set(forge_even_signs[signs & 127], forge_even_signs[signs >> 7 & 127]);
                vb_times(y + 32 * k + 8 * i, vb_negate(points, minus), vf_set1(scale));
            }
        }
    }
}

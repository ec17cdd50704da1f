/* IQ2_S: 256 weights; each eight are a point of a lattice of 1024 with any signs.
 *
 *   d (f16)   index[32]: low eight bits   signs[32]   high[8]: two bits for each of four points
 *   scales[8]: a nibble for each 16 weights, low one first         weight = d (0.5 + s) / 4 * point */
typedef struct {
    uint8_t d[2], index[32], signs[32], high[8], scales[8];
} iq2_s_block;
_Static_assert(sizeof(iq2_s_block) == 82, "IQ2_S");

#include "../lattice_fit.h"
#include "../signed_grid.h"

static const lattice_kind iq2_s_kind = {LATTICE_IQ2_S, 16, 8, 9, 0.1f, 0, 1, 0.25f};

static VM iq2_s_fit(lattice_run *r, const forge_lattice *t)
{
    r->scale = vf_div(r->max, vf_set1(5.f));
    for (int k = 0; k < 2; k++) {
        r->code[k] = vi_set1(0);
    }
    lattice_try(r, iq2_s_kind, t, r->max);
    VM unsettled = lattice_unsettled(r, iq2_s_kind);
    if (vm_any(unsettled)) {
        lattice_refine(r, iq2_s_kind, t, unsettled, 0);
    }
    return vm_not(vf_lt(r->max, vf_set1(1e-8f)));
}

static void iq2_s_pack(uint8_t *out, const lattice_result *r)
{
    iq2_s_block *block = (iq2_s_block *)out;
    uint8_t bits[16];
    float d;
    memset(block, 0, sizeof *block);
    for (int i = 0; i < 32; i++) {
        block->index[i] = (uint8_t)r->index[i];
        block->high[i / 4] |= (uint8_t)(r->index[i] >> 8 << 2 * (i % 4));
        block->signs[i] = r->signs[i];
    }
    if (lattice_scales(r->scale, 16, bits, &d)) {
        store_u16(block->d, f32_to_f16(d * 0.9875f));
        for (int k = 0; k < 8; k++) {
            block->scales[k] = (uint8_t)(bits[2 * k] | bits[2 * k + 1] << 4);
        }
    }
}

static void iq2_s_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    lattice_encode(iq2_s_kind, iq2_s_fit, iq2_s_pack, sizeof(iq2_s_block), x, out, blocks, w, row_blocks);
}

static void iq2_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq2_s_block *block = (const iq2_s_block *)in + b;
        const float d = load_f16(block->d) * 0.125f;
        for (int k = 0; k < 8; k++) {
            const uint8_t *index = block->index + 4 * k;
            const unsigned high = block->high[k], s = block->scales[k];
            for (int i = 0; i < 4; i += 2) {
                const VB points = vb_set(forge_grid_iq2_s[index[i] | (high << (8 - 2 * i) & 0x300)],
                                         forge_grid_iq2_s[index[i + 1] | (high << (6 - 2 * i) & 0x300)]);
                const VB bytes = vb_negate_bits(points, load_u16(block->signs + 4 * k + i));
                signed_grid_store(bytes, d * signed_grid_odd[s >> 2 * i & 15], y + 32 * k + 8 * i);
            }
        }
    }
}

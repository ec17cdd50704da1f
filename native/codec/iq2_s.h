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
        store_scale(block->d, d * 0.9875f);
        for (int k = 0; k < 8; k++) {
            block->scales[k] = (uint8_t)(bits[2 * k] | bits[2 * k + 1] << 4);
        }
    }
}

static void iq2_s_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    lattice_encode(iq2_s_kind, iq2_s_fit, iq2_s_pack, sizeof(iq2_s_block), x, out, blocks, w, row_blocks);
}

static void iq2_s_read(grid_parts *parts, const void *in)
{
    const iq2_s_block *block = (const iq2_s_block *)in;
    const VB high = vb_set(load_u64(block->high), 0);
    const VB even = vb_zip(vb_field(high, 0, 3), vb_field(high, 4, 3), 0);
    const VB odd = vb_zip(vb_field(high, 2, 3), vb_field(high, 6, 3), 0);
    grid_indices(parts->index, vb_load_u8(block->index), vb_zip(even, odd, 0));
    grid_indices(parts->index + 16, vb_load_u8(block->index + 16), vb_zip(even, odd, 1));
    grid_scales(parts->scale, grid_nibbles(load_u64(block->scales)), load_f16(block->d) * 0.125f);
}

static void iq2_s_write(const grid_parts *parts, const void *in, float *y)
{
    const iq2_s_block *block = (const iq2_s_block *)in;
    for (int k = 0; k < 16; k++) {
        const uint64_t *a = forge_grid_iq2_s + parts->index[2 * k], *b = forge_grid_iq2_s + parts->index[2 * k + 1];
        grid_eights(a, b, load_u16(block->signs + 2 * k), parts->scale[k], y + 16 * k);
    }
}

static void iq2_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    grid_decode(iq2_s_read, iq2_s_write, sizeof(iq2_s_block), in, y, blocks);
}

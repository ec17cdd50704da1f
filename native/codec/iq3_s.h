/* IQ3_S: 256 weights; each four are a point of a lattice of 512 with any signs.
 *
 *   d (f16)   index[64]: low eight bits   high[8]: the ninth bit of each of eight points   signs[32]
 *   scales[4]: a nibble for each 32 weights, low one first         weight = d (1 + 2 s) * point */
typedef struct {
    uint8_t d[2], index[64], high[8], signs[32], scales[4];
} iq3_s_block;
_Static_assert(sizeof(iq3_s_block) == 110, "IQ3_S");

#include "../lattice_fit.h"
#include "../signed_grid.h"

static const lattice_kind iq3_s_kind = {LATTICE_IQ3_S, 32, 4, 9, 0.2f, 0, 1, 0.f};

static VM iq3_s_fit(lattice_run *r, const forge_lattice *t)
{
    r->scale = vf_div(r->max, vf_set1(15.f));
    for (int k = 0; k < 8; k++) {
        r->code[k] = vi_set1(LATTICE_OFF);
    }
    lattice_try(r, iq3_s_kind, t, r->max);
    VM unsettled = lattice_unsettled(r, iq3_s_kind);
    if (vm_any(unsettled)) {
        lattice_refine(r, iq3_s_kind, t, unsettled, 1);
    }
    return vf_neq(r->max, vf_set1(0.f));
}

static void iq3_s_pack(uint8_t *out, const lattice_result *r)
{
    iq3_s_block *block = (iq3_s_block *)out;
    uint8_t bits[8];
    float d;
    int at = 0;
    memset(block, 0, sizeof *block);
    for (int k = 0; k < 8; k++) {
        if (r->dead[k]) {
            continue; /* and those after it move up: the reference does so, though no decoder knows */
        }
        for (int i = 0; i < 8; i++) {
            block->index[8 * at + i] = (uint8_t)r->index[8 * k + i];
            block->high[k] |= (uint8_t)(r->index[8 * k + i] >> 8 << i);
        }
        memcpy(block->signs + 4 * at, r->signs + 4 * k, 4);
        at++;
    }
    if (lattice_scales(r->scale, 8, bits, &d)) {
        store_scale(block->d, d * 1.033f);
        for (int k = 0; k < 4; k++) {
            block->scales[k] = (uint8_t)(bits[2 * k] | bits[2 * k + 1] << 4);
        }
    }
}

static void iq3_s_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    lattice_encode(iq3_s_kind, iq3_s_fit, iq3_s_pack, sizeof(iq3_s_block), x, out, blocks, w, row_blocks);
}

static void iq3_s_read(grid_parts *parts, const void *in)
{
    const iq3_s_block *block = (const iq3_s_block *)in;
    for (int k = 0; k < 8; k += 2) {
        const VB high = vb_set(forge_bits[block->high[k]], forge_bits[block->high[k + 1]]);
        grid_indices(parts->index + 8 * k, vb_load_u8(block->index + 8 * k), high);
    }
    grid_scales(parts->scale, grid_nibbles(load_u32(block->scales)), load_f16(block->d));
}

static void iq3_s_write(const grid_parts *parts, const void *in, float *y)
{
    const iq3_s_block *block = (const iq3_s_block *)in;
    for (int k = 0; k < 8; k++, y += 32) {
        const uint16_t *index = parts->index + 8 * k;
        const uint32_t minus = load_u32(block->signs + 4 * k);
        grid_fours(forge_grid_iq3_s, index, minus, 0, parts->scale[k], y);
        grid_fours(forge_grid_iq3_s, index + 4, minus, 16, parts->scale[k], y + 16);
    }
}

static void iq3_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    grid_decode(iq3_s_read, iq3_s_write, sizeof(iq3_s_block), in, y, blocks);
}

/* IQ4_NL: 32 weights, each one of 16 uneven levels times one scale.
 *
 *   d (f16)   qs[16]: byte j holds the index of weight j (low nibble) and of weight j+16 (high) */
typedef struct {
    uint8_t d[2], qs[16];
} iq4_nl_block;
_Static_assert(sizeof(iq4_nl_block) == 18, "IQ4_NL");

#include "../iq4.h"

static void iq4_nl_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    iq4_tables t = iq4_load_tables();
    for (int64_t b = 0; b < blocks; b += VN) {
        Lanes g;
        lanes_at(&g, b, blocks, 32, sizeof(iq4_nl_block), x, out, w, row_blocks);
        VF v[32], weight[32], sigma2 = vf_set1(0.f);
        vf_load_lanes(v, g.x, 32);
        for (int j = 0; j < 32; j++) {
            sigma2 = vf_add(sigma2, vf_mul(v[j], v[j]));
        }
        iq4_importance(weight, v, w != NULL ? g.w : NULL, vf_mul(sigma2, vf_set1(2.f / 32)));
        VF scale = iq4_scale(t, v, weight);
        VM some = vf_neq(scale, vf_set1(0.f));
        vf_store_f16_lanes(g.out, 0, scale);
        for (int l = 0; l < VN; l++) {
            g.out[l] += 2;
        }
        iq4_store(t, v, vf_select(some, vf_div(vf_set1(1.f), scale), vf_set1(0.f)), g.out);
    }
}

static void iq4_nl_decode(const uint8_t *in, float *y, int64_t blocks)
{
    VFT values = vf_table16(iq4_values);
    for (int64_t b = 0; b < blocks; b++, y += 32) {
        const iq4_nl_block *block = (const iq4_nl_block *)in + b;
        nibbles_decode32(values, block->qs, vf_set1(load_f16(block->d)), y);
    }
}

/* Q5_1: 32 weights, a half-float scale and minimum and five bits each; h is a little-endian word of the fifth bits.
 *
 *   byte  0   1   2   3   4 .. 7       8                                 ...  23
 *        [  d   ][  m   ][ h: bit i ][(q16 & 15) << 4 | (q0 & 15)] ... [(q31 & 15) << 4 | (q15 & 15)]
 *        q[i] = nibble | (h >> i & 1) << 4        weight i = q[i] * d + m
 */
typedef struct {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t h[4];
    uint8_t q[16];
} block_q5_1;
_Static_assert(sizeof(block_q5_1) == 24, "Q5_1 is 24 bytes");

#include "../block32.h"

V_FN void q5_1_plain(const float *x, uint8_t *out)
{
    block_q5_1 *y = (block_q5_1 *)(void *)out;
    VI q[32 / VN];
    levels_from_min(x, 31, y->d, y->m, q);
    store_five_bits(y->h, y->q, q);
}

V_FN void q5_1_weighted(const Lanes *g, const VF *x, const VF *w)
{
    VI level[32];
    fit_scale_and_min(g, x, w, 31, level);
    lanes_store_five_bits(g, 4, 8, level);
}

static void q5_1_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    encode_blocks(x, out, blocks, w, row_blocks, sizeof(block_q5_1), q5_1_plain, q5_1_weighted);
}

static void q5_1_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q5_1), y += 32) {
        const block_q5_1 *x = (const block_q5_1 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d)), m = vf_set1(load_f16(x->m));
        const VI h = spread_fifth_bits(x->h);
        for (int i = 0; i < 16; i += VN) {
            VI low, high;
            load_five_bits(x->q, h, i, &low, &high);
            vf_store(y + i, vf_add(vf_mul(vi_to_f(low), d), m));
            vf_store(y + 16 + i, vf_add(vf_mul(vi_to_f(high), d), m));
        }
    }
}

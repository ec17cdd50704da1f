/* Q4_1: 32 weights, a half-float scale and minimum and four bits each.
 *
 *   byte  0   1   2   3   4             ...  19
 *        [  d   ][  m   ][q16 << 4 | q0] ... [q31 << 4 | q15]        weight i = q[i] * d + m
 */
typedef struct {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t q[16];
} block_q4_1;
_Static_assert(sizeof(block_q4_1) == 20, "Q4_1 is 20 bytes");

#include "../block32.h"

V_FN void q4_1_plain(const float *x, uint8_t *out)
{
    block_q4_1 *y = (block_q4_1 *)(void *)out;
    VI q[32 / VN];
    levels_from_min(x, 15, y->d, y->m, q);
    store_nibbles(y->q, q);
}

V_FN void q4_1_weighted(const Lanes *g, const VF *x, const VF *w)
{
    VI level[32];
    fit_scale_and_min(g, x, w, 15, level);
    lanes_store_nibbles(g, 4, level);
}

static void q4_1_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    encode_blocks(x, out, blocks, w, row_blocks, sizeof(block_q4_1), q4_1_plain, q4_1_weighted);
}

static void q4_1_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q4_1), y += 32) {
        const block_q4_1 *x = (const block_q4_1 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d)), m = vf_set1(load_f16(x->m));
        for (int i = 0; i < 16; i += VN) {
            VI q = vi_load_u8(x->q + i);
            vf_store(y + i, vf_add(vf_mul(vi_to_f(vi_and(q, vi_set1(15))), d), m));
            vf_store(y + 16 + i, vf_add(vf_mul(vi_to_f(vi_shr(q, 4)), d), m));
        }
    }
}

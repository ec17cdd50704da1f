/* Q4_0: 32 weights, a half-float scale and four bits each.
 *
 *   byte  0   1   2             3          ...  17
 *        [  d   ][q16 << 4 | q0][q17 << 4 | q1] ... [q31 << 4 | q15]        weight i = (q[i] - 8) * d
 */
typedef struct {
    uint8_t d[2];
    uint8_t q[16];
} block_q4_0;
_Static_assert(sizeof(block_q4_0) == 18, "Q4_0 is 18 bytes");

#include "../block32.h"

V_FN void q4_0_plain(const float *x, uint8_t *out)
{
    block_q4_0 *y = (block_q4_0 *)(void *)out;
    VI q[32 / VN];
    levels_from_peak(x, 8, y->d, q);
    store_nibbles(y->q, q);
}

V_FN void q4_0_weighted(const Lanes *g, const VF *x, const VF *w)
{
    VI level[32];
    fit_scale(g, x, w, 8, level);
    lanes_store_nibbles(g, 2, level);
}

static void q4_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    encode_blocks(x, out, blocks, w, row_blocks, sizeof(block_q4_0), q4_0_plain, q4_0_weighted);
}

static void q4_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q4_0), y += 32) {
        const block_q4_0 *x = (const block_q4_0 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d));
        for (int i = 0; i < 16; i += VN) {
            VI q = vi_load_u8(x->q + i);
            vf_store(y + i, vf_mul(vi_to_f(vi_sub(vi_and(q, vi_set1(15)), vi_set1(8))), d));
            vf_store(y + 16 + i, vf_mul(vi_to_f(vi_sub(vi_shr(q, 4), vi_set1(8))), d));
        }
    }
}

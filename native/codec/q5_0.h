/* Q5_0: 32 weights, a half-float scale and five bits each; h is a little-endian word of the fifth bits.
 *
 *   byte  0   1   2 .. 5       6                                 ...  21
 *        [  d   ][ h: bit i ][(q16 & 15) << 4 | (q0 & 15)] ... [(q31 & 15) << 4 | (q15 & 15)]
 *        q[i] = nibble | (h >> i & 1) << 4        weight i = (q[i] - 16) * d
 */
typedef struct {
    uint8_t d[2];
    uint8_t h[4];
    uint8_t q[16];
} block_q5_0;
_Static_assert(sizeof(block_q5_0) == 22, "Q5_0 is 22 bytes");

#include "../block32.h"

V_FN void q5_0_plain(const float *x, uint8_t *out)
{
    block_q5_0 *y = (block_q5_0 *)(void *)out;
    VI q[32 / VN];
    levels_from_peak(x, 16, y->d, q);
    store_five_bits(y->h, y->q, q);
}

V_FN void q5_0_weighted(const Lanes *g, const VF *x, const VF *w)
{
    VI level[32];
    fit_scale(g, x, w, 16, level);
    lanes_store_five_bits(g, 2, 6, level);
}

static void q5_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    encode_blocks(x, out, blocks, w, row_blocks, sizeof(block_q5_0), q5_0_plain, q5_0_weighted);
}

/* The fifth bits ready for load_five_bits: lane l holds h >> l. */
V_FN VI spread_fifth_bits(const uint8_t *h)
{
    static const int32_t lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vi_shrv(vi_set1((int32_t)load_u32(h)), vi_load(lane));
}

/* Levels i .. i + VN - 1 of a block's nibbles and fifth bits; i < 16 also gives those 16 further on. */
V_FN void load_five_bits(const uint8_t *q, VI h, int i, VI *low, VI *high)
{
    VI bytes = vi_load_u8(q + i), fifth = vi_set1(16);
    VI bit = i < 4 ? vi_shl(h, 4 - i) : vi_shr(h, i - 4);
    *low = vi_or(vi_and(bytes, vi_set1(15)), vi_and(bit, fifth));
    *high = vi_or(vi_shr(bytes, 4), vi_and(vi_shr(h, 12 + i), fifth));
}

static void q5_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q5_0), y += 32) {
        const block_q5_0 *x = (const block_q5_0 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d));
        const VI h = spread_fifth_bits(x->h);
        for (int i = 0; i < 16; i += VN) {
            VI low, high;
            load_five_bits(x->q, h, i, &low, &high);
            vf_store(y + i, vf_mul(vi_to_f(vi_sub(low, vi_set1(16))), d));
            vf_store(y + 16 + i, vf_mul(vi_to_f(vi_sub(high, vi_set1(16))), d));
        }
    }
}

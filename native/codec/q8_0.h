/* Q8_0: 32 weights, a half-float scale and a signed byte each.
 *
 *   byte  0   1   2   3  ...  33
 *        [  d   ][q0][q1] ... [q31]        weight i = q[i] * d
 */
typedef struct {
    uint8_t d[2];
    uint8_t q[32];
} block_q8_0;
_Static_assert(sizeof(block_q8_0) == 34, "Q8_0 is 34 bytes");

static void q8_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w; /* the reference ignores importance here */
    (void)row_blocks;
    for (int64_t b = 0; b < blocks; b++, x += 32, out += sizeof(block_q8_0)) {
        block_q8_0 *y = (block_q8_0 *)(void *)out;
        VF peak = vf_abs(vf_load(x));
        for (int i = VN; i < 32; i += VN) {
            peak = vf_max(peak, vf_abs(vf_load(x + i)));
        }
        float d = vf_hmax(peak) / 127;
        VF inverse = vf_set1(d != 0 ? 1 / d : 0);
        store_scale(y->d, d);
        VI q[32 / VN];
        for (int i = 0; i < 32 / VN; i++) {
            /* 1/d is infinite for the smallest d: products are then infinite or NaN, and the byte is 0. */
            VI r = vi_round_away(vf_mul(vf_load(x + i * VN), inverse));
            q[i] = vi_select(vi_eq(r, vi_set1(INT_MIN)), vi_set1(0), r);
        }
        vi_store_i8(y->q, q, 32 / VN);
    }
}

static void q8_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q8_0), y += 32) {
        const block_q8_0 *x = (const block_q8_0 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d));
        for (int i = 0; i < 32; i += VN) {
            vf_store(y + i, vf_mul(vi_to_f(vi_load_i8(x->q + i)), d));
        }
    }
}

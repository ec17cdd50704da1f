/* TQ1_0: 256 weights of -1, 0, 1 times one scale, five to a byte.
 *
 *   qs[48]                                  qh[4]                      d (f16)
 *   bytes 0..31: weights m, m+32, .. m+128  byte j: weights 240+j, 244+j, 248+j, 252+j
 *   bytes 32..47: weights 160+m, 176+m, .. 224+m
 *
 * A byte holds a fraction of 256: its base-3 digits, highest first, are the trits plus one. Multiplying by three
 * carries the next digit out of the low eight bits. Four trits leave the lowest digit 0. */
typedef struct {
    uint8_t qs[48], qh[4], d[2];
} tq1_0_block;
_Static_assert(sizeof(tq1_0_block) == 54, "TQ1_0");

#include "../trits.h"

/* Packs `digits` trits from planes `stride` apart; `lanes` bytes at q, lanes a multiple of VN or less than it. */
V_FN VI tq1_0_pack(const float *x, int stride, int digits, VF id)
{
    VI q = vi_set1(0);
    for (int n = 0; n < digits; n++) {
        q = vi_add(vi_add(q, vi_shl(q, 1)), trits(vf_mul(vf_load(x + n * stride), id)));
    }
    return q;
}

/* Five digits, 0..242, to a fraction of 256, rounded up so that the digits come back: ceil(q * 256 / 243). */
V_FN VI tq1_0_fraction(VI q)
{
    /* q + ceil(13 q / 243); 13 q + 242 <= 3388, where (n * 8631) >> 21 is n / 243 */
    VI n = vi_add(vi_mul(q, vi_set1(13)), vi_set1(242));
    return vi_add(q, vi_shr(vi_mul(n, vi_set1(8631)), 21));
}

static void tq1_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w, (void)row_blocks;
    for (int64_t b = 0; b < blocks; b++, x += 256) {
        tq1_0_block *block = (tq1_0_block *)out + b;
        float d = abs_max(x, 256);
        VF id = vf_set1(trits_inverse(d));
        for (int m = 0; m < 48; m += VN) {
            const float *at = m < 32 ? x + m : x + 160 + m - 32;
            VI q = tq1_0_fraction(tq1_0_pack(at, m < 32 ? 32 : 16, 5, id));
            vi_store_u8(block->qs + m, &q, 1);
        }
        float tail[16 + 12] = {0};
        memcpy(tail, x + 240, 16 * sizeof *x);
        for (int j = 0; j < 4; j += VN) {
            VI q = tq1_0_pack(tail + j, 4, 4, id);
            uint8_t bytes[16];
            q = tq1_0_fraction(vi_add(q, vi_shl(q, 1)));
            vi_store_u8(bytes, &q, 1);
            memcpy(block->qh + j, bytes, VN < 4 ? VN : 4);
        }
        store_scale(block->d, d);
    }
}

/* 16 weights: the next trit of each fraction, less one, times d; *q keeps the rest. */
V_FN void tq1_0_next(VB *q, VF d, float *y)
{
    vb_times(y, vb_sub(vb_triple(q), vb_set1(1)), d);
}

/* Four fractions without their first digits. */
static inline uint32_t tq1_0_rest(uint32_t q)
{
    return ((q & 0x00ff00ff) * 3 & 0x00ff00ff) | ((q >> 8 & 0x00ff00ff) * 3 & 0x00ff00ff) << 8;
}

static void tq1_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const tq1_0_block *block = (const tq1_0_block *)in + b;
        const VF d = vf_set1(load_f16(block->d));
        for (int m = 0; m < 48; m += 16) {
            VB q = vb_load_u8(block->qs + m);
            for (int n = 0; n < 5; n++) {
                tq1_0_next(&q, d, m < 32 ? y + m + 32 * n : y + 160 + 16 * n);
            }
        }
        const uint32_t q0 = load_u32(block->qh), q1 = tq1_0_rest(q0), q2 = tq1_0_rest(q1);
        VB q = vb_set4(q0, q1, q2, tq1_0_rest(q2));
        tq1_0_next(&q, d, y + 240);
    }
}

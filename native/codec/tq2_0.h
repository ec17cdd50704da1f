/* TQ2_0: 256 weights of -1, 0 or 1 times one scale; two bits a weight, four weights a byte.
 *
 *   byte  0 .. 31                                     32 .. 63                                           64  65
 *        [q96+m << 6 | q64+m << 4 | q32+m << 2 | qm] [q224+m << 6 | q192+m << 4 | q160+m << 2 | q128+m] [  d  ]
 *   m < 32        weight i = d * (qi - 1)        A q of 3, the weight 2, is read, but never written.
 */
typedef struct {
    uint8_t qs[64], d[2];
} tq2_0_block;
_Static_assert(sizeof(tq2_0_block) == 66, "TQ2_0");

#include "../trits.h"

static void tq2_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w, (void)row_blocks;
    for (int64_t b = 0; b < blocks; b++, x += 256) {
        tq2_0_block *block = (tq2_0_block *)out + b;
        float d = abs_max(x, 256);
        VF id = vf_set1(trits_inverse(d));
        for (int m = 0; m < 64; m += VN) {
            const float *at = x + m + (m < 32 ? 0 : 96);
            VI q = trits(vf_mul(vf_load(at), id));
            q = vi_or(q, vi_shl(trits(vf_mul(vf_load(at + 32), id)), 2));
            q = vi_or(q, vi_shl(trits(vf_mul(vf_load(at + 64), id)), 4));
            q = vi_or(q, vi_shl(trits(vf_mul(vf_load(at + 96), id)), 6));
            vi_store_u8(block->qs + m, &q, 1);
        }
        store_scale(block->d, d);
    }
}

static void tq2_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const tq2_0_block *block = (const tq2_0_block *)in + b;
        VF d = vf_set1(load_f16(block->d));
        VI three = vi_set1(3), one = vi_set1(1);
        for (int m = 0; m < 64; m += VN) {
            float *at = y + m + (m < 32 ? 0 : 96);
            VI q = vi_load_u8(block->qs + m);
            vf_store(at, vf_mul(vi_to_f(vi_sub(vi_and(q, three), one)), d));
            vf_store(at + 32, vf_mul(vi_to_f(vi_sub(vi_and(vi_shr(q, 2), three), one)), d));
            vf_store(at + 64, vf_mul(vi_to_f(vi_sub(vi_and(vi_shr(q, 4), three), one)), d));
            vf_store(at + 96, vf_mul(vi_to_f(vi_sub(vi_shr(q, 6), one)), d));
        }
    }
}

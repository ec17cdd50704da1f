/* MXFP4: 32 weights of E2M1 times a power of two.
 *
 *   e: 2^(e - 127), the values being E2M1's   qs[16]: byte j holds weight j (low nibble) and j+16 (high) */
typedef struct {
    uint8_t e, qs[16];
} mxfp4_block;
_Static_assert(sizeof(mxfp4_block) == 17, "MXFP4");

#include "../fp4.h"
#include "../nibbles.h"

/* 2^(e - 128), for doubled values. */
static inline float mxfp4_scale(unsigned e)
{
    return bits_to_f32(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
}

/* floor(log2f(a)) for a > 0, the logarithm being rounded to a float: the last few floats below 2^k, more of them as k
 * is farther from 0, have one that rounds up to k. */
static inline int mxfp4_exponent(float a)
{
    const int small = a < 0x1p-100f;
    const uint32_t bits = f32_to_bits(small ? a * 0x1p64f : a);
    const int next = (int)(bits >> 23) - 126 - (small ? 64 : 0), m = next > 0 ? next - 1 : -next;
    const int up = m > 0 ? 88 >> (134 - (int)(f32_to_bits((float)m) >> 23)) : 0;
    return 0x800000 - (int)(bits & 0x7fffff) <= up ? next : next - 1;
}

static void mxfp4_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w, (void)row_blocks;
    for (int64_t b = 0; b < blocks; b++, x += 32) {
        mxfp4_block *block = (mxfp4_block *)out + b;
        VF top = vf_set1(0.f);
        for (int i = 0; i < 32; i += VN) {
            top = vf_max(top, vf_abs(vf_load(x + i)));
        }
        float amax = vf_hmax(top);
        /* Below 2^-125 the exponent wraps around, as it does in ggml; all weights then become zeros. */
        block->e = (uint8_t)(amax > 0.f ? mxfp4_exponent(amax) - 2 + 127 : 0);
        const float d = mxfp4_scale(block->e);
        VI q[32 / VN];
        if (d > 0x1p-100f || amax == 0.f) {
            /* Dividing by a power of two is exact, or loses what is far below the first midpoint. */
            const VF inverse = vf_set1(amax == 0.f ? 0.f : 1.f / d);
            for (int i = 0; i < 32 / VN; i++) {
                q[i] = fp4_count_ones(vf_mul(vf_load(x + i * VN), inverse));
            }
        } else {
            for (int i = 0; i < 32 / VN; i++) {
                q[i] = fp4_nearest(vf_load(x + i * VN), vf_set1(d));
            }
        }
        fp4_pack(q, 32, block->qs);
    }
}

static void mxfp4_decode(const uint8_t *in, float *y, int64_t blocks)
{
    VFT table = vf_table16(fp4_values);
    for (int64_t b = 0; b < blocks; b++, y += 32) {
        const mxfp4_block *block = (const mxfp4_block *)in + b;
        nibbles_decode32(table, block->qs, vf_set1(mxfp4_scale(block->e)), y);
    }
}

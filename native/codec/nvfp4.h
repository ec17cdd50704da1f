/* NVFP4: 64 weights of E2M1 in four sub-blocks of 16, each with a scale of unsigned E4M3.
 *
 *   d[4]: s | eeee | mmm, s ignored   qs[32]: sub-block k in bytes 8k..8k+7, byte j weight j (low nibble) and j+8 */
typedef struct {
    uint8_t d[4], qs[32];
} nvfp4_block;
_Static_assert(sizeof(nvfp4_block) == 36, "NVFP4");

#include "../fp4.h"
#include "../nibbles.h"

/* Half of the E4M3 number, for doubled values. 0x7f, which would be NaN, reads as 0. */
static inline float nvfp4_scale(unsigned d)
{
    if (d == 0x7f) {
        return 0.f;
    }
    unsigned exponent = d >> 3 & 15, mantissa = d & 7;
    return exponent == 0 ? (float)mantissa * 0x1p-10f : bits_to_f32((exponent + 119) << 23 | mantissa << 20);
}

/* a >= 0 to E4M3, halves up. From 256 on ggml writes the largest number, 448. */
static inline uint8_t nvfp4_scale_of(float a)
{
    if (!(a < 256.f)) {
        return 0x7e;
    }
    if (a < 0x1p-6f) {
        int mantissa = (int)(a * 512.f + 0.5f);
        return (uint8_t)(mantissa > 7 ? 7 : mantissa);
    }
    uint32_t code = (f32_to_bits(a) + (1u << 19)) >> 20; /* a carry out of the mantissa raises the exponent */
    code -= 120 << 3;
    return (uint8_t)(code >= 0x78 ? 0x7e : code);
}

static void nvfp4_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w, (void)row_blocks;
    for (int64_t b = 0; b < blocks; b++) {
        nvfp4_block *block = (nvfp4_block *)out + b;
        for (int s = 0; s < 4; s++, x += 16) {
            VF top = vf_set1(0.f);
            for (int i = 0; i < 16; i += VN) {
                top = vf_max(top, vf_abs(vf_load(x + i)));
            }
            const float amax = vf_hmax(top);
            block->d[s] = nvfp4_scale_of(amax / 6.f);
            const float d = nvfp4_scale(block->d[s]);
            VI q[16 / VN];
            if (d == 0.f || amax < 64.f * d) {
                const VF unit = vf_set1(d > 0.f ? d : INFINITY); /* where all values are 0 the first is taken */
                for (int i = 0; i < 16 / VN; i++) {
                    q[i] = fp4_count(vf_load(x + i * VN), unit);
                }
            } else {
                for (int i = 0; i < 16 / VN; i++) {
                    q[i] = fp4_nearest(vf_load(x + i * VN), vf_set1(d));
                }
            }
            fp4_pack(q, 16, block->qs + 8 * s);
        }
    }
}

/* Indices are spread well before they are loaded as vectors: a load that spans fresh stores has to wait for them. */
static void nvfp4_decode(const uint8_t *in, float *y, int64_t blocks)
{
    enum { TOGETHER = 8 };
    VFT table = vf_table16(fp4_values);
    for (int64_t b = 0; b < blocks; b += TOGETHER) {
        const nvfp4_block *block = (const nvfp4_block *)in + b;
        const int n = blocks - b < TOGETHER ? (int)(blocks - b) : TOGETHER;
        uint8_t index[64 * TOGETHER];
        float scale[4 * TOGETHER];
        for (int s = 0; s < 4 * n; s++) {
            nibbles_spread16(block[s / 4].qs + s % 4 * 8, index + 16 * s);
            scale[s] = nvfp4_scale(block[s / 4].d[s % 4]);
        }
        for (int i = 0; i < 64 * n; i += VN) {
            vf_store(y + i, vf_mul(vf_lookup16(table, vi_load_u8(index + i)), vf_set1(scale[i / 16])));
        }
        y += 64 * n;
    }
}

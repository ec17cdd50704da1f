/* NVFP4: 64 weights of E2M1 in four sub-blocks of 16, each with a scale of unsigned E4M3.
 *
 *   d[4]: s | eeee | mmm, s ignored   qs[32]: sub-block k in bytes 8k..8k+7, byte j weight j (low nibble) and j+8 */
typedef struct {
    uint8_t d[4], qs[32];
} nvfp4_block;
_Static_assert(sizeof(nvfp4_block) == 36, "NVFP4");

#include "../fp4.h"

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

/* nvfp4_scale of each byte: rows of eight mantissas, n / 8 the first, by exponent; only 0x7f is no number. */
#define NVFP4_SEVEN(n, unit) n * unit, (n + 1) * unit, (n + 2) * unit, (n + 3) * unit, (n + 4) * unit, (n + 5) * unit, \
    (n + 6) * unit
#define NVFP4_EIGHT(n, unit) NVFP4_SEVEN(n, unit), (n + 7) * unit
#define NVFP4_BUT_LAST \
    NVFP4_EIGHT(0, 0x1p-10f), NVFP4_EIGHT(8, 0x1p-10f), NVFP4_EIGHT(8, 0x1p-9f), NVFP4_EIGHT(8, 0x1p-8f), \
    NVFP4_EIGHT(8, 0x1p-7f), NVFP4_EIGHT(8, 0x1p-6f), NVFP4_EIGHT(8, 0x1p-5f), NVFP4_EIGHT(8, 0x1p-4f), \
    NVFP4_EIGHT(8, 0x1p-3f), NVFP4_EIGHT(8, 0x1p-2f), NVFP4_EIGHT(8, 0x1p-1f), NVFP4_EIGHT(8, 1.f), \
    NVFP4_EIGHT(8, 2.f), NVFP4_EIGHT(8, 4.f), NVFP4_EIGHT(8, 8.f), NVFP4_SEVEN(8, 16.f)
static const float nvfp4_scales[256] = {NVFP4_BUT_LAST, 0.f, NVFP4_BUT_LAST, 15 * 16.f};

static void nvfp4_decode(const uint8_t *in, float *y, int64_t blocks)
{
    const VB table = vb_load(fp4_bytes);
    for (int64_t b = 0; b < blocks; b++, y += 64) {
        const nvfp4_block *block = (const nvfp4_block *)in + b;
        for (int s = 0; s < 4; s++) {
            const VB bytes = vb_lookup(table, vb_nibbles(block->qs + 8 * s));
            vb_times(y + 16 * s, bytes, vf_set1(nvfp4_scales[block->d[s]]));
        }
    }
}

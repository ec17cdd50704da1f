/* NEON, which every AArch64 processor has: four lanes. */
#include "begin.h"

#if defined(__aarch64__)
#include "half.h"
#include <arm_neon.h>

static int forge_isa_supported(void) { return 1; }

#define VN 4
typedef float32x4_t VF;
typedef int32x4_t VI;
typedef uint32x4_t VM; /* all ones or all zeros a lane */
typedef uint8x16x4_t VFT;

V_FN VI u2i(uint32x4_t a) { return vreinterpretq_s32_u32(a); }
V_FN uint32x4_t i2u(VI a) { return vreinterpretq_u32_s32(a); }

V_FN VF vf_set1(float f) { return vdupq_n_f32(f); }
V_FN VF vf_load(const float *p) { return vld1q_f32(p); }
V_FN void vf_store(float *p, VF a) { vst1q_f32(p, a); }
V_FN VF vf_add(VF a, VF b) { return vaddq_f32(a, b); }
V_FN VF vf_sub(VF a, VF b) { return vsubq_f32(a, b); }
V_FN VF vf_mul(VF a, VF b) { return vmulq_f32(a, b); }
V_FN VF vf_div(VF a, VF b) { return vdivq_f32(a, b); }
V_FN VF vf_sqrt(VF a) { return vsqrtq_f32(a); }
V_FN VF vf_round_even(VF a) { return vrndnq_f32(a); }
/* Not FMIN and FMAX: those order -0 below +0 and pass NaNs on. */
V_FN VF vf_min(VF a, VF b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
V_FN VF vf_max(VF a, VF b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
V_FN VF vf_abs(VF a) { return vabsq_f32(a); }
V_FN VF vf_neg(VF a) { return vnegq_f32(a); }
V_FN VM vf_lt(VF a, VF b) { return vcltq_f32(a, b); }
V_FN VM vf_le(VF a, VF b) { return vcleq_f32(a, b); }
V_FN VM vf_gt(VF a, VF b) { return vcgtq_f32(a, b); }
V_FN VM vf_ge(VF a, VF b) { return vcgeq_f32(a, b); }
V_FN VM vf_eq(VF a, VF b) { return vceqq_f32(a, b); }
V_FN VM vf_neq(VF a, VF b) { return vmvnq_u32(vceqq_f32(a, b)); }
V_FN VF vf_select(VM m, VF a, VF b) { return vbslq_f32(m, a, b); }
V_FN float vf_hmax(VF a) { return vmaxvq_f32(a); }
V_FN float vf_hmin(VF a) { return vminvq_f32(a); }

V_FN VI vi_set1(int32_t i) { return vdupq_n_s32(i); }
V_FN VI vi_load(const int32_t *p) { return vld1q_s32(p); }
V_FN void vi_store(int32_t *p, VI a) { vst1q_s32(p, a); }
V_FN VI vi_add(VI a, VI b) { return vaddq_s32(a, b); }
V_FN VI vi_sub(VI a, VI b) { return vsubq_s32(a, b); }
V_FN VI vi_mul(VI a, VI b) { return vmulq_s32(a, b); }
V_FN VI vi_pairs(VI a, VI b)
{
    const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    return vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(y)), vmull_high_s16(x, y));
}
V_FN VI vi_and(VI a, VI b) { return vandq_s32(a, b); }
V_FN VI vi_or(VI a, VI b) { return vorrq_s32(a, b); }
V_FN VI vi_xor(VI a, VI b) { return veorq_s32(a, b); }
V_FN VI vi_min(VI a, VI b) { return vminq_s32(a, b); }
V_FN VI vi_max(VI a, VI b) { return vmaxq_s32(a, b); }
V_FN VI vi_shl(VI a, int k) { return vshlq_s32(a, vdupq_n_s32(k)); }
V_FN VI vi_shr(VI a, int k) { return u2i(vshlq_u32(i2u(a), vdupq_n_s32(-k))); }
V_FN VI vi_sar(VI a, int k) { return vshlq_s32(a, vdupq_n_s32(-k)); }
V_FN VI vi_shrv(VI a, VI b) { return u2i(vshlq_u32(i2u(a), vnegq_s32(b))); }
V_FN VM vi_eq(VI a, VI b) { return vceqq_s32(a, b); }
V_FN VM vi_gt(VI a, VI b) { return vcgtq_s32(a, b); }
V_FN VI vi_select(VM m, VI a, VI b) { return vbslq_s32(m, a, b); }
V_FN VI vi_previous(VI before, VI a) { return vextq_s32(before, a, 3); }

V_FN VI vf_trunc(VF a)
{
    VM fits = vandq_u32(vcgeq_f32(a, vdupq_n_f32(-2147483648.f)), vcltq_f32(a, vdupq_n_f32(2147483648.f)));
    return vbslq_s32(fits, vcvtq_s32_f32(a), vdupq_n_s32(INT_MIN));
}
V_FN VF vi_to_f(VI a) { return vcvtq_f32_s32(a); }
V_FN VI vf_bits(VF a) { return vreinterpretq_s32_f32(a); }
V_FN VF vi_as_f(VI a) { return vreinterpretq_f32_s32(a); }

V_FN VF vf_at_most(VF a, VF top) { return vminq_f32(a, top); }
V_FN VF vf_not_negative(VF a) { return vmaxq_f32(a, vdupq_n_f32(0)); }

V_FN VM vm_and(VM a, VM b) { return vandq_u32(a, b); }
V_FN VM vm_or(VM a, VM b) { return vorrq_u32(a, b); }
V_FN VM vm_andnot(VM a, VM b) { return vbicq_u32(a, b); }
V_FN VM vm_not(VM a) { return vmvnq_u32(a); }
V_FN int vm_any(VM a) { return vmaxvq_u32(a) != 0; }
V_FN int vm_all(VM a) { return vminvq_u32(a) != 0; }
V_FN uint32x4_t lane_bit(void)
{
    static const uint32_t bits[4] = {1, 2, 4, 8};
    return vld1q_u32(bits);
}
V_FN uint32_t vm_bits(VM a) { return vaddvq_u32(vandq_u32(a, lane_bit())); }
V_FN VM vm_from_bits(uint32_t u) { return vtstq_u32(vdupq_n_u32(u), lane_bit()); }

V_FN VI vi_load_u8(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return u2i(vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four)))));
}
V_FN VI vi_load_i8(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four))));
}
V_FN VI vi_load_u16(const uint8_t *p) { return u2i(vmovl_u16(vreinterpret_u16_u8(vld1_u8(p)))); }
V_FN void vi_store_high(uint8_t *p, VI a) { vst1_u8(p, vreinterpret_u8_u16(vshrn_n_u32(i2u(a), 16))); }
V_FN void vi_store_u8(uint8_t *p, const VI *v, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        uint16x8_t a = vcombine_u16(vmovn_u32(i2u(v[i])), vmovn_u32(i2u(v[i + 1])));
        uint16x8_t b = vcombine_u16(vmovn_u32(i2u(v[i + 2])), vmovn_u32(i2u(v[i + 3])));
        vst1q_u8(p + 4 * i, vcombine_u8(vmovn_u16(a), vmovn_u16(b)));
    }
    for (; i < n; i++) {
        uint16x4_t h = vmovn_u32(i2u(v[i]));
        uint32_t four = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(h, h))), 0);
        memcpy(p + 4 * i, &four, sizeof four);
    }
}
V_FN void vi_store_i8(uint8_t *p, const VI *v, int n) { vi_store_u8(p, v, n); }

typedef int8x16_t VB;
V_FN VB vb_load(const int8_t *p) { return vld1q_s8(p); }
V_FN VB vb_nibbles(const uint8_t *p)
{
    uint8x8_t q = vld1_u8(p);
    return vreinterpretq_s8_u8(vcombine_u8(vand_u8(q, vdup_n_u8(15)), vshr_n_u8(q, 4)));
}
V_FN VB vb_load_u8(const uint8_t *p) { return vreinterpretq_s8_u8(vld1q_u8(p)); }
V_FN void vb_store(uint8_t *p, VB a) { vst1q_u8(p, vreinterpretq_u8_s8(a)); }
V_FN VB vb_set1(int i) { return vdupq_n_s8((int8_t)i); }
V_FN VB vb_sub(VB a, VB b) { return vsubq_s8(a, b); }
V_FN VB vb_or(VB a, VB b) { return vorrq_s8(a, b); }
V_FN VB vb_field(VB a, int k, int mask)
{
    uint8x16_t shifted = vshlq_u8(vreinterpretq_u8_s8(a), vdupq_n_s8((int8_t)-k));
    return vreinterpretq_s8_u8(vandq_u8(shifted, vdupq_n_u8((uint8_t)mask)));
}
V_FN uint32_t vb_bits(VB a, int k)
{
    const int8x16_t up = vcombine_s8(vcreate_s8(0x0706050403020100u), vcreate_s8(0x0706050403020100u));
    uint8x16_t bits = vandq_u8(vshlq_u8(vreinterpretq_u8_s8(a), vdupq_n_s8((int8_t)-k)), vdupq_n_u8(1));
    bits = vshlq_u8(bits, up);
    return (uint32_t)vaddv_u8(vget_low_u8(bits)) | (uint32_t)vaddv_u8(vget_high_u8(bits)) << 8;
}
V_FN VB vb_lookup(VB t, VB i) { return vqtbl1q_s8(t, vreinterpretq_u8_s8(i)); }
V_FN VB vb_set(uint64_t low, uint64_t high) { return vcombine_s8(vcreate_s8(low), vcreate_s8(high)); }
V_FN VB vb_set4(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return vb_set(a | (uint64_t)b << 32, c | (uint64_t)d << 32);
}
V_FN VB vb_negate(VB a, VB where) { return vsubq_s8(veorq_s8(a, where), where); }
V_FN VB vb_zip(VB a, VB b, int half) { return half ? vzip2q_s8(a, b) : vzip1q_s8(a, b); }
V_FN VB vb_triple(VB *a)
{
    uint8x16_t q = vreinterpretq_u8_s8(*a), one = vcgtq_u8(q, vdupq_n_u8(85)), two = vcgtq_u8(q, vdupq_n_u8(170));
    *a = vaddq_s8(vaddq_s8(*a, *a), *a);
    return vnegq_s8(vreinterpretq_s8_u8(vaddq_u8(one, two)));
}
V_FN VI vb_widen(VB a, int i)
{
    int16x8_t half = vmovl_s8(i < 2 ? vget_low_s8(a) : vget_high_s8(a));
    return vmovl_s16(i % 2 ? vget_high_s16(half) : vget_low_s16(half));
}

/* Tables of up to 16 words as 64 bytes: word i is bytes 4 i .. 4 i + 3. */
V_FN VFT table_words(const uint8_t *p, int words)
{
    VFT t;
    for (int k = 0; k < 4; k++) {
        t.val[k] = vld1q_u8(p + 16 * (k % (words / 4)));
    }
    return t;
}
V_FN uint8x16_t table_at(VFT t, VI i)
{
    VI bytes = vaddq_s32(vmulq_s32(i, vdupq_n_s32(0x04040404)), vdupq_n_s32(0x03020100));
    return vqtbl4q_u8(t, vreinterpretq_u8_s32(bytes));
}
V_FN VFT vf_table16(const float *p) { return table_words((const uint8_t *)p, 16); }
V_FN VFT vf_table8(const float *p) { return table_words((const uint8_t *)p, 8); }
V_FN VFT vf_table4(const float *p) { return table_words((const uint8_t *)p, 4); }
V_FN VF vf_lookup16(VFT t, VI i) { return vreinterpretq_f32_u8(table_at(t, i)); }
V_FN VF vf_lookup8(VFT t, VI i) { return vf_lookup16(t, vandq_s32(i, vdupq_n_s32(7))); }
V_FN VF vf_lookup4(VFT t, VI i) { return vf_lookup16(t, vandq_s32(i, vdupq_n_s32(3))); }

V_FN VI vi_eights(const uint64_t *a, const uint64_t *b, int i)
{
    int16x8_t eight = vmovl_s8(vcreate_s8(i < 8 ? *a : *b));
    return vmovl_s16(i % 8 ? vget_high_s16(eight) : vget_low_s16(eight));
}
V_FN VF vf_fours(const float (*grid)[4], const uint16_t *index, int i) { return vf_load(grid[index[i / 4]]); }
V_FN VF vf_negate_bits(VF a, uint32_t u, int i)
{
    static const int32_t to_top[4] = {31, 30, 29, 28};
    uint32x4_t up = vshlq_u32(vdupq_n_u32(u), vsubq_s32(vld1q_s32(to_top), vdupq_n_s32(i)));
    return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(a), vandq_u32(up, vdupq_n_u32(0x80000000u))));
}

V_FN VF vf_from_f16(VI h) { return vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(i2u(h)))); }
V_FN uint16x4_t halves(VF a)
{
    uint16x4_t h = vmin_u16(vreinterpret_u16_f16(vcvt_f16_f32(a)), vdup_n_u16(0xfe00)); /* NaNs are 0x7e00 and more, */
    return vreinterpret_u16_s16(vmin_s16(vreinterpret_s16_u16(h), vdup_n_s16(0x7e00))); /* with either sign */
}
V_FN VI vf_to_f16(VF a) { return u2i(vmovl_u16(halves(a))); }
V_FN void vf_store_f16(uint8_t *p, VF a) { vst1_u8(p, vreinterpret_u8_u16(halves(a))); }
V_FN float f16_to_f32(uint16_t h) { return vgetq_lane_f32(vf_from_f16(vdupq_n_s32(h)), 0); }
V_FN uint16_t f32_to_f16(float f) { return soft_f32_to_f16(f); }

/* 4 x 4 of words: r[l] word i becomes r[i] word l. */
V_FN void transpose4(uint32x4_t *r)
{
    uint32x4_t a = vzip1q_u32(r[0], r[2]), b = vzip2q_u32(r[0], r[2]);
    uint32x4_t c = vzip1q_u32(r[1], r[3]), d = vzip2q_u32(r[1], r[3]);
    r[0] = vzip1q_u32(a, c);
    r[1] = vzip2q_u32(a, c);
    r[2] = vzip1q_u32(b, d);
    r[3] = vzip2q_u32(b, d);
}
V_FN void vf_load_lanes(VF *out, const float *const *p, int n)
{
    for (int i = 0; i < n; i += 4) {
        uint32x4_t r[4];
        for (int l = 0; l < 4; l++) {
            r[l] = vreinterpretq_u32_f32(vld1q_f32(p[l] + i));
        }
        transpose4(r);
        for (int l = 0; l < 4; l++) {
            out[i + l] = vreinterpretq_f32_u32(r[l]);
        }
    }
}
/* Four vectors become one of four bytes a lane; four of those are transposed so that a lane's 16 bytes are adjacent. */
V_FN uint32x4_t merge4(const VI *v)
{
    VI byte = vi_set1(0xff);
    VI low = vi_or(vi_and(v[0], byte), vshlq_n_s32(vi_and(v[1], byte), 8));
    VI high = vi_or(vi_and(v[2], byte), vshlq_n_s32(v[3], 8));
    return i2u(vi_or(low, vshlq_n_s32(high, 16)));
}
V_FN void vi_store_lanes_u8(uint8_t *const *p, const VI *v, int n)
{
    for (int i = 0; i < n; i += 16) {
        uint32x4_t r[4] = {merge4(v + i), merge4(v + i + 4), merge4(v + i + 8), merge4(v + i + 12)};
        transpose4(r);
        for (int l = 0; l < 4; l++) {
            vst1q_u8(p[l] + i, vreinterpretq_u8_u32(r[l]));
        }
    }
}

V_FN void stream(uint8_t *dst, const uint8_t *src, size_t bytes) { memcpy(dst, src, bytes); }
V_FN void stream_end(void) {}

#define FORGE_BACKEND forge_neon
#define FORGE_BACKEND_NAME "neon"
#include "vocabulary.h"
#include "table.h"
#else
typedef int forge_neon_empty;
#endif

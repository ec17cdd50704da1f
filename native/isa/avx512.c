/* AVX-512 (F, BW, DQ, VL): sixteen lanes. */
#include "begin.h"

#if defined(__x86_64__)
#include "half.h"
#include "intrinsics_x86.h"
#include "cpu_x86.h"
#include "target.h"

static int forge_isa_supported(void) { return cpu_has_avx512(); }

TARGET_BEGIN("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")
TARGET_TUNE("prefer-vector-width=512")

#define VN 16
typedef __m512 VF;
typedef __m512i VI;
typedef __mmask16 VM;

V_FN VF vf_set1(float f) { return _mm512_set1_ps(f); }
V_FN VF vf_load(const float *p) { return _mm512_loadu_ps(p); }
V_FN void vf_store(float *p, VF a) { _mm512_storeu_ps(p, a); }
V_FN VF vf_add(VF a, VF b) { return _mm512_add_ps(a, b); }
V_FN VF vf_sub(VF a, VF b) { return _mm512_sub_ps(a, b); }
V_FN VF vf_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
V_FN VF vf_div(VF a, VF b) { return _mm512_div_ps(a, b); }
V_FN VF vf_sqrt(VF a) { return _mm512_sqrt_ps(a); }
V_FN VF vf_round_even(VF a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_FN VF vf_min(VF a, VF b) { return _mm512_min_ps(a, b); }
V_FN VF vf_max(VF a, VF b) { return _mm512_max_ps(a, b); }
V_FN VF vf_abs(VF a) { return _mm512_abs_ps(a); }
V_FN VF vf_neg(VF a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
V_FN VM vf_lt(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
V_FN VM vf_le(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
V_FN VM vf_gt(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
V_FN VM vf_ge(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
V_FN VM vf_eq(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
V_FN VM vf_neq(VF a, VF b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
V_FN VF vf_select(VM m, VF a, VF b) { return _mm512_mask_blend_ps(m, b, a); }
V_FN float vf_hmax(VF a) { return _mm512_reduce_max_ps(a); }
V_FN float vf_hmin(VF a) { return _mm512_reduce_min_ps(a); }

V_FN VI vi_set1(int32_t i) { return _mm512_set1_epi32(i); }
V_FN VI vi_load(const int32_t *p) { return _mm512_loadu_si512(p); }
V_FN void vi_store(int32_t *p, VI a) { _mm512_storeu_si512(p, a); }
V_FN VI vi_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
V_FN VI vi_sub(VI a, VI b) { return _mm512_sub_epi32(a, b); }
V_FN VI vi_mul(VI a, VI b) { return _mm512_mullo_epi32(a, b); }
V_FN VI vi_pairs(VI a, VI b) { return _mm512_madd_epi16(a, b); }
V_FN VI vi_and(VI a, VI b) { return _mm512_and_si512(a, b); }
V_FN VI vi_or(VI a, VI b) { return _mm512_or_si512(a, b); }
V_FN VI vi_xor(VI a, VI b) { return _mm512_xor_si512(a, b); }
V_FN VI vi_min(VI a, VI b) { return _mm512_min_epi32(a, b); }
V_FN VI vi_max(VI a, VI b) { return _mm512_max_epi32(a, b); }
V_FN VI vi_shl(VI a, int k) { return _mm512_slli_epi32(a, (unsigned)k); }
V_FN VI vi_shr(VI a, int k) { return _mm512_srli_epi32(a, (unsigned)k); }
V_FN VI vi_sar(VI a, int k) { return _mm512_srai_epi32(a, (unsigned)k); }
V_FN VI vi_shrv(VI a, VI b) { return _mm512_srlv_epi32(a, b); }
V_FN VM vi_eq(VI a, VI b) { return _mm512_cmpeq_epi32_mask(a, b); }
V_FN VM vi_gt(VI a, VI b) { return _mm512_cmpgt_epi32_mask(a, b); }
V_FN VI vi_select(VM m, VI a, VI b) { return _mm512_mask_blend_epi32(m, b, a); }
V_FN VI vi_previous(VI before, VI a) { return _mm512_alignr_epi32(a, before, 15); }

V_FN VI vf_trunc(VF a) { return _mm512_cvttps_epi32(a); }
V_FN VF vi_to_f(VI a) { return _mm512_cvtepi32_ps(a); }
V_FN VI vf_bits(VF a) { return _mm512_castps_si512(a); }
V_FN VF vi_as_f(VI a) { return _mm512_castsi512_ps(a); }

V_FN VF vf_at_most(VF a, VF top) { return vi_as_f(vi_min(vf_bits(a), vf_bits(top))); }
V_FN VF vf_not_negative(VF a) { return vi_as_f(vi_max(vf_bits(a), vi_set1(0))); }

V_FN VM vm_and(VM a, VM b) { return (VM)(a & b); }
V_FN VM vm_or(VM a, VM b) { return (VM)(a | b); }
V_FN VM vm_andnot(VM a, VM b) { return (VM)(a & ~b); }
V_FN VM vm_not(VM a) { return (VM)~a; }
V_FN int vm_any(VM a) { return a != 0; }
V_FN int vm_all(VM a) { return a == 0xffff; }
V_FN uint32_t vm_bits(VM a) { return a; }
V_FN VM vm_from_bits(uint32_t u) { return (VM)u; }

V_FN VI vi_load_u8(const uint8_t *p) { return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)); }
V_FN VI vi_load_i8(const uint8_t *p) { return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)); }
V_FN VI vi_load_u16(const uint8_t *p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)); }
V_FN void vi_store_high(uint8_t *p, VI a)
{
    const VI odd = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 31, 29, 27, 25, 23, 21, 19,
                                    17, 15, 13, 11, 9, 7, 5, 3, 1);
    _mm256_storeu_si256((__m256i *)p, _mm512_castsi512_si256(_mm512_permutexvar_epi16(odd, a)));
}
V_FN void vi_store_u8(uint8_t *p, const VI *v, int n)
{
    for (int i = 0; i < n; i++) {
        _mm_storeu_si128((__m128i *)(p + 16 * i), _mm512_cvtepi32_epi8(v[i]));
    }
}
V_FN void vi_store_i8(uint8_t *p, const VI *v, int n) { vi_store_u8(p, v, n); }

#include "bytes_x86.h"
V_FN VI vb_widen(VB a, int i)
{
    (void)i;
    return _mm512_cvtepi8_epi32(a);
}

typedef __m512 VFT;
V_FN VFT vf_table16(const float *p) { return vf_load(p); }
V_FN VFT vf_table8(const float *p) { return _mm512_broadcast_f32x8(_mm256_loadu_ps(p)); }
V_FN VFT vf_table4(const float *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
V_FN VF vf_lookup16(VFT t, VI i) { return _mm512_permutexvar_ps(i, t); }
V_FN VF vf_lookup8(VFT t, VI i) { return _mm512_permutexvar_ps(i, t); } /* both halves hold the table */
V_FN VF vf_lookup4(VFT t, VI i) { return _mm512_permutevar_ps(t, i); }
V_FN VI vi_eights(const uint64_t *a, const uint64_t *b, int i)
{
    (void)i;
    return _mm512_cvtepi8_epi32(vb_set(*a, *b));
}
V_FN VF vf_fours(const float (*grid)[4], const uint16_t *index, int i)
{
    (void)i;
    __m256 half[2];
    for (int k = 0; k < 2; k++, index += 2) {
        __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(grid[index[0]]));
        half[k] = _mm256_insertf128_ps(low, _mm_loadu_ps(grid[index[1]]), 1);
    }
    return _mm512_insertf32x8(_mm512_castps256_ps512(half[0]), half[1], 1);
}
V_FN VF vf_negate_bits(VF a, uint32_t u, int i) { return _mm512_mask_xor_ps(a, (VM)(u >> i), a, vf_set1(-0.0f)); }

V_FN float f16_to_f32(uint16_t h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h))); }
V_FN uint16_t f32_to_f16(float f) { return soft_f32_to_f16(f); }
V_FN VF vf_from_f16(VI h) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(h)); }
V_FN __m256i halves(VF a)
{
    __m256i h = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); /* NaNs are 0x7e00 and more, with either sign */
    return _mm256_min_epi16(_mm256_min_epu16(h, _mm256_set1_epi16(-0x200)), _mm256_set1_epi16(0x7e00));
}
V_FN VI vf_to_f16(VF a) { return _mm512_cvtepu16_epi32(halves(a)); }
V_FN void vf_store_f16(uint8_t *p, VF a) { _mm256_storeu_si256((__m256i *)p, halves(a)); }

/* 16 x 16: pairs, then fours inside 128-bit quarters, then the quarters themselves. */
V_FN void transpose16(VF *out, const float *const *p, int at)
{
    VF r[16], t[16];
    for (int l = 0; l < 16; l++) {
        r[l] = _mm512_loadu_ps(p[l] + at);
    }
    for (int l = 0; l < 16; l += 2) {
        t[l] = _mm512_unpacklo_ps(r[l], r[l + 1]);
        t[l + 1] = _mm512_unpackhi_ps(r[l], r[l + 1]);
    }
    for (int l = 0; l < 16; l += 4) {
        for (int i = 0; i < 2; i++) {
            __m512d a = _mm512_castps_pd(t[l + i]), b = _mm512_castps_pd(t[l + 2 + i]);
            r[l + 2 * i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            r[l + 2 * i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    for (int i = 0; i < 4; i++) {
        VF a = _mm512_shuffle_f32x4(r[i], r[4 + i], 0x88), b = _mm512_shuffle_f32x4(r[i], r[4 + i], 0xdd);
        VF c = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0x88), d = _mm512_shuffle_f32x4(r[8 + i], r[12 + i], 0xdd);
        out[i] = _mm512_shuffle_f32x4(a, c, 0x88);
        out[8 + i] = _mm512_shuffle_f32x4(a, c, 0xdd);
        out[4 + i] = _mm512_shuffle_f32x4(b, d, 0x88);
        out[12 + i] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
V_FN void vf_load_lanes(VF *out, const float *const *p, int n)
{
    for (int i = 0; i < n; i += 16) {
        transpose16(out + i, p, i);
    }
}
/* Four vectors become one of four bytes a lane; four of those are transposed so that a lane's 16 bytes are adjacent. */
V_FN void vi_store_lanes_u8(uint8_t *const *p, const VI *v, int n)
{
    for (int i = 0; i < n; i += 16) {
        VI a = merge4(v + i), b = merge4(v + i + 4), c = merge4(v + i + 8), d = merge4(v + i + 12);
        VI ab = _mm512_unpacklo_epi32(a, b), AB = _mm512_unpackhi_epi32(a, b);
        VI cd = _mm512_unpacklo_epi32(c, d), CD = _mm512_unpackhi_epi32(c, d);
        VI q[4] = {_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd), _mm512_unpacklo_epi64(AB, CD),
                   _mm512_unpackhi_epi64(AB, CD)};
        for (int l = 0; l < 4; l++) {
            _mm_storeu_si128((__m128i *)(p[l] + i), _mm512_castsi512_si128(q[l]));
            _mm_storeu_si128((__m128i *)(p[4 + l] + i), _mm512_extracti32x4_epi32(q[l], 1));
            _mm_storeu_si128((__m128i *)(p[8 + l] + i), _mm512_extracti32x4_epi32(q[l], 2));
            _mm_storeu_si128((__m128i *)(p[12 + l] + i), _mm512_extracti32x4_epi32(q[l], 3));
        }
    }
}

#include "stream_x86.h"

#define FORGE_BACKEND forge_avx512
#define FORGE_BACKEND_NAME "avx512"
#include "vocabulary.h"

#if __has_include(<avx512vnniintrin.h>)
TARGET_END
TARGET_BEGIN("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
TARGET_TUNE("prefer-vector-width=512")
#define FAR_PRODUCT far_product_fused
#define NEAR_PRODUCT near_product_fused
#define FAR_ADD_PAIRS(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
#include "../fit/far_product.h"
#undef FAR_ADD_PAIRS
#undef NEAR_PRODUCT
#undef FAR_PRODUCT
#define FAR_FUSED cpu_has_avx512_vnni
TARGET_END
TARGET_BEGIN("avx2,f16c,avx512f,avx512bw,avx512dq,avx512vl")
TARGET_TUNE("prefer-vector-width=512")
#endif

#include "table.h"

TARGET_END
#else
typedef int forge_avx512_empty;
#endif

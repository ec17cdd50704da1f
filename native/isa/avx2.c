/* AVX2 with F16C: eight lanes. FMA is there but must not be used: it would change the last bit. */
#include "begin.h"

#if defined(__x86_64__)
#include "half.h"
#include "intrinsics_x86.h"
#include "cpu_x86.h"
#include "target.h"

static int forge_isa_supported(void) { return cpu_has_avx2(); }

TARGET_BEGIN("avx2,f16c")

#define VN 8
typedef __m256 VF;
typedef __m256i VI;
typedef __m256 VM; /* all ones or all zeros a lane */

V_FN VF vf_set1(float f) { return _mm256_set1_ps(f); }
V_FN VF vf_load(const float *p) { return _mm256_loadu_ps(p); }
V_FN void vf_store(float *p, VF a) { _mm256_storeu_ps(p, a); }
V_FN VF vf_add(VF a, VF b) { return _mm256_add_ps(a, b); }
V_FN VF vf_sub(VF a, VF b) { return _mm256_sub_ps(a, b); }
V_FN VF vf_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
V_FN VF vf_div(VF a, VF b) { return _mm256_div_ps(a, b); }
V_FN VF vf_sqrt(VF a) { return _mm256_sqrt_ps(a); }
V_FN VF vf_round_even(VF a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
V_FN VF vf_min(VF a, VF b) { return _mm256_min_ps(a, b); }
V_FN VF vf_max(VF a, VF b) { return _mm256_max_ps(a, b); }
V_FN VF vf_abs(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
V_FN VF vf_neg(VF a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
V_FN VM vf_lt(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
V_FN VM vf_le(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
V_FN VM vf_gt(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_GT_OQ); }
V_FN VM vf_ge(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_GE_OQ); }
V_FN VM vf_eq(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
V_FN VM vf_neq(VF a, VF b) { return _mm256_cmp_ps(a, b, _CMP_NEQ_UQ); }
V_FN VF vf_select(VM m, VF a, VF b) { return _mm256_blendv_ps(b, a, m); }
V_FN float vf_hmax(VF a)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
V_FN float vf_hmin(VF a)
{
    __m128 m = _mm_min_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    m = _mm_min_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_min_ss(m, _mm_movehdup_ps(m)));
}

V_FN VI vi_set1(int32_t i) { return _mm256_set1_epi32(i); }
V_FN VI vi_load(const int32_t *p) { return _mm256_loadu_si256((const __m256i *)p); }
V_FN void vi_store(int32_t *p, VI a) { _mm256_storeu_si256((__m256i *)p, a); }
V_FN VI vi_add(VI a, VI b) { return _mm256_add_epi32(a, b); }
V_FN VI vi_sub(VI a, VI b) { return _mm256_sub_epi32(a, b); }
V_FN VI vi_mul(VI a, VI b) { return _mm256_mullo_epi32(a, b); }
V_FN VI vi_pairs(VI a, VI b) { return _mm256_madd_epi16(a, b); }
V_FN VI vi_and(VI a, VI b) { return _mm256_and_si256(a, b); }
V_FN VI vi_or(VI a, VI b) { return _mm256_or_si256(a, b); }
V_FN VI vi_xor(VI a, VI b) { return _mm256_xor_si256(a, b); }
V_FN VI vi_min(VI a, VI b) { return _mm256_min_epi32(a, b); }
V_FN VI vi_max(VI a, VI b) { return _mm256_max_epi32(a, b); }
V_FN VI vi_shl(VI a, int k) { return _mm256_slli_epi32(a, k); }
V_FN VI vi_shr(VI a, int k) { return _mm256_srli_epi32(a, k); }
V_FN VI vi_sar(VI a, int k) { return _mm256_srai_epi32(a, k); }
V_FN VI vi_shrv(VI a, VI b) { return _mm256_srlv_epi32(a, b); }
V_FN VM vi_eq(VI a, VI b) { return _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)); }
V_FN VM vi_gt(VI a, VI b) { return _mm256_castsi256_ps(_mm256_cmpgt_epi32(a, b)); }
V_FN VI vi_select(VM m, VI a, VI b) { return _mm256_blendv_epi8(b, a, _mm256_castps_si256(m)); }
V_FN VI vi_previous(VI before, VI a) { return _mm256_alignr_epi8(a, _mm256_permute2x128_si256(before, a, 0x21), 12); }

V_FN VI vf_trunc(VF a) { return _mm256_cvttps_epi32(a); }
V_FN VF vi_to_f(VI a) { return _mm256_cvtepi32_ps(a); }
V_FN VI vf_bits(VF a) { return _mm256_castps_si256(a); }
V_FN VF vi_as_f(VI a) { return _mm256_castsi256_ps(a); }

V_FN VF vf_at_most(VF a, VF top) { return vi_as_f(vi_min(vf_bits(a), vf_bits(top))); }
V_FN VF vf_not_negative(VF a) { return vi_as_f(vi_max(vf_bits(a), vi_set1(0))); }

V_FN VM vm_and(VM a, VM b) { return _mm256_and_ps(a, b); }
V_FN VM vm_or(VM a, VM b) { return _mm256_or_ps(a, b); }
V_FN VM vm_andnot(VM a, VM b) { return _mm256_andnot_ps(b, a); }
V_FN VM vm_not(VM a) { return _mm256_xor_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32(-1))); }
V_FN int vm_any(VM a) { return _mm256_movemask_ps(a) != 0; }
V_FN int vm_all(VM a) { return _mm256_movemask_ps(a) == 0xff; }
V_FN uint32_t vm_bits(VM a) { return (uint32_t)_mm256_movemask_ps(a); }
V_FN VM vm_from_bits(uint32_t u)
{
    VI bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return vi_eq(vi_and(vi_set1((int32_t)u), bit), bit);
}

V_FN VI vi_load_u8(const uint8_t *p) { return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
V_FN VI vi_load_i8(const uint8_t *p) { return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)); }
V_FN VI vi_load_u16(const uint8_t *p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)); }
V_FN __m128i narrow_u16(VI a)
{
    return _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
}
V_FN void vi_store_high(uint8_t *p, VI a) { _mm_storeu_si128((__m128i *)p, narrow_u16(vi_shr(a, 16))); }
V_FN void vi_store_u8(uint8_t *p, const VI *v, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        VI a = _mm256_packs_epi32(v[i], v[i + 1]), b = _mm256_packs_epi32(v[i + 2], v[i + 3]);
        VI c = _mm256_packus_epi16(a, b);
        vi_store((int32_t *)(void *)(p + 8 * i),
                 _mm256_permutevar8x32_epi32(c, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
    for (; i < n; i++) {
        __m128i h = narrow_u16(v[i]);
        _mm_storel_epi64((__m128i *)(p + 8 * i), _mm_packus_epi16(h, h));
    }
}
V_FN void vi_store_i8(uint8_t *p, const VI *v, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        VI a = _mm256_packs_epi32(v[i], v[i + 1]), b = _mm256_packs_epi32(v[i + 2], v[i + 3]);
        VI c = _mm256_packs_epi16(a, b);
        vi_store((int32_t *)(void *)(p + 8 * i),
                 _mm256_permutevar8x32_epi32(c, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    }
    for (; i < n; i++) {
        __m128i h = _mm_packs_epi32(_mm256_castsi256_si128(v[i]), _mm256_extracti128_si256(v[i], 1));
        _mm_storel_epi64((__m128i *)(p + 8 * i), _mm_packs_epi16(h, h));
    }
}

#include "bytes_x86.h"
V_FN VI vb_widen(VB a, int i) { return _mm256_cvtepi8_epi32(i ? _mm_unpackhi_epi64(a, a) : a); }

typedef struct {
    VF low, high;
} VFT;
V_FN VFT vf_table16(const float *p) { return (VFT){vf_load(p), vf_load(p + 8)}; }
V_FN VFT vf_table8(const float *p) { return (VFT){vf_load(p), vf_load(p)}; }
V_FN VFT vf_table4(const float *p)
{
    VF four = _mm256_broadcast_ps((const __m128 *)(const void *)p);
    return (VFT){four, four};
}
V_FN VF vf_lookup16(VFT t, VI i)
{
    return vf_select(vi_as_f(vi_shl(i, 28)), _mm256_permutevar8x32_ps(t.high, i), _mm256_permutevar8x32_ps(t.low, i));
}
V_FN VF vf_lookup8(VFT t, VI i) { return _mm256_permutevar8x32_ps(t.low, i); }
V_FN VF vf_lookup4(VFT t, VI i) { return _mm256_permutevar_ps(t.low, i); }
V_FN VI vi_eights(const uint64_t *a, const uint64_t *b, int i)
{
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(i ? b : a)));
}
V_FN VF vf_fours(const float (*grid)[4], const uint16_t *index, int i)
{
    __m256 low = _mm256_castps128_ps256(_mm_loadu_ps(grid[index[i / 4]]));
    return _mm256_insertf128_ps(low, _mm_loadu_ps(grid[index[i / 4 + 1]]), 1);
}
V_FN VF vf_negate_bits(VF a, uint32_t u, int i)
{
    VI to_top = vi_sub(_mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24), vi_set1(i));
    VI sign = vi_and(_mm256_sllv_epi32(vi_set1((int32_t)u), to_top), vi_set1(INT_MIN));
    return _mm256_xor_ps(a, vi_as_f(sign));
}

V_FN float f16_to_f32(uint16_t h) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h))); }
V_FN uint16_t f32_to_f16(float f) { return soft_f32_to_f16(f); }
V_FN VF vf_from_f16(VI h) { return _mm256_cvtph_ps(narrow_u16(h)); }
V_FN __m128i halves(VF a)
{
    __m128i h = _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT); /* NaNs are 0x7e00 and more, with either sign */
    return _mm_min_epi16(_mm_min_epu16(h, _mm_set1_epi16(-0x200)), _mm_set1_epi16(0x7e00));
}
V_FN VI vf_to_f16(VF a) { return _mm256_cvtepu16_epi32(halves(a)); }
V_FN void vf_store_f16(uint8_t *p, VF a) { _mm_storeu_si128((__m128i *)p, halves(a)); }

/* 8 x 8: pairs, then fours inside 128-bit halves, then the halves themselves. */
V_FN void transpose8(VF *out, const float *const *p, int at)
{
    VF r[8], t[8];
    for (int l = 0; l < 4; l++) { /* halves first: row l beside row l + 4, by loads */
        r[l] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p[l] + at)), _mm_loadu_ps(p[l + 4] + at), 1);
        r[4 + l] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p[l] + at + 4)),
                                        _mm_loadu_ps(p[l + 4] + at + 4), 1);
    }
    for (int h = 0; h < 8; h += 4) {
        t[0] = _mm256_unpacklo_ps(r[h], r[h + 1]);
        t[1] = _mm256_unpackhi_ps(r[h], r[h + 1]);
        t[2] = _mm256_unpacklo_ps(r[h + 2], r[h + 3]);
        t[3] = _mm256_unpackhi_ps(r[h + 2], r[h + 3]);
        for (int i = 0; i < 2; i++) {
            __m256d a = _mm256_castps_pd(t[i]), b = _mm256_castps_pd(t[i + 2]);
            out[h + 2 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            out[h + 2 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    }
}
V_FN void vf_load_lanes(VF *out, const float *const *p, int n)
{
    for (int i = 0; i < n; i += 8) {
        transpose8(out + i, p, i);
    }
}
/* Four vectors become one of four bytes a lane; four of those are transposed so that a lane's 16 bytes are adjacent. */
V_FN void vi_store_lanes_u8(uint8_t *const *p, const VI *v, int n)
{
    for (int i = 0; i < n; i += 16) {
        VI a = merge4(v + i), b = merge4(v + i + 4), c = merge4(v + i + 8), d = merge4(v + i + 12);
        VI ab = _mm256_unpacklo_epi32(a, b), AB = _mm256_unpackhi_epi32(a, b);
        VI cd = _mm256_unpacklo_epi32(c, d), CD = _mm256_unpackhi_epi32(c, d);
        VI q[4] = {_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd), _mm256_unpacklo_epi64(AB, CD),
                   _mm256_unpackhi_epi64(AB, CD)};
        for (int l = 0; l < 4; l++) {
            _mm_storeu_si128((__m128i *)(p[l] + i), _mm256_castsi256_si128(q[l]));
            _mm_storeu_si128((__m128i *)(p[4 + l] + i), _mm256_extracti128_si256(q[l], 1));
        }
    }
}

#include "stream_x86.h"

#define FORGE_BACKEND forge_avx2
#define FORGE_BACKEND_NAME "avx2"
#include "vocabulary.h"
#include "table.h"

TARGET_END
#else
typedef int forge_avx2_empty;
#endif

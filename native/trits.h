/* What the block types with one scale and few values share: the largest magnitude, and rounding to -1, 0, 1. */
#ifndef FORGE_TRITS_H
#define FORGE_TRITS_H

/* The largest |x[i]| of n; n is a multiple of 16. */
V_FN float abs_max(const float *x, int n)
{
    VF top = vf_set1(0.f);
    for (int i = 0; i < n; i += VN) {
        top = vf_max(top, vf_abs(vf_load(x + i)));
    }
    return vf_hmax(top);
}

/* 1/d, or 0 where that is no number to multiply by. ggml then rounds infinities and NaNs, which gives trit 0 on
 * x86-64: what a factor of 0 gives too. */
static inline float trits_inverse(float d)
{
    float id = d > 0.f ? 1.f / d : 0.f;
    return id <= 3.4028234663852886e38f ? id : 0.f;
}

/* round(a) + 1 for |a| < 1.5, halves away from zero. */
V_FN VI trits(VF a)
{
    VI up = vi_select(vf_ge(a, vf_set1(0.5f)), vi_set1(2), vi_set1(1));
    return vi_select(vf_le(a, vf_set1(-0.5f)), vi_set1(0), up);
}

#endif

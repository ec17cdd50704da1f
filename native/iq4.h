/* The 16 uneven levels of IQ4_NL and IQ4_XS, and the search for a block's scale. */
#ifndef FORGE_IQ4_H
#define FORGE_IQ4_H

#include "nibbles.h"

static const float iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

/* Half way from each value to the next: there ggml takes the upper one. */
static const float iq4_edges[16] = {-115.5f, -93.5f, -74.f, -57.f, -42.f, -28.5f, -16.f, -4.5f,
                                    7.f,     19.f,   31.5f, 45.5f, 61.f,  79.f,   101.f, 0.f};

typedef struct {
    VFT values, edges;
} iq4_tables;

V_FN iq4_tables iq4_load_tables(void)
{
    return (iq4_tables){vf_table16(iq4_values), vf_table16(iq4_edges)};
}

/* The index of the value nearest to a; 15 for a NaN. A binary search in four comparisons. */
V_FN VI iq4_nearest(iq4_tables t, VF a)
{
    VI zero = vi_set1(0);
    VI index = vi_select(vf_lt(a, vf_set1(iq4_edges[7])), zero, vi_set1(8));
    for (int step = 4; step > 0; step >>= 1) {
        VF edge = vf_lookup16(t.edges, vi_add(index, vi_set1(step - 1)));
        index = vi_add(index, vi_select(vf_lt(a, edge), zero, vi_set1(step)));
    }
    return index;
}

typedef struct {
    VF qx, q2; /* sums of w q x and w q q */
} iq4_sums;

V_FN iq4_sums iq4_try(iq4_tables t, const VF x[32], const VF w[32], VF inverse)
{
    iq4_sums s = {vf_set1(0.f), vf_set1(0.f)};
    for (int j = 0; j < 32; j++) {
        VF q = vf_lookup16(t.values, iq4_nearest(t, vf_mul(inverse, x[j])));
        VF wq = vf_mul(w[j], q);
        s.qx = vf_add(s.qx, vf_mul(wq, x[j]));
        s.q2 = vf_add(s.q2, vf_mul(wq, q));
    }
    return s;
}

/* The scale of each lane's 32 weights x under importances w: a first guess from the largest weight, then fifteen
 * others; 0 where all weights are below 1e-15. */
V_FN VF iq4_scale(iq4_tables t, const VF x[32], const VF w[32])
{
    VF zero = vf_set1(0.f), amax = zero, max = zero;
    for (int j = 0; j < 32; j++) {
        VF a = vf_abs(x[j]);
        max = vf_select(vf_gt(a, amax), x[j], max);
        amax = vf_max(a, amax);
    }
    VF d = vf_div(vf_neg(max), vf_set1(iq4_values[0]));
    iq4_sums s = iq4_try(t, x, w, vf_div(vf_set1(1.f), d));
    d = vf_select(vf_gt(s.q2, zero), vf_div(s.qx, s.q2), zero);
    VF best = vf_mul(d, s.qx);
    for (int i = -7; i <= 7; i++) {
        s = iq4_try(t, x, w, vf_div(vf_set1((float)i + iq4_values[0]), max));
        VM better = vm_and(vf_gt(s.q2, zero), vf_gt(vf_mul(s.qx, s.qx), vf_mul(best, s.q2)));
        d = vf_select(better, vf_div(s.qx, s.q2), d);
        best = vf_select(better, vf_mul(d, s.qx), best);
    }
    return vf_select(vf_lt(amax, vf_set1(1e-15f)), zero, d);
}

/* Importances of 32 weights: from the given ones and the mean square, or the weights' squares. */
V_FN void iq4_importance(VF w[32], const VF x[32], const float *const *given, VF sigma2)
{
    if (given != NULL) {
        vf_load_lanes(w, given, 32);
    }
    for (int j = 0; j < 32; j++) {
        VF square = vf_mul(x[j], x[j]);
        w[j] = given != NULL ? vf_mul(w[j], vf_sqrt(vf_add(sigma2, square))) : square;
    }
}

/* The indices of x times inverse, as 16 bytes a lane. */
V_FN void iq4_store(iq4_tables t, const VF x[32], VF inverse, uint8_t *const *out)
{
    VI q[16];
    for (int j = 0; j < 16; j++) {
        VI high = vi_shl(iq4_nearest(t, vf_mul(inverse, x[16 + j])), 4);
        q[j] = vi_or(iq4_nearest(t, vf_mul(inverse, x[j])), high);
    }
    vi_store_lanes_u8(out, q, 16);
}

#endif

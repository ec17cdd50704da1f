/* Errors carried to later columns: from one chunk to the next, which is the product that most of a fit's time goes into,
 * and within a chunk from each 64 columns to the next.
 *
 * Both sides are rounded to 12 bits, with a scale for each row and chunk, and their products summed as integers: exact in
 * any order, so alike on every instruction set, and two products a lane and instruction. What the rounding changes is a
 * thousandth of what rounding weights to levels does. */
#ifndef FORGE_FIT_FAR_H
#define FORGE_FIT_FAR_H

#define FAR_PRODUCT far_product_plain
#define NEAR_PRODUCT near_product_plain
#define FAR_ADD_PAIRS(sum, a, b) vi_add(sum, vi_pairs(a, b))
#include "far_product.h"
#undef FAR_ADD_PAIRS
#undef NEAR_PRODUCT
#undef FAR_PRODUCT

enum { FIT_FAR = 2047 }; /* the largest integer */

static inline int64_t fit_chunks(int64_t n) { return (n + FIT_CHUNK - 1) / FIT_CHUNK; }

/* What a column takes of one chunk, n columns of its row of U: integers, and their unit.
 *
 * whole: where the pair of the first two columns is. */
static void far_pack(const float *row, int64_t n, int16_t *whole, float *unit)
{
    VF top = vf_set1(0.f);
    for (int64_t i = 0; i < n; i += VN) {
        top = vf_max(top, vf_abs(vf_load(row + i)));
    }
    const float most = vf_hmax(top);
    *unit = most / FIT_FAR;
    const VF inverse = vf_set1(most > 0 ? FIT_FAR / most : 0.f);
    for (int64_t i = 0; i < n; i += VN) {
        int32_t some[VN];
        vi_store(some, vf_trunc(vf_round_even(vf_mul(vf_load(row + i), inverse))));
        for (int l = 0; l < VN; l++) {
            whole[(i + l) / 2 * 2 * FAR_TALL + (i + l) % 2] = (int16_t)some[l];
        }
    }
}

/* The unit of errors that are at most `top`; inverse: what makes integers of them. */
V_FN VF far_unit(VF top, VF *inverse)
{
    const VF some = vf_set1(0x1p-100f), zero = vf_set1(0.f); /* below that there is nothing to carry */
    const VM any = vf_gt(top, some);
    *inverse = vf_select(any, vf_div(vf_set1(FIT_FAR), vf_max(top, some)), zero);
    return vf_select(any, vf_div(top, vf_set1(FIT_FAR)), zero);
}

V_FN VI far_pair(VF even, VF odd, VF inverse)
{
    const VI a = vf_trunc(vf_round_even(vf_mul(even, inverse))), b = vf_trunc(vf_round_even(vf_mul(odd, inverse)));
    return vi_or(vi_and(a, vi_set1(0xffff)), vi_shl(b, 16));
}

/* The errors of one chunk, e[i * FIT_ROWS + p], as pairs of integers, i even in the lower half: for 2 * VN rows p after
 * the other all pairs, FAR_DEEP times 2 * VN. */
static void far_errors(const float *e, int64_t columns, int32_t *pairs, float *unit)
{
    for (int64_t p = 0; p < FIT_ROWS; p += VN) {
        int32_t *to = pairs + p / (2 * VN) * (2 * VN * FAR_DEEP) + p % (2 * VN);
        VF top = vf_set1(0.f);
        for (int64_t i = 0; i < columns; i++) {
            top = vf_max(top, vf_abs(vf_load(e + i * FIT_ROWS + p)));
        }
        VF inverse;
        vf_store(unit + p, far_unit(top, &inverse));
        for (int64_t i = 0; i < columns; i += 2) {
            const VF even = vf_load(e + i * FIT_ROWS + p), odd = vf_load(e + (i + 1) * FIT_ROWS + p);
            vi_store(to + i * VN, far_pair(even, odd, inverse));
        }
    }
}

typedef void far_product_fn(float *c, const int16_t *u, int64_t stride, const float *units_u, int64_t units_stride,
                            const int32_t *pairs, const float *unit_e, int64_t rows, int64_t deep);
typedef void near_product_fn(VF *left, const int16_t *u, int64_t stride, const float *units_u, int64_t units_stride,
                             const VI *pairs, VF unit_e, int deep, int rows);
typedef struct {
    far_product_fn *far;
    near_product_fn *near;
} FarProducts;

/* The fastest that this processor has; all have the same results. */
static FarProducts far_products(void)
{
#if defined(FAR_FUSED)
    if (FAR_FUSED()) {
        return (FarProducts){far_product_fused, near_product_fused};
    }
#endif
    return (FarProducts){far_product_plain, near_product_plain};
}

#endif

/* Errors carried from one chunk of columns to the later ones: the product that most of a fit's time goes into.
 *
 * Both sides are rounded to 12 bits, with a scale for each row and chunk, and their products summed as integers: exact in
 * any order, so alike on every instruction set, and two products a lane and instruction. What the rounding changes is a
 * thousandth of what rounding weights to levels does. */
#ifndef FORGE_FIT_FAR_H
#define FORGE_FIT_FAR_H

#define FAR_PRODUCT far_product_plain
#define FAR_ADD_PAIRS(sum, a, b) vi_add(sum, vi_pairs(a, b))
#include "far_product.h"
#undef FAR_ADD_PAIRS
#undef FAR_PRODUCT

enum { FIT_FAR = 2047 }; /* the largest integer */

static inline int64_t fit_chunks(int64_t n) { return (n + FIT_CHUNK - 1) / FIT_CHUNK; }

/* What a column takes of earlier chunks, out of its row of U: integers, and for each chunk their unit.
 *
 * whole: where the pairs of the row's first two columns are. */
static void far_pack(const float *row, int64_t before, int16_t *whole, float *unit)
{
    for (int64_t at = 0; at < before; at += FIT_CHUNK, unit++) {
        VF top = vf_set1(0.f);
        for (int64_t i = at; i < at + FIT_CHUNK; i += VN) {
            top = vf_max(top, vf_abs(vf_load(row + i)));
        }
        const float most = vf_hmax(top);
        *unit = most / FIT_FAR;
        const VF inverse = vf_set1(most > 0 ? FIT_FAR / most : 0.f);
        for (int64_t i = at; i < at + FIT_CHUNK; i += VN) {
            int32_t some[VN];
            vi_store(some, vf_trunc(vf_round_even(vf_mul(vf_load(row + i), inverse))));
            for (int l = 0; l < VN; l++) {
                whole[(i + l) / 2 * 2 * FAR_TALL + (i + l) % 2] = (int16_t)some[l];
            }
        }
    }
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
        const VF some = vf_set1(0x1p-100f); /* below that there is nothing to carry */
        const VM any = vf_gt(top, some);
        vf_store(unit + p, vf_select(any, vf_div(top, vf_set1(FIT_FAR)), vf_set1(0.f)));
        const VF inverse = vf_select(any, vf_div(vf_set1(FIT_FAR), vf_max(top, some)), vf_set1(0.f));
        for (int64_t i = 0; i < columns; i += 2) {
            const VI a = vf_trunc(vf_round_even(vf_mul(vf_load(e + i * FIT_ROWS + p), inverse)));
            const VI b = vf_trunc(vf_round_even(vf_mul(vf_load(e + (i + 1) * FIT_ROWS + p), inverse)));
            vi_store(to + i * VN, vi_or(vi_and(a, vi_set1(0xffff)), vi_shl(b, 16)));
        }
    }
}

typedef void far_product_fn(float *c, const int16_t *u, int64_t stride, const float *units_u, int64_t units_stride,
                            const int32_t *pairs, const float *unit_e, int64_t rows);

/* The fastest way this processor has; all have the same results. */
static far_product_fn *far_product(void)
{
#if defined(FAR_PRODUCT_FUSED)
    return far_is_fused() ? FAR_PRODUCT_FUSED : far_product_plain;
#else
    return far_product_plain;
#endif
}

#endif

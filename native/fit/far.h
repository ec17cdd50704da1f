/* Errors carried from one chunk of columns to the later ones: the product that most of a fit's time goes into.
 *
 * Both sides are rounded to 12 bits, with a scale for each row and chunk, and their products summed as integers: exact in
 * any order, so alike on every instruction set, and two products an instruction. What the rounding changes is a
 * thousandth of what rounding weights to levels does. */
#ifndef FORGE_FIT_FAR_H
#define FORGE_FIT_FAR_H

enum { FIT_CHUNK = 256, FIT_ROWS = 128, FIT_FAR = 2047 }; /* columns at a time, rows at a time, the largest integer */

static inline int64_t fit_chunks(int64_t n) { return (n + FIT_CHUNK - 1) / FIT_CHUNK; }

/* What a column takes of earlier chunks, out of its row of U: integers, and for each chunk their unit. */
static void far_pack(const float *row, int64_t before, int16_t *whole_row, float *unit)
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
            int32_t whole[VN];
            vi_store(whole, vf_trunc(vf_round_even(vf_mul(vf_load(row + i), inverse))));
            for (int l = 0; l < VN; l++) {
                whole_row[i + l] = (int16_t)whole[l];
            }
        }
    }
}

/* The errors of one chunk, e[i * FIT_ROWS + p], as pairs of integers, i even in the lower half: pairs[i / 2 *
 * FIT_ROWS + p]. */
static void far_errors(const float *e, int64_t columns, int32_t *pairs, float *unit)
{
    for (int64_t p = 0; p < FIT_ROWS; p += VN) {
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
            vi_store(pairs + i / 2 * FIT_ROWS + p, vi_or(vi_and(a, vi_set1(0xffff)), vi_shl(b, 16)));
        }
    }
}

/* c[j][p] -= unit_u[j] * unit_e[p] * sum over a chunk's pairs, for rows j of a chunk and FIT_ROWS columns p.
 *
 * u: pairs of integers, row j at u + j * stride; units_u: that of row j at units_u[j * units_stride]. */
static void far_product(float *c, const int16_t *u, int64_t stride, const float *units_u, int64_t units_stride,
                        const int32_t *pairs, const float *unit_e, int64_t rows)
{
    enum { DEEP = FIT_CHUNK / 2, TALL = 4 };
    for (int64_t p = 0; p < FIT_ROWS; p += 2 * VN) {
        for (int64_t j = 0; j < rows; j += TALL) {
            VI sum[TALL][2];
            for (int r = 0; r < TALL; r++) {
                sum[r][0] = sum[r][1] = vi_set1(0);
            }
            for (int k = 0; k < DEEP; k++) {
                const VI b0 = vi_load(pairs + k * FIT_ROWS + p), b1 = vi_load(pairs + k * FIT_ROWS + p + VN);
                for (int r = 0; r < TALL; r++) {
                    int32_t two;
                    memcpy(&two, u + (j + r) * stride + 2 * k, sizeof two);
                    const VI a = vi_set1(two);
                    sum[r][0] = vi_add(sum[r][0], vi_pairs(a, b0));
                    sum[r][1] = vi_add(sum[r][1], vi_pairs(a, b1));
                }
            }
            for (int r = 0; r < TALL; r++) {
                const VF unit = vf_set1(units_u[(j + r) * units_stride]);
                for (int v = 0; v < 2; v++) {
                    float *at = c + (j + r) * FIT_ROWS + p + v * VN;
                    const VF times = vf_mul(unit, vf_load(unit_e + p + v * VN));
                    vf_store(at, vf_sub(vf_load(at), vf_mul(times, vi_to_f(sum[r][v]))));
                }
            }
        }
    }
}

#endif

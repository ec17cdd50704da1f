/* Products of matrices whose sums run in one order on every instruction set, and the factor of a covariance.
 *
 * Lanes are columns of the result; the sum of each element runs over k upwards, one rounded product and one rounded
 * subtraction after the other, so that neither the width of a vector nor the size of a tile shows in a result.
 */
#ifndef FORGE_FIT_PRODUCT_H
#define FORGE_FIT_PRODUCT_H

enum { FIT_TILE = 4 }; /* rows of the result held in registers, times two vectors */

/* c[j][p] -= sum over k < depth of a[k * ak + j * aj] * b[k * bk + p] for FIT_TILE rows j and 2 * VN columns p. */
V_FN void product_tile(float *c, int64_t cj, const float *a, int64_t ak, int64_t aj, const float *b, int64_t bk,
                       int64_t depth)
{
    VF sum[FIT_TILE][2];
    for (int j = 0; j < FIT_TILE; j++) {
        sum[j][0] = vf_load(c + j * cj);
        sum[j][1] = vf_load(c + j * cj + VN);
    }
    for (int64_t k = 0; k < depth; k++) {
        const VF b0 = vf_load(b + k * bk), b1 = vf_load(b + k * bk + VN);
        for (int j = 0; j < FIT_TILE; j++) {
            const VF one = vf_set1(a[k * ak + j * aj]);
            sum[j][0] = vf_sub(sum[j][0], vf_mul(one, b0));
            sum[j][1] = vf_sub(sum[j][1], vf_mul(one, b1));
        }
    }
    for (int j = 0; j < FIT_TILE; j++) {
        vf_store(c + j * cj, sum[j][0]);
        vf_store(c + j * cj + VN, sum[j][1]);
    }
}

/* c[j][p] -= sum over k of a * b, `rows` x `columns`, multiples of FIT_TILE and of 2 * VN (or 32). */
static void subtract_product(float *c, int64_t cj, const float *a, int64_t ak, int64_t aj, const float *b, int64_t bk,
                             int64_t depth, int64_t rows, int64_t columns)
{
    enum { DEPTH = 256 }; /* so that what is read of b and a stays in the caches */
    for (int64_t k = 0; k < depth; k += DEPTH) {
        const int64_t n = depth - k < DEPTH ? depth - k : DEPTH;
        for (int64_t p = 0; p < columns; p += 2 * VN) {
            for (int64_t j = 0; j < rows; j += FIT_TILE) {
                product_tile(c + j * cj + p, cj, a + k * ak + j * aj, ak, aj, b + k * bk + p, bk, n);
            }
        }
    }
}

/* y[p] -= f * x[p], p < n, n a multiple of 16 */
V_FN void subtract_times(float *y, float f, const float *x, int64_t n)
{
    const VF times = vf_set1(f);
    for (int64_t p = 0; p < n; p += VN) {
        vf_store(y + p, vf_sub(vf_load(y + p), vf_mul(times, vf_load(x + p))));
    }
}

/* The factor of a positive definite matrix h: h = U' D U, U being lower triangular with ones on its diagonal.
 *
 * h, n x n, n a multiple of 32, of which what lies below the diagonal and on it is read: gets U. d gets D. What lies
 * above the diagonal is spoilt. Returns -1, or the column at which h was found not to be positive definite. */
static int64_t fit_factor(float *h, float *d, int64_t n)
{
    enum { PANEL = 32 };
    for (int64_t first = n - PANEL; first >= 0; first -= PANEL) {
        for (int64_t k = first + PANEL - 1; k >= first; k--) { /* rows of the panel, the last first */
            float *row = h + k * n;
            if (!(row[k] > 0 && row[k] <= FLT_MAX)) {
                return k;
            }
            const VF root = vf_sqrt(vf_set1(row[k]));
            for (int64_t i = 0; i < first + PANEL; i += VN) {
                vf_store(row + i, vf_div(vf_load(row + i), root));
            }
            for (int64_t j = first; j < k; j++) {
                subtract_times(h + j * n, row[j], row, first + PANEL);
            }
        }
        for (int64_t j = 0; j < first; j += PANEL) { /* what lies before the panel, of each row up to its diagonal */
            subtract_product(h + j * n, n, h + first * n + j, n, 1, h + first * n, n, PANEL, PANEL, j + PANEL);
        }
        for (int64_t k = first; k < first + PANEL; k++) {
            float *row = h + k * n;
            const VF root = vf_set1(row[k]);
            d[k] = row[k] * row[k];
            for (int64_t i = 0; i < first + PANEL; i += VN) {
                vf_store(row + i, vf_div(vf_load(row + i), root));
            }
        }
    }
    return -1;
}

#endif

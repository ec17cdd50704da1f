/* FAR_PRODUCT and NEAR_PRODUCT: the products of far.h, with FAR_ADD_PAIRS(sum, a, b) = sum + vi_pairs(a, b). Included
 * once for each way an instruction set has of adding. */
#ifndef FORGE_FIT_FAR_PRODUCT_H
#define FORGE_FIT_FAR_PRODUCT_H

enum { FIT_CHUNK = 256, FIT_ROWS = 128 }; /* columns at a time, rows at a time */

/* U's integers lie as they are read: of FAR_TALL of its rows side by side two columns each, then the next two. */
enum { FAR_TALL = 8, FAR_DEEP = FIT_CHUNK / 2 };

/* Sums in the type that additions have, which VI need not be: GCC copies them from register to register otherwise. */
#if VN > 1
typedef int32_t FarSum __attribute__((vector_size(4 * VN)));
#else
typedef VI FarSum;
#endif

#endif

/* c[j][p] -= unit_u[j] * unit_e[p] * sum over `deep` pairs of a chunk, for rows j of a chunk and FIT_ROWS columns p.
 *
 * u: pairs of integers as far_pack leaves them, FAR_TALL rows at u + j * stride; units_u: that of row j at
 * units_u[j * units_stride]; pairs, unit_e: of far_errors. */
static void FAR_PRODUCT(float *c, const int16_t *u, int64_t stride, const float *units_u, int64_t units_stride,
                        const int32_t *pairs, const float *unit_e, int64_t rows, int64_t deep)
{
    enum { TALL = VN == 16 ? FAR_TALL : FAR_TALL / 2 }; /* as many sums as there are registers for */
    for (int64_t p = 0; p < FIT_ROWS; p += 2 * VN, pairs += 2 * VN * FAR_DEEP) {
        for (int64_t j = 0; j < rows; j += TALL) {
            const int16_t *two = u + j / FAR_TALL * FAR_TALL * stride + j % FAR_TALL * 2;
            FarSum sum[TALL][2];
            for (int r = 0; r < TALL; r++) {
                sum[r][0] = sum[r][1] = (FarSum)vi_set1(0);
            }
            for (int64_t k = 0; k < deep; k++, two += 2 * FAR_TALL) {
                const VI b0 = vi_load(pairs + k * 2 * VN), b1 = vi_load(pairs + k * 2 * VN + VN);
                for (int r = 0; r < TALL; r++) {
                    int32_t both;
                    memcpy(&both, two + 2 * r, sizeof both);
                    const VI a = vi_set1(both);
                    sum[r][0] = (FarSum)FAR_ADD_PAIRS((VI)sum[r][0], a, b0);
                    sum[r][1] = (FarSum)FAR_ADD_PAIRS((VI)sum[r][1], a, b1);
                }
            }
            for (int r = 0; r < TALL; r++) {
                const VF unit = vf_set1(units_u[(j + r) * units_stride]);
                for (int v = 0; v < 2; v++) {
                    float *at = c + (j + r) * FIT_ROWS + p + v * VN;
                    const VF times = vf_mul(unit, vf_load(unit_e + p + v * VN));
                    vf_store(at, vf_sub(vf_load(at), vf_mul(times, vi_to_f((VI)sum[r][v]))));
                }
            }
        }
    }
}

/* left[j] -= unit_u[j] * unit_e * sum over `deep` pairs, for `rows` rows j, a multiple of FAR_TALL, of VN lanes.
 *
 * u, units_u: as above. */
static void NEAR_PRODUCT(VF *left, const int16_t *u, int64_t stride, const float *units_u, int64_t units_stride,
                         const VI *pairs, VF unit_e, int deep, int rows)
{
    for (int64_t j = 0; j < rows; j += FAR_TALL, u += FAR_TALL * stride) {
        const int16_t *two = u;
        FarSum sum[FAR_TALL];
        for (int r = 0; r < FAR_TALL; r++) {
            sum[r] = (FarSum)vi_set1(0);
        }
        for (int k = 0; k < deep; k++, two += 2 * FAR_TALL) {
            for (int r = 0; r < FAR_TALL; r++) {
                int32_t both;
                memcpy(&both, two + 2 * r, sizeof both);
                sum[r] = (FarSum)FAR_ADD_PAIRS((VI)sum[r], vi_set1(both), pairs[k]);
            }
        }
        for (int r = 0; r < FAR_TALL; r++) {
            const VF times = vf_mul(vf_set1(units_u[(j + r) * units_stride]), unit_e);
            left[j + r] = vf_sub(left[j + r], vf_mul(times, vi_to_f((VI)sum[r])));
        }
    }
}

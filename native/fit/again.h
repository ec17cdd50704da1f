/* Columns looked at again once a row is rounded to its end: coordinate descent.
 *
 * While a row was rounded each column was chosen with those before it in mind. Now all are known: with z = D y and g = U' z
 * the error falls most where a column's value moves by g / H[j][j], and it takes the level next to that, if it is another
 * one. A change of value by e changes y by - U e. Chunks are taken from the last to the first, since U' asks each only of
 * itself and later ones; scales stay. Products of chunks are those of far.h, so all is alike on every instruction set. */
#ifndef FORGE_FIT_AGAIN_H
#define FORGE_FIT_AGAIN_H

/* What is kept of the rows of a panel until their blocks are written. */
typedef struct {
    float *unit, *y;   /* columns x FIT_ROWS: what scales multiply, and y as levels.h has it */
    FitScales *scales; /* for each block FIT_ROWS / VN */
} FitKept;

enum { FIT_LANES = FIT_ROWS / VN };

/* z = D y, and nothing where that is no number: weights may be as large as floats are. */
V_FN VF fit_weighed(float d, VF y)
{
    const VF z = vf_mul(vf_set1(d), y);
    return vf_select(vf_le(vf_abs(z), vf_set1(FLT_MAX)), z, vf_set1(0.f));
}

/* g = the chunk's part of U' times z; before, g has with a minus what later chunks ask. */
V_FN void fit_transposed(VF *g, const float *u, const VF *z, int columns)
{
    for (int i = 0; i < columns; i += 8) {
        VF sum[8];
        for (int r = 0; r < 8; r++) {
            sum[r] = vf_sub(z[i + r], g[i + r]);
        }
        for (int j = i + 1; j < columns; j++) { /* U is stored with zeros on its diagonal and above */
            const float *row = u + j * FIT_CHUNK + i;
            for (int r = 0; r < 8; r++) {
                sum[r] = vf_add(sum[r], vf_mul(vf_set1(row[r]), z[j]));
            }
        }
        for (int r = 0; r < 8; r++) {
            g[i + r] = sum[r];
        }
    }
}

/* Moves the columns of a chunk of VN rows, the last first, and returns by how much the error falls. k->unit: what scales
 * multiply; k->bad gets by how much values change. g: as above; own: H within the chunk. */
V_FN VF fit_move(const FitShape *s, int uneven, FitWork *k, const FitScales *scales, VF *g, const float *own, int columns)
{
    const FitLevels f = fit_levels(s, uneven);
    const VF zero = vf_set1(0.f), one = vf_set1(1.f);
    const int mins = fit_has_mins(s), whole = s->form >= FIT_INTS;
    VF fall = zero;
    for (int from = columns - s->sub; from >= 0; from -= s->sub) {
        const FitScales *now = scales + from / s->block * FIT_LANES;
        const int n = from % s->block / s->sub;
        const VF scale = whole ? fit_scale_of(s->form, now->d, now->scale[n]) : now->d;
        const VF less = !mins ? zero : whole ? vf_mul(now->dmin, vi_to_f(now->min[n])) : now->dmin;
        const VM some = vf_neq(scale, zero);
        const VF inverse = vf_select(some, vf_div(one, vf_select(some, scale, one)), zero);
        for (int j = from + s->sub - 1; j >= from; j--) {
            const float *row = own + j * FIT_CHUNK;
            const VF value = vf_sub(vf_mul(scale, k->unit[j]), less), wanted = vf_add(value, vf_div(g[j], vf_set1(row[j])));
            const VF unit = fit_nearest(&f, uneven, vf_mul(vf_add(wanted, less), inverse));
            const VF by = vf_sub(vf_sub(vf_mul(scale, unit), less), value);
            /* the error falls by 2 g by - H[j][j] by^2 */
            const VF gain = vf_mul(by, vf_sub(vf_mul(vf_set1(2.f), g[j]), vf_mul(vf_set1(row[j]), by)));
            const VM better = vm_and(vf_gt(gain, zero), vf_le(gain, vf_set1(FLT_MAX)));
            const VF change = vf_select(better, by, zero);
            k->bad[j] = change;
            if (!vm_any(better)) {
                continue;
            }
            fall = vf_add(fall, vf_select(better, gain, zero));
            k->unit[j] = vf_select(better, unit, k->unit[j]);
            for (int i = 0; i < j; i++) {
                g[i] = vf_sub(g[i], vf_mul(vf_set1(row[i]), change));
            }
        }
    }
    return fall;
}

static VF fit_move_even(const FitShape *s, FitWork *k, const FitScales *scales, VF *g, const float *own, int columns)
{
    return fit_move(s, 0, k, scales, g, own, columns);
}

static VF fit_move_uneven(const FitShape *s, FitWork *k, const FitScales *scales, VF *g, const float *own, int columns)
{
    return fit_move(s, 1, k, scales, g, own, columns);
}

/* Looks at all columns of a panel of rows once more. c, w: FIT_CHUNK x FIT_ROWS floats each, pairs and units as for the
 * errors of all chunks: memory to work in. error[row] falls by what was gained. */
static void fit_again(const FitShape *s, const forge_fit *fit, const FitKept *kept, far_product_fn *far, FitWork *k,
                      float *c, float *w, int32_t *pairs, float *units, int rows, double *error)
{
    const int64_t n = fit->width, chunks = fit_chunks(n);
    for (int64_t chunk = chunks - 1; chunk >= 0; chunk--) {
        const int64_t at = chunk * FIT_CHUNK;
        const int columns = n - at < FIT_CHUNK ? (int)(n - at) : FIT_CHUNK;
        const float *inner = fit->inner + at * FIT_CHUNK, *own = fit->own + at * FIT_CHUNK;
        float *y = kept->y + at * FIT_ROWS, *unit = kept->unit + at * FIT_ROWS;
        memset(c, 0, FIT_CHUNK * FIT_ROWS * sizeof *c);
        for (int64_t later = chunk + 1; later < chunks; later++) {
            const int64_t first = later * FIT_CHUNK, many = n - first < FIT_CHUNK ? n - first : FIT_CHUNK;
            int32_t *z = pairs + later * FIT_ROWS * FAR_DEEP;
            for (int64_t i = 0; i < many * FIT_ROWS; i += VN) {
                vf_store(w + i, fit_weighed(fit->d[first + i / FIT_ROWS], vf_load(kept->y + first * FIT_ROWS + i)));
            }
            far_errors(w, many, z, units + later * FIT_ROWS);
            far(c, fit->outer + at * n + first * FAR_TALL, n, fit->outer_unit + at * chunks + later, chunks, z,
                units + later * FIT_ROWS, columns, many / 2);
        }
        for (int p = 0; p < FIT_ROWS; p += VN) {
            VF g[FIT_CHUNK], z[FIT_CHUNK];
            for (int i = 0; i < columns; i++) {
                k->left[i] = vf_load(y + i * FIT_ROWS + p);
                k->unit[i] = vf_load(unit + i * FIT_ROWS + p);
                z[i] = fit_weighed(fit->d[at + i], k->left[i]);
                g[i] = vf_load(c + i * FIT_ROWS + p);
                k->bad[i] = vf_set1(0.f);
            }
            if (p < rows) {
                const FitScales *scales = kept->scales + at / s->block * FIT_LANES + p / VN;
                float fall[VN];
                fit_transposed(g, inner, z, columns);
                vf_store(fall, (s->values ? fit_move_uneven : fit_move_even)(s, k, scales, g, own, columns));
                for (int l = 0; l < VN && p + l < rows; l++) {
                    error[p + l] -= fall[l];
                }
                for (int i = 0; i < columns; i++) {
                    k->left[i] = vf_sub(k->left[i], k->bad[i]);
                }
                for (int from = 0; from < columns; from += 8) {
                    fit_carry(k->left, inner, k->bad, 0, from + 8, from, from + 8);
                }
            }
            for (int i = 0; i < columns; i++) {
                vf_store(y + i * FIT_ROWS + p, k->left[i]);
                vf_store(unit + i * FIT_ROWS + p, k->unit[i]);
                vf_store(w + i * FIT_ROWS + p, k->bad[i]);
            }
        }
        int32_t *changes = pairs + chunk * FIT_ROWS * FAR_DEEP;
        far_errors(w, columns, changes, units + chunk * FIT_ROWS);
        for (int64_t later = chunk + 1; later < chunks; later++) {
            const int64_t first = later * FIT_CHUNK, many = n - first < FIT_CHUNK ? n - first : FIT_CHUNK;
            far(kept->y + first * FIT_ROWS, fit->outer + first * n + at * FAR_TALL, n,
                fit->outer_unit + first * chunks + chunk, chunks, changes, units + chunk * FIT_ROWS, many, columns / 2);
        }
    }
}

#endif

/* What rows are fitted with, whichever the type: the work on a block, errors carried within a chunk, and the block's own
 * scales out of what a round leaves. */
#ifndef FORGE_FIT_WORK_H
#define FORGE_FIT_WORK_H

enum { FIT_TRIES = 5, FIT_NEAR = 64 }; /* scales tried at once; columns whose errors are carried at once in a chunk */

/* How a type's scales are written: by d alone, d and a minimum, or by whole numbers that multiply d (and dmin), or by
 * small floats. */
enum { FIT_D, FIT_D_MIN, FIT_INTS, FIT_INTS_MIN, FIT_E8M0, FIT_E4M3 };

typedef struct {
    int type, block, sub, bytes, form;
    int few;                     /* one scale, which the type's own encoder does not seek: see fit_first_scale */
    int least, most;             /* levels that are whole numbers */
    int scale_least, scale_most; /* whole scales */
    int min_most;
    const float *values, *edges; /* else sixteen uneven levels in order, and what lies between each and the next */
    void (*open)(const uint8_t *in, FitBlock *f);
    void (*close)(const FitBlock *f, uint8_t *out);
} FitShape;

static int fit_has_mins(const FitShape *s) { return s->form == FIT_D_MIN || s->form == FIT_INTS_MIN; }

/* What is being fitted, a lane a row. */
typedef struct {
    VF w[FIT_CHUNK];      /* weights */
    VF base[FIT_CHUNK];   /* weights and what earlier columns ask for */
    VF error[FIT_CHUNK];  /* value - weight, of columns done */
    VF left[FIT_CHUNK];   /* base while a round runs, y of the columns that it has done */
    VF unit[FIT_CHUNK];   /* what scales multiply */
    VF bad[FIT_CHUNK];    /* error of the round */
    VF best[FIT_CHUNK];   /* unit of the best round, */
    VF y[FIT_CHUNK];      /* and its y */
    VF target[FIT_CHUNK]; /* U times weights, plus what earlier columns ask for */
    VF times_d[FIT_CHUNK], times_min[FIT_CHUNK];
    VF tried[FIT_CHUNK][FIT_TRIES]; /* errors, where a sub-block is too long for the stack */
    float rows[VN * FIT_CHUNK];
    struct {
        near_product_fn *product;
        const int16_t *u; /* the chunk's part of U as far_pack leaves it */
        const float *unit;
        int64_t stride, unit_stride;
    } near;
    float sums[FIT_CHUNK][16]; /* where there are minimums, of U's rows over the sub-blocks of the column's block */
} FitWork;

typedef struct {
    VF d, dmin, total;
    VI scale[16], min[16];
} FitScales;

/* out[j] -= sum of u[j][i] * e[i] over i from `from` to `end`, for rows j from `first` to `last`, multiples of 8. */
V_FN void fit_carry(VF *out, const float *u, const VF *e, int from, int end, int first, int last)
{
    for (int j = first; j < last; j += 8) {
        const float *row = u + j * FIT_CHUNK;
        VF sum[8];
        for (int r = 0; r < 8; r++) {
            sum[r] = out[j + r];
        }
        for (int i = from; i < end; i++) {
            for (int r = 0; r < 8; r++) {
                sum[r] = vf_sub(sum[r], vf_mul(vf_set1(row[r * FIT_CHUNK + i]), e[i]));
            }
        }
        for (int r = 0; r < 8; r++) {
            out[j + r] = sum[r];
        }
    }
}

/* out -= what columns from `from` to `end` ask of those from `end` to `last`; e: of all columns since a multiple of
 * FIT_NEAR. Within such a part float by float, and to later parts as integers when the part is done. */
V_FN void fit_carry_on(FitWork *k, VF *out, const float *u, const VF *e, int from, int end, int last)
{
    const int part = end / FIT_NEAR * FIT_NEAR, stop = part + FIT_NEAR < last ? part + FIT_NEAR : last;
    if (part < end && end < stop) {
        fit_carry(out, u, e, from > part ? from : part, end, end, stop);
    }
    for (int at = from / FIT_NEAR * FIT_NEAR; at < part && end < last; at += FIT_NEAR) {
        VI pairs[FIT_NEAR / 2];
        VF top = vf_set1(0.f), inverse;
        for (int i = at; i < at + FIT_NEAR; i++) {
            top = vf_max(top, vf_abs(e[i]));
        }
        const VF unit = far_unit(top, &inverse);
        for (int i = 0; i < FIT_NEAR; i += 2) {
            pairs[i / 2] = far_pair(e[at + i], e[at + i + 1], inverse);
        }
        k->near.product(out + end, k->near.u + end * k->near.stride + at * FAR_TALL, k->near.stride,
                        k->near.unit + end * k->near.unit_stride, k->near.unit_stride, pairs, unit, FIT_NEAR / 2,
                        last - end);
    }
}

/* out = the columns' part of U times x, columns from `from` to `end`. */
V_FN void fit_times(VF *out, const float *u, const VF *x, int from, int end)
{
    for (int j = from; j < end; j += 8) {
        const float *row = u + j * FIT_CHUNK;
        VF sum[8];
        for (int r = 0; r < 8; r++) {
            sum[r] = x[j + r];
        }
        for (int i = from; i < j; i++) {
            for (int r = 0; r < 8; r++) {
                sum[r] = vf_add(sum[r], vf_mul(vf_set1(row[r * FIT_CHUNK + i]), x[i]));
            }
        }
        for (int r = 1; r < 8; r++) {
            for (int i = 0; i < r; i++) {
                sum[r] = vf_add(sum[r], vf_mul(vf_set1(row[r * FIT_CHUNK + j + i]), x[j + i]));
            }
        }
        for (int r = 0; r < 8; r++) {
            out[j + r] = sum[r];
        }
    }
}

/* Sums of each column's row of U, with the 1 on its diagonal, over the sub-blocks of its block. */
static void fit_sums(const FitShape *s, const float *u, int columns, float sums[][16])
{
    for (int j = 0; j < columns; j++) {
        const int block = j / s->block * s->block;
        for (int from = block; from <= j; from += s->sub) {
            const int end = from + s->sub < j ? from + s->sub : j;
            float sum = from + s->sub > j ? 1.f : 0.f;
            for (int i = from; i < end; i++) {
                sum += u[j * FIT_CHUNK + i];
            }
            sums[j][(from - block) / s->sub] = sum;
        }
    }
}

/* d and dmin by least squares, given what they multiply, rounded as they are stored; what they were where there is no
 * answer, or a minimum below 0 in types that have none. k->left: the block's y. */
V_FN void fit_refit(const FitShape *s, int mins, FitWork *k, FitScales *now, int at, const float *d)
{
    const int ints = s->form >= FIT_INTS;
    const VF zero = vf_set1(0.f), one = vf_set1(1.f);
    VF dd = zero, dm = zero, mm = zero, dt = zero, mt = zero, min[16];
    for (int n = 0; mins && n < s->block / s->sub; n++) {
        min[n] = ints ? vi_to_f(now->min[n]) : one;
    }
    for (int i = at; i < at + s->block; i++) {
        /* U times the values is target - y, and what of it d makes is that and U times the minimums. */
        const VF weight = vf_set1(d[i]);
        VF scaled = vf_sub(k->target[i], k->left[i]), lower = zero;
        for (int n = 0; mins && n <= (i - at) / s->sub; n++) {
            lower = vf_add(lower, vf_mul(vf_set1(k->sums[i][n]), min[n]));
        }
        scaled = mins ? vf_add(scaled, vf_mul(now->dmin, lower)) : scaled;
        const VF a = vf_mul(weight, scaled);
        dd = vf_add(dd, vf_mul(a, scaled));
        dt = vf_add(dt, vf_mul(a, k->target[i]));
        if (mins) {
            const VF b = vf_mul(weight, lower);
            dm = vf_add(dm, vf_mul(a, lower));
            mm = vf_add(mm, vf_mul(b, lower));
            mt = vf_add(mt, vf_mul(b, k->target[i]));
        }
    }
    /* y = target - times scaled + dmin lower */
    const VM some = vm_and(vf_gt(dd, zero), vf_neq(now->d, zero));
    VF times = vf_div(vf_add(dt, vf_mul(now->dmin, dm)), vf_select(some, dd, one)), least = now->dmin;
    if (mins) {
        const VF whole = vf_sub(vf_mul(dd, mm), vf_mul(dm, dm));
        const VM both = vf_gt(whole, vf_mul(vf_set1(1e-4f), vf_mul(dd, mm)));
        const VF over = vf_select(both, whole, one);
        const VF new_times = vf_div(vf_sub(vf_mul(dt, mm), vf_mul(mt, dm)), over);
        const VF new_min = vf_div(vf_sub(vf_mul(dt, dm), vf_mul(mt, dd)), over);
        const VM good = ints ? vm_and(both, vm_and(vf_ge(new_min, zero), vf_gt(new_times, zero))) : both;
        times = vf_select(good, new_times, times);
        least = vf_select(good, new_min, least);
    }
    const VF limit = vf_set1(65504.f), scale = vf_through_f16(vf_mul(now->d, times));
    least = vf_through_f16(least);
    const VM held = vm_and(some, vm_and(vf_le(vf_abs(scale), limit), vf_le(vf_abs(least), limit)));
    now->d = vf_select(held, scale, now->d);
    now->dmin = vf_select(held, least, now->dmin);
}

/* The weights as they would be if nothing of this block were rounded: in unit, and in rows one lane after the other. */
V_FN void fit_compensate(FitWork *k, int at, int n, const float *u)
{
    for (int i = at; i < at + n; i++) {
        k->left[i] = k->base[i];
    }
    for (int from = at; from < at + n; from += 16) {
        for (int j = from; j < from + 16; j++) {
            VF x = k->left[j];
            for (int i = from; i < j; i++) {
                x = vf_sub(x, vf_mul(vf_set1(u[j * FIT_CHUNK + i]), k->bad[i]));
            }
            k->unit[j] = x;
            k->bad[j] = vf_sub(x, k->w[j]);
        }
        for (int j = from; j < from + 16; j += VN) {
            const float *column[VN];
            VF row[VN];
            for (int l = 0; l < VN; l++) {
                column[l] = (const float *)(const void *)&k->unit[j + l];
            }
            vf_load_lanes(row, column, VN);
            for (int l = 0; l < VN; l++) {
                vf_store(k->rows + l * n + j - at, row[l]);
            }
        }
        fit_carry_on(k, k->left, u, k->bad, from, from + 16, at + n);
    }
}

/* U times weights, plus what earlier columns ask for, as exactly as scales need it. */
V_FN void fit_target(FitWork *k, int at, int n, const float *u)
{
    VF *minus = k->times_min;
    for (int i = at; i < at + n; i++) {
        k->target[i] = k->base[i];
        minus[i] = vf_neg(k->w[i]);
    }
    for (int from = at; from < at + n; from += 16) {
        fit_carry(k->target, u, minus, from, from + 16, from, from + 16);
        fit_carry_on(k, k->target, u, minus, from, from + 16, at + n);
    }
}

#endif

/* One block of VN rows at once, fitted to what the rows' product with the inputs needs: which scales, which levels.
 *
 * The error of a row against a covariance H = U' D U is the sum over its columns of D y^2, with
 *     y = w + c - value,  c = - sum over earlier columns i of U[i] (value_i - w_i):
 * what was rounded before is made up for by what is rounded after it. Columns are taken in order. The scale and the
 * minimum of a sub-block are those of several that have the least error when the sub-block is really rounded with each;
 * the block's own are then fitted to the levels found (least squares), and all is done again. The best round is kept. */
#ifndef FORGE_FIT_LEVELS_H
#define FORGE_FIT_LEVELS_H

typedef struct {
    VFT values, edges;
    VF middle, least, most;
} FitLevels;

V_FN FitLevels fit_levels(const FitShape *s, int uneven)
{
    FitLevels f = {.least = vf_set1((float)s->least), .most = vf_set1((float)s->most), .middle = vf_set1(0.f)};
    if (uneven) {
        f.values = vf_table16(s->values);
        f.edges = vf_table16(s->edges);
        f.middle = vf_set1(s->edges[7]);
    }
    return f;
}

V_FN VF fit_nearest(const FitLevels *f, int uneven, VF a)
{
    if (!uneven) {
        return vf_round_even(vf_max(vf_min(a, f->most), f->least));
    }
    VI zero = vi_set1(0), index = vi_select(vf_lt(a, f->middle), zero, vi_set1(8));
    for (int step = 4; step > 0; step >>= 1) {
        const VF edge = vf_lookup16(f->edges, vi_add(index, vi_set1(step - 1)));
        index = vi_add(index, vi_select(vf_lt(a, edge), zero, vi_set1(step)));
    }
    return vf_lookup16(f->values, index);
}

/* Rounds the sub-block of `sub` columns at `at` with each of `count` scales and minimums. total[k] gets the error; of a
 * single one unit, error and y are kept. */
V_FN void fit_round(const FitLevels *f, int uneven, int sub, int mins, int count, FitWork *k, int at, const float *u,
                    const float *d, const VF *scale, const VF *less, VF *total)
{
    VF short_one[32][FIT_TRIES], inverse[FIT_TRIES];
    VF(*e)[FIT_TRIES] = sub <= 32 ? short_one : k->tried;
    for (int t = 0; t < count; t++) {
        const VM some = vf_neq(scale[t], vf_set1(0.f));
        inverse[t] = vf_select(some, vf_div(vf_set1(1.f), vf_select(some, scale[t], vf_set1(1.f))), vf_set1(0.f));
        total[t] = vf_set1(0.f);
    }
    for (int j = 0; j < sub; j++) {
        const float *row = u + (at + j) * FIT_CHUNK + at;
        const VF weight = vf_set1(d[at + j]), w = k->w[at + j];
        VF x[FIT_TRIES];
        for (int t = 0; t < count; t++) {
            x[t] = k->left[at + j];
        }
        for (int i = 0; i < j; i++) {
            const VF times = vf_set1(row[i]);
            for (int t = 0; t < count; t++) {
                x[t] = vf_sub(x[t], vf_mul(times, e[i][t]));
            }
        }
        for (int t = 0; t < count; t++) {
            const VF unit = fit_nearest(f, uneven, vf_mul(mins ? vf_add(x[t], less[t]) : x[t], inverse[t]));
            const VF scaled = vf_mul(scale[t], unit), value = mins ? vf_sub(scaled, less[t]) : scaled;
            const VF y = vf_sub(x[t], value);
            total[t] = vf_add(total[t], vf_mul(weight, vf_mul(y, y)));
            e[j][t] = vf_sub(value, w);
            if (count == 1) {
                k->unit[at + j] = unit;
                k->bad[at + j] = e[j][0];
                k->left[at + j] = y;
            }
        }
    }
}

/* The scale that a whole number stands for. */
V_FN VF fit_scale_of(int form, VF d, VI whole)
{
    if (form == FIT_INTS || form == FIT_INTS_MIN) {
        return vf_mul(d, vi_to_f(whole));
    }
    int32_t codes[VN];
    float scales[VN];
    vi_store(codes, whole);
    for (int l = 0; l < VN; l++) {
        scales[l] = form == FIT_E8M0 ? mxfp4_scale((unsigned)codes[l]) : nvfp4_scale((unsigned)codes[l]);
    }
    return vf_load(scales);
}

/* Takes the tries that are better than the best so far. */
V_FN void fit_take(int count, const VF *total, VF *best, const VF *a, VF *a_best, const VF *b, VF *b_best)
{
    for (int t = 0; t < count; t++) {
        const VM better = vf_lt(total[t], *best);
        *best = vf_select(better, total[t], *best);
        *a_best = vf_select(better, a[t], *a_best);
        *b_best = vf_select(better, b[t], *b_best);
    }
}

/* Chooses the whole scale and minimum of sub-block n, `reach` to either side of what they are. */
V_FN void fit_choose_ints(const FitShape *s, const FitLevels *f, int uneven, int sub, int mins, FitWork *k,
                          FitScales *now, int at, int n, int reach, const float *u, const float *d)
{
    const int tries = 2 * reach + 1;
    VF scale_best = vi_to_f(now->scale[n]), min_best = vi_to_f(now->min[n]), best = vf_set1(FLT_MAX);
    for (int outer = mins ? -reach : 0; outer <= (mins ? reach : 0); outer++) {
        VF scale[FIT_TRIES], less[FIT_TRIES], whole[FIT_TRIES], min[FIT_TRIES], total[FIT_TRIES];
        for (int t = 0; t < tries; t++) {
            /* The middle comes first, so that it is kept among equals. */
            const int step = t % 2 ? -(t + 1) / 2 : t / 2, first = mins ? outer : step;
            const VI a = vi_clamp(vi_add(now->scale[n], vi_set1(first)), s->scale_least, s->scale_most);
            const VI b = mins ? vi_clamp(vi_add(now->min[n], vi_set1(step)), 0, s->min_most) : vi_set1(0);
            whole[t] = vi_to_f(a);
            min[t] = vi_to_f(b);
            scale[t] = fit_scale_of(s->form, now->d, a);
            less[t] = mins ? vf_mul(now->dmin, min[t]) : vf_set1(0.f);
        }
        if (tries == 5) {
            fit_round(f, uneven, sub, mins, 5, k, at, u, d, scale, less, total);
        } else {
            fit_round(f, uneven, sub, mins, 3, k, at, u, d, scale, less, total);
        }
        fit_take(tries, total, &best, whole, &scale_best, min, &min_best);
    }
    now->scale[n] = vf_trunc(scale_best);
    now->min[n] = vf_trunc(min_best);
}

/* Chooses d, and the minimum where there is one, as half floats near what they are. */
V_FN void fit_choose_floats(const FitLevels *f, int uneven, int sub, int mins, FitWork *k, FitScales *now, int at,
                            float step, int reach, const float *u, const float *d)
{
    const int tries = 2 * reach + 1;
    VF d_best = now->d, min_best = now->dmin, best = vf_set1(FLT_MAX);
    for (int outer = mins ? -reach : 0; outer <= (mins ? reach : 0); outer++) {
        VF scale[FIT_TRIES], less[FIT_TRIES], total[FIT_TRIES];
        for (int t = 0; t < tries; t++) {
            const int by = t % 2 ? -(t + 1) / 2 : t / 2;
            scale[t] = vf_through_f16(vf_mul(now->d, vf_set1(1.f + step * (float)by)));
            const VF lower = vf_sub(now->dmin, vf_mul(now->d, vf_set1(step * 4.f * (float)outer)));
            less[t] = mins ? vf_through_f16(lower) : vf_set1(0.f);
        }
        if (tries == 5) {
            fit_round(f, uneven, sub, mins, 5, k, at, u, d, scale, less, total);
        } else {
            fit_round(f, uneven, sub, mins, 3, k, at, u, d, scale, less, total);
        }
        fit_take(tries, total, &best, scale, &d_best, less, &min_best);
    }
    now->d = d_best;
    now->dmin = min_best;
}

/* Those encoded as the type's own encoder does. */
static void fit_start(const FitShape *s, FitWork *k, FitScales *now, int at, const float *d, forge_encode_fn encode)
{
    uint8_t bytes[VN * 256];
    FitBlock open;
    int32_t scale[16][VN], min[16][VN];
    float of_d[VN], of_min[VN];
    memset(scale, 0, sizeof scale);
    memset(min, 0, sizeof min);
    encode(k->rows, bytes, VN, d + at, 1);
    for (int l = 0; l < VN; l++) {
        memset(&open, 0, offsetof(FitBlock, level));
        s->open(bytes + l * s->bytes, &open);
        of_d[l] = open.d;
        of_min[l] = open.dmin;
        for (int i = 0; i < s->block / s->sub; i++) {
            scale[i][l] = open.scale[i];
            min[i][l] = open.min[i];
        }
    }
    now->d = vf_load(of_d);
    now->dmin = vf_load(of_min);
    for (int i = 0; i < 16; i++) {
        now->scale[i] = vi_load(scale[i]);
        now->min[i] = vi_load(min[i]);
    }
}

/* A scale for a block of few levels: levels nearest to its compensated weights, the scale that suits them best, and so
 * on. Where there are more levels on one side of zero than on the other it may be negative. */
V_FN VF fit_first_scale(const FitShape *s, const FitLevels *f, int uneven, const FitWork *k, int at, const float *d)
{
    enum { TURNS = 6 };
    const VF zero = vf_set1(0.f), one = vf_set1(1.f);
    VF sum = zero, scale = zero, best = zero;
    for (int i = at; i < at + s->block; i++) {
        sum = vf_add(sum, vf_abs(k->unit[i]));
    }
    for (int sign = 1; sign >= (s->least + s->most ? -1 : 1); sign -= 2) {
        VF a = vf_mul(sum, vf_set1(1.4f * (float)sign / (float)s->block)), gain = zero;
        for (int turn = 0; turn < TURNS; turn++) {
            const VM some = vf_neq(a, zero);
            const VF inverse = vf_select(some, vf_div(one, vf_select(some, a, one)), zero);
            VF dd = zero, dt = zero;
            for (int i = at; i < at + s->block; i++) {
                const VF x = k->unit[i], unit = fit_nearest(f, uneven, vf_mul(x, inverse));
                const VF times = vf_mul(vf_set1(d[i]), unit);
                dd = vf_add(dd, vf_mul(times, unit));
                dt = vf_add(dt, vf_mul(times, x));
            }
            const VM any = vf_gt(dd, zero);
            a = vf_select(any, vf_div(dt, vf_select(any, dd, one)), zero);
            gain = vf_mul(a, dt);
        }
        const VM better = vf_gt(gain, best);
        scale = vf_select(better, a, scale);
        best = vf_select(better, gain, best);
    }
    const VF limit = vf_set1(65504.f);
    return vf_through_f16(vf_max(vf_min(scale, limit), vf_neg(limit)));
}

/* Takes what a round found in the lanes where it is better. */
V_FN void fit_keep(const FitShape *s, FitWork *k, const FitScales *now, FitScales *best, int at)
{
    const VM better = vf_lt(now->total, best->total);
    best->d = vf_select(better, now->d, best->d);
    best->dmin = vf_select(better, now->dmin, best->dmin);
    best->total = vf_select(better, now->total, best->total);
    for (int i = 0; i < s->block / s->sub; i++) {
        best->scale[i] = vi_select(better, now->scale[i], best->scale[i]);
        best->min[i] = vi_select(better, now->min[i], best->min[i]);
    }
    for (int i = at; i < at + s->block; i++) {
        k->best[i] = vf_select(better, k->unit[i], k->best[i]);
        k->error[i] = vf_select(better, k->bad[i], k->error[i]);
        k->y[i] = vf_select(better, k->left[i], k->y[i]);
    }
}

/* Fits the block at column `at` of the chunk, in `rounds` rounds. */
V_FN void fit_block(const FitShape *s, int uneven, int sub, int mins, FitWork *k, FitScales *best, int at, const float *u,
                    const float *d, forge_encode_fn encode, int rounds)
{
    const FitLevels f = fit_levels(s, uneven);
    FitScales now;
    fit_compensate(k, at, s->block, u);
    if (s->few) {
        memset(&now, 0, sizeof now);
        now.d = fit_first_scale(s, &f, uneven, k, at, d);
    } else {
        fit_start(s, k, &now, at, d, encode);
    }
    /* What there is where no round has an error that is a number, as a scale is none: zeros, whose error is infinite. */
    memset(best, 0, sizeof *best);
    best->total = vf_set1(INFINITY);
    for (int i = at; i < at + s->block; i++) {
        k->best[i] = k->y[i] = vf_set1(0.f);
        k->error[i] = vf_neg(k->w[i]);
    }
    const int whole = s->form >= FIT_INTS, turns = s->form >= FIT_E8M0 ? 1 : rounds;
    if (turns > 1) {
        fit_target(k, at, s->block, u);
    }
    for (int round = 0; round < turns; round++) {
        now.total = vf_set1(0.f);
        for (int i = at; i < at + s->block; i++) {
            k->left[i] = k->base[i];
        }
        for (int n = 0; n < s->block / sub; n++) {
            const int from = at + n * sub;
            VF scale = now.d, less = now.dmin, total;
            if (whole) {
                fit_choose_ints(s, &f, uneven, sub, mins, k, &now, from, n, round ? 1 : 2, u, d);
                scale = fit_scale_of(s->form, now.d, now.scale[n]);
                less = vf_mul(now.dmin, vi_to_f(now.min[n]));
            } else {
                const float step = s->few ? (round ? .05f : .2f) : round ? .015f : .05f;
                const int reach = round && !mins ? 1 : 2;
                fit_choose_floats(&f, uneven, sub, mins, k, &now, from, step, reach, u, d);
                scale = now.d;
                less = now.dmin;
            }
            fit_round(&f, uneven, sub, mins, 1, k, from, u, d, &scale, &less, &total);
            now.total = vf_add(now.total, total);
            fit_carry_on(k, k->left, u, k->bad, from, from + sub, at + s->block);
        }
        fit_keep(s, k, &now, best, at);
        if (round + 1 < turns) {
            fit_refit(s, mins, k, &now, at, d);
        }
    }
}

#define FIT_BLOCK(name, uneven, sub, mins) \
    static void name(const FitShape *s, FitWork *k, FitScales *best, int at, const float *u, const float *d, \
                     forge_encode_fn encode, int rounds) \
    { \
        fit_block(s, uneven, sub, mins, k, best, at, u, d, encode, rounds); \
    }
FIT_BLOCK(fit_even16, 0, 16, 0)
FIT_BLOCK(fit_even32, 0, 32, 0)
FIT_BLOCK(fit_even16_mins, 0, 16, 1)
FIT_BLOCK(fit_even32_mins, 0, 32, 1)
FIT_BLOCK(fit_uneven16, 1, 16, 0)
FIT_BLOCK(fit_uneven32, 1, 32, 0)
FIT_BLOCK(fit_even, 0, s->sub, 0)
FIT_BLOCK(fit_uneven, 1, s->sub, 0)
#undef FIT_BLOCK

#endif

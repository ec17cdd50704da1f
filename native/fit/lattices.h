/* One block of VN rows at once, fitted as in levels.h, of a type whose weights are points of a lattice, four or eight
 * to a group: which scale of each sub-block, which point and signs of each group (groups.h).
 *
 * The scales of a sub-block, as those of levels, are those of several that have the least error when it is really
 * rounded with each. When the block is done, scale and points of each sub-block and then each group are chosen once
 * more, all others being as they are; d is fitted to the points found, and all is done again. What the type's own
 * encoder makes of the block is kept where nothing is better. */
#ifndef FORGE_FIT_LATTICES_H
#define FORGE_FIT_LATTICES_H

enum { FIT_SWEEPS = 2, FIT_FARTHER = 4 };

/* The metrics of parts of a chunk's columns, all other columns being as they are, each H = V' E V, and laid out as U
 * and D are. diagonal: of H. */
typedef struct {
    float v[FIT_CHUNK * FIT_CHUNK], e[FIT_CHUNK], diagonal[FIT_CHUNK];
} FitParts;

typedef struct {
    FitParts groups, subs;
    float own[FIT_CHUNK];     /* diagonals of the groups' metrics, where later groups can make up for the errors, */
    float own_sub[FIT_CHUNK]; /* and where only those of its sub-block can */
} FitMetric;

/* Parts of n columns, at most 32. */
static void fit_parts(int n, const float *u, const float *d, int columns, FitParts *parts)
{
    for (int at = 0; at < columns; at += n) {
        float h[32][32] = {{0}};
        for (int k = at; k < columns; k++) {
            float row[32];
            for (int j = 0; j < n; j++) {
                row[j] = at + j == k ? 1.f : u[k * FIT_CHUNK + at + j];
            }
            for (int j = 0; j < n; j++) {
                const float times = row[j] * d[k];
                for (int i = 0; i <= j; i++) {
                    h[j][i] += times * row[i];
                }
            }
        }
        for (int j = 0; j < n; j++) {
            parts->diagonal[at + j] = h[j][j];
        }
        for (int j = n - 1; j >= 0; j--) { /* from the last column on, as H itself is factored */
            float *v = parts->v + (at + j) * FIT_CHUNK + at;
            parts->e[at + j] = h[j][j];
            for (int i = 0; i < j; i++) {
                v[i] = h[j][i] / h[j][j];
            }
            for (int i = 0; i < j; i++) {
                for (int l = 0; l <= i; l++) {
                    h[i][l] -= h[j][i] * v[l];
                }
            }
        }
    }
}

static void fit_diagonals(int dimensions, const float *u, const float *d, int columns, float *diagonal)
{
    for (int j = 0; j < columns; j++) {
        float sum = d[j];
        for (int i = j + 1; i < j / dimensions * dimensions + dimensions; i++) {
            const float one = u[i * FIT_CHUNK + j];
            sum += one * one * d[i];
        }
        diagonal[j] = sum;
    }
}

static void fit_metric(const FitLattice *s, const float *u, const float *d, int columns, FitMetric *metric)
{
    fit_parts(s->dimensions, u, d, columns, &metric->groups);
    fit_parts(s->shape.sub, u, d, columns, &metric->subs);
    fit_diagonals(s->dimensions, u, d, columns, metric->own);
    fit_diagonals(s->dimensions, metric->subs.v, metric->subs.e, columns, metric->own_sub);
}

/* y, the block's errors as its columns make them up to each, of the units in k->unit: in k->left. Returns their sum. */
V_FN VF fit_residual(FitWork *k, const FitScales *now, int sub, int at, const float *u, const float *d)
{
    VF sum = vf_set1(0.f);
    for (int i = 0; i < 256; i++) {
        k->bad[at + i] = vf_mul(vf_mul(now->d, vi_to_f(now->scale[i / sub])), k->unit[at + i]);
    }
    fit_times(k->left, u, k->bad, at, at + 256);
    for (int i = at; i < at + 256; i++) {
        k->left[i] = vf_sub(k->target[i], k->left[i]);
        sum = vf_add(sum, vf_mul(vf_set1(d[i]), vf_mul(k->left[i], k->left[i])));
    }
    return sum;
}

/* What the n columns at `at`, a part, should be so that the block's error is least, all others being as they are, less
 * what they are: x = H^-1 U' D y. Returns what the error would fall by. */
V_FN VF fit_step(VF *x, const FitWork *k, int n, int at, int end, const float *u, const float *d, const FitParts *parts)
{
    const float *v = parts->v + at * FIT_CHUNK + at;
    const int step = n < 8 ? n : 8;
    VF g[32], fall = vf_set1(0.f);
    for (int c = at; c < at + n; c += step) {
        VF sum[8];
        for (int j = 0; j < step; j++) {
            sum[j] = vf_mul(vf_set1(d[c + j]), k->left[c + j]);
        }
        for (int row = c + 1; row < end; row++) {
            const VF z = vf_mul(vf_set1(d[row]), k->left[row]);
            for (int j = 0; j < step; j++) { /* 0 beside the diagonal of U */
                sum[j] = vf_add(sum[j], vf_mul(vf_set1(u[row * FIT_CHUNK + c + j]), z));
            }
        }
        for (int j = 0; j < step; j++) {
            g[c - at + j] = sum[j];
        }
    }
    for (int j = n - 1; j >= 0; j--) {
        for (int i = j + 1; i < n; i++) {
            g[j] = vf_sub(g[j], vf_mul(vf_set1(v[i * FIT_CHUNK + j]), g[i]));
        }
    }
    for (int j = 0; j < n; j++) {
        x[j] = vf_div(g[j], vf_set1(parts->e[at + j]));
        fall = vf_add(fall, vf_mul(g[j], x[j]));
        for (int i = 0; i < j; i++) {
            x[j] = vf_sub(x[j], vf_mul(vf_set1(v[j * FIT_CHUNK + i]), x[i]));
        }
    }
    return fall;
}

/* y after the values of n columns at `at` were changed; change: by column of the chunk. */
V_FN void fit_change(FitWork *k, const VF *change, int n, int at, int end, const float *u)
{
    const int first = at + n < 8 + at / 8 * 8 ? 8 + at / 8 * 8 : at + n;
    for (int row = at; row < first; row++) {
        VF y = row < at + n ? vf_sub(k->left[row], change[row]) : k->left[row];
        for (int i = at; i < at + n && i < row; i++) {
            y = vf_sub(y, vf_mul(vf_set1(u[row * FIT_CHUNK + i]), change[i]));
        }
        k->left[row] = y;
    }
    fit_carry(k->left, u, change, at, at + n, first, end);
}

/* Try t of a sub-block's scale: first what it is, then one less, one more, two less and so on, so that among equals the
 * first is kept. Where points are shifted alike what it is is tried with both shifts, the rest with the better one. */
typedef struct {
    VI whole;
    VF scale, shift;
} FitTry;

enum { FIT_SUB_TRIES = 3 };

V_FN FitTry fit_try(const FitLattice *s, int signs, const FitScales *now, VI middle, int t, VF unit)
{
    const int way = signs == FIT_SHIFT && t > 0 ? t - 1 : t, step = way % 2 ? -(way + 1) : way;
    FitTry one = {.whole = vi_clamp(vi_add(middle, vi_set1(step)), s->shape.scale_least, s->shape.scale_most)};
    one.scale = vf_mul(now->d, vi_to_f(one.whole));
    one.shift = t > 1 ? vf_sub(unit, vf_round_even(unit)) : vf_set1(t ? -.125f : .125f);
    return one;
}

/* Chooses each group of the block again, all others being as they are; k->left holds y before and after. */
V_FN void fit_descend(const FitLattice *s, const FitList *list, int dimensions, int signs, int sub, FitWork *k,
                      const FitScales *now, int block, const float *u, const float *d, const FitMetric *metric)
{
    static const float trits[8] = {-1, 0, 1, 0};
    const int shifted = signs >= FIT_SHIFT, end = block + 256;
    const float *of = shifted ? trits : s->levels;
    const VFT table = dimensions == 4 ? vf_table8(of) : vf_table4(of);
    for (int at = block; at < end; at += dimensions) {
        const VF scale = vf_mul(now->d, vi_to_f(now->scale[(at - block) / sub]));
        FitGroup g;
        VF x[8];
        VI odd = vi_set1(0);
        g.total = fit_step(x, k, dimensions, at, end, u, d, &metric->groups);
        for (int j = 0; j < dimensions; j++) {
            g.value[j] = k->unit[at + j];
            g.t[j] = g.size[j] = vf_add(vf_mul(scale, g.value[j]), x[j]);
            if (!shifted) {
                g.minus[j] = fit_minus(g.t[j]);
                g.size[j] = vf_abs(g.t[j]);
                odd = vi_xor(odd, g.minus[j]);
            }
        }
        for (int j = 0; signs == FIT_EVEN && dimensions == 4 && j < 4; j++) { /* the other half of eight */
            odd = vi_xor(odd, fit_minus(k->unit[(at ^ 4) + j]));
        }
        g.flip = vm_not(vi_eq(odd, vi_set1(0)));
        for (int turn = 0; turn < (signs == FIT_SHIFTS ? 2 : 1); turn++) {
            VF levels[8], by = vf_set1(turn ? -.125f : .125f);
            VI winner[FIT_BOUTS];
            if (signs == FIT_SHIFT) {
                by = vf_sub(g.value[0], vf_round_even(g.value[0]));
            }
            for (int l = 0; l < (dimensions == 4 ? 8 : 3); l++) {
                levels[l] = shifted ? vf_add(vf_set1(of[l]), by) : vf_set1(of[l]);
            }
            fit_bouts(&g, list, dimensions, signs == FIT_EVEN, levels, metric->groups.diagonal + at, scale, winner);
            fit_final(&g, list, dimensions, signs, table, by, metric->groups.diagonal + at,
                      metric->groups.v + at * FIT_CHUNK + at, metric->groups.e + at, scale, winner);
        }
        for (int j = 0; j < dimensions; j++) {
            k->times_min[at + j] = vf_mul(scale, vf_sub(g.value[j], k->unit[at + j]));
            k->unit[at + j] = g.value[j];
        }
        fit_change(k, k->times_min, dimensions, at, end, u);
    }
}

/* Chooses scale and points of each sub-block again, all others being as they are; k->left holds y before and after. */
V_FN void fit_descend_subs(const FitLattice *s, const FitList *list, int dimensions, int signs, int sub, FitWork *k,
                           FitScales *now, int block, const float *u, const float *d, const FitMetric *metric)
{
    VF *wanted = k->times_d, *change = k->times_min;
    for (int at = block; at < block + 256; at += sub) {
        VI *whole = &now->scale[(at - block) / sub], first = *whole;
        const VF scale = vf_mul(now->d, vi_to_f(first));
        VF x[32], units[32], best = fit_step(x, k, sub, at, block + 256, u, d, &metric->subs);
        for (int i = 0; i < sub; i++) {
            units[i] = k->unit[at + i];
            wanted[at + i] = vf_add(vf_mul(scale, units[i]), x[i]);
        }
        for (int t = 0; t < FIT_SUB_TRIES + (signs == FIT_SHIFT); t++) {
            const FitTry one = fit_try(s, signs, now, first, t, units[0]);
            VF unit[32], e[32];
            const VF total = fit_points(s, list, dimensions, signs, sub, wanted, wanted, at, one.scale, one.shift,
                                        metric->subs.v, metric->subs.e, metric->own_sub, unit, e);
            const VM better = vf_lt(total, best);
            best = vf_select(better, total, best);
            *whole = vi_select(better, one.whole, *whole);
            for (int i = 0; i < sub; i++) {
                units[i] = vf_select(better, unit[i], units[i]);
            }
        }
        const VF after = vf_mul(now->d, vi_to_f(*whole));
        for (int i = 0; i < sub; i++) {
            change[at + i] = vf_sub(vf_mul(after, units[i]), vf_mul(scale, k->unit[at + i]));
            k->unit[at + i] = units[i];
        }
        fit_change(k, change, sub, at, block + 256, u);
    }
}

/* Chooses the scale of the sub-block at `from`, and with it its points. */
V_FN void fit_choose_points(const FitLattice *s, const FitList *list, int dimensions, int signs, int sub, FitWork *k,
                            FitScales *now, int from, int n, int reach, const float *u, const float *d, const float *m)
{
    VF best = vf_set1(INFINITY);
    VI scale_best = now->scale[n];
    for (int i = 0; i < sub; i++) { /* what is there where no error is a number */
        k->unit[from + i] = vf_set1(s->levels[0]);
        k->bad[from + i] = vf_neg(k->w[from + i]);
    }
    for (int t = 0; t < 2 * reach + 1 + (signs == FIT_SHIFT); t++) {
        const FitTry one = fit_try(s, signs, now, now->scale[n], t, k->unit[from]);
        VF unit[32], e[32];
        const VF total = fit_points(s, list, dimensions, signs, sub, k->w, k->left, from, one.scale, one.shift, u, d, m,
                                    unit, e);
        const VM better = vf_lt(total, best);
        best = vf_select(better, total, best);
        scale_best = vi_select(better, one.whole, scale_best);
        for (int i = 0; i < sub; i++) {
            k->unit[from + i] = vf_select(better, unit[i], k->unit[from + i]);
            k->bad[from + i] = vf_select(better, e[i], k->bad[from + i]);
        }
    }
    now->scale[n] = scale_best;
    now->total = vf_add(now->total, best);
}

/* The compensated weights encoded as the type's own encoder does: bytes, and as the best so far with their error. */
static void fit_own(const FitLattice *s, FitWork *k, FitScales *now, FitScales *best, int at, const float *u,
                    const float *d, forge_encode_fn encode, forge_decode_fn decode, uint8_t *bytes)
{
    const float *from[VN];
    float of_d[VN];
    int32_t scale[16][VN];
    encode(k->rows, bytes, VN, d + at, 1);
    decode(bytes, k->rows, VN);
    for (int l = 0; l < VN; l++) {
        FitPoints open;
        s->open(bytes + l * s->shape.bytes, &open);
        of_d[l] = open.d < 65504.f ? open.d : 65504.f;
        for (int i = 0; i < 256 / s->shape.sub; i++) {
            scale[i][l] = 2 * open.scale[i] + 1;
        }
        from[l] = k->rows + 256 * l;
    }
    now->d = vf_load(of_d);
    now->dmin = vf_set1(0.f);
    for (int i = 0; i < 256 / s->shape.sub; i++) {
        now->scale[i] = vi_load(scale[i]);
        now->min[i] = vi_set1(0);
    }
    vf_load_lanes(k->left + at, from, 256);
    fit_times(k->bad, u, k->left, at, at + 256);
    VF total = vf_set1(0.f);
    for (int i = at; i < at + 256; i++) {
        const VF y = vf_sub(k->target[i], k->bad[i]);
        total = vf_add(total, vf_mul(vf_set1(d[i]), vf_mul(y, y)));
        k->error[i] = vf_sub(k->left[i], k->w[i]);
        k->best[i] = vf_set1(s->levels[0]);
    }
    const VM finite = vf_le(total, vf_set1(FLT_MAX));
    best->total = vf_select(finite, total, vf_set1(INFINITY));
    best->d = vf_set1(0.f);
    for (int i = 0; i < 16; i++) {
        best->scale[i] = vi_set1(1);
    }
    for (int i = at; i < at + 256; i++) {
        k->error[i] = vf_select(finite, k->error[i], vf_neg(k->w[i]));
    }
}

/* Fits the block at column `at` of the chunk. Returns the error of what bytes hold: the type's own encoder's. */
V_FN VF fit_lattice(const FitLattice *s, const FitList *list, int dimensions, int signs, int sub, FitWork *k,
                    FitScales *best, int at, const float *u, const float *d, forge_encode_fn encode,
                    forge_decode_fn decode, int rounds, const FitMetric *metric, uint8_t *bytes)
{
    FitScales now;
    fit_compensate(k, at, 256, u);
    fit_times(k->target, u, k->w, at, at + 256);
    for (int i = at; i < at + 256; i++) {
        k->target[i] = vf_add(k->target[i], vf_sub(k->base[i], k->w[i]));
    }
    fit_own(s, k, &now, best, at, u, d, encode, decode, bytes);
    const VF own = best->total;
    for (int round = 0; round < rounds; round++) {
        now.total = vf_set1(0.f);
        for (int i = at; i < at + 256; i++) {
            k->left[i] = k->base[i];
        }
        for (int n = 0; n < 256 / sub; n++) {
            const int from = at + n * sub;
            fit_choose_points(s, list, dimensions, signs, sub, k, &now, from, n, round ? 1 : 2, u, d, metric->own);
            fit_carry_on(k, k->left, u, k->bad, from, from + sub, at + 256);
        }
        fit_keep(&s->shape, k, &now, best, at);
        fit_residual(k, &now, sub, at, u, d);
        fit_descend_subs(s, list, dimensions, signs, sub, k, &now, at, u, d, metric);
        for (int sweep = 0; sweep < FIT_SWEEPS; sweep++) {
            fit_descend(s, list, dimensions, signs, sub, k, &now, at, u, d, metric);
        }
        now.total = fit_residual(k, &now, sub, at, u, d);
        for (int i = at; i < at + 256; i++) {
            k->bad[i] = vf_sub(k->bad[i], k->w[i]);
        }
        fit_keep(&s->shape, k, &now, best, at);
        if (round + 1 < rounds) {
            const VF before = now.d; /* points follow d only slowly: it goes the same way further */
            fit_refit(&s->shape, 0, k, &now, at, d);
            now.d = vf_through_f16(vf_add(before, vf_mul(vf_set1(FIT_FARTHER), vf_sub(now.d, before))));
        }
    }
    return own;
}

#define FIT_LATTICE(name, dimensions, signs, sub) \
    static VF name(const FitLattice *s, const FitList *list, FitWork *k, FitScales *best, int at, const float *u, \
                   const float *d, forge_encode_fn encode, forge_decode_fn decode, int rounds, \
                   const FitMetric *metric, uint8_t *bytes) \
    { \
        return fit_lattice(s, list, dimensions, signs, sub, k, best, at, u, d, encode, decode, rounds, metric, bytes); \
    }
FIT_LATTICE(fit_free4, 4, FIT_FREE, 32)
FIT_LATTICE(fit_even4, 4, FIT_EVEN, 32)
FIT_LATTICE(fit_free8, 8, FIT_FREE, 16)
FIT_LATTICE(fit_even8, 8, FIT_EVEN, s->shape.sub)
FIT_LATTICE(fit_shift8, 8, FIT_SHIFT, 32)
FIT_LATTICE(fit_shifts8, 8, FIT_SHIFTS, 16)
#undef FIT_LATTICE

#define IQ2_LEVELS {1, 3.125f, 5.375f}
static const FitLattice fit_lattices[] = {
    {.shape = {.type = 16, .block = 256, .sub = 32, .bytes = 66, .form = FIT_INTS, .scale_least = 1, .scale_most = 31},
     .which = LATTICE_IQ2_XXS, .dimensions = 8, .signs = FIT_EVEN, .levels = IQ2_LEVELS,
     .open = iq2_xxs_open, .close = iq2_xxs_close},
    {.shape = {.type = 17, .block = 256, .sub = 16, .bytes = 74, .form = FIT_INTS, .scale_least = 1, .scale_most = 31},
     .which = LATTICE_IQ2_XS, .dimensions = 8, .signs = FIT_EVEN, .levels = IQ2_LEVELS,
     .open = iq2_xs_open, .close = iq2_xs_close},
    {.shape = {.type = 18, .block = 256, .sub = 32, .bytes = 98, .form = FIT_INTS, .scale_least = 1, .scale_most = 31},
     .which = LATTICE_IQ3_XXS, .dimensions = 4, .signs = FIT_EVEN, .levels = {1, 3, 5, 7, 9, 11, 13, 15.5f},
     .open = iq3_xxs_open, .close = iq3_xxs_close},
    {.shape = {.type = 19, .block = 256, .sub = 32, .bytes = 50, .form = FIT_INTS, .scale_least = 1, .scale_most = 15},
     .which = LATTICE_IQ1, .dimensions = 8, .signs = FIT_SHIFT, .levels = {.125f}, .open = iq1_s_open,
     .close = iq1_s_close},
    {.shape = {.type = 21, .block = 256, .sub = 32, .bytes = 110, .form = FIT_INTS, .scale_least = 1, .scale_most = 31},
     .which = LATTICE_IQ3_S, .dimensions = 4, .signs = FIT_FREE, .levels = {1, 3, 5, 7, 9, 11, 13, 15},
     .open = iq3_s_open, .close = iq3_s_close},
    {.shape = {.type = 22, .block = 256, .sub = 16, .bytes = 82, .form = FIT_INTS, .scale_least = 1, .scale_most = 31},
     .which = LATTICE_IQ2_S, .dimensions = 8, .signs = FIT_FREE, .levels = IQ2_LEVELS,
     .open = iq2_s_open, .close = iq2_s_close},
    {.shape = {.type = 29, .block = 256, .sub = 16, .bytes = 56, .form = FIT_INTS, .scale_least = 1, .scale_most = 15},
     .which = LATTICE_IQ1, .dimensions = 8, .signs = FIT_SHIFTS, .levels = {.125f}, .open = iq1_m_open,
     .close = iq1_m_close},
};
#undef IQ2_LEVELS

/* One lane of what was found: units to points, signs and shifts. */
static void fit_write_points(const FitLattice *s, const FitWork *k, const FitScales *best, int at, int lane,
                             uint8_t *out)
{
    const forge_lattice *t = forge_lattice_get(s->which);
    const int bits = 16 / s->dimensions == 4 ? 3 : 2;
    FitPoints f;
    memset(&f, 0, sizeof f);
    f.d = ((const float *)(const void *)&best->d)[lane];
    for (int i = 0; i < 256 / s->shape.sub; i++) {
        f.scale[i] = ((const int32_t *)(const void *)&best->scale[i])[lane] >> 1;
    }
    for (int group = 0; group < 256 / s->dimensions; group++) {
        unsigned code = 0;
        for (int j = 0; j < s->dimensions; j++) {
            const int i = group * s->dimensions + j;
            const float unit = ((const float *)(const void *)&k->best[at + i])[lane];
            int level = ((int)fabsf(unit) - 1) / 2;
            if (s->signs >= FIT_SHIFT) {
                level = (int)(unit + 1.5f);
                f.down[i / 8] = unit + 1.f < (float)level;
            }
            f.signs[i / 8] |= (uint8_t)((unit < 0.f) << i % 8);
            code |= (unsigned)level << bits * j;
        }
        f.index[group] = (uint16_t)(forge_lattice_place(t, code) >> 9 & (unsigned)(t->points - 1));
    }
    s->close(&f, out);
}

#endif

/* Groups of four or eight columns, a lane a row, rounded to points of a lattice.
 *
 * Were nothing of a group rounded, its columns should be t; with M = U' D U of its columns a point's value v has the
 * error (t - v)' M (t - v). All points are compared by the diagonal of M, in four bouts, the winners by all of it. */
#ifndef FORGE_FIT_GROUPS_H
#define FORGE_FIT_GROUPS_H

/* Signs: any; an even number of minuses among eight; none, and the points shifted alike in a sub-block, or each. */
enum { FIT_FREE, FIT_EVEN, FIT_SHIFT, FIT_SHIFTS };

enum { FIT_BOUTS = 4, FIT_POINTS = 2048 };

typedef struct {
    FitShape shape;
    int which, dimensions, signs;
    float levels[8]; /* of magnitudes, smallest first; where points are shifted one of what weights can be */
    void (*open)(const uint8_t *in, FitPoints *f);
    void (*close)(const FitPoints *f, uint8_t *out);
} FitLattice;

/* The points: numbers of their first and second halves among all that halves can be, and codes. */
typedef struct {
    int count;
    uint8_t first[FIT_POINTS], second[FIT_POINTS];
    uint16_t code[FIT_POINTS];
} FitList;

static void fit_list(const FitLattice *s, FitList *list)
{
    const forge_lattice *t = forge_lattice_get(s->which);
    list->count = t->points;
    for (int i = 0; i < t->points; i++) {
        const unsigned code = t->codes[i];
        list->code[i] = (uint16_t)code;
        list->first[i] = (uint8_t)(s->dimensions == 8 ? t->low[code & 255] : code & 63);
        list->second[i] = (uint8_t)(s->dimensions == 8 ? t->low[code >> 8] : code >> 6);
    }
}

/* One group in the making. */
typedef struct {
    VF t[8];      /* what its columns should be, */
    VF size[8];   /* and as magnitudes, where there are signs */
    VI minus[8];  /* bits of the signs */
    VM flip;      /* lanes in which one sign has to change */
    VF value[8];  /* what was chosen: what the scale multiplies, */
    VF total;     /* and its error */
} FitGroup;

/* sums[h][n] of half h of a group: of one term a column, or the least of them; n numbers the half's levels. */
V_FN void fit_halves(VF sums[2][81], const VF term[8][8], int dimensions, int least)
{
    for (int h = 0; h < 2; h++) {
        if (dimensions == 4) {
            for (int n = 0; n < 64; n++) {
                const VF a = term[2 * h][n & 7], b = term[2 * h + 1][n >> 3];
                sums[h][n] = least ? vf_min(a, b) : vf_add(a, b);
            }
            continue;
        }
        VF pairs[2][9];
        for (int p = 0; p < 2; p++) {
            for (int n = 0; n < 9; n++) {
                const VF a = term[4 * h + 2 * p][n % 3], b = term[4 * h + 2 * p + 1][n / 3];
                pairs[p][n] = least ? vf_min(a, b) : vf_add(a, b);
            }
        }
        for (int high = 0; high < 9; high++) {
            for (int low = 0; low < 9; low++) {
                sums[h][9 * high + low] =
                    least ? vf_min(pairs[0][low], pairs[1][high]) : vf_add(pairs[0][low], pairs[1][high]);
            }
        }
    }
}

/* The winner of each bout by the diagonal m of the group's metric: numbers of points. */
V_FN void fit_bouts(const FitGroup *g, const FitList *list, int dimensions, int even, const VF *levels, const float *m,
                    VF scale, VI winner[FIT_BOUTS])
{
    const int count = dimensions == 4 ? 8 : 3;
    VF term[8][8], sums[2][81], flips[2][81], best[FIT_BOUTS];
    for (int j = 0; j < dimensions; j++) {
        for (int l = 0; l < count; l++) {
            const VF off = vf_sub(g->size[j], vf_mul(scale, levels[l]));
            term[j][l] = vf_mul(vf_set1(m[j]), vf_mul(off, off));
        }
    }
    fit_halves(sums, (const VF(*)[8])term, dimensions, 0);
    if (even) { /* what the cheapest sign costs, where one must change */
        for (int j = 0; j < dimensions; j++) {
            const VF times = vf_mul(vf_set1(4.f * m[j]), vf_mul(g->size[j], scale));
            for (int l = 0; l < count; l++) {
                term[j][l] = vf_select(g->flip, vf_mul(times, levels[l]), vf_set1(0.f));
            }
        }
        fit_halves(flips, (const VF(*)[8])term, dimensions, 1);
    }
    for (int b = 0; b < FIT_BOUTS; b++) {
        best[b] = vf_set1(FLT_MAX);
        winner[b] = vi_set1(b);
    }
    for (int i = 0; i < list->count; i += FIT_BOUTS) {
        for (int b = 0; b < FIT_BOUTS; b++) {
            const int one = list->first[i + b], two = list->second[i + b];
            VF sum = vf_add(sums[0][one], sums[1][two]);
            if (even) {
                sum = vf_add(sum, vf_min(flips[0][one], flips[1][two]));
            }
            const VM better = vf_lt(sum, best[b]);
            best[b] = vf_select(better, sum, best[b]);
            winner[b] = vi_select(better, vi_set1(i + b), winner[b]);
        }
    }
}

/* Compares the winners of the bouts by the whole metric, and takes the best that is better than g->total. */
V_FN void fit_final(FitGroup *g, const FitList *list, int dimensions, int signs, VFT levels, VF shift, const float *m,
                    const float *u, const float *d, VF scale, const VI winner[FIT_BOUTS])
{
    for (int b = 0; b < FIT_BOUTS; b++) {
        int32_t codes[VN];
        VF value[8], off[8], total = vf_set1(0.f);
        vi_store(codes, winner[b]);
        for (int l = 0; l < VN; l++) {
            codes[l] = list->code[codes[l]];
        }
        const VI code = vi_load(codes);
        for (int j = 0; j < dimensions; j++) {
            value[j] = dimensions == 4 ? vf_lookup8(levels, vi_and(vi_shr(code, 3 * j), vi_set1(7)))
                                       : vf_lookup4(levels, vi_and(vi_shr(code, 2 * j), vi_set1(3)));
        }
        if (signs == FIT_FREE || signs == FIT_EVEN) {
            VI cheapest = vi_set1(-1);
            if (signs == FIT_EVEN) {
                VF least = vf_set1(INFINITY);
                for (int j = 0; j < dimensions; j++) {
                    const VF cost = vf_mul(vf_mul(vf_set1(m[j]), g->size[j]), value[j]);
                    const VM less = vm_and(g->flip, vf_lt(cost, least));
                    least = vf_select(less, cost, least);
                    cheapest = vi_select(less, vi_set1(j), cheapest);
                }
            }
            for (int j = 0; j < dimensions; j++) {
                value[j] = vf_select(vi_eq(cheapest, vi_set1(j)), vf_neg(value[j]), value[j]);
                value[j] = vi_as_f(vi_xor(vf_bits(value[j]), g->minus[j]));
            }
        } else {
            for (int j = 0; j < dimensions; j++) {
                value[j] = vf_add(value[j], shift);
            }
        }
        for (int j = 0; j < dimensions; j++) {
            off[j] = vf_sub(g->t[j], vf_mul(scale, value[j]));
            VF y = off[j];
            for (int i = 0; i < j; i++) {
                y = vf_add(y, vf_mul(vf_set1(u[j * FIT_CHUNK + i]), off[i]));
            }
            total = vf_add(total, vf_mul(vf_set1(d[j]), vf_mul(y, y)));
        }
        const VM better = vf_lt(total, g->total);
        g->total = vf_select(better, total, g->total);
        for (int j = 0; j < dimensions; j++) {
            g->value[j] = vf_select(better, value[j], g->value[j]);
        }
    }
}

/* What `n` columns from `at` on should be, were nothing of them rounded; e: errors from column `from` on; w and left as
 * in FitWork. */
V_FN void fit_wanted(VF *t, const VF *w, const VF *left, const VF *e, int from, int at, int n, const float *u)
{
    for (int j = 0; j < n; j++) {
        const float *row = u + (at + j) * FIT_CHUNK;
        VF x = left[at + j];
        for (int i = from; i < at; i++) {
            x = vf_sub(x, vf_mul(vf_set1(row[i]), e[i - from]));
        }
        for (int i = 0; i < j; i++) {
            x = vf_sub(x, vf_mul(vf_set1(row[at + i]), vf_sub(t[i], w[at + i])));
        }
        t[j] = x;
    }
}

V_FN VI fit_minus(VF a) { return vi_and(vf_bits(a), vi_set1((int)0x80000000u)); }

/* Lanes of the first half of eight in which a sign has to change: where their number is odd, and this half has the sign
 * that costs less. t: of all eight. */
V_FN VM fit_flip_first(const FitLattice *s, const VF *t, const float *m, VF scale)
{
    const VF low = vf_mul(scale, vf_set1(s->levels[0])), high = vf_mul(scale, vf_set1(s->levels[7]));
    VI odd = vi_set1(0);
    VF cost[2] = {vf_set1(INFINITY), vf_set1(INFINITY)};
    for (int j = 0; j < 8; j++) {
        const VF size = vf_abs(t[j]), level = vf_min(vf_max(size, low), high);
        odd = vi_xor(odd, fit_minus(t[j]));
        cost[j / 4] = vf_min(vf_mul(vf_mul(vf_set1(m[j]), size), level), cost[j / 4]);
    }
    return vm_andnot(vf_le(cost[0], cost[1]), vi_eq(odd, vi_set1(0)));
}

/* Rounds a sub-block with one scale, and returns its error; unit gets what the scale multiplies, e the errors. */
V_FN VF fit_points(const FitLattice *s, const FitList *list, int dimensions, int signs, int sub, const VF *w,
                   const VF *left, int from, VF scale, VF shift, const float *u, const float *d, const float *m,
                   VF *unit, VF *e)
{
    static const float trits[8] = {-1, 0, 1, 0};
    const float *of = signs == FIT_FREE || signs == FIT_EVEN ? s->levels : trits;
    const VFT table = dimensions == 4 ? vf_table8(of) : vf_table4(of);
    VF sum = vf_set1(0.f);
    VI odd = vi_set1(0);
    for (int at = from; at < from + sub; at += dimensions) {
        FitGroup g;
        const float *inner = u + at * FIT_CHUNK + at;
        const int halves = signs == FIT_EVEN && dimensions == 4, first = halves && at % 8 == 0;
        VF wanted[8];
        if (first) {
            fit_wanted(wanted, w, left, e, from, at, 8, u);
        } else {
            fit_wanted(wanted, w, left, e, from, at, dimensions, u);
        }
        if (at % 8 == 0) {
            odd = vi_set1(0);
        }
        for (int j = 0; j < dimensions; j++) {
            g.t[j] = g.size[j] = wanted[j];
            g.value[j] = vf_set1(of[0]);
            if (signs == FIT_FREE || signs == FIT_EVEN) {
                g.minus[j] = fit_minus(wanted[j]);
                g.size[j] = vf_abs(wanted[j]);
                odd = vi_xor(odd, g.minus[j]);
            }
        }
        if (signs == FIT_EVEN) {
            g.flip = first ? fit_flip_first(s, wanted, m + at, scale) : vm_not(vi_eq(odd, vi_set1(0)));
            odd = vi_xor(odd, vi_select(g.flip, vi_set1((int)0x80000000u), vi_set1(0)));
        }
        g.total = vf_set1(INFINITY);
        for (int turn = 0; turn < (signs == FIT_SHIFTS ? 2 : 1); turn++) {
            const VF by = signs == FIT_SHIFTS ? vf_set1(turn ? -.125f : .125f) : shift;
            VF levels[8];
            VI winner[FIT_BOUTS];
            for (int l = 0; l < (dimensions == 4 ? 8 : 3); l++) {
                levels[l] = signs >= FIT_SHIFT ? vf_add(vf_set1(of[l]), by) : vf_set1(of[l]);
            }
            fit_bouts(&g, list, dimensions, signs == FIT_EVEN, levels, m + at, scale, winner);
            fit_final(&g, list, dimensions, signs, table, by, m + at, inner, d + at, scale, winner);
        }
        sum = vf_add(sum, g.total);
        for (int j = 0; j < dimensions; j++) {
            unit[at - from + j] = g.value[j];
            e[at - from + j] = vf_sub(vf_mul(scale, g.value[j]), w[at + j]);
        }
    }
    return sum;
}

#endif

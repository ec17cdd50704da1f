/* The nearest of a list of lattice points to a group of weights, for one scale or for many. Knows lists and distances,
 * no sub-blocks.
 *
 * For one scale lanes are points: a distance is a sum of one term a component, and a component has few values, so all
 * terms are tabulated once and each distance is looked up and added in the reference's order.
 *
 * For many scales lanes are scales. A squared distance, sum of w (s q - x)^2, is s (s A - B) plus what all points
 * share, with A = sum of w q^2 and B = sum of 2 w q x: a line in s for each point, and the lowest line is the nearest
 * point, unless another is so near that rounding could decide: see lattice_walk.
 */
#ifndef FORGE_LATTICE_WALK_H
#define FORGE_LATTICE_WALK_H

#include "lattice.h"
#include <float.h>

enum {
    LATTICE_OFF = 1 << 16, /* set in a code that had to be moved to a lattice point */
    LATTICE_SCALES = 32    /* at most, at a time */
};

static const float lattice_odd[8] = {1, 3, 5, 7, 9, 11, 13, 15};

static const int32_t lattice_counting[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                             16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};

/* 32 values of the components' terms: eight components of four values each, or four of eight. */
typedef struct {
    VF x[32 / VN], w[32 / VN], level[32 / VN];
} lattice_group;

/* A group of magnitudes x and factors w, and the values that a component can have. */
V_FN lattice_group lattice_load_group(const float *x, const float *w, int dimensions, const float *levels)
{
    lattice_group group;
    for (int i = 0; i < 32 / VN; i++) {
        const VI index = vi_load(lattice_counting + i * VN);
        if (dimensions == 4) {
            group.x[i] = vf_lookup4(vf_table4(x), vi_shr(index, 3));
            group.w[i] = vf_lookup4(vf_table4(w), vi_shr(index, 3));
            group.level[i] = vf_lookup8(vf_table8(levels), index);
        } else {
            group.x[i] = vf_lookup8(vf_table8(x), vi_shr(index, 2));
            group.w[i] = vf_lookup8(vf_table8(w), vi_shr(index, 2));
            group.level[i] = vf_lookup4(vf_table4(levels), index);
        }
    }
    return group;
}

/* The sum, for each lane's code, of one term a component. */
V_FN VF lattice_look_up(const float *term, int dimensions, VI codes)
{
    if (dimensions == 4) {
        VF d = vf_lookup8(vf_table8(term), codes);
        for (int k = 1; k < 4; k++) {
            d = vf_add(d, vf_lookup8(vf_table8(term + 8 * k), vi_shr(codes, 3 * k)));
        }
        return d;
    }
    VF d = vf_lookup4(vf_table4(term), codes);
    for (int k = 1; k < 8; k++) {
        d = vf_add(d, vf_lookup4(vf_table4(term + 4 * k), vi_shr(codes, 2 * k)));
    }
    return d;
}

/* The first of the nearest of n listed codes. Where no distance is a finite number ggml stops; here the first is taken. */
V_FN unsigned lattice_nearest(const lattice_group *group, int dimensions, float scale, const uint16_t *list, int n)
{
    float term[32];
    VF s = vf_set1(scale), best = vf_set1(FLT_MAX);
    VI at = vi_set1(0);
    for (int i = 0; i < 32 / VN; i++) {
        VF diff = vf_sub(vf_mul(s, group->level[i]), group->x[i]);
        vf_store(term + i * VN, vf_mul(vf_mul(group->w[i], diff), diff));
    }
    if (n <= VN) {
        best = vf_min(lattice_look_up(term, dimensions, vi_load_codes(list)), best);
        return list[first_bit(vm_bits(vf_eq(best, vf_set1(vf_hmin(best)))))];
    }
    for (int j = 0; j < n; j += VN) {
        VF d = lattice_look_up(term, dimensions, vi_load_codes(list + j));
        at = vi_select(vf_lt(d, best), vi_set1(j), at);
        best = vf_min(d, best);
    }
    uint32_t hits = vm_bits(vf_eq(best, vf_set1(vf_hmin(best))));
    int32_t start[VN];
    vi_store(start, at);
    int first = start[first_bit(hits)] + first_bit(hits);
    while ((hits &= hits - 1) != 0) { /* equal distances: the earlier in the list */
        const int other = start[first_bit(hits)] + first_bit(hits);
        first = other < first ? other : first;
    }
    return list[first];
}

/* Moves code to the lattice, if it is not there, and then marks it. */
V_FN int32_t lattice_move(const forge_lattice *t, const lattice_group *group, int dimensions, float scale, int32_t code)
{
    uint32_t place = forge_lattice_place(t, (uint32_t)code);
    int n = (int)(place & 511);
    if (n == 0) {
        return code;
    }
    return (int32_t)lattice_nearest(group, dimensions, scale, t->near + (place >> 9) * 16, n) | LATTICE_OFF;
}

/* Scales, one a lane, and 1 / scale as ggml has it. */
typedef struct {
    int vectors;
    VF scale[LATTICE_SCALES / VN], inverse[LATTICE_SCALES / VN];
} lattice_ladder;

/* The codes that a group is rounded to for each of these scales, and how surely. */
typedef struct {
    VI code[LATTICE_SCALES / VN];
    VF edge[LATTICE_SCALES / VN]; /* the farthest that a component lies from the middle of its level, in levels */
} lattice_rounded;

enum { LATTICE_LINES = LATTICE_SCALES * LATTICE_RIVALS };

/* Runs of equal codes off the lattice, which neighbouring scales mostly have, and the rivals of each run as lines. */
typedef struct {
    int runs, first[LATTICE_SCALES], end[LATTICE_SCALES]; /* scales */
    const uint16_t *list[LATTICE_SCALES];
    int n[LATTICE_SCALES], line[LATTICE_SCALES]; /* how many rivals, and where their lines begin */
    uint32_t off;                                /* the scales in a run */
    _Alignas(64) float a[LATTICE_LINES];
    _Alignas(64) float b[LATTICE_LINES];
    _Alignas(64) int32_t code[LATTICE_LINES];
} lattice_runs;

/* Bits from `first` on, up to `end`. */
static inline uint32_t lattice_bits(int first, int end)
{
    return (uint32_t)(((uint64_t)1 << end) - ((uint64_t)1 << first));
}

/* With many lanes a run ends with its vector of scales. */
V_FN void lattice_find_runs(lattice_runs *m, const forge_lattice *t, int dimensions, const lattice_rounded *rounded,
                            int vectors, const int32_t *code)
{
    uint32_t starts = 1;
    for (int v = 0; v < vectors; v++) {
        const VI previous = vi_previous(rounded->code[v > 0 ? v - 1 : 0], rounded->code[v]);
        starts |= vm_bits(vm_not(vi_eq(rounded->code[v], previous))) << v * VN;
        starts |= VN < 8 ? 0u : 1u << v * VN;
    }
    int lines = 0;
    m->runs = 0;
    m->off = 0;
    while (starts != 0) {
        const int first = first_bit(starts), k = m->runs;
        starts &= starts - 1;
        const int end = starts != 0 ? first_bit(starts) : vectors * VN;
        const uint32_t c = (uint32_t)code[first];
        const uint32_t place = t->rival[dimensions == 4 ? c : forge_lattice_number(t, c)];
        const int n = (int)(place & 511);
        m->first[k] = first;
        m->end[k] = end;
        m->list[k] = t->rivals + (place >> 9) * 8;
        m->n[k] = n;
        m->line[k] = lines;
        m->runs += n > 0; /* else the next one takes its place */
        m->off |= n > 0 ? lattice_bits(first, end) : 0;
        lines += (n + 15) & -16;
    }
}

V_FN void lattice_load_lines(lattice_runs *m, const lattice_group *group, int dimensions)
{
    float a[32], b[32];
    for (int i = 0; i < 32 / VN; i++) {
        const VF wq = vf_mul(group->w[i], group->level[i]), wx = vf_mul(group->w[i], group->x[i]);
        vf_store(a + i * VN, vf_mul(wq, group->level[i]));
        vf_store(b + i * VN, vf_mul(wx, vf_add(group->level[i], group->level[i])));
    }
    for (int k = 0; k < m->runs; k++) {
        const int line = m->line[k], n = m->n[k];
        for (int j = 0; j < n; j += VN) {
            const VI codes = vi_load_codes(m->list[k] + j);
            vi_store(m->code + line + j, codes);
            vf_store(m->a + line + j, lattice_look_up(a, dimensions, codes));
            vf_store(m->b + line + j, lattice_look_up(b, dimensions, codes));
        }
    }
}

typedef struct {
    VI low, second, code; /* the bits of the two lowest values, and whose the lowest is */
} lattice_lowest;

/* The lowest of n lines at VN scales. Values are positive, so their bits compare as they do. */
V_FN lattice_lowest lattice_find_lowest(const float *a, const float *b, const int32_t *code, int n, VF scale, VF offset)
{
    const VI infinity = vf_bits(vf_set1(INFINITY));
    lattice_lowest r = {infinity, infinity, vi_set1(0)};
    for (int j = 0; j < n; j++) {
        const VI value = vf_bits(vf_sub(vf_add(vf_mul(scale, vf_set1(a[j])), offset), vf_set1(b[j])));
        r.code = vi_select(vi_gt(r.low, value), vi_set1(code[j]), r.code);
        r.second = vi_min(vi_max(value, r.low), r.second);
        r.low = vi_min(value, r.low);
    }
    return r;
}

/* Moves the codes of a group for many scales, code[i] for the i-th, to the lattice, as lattice_move does for each.
 *
 * When is the lowest line surely ggml's point? An operation's result is right to u = 2^-24 of itself. For a scale s and
 * the levels q of a point, let
 *     A = sum of w q^2,  B = sum of |2 w q x|,  C = sum of w x^2 / s (`own` / s),  F = sum of w (s q - x)^2 / s.
 *
 * 1. Sizes. s A, C and F are squared lengths, of s q, x and s q - x under the weights w / s. So sqrt(s A) <= sqrt(C) +
 *    sqrt(F), and by Cauchy's inequality B <= 2 sqrt(C) sqrt(s A). With 2 sqrt(C F) <= C / 4 + 4 F this gives
 *    s A <= 1.25 C + 5 F and B <= 2.25 C + 4 F.
 * 2. A line's value: V = s A + O - (sum of 2 w q x), with the offset O that all points share. A term of A or B is
 *    rounded twice, as (w q) q or (w x) (2 q), and a sum of eight terms seven times: 9 u. Then s A is rounded as a
 *    product, with O added, and with the rest taken away; in all, (11 s A + O + 9 B + V) u. O is C but for 2^-15 of it
 *    (see 4), and so V is F but for that. The value is right to
 *        (13.75 + 1 + 20.25) C u + (55 + 36 + 1) F u = (35 C + 92 F) u.
 *    For four components, whose sums are rounded three times: (7 s A + O + 5 B + V) u <= (21 C + 56 F) u.
 * 3. ggml's distance. In (s q) - x the product errs by u s q, the difference by u |s q - x|. Squared, with its factors
 *    and the sum, this is 2 u sum of w s q |s q - x|, and (2 + 2 + 7) u of the distance. By Cauchy the former, over s,
 *    is at most 2 u sqrt(s A F) <= (2 sqrt(C F) + 2 F) u <= (C + 3 F) u. The distance / s is right to (C + 14 F) u, for
 *    four components to (C + 10 F) u.
 * 4. The test, second (1 - 2^-15) > low + 2^-17 O, is about rounded values. For the exact F2 and F1 it says
 *        F2 (1 - (512 - 92 - 1) u) + 35 C u > F1 (1 - (92 + 1) u) + (128 - 35) C u,
 *    where each 1 u is for the test's own roundings. So F2 (1 - 14 u) > F1 (1 + 14 u) + 2 C u, which is what 3 asks for
 *    ggml's distances to be in the same order: of C, 128 u are there and 35 + 35 + 2 needed, of F 512 u and
 *    92 + 1 + 92 + 1 + 28. For four components 2^-18 O is 64 u, and 21 + 21 + 2 are needed. No other line lies below
 *    the second, so the same holds for all points. The C in O is enlarged by 2^-15, or 512 u: far more than O's own
 *    roundings and the 35 C u by which a line can come out too low. So values are positive, as lattice_find_lowest
 *    needs them.
 * 5. Ranges. lattice_own gives NaN, with which every comparison is false, unless 2^-36 < max, the largest |x| is below
 *    2^20 and 2^16 max, and the sum of w x^2 is 2^-55 to 2^55 times max. Scales are max / 18 to max / 4.1, so
 *    2^-41 < s < 2^18 and 2^-53 < C < 2^60. w is a square root of a float, so below 2^64, and nothing comes near 2^128.
 *    A product that underflows loses 2^-150, which multiplied by s q - x and divided by s stays below 2^-84, while
 *    C u > 2^-77; an x^2 that does, of |x| < 2^-63, is nothing beside (s q)^2 > 2^-82. A lowest value of 2^100 or more
 *    is none of a line.
 *
 * Why only rivals become lines: a point that is no rival has one before it in the list that is nowhere farther off, as
 * each component is the same or fewer steps (of 2 s) away from the level that the weight rounds to. A weight in steps,
 * (x / s - 1) / 2, errs by (16 + 16 + 15) / 2 u < 2^-19 when rounded: of 1 / s, of the product, of the difference. So
 * if it comes out at least 2^-16 from the edges of its level it does lie in it, and of two levels with the weight
 * between them the one that is fewer steps off is nearer by almost 2^-15 steps, 2^-14 s. Roundings of both s q - x are
 * below 2 (15 + 14) u s < 2^-18 s and keep that order. Of two levels on one side any rounding keeps it, being monotone,
 * and so it does in terms and sums. The first of equal distances wins. (As |x| is below 2^16 max, x / s stays below
 * 2^21, and lattice_round rounds.) */
V_FN void lattice_walk(const forge_lattice *t, const lattice_group *group, int dimensions, const lattice_ladder *ladder,
                       const lattice_rounded *rounded, float own, int32_t *code)
{
    lattice_runs m;
    lattice_lowest all[LATTICE_SCALES / VN];
    VF offset[LATTICE_SCALES / VN];
    for (int v = 0; v < ladder->vectors; v++) {
        all[v] = (lattice_lowest){vi_set1(0), vi_set1(0), rounded->code[v]};
        offset[v] = vf_mul(ladder->inverse[v], vf_set1(own * (1.f + 0x1p-15f)));
    }
    lattice_find_runs(&m, t, dimensions, rounded, ladder->vectors, code);
    lattice_load_lines(&m, group, dimensions);
    for (int k = 0; k < m.runs; k++) {
        const int first = m.first[k], end = m.end[k], line = m.line[k];
        const int last = VN < 8 ? (end - 1) / VN : first / VN;
        for (int v = first / VN; v <= last; v++) {
            const VM lanes = vm_from_bits(lattice_bits(first, end) >> v * VN);
            const lattice_lowest r =
                lattice_find_lowest(m.a + line, m.b + line, m.code + line, m.n[k], ladder->scale[v], offset[v]);
            all[v].low = vi_select(lanes, r.low, all[v].low);
            all[v].second = vi_select(lanes, r.second, all[v].second);
            all[v].code = vi_select(lanes, vi_or(r.code, vi_set1(LATTICE_OFF)), all[v].code);
        }
    }
    float scale[LATTICE_SCALES];
    int32_t moved[LATTICE_SCALES];
    uint32_t sure = 0;
    for (int v = 0; v < ladder->vectors; v++) {
        const VF low = vi_as_f(all[v].low), second = vf_mul(vi_as_f(all[v].second), vf_set1(1.f - 0x1p-15f));
        const VF error = vf_mul(offset[v], vf_set1(dimensions == 4 ? 0x1p-18f : 0x1p-17f));
        const VM clear = vm_and(vf_gt(second, vf_add(low, error)), vf_lt(low, vf_set1(0x1p100f)));
        sure |= vm_bits(vm_and(clear, vf_lt(rounded->edge[v], vf_set1(0.5f - 0x1p-16f)))) << v * VN;
        vi_store(moved + v * VN, all[v].code);
        vf_store(scale + v * VN, ladder->scale[v]);
    }
    for (uint32_t unsure = m.off & ~sure; unsure != 0; unsure &= unsure - 1) {
        const int i = first_bit(unsure);
        moved[i] = lattice_move(t, group, dimensions, scale[i], code[i]);
    }
    memcpy(code, moved, (size_t)(ladder->vectors * VN) * sizeof *code);
}

#endif

/* The search of IQ1_S and IQ1_M: the weights of a sub-block, sorted, are split in three runs, -1, 0 and 1; every split
 * is tried with every shift. Knows sums and candidates, no block layout.
 *
 * The reference goes through the candidates one by one and keeps the last that beats the best so far: q x^2 / q2 as
 * rounded, so the order matters. Here lanes hold different splits: a first pass finds the greatest value, a second goes
 * in order through the candidates close to it. That keeps the same one: see iq1_choose. One lane does as the reference.
 */
#ifndef FORGE_IQ1_FIT_H
#define FORGE_IQ1_FIT_H

#include "iq1.h"
#include "lattice_fit.h"

/* -1, 0, 1 shifted up and shifted down. The fourth is never used. */
static const float iq1_levels[2][4] = {{-0.875f, 0.125f, 1.125f, 0.f}, {-1.125f, -0.125f, 0.875f, 0.f}};

enum {
    IQ1_VECTORS = 33 * 34 / 2,            /* of splits of 32 weights; with one lane, as many as splits */
    IQ1_SPLITS = IQ1_VECTORS + 33 * (VN - 1) /* with what the last vector of a row has to spare */
};

typedef struct {
    float scale;
    int i1, i2, shift; /* shift is -1 when no candidate has a sum to divide by */
} iq1_split;

#if VN > 1
typedef struct {
    float qx[4][IQ1_SPLITS], q2[4][IQ1_SPLITS];      /* by shift, then split */
    uint8_t first[IQ1_VECTORS], second[IQ1_VECTORS]; /* of each vector: i1, and its first i2 */
    int vectors, shifts;
    float best; /* the greatest qx^2 / q2 */
    float sum_w, sum_wx; /* of w and of w |x| over the sub-block */
} iq1_candidates;

/* The greatest qx^2 / q2 of each lane among the candidates of one shift: qx^2, and q2. */
typedef struct {
    VF top, under;
} iq1_greatest;

/* Says which splits the v-th vector of candidates are: i1, and from i2 on. */
V_FN void iq1_at(iq1_candidates *c, int v, int i1, int i2)
{
    c->first[v] = (uint8_t)i1;
    c->second[v] = (uint8_t)i2;
}

/* Puts the v-th vector of candidates of the shift numbered k in its place. */
V_FN void iq1_propose(iq1_candidates *c, int k, int v, VF qx, VF q2, iq1_greatest *g)
{
    vf_store(c->qx[k] + v * VN, qx);
    vf_store(c->q2[k] + v * VN, q2);
    VF square = vf_mul(qx, qx);
    VM better = vf_gt(vf_mul(square, g->under), vf_mul(g->top, q2));
    g->top = vf_select(better, square, g->top);
    g->under = vf_select(better, q2, g->under);
}

/* Goes in order through the candidates above `bound`, as the reference does through all. */
V_FN iq1_split iq1_replay(const iq1_candidates *c, float bound)
{
    iq1_split split = {0.f, 0, 0, -1};
    float best = -FLT_MAX;
    VF floor = vf_set1(bound), zero = vf_set1(0.f);
    for (int v = 0; v < c->vectors; v++) {
        uint32_t bits[4], any = 0;
        for (int k = 0; k < c->shifts; k++) {
            VF qx = vf_load(c->qx[k] + v * VN), q2 = vf_load(c->q2[k] + v * VN);
            bits[k] = vm_bits(vm_and(vf_gt(q2, zero), vf_gt(vf_mul(qx, qx), vf_mul(floor, q2))));
            any |= bits[k];
        }
        for (; any != 0; any &= any - 1) {
            const int lane = first_bit(any);
            for (int k = 0; k < c->shifts; k++) {
                const float qx = c->qx[k][v * VN + lane], q2 = c->q2[k][v * VN + lane];
                if ((bits[k] >> lane & 1) && qx * qx > best * q2) {
                    split = (iq1_split){qx / q2, c->first[v], c->second[v] + lane, k};
                    best = split.scale * qx;
                }
            }
        }
    }
    return split;
}

/* The candidate that the reference ends with.
 *
 * Let u = 2^-24 and v = fl(fl(qx / q2) qx), the value a candidate leaves behind when taken. One is taken when
 * fl(qx^2) > fl(best q2), which is certain when v > best (1 + 4 u) and impossible when v < best (1 - 4 u), as long as
 * nothing under- or overflows. Among at most 1122 candidates, some two neighbours in value within 2^-9 of the greatest
 * leave a gap of more than 2^-9 / 1123 > 29 u between them. The first candidate above that gap is taken whatever was
 * best before, and from then on none below it is. So only candidates within 2^-9 of the greatest count; that one is
 * found by comparing fractions, each time right to 3 u.
 *
 * No qx is above 2.3 times the sum of w |x|, and q2 lies between 1/65 and 4/3 of the sum of w: the bounds below keep
 * all products that count away from the ends of the range. Outside them the candidates are all replayed. */
V_FN iq1_split iq1_choose(const iq1_candidates *c)
{
    const float best = c->best, product = best * c->sum_w;
    const int sound = c->sum_w > 1e-9f && c->sum_w < 1e12f && c->sum_wx < 1e12f && product > 1e-24f;
    return iq1_replay(c, sound ? best * (1.f - 0x1p-9f) : -INFINITY);
}

/* Makes room for candidates of sub-blocks of n weights. */
V_FN void iq1_begin(iq1_candidates *c, const float *x, const float *w, int n, int shifts, iq1_greatest *g)
{
    VF sum_w = vf_set1(0.f), sum_wx = sum_w;
    for (int i = 0; i < n; i += VN) { /* lanes may be parts of these sums: they only have to be about right */
        sum_w = vf_add(sum_w, vf_load(w + i));
        sum_wx = vf_add(sum_wx, vf_mul(vf_load(w + i), vf_abs(vf_load(x + i))));
    }
    float lanes[2][VN];
    vf_store(lanes[0], sum_w);
    vf_store(lanes[1], sum_wx);
    c->sum_w = c->sum_wx = 0.f;
    for (int l = 0; l < VN; l++) {
        c->sum_w += lanes[0][l];
        c->sum_wx += lanes[1][l];
    }
    c->shifts = shifts;
    for (int k = 0; k < shifts; k++) {
        g[k] = (iq1_greatest){vf_set1(0.f), vf_set1(1.f)};
    }
}

V_FN void iq1_end(iq1_candidates *c, int vectors, const iq1_greatest *g)
{
    c->vectors = vectors;
    VF best = vf_set1(0.f);
    for (int k = 0; k < c->shifts; k++) {
        best = vf_max(vf_div(g[k].top, g[k].under), best);
    }
    c->best = vf_hmax(best);
}

#else

/* With one lane the candidates come in the reference's order, and none has to be kept but the one that it would. */
typedef struct {
    iq1_split split, at;
    float best;
} iq1_candidates;

typedef struct {
    int nothing;
} iq1_greatest;

V_FN void iq1_begin(iq1_candidates *c, const float *x, const float *w, int n, int shifts, iq1_greatest *g)
{
    (void)x, (void)w, (void)n, (void)shifts, (void)g;
    c->split = c->at = (iq1_split){0.f, 0, 0, -1};
    c->best = -FLT_MAX;
}

V_FN void iq1_at(iq1_candidates *c, int v, int i1, int i2)
{
    (void)v;
    c->at.i1 = i1;
    c->at.i2 = i2;
}

V_FN void iq1_propose(iq1_candidates *c, int k, int v, VF qx, VF q2, iq1_greatest *g)
{
    (void)v, (void)g;
    if (q2 > 0.f && qx * qx > c->best * q2) {
        c->split = (iq1_split){qx / q2, c->at.i1, c->at.i2, k};
        c->best = c->split.scale * qx;
    }
}

V_FN void iq1_end(iq1_candidates *c, int vectors, const iq1_greatest *g) { (void)c, (void)vectors, (void)g; }
V_FN iq1_split iq1_choose(const iq1_candidates *c) { return c->split; }
#endif

/* order[r] = the index of the r-th smallest of n weights; equal ones keep their order. n is 16 or 32. */
V_FN void iq1_sort(const float *x, int n, uint8_t order[32])
{
    static const int32_t counting[32] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                         16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31};
    for (int i = 0; i < n; i += VN) {
        VF mine = vf_load(x + i);
        VI index = vi_load(counting + i), rank = vi_set1(0), one = vi_set1(1);
        for (int j = 0; j < n; j++) {
            VF other = vf_set1(x[j]);
            VM before = vf_lt(other, mine);
            if (j < i + VN) {
                before = vm_or(before, vm_and(vf_eq(other, mine), vi_gt(index, vi_set1(j))));
            }
            rank = vi_add(rank, vi_select(before, one, vi_set1(0)));
        }
        int32_t ranks[VN];
        vi_store(ranks, rank);
        for (int l = 0; l < VN; l++) {
            order[ranks[l]] = (uint8_t)(i + l);
        }
    }
}

/* Importances of n weights. */
V_FN void iq1_importance(const float *x, const float *given, int n, float sigma2, float *w)
{
    for (int i = 0; i < n; i += VN) {
        VF v = vf_load(x + i), square = vf_mul(v, v);
        vf_store(w + i, given == NULL ? square
                                      : vf_mul(vf_load(given + i), vf_sqrt(vf_add(vf_set1(sigma2), square))));
    }
}

V_FN float iq1_max(const float *x, int n)
{
    VF top = vf_set1(0.f);
    for (int i = 0; i < n; i += VN) {
        top = vf_max(vf_abs(vf_load(x + i)), top);
    }
    return vf_hmax(top);
}

/* The codes of the groups of n weights split so; a negative scale becomes positive, each -1 a 1. */
static inline void iq1_codes(const uint8_t *order, int n, iq1_split s, uint16_t codes[4])
{
    const int up = s.scale < 0.f ? 0 : 2;
    memset(codes, 0, 4 * sizeof *codes);
    for (int j = 0; j < n; j++) {
        const int level = j < s.i1 ? 2 - up : j < s.i2 ? 1 : up;
        codes[order[j] / 8] |= (uint16_t)(level << 2 * (order[j] % 8));
    }
}

/* Moves codes to the lattice; shift[k] numbers the levels of group k. Returns whether all were there. */
V_FN int iq1_settle(const forge_lattice *t, const float *x, const float *w, int groups, const uint8_t *shift, float scale,
                    uint16_t codes[4])
{
    int settled = 1;
    for (int k = 0; k < groups; k++) {
        const uint32_t place = forge_lattice_place(t, codes[k]);
        const int n = (int)(place & 511);
        if (n > 0) {
            lattice_group group = lattice_load_group(x + 8 * k, w + 8 * k, 8, iq1_levels[shift[k]]);
            codes[k] = (uint16_t)lattice_nearest(&group, 8, scale, t->near + (place >> 9) * 16, n);
            settled = 0;
        }
    }
    return settled;
}

/* Adds w q x and w q q of eight weights to sums[0] and sums[1], q being a level times `factor`. */
static inline void iq1_add(const float *x, const float *w, unsigned code, const float *levels, float factor, float *sums)
{
    for (int j = 0; j < 8; j++) {
        const float q = levels[code >> 2 * j & 3] * factor, wq = w[j] * q;
        sums[0] += wq * x[j];
        sums[1] += wq * q;
    }
}

#endif

/* The search of the lattice types IQ2 and IQ3: for each sub-block a scale and, for each group of its weights, the code
 * of a lattice point. Knows lanes and lattices, no block layout.
 *
 * Lanes hold sub-blocks while weights are rounded and sums are taken. In between, each group that fell off the lattice
 * walks its list of neighbours with the lanes holding neighbours: a distance is a sum of one term a component, and a
 * component has few values, so all terms are tabulated once and each distance is looked up and added in order.
 */
#ifndef FORGE_LATTICE_FIT_H
#define FORGE_LATTICE_FIT_H

#include "lattice.h"
#include "superblock.h"
#include <float.h>

enum { LATTICE_OFF = 1 << 16 }; /* set in a code that had to be moved to a lattice point */

typedef struct {
    int which;      /* LATTICE_... */
    int weights;    /* in a sub-block: 16 or 32 */
    int dimensions; /* in a group: 4 or 8 */
    int tries;      /* scales tried on each side of the middle one */
    float step;     /* from one to the next */
    int even;       /* each eight weights have an even number of minus signs */
    int twice;      /* sigma2 is twice the mean square, not once */
    float base;     /* importances without given ones are base * sigma2 + x^2 */
} lattice_kind;

typedef struct {
    float x[32][VN], w[32][VN], root[32][VN]; /* magnitudes, importances, and their square roots */
    VF max;                                   /* of the magnitudes */
    VI signs[4];                              /* of each eight weights, the first in bit 0 */
    VF scale;
    VI code[8];
} lattice_run;

/* Where the number of minus signs among eight is odd, flips the one that costs least. */
V_FN VI lattice_even_signs(VF x[8], const VF v[8], const VF w[8], VI signs)
{
    VI flips = vi_xor(signs, vi_shr(signs, 4)), least = vi_set1(1);
    flips = vi_xor(flips, vi_shr(flips, 2));
    flips = vi_and(vi_xor(flips, vi_shr(flips, 1)), vi_set1(1));
    VF min = vf_mul(vf_mul(w[0], v[0]), v[0]);
    for (int i = 1; i < 8; i++) {
        VF cost = vf_mul(vf_mul(w[i], v[i]), v[i]);
        VM less = vf_lt(cost, min);
        min = vf_select(less, cost, min);
        least = vi_select(less, vi_set1(1 << i), least);
    }
    least = vi_select(vi_eq(flips, vi_set1(1)), least, vi_set1(0));
    for (int i = 0; i < 8; i++) {
        x[i] = vf_select(vi_eq(least, vi_set1(1 << i)), vf_neg(x[i]), x[i]);
    }
    return vi_xor(signs, least);
}

/* Fills a run from the lanes' weights: importances are given * sqrt(sigma2 + x^2), or base + x^2 when none are given. */
V_FN void lattice_prepare(lattice_run *r, lattice_kind kind, const Lanes *g, int given, VF sigma2, VF base)
{
    VF v[32], w[32], x[32];
    vf_load_lanes(v, g->x, kind.weights);
    if (given) {
        vf_load_lanes(w, g->w, kind.weights);
    }
    for (int i = 0; i < kind.weights; i++) {
        VF square = vf_mul(v[i], v[i]);
        w[i] = given ? vf_mul(w[i], vf_sqrt(vf_add(sigma2, square))) : vf_add(base, square);
        vf_store(r->w[i], w[i]);
        vf_store(r->root[i], vf_sqrt(w[i]));
    }
    for (int k = 0; k < kind.weights / 8; k++) {
        VI signs = vi_set1(0);
        for (int i = 0; i < 8; i++) {
            VM minus = vf_lt(v[8 * k + i], vf_set1(0.f));
            x[8 * k + i] = vf_select(minus, vf_neg(v[8 * k + i]), v[8 * k + i]);
            signs = vi_or(signs, vi_select(minus, vi_set1(1 << i), vi_set1(0)));
        }
        if (kind.even) {
            signs = vi_and(lattice_even_signs(x + 8 * k, v + 8 * k, w + 8 * k, signs), vi_set1(127));
        }
        r->signs[k] = signs;
    }
    r->max = x[0];
    for (int i = 0; i < kind.weights; i++) {
        r->max = vf_max(r->max, x[i]);
        vf_store(r->x[i], x[i]);
    }
}

static const float lattice_odd[8] = {1, 3, 5, 7, 9, 11, 13, 15};

/* The codes of a group of magnitudes rounded to odd multiples of a scale, 1 / inverse. */
V_FN VI lattice_round(const float (*x)[VN], int dimensions, VF inverse)
{
    const int bits = 16 / dimensions == 4 ? 3 : 2, top = bits == 3 ? 7 : 2;
    VI code = vi_set1(0);
    for (int i = dimensions - 1; i >= 0; i--) {
        VF half = vf_mul(vf_set1(0.5f), vf_sub(vf_mul(inverse, vf_load(x[i])), vf_set1(1.f)));
        /* vi_nearest and vi_clamp, leaving 2^22 in for the mask below to take off */
        VI l = vi_and(vf_bits(vf_add(half, vf_set1(12582912.f))), vi_set1(0x007fffff));
        l = vi_max(vi_min(l, vi_set1(0x00400000 + top)), vi_set1(0x00400000));
        code = vi_or(vi_shl(code, bits), l);
    }
    return vi_and(code, vi_set1(bits == 3 ? 0xfff : 0xffff));
}

/* 32 values of the components' terms: eight components of four values each, or four of eight. */
typedef struct {
    VF x[32 / VN], w[32 / VN], level[32 / VN];
} lattice_group;

/* A group of magnitudes x and factors w, `stride` floats apart, and the values that a component can have. */
V_FN lattice_group lattice_load_group(const float *x, const float *w, int stride, int dimensions, const float *levels)
{
    const int values = 32 / dimensions;
    float each_x[32], each_w[32], each_level[32];
    for (int k = 0; k < dimensions; k++) {
        for (int v = 0; v < values; v++) {
            each_x[k * values + v] = x[k * stride];
            each_w[k * values + v] = w[k * stride];
            each_level[k * values + v] = levels[v];
        }
    }
    lattice_group group;
    for (int i = 0; i < 32 / VN; i++) {
        group.x[i] = vf_load(each_x + i * VN);
        group.w[i] = vf_load(each_w + i * VN);
        group.level[i] = vf_load(each_level + i * VN);
    }
    return group;
}

V_FN VF lattice_distances(const float *term, int dimensions, VI codes)
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
        best = vf_min(lattice_distances(term, dimensions, vi_load_u16((const uint8_t *)list)), best);
        return list[first_bit(vm_bits(vf_eq(best, vf_set1(vf_hmin(best)))))];
    }
    for (int j = 0; j < n; j += VN) {
        VF d = lattice_distances(term, dimensions, vi_load_u16((const uint8_t *)(list + j)));
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

V_FN lattice_group lattice_run_group(const lattice_run *r, int at, int dimensions, int lane)
{
    return lattice_load_group(&r->x[at][lane], &r->root[at][lane], VN, dimensions, lattice_odd);
}

typedef struct {
    VF qx, q2; /* sums of w x q and w q q */
} lattice_sums;

V_FN lattice_sums lattice_sum(const lattice_run *r, lattice_kind kind, const VI *codes)
{
    VFT odds = kind.dimensions == 4 ? vf_table8(lattice_odd) : vf_table4(lattice_odd);
    lattice_sums s = {vf_set1(0.f), vf_set1(0.f)};
    for (int i = 0; i < kind.weights; i++) {
        VI code = codes[i / kind.dimensions];
        const int at = i % kind.dimensions;
        VF q = kind.dimensions == 4 ? vf_lookup8(odds, vi_shr(code, 3 * at)) : vf_lookup4(odds, vi_shr(code, 2 * at));
        VF w = vf_load(r->w[i]);
        s.qx = vf_add(s.qx, vf_mul(vf_mul(w, vf_load(r->x[i])), q));
        s.q2 = vf_add(s.q2, vf_mul(vf_mul(w, q), q));
    }
    return s;
}

enum { LATTICE_TRIES = 31 };

/* Tries scales max / (middle + i step) and keeps in r->scale and r->code the best; r->scale and r->code hold what to
 * keep where none is good. */
V_FN void lattice_try(lattice_run *r, lattice_kind kind, const forge_lattice *t, VF max)
{
    const int groups = kind.weights / kind.dimensions, tries = 2 * kind.tries + 1;
    const int middle = kind.dimensions == 4 ? 15 : 5;
    int32_t codes[LATTICE_TRIES][8][VN];
    float scales[LATTICE_TRIES][VN];
    for (int i = 0; i < tries; i++) {
        VF inverse = vf_div(vf_set1((float)middle + (float)(i - kind.tries) * kind.step), max);
        vf_store(scales[i], vf_div(vf_set1(1.f), inverse));
        for (int k = 0; k < groups; k++) {
            vi_store(codes[i][k], lattice_round((const float (*)[VN])r->x + k * kind.dimensions, kind.dimensions, inverse));
        }
    }
    for (int k = 0; k < groups; k++) {
        for (int l = 0; l < VN; l++) {
            lattice_group group = lattice_run_group(r, k * kind.dimensions, kind.dimensions, l);
            uint8_t off[LATTICE_TRIES];
            uint32_t place[LATTICE_TRIES];
            int n = 0;
            for (int i = 0; i < tries; i++) { /* without a branch that nothing could predict */
                place[n] = forge_lattice_place(t, (uint32_t)codes[i][k][l]);
                off[n] = (uint8_t)i;
                n += (place[n] & 511) != 0;
            }
            for (int m = 0; m < n; m++) {
                const uint16_t *list = t->near + (place[m] >> 9) * 16;
                const int i = off[m], length = (int)(place[m] & 511);
                unsigned code = lattice_nearest(&group, kind.dimensions, scales[i][l], list, length);
                codes[i][k][l] = (int32_t)code | LATTICE_OFF;
            }
        }
    }
    VF zero = vf_set1(0.f), best = zero;
    for (int i = 0; i < tries; i++) {
        VI code[8];
        for (int k = 0; k < groups; k++) {
            code[k] = vi_load(codes[i][k]);
        }
        lattice_sums s = lattice_sum(r, kind, code);
        VM better = vm_and(vf_gt(s.q2, zero), vf_gt(vf_mul(s.qx, s.qx), vf_mul(best, s.q2)));
        r->scale = vf_select(better, vf_div(s.qx, s.q2), r->scale);
        best = vf_select(better, vf_mul(r->scale, s.qx), best);
        for (int k = 0; k < groups; k++) {
            r->code[k] = vi_select(better, code[k], r->code[k]);
        }
    }
}

/* Rounds once more with the scale found: all groups of the lanes of `lanes` when `all`, else those that had to be moved
 * to the lattice. Then fits the scale to the codes. */
V_FN void lattice_refine(lattice_run *r, lattice_kind kind, const forge_lattice *t, VM lanes, int all)
{
    const int groups = kind.weights / kind.dimensions;
    VF inverse = vf_div(vf_set1(1.f), r->scale);
    float scale[VN];
    vf_store(scale, r->scale);
    for (int k = 0; k < groups; k++) {
        VM off = vi_gt(r->code[k], vi_set1(LATTICE_OFF - 1));
        uint32_t redo = vm_bits(all ? lanes : vm_and(lanes, off));
        int32_t codes[VN];
        vi_store(codes, lattice_round((const float (*)[VN])r->x + k * kind.dimensions, kind.dimensions, inverse));
        for (int l = 0; l < VN; l++) {
            if (redo >> l & 1) {
                lattice_group group = lattice_run_group(r, k * kind.dimensions, kind.dimensions, l);
                codes[l] = lattice_move(t, &group, kind.dimensions, scale[l], codes[l]);
            }
        }
        r->code[k] = vi_select(vm_from_bits(redo), vi_load(codes), r->code[k]);
    }
    lattice_sums s = lattice_sum(r, kind, r->code);
    r->scale = vf_select(vm_and(lanes, vf_gt(s.q2, vf_set1(0.f))), vf_div(s.qx, s.q2), r->scale);
}

/* Lanes that hold a marked code and a positive scale. */
V_FN VM lattice_unsettled(const lattice_run *r, lattice_kind kind)
{
    VI any = r->code[0];
    for (int k = 1; k < kind.weights / kind.dimensions; k++) {
        any = vi_or(any, r->code[k]);
    }
    return vm_and(vi_gt(any, vi_set1(LATTICE_OFF - 1)), vf_gt(r->scale, vf_set1(0.f)));
}

/* What a superblock keeps of its sub-blocks. */
typedef struct {
    float scale[16];
    uint16_t index[64]; /* of each group's lattice point */
    uint8_t signs[32];  /* of each eight weights */
    uint8_t dead[16];   /* nothing but noise: all zero */
} lattice_result;

/* Stores sub-blocks at, at + 1, ... of a tile; a negative scale becomes positive by flipping all signs. Lanes outside
 * `live` get scale, indices and signs of zero. */
V_FN void lattice_store(lattice_run *r, lattice_kind kind, const forge_lattice *t, VM live, lattice_result *out, int at,
                        int end)
{
    const int per = 256 / kind.weights, groups = kind.weights / kind.dimensions;
    VM minus = vf_lt(r->scale, vf_set1(0.f));
    VI flip = vi_select(minus, vi_set1(kind.even ? 127 : 255), vi_set1(0));
    float scale[VN];
    int32_t codes[8][VN], signs[4][VN];
    vf_store(scale, vf_select(live, vf_select(minus, vf_neg(r->scale), r->scale), vf_set1(0.f)));
    for (int k = 0; k < groups; k++) {
        vi_store(codes[k], vi_select(live, vi_and(r->code[k], vi_set1(0xffff)), vi_set1(0)));
    }
    for (int k = 0; k < kind.weights / 8; k++) {
        vi_store(signs[k], vi_select(live, vi_xor(r->signs[k], flip), vi_set1(0)));
    }
    for (int l = 0; l < VN && at + l < end; l++) {
        lattice_result *one = out + (at + l) / per;
        const int s = (at + l) % per;
        one->scale[s] = scale[l];
        one->dead[s] = !(vm_bits(live) >> l & 1);
        for (int k = 0; k < groups; k++) {
            one->index[s * groups + k] = (uint16_t)(forge_lattice_place(t, (uint32_t)codes[k][l]) >> 9);
        }
        for (int k = 0; k < kind.weights / 8; k++) {
            one->signs[s * (kind.weights / 8) + k] = (uint8_t)signs[k][l];
        }
    }
}

/* Rounds n sub-block scales to four bits of the largest / 31, which is *d. Returns whether any scale is not 0. */
static int lattice_scales(const float *scale, int n, uint8_t *bits, float *d)
{
    float max = 0.f;
    for (int i = 0; i < n; i++) {
        max = max > scale[i] ? max : scale[i];
    }
    *d = max / 31;
    float inverse = 1 / *d;
    for (int i = 0; i < n; i++) {
        bits[i] = (uint8_t)superblock_clamp(superblock_nearest(0.5f * (inverse * scale[i] - 1)), 0, 15);
    }
    return max != 0.f;
}

/* Finds scale and codes of a prepared run; returns the lanes that hold more than noise. */
typedef VM lattice_fit_fn(lattice_run *r, const forge_lattice *t);
typedef void lattice_pack_fn(uint8_t *block, const lattice_result *r);

V_FN void lattice_encode(lattice_kind kind, lattice_fit_fn *fit, lattice_pack_fn *pack, int bytes, const float *x,
                         uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    const forge_lattice *t = forge_lattice_get(kind.which);
    const int per = 256 / kind.weights;
    for (int64_t b = 0; b < blocks; b += SUPERBLOCKS) {
        const int n = blocks - b < SUPERBLOCKS ? (int)(blocks - b) : SUPERBLOCKS;
        float sums[SUPERBLOCKS];
        lattice_result results[SUPERBLOCKS];
        superblock_squares(x + 256 * b, n, sums);
        for (int s = 0; s < per * n; s += VN) {
            Lanes g;
            lattice_run r;
            lanes_at(&g, per * b + s, per * blocks, kind.weights, 0, x, NULL, w, per * row_blocks);
            VF sum = superblock_lanes(sums, s, per);
            VF sigma2 = vf_div(kind.twice ? vf_mul(vf_set1(2.f), sum) : sum, vf_set1(256.f));
            lattice_prepare(&r, kind, &g, w != NULL, sigma2, vf_mul(vf_set1(kind.base), sigma2));
            VM live = fit(&r, t);
            lattice_store(&r, kind, t, live, results, s, per * n);
        }
        for (int k = 0; k < n; k++) {
            pack(out + (b + k) * bytes, results + k);
        }
    }
}

#endif

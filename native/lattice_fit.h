/* The search of the lattice types IQ2 and IQ3: for each sub-block a scale and, for each group of its weights, the code
 * of a lattice point. Knows lanes and lattices, no block layout.
 *
 * While many scales are tried, lanes are the scales of one sub-block; before and after, they are sub-blocks. On a GPU
 * cuda/lattice_lanes.h does the trying.
 */
#ifndef FORGE_LATTICE_FIT_H
#define FORGE_LATTICE_FIT_H

#include "lattice_walk.h"
#include "superblock.h"

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
    float x_of[VN][32], root_of[VN][32];      /* the same, a sub-block at a time */
    VF largest;                               /* |weight| */
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

/* to[l][i] = from[i][l], 0 <= i < n. */
V_FN void lattice_transpose(float (*to)[32], const float (*from)[VN], int n)
{
    for (int i = 0; i < n; i += VN) {
        const float *rows[VN];
        VF columns[VN];
        for (int k = 0; k < VN; k++) {
            rows[k] = from[i + k];
        }
        vf_load_lanes(columns, rows, VN);
        for (int l = 0; l < VN; l++) {
            vf_store(to[l] + i, columns[l]);
        }
    }
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
    r->max = r->largest = x[0];
    for (int i = 0; i < kind.weights; i++) {
        r->max = vf_max(r->max, x[i]);
        r->largest = vf_max(r->largest, vf_abs(x[i]));
        vf_store(r->x[i], x[i]);
    }
    lattice_transpose(r->x_of, (const float (*)[VN])r->x, kind.weights);
    lattice_transpose(r->root_of, (const float (*)[VN])r->root, kind.weights);
}

/* The codes of a group of magnitudes rounded to odd multiples of a scale, 1 / inverse. Unless `edge` is NULL, *edge
 * grows to how far, in levels, any lies from the middle of its level; a half is the edge to the next. */
V_FN VI lattice_round(const VF *x, int dimensions, VF inverse, VF *edge)
{
    const int bits = 16 / dimensions == 4 ? 3 : 2, top = bits == 3 ? 7 : 2;
    VI code = vi_set1(0);
    for (int i = dimensions - 1; i >= 0; i--) {
        VF half = vf_mul(vf_set1(0.5f), vf_sub(vf_mul(inverse, x[i]), vf_set1(1.f)));
        if (edge != NULL) {
            VF inside = vf_at_most(vf_not_negative(half), vf_set1((float)top));
            *edge = vf_max(vf_abs(vf_sub(inside, vf_round_even(inside))), *edge);
        }
        /* vi_nearest and vi_clamp, leaving 2^22 in for the mask below to take off */
        VI l = vi_and(vf_made_bits(vf_add(half, vf_set1(12582912.f))), vi_set1(0x007fffff));
        l = vi_max(vi_min(l, vi_set1(0x00400000 + top)), vi_set1(0x00400000));
        code = vi_or(vi_shl(code, bits), l);
    }
    return vi_and(code, vi_set1(bits == 3 ? 0xfff : 0xffff));
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

#if defined(FORGE_CUDA)
#include "cuda/lattice_lanes.h"
#else

/* The codes that one sub-block gets for each of many scales, and their sums of w x q and w q q. */
typedef struct {
    float qx[LATTICE_SCALES], q2[LATTICE_SCALES];
    _Alignas(64) int32_t code[8][LATTICE_SCALES];
} lattice_trial;

/* What lattice_walk has to know of each group: the sum of w x^2, or NaN where its reasons do not hold. */
V_FN void lattice_own(float (*own)[VN], const lattice_run *r, lattice_kind kind, VF max)
{
    VM sound = vm_and(vf_gt(max, vf_set1(0x1p-36f)), vf_lt(r->largest, vf_set1(0x1p20f)));
    sound = vm_and(sound, vf_lt(r->largest, vf_mul(max, vf_set1(65536.f))));
    for (int k = 0; k < kind.weights / kind.dimensions; k++) {
        VF sum = vf_set1(0.f);
        for (int i = k * kind.dimensions; i < (k + 1) * kind.dimensions; i++) {
            VF x = vf_load(r->x[i]);
            sum = vf_add(sum, vf_mul(vf_load(r->root[i]), vf_mul(x, x)));
        }
        VM in = vm_and(vf_gt(sum, vf_mul(max, vf_set1(0x1p-55f))), vf_lt(sum, vf_mul(max, vf_set1(0x1p55f))));
        vf_store(own[k], vf_select(vm_and(sound, in), sum, vf_set1(NAN)));
    }
}

/* The scales max / (middle + i step); spare lanes repeat the last. */
V_FN lattice_ladder lattice_climb(lattice_kind kind, float max)
{
    const int tries = 2 * kind.tries + 1, middle = kind.dimensions == 4 ? 15 : 5;
    lattice_ladder ladder;
    float above[LATTICE_SCALES];
    ladder.vectors = (tries + VN - 1) / VN;
    for (int i = 0; i < ladder.vectors * VN; i++) {
        above[i] = (float)middle + (float)(i < tries ? i - kind.tries : kind.tries) * kind.step;
    }
    for (int v = 0; v < ladder.vectors; v++) {
        ladder.inverse[v] = vf_div(vf_load(above + v * VN), vf_set1(max));
        ladder.scale[v] = vf_div(vf_set1(1.f), ladder.inverse[v]);
    }
    return ladder;
}

V_FN void lattice_add_up(lattice_trial *trial, const lattice_run *r, lattice_kind kind, int vectors, int lane)
{
    const VFT odds = kind.dimensions == 4 ? vf_table8(lattice_odd) : vf_table4(lattice_odd);
    VF qx[LATTICE_SCALES / VN], q2[LATTICE_SCALES / VN];
    for (int v = 0; v < vectors; v++) {
        qx[v] = q2[v] = vf_set1(0.f);
    }
    for (int k = 0; k < kind.weights / kind.dimensions; k++) {
        for (int i = 0; i < kind.dimensions; i++) {
            const float w = r->w[k * kind.dimensions + i][lane];
            const VF weight = vf_set1(w), wx = vf_set1(w * r->x_of[lane][k * kind.dimensions + i]);
            for (int v = 0; v < vectors; v++) {
                const VI code = vi_load(trial->code[k] + v * VN);
                const VI l = vi_shr(code, kind.dimensions == 4 ? 3 * i : 2 * i);
                const VF q = kind.dimensions == 4 ? vf_lookup8(odds, l) : vf_lookup4(odds, l);
                qx[v] = vf_add(qx[v], vf_mul(wx, q));
                q2[v] = vf_add(q2[v], vf_mul(vf_mul(weight, q), q));
            }
        }
    }
    for (int v = 0; v < vectors; v++) {
        vf_store(trial->qx + v * VN, qx[v]);
        vf_store(trial->q2 + v * VN, q2[v]);
    }
}

/* The codes and sums of the sub-block in `lane`. */
V_FN void lattice_try_one(lattice_trial *trial, const lattice_run *r, lattice_kind kind, const forge_lattice *t,
                          float max, const float (*own)[VN], int lane)
{
    const lattice_ladder ladder = lattice_climb(kind, max);
    const int groups = kind.weights / kind.dimensions;
    const float *x = r->x_of[lane], *root = r->root_of[lane];
    lattice_rounded rounded[8];
    for (int k = 0; k < groups; k++) {
        VF each[8];
        for (int i = 0; i < kind.dimensions; i++) {
            each[i] = vf_set1(x[k * kind.dimensions + i]);
        }
        for (int v = 0; v < ladder.vectors; v++) {
            rounded[k].edge[v] = vf_set1(0.f);
            /* IQ2_S's neighbours are all equally many steps off, so none is left out and edges do not matter */
            rounded[k].code[v] = lattice_round(each, kind.dimensions, ladder.inverse[v],
                                               kind.which == LATTICE_IQ2_S ? NULL : rounded[k].edge + v);
            vi_store(trial->code[k] + v * VN, rounded[k].code[v]);
        }
    }
    for (int k = 0; k < groups; k++) {
        const int at = k * kind.dimensions;
        const lattice_group group = lattice_load_group(x + at, root + at, kind.dimensions, lattice_odd);
        lattice_walk(t, &group, kind.dimensions, &ladder, rounded + k, own[k][lane], trial->code[k]);
    }
    lattice_add_up(trial, r, kind, ladder.vectors, lane);
}

/* Tries scales max / (middle + i step) and keeps in r->scale and r->code the best; r->scale and r->code hold what to
 * keep where none is good. */
V_FN void lattice_try(lattice_run *r, lattice_kind kind, const forge_lattice *t, VF max)
{
    const int groups = kind.weights / kind.dimensions, tries = 2 * kind.tries + 1;
    lattice_trial trial[VN];
    float of_lane[VN], own[8][VN];
    const float *from[2][VN];
    vf_store(of_lane, max);
    lattice_own(own, r, kind, max);
    for (int l = 0; l < VN; l++) {
        lattice_try_one(trial + l, r, kind, t, of_lane[l], (const float (*)[VN])own, l);
        from[0][l] = trial[l].qx;
        from[1][l] = trial[l].q2;
    }
    VF zero = vf_set1(0.f), best = zero, qx[LATTICE_SCALES], q2[LATTICE_SCALES];
    VI at = vi_set1(-1);
    vf_load_lanes(qx, from[0], (tries + VN - 1) / VN * VN);
    vf_load_lanes(q2, from[1], (tries + VN - 1) / VN * VN);
    for (int i = 0; i < tries; i++) {
        VM better = vm_and(vf_gt(q2[i], zero), vf_gt(vf_mul(qx[i], qx[i]), vf_mul(best, q2[i])));
        r->scale = vf_select(better, vf_div(qx[i], q2[i]), r->scale);
        best = vf_select(better, vf_mul(r->scale, qx[i]), best);
        at = vi_select(better, vi_set1(i), at);
    }
    int32_t which[VN], codes[VN];
    vi_store(which, at);
    for (int k = 0; k < groups; k++) {
        vi_store(codes, r->code[k]);
        for (int l = 0; l < VN; l++) {
            codes[l] = which[l] < 0 ? codes[l] : trial[l].code[k][which[l]];
        }
        r->code[k] = vi_load(codes);
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
        VF x[8];
        for (int i = 0; i < kind.dimensions; i++) {
            x[i] = vf_load(r->x[k * kind.dimensions + i]);
        }
        vi_store(codes, lattice_round(x, kind.dimensions, inverse, NULL));
        for (int l = 0; l < VN; l++) {
            if (redo >> l & 1) {
                const int at = k * kind.dimensions;
                const float *x_of = r->x_of[l] + at, *root = r->root_of[l] + at;
                lattice_group group = lattice_load_group(x_of, root, kind.dimensions, lattice_odd);
                codes[l] = lattice_move(t, &group, kind.dimensions, scale[l], codes[l]);
            }
        }
        r->code[k] = vi_select(vm_from_bits(redo), vi_load(codes), r->code[k]);
    }
    lattice_sums s = lattice_sum(r, kind, r->code);
    r->scale = vf_select(vm_and(lanes, vf_gt(s.q2, vf_set1(0.f))), vf_div(s.qx, s.q2), r->scale);
}
#endif

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

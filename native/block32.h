/* What the encoders of Q4_0, Q4_1, Q5_0 and Q5_1 share, all of 32 weights a block: levels with a scale, or with a scale
 * and a minimum, found at once or by a search with importance, and the packing of four and five bits. */
#ifndef FORGE_BLOCK32_H
#define FORGE_BLOCK32_H

/* The value of largest magnitude among n; the first one where both signs reach it. */
V_FN float signed_peak(const float *x, int n)
{
    VF low = vf_load(x), high = low;
    for (int i = VN; i < n; i += VN) {
        low = vf_min(low, vf_load(x + i));
        high = vf_max(high, vf_load(x + i));
    }
    float a = vf_hmin(low), b = vf_hmax(high);
    if (a == 0 && b == 0) {
        return 0; /* never -0 */
    }
    if (a == -b) {
        for (int i = 0; i < n; i++) {
            if (x[i] == a || x[i] == b) {
                return x[i];
            }
        }
    }
    return -a > b ? a : b;
}

/* Scale and the 32 levels, 0 .. 2 * nmax - 1, of a block without importance. */
V_FN void levels_from_peak(const float *x, int nmax, uint8_t *d_out, VI *q)
{
    float d = signed_peak(x, 32) / (float)-nmax;
    VF inverse = vf_set1(d != 0 ? 1 / d : 0), half_up = vf_set1((float)nmax + 0.5f);
    VI top = vi_set1(2 * nmax - 1);
    store_scale(d_out, d);
    for (int i = 0; i < 32 / VN; i++) {
        VI r = vf_trunc(vf_add(vf_mul(vf_load(x + i * VN), inverse), half_up));
        q[i] = vi_and(vi_min(r, top), top);
    }
}

V_FN void bounds(const float *x, int n, float *min, float *max)
{
    VF low = vf_load(x), high = low;
    for (int i = VN; i < n; i += VN) {
        low = vf_min(low, vf_load(x + i));
        high = vf_max(high, vf_load(x + i));
    }
    *min = vf_hmin(low);
    *max = vf_hmax(high);
    if (*min == 0) { /* of +0 and -0 the reference keeps the first */
        int i = 0;
        while (x[i] != 0) {
            i++;
        }
        *min = x[i];
    }
}

/* Scale, minimum and the 32 levels, 0 .. top, of a block without importance. */
V_FN void levels_from_min(const float *x, int top, uint8_t *d_out, uint8_t *m_out, VI *q)
{
    float min, max;
    bounds(x, 32, &min, &max);
    float d = max == min ? 0 : (max - min) / (float)top; /* never -0 */
    VF inverse = vf_set1(d != 0 ? 1 / d : 0), low = vf_set1(min);
    store_scale(d_out, d);
    store_scale(m_out, min);
    for (int i = 0; i < 32 / VN; i++) {
        VI r = vf_trunc(vf_add(vf_mul(vf_sub(vf_load(x + i * VN), low), inverse), vf_set1(0.5f)));
        q[i] = vi_and(vi_min(r, vi_set1(top)), vi_set1(top));
    }
}

/* What a type does: one block without importance, written to `out`; a block in each lane with importance. */
typedef void (*encode_one)(const float *x, uint8_t *out);
typedef void (*encode_lanes)(const Lanes *g, const VF *x, const VF *w);

/* Blocks in lanes; sigma2 is the mean square of each block's row. */
V_FN void encode_weighted_lanes(const Lanes *g, VF sigma2, encode_lanes weighted)
{
    VF x[32], w[32];
    vf_load_lanes(x, g->x, 32);
    importance_load(w, g, 0, x, 32, sigma2);
    weighted(g, x, w);
}

/* With importance sigma2 comes from each block's whole row. */
V_FN void encode_blocks(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks, int bytes,
                        encode_one plain, encode_lanes weighted)
{
    if (!w) {
        for (int64_t b = 0; b < blocks; b++) {
            plain(x + b * 32, out + b * bytes);
        }
        return;
    }
    const int64_t rows = blocks / row_blocks;
    for (int64_t row = 0; row < rows; row += VN) {
        float sigma2[VN];
        row_mean_squares(sigma2, x, row, rows, row_blocks * 32);
        const int64_t end = (rows - row < VN ? rows : row + VN) * row_blocks;
        for (int64_t b = row * row_blocks; b < end; b += VN) {
            Lanes g;
            lanes_at(&g, b, end, 32, bytes, x, out, w, row_blocks);
            VF of_row = by_row(sigma2, b - row * row_blocks, end - row * row_blocks, row_blocks);
            encode_weighted_lanes(&g, of_row, weighted);
        }
    }
}

/* Levels 0 .. 2 * nmax - 1; the scale goes to the start of the blocks. */
V_FN void fit_scale(const Lanes *g, const VF *x, const VF *w, int nmax, VI *level)
{
    SignedFit fit;
    search_signed(&fit, x, w, 32, nmax, FINITE);
    for (int i = 0; i < 32; i++) {
        level[i] = signed_fit_level(&fit, x[i], nmax);
    }
    vf_store_f16_lanes(g->out, 0, fit.scale);
}

/* Levels 0 .. top; scale and minimum go to the start of the blocks. */
V_FN void fit_scale_and_min(const Lanes *g, const VF *x, const VF *w, int top, VI *level)
{
    MinFit fit;
    search_min(&fit, x, w, 32, top, -0.9f, 0.05f, 36, 0);
    for (int i = 0; i < 32; i++) {
        level[i] = min_fit_level(&fit, x[i], top);
    }
    vf_store_f16_lanes(g->out, 0, fit.scale);
    vf_store_f16_lanes(g->out, 2, vf_neg(fit.min));
}

/* 32 levels below 16 as 16 bytes: the second half in the upper nibbles. */
V_FN void store_nibbles(uint8_t *out, VI *q)
{
    for (int i = 0; i < 16 / VN; i++) {
        q[i] = vi_or(q[i], vi_shl(q[16 / VN + i], 4));
    }
    vi_store_u8(out, q, 16 / VN);
}

/* The same for lanes of blocks. */
V_FN void lanes_store_nibbles(const Lanes *g, int at, VI *level)
{
    for (int i = 0; i < 16; i++) {
        level[i] = vi_or(level[i], vi_shl(level[16 + i], 4));
    }
    lanes_store_u8(g, at, level, 16);
}

/* 32 levels below 32 as four bytes of fifth bits and 16 bytes of nibbles. */
V_FN void store_five_bits(uint8_t *h_out, uint8_t *q_out, VI *q)
{
    uint32_t h = 0;
    for (int i = 0; i < 32 / VN; i++) {
        h |= vm_bits(vi_gt(q[i], vi_set1(15))) << (i * VN);
        q[i] = vi_and(q[i], vi_set1(15));
    }
    store_u32(h_out, h);
    store_nibbles(q_out, q);
}

/* The same for lanes of blocks. */
V_FN void lanes_store_five_bits(const Lanes *g, int h_at, int q_at, VI *level)
{
    VI h = vi_set1(0);
    int32_t words[VN];
    for (int i = 0; i < 32; i++) {
        h = vi_or(h, vi_shl(vi_shr(level[i], 4), i));
    }
    vi_store(words, h);
    for (int l = 0; l < VN; l++) {
        store_u32(g->out[l] + h_at, (uint32_t)words[l]);
    }
    for (int i = 0; i < 32; i++) {
        level[i] = vi_and(level[i], vi_set1(15));
    }
    lanes_store_nibbles(g, q_at, level);
}

#endif

/* Q4_1: 32 weights, a half-float scale and minimum and four bits each.
 *
 *   byte  0   1   2   3   4             ...  19
 *        [  d   ][  m   ][q16 << 4 | q0] ... [q31 << 4 | q15]        weight i = q[i] * d + m
 */
typedef struct {
    uint8_t d[2];
    uint8_t m[2];
    uint8_t q[16];
} block_q4_1;
_Static_assert(sizeof(block_q4_1) == 20, "Q4_1 is 20 bytes");

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
    store_u16(d_out, f32_to_f16(d));
    store_u16(m_out, f32_to_f16(min));
    for (int i = 0; i < 32 / VN; i++) {
        VI r = vf_trunc(vf_add(vf_mul(vf_sub(vf_load(x + i * VN), low), inverse), vf_set1(0.5f)));
        q[i] = vi_and(vi_min(r, vi_set1(top)), vi_set1(top));
    }
}

/* With importance, Q4_1 and Q5_1: as encode_signed_weighted, with a minimum. */
typedef void (*pack_min)(const Lanes *g, VF scale, VF min, VI *level);

V_FN void encode_min_weighted(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks,
                              int bytes, int nmax, pack_min pack)
{
    const int64_t rows = blocks / row_blocks;
    for (int64_t row = 0; row < rows; row += VN) {
        float sigma2[VN];
        row_mean_squares(sigma2, x, row, rows, row_blocks * 32);
        const int64_t end = (rows - row < VN ? rows : row + VN) * row_blocks;
        for (int64_t b = row * row_blocks; b < end; b += VN) {
            Lanes g;
            lanes_at(&g, b, end, 32, bytes, x, out, w, row_blocks);
            VF v[32], weight[32];
            VI level[32];
            vf_load_lanes(v, g.x, 32);
            VF of_row = by_row(sigma2, b - row * row_blocks, end - row * row_blocks, row_blocks);
            importance_load(weight, &g, 0, v, 32, of_row);
            MinFit fit;
            search_min(&fit, v, weight, 32, nmax, -0.9f, 0.05f, 36, 0);
            for (int i = 0; i < 32; i++) {
                level[i] = min_fit_level(&fit, v[i], nmax);
            }
            pack(&g, fit.scale, vf_neg(fit.min), level);
        }
    }
}

V_FN void q4_1_pack(const Lanes *g, VF scale, VF min, VI *level)
{
    vf_store_f16_lanes(g->out, 0, scale);
    vf_store_f16_lanes(g->out, 2, min);
    for (int i = 0; i < 16; i++) {
        level[i] = vi_or(level[i], vi_shl(level[16 + i], 4));
    }
    lanes_store_u8(g, 4, level, 16);
}

static void q4_1_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    if (w) {
        encode_min_weighted(x, out, blocks, w, row_blocks, sizeof(block_q4_1), 15, q4_1_pack);
        return;
    }
    for (int64_t b = 0; b < blocks; b++, x += 32, out += sizeof(block_q4_1)) {
        block_q4_1 *y = (block_q4_1 *)(void *)out;
        VI q[32 / VN];
        levels_from_min(x, 15, y->d, y->m, q);
        store_nibbles(y->q, q);
    }
}

static void q4_1_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q4_1), y += 32) {
        const block_q4_1 *x = (const block_q4_1 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d)), m = vf_set1(load_f16(x->m));
        for (int i = 0; i < 16; i += VN) {
            VI q = vi_load_u8(x->q + i);
            vf_store(y + i, vf_add(vf_mul(vi_to_f(vi_and(q, vi_set1(15))), d), m));
            vf_store(y + 16 + i, vf_add(vf_mul(vi_to_f(vi_shr(q, 4)), d), m));
        }
    }
}

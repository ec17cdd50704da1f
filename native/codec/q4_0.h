/* Q4_0: 32 weights, a half-float scale and four bits each.
 *
 *   byte  0   1   2             3          ...  17
 *        [  d   ][q16 << 4 | q0][q17 << 4 | q1] ... [q31 << 4 | q15]        weight i = (q[i] - 8) * d
 */
typedef struct {
    uint8_t d[2];
    uint8_t q[16];
} block_q4_0;
_Static_assert(sizeof(block_q4_0) == 18, "Q4_0 is 18 bytes");

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

/* 32 levels below 16 as 16 bytes: the second half in the upper nibbles. */
V_FN void store_nibbles(uint8_t *out, VI *q)
{
    for (int i = 0; i < 16 / VN; i++) {
        q[i] = vi_or(q[i], vi_shl(q[16 / VN + i], 4));
    }
    vi_store_u8(out, q, 16 / VN);
}

V_FN void q4_0_encode_plain(const float *x, uint8_t *out, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, x += 32, out += sizeof(block_q4_0)) {
        block_q4_0 *y = (block_q4_0 *)(void *)out;
        float d = signed_peak(x, 32) / -8;
        VF inverse = vf_set1(d != 0 ? 1 / d : 0);
        store_u16(y->d, f32_to_f16(d));
        VI q[32 / VN];
        for (int i = 0; i < 32 / VN; i++) {
            VI r = vf_trunc(vf_add(vf_mul(vf_load(x + i * VN), inverse), vf_set1(8.5f)));
            q[i] = vi_and(vi_min(r, vi_set1(15)), vi_set1(15));
        }
        store_nibbles(y->q, q);
    }
}

/* With importance, Q4_0 and Q5_0: lanes are blocks; sigma2 comes from each block's whole row. For every group the
 * levels (0 .. 2 * nmax - 1) and scale go to `pack`. */
typedef void (*pack_signed)(const Lanes *g, VF scale, VI *level);

V_FN void encode_signed_weighted(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks,
                                 int bytes, int nmax, pack_signed pack)
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
            SignedFit fit;
            search_signed(&fit, v, weight, 32, nmax, FINITE);
            for (int i = 0; i < 32; i++) {
                level[i] = signed_fit_level(&fit, v[i], nmax);
            }
            pack(&g, fit.scale, level);
        }
    }
}

V_FN void q4_0_pack(const Lanes *g, VF scale, VI *level)
{
    vf_store_f16_lanes(g->out, 0, scale);
    for (int i = 0; i < 16; i++) {
        level[i] = vi_or(level[i], vi_shl(level[16 + i], 4));
    }
    lanes_store_u8(g, 2, level, 16);
}

static void q4_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    if (w) {
        encode_signed_weighted(x, out, blocks, w, row_blocks, sizeof(block_q4_0), 8, q4_0_pack);
    } else {
        q4_0_encode_plain(x, out, blocks);
    }
}

static void q4_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q4_0), y += 32) {
        const block_q4_0 *x = (const block_q4_0 *)(const void *)in;
        VF d = vf_set1(load_f16(x->d));
        for (int i = 0; i < 16; i += VN) {
            VI q = vi_load_u8(x->q + i);
            vf_store(y + i, vf_mul(vi_to_f(vi_sub(vi_and(q, vi_set1(15)), vi_set1(8))), d));
            vf_store(y + 16 + i, vf_mul(vi_to_f(vi_sub(vi_shr(q, 4), vi_set1(8))), d));
        }
    }
}

/* Q6_K: 256 weights in 16 sub-blocks of 16; a half-float scale for all, a signed byte per sub-block, six bits a weight.
 *
 *   byte  0 .. 31                     32 .. 63                       64 .. 127
 *        [q64+i & 15 << 4 | qi & 15][q96+i & 15 << 4 | q32+i & 15][ the same of weights 128 .. 255 ]
 *        128 .. 159                                                     160 .. 191        192 .. 207  208 209
 *        [q96+i >> 4 << 6 | q64+i >> 4 << 4 | q32+i >> 4 << 2 | qi >> 4][ of 128 .. 255 ][ scales ][   d   ]
 *   i < 32        weight in sub-block j = d * scale[j] * (q - 32)
 */
typedef struct {
    uint8_t low[128];
    uint8_t high[64];
    uint8_t scales[16];
    uint8_t d[2];
} block_q6_k;
_Static_assert(sizeof(block_q6_k) == 210, "Q6_K is 210 bytes");

typedef struct {
    Lanes g;
    VF x[256];
    SignedFit fit[16];
    VF d;
    VI scales[16]; /* signed */
    VM empty;      /* lanes whose block is all zero bytes */
} Q6Group;

V_FN void q6_k_search(Q6Group *s, int weighted)
{
    VF w[16], scale[16], magnitude;
    for (int j = 0; j < 16; j++) {
        const VF *x = s->x + 16 * j;
        if (weighted) {
            lanes_load(w, s->g.w, 16 * j, 16);
        } else {
            for (int i = 0; i < 16; i++) {
                w[i] = vf_mul(x[i], x[i]);
            }
        }
        search_signed(&s->fit[j], x, w, 16, 32, FINITE);
        scale[j] = s->fit[j].scale;
    }
    VF max = peak_of(scale, 16, &magnitude), iscale = vf_div(vf_set1(-128), max);
    s->empty = vf_lt(magnitude, vf_set1(TINY));
    s->d = vf_select(s->empty, vf_set1(0), vf_div(vf_set1(1), iscale));
    for (int j = 0; j < 16; j++) {
        VI l = vi_min(vi_nearest(vf_mul(iscale, scale[j])), vi_set1(127));
        s->scales[j] = vi_select(s->empty, vi_set1(0), vi_sar(vi_shl(l, 24), 24));
    }
    lanes_store_u8(&s->g, 192, s->scales, 16);
    vf_store_f16_lanes(s->g.out, 208, s->d);
    s->d = vf_through_f16(s->d);
}

/* Levels of sub-block j for the scale as stored; those of the search where it is zero. */
V_FN void q6_k_levels(VI *level, const Q6Group *s, int j)
{
    const VF *x = s->x + 16 * j;
    VF d = vf_mul(s->d, vi_to_f(s->scales[j]));
    for (int i = 0; i < 16; i++) {
        level[i] = vi_add(vi_clamp(vi_nearest(vf_div(x[i], d)), -32, 31), vi_set1(32));
    }
    VM lost = vf_eq(d, vf_set1(0));
    if (vm_any(lost)) {
        for (int i = 0; i < 16; i++) {
            level[i] = vi_select(lost, signed_fit_level(&s->fit[j], x[i], 32), level[i]);
            level[i] = vi_select(s->empty, vi_set1(0), level[i]);
        }
    }
}

static void q6_k_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    for (int64_t b = 0; b < blocks; b += VN) {
        Q6Group s;
        lanes_at(&s.g, b, blocks, 256, sizeof(block_q6_k), x, out, w, row_blocks);
        vf_load_lanes(s.x, s.g.x, 256);
        q6_k_search(&s, w != 0);
        for (int j = 0; j < 16; j += 8) {
            for (int half = 0; half < 2; half++) { /* weights 0 .. 15 and 16 .. 31 of each 32 */
                VI q[4][16], high[16];
                for (int k = 0; k < 4; k++) {
                    q6_k_levels(q[k], &s, j + half + 2 * k);
                }
                for (int i = 0; i < 16; i++) {
                    VI low2 = vi_or(vi_shr(q[0][i], 4), vi_shl(vi_shr(q[1][i], 4), 2));
                    high[i] = vi_or(low2, vi_or(vi_shl(vi_shr(q[2][i], 4), 4), vi_shl(vi_shr(q[3][i], 4), 6)));
                    q[0][i] = vi_or(vi_and(q[0][i], vi_set1(15)), vi_shl(vi_and(q[2][i], vi_set1(15)), 4));
                    q[1][i] = vi_or(vi_and(q[1][i], vi_set1(15)), vi_shl(vi_and(q[3][i], vi_set1(15)), 4));
                }
                lanes_store_u8(&s.g, 8 * j + 16 * half, q[0], 16);
                lanes_store_u8(&s.g, 8 * j + 32 + 16 * half, q[1], 16);
                lanes_store_u8(&s.g, 128 + 4 * j + 16 * half, high, 16);
            }
        }
    }
}

static void q6_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q6_k), y += 256) {
        const block_q6_k *x = (const block_q6_k *)(const void *)in;
        const VF d = vf_set1(load_f16(x->d));
        float scales[16];
        for (int j = 0; j < 16; j += VN) {
            vf_store(scales + j, vf_mul(d, vi_to_f(vi_load_i8(x->scales + j))));
        }
        for (int half = 0; half < 2; half++) {
            for (int i = 0; i < 32; i += VN) {
                const float *scale = scales + 8 * half + i / 16;
                VI low[2] = {vi_load_u8(x->low + 64 * half + i), vi_load_u8(x->low + 64 * half + 32 + i)};
                VI high = vi_load_u8(x->high + 32 * half + i);
                for (int k = 0; k < 4; k++) { /* which 32 of the 128 */
                    VI four = k < 2 ? vi_and(low[k], vi_set1(15)) : vi_shr(low[k - 2], 4);
                    VI two = k < 2 ? vi_shl(high, 4 - 2 * k) : vi_shr(high, 2 * k - 4);
                    VI q = vi_sub(vi_or(four, vi_and(two, vi_set1(48))), vi_set1(32));
                    vf_store(y + 128 * half + 32 * k + i, vf_mul(vf_set1(scale[2 * k]), vi_to_f(q)));
                }
            }
        }
    }
}

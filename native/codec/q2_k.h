/* Q2_K: 256 weights in 16 sub-blocks of 16; four bits of scale and of minimum per sub-block, two bits a weight.
 *
 *   byte  0 .. 15             16 .. 47                                    48 .. 79         80  81  82  83
 *        [min j << 4 | scale j][q96+i << 6 | q64+i << 4 | q32+i << 2 | qi][q128 .. q255]  [  d   ][ dmin ]
 *   i < 32        weight in sub-block j = d * scale[j] * q - dmin * min[j]
 */
typedef struct {
    uint8_t scales[16];
    uint8_t q[64];
    uint8_t d[2];
    uint8_t dmin[2];
} block_q2_k;
_Static_assert(sizeof(block_q2_k) == 84, "Q2_K is 84 bytes");

/* One of scale and min as four bits of its largest. */
V_FN VF four_bits_plain(VI *out, const VF *value)
{
    const VF zero = vf_set1(0);
    VF max = zero;
    for (int j = 0; j < 16; j++) {
        max = vf_max(value[j], max);
    }
    VM some = vf_gt(max, zero);
    VF inverse = vf_div(vf_set1(15), max);
    for (int j = 0; j < 16; j++) {
        out[j] = vi_select(some, vi_nearest(vf_mul(inverse, value[j])), vi_set1(0));
    }
    return vf_select(some, vf_div(max, vf_set1(15)), zero);
}

typedef struct {
    Lanes g;
    VF x[256];
    MinFit fit[16];
    VF d, dmin;
    VI scales[16]; /* bytes as stored */
} Q2Group;

V_FN void q2_k_search(Q2Group *s, int weighted)
{
    VF sigma2 = vf_set1(0), w[16], weight_sum[16], scale[16], min[16], d, dmin;
    if (weighted) {
        sigma2 = vf_div(sum_squares(s->x, 256), vf_set1(256));
    }
    for (int j = 0; j < 16; j++) {
        const VF *x = s->x + 16 * j;
        if (weighted) {
            importance_load(w, &s->g, 16 * j, x, 16, sigma2);
            weight_sum[j] = sum_of(w, 16);
            search_min(&s->fit[j], x, w, 16, 3, -0.9f, 0.05f, 36, 0);
        } else {
            for (int i = 0; i < 16; i++) {
                w[i] = vf_abs(x[i]);
            }
            search_min(&s->fit[j], x, w, 16, 3, -0.5f, 0.1f, 15, 1);
        }
        scale[j] = s->fit[j].scale;
        min[j] = s->fit[j].min;
    }
    VI ls[16], lm[16];
    if (weighted) {
        d = search_positive(ls, scale, weight_sum, 16, 15);
        dmin = search_positive(lm, min, weight_sum, 16, 15);
    } else {
        d = four_bits_plain(ls, scale);
        dmin = four_bits_plain(lm, min);
    }
    for (int j = 0; j < 16; j++) {
        s->scales[j] = vi_and(vi_or(ls[j], vi_shl(lm[j], 4)), vi_set1(255));
    }
    lanes_store_u8(&s->g, 0, s->scales, 16);
    vf_store_f16_lanes(s->g.out, 80, d);
    vf_store_f16_lanes(s->g.out, 82, dmin);
    s->d = vf_through_f16(d);
    s->dmin = vf_through_f16(dmin);
}

/* Levels of sub-block j for the scales as stored; those of the search where the stored scale is zero. */
V_FN void q2_k_levels(VI *level, const Q2Group *s, int j)
{
    const VF *x = s->x + 16 * j;
    VF d = vf_mul(s->d, vi_to_f(vi_and(s->scales[j], vi_set1(15))));
    VF dm = vf_mul(s->dmin, vi_to_f(vi_shr(s->scales[j], 4)));
    for (int i = 0; i < 16; i++) {
        level[i] = vi_clamp(vi_nearest(vf_div(vf_add(x[i], dm), d)), 0, 3);
    }
    VM lost = vf_eq(d, vf_set1(0));
    if (vm_any(lost)) {
        for (int i = 0; i < 16; i++) {
            level[i] = vi_select(lost, min_fit_level(&s->fit[j], x[i], 3), level[i]);
        }
    }
}

static void q2_k_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    for (int64_t b = 0; b < blocks; b += VN) {
        Q2Group s;
        lanes_at(&s.g, b, blocks, 256, sizeof(block_q2_k), x, out, w, row_blocks);
        vf_load_lanes(s.x, s.g.x, 256);
        q2_k_search(&s, w != 0);
        for (int j = 0; j < 16; j += 8) { /* 128 weights: sub-blocks j .. j + 7, two of them in each pair of bits */
            for (int half = 0; half < 2; half++) {
                VI packed[16], level[16];
                q2_k_levels(packed, &s, j + half);
                for (int k = 1; k < 4; k++) {
                    q2_k_levels(level, &s, j + half + 2 * k);
                    for (int i = 0; i < 16; i++) {
                        packed[i] = vi_or(packed[i], vi_shl(level[i], 2 * k));
                    }
                }
                lanes_store_u8(&s.g, 16 + 4 * j + 16 * half, packed, 16);
            }
        }
    }
}

static void q2_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q2_k), y += 256) {
        const block_q2_k *x = (const block_q2_k *)(const void *)in;
        const VF d = vf_set1(load_f16(x->d)), dmin = vf_set1(load_f16(x->dmin));
        float scale[16], min[16];
        for (int j = 0; j < 16; j += VN) {
            VI both = vi_load_u8(x->scales + j);
            vf_store(scale + j, vf_mul(d, vi_to_f(vi_and(both, vi_set1(15)))));
            vf_store(min + j, vf_mul(dmin, vi_to_f(vi_shr(both, 4))));
        }
        for (int half = 0; half < 4; half++) { /* 16 bytes of q: a sub-block in each pair of bits */
            const int j = half / 2 * 8 + half % 2;
            for (int i = 0; i < 16; i += VN) {
                VI q = vi_load_u8(x->q + 16 * half + i);
                for (int k = 0; k < 4; k++, q = vi_shr(q, 2)) {
                    VF scaled = vf_mul(vf_set1(scale[j + 2 * k]), vi_to_f(vi_and(q, vi_set1(3))));
                    vf_store(y + 16 * (j + 2 * k) + i, vf_sub(scaled, vf_set1(min[j + 2 * k])));
                }
            }
        }
    }
}

/* Q4_K: 256 weights in 8 sub-blocks of 32; a half-float scale and minimum for all, six bits of each per sub-block,
 * four bits a weight.
 *
 *   byte  0   1   2   3    4 .. 15    16 .. 47               48 .. 79        80 .. 111       112 .. 143
 *        [  d   ][ dmin ][ scales ][q32+i << 4 | qi, i < 32][ q64 .. q127 ][ q128 .. q191 ][ q192 .. q255 ]
 *
 *   scales: bytes 0 .. 3   [ upper 2 bits of scale 4+j | scale j ]
 *           bytes 4 .. 7   [ upper 2 bits of min   4+j | min   j ]
 *           bytes 8 .. 11  [ lower 4 bits of min   4+j | lower 4 bits of scale 4+j ]
 *   weight in sub-block j = d * scale[j] * q - dmin * min[j]
 */
typedef struct {
    uint8_t d[2];
    uint8_t dmin[2];
    uint8_t scales[12];
    uint8_t q[128];
} block_q4_k;
_Static_assert(sizeof(block_q4_k) == 144, "Q4_K is 144 bytes");

/* What Q4_K and Q5_K do not share. */
typedef struct {
    int nmax, nstep;    /* highest level; steps of the search without importance */
    float rmin, rdelta; /* its range */
    int bytes, scales_at;
    int clamp_scales; /* the importance encoder of Q5_K holds scales at 63, that of Q4_K lets them wrap */
} MinKind;

/* Superblocks of 8 x 32 weights in flight, one a lane. */
typedef struct {
    Lanes g;
    VF x[256];
    MinFit fit[8];
    VF weight_sum[8];
    VI scale[8], min[8]; /* six bits each, as stored */
    VF d, dmin;
} MinGroup;

V_FN void min_group_search(MinGroup *s, const MinKind *kind, int weighted)
{
    VF sigma2 = vf_set1(0), w[32];
    if (weighted) {
        sigma2 = vf_div(vf_mul(vf_set1(2), sum_squares(s->x, 256)), vf_set1(256));
    }
    for (int j = 0; j < 8; j++) {
        const VF *x = s->x + 32 * j;
        if (weighted) {
            importance_load(w, &s->g, 32 * j, x, 32, sigma2);
            s->weight_sum[j] = sum_of(w, 32);
            search_min(&s->fit[j], x, w, 32, kind->nmax, -0.9f, 0.05f, 36, 0);
        } else {
            VF mean = vf_sqrt(vf_div(sum_squares(x, 32), vf_set1(32)));
            for (int i = 0; i < 32; i++) {
                w[i] = vf_add(mean, vf_abs(x[i]));
            }
            search_min(&s->fit[j], x, w, 32, kind->nmax, kind->rmin, kind->rdelta, kind->nstep, 0);
        }
    }
}

/* One of scale and min as six bits of its largest. */
V_FN VF six_bits_plain(VI *out, const VF *value)
{
    const VF zero = vf_set1(0);
    VF max = zero;
    for (int j = 0; j < 8; j++) {
        max = vf_max(value[j], max);
    }
    VF inverse = vf_select(vf_gt(max, zero), vf_div(vf_set1(63), max), zero);
    for (int j = 0; j < 8; j++) {
        out[j] = vi_min(vi_and(vi_nearest(vf_mul(inverse, value[j])), vi_set1(255)), vi_set1(63));
    }
    return vf_div(max, vf_set1(63));
}

V_FN void min_group_scales(MinGroup *s, const MinKind *kind, int weighted)
{
    VF scale[8], min[8], d, dmin;
    for (int j = 0; j < 8; j++) {
        scale[j] = s->fit[j].scale;
        min[j] = s->fit[j].min;
    }
    if (weighted) {
        d = search_positive(s->scale, scale, s->weight_sum, 8, 63);
        dmin = search_positive(s->min, min, s->weight_sum, 8, 63);
        for (int j = 0; j < 8 && kind->clamp_scales; j++) {
            s->scale[j] = vi_min(s->scale[j], vi_set1(63));
            s->min[j] = vi_min(s->min[j], vi_set1(63));
        }
    } else {
        d = six_bits_plain(s->scale, scale);
        dmin = six_bits_plain(s->min, min);
    }
    vf_store_f16_lanes(s->g.out, 0, d);
    vf_store_f16_lanes(s->g.out, 2, dmin);
    s->d = vf_through_f16(d);
    s->dmin = vf_through_f16(dmin);
    /* The 12 bytes as drawn above; then what a reader will take out of them again. */
    VI packed[16];
    const VI low4 = vi_set1(15), low6 = vi_set1(63), byte = vi_set1(255);
    for (int j = 0; j < 4; j++) {
        VI high = vi_shl(vi_shr(s->scale[4 + j], 4), 6), min_high = vi_shl(vi_shr(s->min[4 + j], 4), 6);
        packed[j] = vi_and(vi_or(s->scale[j], high), byte);
        packed[4 + j] = vi_and(vi_or(s->min[j], min_high), byte);
        packed[8 + j] = vi_or(vi_and(s->scale[4 + j], low4), vi_shl(vi_and(s->min[4 + j], low4), 4));
        s->scale[4 + j] = vi_or(vi_and(packed[8 + j], low4), vi_shl(vi_shr(packed[j], 6), 4));
        s->min[4 + j] = vi_or(vi_shr(packed[8 + j], 4), vi_shl(vi_shr(packed[4 + j], 6), 4));
        s->scale[j] = vi_and(packed[j], low6);
        s->min[j] = vi_and(packed[4 + j], low6);
    }
    for (int j = 0; j < 12; j++) {
        lanes_store_byte(&s->g, kind->scales_at + j, packed[j]);
    }
}

/* Levels of sub-block j for the scales as stored; those of the search where the stored scale is zero. */
V_FN void min_group_levels(VI *level, const MinGroup *s, int j, int nmax)
{
    const VF *x = s->x + 32 * j;
    VF d = vf_mul(s->d, vi_to_f(s->scale[j])), dm = vf_mul(s->dmin, vi_to_f(s->min[j]));
    for (int i = 0; i < 32; i++) {
        level[i] = vi_clamp(vi_nearest(vf_div(vf_add(x[i], dm), d)), 0, nmax);
    }
    VM lost = vf_eq(d, vf_set1(0));
    if (vm_any(lost)) {
        for (int i = 0; i < 32; i++) {
            level[i] = vi_select(lost, min_fit_level(&s->fit[j], x[i], nmax), level[i]);
        }
    }
}

static const MinKind q4_k_kind = {15, 20, -1.f, 0.1f, sizeof(block_q4_k), 4, 0};

static void q4_k_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    for (int64_t b = 0; b < blocks; b += VN) {
        MinGroup s;
        lanes_at(&s.g, b, blocks, 256, sizeof(block_q4_k), x, out, w, row_blocks);
        vf_load_lanes(s.x, s.g.x, 256);
        min_group_search(&s, &q4_k_kind, w != 0);
        min_group_scales(&s, &q4_k_kind, w != 0);
        for (int j = 0; j < 8; j += 2) {
            VI low[32], high[32];
            min_group_levels(low, &s, j, 15);
            min_group_levels(high, &s, j + 1, 15);
            for (int i = 0; i < 32; i++) {
                low[i] = vi_or(low[i], vi_shl(high[i], 4));
            }
            lanes_store_u8(&s.g, 16 + 16 * j, low, 32);
        }
    }
}

/* Scale and min of sub-block j out of the 12 bytes. */
V_FN void six_bits_load(const uint8_t *p, int j, int *scale, int *min)
{
    if (j < 4) {
        *scale = p[j] & 63;
        *min = p[j + 4] & 63;
    } else {
        *scale = (p[j + 4] & 15) | p[j - 4] >> 6 << 4;
        *min = p[j + 4] >> 4 | p[j] >> 6 << 4;
    }
}

static void q4_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q4_k), y += 256) {
        const block_q4_k *x = (const block_q4_k *)(const void *)in;
        float d = load_f16(x->d), dmin = load_f16(x->dmin);
        for (int j = 0; j < 8; j += 2) {
            int scale[2], min[2];
            six_bits_load(x->scales, j, &scale[0], &min[0]);
            six_bits_load(x->scales, j + 1, &scale[1], &min[1]);
            VF d0 = vf_set1(d * (float)scale[0]), m0 = vf_set1(dmin * (float)min[0]);
            VF d1 = vf_set1(d * (float)scale[1]), m1 = vf_set1(dmin * (float)min[1]);
            for (int i = 0; i < 32; i += VN) {
                VI q = vi_load_u8(x->q + 16 * j + i);
                vf_store(y + 32 * j + i, vf_sub(vf_mul(d0, vi_to_f(vi_and(q, vi_set1(15)))), m0));
                vf_store(y + 32 * j + 32 + i, vf_sub(vf_mul(d1, vi_to_f(vi_shr(q, 4))), m1));
            }
        }
    }
}

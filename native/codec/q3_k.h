/* Q3_K: 256 weights in 16 sub-blocks of 16; a half-float scale for all, six signed bits per sub-block, three a weight.
 *
 *   byte  0 .. 31   32 .. 63                                       64 .. 95      96 .. 107   108 109
 *        [   h    ][q96+i << 6 | q64+i << 4 | q32+i << 2 | qi][q128 .. q255][ scales ][   d   ]
 *   i < 32; q: lower two bits of a level; bit k of h[i]: upper bit of level 32 * k + i
 *
 *   scales: bytes 0 .. 7   [ lower 4 bits of scale 8+j | lower 4 bits of scale j ]
 *           bytes 8 .. 11  [ upper 2 bits of scales 12+j | 8+j | 4+j | j ]
 *   weight in sub-block j = d * (scale[j] - 32) * (level - 4)
 */
typedef struct {
    uint8_t h[32];
    uint8_t q[64];
    uint8_t scales[12];
    uint8_t d[2];
} block_q3_k;
_Static_assert(sizeof(block_q3_k) == 110, "Q3_K is 110 bytes");

typedef struct {
    Lanes g;
    VF x[256];
    SignedFit fit[16];
    VF d;
    VI scales[16]; /* 0 .. 63 */
} Q3Group;

V_FN void q3_k_search_weighted(Q3Group *s)
{
    VF sigma2 = vf_div(vf_mul(vf_set1(2), sum_squares(s->x, 256)), vf_set1(256)), w[16], weight_sum[16], scale[16];
    for (int j = 0; j < 16; j++) {
        const VF *x = s->x + 16 * j;
        importance_load(w, &s->g, 16 * j, x, 16, sigma2);
        weight_sum[j] = sum_of(w, 16);
        search_signed(&s->fit[j], x, w, 16, 4, FINITE);
        scale[j] = s->fit[j].scale;
    }
    SignedFit all;
    search_signed(&all, scale, weight_sum, 16, 32, GARBAGE);
    for (int j = 0; j < 16; j++) {
        s->scales[j] = signed_fit_level(&all, scale[j], 32);
    }
    s->d = all.scale;
}

V_FN void q3_k_search_plain(Q3Group *s)
{
    const VF zero = vf_set1(0);
    Refined refined[REFINED_TOGETHER];
    VF scale[16], magnitude;
    for (int j = 0; j < 16; j += REFINED_TOGETHER) {
        search_refined(refined, scale + j, s->x + 16 * j, 16, 4);
    }
    VF max = peak_of(scale, 16, &magnitude), iscale = vf_div(vf_set1(-32), max);
    VM some = vf_neq(max, zero);
    for (int j = 0; j < 16; j++) {
        VI l = vi_sar(vi_shl(vi_nearest(vf_mul(iscale, scale[j])), 24), 24); /* a signed byte there */
        s->scales[j] = vi_select(some, vi_add(vi_clamp(l, -32, 31), vi_set1(32)), vi_set1(0));
    }
    s->d = vf_select(some, vf_div(vf_set1(1), iscale), zero);
}

V_FN void q3_k_store_scales(const Q3Group *s)
{
    for (int j = 0; j < 8; j++) {
        VI low = vi_and(s->scales[j], vi_set1(15)), high = vi_and(s->scales[8 + j], vi_set1(15));
        lanes_store_byte(&s->g, 96 + j, vi_or(low, vi_shl(high, 4)));
    }
    for (int j = 0; j < 4; j++) {
        VI byte = vi_shr(s->scales[j], 4);
        for (int k = 1; k < 4; k++) {
            byte = vi_or(byte, vi_shl(vi_shr(s->scales[4 * k + j], 4), 2 * k));
        }
        lanes_store_byte(&s->g, 104 + j, byte);
    }
}

/* Levels of sub-block j for the scale as stored; those of the search where it is zero. */
V_FN void q3_k_levels(VI *level, const Q3Group *s, int j, int weighted)
{
    const VF *x = s->x + 16 * j;
    VF d = vf_mul(s->d, vi_to_f(vi_sub(s->scales[j], vi_set1(32))));
    for (int i = 0; i < 16; i++) {
        level[i] = vi_add(vi_clamp(vi_nearest(vf_div(x[i], d)), -4, 3), vi_set1(4));
    }
    VM lost = vf_eq(d, vf_set1(0));
    if (vm_any(lost)) {
        Refined searched[REFINED_TOGETHER];
        VF scale[REFINED_TOGETHER];
        if (!weighted) {
            search_refined(searched, scale, s->x + j / REFINED_TOGETHER * REFINED_TOGETHER * 16, 16, 4);
        }
        for (int i = 0; i < 16; i++) {
            const Refined *r = &searched[j % REFINED_TOGETHER];
            VI l = weighted ? signed_fit_level(&s->fit[j], x[i], 4) : refined_level(r, i, 4);
            level[i] = vi_select(lost, l, level[i]);
        }
    }
}

static void q3_k_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    for (int64_t b = 0; b < blocks; b += VN) {
        Q3Group s;
        lanes_at(&s.g, b, blocks, 256, sizeof(block_q3_k), x, out, w, row_blocks);
        vf_load_lanes(s.x, s.g.x, 256);
        if (w) {
            q3_k_search_weighted(&s);
        } else {
            q3_k_search_plain(&s);
        }
        q3_k_store_scales(&s);
        vf_store_f16_lanes(s.g.out, 108, s.d);
        s.d = vf_through_f16(s.d);
        for (int half = 0; half < 2; half++) { /* weights 0 .. 15 and 16 .. 31 of each 32 */
            VI h[16];
            for (int i = 0; i < 16; i++) {
                h[i] = vi_set1(0);
            }
            for (int j = 0; j < 16; j += 8) {
                VI packed[16], level[16];
                for (int i = 0; i < 16; i++) {
                    packed[i] = vi_set1(0);
                }
                for (int k = 0; k < 4; k++) {
                    q3_k_levels(level, &s, j + half + 2 * k, w != 0);
                    for (int i = 0; i < 16; i++) {
                        packed[i] = vi_or(packed[i], vi_shl(vi_and(level[i], vi_set1(3)), 2 * k));
                        h[i] = vi_or(h[i], vi_shl(vi_shr(level[i], 2), j / 2 + k));
                    }
                }
                lanes_store_u8(&s.g, 32 + 4 * j + 16 * half, packed, 16);
            }
            lanes_store_u8(&s.g, 16 * half, h, 16);
        }
    }
}

static void q3_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    const VB four = vb_set1(4);
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q3_k), y += 256) {
        const block_q3_k *x = (const block_q3_k *)(const void *)in;
        const float d = load_f16(x->d);
        const uint32_t upper = load_u32(x->scales + 8);
        const VB high = vb_field(vb_set4(upper << 4, upper << 2, upper, upper >> 2), 0, 48);
        const VB six = vb_or(vb_nibbles(x->scales), high);
        float scales[16];
        for (int i = 0; i < 16 / VN; i++) {
            vf_store(scales + i * VN, vf_mul(vf_set1(d), vi_to_f(vi_sub(vb_widen(six, i), vi_set1(32)))));
        }
        for (int half = 0; half < 2; half++) {
            for (int side = 0; side < 2; side++) { /* weights 0 .. 15 and 16 .. 31 of each 32 */
                const VB q = vb_load_u8(x->q + 32 * half + 16 * side);
                const VB h = vb_field(vb_load_u8(x->h + 16 * side), 4 * half, 15);
                for (int k = 0; k < 4; k++) {
                    const int j = 8 * half + 2 * k + side;
                    VB level = vb_sub(vb_or(vb_field(q, 2 * k, 3), vb_field(h, k - 2, 4)), four);
                    vb_times(y + 16 * j, level, vf_set1(scales[j]));
                }
            }
        }
    }
}

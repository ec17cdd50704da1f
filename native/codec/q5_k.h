/* Q5_K: as Q4_K with a fifth bit a weight: bit j of h[i] belongs to weight i of sub-block j.
 *
 *   byte  0   1   2   3    4 .. 15    16 .. 47    48 .. 79                      ...  144 .. 175
 *        [  d   ][ dmin ][ scales ][    h     ][q32+i << 4 | qi & 15, i < 32] ... [ q192 .. q255 ]
 *   scales as in Q4_K        weight in sub-block j = d * scale[j] * q - dmin * min[j]
 */
typedef struct {
    uint8_t d[2];
    uint8_t dmin[2];
    uint8_t scales[12];
    uint8_t h[32];
    uint8_t q[128];
} block_q5_k;
_Static_assert(sizeof(block_q5_k) == 176, "Q5_K is 176 bytes");

static const MinKind q5_k_kind = {31, 15, -0.5f, 0.1f, sizeof(block_q5_k), 4, 1};

static void q5_k_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    for (int64_t b = 0; b < blocks; b += VN) {
        MinGroup s;
        lanes_at(&s.g, b, blocks, 256, sizeof(block_q5_k), x, out, w, row_blocks);
        vf_load_lanes(s.x, s.g.x, 256);
        min_group_search(&s, &q5_k_kind, w != 0);
        min_group_scales(&s, &q5_k_kind, w != 0);
        VI h[32];
        for (int i = 0; i < 32; i++) {
            h[i] = vi_set1(0);
        }
        for (int j = 0; j < 8; j += 2) {
            VI low[32], high[32];
            min_group_levels(low, &s, j, 31);
            min_group_levels(high, &s, j + 1, 31);
            for (int i = 0; i < 32; i++) {
                VI fifth = vi_or(vi_shl(vi_shr(low[i], 4), j), vi_shl(vi_shr(high[i], 4), j + 1));
                h[i] = vi_or(h[i], fifth);
                low[i] = vi_or(vi_and(low[i], vi_set1(15)), vi_shl(vi_and(high[i], vi_set1(15)), 4));
            }
            lanes_store_u8(&s.g, 48 + 16 * j, low, 32);
        }
        lanes_store_u8(&s.g, 16, h, 32);
    }
}

static void q5_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q5_k), y += 256) {
        const block_q5_k *x = (const block_q5_k *)(const void *)in;
        float d = load_f16(x->d), dmin = load_f16(x->dmin);
        for (int j = 0; j < 8; j += 2) {
            int scale[2], min[2];
            six_bits_load(x->scales, j, &scale[0], &min[0]);
            six_bits_load(x->scales, j + 1, &scale[1], &min[1]);
            VF d0 = vf_set1(d * (float)scale[0]), m0 = vf_set1(dmin * (float)min[0]);
            VF d1 = vf_set1(d * (float)scale[1]), m1 = vf_set1(dmin * (float)min[1]);
            for (int i = 0; i < 32; i += VN) {
                VI q = vi_load_u8(x->q + 16 * j + i), h = vi_shrv(vi_load_u8(x->h + i), vi_set1(j));
                VI low = vi_or(vi_and(q, vi_set1(15)), vi_shl(vi_and(h, vi_set1(1)), 4));
                VI high = vi_or(vi_shr(q, 4), vi_shl(vi_and(h, vi_set1(2)), 3));
                vf_store(y + 32 * j + i, vf_sub(vf_mul(d0, vi_to_f(low)), m0));
                vf_store(y + 32 * j + 32 + i, vf_sub(vf_mul(d1, vi_to_f(high)), m1));
            }
        }
    }
}

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
        const VB h[2] = {vb_load_u8(x->h), vb_load_u8(x->h + 16)};
        const uint32_t w0 = load_u32(x->scales), w1 = load_u32(x->scales + 4), w2 = load_u32(x->scales + 8);
        const uint32_t four = 0x0f0f0f0fu, two = 0x30303030u, six = four | two;
        const VB bytes = vb_set4(w0 & six, (w2 & four) | (w0 >> 2 & two), w1 & six, (w2 >> 4 & four) | (w1 >> 2 & two));
        float scales[16]; /* and from 8 on minimums */
        for (int i = 0; i < 16 / VN; i++) {
            vf_store(scales + i * VN, vi_to_f(vb_widen(bytes, i)));
        }
        for (int j = 0; j < 8; j += 2) {
            VF d0 = vf_set1(d * scales[j]), m0 = vf_set1(dmin * scales[8 + j]);
            VF d1 = vf_set1(d * scales[j + 1]), m1 = vf_set1(dmin * scales[9 + j]);
            for (int half = 0; half < 2; half++) {
                VB q = vb_load_u8(x->q + 16 * j + 16 * half), bits = vb_field(h[half], j, 3);
                VB level0 = vb_or(vb_field(q, 0, 15), vb_field(bits, -4, 16));
                VB level1 = vb_or(vb_field(q, 4, 15), vb_field(bits, -3, 16));
                float *to = y + 32 * j + 16 * half;
                vb_times_less(to, level0, d0, m0);
                vb_times_less(to + 32, level1, d1, m1);
            }
        }
    }
}

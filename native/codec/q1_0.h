/* Q1_0: 128 weights of -1 or 1 times their mean magnitude.
 *
 *   d (f16)   qs[16]: weight i is bit i % 8 of byte i / 8, set when the weight is not negative */
typedef struct {
    uint8_t d[2], qs[16];
} q1_0_block;
_Static_assert(sizeof(q1_0_block) == 18, "Q1_0");

/* Bit i set when x[i] >= 0, for 16 weights. */
V_FN unsigned q1_0_signs(const float *x)
{
    unsigned bits = 0;
    for (int i = 0; i < 16; i += VN) {
        bits |= vm_bits(vf_ge(vf_load(x + i), vf_set1(0.f))) << i;
    }
    return bits;
}

static void q1_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w, (void)row_blocks;
    for (int64_t b = 0; b < blocks; b += VN) {
        Lanes g;
        lanes_at(&g, b, blocks, 128, sizeof(q1_0_block), x, out, NULL, 1);
        VF sum = vf_set1(0.f), v[16];
        for (int i = 0; i < 128; i += 16) {
            vf_load_lanes(v, g.x, 16);
            for (int j = 0; j < 16; j++) {
                sum = vf_add(sum, vf_abs(v[j]));
            }
            for (int l = 0; l < VN; l++) {
                store_u16(g.out[l] + 2 + i / 8, q1_0_signs(g.x[l]));
                g.x[l] += 16;
            }
        }
        vf_store_f16_lanes(g.out, 0, vf_div(sum, vf_set1(128.f)));
    }
}

static void q1_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 128) {
        const q1_0_block *block = (const q1_0_block *)in + b;
        VF d = vf_set1(load_f16(block->d)), minus = vf_neg(d);
        for (int i = 0; i < 128; i += VN) {
            unsigned bits = load_u16(block->qs + i / 16 * 2);
            vf_store(y + i, vf_select(vm_from_bits(bits >> i % 16), d, minus));
        }
    }
}

/* BF16: the upper half of a binary32, rounded to nearest even; a NaN stays one by its quiet bit. */

/* The result is in the upper halves. */
V_FN VI bf16_round(VI bits)
{
    VI odd = vi_and(vi_shr(bits, 16), vi_set1(1));
    VI rounded = vi_add(bits, vi_add(odd, vi_set1(0x7fff)));
    VM nan = vf_neq(vi_as_f(bits), vi_as_f(bits));
    return vi_select(nan, vi_or(bits, vi_set1(0x400000)), rounded);
}

static void bf16_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w;
    (void)row_blocks;
    int64_t i = 0;
    for (; i + VN <= blocks; i += VN) {
        vi_store_high(out + 2 * i, bf16_round(vf_bits(vf_load(x + i))));
    }
    for (; i < blocks; i++) {
        int32_t lanes[VN];
        vi_store(lanes, bf16_round(vi_set1((int32_t)f32_to_bits(x[i]))));
        store_u16(out + 2 * i, (uint32_t)lanes[0] >> 16);
    }
}

static void bf16_decode(const uint8_t *in, float *y, int64_t blocks)
{
    int64_t i = 0;
    for (; i + VN <= blocks; i += VN) {
        vf_store(y + i, vi_as_f(vi_shl(vi_load_u16(in + 2 * i), 16)));
    }
    for (; i < blocks; i++) {
        y[i] = bits_to_f32((uint32_t)load_u16(in + 2 * i) << 16);
    }
}

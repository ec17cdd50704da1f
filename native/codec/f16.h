/* F16: IEEE 754 binary16, little-endian. */

static void f16_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w;
    (void)row_blocks;
    int64_t i = 0;
    for (; i + VN <= blocks; i += VN) {
        vf_store_f16(out + 2 * i, vf_load(x + i));
    }
    for (; i < blocks; i++) {
        store_u16(out + 2 * i, f32_to_f16(x[i]));
    }
}

static void f16_decode(const uint8_t *in, float *y, int64_t blocks)
{
    int64_t i = 0;
    for (; i + VN <= blocks; i += VN) {
        vf_store(y + i, vf_from_f16(vi_load_u16(in + 2 * i)));
    }
    for (; i < blocks; i++) {
        y[i] = load_f16(in + 2 * i);
    }
}

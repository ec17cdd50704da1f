/* F64: IEEE 754 binary64, little-endian. Becomes float by rounding to nearest even. */

static void f64_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w;
    (void)row_blocks;
    for (int64_t i = 0; i < blocks; i++) {
        double d = x[i];
        memcpy(out + 8 * i, &d, sizeof d);
    }
}

static void f64_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t i = 0; i < blocks; i++) {
        double d;
        memcpy(&d, in + 8 * i, sizeof d);
        y[i] = (float)d;
    }
}

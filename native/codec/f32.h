/* F32: IEEE 754 binary32, little-endian. */

static void f32_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w;
    (void)row_blocks;
    memcpy(out, x, (size_t)blocks * sizeof *x);
}

static void f32_decode(const uint8_t *in, float *y, int64_t blocks)
{
    memcpy(y, in, (size_t)blocks * sizeof *y);
}

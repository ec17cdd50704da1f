/* 8-bit floats beside scales, as float32: the value of a code, then one multiplication, each rounded as IEEE has it.
 *
 *          s eeee mmm    E4M3: bias 7, no infinities, s 1111 111 NaN
 *          s eeeee mm    E5M2: bias 15, as IEEE has it
 *                        FNUZ: bias one more, no infinities, no -0, whose code is the one NaN
 *
 * A code without its sign, put into a float's bits and moved by the difference of the biases, is its value; where the
 * exponent is 0, the mantissa is a whole number of the smallest steps. NaNs have a float's usual bits. */
#ifndef FORGE_FLOATS8_H
#define FORGE_FLOATS8_H

enum { FN8, IEEE8, FNUZ8 };

V_FN VF value8(VI code, int mantissa, int bias, int kind)
{
    const VI magnitude = vi_and(code, vi_set1(0x7f)), nan = vi_set1(0x7fc00000);
    const VI sign = vi_shl(vi_and(code, vi_set1(0x80)), 24);
    const VI normal = vi_add(vi_shl(magnitude, 23 - mantissa), vi_set1((127 - bias) << 23));
    const VF step = vf_set1(bits_to_f32((uint32_t)(127 + 1 - bias - mantissa) << 23));
    const VI small = vf_bits(vf_mul(vi_to_f(magnitude), step));
    VI bits = vi_select(vi_gt(vi_set1(1 << mantissa), magnitude), small, normal);
    if (kind == FNUZ8) {
        return vi_as_f(vi_select(vi_eq(code, vi_set1(0x80)), nan, vi_or(bits, sign)));
    }
    if (kind == IEEE8) {
        const VI top = vi_set1(31 << mantissa);
        bits = vi_select(vi_gt(magnitude, top), nan, vi_select(vi_eq(magnitude, top), vi_set1(0x7f800000), bits));
    } else {
        bits = vi_select(vi_eq(magnitude, vi_set1(0x7f)), nan, bits);
    }
    return vi_as_f(vi_or(bits, sign));
}

/* n codes that share a scale. What follows `out` is constant to the callers, which makes a loop for each. */
V_FN void span8(const uint8_t *codes, int64_t n, float scale, float *out, int mantissa, int bias, int kind)
{
    const VF times = vf_set1(scale);
    int64_t i = 0;
    for (; i + VN <= n; i += VN) {
        vf_store(out + i, vf_mul(value8(vi_load_u8(codes + i), mantissa, bias, kind), times));
    }
    if (i < n) {
        uint8_t last[16] = {0};
        float lanes[VN];
        memcpy(last, codes + i, (size_t)(n - i));
        vf_store(lanes, vf_mul(value8(vi_load_u8(last), mantissa, bias, kind), times));
        memcpy(out + i, lanes, (size_t)(n - i) * sizeof *lanes);
    }
}

/* Elements at .. at + n - 1, counted over rows of `width`. */
static void floats8(const forge_floats8 *src, int64_t width, int64_t at, int64_t n, float *out)
{
    const int64_t groups = (width + src->group - 1) / src->group;
    const uint8_t *codes = src->codes + at;
    int64_t row = at / width, column = at % width;
    while (n > 0) {
        const int64_t group = column / src->group, next = (group + 1) * src->group;
        const int64_t left = (next < width ? next : width) - column, span = left < n ? left : n;
        const float scale = src->scales[row * groups + group];
        switch (src->format) {
        case FORGE_E4M3: span8(codes, span, scale, out, 3, 7, FN8); break;
        case FORGE_E5M2: span8(codes, span, scale, out, 2, 15, IEEE8); break;
        case FORGE_E4M3FNUZ: span8(codes, span, scale, out, 3, 8, FNUZ8); break;
        default: span8(codes, span, scale, out, 2, 16, FNUZ8); break;
        }
        codes += span;
        out += span;
        n -= span;
        column += span;
        if (column == width) {
            column = 0;
            row++;
        }
    }
}

/* Adds the squares of y - x and of x, each summed up in sixteen parts, which makes it the same whatever VN is. */
static void squares(const float *x, const float *y, int64_t n, double *sums)
{
    VF error[16 / VN], whole[16 / VN];
    for (int k = 0; k < 16 / VN; k++) {
        error[k] = whole[k] = vf_set1(0);
    }
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int k = 0; k < 16 / VN; k++) {
            const VF a = vf_load(x + i + k * VN), e = vf_sub(vf_load(y + i + k * VN), a);
            error[k] = vf_add(error[k], vf_mul(e, e));
            whole[k] = vf_add(whole[k], vf_mul(a, a));
        }
    }
    float parts[2][16];
    for (int k = 0; k < 16 / VN; k++) {
        vf_store(parts[0] + k * VN, error[k]);
        vf_store(parts[1] + k * VN, whole[k]);
    }
    for (int k = 0; i < n; i++, k++) {
        const float e = y[i] - x[i];
        parts[0][k] += e * e;
        parts[1][k] += x[i] * x[i];
    }
    for (int k = 0; k < 16; k++) {
        sums[0] += parts[0][k];
        sums[1] += parts[1][k];
    }
}

#endif

/* E2M1: four bits, sign and magnitude 0, 1/2, 1, 3/2, 2, 3, 4, 6; here doubled, so that all are integers. */
#ifndef FORGE_FP4_H
#define FORGE_FP4_H

#define FP4_VALUES {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
static const float fp4_values[16] = FP4_VALUES;
static const int8_t fp4_bytes[16] = FP4_VALUES;

/* The index of the value nearest to x when scaled by d >= 0: the first of the smallest |value * d - x| as computed.
 * By symmetry the search needs magnitudes only: on the other side of zero no error is below that of zero itself. */
V_FN VI fp4_nearest(VF x, VF d)
{
    VF magnitude = vf_abs(x), best = magnitude;
    VI index = vi_set1(0);
    for (int k = 1; k < 8; k++) {
        VF error = vf_abs(vf_sub(vf_mul(vf_set1(fp4_values[k]), d), magnitude));
        index = vi_select(vf_lt(error, best), vi_set1(k), index);
        best = vf_min(error, best);
    }
    VI minus = vi_and(vi_sar(vf_bits(x), 31), vi_set1(8));
    return vi_select(vi_gt(index, vi_set1(0)), vi_or(index, minus), index);
}

/* The same where magnitudes are not far above 12 d, the largest value: errors then are exact near the midpoints, so the
 * index is the number of midpoints below. */
V_FN VI fp4_count(VF x, VF d)
{
    static const float midpoints[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5.f, 7.f, 10.f};
    const VI zero = vi_set1(0), one = vi_set1(1);
    VF magnitude = vf_abs(x);
    VI index = zero;
    for (int k = 0; k < 7; k++) {
        index = vi_add(index, vi_select(vf_gt(magnitude, vf_mul(vf_set1(midpoints[k]), d)), one, zero));
    }
    VI minus = vi_and(vi_sar(vf_bits(x), 31), vi_set1(8));
    return vi_select(vi_gt(index, zero), vi_or(index, minus), index);
}

/* fp4_count with d = 1, for magnitudes below 16 (those above and NaNs get the index 7). */
V_FN VI fp4_count_ones(VF x)
{
    const VI bits = vf_bits(vf_abs(x));
    /* From 2 on the values are the floats with one bit of mantissa, and halves go down; below, count 0.5 and 1.5. */
    VI upper = vi_sub(vi_shr(vi_add(bits, vi_set1(0x1fffff)), 22), vi_set1(254));
    VI lower = vi_add(vi_shr(vi_sub(vi_set1(0x3f000000), bits), 31), vi_shr(vi_sub(vi_set1(0x3fc00000), bits), 31));
    VI index = vi_min(vi_max(upper, lower), vi_set1(7));
    VI minus = vi_and(vi_shr(vf_bits(x), 28), vi_set1(8));
    return vi_or(index, vi_and(vi_add(index, vi_set1(7)), minus)); /* index + 7 has bit 3 unless index is 0 */
}

/* n indices, 16 or 32, as n/2 bytes: the first half in the low nibbles. */
V_FN void fp4_pack(const VI *q, int n, uint8_t *out)
{
    uint8_t index[32];
    vi_store_u8(index, q, n / VN);
    for (int i = 0; i < n / 2; i += 8) {
        uint64_t low, high;
        memcpy(&low, index + i, 8);
        memcpy(&high, index + n / 2 + i, 8);
        low |= high << 4;
        memcpy(out + i, &low, 8);
    }
}

#endif

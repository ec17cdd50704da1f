/* Half floats in integer arithmetic, for the lanes and machines without an instruction for it. */

static inline float bits_to_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint32_t f32_to_bits(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float soft_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, mag = h & 0x7fff;
    if (mag < 0x0400) { /* zero or denormal: mag * 2^-24 is exact */
        return bits_to_f32(sign | f32_to_bits((float)mag * 0x1p-24f));
    }
    uint32_t bits = (mag << 13) + 0x38000000u; /* exponent bias 15 -> 127 */
    if (mag >= 0x7c00) {
        bits += 0x38000000u; /* exponent 31 -> 255 */
        bits |= mag > 0x7c00 ? 0x00400000u : 0;
    }
    return bits_to_f32(sign | bits);
}

static inline uint16_t soft_f32_to_f16(float f)
{
    uint32_t bits = f32_to_bits(f), sign = bits >> 16 & 0x8000, mag = bits & 0x7fffffff;
    if (mag > 0x7f800000u) {
        return (uint16_t)(sign | 0x7e00);
    }
    if (mag >= 0x47800000u) { /* 65536 and more */
        return (uint16_t)(sign | 0x7c00);
    }
    if (mag < 0x38800000u) { /* below 2^-14: adding 0.5 rounds to steps of 2^-24 */
        return (uint16_t)(sign | (f32_to_bits(bits_to_f32(mag) + 0.5f) - 0x3f000000u));
    }
    return (uint16_t)(sign | (mag - 0x38000000u + 0x0fff + (mag >> 13 & 1)) >> 13);
}

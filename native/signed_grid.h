/* How the decoders of lattice types end: magnitudes gathered from a lattice, signs as bits, a scale a sub-block. */
#ifndef FORGE_SIGNED_GRID_H
#define FORGE_SIGNED_GRID_H

#include "lattice.h"

/* 256 weights: bytes of magnitude, one sign bit each, and a scale for every `per` (16 or 32) weights. */
V_FN void signed_grid_decode(const uint8_t magnitude[256], const uint32_t signs[8], const float *scale, int per, float *y)
{
    for (int i = 0; i < 256; i += VN) {
        VF v = vf_mul(vf_set1(scale[i / per]), vi_to_f(vi_load_u8(magnitude + i)));
        VM minus = vm_from_bits(signs[i / 32] >> i % 32);
        vf_store(y + i, vf_select(minus, vf_neg(v), v));
    }
}

/* 28 bits to four sign bytes of even parity. */
static inline uint32_t signed_grid_even(uint32_t bits)
{
    return (uint32_t)forge_even_signs[bits & 127] | (uint32_t)forge_even_signs[bits >> 7 & 127] << 8 |
           (uint32_t)forge_even_signs[bits >> 14 & 127] << 16 | (uint32_t)forge_even_signs[bits >> 21 & 127] << 24;
}

/* Four times seven signs to 28 bits. */
static inline uint32_t signed_grid_sevens(const uint8_t signs[4])
{
    return (uint32_t)signs[0] | (uint32_t)signs[1] << 7 | (uint32_t)signs[2] << 14 | (uint32_t)signs[3] << 21;
}

#endif

/* How the decoders of lattice types end: eight signed bytes at a time from a lattice, and a scale a sub-block. */
#ifndef FORGE_SIGNED_GRID_H
#define FORGE_SIGNED_GRID_H

#include "lattice.h"

/* Eight magnitudes of 1..127 with signs of 0 or 255: no byte carries into the next. */
static inline uint64_t signed_grid(uint64_t magnitudes, uint64_t signs)
{
    return (magnitudes ^ signs) + (signs & 0x0101010101010101u);
}

/* 256 weights: signed bytes, and a scale for every `per` (16 or 32) of them. */
V_FN void signed_grid_decode(const uint64_t bytes[32], const float *scale, int per, float *y)
{
    for (int i = 0; i < 256; i += VN) {
        vf_store(y + i, vf_mul(vf_set1(scale[i / per]), vi_to_f(vi_load_i8((const uint8_t *)bytes + i))));
    }
}

/* Four times seven signs to 28 bits. */
static inline uint32_t signed_grid_sevens(const uint8_t signs[4])
{
    return (uint32_t)signs[0] | (uint32_t)signs[1] << 7 | (uint32_t)signs[2] << 14 | (uint32_t)signs[3] << 21;
}

#endif

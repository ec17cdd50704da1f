/* How the decoders of lattice types end: eight signed bytes at a time from a lattice, and a scale a sub-block. */
#ifndef FORGE_SIGNED_GRID_H
#define FORGE_SIGNED_GRID_H

#include "lattice.h"

/* 2 s + 1, the scale of a sub-block but for a power of two. */
static const float signed_grid_odd[16] = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};

/* 16 weights: signed bytes times a scale. They come straight from registers: storing eights of them to load them as
 * vectors would wait for all earlier stores. */
V_FN void signed_grid_store(VB bytes, float scale, float *y)
{
    for (int i = 0; i < 16 / VN; i++) {
        vf_store(y + i * VN, vf_mul(vf_set1(scale), vi_to_f(vb_widen(bytes, i))));
    }
}

/* Four times seven signs to 28 bits. */
static inline uint32_t signed_grid_sevens(const uint8_t signs[4])
{
    return (uint32_t)signs[0] | (uint32_t)signs[1] << 7 | (uint32_t)signs[2] << 14 | (uint32_t)signs[3] << 21;
}

#endif

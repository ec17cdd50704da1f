/* What IQ1_S and IQ1_M share: points of -1, 0, 1 shifted by an eighth up or down. */
#ifndef FORGE_IQ1_H
#define FORGE_IQ1_H

#include "lattice.h"

/* 256 weights: scale * (point + shift), a scale for every 16 weights; a weight whose bit is set is shifted down. */
V_FN void iq1_finish(const uint64_t points[32], const float scale[16], const uint32_t down[8], float *y)
{
    const VF up = vf_set1(0.125f), minus = vf_set1(-0.125f);
    for (int i = 0; i < 256; i += VN) {
        VF shift = vf_select(vm_from_bits(down[i / 32] >> i % 32), minus, up);
        VF v = vf_add(vi_to_f(vi_load_i8((const uint8_t *)points + i)), shift);
        vf_store(y + i, vf_mul(vf_set1(scale[i / 16]), v));
    }
}

#endif

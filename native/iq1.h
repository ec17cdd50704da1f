/* What IQ1_S and IQ1_M share: points of -1, 0, 1 shifted by an eighth up or down. */
#ifndef FORGE_IQ1_H
#define FORGE_IQ1_H

#include "lattice.h"

/* 256 weights: scale * (point + shift), a scale for every 16 weights and a shift for every 8. */
V_FN void iq1_finish(const uint64_t points[32], const float scale[16], const float shift[32], float *y)
{
    const uint8_t *bytes = (const uint8_t *)points;
    for (int i = 0; i < 256; i += VN) {
        float each[VN];
        for (int l = 0; l < VN; l++) {
            each[l] = shift[(i + l) / 8];
        }
        VF v = vf_add(vi_to_f(vi_load_i8(bytes + i)), vf_load(each));
        vf_store(y + i, vf_mul(vf_set1(scale[i / 16]), v));
    }
}

#endif

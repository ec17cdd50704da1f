/* What IQ1_S and IQ1_M share: points of -1, 0, 1 shifted by an eighth up or down. */
#ifndef FORGE_IQ1_H
#define FORGE_IQ1_H

#include "signed_grid.h"

/* What is added to the first and to the last eight of 16 weights: up, or down where a bit says so. */
#define IQ1_EIGHT(shift) shift, shift, shift, shift, shift, shift, shift, shift
static const float iq1_shifts[4][16] = {{IQ1_EIGHT(0.125f), IQ1_EIGHT(0.125f)},
                                        {IQ1_EIGHT(-0.125f), IQ1_EIGHT(0.125f)},
                                        {IQ1_EIGHT(0.125f), IQ1_EIGHT(-0.125f)},
                                        {IQ1_EIGHT(-0.125f), IQ1_EIGHT(-0.125f)}};

/* 16 weights: scale * (point + shift); i0 and i1 are the indices of the two points. */
V_FN void iq1_store(unsigned i0, unsigned i1, const float shift[16], float scale, float *y)
{
    for (int i = 0; i < 16; i += VN) {
        VF points = vi_to_f(vi_eights(forge_grid_iq1 + i0, forge_grid_iq1 + i1, i));
        vf_store(y + i, vf_mul(vf_set1(scale), vf_add(points, vf_load(shift + i))));
    }
}

#endif

/* The search of the lattice types IQ2 and IQ3 on a GPU: in place of what lattice_fit.h has for vectors.
 *
 * A warp has one sub-block, its lanes are the scales tried, up to 31, and each moves its codes to the lattice as the
 * reference does, from the whole list of a code's neighbours: no test of what is sure, and no memory for lines.
 * Neighbouring scales mostly round to the same code, so that the lanes of a warp read the same lists. All else of the
 * search is the same in every lane, computed by each from the codec's text. Between lanes go sums and codes, through
 * shared memory, two words a lane and eight. */
#ifndef FORGE_CUDA_LATTICE_LANES_H
#define FORGE_CUDA_LATTICE_LANES_H

enum { LATTICE_THREADS = 128, WARP = 32 }; /* threads at most in a CTA that searches lattices */

V_FN unsigned lane_of_warp(void) { return threadIdx.x % WARP; }

/* r's codes become those of the lane `from`, or stay when that is -1; `mine` are each lane's. */
V_FN void lattice_take_codes(lattice_run *r, int groups, const VI *mine, int from)
{
    __shared__ int32_t codes[8][LATTICE_THREADS];
    const unsigned warp = threadIdx.x / WARP * WARP;
    for (int k = 0; k < groups; k++) {
        codes[k][threadIdx.x] = mine[k];
    }
    __syncwarp();
    for (int k = 0; k < groups && from >= 0; k++) {
        r->code[k] = codes[k][warp + (unsigned)from];
    }
    __syncwarp();
}

/* The code of group k of a sub-block for one scale. */
V_FN VI lattice_code(const lattice_run *r, lattice_kind kind, const forge_lattice *t, int k, VF scale, VF inverse)
{
    const float *x = r->x_of[0] + k * kind.dimensions, *root = r->root_of[0] + k * kind.dimensions;
    const VI code = lattice_round(x, kind.dimensions, inverse, NULL);
    const lattice_group group = lattice_load_group(x, root, kind.dimensions, lattice_odd);
    return lattice_move(t, &group, kind.dimensions, scale, code);
}

/* As lattice_fit.h has it: tries scales max / (middle + i step) and keeps the best in r->scale and r->code. */
V_FN void lattice_try(lattice_run *r, lattice_kind kind, const forge_lattice *t, VF max)
{
    __shared__ float qx[LATTICE_THREADS], q2[LATTICE_THREADS];
    const int groups = kind.weights / kind.dimensions, tries = 2 * kind.tries + 1;
    const int middle = kind.dimensions == 4 ? 15 : 5, lane = (int)lane_of_warp();
    const float above = (float)middle + (float)(lane < tries ? lane - kind.tries : kind.tries) * kind.step;
    const VF inverse = vf_div(above, max), scale = vf_div(vf_set1(1.f), inverse);
    VI code[8];
    for (int k = 0; k < groups; k++) {
        code[k] = lattice_code(r, kind, t, k, scale, inverse);
    }
    const lattice_sums s = lattice_sum(r, kind, code);
    qx[threadIdx.x] = s.qx;
    q2[threadIdx.x] = s.q2;
    __syncwarp();
    float best = 0.f;
    int at = -1;
    for (int i = 0; i < tries; i++) {
        const unsigned from = threadIdx.x / WARP * WARP + (unsigned)i;
        if (q2[from] > 0.f && qx[from] * qx[from] > best * q2[from]) {
            r->scale = qx[from] / q2[from];
            best = r->scale * qx[from];
            at = i;
        }
    }
    lattice_take_codes(r, groups, code, at);
}

/* As there: rounds once more with the scale found, a group a lane. `lanes` is the same in all. */
V_FN void lattice_refine(lattice_run *r, lattice_kind kind, const forge_lattice *t, VM lanes, int all)
{
    __shared__ int32_t codes[LATTICE_THREADS];
    const int groups = kind.weights / kind.dimensions, mine = (int)lane_of_warp() % groups;
    const VF inverse = vf_div(vf_set1(1.f), r->scale);
    VI code = r->code[mine];
    if (lanes && (all || code >= LATTICE_OFF)) {
        code = lattice_code(r, kind, t, mine, r->scale, inverse);
    }
    codes[threadIdx.x] = code;
    __syncwarp();
    for (int k = 0; k < groups; k++) {
        r->code[k] = codes[threadIdx.x / WARP * WARP + (unsigned)k];
    }
    __syncwarp();
    const lattice_sums s = lattice_sum(r, kind, r->code);
    r->scale = vf_select(vm_and(lanes, vf_gt(s.q2, vf_set1(0.f))), vf_div(s.qx, s.q2), r->scale);
}

#endif

/* A GPU's grid, CTAs, warps and shared memory on the host, thin: enough to run the kernels of native/cuda/ as they are.
 *
 * CTAs run one after the other; the threads of one are fibers, which run until they wait for their warp or their CTA. A
 * barrier that not all threads reach ends the process with a sentence, where a GPU would hang or go on wrongly. Every
 * other CTA takes its threads in the opposite order, so that results which hang on an order of threads differ. Shared
 * memory is a static variable: sanitizers watch its bounds. Knows no kernels. */
#ifndef FORGE_EMULATION_H
#define FORGE_EMULATION_H

#include <stdint.h>

#define __device__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};

extern "C" {
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

void emulated_barrier(int of_cta);
/* What all threads of the warp, or the CTA, say: whether any says other than 0. */
int emulated_any(int of_cta, int mine);
/* The word of another lane of the warp. */
uint32_t emulated_shuffle(uint32_t mine, unsigned from);
/* What a warp's matrix units do by mma.m16n8k16 of bfloat16: c += a b, the lanes' values as PTX has them. */
void emulated_multiply_tile(float *c, const uint32_t *a, const uint32_t *b);
/* The compute capability, times ten: 90 until it is set. */
extern int emulated_capability;
}

static inline void __syncthreads(void) { emulated_barrier(1); }
static inline void __syncwarp(void) { emulated_barrier(0); }
static inline int __syncthreads_or(int mine) { return emulated_any(1, mine); }
static inline int __any_sync(unsigned, int mine) { return emulated_any(0, mine); }

static inline float __shfl_xor_sync(unsigned, float mine, int with)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &mine, 4);
    bits = emulated_shuffle(bits, (threadIdx.x % 32) ^ (unsigned)with);
    __builtin_memcpy(&mine, &bits, 4);
    return mine;
}

static inline unsigned long long atomicMin(unsigned long long *at, unsigned long long value)
{
    const unsigned long long before = *at;
    *at = value < before ? value : before;
    return before;
}

#endif

/* The codecs as a GPU's thread compiles them: the counterpart of isa/<isa>.c, from the same texts.
 *
 * A thread is a vector of one lane, so its vocabulary is the plain C one, isa/one_lane.h, and lanes that hold different
 * blocks are different threads. The texts are C11 in its common subset with CUDA C++, and what they declare static
 * becomes the device's by one definition below. Results are the core's to the bit, which asks for these flags of nvcc:
 *
 *     --fmad=false         no multiplication is fused with an addition
 *     --prec-div=true --prec-sqrt=true      IEEE division and root (the default, and so said)
 *     and no --use_fast_math, which would also flush denormals
 *
 * Three things have a shape of their own here, each beside its codec and compared with it by the tests: decoders
 * (fours.h: four weights a thread, from bytes that the CTA staged in shared memory), the search of the lattice types
 * (lattice_lanes.h: the lanes of a warp are the scales tried), and how blocks come to threads (encode.h).
 *
 * The NaN that arithmetic makes is 0x7fffffff, and so it is where this is emulated: vf_made_bits and NAN_SIGN_FLIP in
 * vocabulary.h know of it.
 * Compiled by nvcc, or by a C++ compiler with tests/cuda/emulation.h included before this, which supplies grid, block,
 * warp and shared memory on the host. */
#ifndef FORGE_CUDA_DEVICE_H
#define FORGE_CUDA_DEVICE_H

#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "launch.h"
#include "../exact.h"

#ifdef __CUDACC__
#define V_OUT static __noinline__
#define V_FN static __forceinline__
#define V_MEMBER __device__ __forceinline__
#else
#define V_OUT static
#define V_FN static inline __attribute__((always_inline, unused))
#define V_MEMBER inline __attribute__((always_inline))
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#define FORGE_CUDA /* lattice_fit.h and vocabulary.h ask */
#define _Static_assert static_assert
#define _Alignas alignas
#ifdef __CUDACC__
#pragma nv_diag_suppress 177 /* a vocabulary is larger than what one file of kernels happens to use */
#define static static __device__
#endif

#include "../isa/half.h"
#include "../lattice.h"
#ifdef __CUDACC__
#include "../lattice_points.h"
#endif
#ifndef __CUDACC__
V_FN float as_on_a_gpu(float f) { return f != f ? bits_to_f32(0x7fffffffu) : f; }
#define V_MADE(result) as_on_a_gpu(result)
#endif
#include "../isa/one_lane.h"
#include "../isa/vocabulary.h"
#include "../lanes.h"
#include "../search.h"

#include "../codec/bf16.h"
#include "../codec/f16.h"
#include "../codec/f32.h"
#include "../codec/f64.h"
#include "../codec/iq1_m.h"
#include "../codec/iq1_s.h"
#include "../codec/iq2_s.h"
#include "../codec/iq2_xs.h"
#include "../codec/iq2_xxs.h"
#include "../codec/iq3_s.h"
#include "../codec/iq3_xxs.h"
#include "../codec/iq4_nl.h"
#include "../codec/iq4_xs.h"
#include "../codec/mxfp4.h"
#include "../codec/nvfp4.h"
#include "../codec/q1_0.h"
#include "../codec/q2_0.h"
#include "../codec/q2_k.h"
#include "../codec/q3_k.h"
#include "../codec/q4_0.h"
#include "../codec/q4_1.h"
#include "../codec/q4_k.h"
#include "../codec/q5_0.h"
#include "../codec/q5_1.h"
#include "../codec/q5_k.h"
#include "../codec/q6_k.h"
#include "../codec/q8_0.h"
#include "../codec/q8_1.h"
#include "../codec/q8_k.h"
#include "../codec/tq1_0.h"
#include "../codec/tq2_0.h"

/* The thread's place, 64 bits wide. */
V_FN uint64_t cta_index(void) { return blockIdx.x; }
V_FN uint64_t cta_count(void) { return gridDim.x; }

/* A half float's value; unlike f16_to_f32 it may change what a NaN carries. */
V_FN float half_value(uint16_t h)
{
#ifdef __CUDA_ARCH__
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
#else
    return soft_f16_to_f32(h);
#endif
}

/* To nearest even, as f32_to_f16 but for what NaNs carry. */
V_FN uint16_t half_bits(float f)
{
#ifdef __CUDA_ARCH__
    uint16_t h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
    return h;
#else
    return soft_f32_to_f16(f);
#endif
}

/* Bytes at .. at + 3 of a field at any address in shared memory, at a multiple of 4; three bytes before and seven after
 * may be read, too. How the field lies to a boundary is the same for all of its words. */
V_FN uint32_t word_at(const uint8_t *field, int at)
{
    const uint32_t past = (uint32_t)((uintptr_t)field & 3);
    const uint8_t *p = field - past + at;
#ifdef __CUDA_ARCH__
    const uint32_t *words = (const uint32_t *)p;
    return __funnelshift_r(words[0], words[1], 8 * past);
#else
    uint64_t both;
    memcpy(&both, p, sizeof both);
    return (uint32_t)(both >> 8 * past);
#endif
}

/* The same where blocks are of whole words, so that all words of a tensor mostly lie on boundaries: a caller that has
 * looked says so by on_boundary, and no bytes are put together then. */
V_FN uint32_t word_in(const uint8_t *field, int at)
{
    if (((uintptr_t)field & 3) == 0) {
#ifdef __CUDA_ARCH__
        return *(const uint32_t *)(field + at);
#else
        uint32_t word;
        memcpy(&word, field + at, sizeof word);
        return word;
#endif
    }
    return word_at(field, at);
}

V_FN const uint8_t *on_boundary(const uint8_t *p) { return (const uint8_t *)__builtin_assume_aligned(p, 4); }

/* n bytes on a boundary of 16 or of all of them: loaded and stored by one instruction where they are up to 16. */
template <int n> struct alignas(n < 16 ? n : 16) Several {
    uint32_t at[n / 4];
};
typedef Several<8> Eight;
typedef Several<16> Sixteen;

#endif

/* Decode kernels: a CTA takes tiles of FORGE_DECODE_TILE weights. It stages their bytes in shared memory, 16 a thread
 * at a time wherever the tile begins, then works out every scale once; then each thread makes four weights (eight of
 * half size) and stores them as 16 bytes, neighbours side by side. Knows tiles and addresses, no block layout. */
#ifndef FORGE_CUDA_DECODE_H
#define FORGE_CUDA_DECODE_H

#include "fours.h"

/* What a result is made of, and how four or eight weights become 16 bytes of it. */
struct to_f32 {
    typedef float element;
    enum { AT_ONCE = 4 };
    static element one(float f) { return f; }
    static Sixteen pack(const float *y)
    {
        return Sixteen{{f32_to_bits(y[0]), f32_to_bits(y[1]), f32_to_bits(y[2]), f32_to_bits(y[3])}};
    }
};

template <uint16_t (*round)(float), uint32_t (*two)(float, float)> struct to_half {
    typedef uint16_t element;
    enum { AT_ONCE = 8 };
    static element one(float f) { return round(f); }
    static Sixteen pack(const float *y)
    {
        return Sixteen{{two(y[0], y[1]), two(y[2], y[3]), two(y[4], y[5]), two(y[6], y[7])}};
    }
};

/* To nearest even, as the codec does but for what NaNs carry. */
V_FN uint16_t brain_bits(float f)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint16_t b;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(b) : "f"(f));
    return b;
#else
    return (uint16_t)((uint32_t)bf16_round(vf_bits(f)) >> 16);
#endif
}

V_FN uint32_t two_halves(float low, float high) { return half_bits(low) | (uint32_t)half_bits(high) << 16; }

V_FN uint32_t two_brains(float low, float high)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
#else
    return brain_bits(low) | (uint32_t)brain_bits(high) << 16;
#endif
}

typedef to_half<half_bits, two_halves> to_f16;
typedef to_half<brain_bits, two_brains> to_bf16;

/* Copies n bytes into shared memory, the first to `staged` + address % 16, so that 16 bytes travel at a time. Returns
 * where the first lies. All threads of the CTA call it; they are together again when it returns. */
V_FN const uint8_t *stage(uint8_t *staged, const uint8_t *from, uint32_t n)
{
    const uint32_t past = (uint32_t)((uintptr_t)from & 15), head = (16 - past) & 15, lead = head < n ? head : n;
    const uint32_t wide = (n - lead) / 16, tail = lead + 16 * wide;
    uint8_t *to = staged + past;
    for (uint32_t i = threadIdx.x; i < wide; i += blockDim.x) {
        *(Sixteen *)(to + lead + 16 * i) = *(const Sixteen *)(from + lead + 16 * i);
    }
    for (uint32_t i = threadIdx.x; i < lead; i += blockDim.x) {
        to[i] = from[i];
    }
    for (uint32_t i = tail + threadIdx.x; i < n; i += blockDim.x) {
        to[i] = from[i];
    }
    __syncthreads();
    return to;
}

/* Weights i .. i + AT_ONCE - 1 of a tile as 16 bytes; they lie in block number `block` from `at` on. */
template <int size, int bytes, class Type, class To>
V_FN void make(const uint8_t *in, const Scale *scales, const float *table, uint32_t block, int at, float *y)
{
    const Scale s = scales[block * (size / Type::SUB) + (uint32_t)at / Type::SUB];
    for (int k = 0; k < To::AT_ONCE; k += 4) {
        Type::four(in + block * bytes, at + k, s, table, y + k);
    }
}

/* A whole tile, as most are: all that does not change from step to step is done once. */
template <int size, int bytes, class Type, class To>
V_FN void make_tile(const uint8_t *in, const Scale *scales, const float *table, typename To::element *to)
{
    const uint32_t mine = threadIdx.x * To::AT_ONCE;
#pragma unroll
    for (uint32_t i = 0; i < FORGE_DECODE_TILE; i += FORGE_DECODE_THREADS * To::AT_ONCE) {
        float y[To::AT_ONCE];
        make<size, bytes, Type, To>(in, scales, table, mine / size + i / size, (int)(mine % size), y);
        *(Sixteen *)(to + mine + i) = To::pack(y);
    }
}

/* Blocks of `size` weights in `bytes` bytes. */
template <int size, int bytes, class Type, class To>
V_FN void decode_blocks(const uint8_t *blocks, typename To::element *out, uint64_t count)
{
    enum { TILE = FORGE_DECODE_TILE, TILE_BLOCKS = TILE / size, STEP = FORGE_DECODE_THREADS * To::AT_ONCE };
    alignas(16) __shared__ uint8_t staged[TILE_BLOCKS * bytes + 16 + 16]; /* before by the address, after for word_at */
    __shared__ Scale scales[TILE / Type::SUB];
    __shared__ float table[16];
    const uint64_t tiles = (count + TILE_BLOCKS - 1) / TILE_BLOCKS;
    const int wide = ((uintptr_t)out & 15) == 0;
    if (Type::LOOKED_UP && threadIdx.x < 16) {
        table[threadIdx.x] = Type::value(threadIdx.x);
    }
    for (uint64_t tile = cta_index(); tile < tiles; tile += cta_count()) {
        const uint64_t first = tile * TILE_BLOCKS, left = count - first;
        const uint32_t n = left < TILE_BLOCKS ? (uint32_t)left : (uint32_t)TILE_BLOCKS;
        const uint8_t *in = stage(staged, blocks + first * bytes, n * bytes);
        typename To::element *to = out + first * size;
        for (uint32_t j = threadIdx.x; j < n * (size / Type::SUB); j += FORGE_DECODE_THREADS) {
            scales[j] = Type::scale(in + j / (size / Type::SUB) * bytes, (int)(j % (size / Type::SUB)));
        }
        __syncthreads();
        const uint32_t mine = threadIdx.x * To::AT_ONCE;
        if (n == TILE_BLOCKS && wide && bytes % 4 == 0 && ((uintptr_t)in & 3) == 0) {
            make_tile<size, bytes, Type, To>(on_boundary(in), scales, table, to);
        } else if (n == TILE_BLOCKS && wide) {
            make_tile<size, bytes, Type, To>(in, scales, table, to);
        } else {
            for (uint32_t i = mine; i < n * size; i += STEP) {
                float y[To::AT_ONCE];
                make<size, bytes, Type, To>(in, scales, table, i / size, (int)(i % size), y);
                for (int k = 0; k < To::AT_ONCE; k++) {
                    to[i + k] = To::one(y[k]);
                }
            }
        }
        __syncthreads();
    }
}

/* The bits of an element, loaded at once where elements lie on boundaries of theirs. */
template <int bytes> V_FN uint64_t element_at(const uint8_t *p, int aligned)
{
    if (bytes == 2) {
        return aligned ? *(const uint16_t *)p : load_u16(p);
    }
    if (bytes == 4) {
        return aligned ? *(const uint32_t *)p : load_u32(p);
    }
    return aligned ? *(const uint64_t *)p : load_u64(p);
}

V_FN float f32_value(uint64_t bits) { return bits_to_f32((uint32_t)bits); }
V_FN float f16_value(uint64_t bits) { return f16_to_f32((uint16_t)bits); }
V_FN float bf16_value(uint64_t bits) { return bits_to_f32((uint32_t)bits << 16); }
V_FN float f64_value(uint64_t bits)
{
    double d;
    memcpy(&d, &bits, sizeof d);
    return (float)d;
}

/* Element k of some. */
template <int bytes, int n> V_FN uint64_t element_of(const Several<n> &s, int k)
{
    if (bytes == 2) {
        return s.at[k / 2] >> k % 2 * 16 & 0xffff;
    }
    return bytes == 4 ? s.at[k] : s.at[2 * k] | (uint64_t)s.at[2 * k + 1] << 32;
}

/* A whole tile on boundaries of 16 bytes. All is loaded before the first result is stored: a store could be to what is
 * loaded, for all that a compiler knows, and each load would wait. */
template <int bytes, float (*value)(uint64_t), class To>
V_FN void decode_tile_of_floats(const uint8_t *in, typename To::element *out)
{
    enum { EACH = To::AT_ONCE, STEPS = FORGE_DECODE_TILE / FORGE_DECODE_THREADS / EACH };
    Several<EACH * bytes> loaded[STEPS];
#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++) {
        loaded[k] = ((const Several<EACH * bytes> *)in)[threadIdx.x + k * FORGE_DECODE_THREADS];
    }
#pragma unroll
    for (uint32_t k = 0; k < STEPS; k++) {
        float y[EACH];
        for (int i = 0; i < EACH; i++) {
            y[i] = value(element_of<bytes>(loaded[k], i));
        }
        *(Sixteen *)(out + (threadIdx.x + k * FORGE_DECODE_THREADS) * EACH) = To::pack(y);
    }
}

/* Floats of `bytes` bytes. */
template <int bytes, float (*value)(uint64_t), class To>
V_FN void decode_floats(const uint8_t *in, typename To::element *out, uint64_t count)
{
    const int aligned = (uintptr_t)in % bytes == 0, wide = (((uintptr_t)in | (uintptr_t)out) & 15) == 0;
    for (uint64_t at = cta_index() * FORGE_DECODE_TILE; at < count; at += cta_count() * FORGE_DECODE_TILE) {
        if (wide && count - at >= FORGE_DECODE_TILE) {
            decode_tile_of_floats<bytes, value, To>(in + at * bytes, out + at);
            continue;
        }
        const uint64_t end = count - at < FORGE_DECODE_TILE ? count : at + FORGE_DECODE_TILE;
        for (uint64_t i = at + threadIdx.x; i < end; i += FORGE_DECODE_THREADS) {
            out[i] = To::one(value(element_at<bytes>(in + i * bytes, aligned)));
        }
    }
}

#endif

/* Encode kernels: how blocks come to threads. What is done with a block is the codec's text, for one lane.
 *
 *   FLAT    blocks of up to 64 weights: a CTA copies the values of its blocks into shared memory, rows a word longer
 *           than a block so that threads read different banks; a thread encodes a block there, and the bytes go out
 *           together.
 *   WHOLE   larger blocks: a thread reads and encodes one; its work is the search, far more than the reading.
 *   WARP    superblocks of lattice points: a warp encodes one, see lattice_lanes.h.
 *   FLOATS  elements.
 *
 * Values are looked at before they are encoded: one that is not finite, or above the limit, is told by its index, the
 * smallest of all that were found, and nothing of its piece is encoded. Knows no block layout. */
#ifndef FORGE_CUDA_ENCODE_H
#define FORGE_CUDA_ENCODE_H

#include "device.h"

typedef struct {
    const float *values, *importance, *mean_squares;
    const forge_lattice *lattice;
    uint8_t *blocks;
    uint64_t rows, width;
    float limit;
    forge_failure *failure;
} Job;

/* Magnitudes are in the order of their bits, NaNs above all. */
V_FN uint32_t magnitude_of(float value) { return f32_to_bits(value) & 0x7fffffffu; }

V_FN uint32_t larger(uint32_t a, uint32_t b) { return a > b ? a : b; }

/* Whether one of a thread's values, of which this is the largest magnitude, may not be encoded. Its index is told then:
 * the values are values[first + i] for i = start, start + step, ... below n. */
V_FN int refused(const Job *j, uint32_t most, uint64_t first, uint32_t n, uint32_t start, uint32_t step)
{
    if (most <= f32_to_bits(j->limit)) {
        return 0;
    }
    for (uint32_t i = start; i < n; i += step) {
        const uint32_t magnitude = magnitude_of(j->values[first + i]);
        if (magnitude > f32_to_bits(j->limit)) {
            atomicMin(&j->failure->key, 2ull * (first + i) + (magnitude < 0x7f800000u));
            break;
        }
    }
    return 1;
}

/* Looks at a thread's values as above. */
V_FN int refused_of(const Job *j, uint64_t first, uint32_t n, uint32_t start, uint32_t step)
{
    uint32_t most = 0;
#pragma unroll 8
    for (uint32_t i = start; i < n; i += step) {
        most = larger(most, magnitude_of(j->values[first + i]));
    }
    return refused(j, most, first, n, start, step);
}

/* The importances of a block's weights, or NULL. */
V_FN const float *importance_of(const Job *j, uint64_t block, uint32_t size)
{
    return j->importance ? j->importance + block % (j->width / size) * size : NULL;
}

/* ------------------------------------------------------------------ FLAT */

/* A block at x, with importances w or without: x and out lie in shared memory. */
typedef void flat_fn(const Job *j, const float *x, const float *w, uint64_t block, uint8_t *out);

template <int size, int bytes, int blocks_at_once, flat_fn *encode> V_FN void encode_flat(const Job *j)
{
    __shared__ float staged[blocks_at_once * (size + 1)];
    alignas(16) __shared__ uint8_t made[blocks_at_once * bytes];
    const uint64_t count = j->rows * (j->width / size), pieces = (count + blocks_at_once - 1) / blocks_at_once;
    for (uint64_t piece = cta_index(); piece < pieces; piece += cta_count()) {
        const uint64_t first = piece * blocks_at_once, left = count - first;
        const uint32_t n = left < blocks_at_once ? (uint32_t)left : (uint32_t)blocks_at_once;
        uint32_t most = 0;
#pragma unroll 8
        for (uint32_t i = threadIdx.x; i < n * size; i += blocks_at_once) {
            const float value = j->values[first * size + i];
            most = larger(most, magnitude_of(value));
            staged[i + i / size] = value;
        }
        const int bad = __syncthreads_or(refused(j, most, first * size, n * size, threadIdx.x, blocks_at_once));
        if (!bad && threadIdx.x < n) {
            const uint64_t block = first + threadIdx.x;
            encode(j, staged + threadIdx.x * (size + 1), importance_of(j, block, size), block,
                   made + threadIdx.x * bytes);
        }
        __syncthreads();
        uint8_t *out = j->blocks + first * bytes;
        const uint32_t all = bad ? 0 : n * bytes, wide = (uintptr_t)out & 15 ? 0 : all / 16;
        for (uint32_t i = threadIdx.x; i < wide; i += blockDim.x) {
            ((Sixteen *)out)[i] = ((const Sixteen *)made)[i];
        }
        for (uint32_t i = 16 * wide + threadIdx.x; i < all; i += blockDim.x) {
            out[i] = made[i];
        }
        __syncthreads();
    }
}

/* Of types whose search takes the mean square of the whole row. */
typedef void plain_fn(const float *x, uint8_t *out);
typedef void weighted_fn(const Lanes *g, const VF *x, const VF *w);

template <plain_fn *plain, weighted_fn *weighted>
V_FN void encode_32(const Job *j, const float *x, const float *w, uint64_t block, uint8_t *out)
{
    if (w == NULL) {
        plain(x, out);
        return;
    }
    Lanes g;
    lanes_at(&g, 0, 1, 32, 0, x, out, w, 1);
    encode_weighted_lanes(&g, j->mean_squares[block / (j->width / 32)], weighted);
}

/* Of all others. */
typedef void codec_fn(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks);

template <codec_fn *codec>
V_FN void encode_alone(const Job *j, const float *x, const float *w, uint64_t block, uint8_t *out)
{
    (void)j, (void)block;
    codec(x, out, 1, w, 1);
}

/* Sums along rows, in order: a thread a row. */
V_FN void mean_squares_of_rows(const float *values, float *mean_squares, uint64_t rows, uint64_t width)
{
    const uint64_t step = cta_count() * blockDim.x;
    for (uint64_t row = cta_index() * blockDim.x + threadIdx.x; row < rows; row += step) {
        row_mean_squares(mean_squares + row, values + row * width, 0, 1, (int64_t)width);
    }
}

/* ------------------------------------------------------------------ WHOLE */

template <int size, int bytes, int blocks_at_once, flat_fn *encode> V_FN void encode_whole(const Job *j)
{
    const uint64_t count = j->rows * (j->width / size), pieces = (count + blocks_at_once - 1) / blocks_at_once;
    for (uint64_t piece = cta_index(); piece < pieces; piece += cta_count()) {
        const uint64_t first = piece * blocks_at_once, left = count - first;
        const uint32_t n = left < blocks_at_once ? (uint32_t)left : (uint32_t)blocks_at_once;
        const int bad = __syncthreads_or(refused_of(j, first * size, n * size, threadIdx.x, blocks_at_once));
        if (!bad && threadIdx.x < n) {
            const uint64_t block = first + threadIdx.x;
            encode(j, j->values + block * size, importance_of(j, block, size), block, j->blocks + block * bytes);
        }
    }
}

template <class Block, void (*fit)(const forge_lattice *, const float *, const float *, float, Block *)>
V_FN void encode_iq1(const Job *j, const float *x, const float *w, uint64_t block, uint8_t *out)
{
    float sums[SUPERBLOCKS];
    (void)block;
    superblock_squares(x, 1, sums);
    fit(j->lattice, x, w, 2 * sums[0] / 256, (Block *)out);
}

/* ------------------------------------------------------------------ WARP */

template <int bytes, int blocks_at_once, lattice_fit_fn *fit, lattice_pack_fn *pack>
V_FN void encode_warp(const Job *j, lattice_kind kind)
{
    __shared__ lattice_result results[blocks_at_once];
    const uint64_t count = j->rows * (j->width / 256);
    const uint32_t warp = threadIdx.x / WARP, lane = lane_of_warp();
    const int per = 256 / kind.weights;
    lattice_result *result = results + warp;
    for (uint64_t b = cta_index() * blocks_at_once + warp; b < count; b += cta_count() * blocks_at_once) {
        const float *x = j->values + b * 256, *w = importance_of(j, b, 256);
        if (__any_sync(0xffffffffu, refused_of(j, b * 256, 256, lane, WARP))) {
            continue;
        }
        float sums[SUPERBLOCKS];
        superblock_squares(x, 1, sums);
        const VF sigma2 = vf_div(kind.twice ? vf_mul(vf_set1(2.f), sums[0]) : sums[0], vf_set1(256.f));
        for (int s = 0; s < per; s++) {
            Lanes g;
            lattice_run r;
            lanes_at(&g, s, per, kind.weights, 0, x, NULL, w, per);
            lattice_prepare(&r, kind, &g, w != NULL, sigma2, vf_mul(vf_set1(kind.base), sigma2));
            const VM live = fit(&r, j->lattice);
            if (lane == 0) {
                lattice_store(&r, kind, j->lattice, live, result, s, per);
            }
        }
        if (lane == 0) {
            pack(j->blocks + b * bytes, result);
        }
        __syncwarp();
    }
}

/* ------------------------------------------------------------------ FLOATS */

/* One element, in one piece where elements lie on boundaries of theirs. */
template <int bytes, codec_fn *codec> V_FN void encode_float(float value, uint8_t *out, int aligned)
{
    alignas(8) uint8_t made[bytes];
    codec(&value, made, 1, NULL, 1);
    if (aligned && bytes == 2) {
        *(uint16_t *)out = load_u16(made);
    } else if (aligned && bytes == 4) {
        *(uint32_t *)out = load_u32(made);
    } else if (aligned && bytes == 8) {
        *(uint64_t *)out = load_u64(made);
    } else {
        memcpy(out, made, bytes);
    }
}

/* A CTA's elements are loaded all before the first is stored: a store could be to what is loaded, for all that a
 * compiler knows, and each load would wait. */
template <int bytes, int threads, int elements, codec_fn *codec> V_FN void encode_floats(const Job *j)
{
    enum { EACH = elements / threads };
    static_assert(elements % threads == 0, "all threads have as many");
    const uint64_t count = j->rows * j->width;
    const int aligned = (uintptr_t)j->blocks % bytes == 0;
    for (uint64_t at = cta_index() * elements; at < count; at += cta_count() * elements) {
        if (count - at >= elements) {
            float values[EACH];
#pragma unroll
            for (uint32_t k = 0; k < EACH; k++) {
                values[k] = j->values[at + threadIdx.x + k * threads];
            }
#pragma unroll
            for (uint32_t k = 0; k < EACH; k++) {
                encode_float<bytes, codec>(values[k], j->blocks + (at + threadIdx.x + k * threads) * bytes, aligned);
            }
        } else {
            for (uint64_t i = at + threadIdx.x; i < count; i += threads) {
                encode_float<bytes, codec>(j->values[i], j->blocks + i * bytes, aligned);
            }
        }
    }
}

#endif

/* Products of a matrix of blocks with one vector or a few: what is read is the blocks, and each weight lives in a
 * register only. A warp takes two rows, in chunks of 2048 weights: it stages their bytes, works out the scales, and
 * each lane multiplies eight neighbouring weights at a time.
 *
 * With a sub-block's scale d and minimum m, the sum of (d level - m) x is d times the sum of level x, less m times the
 * sum of x. Sums are of float32, multiplications fused with them: fewer roundings than in decoding first, and the
 * same result in every run: a lane adds up along its row, then the lanes of a warp in pairs. */
#ifndef FORGE_CUDA_MATVEC_H
#define FORGE_CUDA_MATVEC_H

#include "decode.h"

enum { MATVEC_CHUNK = 2048, MATVEC_ROWS = 2, MATVEC_WARPS = FORGE_MATVEC_THREADS / WARP, EIGHT = 8 };

static_assert(FORGE_MATVEC_CTA_ROWS == MATVEC_ROWS * MATVEC_WARPS, "launch.h says how many rows a CTA has");

/* Eight numbers of x, on a boundary of 16 bytes, as floats. */
struct of_f32 {
    typedef float element;
    static void load(const element *x, float *out)
    {
        const Sixteen a = *(const Sixteen *)x, b = *(const Sixteen *)(x + 4);
        for (int k = 0; k < 4; k++) {
            out[k] = bits_to_f32(a.at[k]);
            out[4 + k] = bits_to_f32(b.at[k]);
        }
    }
};

struct of_f16 {
    typedef uint16_t element;
    static void load(const element *x, float *out)
    {
        const Sixteen a = *(const Sixteen *)x;
        for (int k = 0; k < 4; k++) {
            out[2 * k] = half_value((uint16_t)(a.at[k] & 0xffff));
            out[2 * k + 1] = half_value((uint16_t)(a.at[k] >> 16));
        }
    }
};

/* Bytes on their way from memory to a warp's part of shared memory: up to `most` of them, in its lanes' registers. */
template <int most> struct Fetched {
    enum { EACH = (most / 16 + WARP - 1) / WARP };
    Sixteen wide[EACH];
    uint8_t first, last;
};

/* How n bytes from an address on divide: single ones up to a boundary of 16, sixteens, and single ones again. */
typedef struct {
    uint32_t past, lead, wide, tail;
} Parts;

V_FN Parts parts_of(const uint8_t *from, uint32_t n)
{
    const uint32_t past = (uint32_t)((uintptr_t)from & 15), head = (16 - past) & 15, lead = head < n ? head : n;
    const uint32_t wide = (n - lead) / 16;
    return Parts{past, lead, wide, lead + 16 * wide};
}

template <int most> V_FN void fetch(Fetched<most> *f, const uint8_t *from, uint32_t n)
{
    const Parts p = parts_of(from, n);
    const uint32_t lane = lane_of_warp();
#pragma unroll
    for (uint32_t k = 0; k < f->EACH; k++) {
        if (lane + k * WARP < p.wide) {
            f->wide[k] = *(const Sixteen *)(from + p.lead + 16 * (lane + k * WARP));
        }
    }
    if (lane < p.lead) {
        f->first = from[lane];
    }
    if (p.tail + lane < n) { /* less than 16 */
        f->last = from[p.tail + lane];
    }
}

/* Puts them where they were fetched for, the first at `staged` + address % 16, which is returned. */
template <int most> V_FN const uint8_t *put(const Fetched<most> *f, uint8_t *staged, const uint8_t *from, uint32_t n)
{
    const Parts p = parts_of(from, n);
    const uint32_t lane = lane_of_warp();
    uint8_t *to = staged + p.past;
#pragma unroll
    for (uint32_t k = 0; k < f->EACH; k++) {
        if (lane + k * WARP < p.wide) {
            *(Sixteen *)(to + p.lead + 16 * (lane + k * WARP)) = f->wide[k];
        }
    }
    if (lane < p.lead) {
        to[lane] = f->first;
    }
    if (p.tail + lane < n) {
        to[p.tail + lane] = f->last;
    }
    return to;
}

/* Weights of the chunk that begins at `at`. */
V_FN uint32_t chunk_of(uint64_t width, uint64_t at)
{
    return width - at < MATVEC_CHUNK ? (uint32_t)(width - at) : (uint32_t)MATVEC_CHUNK;
}

/* A warp's part of shared memory for one of its rows. */
template <int most, int sub> struct Staged {
    alignas(16) uint8_t bytes[(most + 16 + 31) / 16 * 16]; /* before by the address, after for word_at */
    Scale scales[MATVEC_CHUNK / sub];
};

/* Rows of one warp, and `most` vectors at a time. boundary: all words of the blocks lie on boundaries of theirs. */
template <int size, int bytes, class Type, class Of, int most, bool boundary>
V_FN void multiply_rows(const uint8_t *blocks, const typename Of::element *x, float *y, uint64_t rows, uint64_t width,
                        uint64_t vectors, uint64_t row, Staged<bytes * (MATVEC_CHUNK / size), Type::SUB> *held,
                        const float *table)
{
    enum { CHUNK_BLOCKS = MATVEC_CHUNK / size };
    const uint32_t lane = lane_of_warp();
    const uint64_t row_bytes = width / size * bytes;
    const int n_rows = rows - row < MATVEC_ROWS ? (int)(rows - row) : (int)MATVEC_ROWS;
    const int n_vectors = vectors < most ? (int)vectors : most;
    float sums[MATVEC_ROWS][most];
    for (int r = 0; r < MATVEC_ROWS; r++) {
        for (int b = 0; b < most; b++) {
            sums[r][b] = 0.f;
        }
    }
    const uint8_t *from[MATVEC_ROWS], *in[MATVEC_ROWS];
    Fetched<CHUNK_BLOCKS * bytes> fetched[MATVEC_ROWS];
#pragma unroll
    for (int r = 0; r < MATVEC_ROWS; r++) { /* a row that is not there is the last one again */
        from[r] = blocks + (row + (uint64_t)(r < n_rows ? r : n_rows - 1)) * row_bytes;
        fetch(fetched + r, from[r], chunk_of(width, 0) / size * bytes);
    }
    for (uint64_t at = 0; at < width; at += MATVEC_CHUNK) {
        const uint32_t n = chunk_of(width, at);
#pragma unroll
        for (int r = 0; r < MATVEC_ROWS; r++) { /* what comes next is on its way while this is multiplied */
            in[r] = put(fetched + r, held[r].bytes, from[r], n / size * bytes);
            in[r] = boundary ? on_boundary(in[r]) : in[r];
            from[r] += CHUNK_BLOCKS * bytes;
            if (at + MATVEC_CHUNK < width) {
                fetch(fetched + r, from[r], chunk_of(width, at + MATVEC_CHUNK) / size * bytes);
            }
        }
        __syncwarp();
#pragma unroll
        for (int r = 0; r < MATVEC_ROWS; r++) {
            for (uint32_t j = lane; j < n / Type::SUB; j += WARP) {
                const uint32_t per = size / Type::SUB;
                held[r].scales[j] = Type::scale(in[r] + j / per * bytes, (int)(j % per));
            }
        }
        __syncwarp();
#pragma unroll
        for (uint32_t step = 0; step < MATVEC_CHUNK; step += WARP * EIGHT) {
            const uint32_t i = lane * EIGHT + step, block = lane * EIGHT / size + step / size;
            if (i >= n) {
                break;
            }
            float numbers[most][EIGHT];
#pragma unroll
            for (int b = 0; b < most; b++) {
                Of::load(x + (uint64_t)(b < n_vectors ? b : 0) * width + at + i, numbers[b]);
            }
#pragma unroll
            for (int r = 0; r < MATVEC_ROWS; r++) {
                const Scale s = held[r].scales[i / Type::SUB], one = {1.f, 0.f};
                float levels[EIGHT];
                for (int k = 0; k < EIGHT; k += 4) {
                    Type::four(in[r] + block * bytes, (int)(lane * EIGHT % size) + k, one, table, levels + k);
                }
#pragma unroll
                for (int b = 0; b < most; b++) {
                    float sum = levels[0] * numbers[b][0], all = numbers[b][0];
                    for (int k = 1; k < EIGHT; k++) {
                        sum = fmaf(levels[k], numbers[b][k], sum);
                        all += numbers[b][k];
                    }
                    sums[r][b] = fmaf(s.d, sum, sums[r][b]);
                    if (Type::MINUS) {
                        sums[r][b] = fmaf(-s.m, all, sums[r][b]);
                    }
                }
            }
        }
        __syncwarp();
    }
    for (int r = 0; r < MATVEC_ROWS; r++) {
        for (int b = 0; b < most; b++) {
            for (int apart = WARP / 2; apart > 0; apart /= 2) {
                sums[r][b] += __shfl_xor_sync(0xffffffffu, sums[r][b], apart);
            }
            if (lane == 0 && r < n_rows && b < n_vectors) {
                y[(uint64_t)b * rows + row + (uint64_t)r] = sums[r][b];
            }
        }
    }
}

template <int size, int bytes, class Type, class Of, int most>
V_FN void multiply(const uint8_t *blocks, const typename Of::element *x, float *y, uint64_t rows, uint64_t width,
                   uint64_t vectors)
{
    __shared__ Staged<bytes * (MATVEC_CHUNK / size), Type::SUB> staged[MATVEC_WARPS][MATVEC_ROWS];
    __shared__ float table[16];
    if (Type::LOOKED_UP) {
        if (threadIdx.x < 16) {
            table[threadIdx.x] = Type::value(threadIdx.x);
        }
        __syncthreads();
    }
    const uint64_t pairs = (rows + MATVEC_ROWS - 1) / MATVEC_ROWS, groups = (vectors + most - 1) / most;
    const uint64_t step = cta_count() * MATVEC_WARPS;
    const uint32_t warp = threadIdx.x / WARP;
    for (uint64_t i = cta_index() * MATVEC_WARPS + warp; i < pairs * groups; i += step) {
        const uint64_t first = i / pairs * most, row = i % pairs * MATVEC_ROWS;
        if (bytes % 4 == 0 && ((uintptr_t)blocks & 3) == 0) {
            multiply_rows<size, bytes, Type, Of, most, true>(blocks, x + first * width, y + first * rows, rows, width,
                                                             vectors - first, row, staged[warp], table);
        } else {
            multiply_rows<size, bytes, Type, Of, most, false>(blocks, x + first * width, y + first * rows, rows, width,
                                                              vectors - first, row, staged[warp], table);
        }
    }
}

#endif

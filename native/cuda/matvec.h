/* Products of a matrix of blocks with one vector or a few on GPUs without matrix units as tiles.h works with: what
 * is read is the blocks, and each weight lives in a register only. A warp takes a few rows, in chunks of 2048
 * weights: it stages their bytes, works out the scales, and each lane multiplies eight neighbouring weights of all rows
 * at a time with the same numbers.
 *
 * A weight is d (y - middle) - m, see products.h: its row's sum is d times that of y x, less the sum of x times
 * d middle and m. Sums are of float32, multiplications fused with them: fewer roundings than in decoding first, and the
 * same result in every run: a lane adds up along its row, then the lanes of a warp in pairs. */
#ifndef FORGE_CUDA_MATVEC_H
#define FORGE_CUDA_MATVEC_H

#include "products.h"

enum { MATVEC_CHUNK = 2048, MATVEC_WARPS = FORGE_MATVEC_THREADS / WARP, ROWS_OF_FOUR = 2, EIGHT = 8 };

/* Eight numbers of x, on a boundary of 16 bytes, as floats. */
template <class Of> V_FN void load_eight(const typename Of::element *x, float *out)
{
    Sixteen words[Of::WORDS];
    for (int k = 0; k < Of::WORDS; k++) {
        words[k] = ((const Sixteen *)x)[k];
    }
    for (int i = 0; i < EIGHT; i++) {
        out[i] = Of::number(words, i);
    }
}

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

template <bool aligned> V_FN Parts parts_of(const uint8_t *from, uint32_t n)
{
    const uint32_t past = aligned ? 0 : (uint32_t)((uintptr_t)from & 15);
    const uint32_t head = (16 - past) & 15, lead = head < n ? head : n, wide = (n - lead) / 16;
    return Parts{past, lead, wide, lead + 16 * wide};
}

/* aligned: address and n are multiples of 16, so that there are no single ones. */
template <bool aligned, int most> V_FN void fetch(Fetched<most> *f, const uint8_t *from, uint32_t n)
{
    const Parts p = parts_of<aligned>(from, n);
    const uint32_t lane = lane_of_warp();
#pragma unroll
    for (uint32_t k = 0; k < f->EACH; k++) {
        if (lane + k * WARP < p.wide) {
            f->wide[k] = *(const Sixteen *)(from + p.lead + 16 * (lane + k * WARP));
        }
    }
    if (!aligned && lane < p.lead) {
        f->first = from[lane];
    }
    if (!aligned && p.tail + lane < n) { /* less than 16 */
        f->last = from[p.tail + lane];
    }
}

/* Puts them where they were fetched for, the first at `staged` + address % 16, which is returned. */
template <bool aligned, int most>
V_FN const uint8_t *put(const Fetched<most> *f, uint8_t *staged, const uint8_t *from, uint32_t n)
{
    const Parts p = parts_of<aligned>(from, n);
    const uint32_t lane = lane_of_warp();
    uint8_t *to = staged + p.past;
#pragma unroll
    for (uint32_t k = 0; k < f->EACH; k++) {
        if (lane + k * WARP < p.wide) {
            *(Sixteen *)(to + p.lead + 16 * (lane + k * WARP)) = f->wide[k];
        }
    }
    if (!aligned && lane < p.lead) {
        to[lane] = f->first;
    }
    if (!aligned && p.tail + lane < n) {
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
    alignas(16) Scale scales[MATVEC_CHUNK / sub];
};

/* Where row r lies; of an array of pointers one would have to be chosen lane by lane. */
template <int n_rows, bool aligned, class Held>
V_FN const uint8_t *row_in(const Held *held, const uint8_t *const *in, uint32_t r)
{
    if (aligned) {
        return held[r].bytes;
    }
    const uint8_t *found = in[0];
#pragma unroll
    for (uint32_t k = 1; k < n_rows; k++) {
        found = r == k ? in[k] : found;
    }
    return found;
}

/* What eight neighbouring levels stand for. */
template <class Type, bool whole> V_FN void numbers_of(const uint8_t *block, int at, float *y)
{
    if constexpr ((int)Type::STANDS == LOOKED_UP) {
        const Nibbles q = Type::template nibbles<whole>(block, at);
        for (int i = 0; i < EIGHT; i++) {
            const uint32_t lower = looked_up(Type::table(0), q, i / 4), upper = looked_up(Type::table(8), q, i / 4);
            const uint32_t which = ((uint32_t)(i % 4) + 4) << 12 | (uint32_t)(i % 4) << 8;
            y[place_of(i)] = bits_to_f32(chosen(lower, upper, which) & 0xffff0000u);
        }
    } else {
        const Eight levels = Type::template levels<whole>(block, at, 4);
        for (int i = 0; i < EIGHT; i++) {
            const uint32_t four = levels.at[i / 4], upper = (uint32_t)Type::STANDS << 24;
            const float in_mantissa = bits_to_f32(chosen(four, upper, 0x7044u + ((uint32_t)(i % 4) << 8)));
            y[i] = (int)Type::STANDS == LESS_128 ? byte_less(four, i % 4, 128) : in_mantissa;
        }
    }
}

V_FN float sum_of_eight(const float *x)
{
    return ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]));
}

/* The rows of one warp, and `most` vectors at a time. aligned: every row begins on a boundary of 16 bytes. */
template <int size, int bytes, class Type, class Of, int n_rows, int most, bool aligned>
V_FN void multiply_rows(const uint8_t *blocks, const typename Of::element *x, float *y, uint64_t rows, uint64_t width,
                        uint64_t vectors, uint64_t row, Staged<bytes * (MATVEC_CHUNK / size), Type::SUB> *held)
{
    enum { CHUNK_BLOCKS = MATVEC_CHUNK / size, SCALES = MATVEC_CHUNK / Type::SUB / Type::AT_ONCE };
    static_assert(CHUNK_BLOCKS * bytes % 16 == 0, "all chunks of a row lie alike to a boundary of 16");
    const uint32_t lane = lane_of_warp();
    const uint64_t row_bytes = width / size * bytes;
    const int n_vectors = vectors < most ? (int)vectors : most;
    float sums[n_rows][most];
    for (int r = 0; r < n_rows; r++) {
        for (int b = 0; b < most; b++) {
            sums[r][b] = 0.f;
        }
    }
    const uint8_t *from[n_rows], *in[n_rows];
    Fetched<CHUNK_BLOCKS * bytes> fetched[n_rows];
#pragma unroll
    for (int r = 0; r < n_rows; r++) { /* a row that is not there is the last one again */
        from[r] = blocks + (row + (uint64_t)r < rows ? row + (uint64_t)r : rows - 1) * row_bytes;
        fetch<aligned>(fetched + r, from[r], chunk_of(width, 0) / size * bytes);
    }
    for (uint64_t at = 0; at < width; at += MATVEC_CHUNK) {
        const uint32_t n = chunk_of(width, at);
#pragma unroll
        for (int r = 0; r < n_rows; r++) { /* what comes next is on its way while this is multiplied */
            in[r] = put<aligned>(fetched + r, held[r].bytes, from[r], n / size * bytes);
            from[r] += CHUNK_BLOCKS * bytes;
            if (at + MATVEC_CHUNK < width) {
                fetch<aligned>(fetched + r, from[r], chunk_of(width, at + MATVEC_CHUNK) / size * bytes);
            }
        }
        __syncwarp();
#pragma unroll
        for (uint32_t k = 0; k < n_rows * SCALES; k += WARP) { /* those of all rows, spread over the lanes */
            const uint32_t r = (lane + k) / SCALES, j = (lane + k) % SCALES * Type::AT_ONCE, per = size / Type::SUB;
            if (r < n_rows && j * Type::SUB < n) {
                const uint8_t *block = row_in<n_rows, aligned>(held, in, r) + j / per * bytes;
                Type::scales(block, (int)(j % per), held[r].scales + j);
            }
        }
        __syncwarp();
#pragma unroll
        for (uint32_t step = 0; step < MATVEC_CHUNK; step += WARP * EIGHT) {
            const uint32_t i = lane * EIGHT + step, block = lane * EIGHT / size + step / size;
            if (i >= n) {
                break;
            }
            float numbers[most][EIGHT], all[most], taken[most];
#pragma unroll
            for (int b = 0; b < most; b++) {
                load_eight<Of>(x + (uint64_t)(b < n_vectors ? b : 0) * width + at + i, numbers[b]);
                all[b] = sum_of_eight(numbers[b]);
                taken[b] = Type::middle() * all[b];
            }
#pragma unroll
            for (int r = 0; r < n_rows; r++) {
                const Scale s = held[r].scales[i / Type::SUB];
                float levels[EIGHT];
                const int within = (int)(lane * EIGHT % size);
                numbers_of<Type, aligned && bytes % 8 == 0>(in[r] + block * bytes, within, levels);
#pragma unroll
                for (int b = 0; b < most; b++) {
                    float sum = levels[0] * numbers[b][0];
                    if (Type::middle() != 0.f) {
                        sum = fmaf(levels[0], numbers[b][0], -taken[b]);
                    }
                    for (int k = 1; k < EIGHT; k++) {
                        sum = fmaf(levels[k], numbers[b][k], sum);
                    }
                    sums[r][b] = fmaf(s.d, sum, sums[r][b]);
                    if (Type::LESS) {
                        sums[r][b] = fmaf(-s.m, all[b], sums[r][b]);
                    }
                }
            }
        }
        __syncwarp();
    }
    for (int r = 0; r < n_rows; r++) {
        for (int b = 0; b < most; b++) {
            for (int apart = WARP / 2; apart > 0; apart /= 2) {
                sums[r][b] += __shfl_xor_sync(0xffffffffu, sums[r][b], apart);
            }
            if (lane == 0 && row + (uint64_t)r < rows && b < n_vectors) {
                y[(uint64_t)b * rows + row + (uint64_t)r] = sums[r][b];
            }
        }
    }
}

/* n_rows: how many a warp takes at a time, of which all multiply the same numbers. */
template <int size, int bytes, class Type, class Of, int n_rows, int most>
V_FN void multiply(const uint8_t *blocks, const typename Of::element *x, float *y, uint64_t rows, uint64_t width,
                   uint64_t vectors)
{
    __shared__ Staged<bytes * (MATVEC_CHUNK / size), Type::SUB> staged[MATVEC_WARPS][n_rows];
    const uint64_t parts = (rows + n_rows - 1) / n_rows, groups = (vectors + most - 1) / most;
    const uint64_t step = cta_count() * MATVEC_WARPS;
    const uint32_t warp = threadIdx.x / WARP;
    const bool aligned = (((uintptr_t)blocks | width / size * bytes) & 15) == 0;
    for (uint64_t i = cta_index() * MATVEC_WARPS + warp; i < parts * groups; i += step) {
        const uint64_t first = i / parts * most, row = i % parts * n_rows;
        if (aligned) {
            multiply_rows<size, bytes, Type, Of, n_rows, most, true>(blocks, x + first * width, y + first * rows, rows,
                                                                     width, vectors - first, row, staged[warp]);
        } else {
            multiply_rows<size, bytes, Type, Of, n_rows, most, false>(blocks, x + first * width, y + first * rows, rows,
                                                                      width, vectors - first, row, staged[warp]);
        }
    }
}

#endif

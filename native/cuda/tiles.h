/* Products on matrix units, which GPUs of compute capability 8.0 and more have for bfloat16: sixteen rows by eight
 * columns at a time, sixteen weights of each row by as many numbers of each column, summed up in float32.
 *
 * A CTA takes sixteen rows, and its warps take turns along them in chunks of 256 weights: a warp puts the bytes of a
 * chunk of all rows into shared memory, works out the scales, and makes pairs of bfloat16 of levels, which these hold
 * whole. A number of x is the sum of two (half floats) or three (float32) numbers of bfloat16, each in a column of its
 * own, so that products are exact; but of float32 below 2^-133 nothing is left, and of infinity NaN.
 *
 * Of 32 weights of a row a lane takes eight neighbouring ones, or, where a scale is of sixteen, four of each sixteen,
 * and numbers in the same order.
 *
 * A weight is d (y - middle) - m, see products.h: its row's sum is d times that of y x, less d middle + m times the sum
 * of x, which matrix units make by ones in the place of levels. The result is the same in every run: a warp adds up
 * along its chunks, then the warps' sums are added in order. */
#ifndef FORGE_CUDA_TILES_H
#define FORGE_CUDA_TILES_H

#include "matrix_units.h"

enum { TILE_ROWS = 16, TILE_COLUMNS = 8, TILE_CHUNK = 256, TILE_STEP = 32, TILE_WARPS = FORGE_MATVEC_THREADS / WARP };

/* Bytes from one row's chunk to the next in shared memory: room to begin at any address, and such that what the lanes
 * of a warp read lies in different banks. */
constexpr int slot_of(int bytes, int sub)
{
    int slot = (bytes + 15 + 15) / 16 * 16;
    while (sub == 32 ? slot % 64 != 32 : slot % 32 != 16) {
        slot += 16;
    }
    return slot;
}

/* A CTA's shared memory, and how the vectors of a kernel, `most` at a time, divide into tiles. */
template <int size, int bytes, class Type, class Of, int most> struct TileMemory {
    enum {
        CHUNK_BYTES = TILE_CHUNK / size * bytes,
        SLOT = slot_of(CHUNK_BYTES, Type::SUB),
        SCALES = TILE_CHUNK / Type::SUB,
        ROOM = TILE_COLUMNS / Of::COLUMNS,
        VECTORS = ROOM < most ? ROOM : most, /* of a tile */
        ACROSS = (most + VECTORS - 1) / VECTORS,
    };
    struct Warp {
        alignas(16) uint8_t blocks[TILE_ROWS * SLOT + 16]; /* behind the last row for word_at */
        alignas(16) Scale scales[TILE_ROWS][SCALES + 2];   /* of each row two more, for the banks */
        alignas(16) uint16_t numbers[VECTORS * Of::PIECES + 1][TILE_CHUNK + 32]; /* the last: of columns without any */
    } warps[TILE_WARPS];
    float sums[TILE_WARPS][TILE_ROWS][TILE_COLUMNS];
};

/* The product of 16 rows of a matrix with vectors of numbers. aligned: rows begin on boundaries of 16 bytes. */
template <int size, int bytes, class Type, class Of, int most, bool aligned> struct Tile {
    typedef TileMemory<size, bytes, Type, Of, most> Memory;
    typedef typename Memory::Warp Warp;
    enum {
        CHUNK_BYTES = Memory::CHUNK_BYTES,
        SLOT = Memory::SLOT,
        SCALES = Memory::SCALES,
        VECTORS = Memory::VECTORS,
        ACROSS = Memory::ACROSS,
        STRAIGHT = aligned && CHUNK_BYTES % 16 == 0, /* and so do all chunks */
        WHOLE = aligned && bytes % 8 == 0,
        SIXTEENS = STRAIGHT ? CHUNK_BYTES / 16 : (CHUNK_BYTES + 15 + 15) / 16, /* of a row's chunk */
        /* A load of a warp is as many of them of as many rows: most of a row's by some loads, the rest by others. */
        MOST = SIXTEENS < 16 ? 8 : 16,
        REST = SIXTEENS - MOST < 2 ? 1 : SIXTEENS - MOST < 3 ? 2 : SIXTEENS - MOST < 5 ? 4 : 8,
        LOADS_OF_MOST = TILE_ROWS * MOST / WARP,
        LOADS = LOADS_OF_MOST + (TILE_ROWS * REST + WARP - 1) / WARP,
    };
    static_assert((int)Type::SUB == 32 || (int)Type::SUB == 16, "one scale or two a step");

    const uint8_t *blocks, *end;
    const typename Of::element *x;
    uint64_t rows, width, row_bytes, first; /* first: of the tile's rows */
    int vectors;
    Memory *shared;

    V_MEMBER const uint8_t *row(uint32_t r) const { return blocks + (first + r) * row_bytes; }

    V_MEMBER uint64_t offset_of(uint64_t at) const { return at / TILE_CHUNK * CHUNK_BYTES; }

    /* How far behind a boundary of 16 the chunk of row r begins. */
    V_MEMBER uint32_t past(uint32_t r, uint64_t at) const
    {
        const uint32_t start = (uint32_t)(uintptr_t)blocks + ((uint32_t)first + r) * (uint32_t)row_bytes;
        return STRAIGHT ? 0 : ((aligned ? 0 : start) + (uint32_t)offset_of(at)) & 15;
    }

    /* The bytes of row r in shared memory. */
    V_MEMBER const uint8_t *bytes_of_row(const Warp *held, uint32_t r, uint64_t at) const
    {
        enum { BOUNDARY = !aligned || CHUNK_BYTES % 2 ? 1 : CHUNK_BYTES % 4 ? 2 : CHUNK_BYTES % 8 ? 4 : 8 };
        return (const uint8_t *)__builtin_assume_aligned(held->blocks + r * SLOT + past(r, at), BOUNDARY);
    }

    /* 16 bytes on their boundary, of which those that are the matrix's are read. */
    V_MEMBER Sixteen sixteen_at(const uint8_t *p) const
    {
        if (aligned || (p >= blocks && p + 16 <= end)) {
            return *(const Sixteen *)p;
        }
        Sixteen found = {{0, 0, 0, 0}};
#pragma unroll 1
        for (int k = 15; k >= 0; k--) {
            const uint32_t byte = p + k >= blocks && p + k < end ? p[k] : 0;
            for (int word = 3; word > 0; word--) {
                found.at[word] = found.at[word] << 8 | found.at[word - 1] >> 24;
            }
            found.at[0] = found.at[0] << 8 | byte;
        }
        return found;
    }

    V_MEMBER uint32_t weights_of(uint64_t at) const
    {
        return size < TILE_CHUNK && width - at < TILE_CHUNK ? (uint32_t)(width - at) : (uint32_t)TILE_CHUNK;
    }

    struct Numbers {
        Sixteen words[most][Of::WORDS];
    };

    /* A chunk on its way from memory: of the blocks, and of each vector eight numbers a lane. */
    struct Fetched {
        Sixteen blocks[LOADS];
        Numbers numbers;
    };

    /* Of a load, this lane's row and which of its sixteens; says whether there are such. */
    V_MEMBER bool place_of_load(uint32_t k, uint32_t *r, uint32_t *sixteen) const
    {
        const bool main = k < LOADS_OF_MOST;
        const uint32_t many = main ? MOST : REST;
        *r = (main ? k : k - LOADS_OF_MOST) * (WARP / many) + lane_of_warp() / many;
        *sixteen = (main ? 0 : MOST) + lane_of_warp() % many;
        return *r < TILE_ROWS && first + *r < rows && (MOST + REST == SIXTEENS || *sixteen < SIXTEENS);
    }

    V_MEMBER void fetch(Fetched *f, uint64_t at) const
    {
        const uint32_t lane = lane_of_warp(), n = weights_of(at);
#pragma unroll
        for (uint32_t k = 0; k < LOADS; k++) {
            uint32_t r, sixteen;
            if (place_of_load(k, &r, &sixteen)) {
                const uint32_t before = past(r, at);
                if (sixteen * 16 < before + n / size * bytes) {
                    f->blocks[k] = sixteen_at(row(r) + offset_of(at) - before + sixteen * 16);
                }
            }
        }
#pragma unroll
        for (int v = 0; v < most; v++) {
            const Sixteen *from = (const Sixteen *)(x + (uint64_t)v * width + at + lane * 8);
            for (int k = 0; k < Of::WORDS; k++) {
                f->numbers.words[v][k] = lane * 8 < n && v < vectors ? from[k] : Sixteen{{0, 0, 0, 0}};
            }
        }
    }

    V_MEMBER void put_blocks(const Fetched *f, Warp *to) const
    {
#pragma unroll
        for (uint32_t k = 0; k < LOADS; k++) {
            uint32_t r, sixteen;
            if (place_of_load(k, &r, &sixteen)) {
                *(Sixteen *)(to->blocks + r * SLOT + sixteen * 16) = f->blocks[k];
            }
        }
    }

    /* Each number as the sum of numbers of bfloat16, what is left over going to the next. */
    V_MEMBER void put_numbers(const Numbers &f, int tile, Warp *to) const
    {
#pragma unroll
        for (int v = 0; v < VECTORS; v++) {
            float left[8];
            for (int i = 0; i < 8; i++) {
                left[i] = tile * VECTORS + v < most ? Of::number(f.words[tile * VECTORS + v], i) : 0.f;
            }
            for (int piece = 0; piece < Of::PIECES; piece++) {
                Sixteen upper;
                for (int i = 0; i < 8; i += 2) {
                    const bool mixed = (int)Type::STANDS == LOOKED_UP;
                    const int a = mixed ? place_of(i) : i, b = mixed ? place_of(i + 1) : i + 1;
                    upper.at[i / 2] = chosen(f32_to_bits(left[a]), f32_to_bits(left[b]), 0x7632u);
                }
                *(Sixteen *)(to->numbers[v * Of::PIECES + piece] + lane_of_warp() * 8) = upper;
                for (int i = 0; i < 8; i++) {
                    left[i] -= bits_to_f32(f32_to_bits(left[i]) & 0xffff0000u);
                }
            }
        }
    }

    /* Those of all rows, spread over the lanes: d, and what the sum of x is to be multiplied by. */
    V_MEMBER void put_scales(uint64_t at, Warp *to) const
    {
        enum { TIMES = SCALES / Type::AT_ONCE, BLOCK = size / Type::SUB };
        static_assert(TILE_ROWS * TIMES % WARP == 0, "no lane is idle");
        const uint32_t n = weights_of(at);
#pragma unroll
        for (uint32_t k = 0; k < TILE_ROWS * TIMES; k += WARP) {
            const uint32_t r = (lane_of_warp() + k) / TIMES, j = (lane_of_warp() + k) % TIMES * Type::AT_ONCE;
            Scale some[Type::AT_ONCE];
            if (j * Type::SUB < n) {
                Type::scales(bytes_of_row(to, r, at) + j / BLOCK * bytes, (int)(j % BLOCK), some);
            }
            for (int i = 0; i < Type::AT_ONCE; i++) {
                const Scale less = {some[i].d, fmaf(some[i].d, -Type::middle(), -some[i].m)};
                to->scales[r][j + (uint32_t)i] = j * Type::SUB < n ? less : Scale{0.f, 0.f};
            }
        }
    }

    struct alignas(16) Scales {
        Scale at[2];
    };

    template <bool sums_of_x>
    V_MEMBER static void add(float *sums, Scale upper, Scale lower, const float *c, const float *of_x)
    {
        for (int j = 0; j < 4; j++) {
            const Scale s = j < 2 ? upper : lower;
            sums[j] = fmaf(s.d, c[j], sums[j]);
            if (sums_of_x) {
                sums[j] = fmaf(s.m, of_x[j], sums[j]);
            }
        }
    }

    /* The chunk of 16 rows by the columns of a tile. Behind a row's end numbers and scales are 0. */
    V_MEMBER void multiply(const Warp *held, uint64_t at, int tile, float *sums) const
    {
        enum { SUMS_OF_X = Type::LESS || (int)Type::STANDS == OF_HALF, TWO_SCALES = (int)Type::SUB == TILE_STEP / 2 };
        const uint32_t lane = lane_of_warp(), r = lane / 4, t = lane % 4;
        const uint32_t vector = r / Of::COLUMNS, piece = r % Of::COLUMNS;
        const bool used = piece < Of::PIECES && vector < VECTORS && tile * VECTORS + (int)vector < vectors;
        const uint16_t *numbers = held->numbers[used ? vector * Of::PIECES + piece : VECTORS * Of::PIECES];
        const uint8_t *upper = bytes_of_row(held, r, at), *lower = bytes_of_row(held, r + 8, at);
        const uint32_t ones[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
        const uint32_t mine = TWO_SCALES ? 4 * t : 8 * t, apart = TWO_SCALES ? 16 : 4;
        Scales of_upper, of_lower;
#pragma unroll
        for (uint32_t i = 0; i < TILE_CHUNK; i += TILE_STEP) {
            const uint32_t block = i / size * bytes;
            uint32_t high[2][2], low[2][2], a[2][4];
            pairs_at<Type, WHOLE>(upper + block, (int)(i % size + mine), (int)apart, high);
            pairs_at<Type, WHOLE>(lower + block, (int)(i % size + mine), (int)apart, low);
            for (int k = 0; k < 2; k++) {
                a[k][0] = high[k][0];
                a[k][1] = low[k][0];
                a[k][2] = high[k][1];
                a[k][3] = low[k][1];
            }
            const Eight former = *(const Eight *)(numbers + i + mine);
            const Eight latter = *(const Eight *)(numbers + i + mine + apart);
            if (TWO_SCALES || i % (2 * TILE_STEP) == 0) {
                of_upper = *(const Scales *)&held->scales[r][i / Type::SUB];
                of_lower = *(const Scales *)&held->scales[r + 8][i / Type::SUB];
            }
            float c[4], of_x[4];
            multiply_tile<false>(c, a[0], former.at);
            if (SUMS_OF_X) {
                multiply_tile<false>(of_x, ones, former.at);
            }
            if (TWO_SCALES) {
                add<SUMS_OF_X>(sums, of_upper.at[0], of_lower.at[0], c, of_x);
            }
            multiply_tile<!TWO_SCALES>(c, a[1], latter.at);
            if (SUMS_OF_X) {
                multiply_tile<!TWO_SCALES>(of_x, ones, latter.at);
            }
            const uint32_t which = TWO_SCALES ? 1 : i / TILE_STEP % 2;
            add<SUMS_OF_X>(sums, of_upper.at[which], of_lower.at[which], c, of_x);
        }
    }

    /* What the warps have of a tile, added up and written. */
    V_MEMBER void finish(const float *sums, int tile, float *y) const
    {
        const uint32_t lane = lane_of_warp(), r = threadIdx.x / TILE_COLUMNS, column = threadIdx.x % TILE_COLUMNS;
        for (uint32_t j = 0; j < 4; j++) {
            shared->sums[threadIdx.x / WARP][lane / 4 + j / 2 * 8][lane % 4 * 2 + j % 2] = sums[j];
        }
        __syncthreads();
        float sum = shared->sums[0][r][column];
        for (int k = 1; k < TILE_WARPS; k++) {
            sum += shared->sums[k][r][column];
        }
        for (int apart = 1; apart < Of::COLUMNS; apart *= 2) {
            sum += __shfl_xor_sync(0xffffffffu, sum, apart);
        }
        const int vector = tile * VECTORS + (int)column / Of::COLUMNS;
        if (column % Of::COLUMNS == 0 && (int)column / Of::COLUMNS < VECTORS && vector < vectors && first + r < rows) {
            y[(uint64_t)vector * rows + first + r] = sum;
        }
        __syncthreads();
    }

    V_MEMBER void run(float *y) const
    {
        static_assert(FORGE_MATVEC_THREADS == TILE_ROWS * TILE_COLUMNS, "a thread finishes one sum of a tile");
        static_assert((int)TILE_ROWS == FORGE_MATVEC_ROWS, "a CTA's rows are a tile's");
        Warp *held = shared->warps + threadIdx.x / WARP;
        float sums[ACROSS][4];
        for (int tile = 0; tile < ACROSS; tile++) {
            for (int j = 0; j < 4; j++) {
                sums[tile][j] = 0.f;
            }
        }
        const uint64_t step = (uint64_t)TILE_CHUNK * TILE_WARPS;
        uint64_t at = (uint64_t)(threadIdx.x / WARP) * TILE_CHUNK;
        *(Sixteen *)(held->numbers[VECTORS * Of::PIECES] + lane_of_warp() * 8) = Sixteen{{0, 0, 0, 0}};
        Fetched fetched;
        if (at < width) {
            fetch(&fetched, at);
        }
        for (; at < width; at += step) {
            put_blocks(&fetched, held);
            put_numbers(fetched.numbers, 0, held);
            const Numbers others = fetched.numbers;
            if (at + step < width) { /* what comes next is on its way while this is multiplied */
                fetch(&fetched, at + step);
            }
            __syncwarp();
            put_scales(at, held);
            __syncwarp();
#pragma unroll
            for (int tile = 0; tile < ACROSS; tile++) {
                if (tile > 0) {
                    put_numbers(others, tile, held);
                    __syncwarp();
                }
                multiply(held, at, tile, sums[tile]);
                __syncwarp();
            }
        }
        for (int tile = 0; tile < ACROSS; tile++) {
            finish(sums[tile], tile, y);
        }
    }
};

/* All tiles that are this CTA's, for `most` vectors at a time. */
template <int most, class OfTile, class Element>
V_FN void multiply_all(const uint8_t *blocks, const Element *x, float *y, uint64_t rows, uint64_t width,
                       uint64_t row_bytes, uint64_t vectors, typename OfTile::Memory *shared)
{
    const uint64_t tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, groups = (vectors + most - 1) / most;
    for (uint64_t i = cta_index(); i < tiles * groups; i += cta_count()) {
        const uint64_t group = i / tiles * most;
        const int some = vectors - group < most ? (int)(vectors - group) : most;
        const uint64_t row = i % tiles * TILE_ROWS;
        const OfTile tile = {blocks, blocks + rows * row_bytes, x + group * width, rows, width, row_bytes, row,
                             some,   shared};
        tile.run(y + group * rows);
    }
}

template <int size, int bytes, class Type, class Of, int most>
V_FN void multiply_tiles(const uint8_t *blocks, const typename Of::element *x, float *y, uint64_t rows, uint64_t width,
                         uint64_t vectors)
{
    typedef Tile<size, bytes, Type, Of, most, true> Aligned;
    typedef Tile<size, bytes, Type, Of, most, false> Other;
    __shared__ TileMemory<size, bytes, Type, Of, most> shared;
    const uint64_t row_bytes = width / size * bytes;
    if ((((uintptr_t)blocks | row_bytes) & 15) == 0) {
        multiply_all<most, Aligned>(blocks, x, y, rows, width, row_bytes, vectors, &shared);
    } else {
        multiply_all<most, Other>(blocks, x, y, rows, width, row_bytes, vectors, &shared);
    }
}

#endif

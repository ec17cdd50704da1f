/* What the decoders of lattice types share: points by their indices, signs, and scales of sub-blocks. */
#ifndef FORGE_SIGNED_GRID_H
#define FORGE_SIGNED_GRID_H

#include "lattice.h"

/* 2 s + 1, the scale of a sub-block but for a power of two. */
static const float signed_grid_odd[16] = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};

/* Where indices are put together of several fields, a whole superblock's are, in vectors; so are its scales. */
typedef struct {
    uint16_t index[64]; /* a point: eight weights in IQ1 and IQ2, four in IQ3 */
    uint8_t shifts[16]; /* in IQ1_M: which of iq1_shifts */
    float scale[16];
} grid_parts;

enum { GRID_AHEAD = 4 }; /* superblocks whose parts are written before the first are read */

typedef void grid_reader(grid_parts *, const void *block);
typedef void grid_writer(const grid_parts *, const void *block, float *y);

V_FN void grid_decode(grid_reader *read, grid_writer *write, size_t block_bytes, const uint8_t *in, float *y,
                      int64_t blocks)
{
    grid_parts parts[GRID_AHEAD];
    for (int64_t b = 0; b < blocks; b += GRID_AHEAD) {
        const size_t n = blocks - b < GRID_AHEAD ? (size_t)(blocks - b) : GRID_AHEAD;
        for (size_t i = 0; i < n; i++) {
            read(parts + i, in + i * block_bytes);
        }
        for (size_t i = 0; i < n; i++, in += block_bytes, y += 256) {
            write(parts + i, in, y);
        }
    }
}

/* 16 indices from their low and high bytes. */
V_FN void grid_indices(uint16_t *index, VB low, VB high)
{
    vb_store((uint8_t *)index, vb_zip(low, high, 0));
    vb_store((uint8_t *)(index + 8), vb_zip(low, high, 1));
}

/* d (2 s + 1) for 16 bytes s. */
V_FN void grid_scales(float scale[16], VB s, float d)
{
    for (int i = 0; i < 16 / VN; i++) {
        VI odd = vi_add(vi_shl(vb_widen(s, i), 1), vi_set1(1));
        vf_store(scale + i * VN, vf_mul(vf_set1(d), vi_to_f(odd)));
    }
}

/* The nibbles of up to eight bytes, low ones first. */
V_FN VB grid_nibbles(uint64_t bytes)
{
    const VB b = vb_set(bytes, 0);
    return vb_zip(vb_field(b, 0, 15), vb_field(b, 4, 15), 0);
}

/* 16 weights from two points of eight and a bit of sign each. */
V_FN void grid_eights(const uint64_t *a, const uint64_t *b, uint32_t minus, float scale, float *y)
{
    for (int i = 0; i < 16; i += VN) {
        VF v = vf_negate_bits(vi_to_f(vi_eights(a, b, i)), minus, i);
        vf_store(y + i, vf_mul(vf_set1(scale), v));
    }
}

/* 16 weights from four points of four; the first's sign is bit `at` of minus. */
V_FN void grid_fours(const float (*grid)[4], const uint16_t index[4], uint32_t minus, int at, float scale, float *y)
{
    for (int i = 0; i < 16; i += VN) {
        VF v = vf_negate_bits(vf_fours(grid, index, i), minus, at + i);
        vf_store(y + i, vf_mul(vf_set1(scale), v));
    }
}

/* Four times seven signs to 28 bits. */
static inline uint32_t signed_grid_sevens(const uint8_t signs[4])
{
    return (uint32_t)signs[0] | (uint32_t)signs[1] << 7 | (uint32_t)signs[2] << 14 | (uint32_t)signs[3] << 21;
}

/* And back, in each half of a word: four bytes, with eighth signs that make the number of each even. */
static inline uint64_t signed_grid_eights(uint64_t sevens)
{
    sevens = (sevens & 0x00003fff00003fffu) | (sevens << 2 & 0x3fff00003fff0000u);
    sevens = (sevens & 0x007f007f007f007fu) | (sevens << 1 & 0x7f007f007f007f00u);
    uint64_t odd = sevens ^ sevens >> 4;
    odd ^= odd >> 2;
    odd ^= odd >> 1;
    return sevens | (odd & 0x0101010101010101u) << 7;
}

#endif

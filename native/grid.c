/* Weights on a grid that is given: codes out of the words they are packed in, and blocks out of codes and scales.
 *
 * Nothing is searched for and no float is calculated with, so that one text serves every instruction set. */
#include "forge.h"
#include <stddef.h>

enum { LANE = 16 }; /* columns of words taken together: a cache line of each row */

int forge_fields(const uint8_t *packed, int64_t bytes, int bits, uint8_t *fields)
{
    if (bits == 4) {
        for (int64_t i = 0; i < bytes; i++) {
            fields[2 * i] = packed[i] & 15;
            fields[2 * i + 1] = packed[i] >> 4;
        }
    } else if (bits == 2) {
        for (int64_t i = 0; i < bytes; i++) {
            for (int k = 0; k < 4; k++) {
                fields[4 * i + k] = packed[i] >> 2 * k & 3;
            }
        }
    } else if (bits == 1) {
        for (int64_t i = 0; i < bytes; i++) {
            for (int k = 0; k < 8; k++) {
                fields[8 * i + k] = packed[i] >> k & 1;
            }
        }
    } else {
        return FORGE_E_WIDTH;
    }
    return FORGE_OK;
}

/* The eight nibbles of a word as bytes, the lowest first in the lowest byte. */
static inline uint64_t nibbles(uint32_t word)
{
    uint64_t a = word;
    a = (a | a << 16) & 0x0000ffff0000ffffu;
    a = (a | a << 8) & 0x00ff00ff00ff00ffu;
    return (a | a << 4) & 0x0f0f0f0f0f0f0f0fu;
}

static inline void store_bytes(uint8_t *out, uint64_t bytes)
{
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(bytes >> 8 * i);
    }
}

int forge_fields_down(const uint32_t *words, int64_t height, int64_t stride, int64_t width, int bits, uint8_t *fields)
{
    if (bits != 4 && bits != 8) {
        return FORGE_E_WIDTH;
    }
    const int per = 32 / bits;
    for (int64_t first = 0; first < width; first += LANE) {
        const int64_t last = first + LANE < width ? first + LANE : width;
        for (int64_t k = 0; k < height; k++) {
            const uint32_t *row = words + k * stride;
            uint8_t *out = fields + k * per;
            for (int64_t m = first; m < last; m++) {
                uint8_t *at = out + m * height * per;
                if (bits == 4) {
                    store_bytes(at, nibbles(row[m]));
                } else {
                    for (int i = 0; i < 4; i++) {
                        at[i] = (uint8_t)(row[m] >> 8 * i);
                    }
                }
            }
        }
    }
    return FORGE_OK;
}

/* Rows and columns of an 8 x 8 matrix of bytes exchanged; a word is a row. */
static inline void turn(uint64_t a[8])
{
    for (int i = 0; i < 8; i += 2) { /* 1 x 1 within 2 x 2 */
        uint64_t t = (a[i] >> 8 ^ a[i + 1]) & 0x00ff00ff00ff00ffu;
        a[i + 1] ^= t;
        a[i] ^= t << 8;
    }
    for (int i = 0; i < 8; i += 4) { /* 2 x 2 within 4 x 4 */
        for (int j = i; j < i + 2; j++) {
            uint64_t t = (a[j] >> 16 ^ a[j + 2]) & 0x0000ffff0000ffffu;
            a[j + 2] ^= t;
            a[j] ^= t << 16;
        }
    }
    for (int j = 0; j < 4; j++) { /* 4 x 4 within 8 x 8 */
        uint64_t t = (a[j] >> 32 ^ a[j + 4]) & 0x00000000ffffffffu;
        a[j + 4] ^= t;
        a[j] ^= t << 32;
    }
}

int forge_fields_across(const uint32_t *words, int64_t height, int64_t stride, int64_t width, const uint8_t *order,
                        uint8_t *fields)
{
    for (int64_t c = 0; c < width; c++) {
        uint8_t *out = fields + 8 * c * height;
        int64_t k = 0;
        for (; k + 8 <= height; k += 8) {
            uint64_t a[8];
            for (int i = 0; i < 8; i++) {
                a[i] = nibbles(words[(k + i) * stride + c]);
            }
            turn(a);
            for (int i = 0; i < 8; i++) {
                store_bytes(out + i * height + k, a[order[i]]);
            }
        }
        for (; k < height; k++) {
            for (int i = 0; i < 8; i++) {
                out[i * height + k] = words[k * stride + c] >> 4 * order[i] & 15;
            }
        }
    }
    return FORGE_OK;
}

void forge_table_values(const uint8_t *codes, int64_t rows, int64_t width, int64_t group, const float *table,
                        const float *scales, float *values)
{
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t first = 0; first < width; first += group) {
            const int64_t n = width - first < group ? width - first : group;
            const float scale = *scales++;
            for (int64_t i = 0; i < n; i++) {
                values[i] = table[codes[i]] * scale;
            }
            codes += n;
            values += n;
        }
    }
}

/* Fields of 32 codes: each code less a zero, its sign changed or not, plus what the type counts from; modulo 256. */
static inline void to_fields(const uint8_t *codes, uint8_t add, int flip, uint8_t *fields)
{
    if (flip) {
        for (int i = 0; i < 32; i++) {
            fields[i] = (uint8_t)(add - codes[i]);
        }
    } else {
        for (int i = 0; i < 32; i++) {
            fields[i] = (uint8_t)(codes[i] + add);
        }
    }
}

static inline uint8_t *store_half(uint8_t *out, uint16_t half)
{
    out[0] = (uint8_t)half;
    out[1] = (uint8_t)(half >> 8);
    return out + 2;
}

static inline uint8_t *store_nibbles(uint8_t *out, const uint8_t *fields)
{
    for (int i = 0; i < 16; i++) {
        out[i] = (uint8_t)((fields[i] & 15) | fields[i + 16] << 4);
    }
    return out + 16;
}

static inline uint8_t *store_fifth_bits(uint8_t *out, const uint8_t *fields)
{
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) {
        bits |= (uint32_t)(fields[i] >> 4 & 1) << i;
    }
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(bits >> 8 * i);
    }
    return out + 4;
}

/* What each type's fields count from, whether it has minima, and whether a fifth bit. */
typedef struct {
    int type;
    uint8_t from;
    int minima, fifth;
} layout;

static const layout layouts[] = {{2, 8, 0, 0}, {3, 0, 1, 0}, {6, 16, 0, 1}, {7, 0, 1, 1}, {8, 0, 0, 0}};

int forge_grid_blocks(int type, const uint8_t *codes, int64_t rows, int64_t width, int64_t group, const int16_t *zeros,
                      int flip, const uint16_t *scales, const uint16_t *minima, uint8_t *blocks)
{
    const layout *l = NULL;
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        l = layouts[i].type == type ? &layouts[i] : l;
    }
    if (!l || l->minima != (minima != NULL)) {
        return FORGE_E_TYPE;
    }
    if (group <= 0 || group % 32 || width % group) {
        return FORGE_E_WIDTH;
    }
    const int64_t groups = rows * (width / group), per = group / 32;
    for (int64_t g = 0; g < groups; g++) {
        const int zero = zeros ? zeros[g] : 0;
        const uint8_t add = (uint8_t)(l->from + (flip ? zero : -zero));
        for (int64_t b = 0; b < per; b++, codes += 32) {
            uint8_t fields[32];
            to_fields(codes, add, flip, fields);
            blocks = store_half(blocks, scales[g]);
            if (l->minima) {
                blocks = store_half(blocks, minima[g]);
            }
            if (l->fifth) {
                blocks = store_fifth_bits(blocks, fields);
            }
            if (type == 8) {
                for (int i = 0; i < 32; i++) {
                    blocks[i] = fields[i];
                }
                blocks += 32;
            } else {
                blocks = store_nibbles(blocks, fields);
            }
        }
    }
    return FORGE_OK;
}

/* Decoders for threads that make four weights at a time: what GPUs want in place of the codecs' own, which make whole
 * blocks in order. The layouts are drawn in the codecs' files; so is what each number means, and the tests hold every
 * weight to what the codec makes of the same block. For each type:
 *
 *   <type>_SUB                       how many weights share a scale
 *   <type>_scale(block, j)           the scale of the j-th of these in a block, and what is taken away
 *   <type>_four(block, at, s, table, y)      weights at .. at + 3 of a block, at a multiple of 4, under their scale
 *
 * Blocks lie in shared memory as word_at asks, which reads a field's words. */
#ifndef FORGE_CUDA_FOURS_H
#define FORGE_CUDA_FOURS_H

#include "device.h"

typedef struct alignas(8) {
    float d, m;
} Scale;

V_FN float half_at(const uint8_t *p) { return half_value(load_u16(p)); }

/* Four of eight bytes, those of `low` and then of `high`, as the lowest three bits of each nibble of `which` say. */
V_FN uint32_t chosen(uint32_t low, uint32_t high, uint32_t which)
{
#ifdef __CUDA_ARCH__
    return __byte_perm(low, high, which);
#else
    const uint64_t both = low | (uint64_t)high << 32;
    uint32_t found = 0;
    for (int k = 0; k < 4; k++) {
        found |= (uint32_t)(both >> (which >> 4 * k & 7) * 8 & 255) << 8 * k;
    }
    return found;
#endif
}

/* Byte k of a word less a whole number, as a float: exact, and quicker than a conversion. */
V_FN float byte_less(uint32_t word, int k, int less)
{
    return bits_to_f32(chosen(word, 0x4b000000u, 0x7440u + (uint32_t)k)) - (float)(8388608 + less); /* 2^23 + byte */
}

/* y = (level - low) d */
V_FN void scaled(float *y, uint32_t levels, int low, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = byte_less(levels, k, low) * d;
    }
}

/* y = level d + m */
V_FN void scaled_plus(float *y, uint32_t levels, Scale s)
{
    for (int k = 0; k < 4; k++) {
        y[k] = byte_less(levels, k, 0) * s.d + s.m;
    }
}

/* y = level d - m */
V_FN void scaled_less(float *y, uint32_t levels, Scale s)
{
    for (int k = 0; k < 4; k++) {
        y[k] = byte_less(levels, k, 0) * s.d - s.m;
    }
}

V_FN void scaled_signed(float *y, uint32_t bytes, float d) { scaled(y, bytes ^ 0x80808080u, 128, d); }

V_FN void looked_up(float *y, uint32_t indices, const float *table, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = table[indices >> 8 * k & 15] * d;
    }
}

/* -f where bit k of minus is set. */
V_FN float negated(float f, uint32_t minus, int k)
{
    return bits_to_f32(f32_to_bits(f) ^ (minus << (31 - k) & 0x80000000u));
}

/* Bytes i & 15 and on of 16, their low nibbles where i < 16, else the high ones. */
V_FN uint32_t nibbles_at(const uint8_t *q, int i) { return word_at(q, i & 15) >> (i & 16 ? 4 : 0) & 0x0f0f0f0fu; }

V_FN uint32_t nibbles_in(const uint8_t *q, int i) { return word_in(q, i & 15) >> (i & 16 ? 4 : 0) & 0x0f0f0f0fu; }

/* Bits 0 .. 3 of `bits`, each as bit `to` of a byte. */
V_FN uint32_t bits_to_bytes(uint32_t bits, int to) { return ((bits & 15) * 0x00204081u & 0x01010101u) << to; }

/* The heads of the functions below. */
#define SCALE(type) V_FN Scale type##_scale(const uint8_t *block, int j)
#define WEIGHTS(type) V_FN void type##_four(const uint8_t *block, int at, Scale s, const float *table, float *y)
#define SCALE_OF_ALL(type, d) \
    SCALE(type)               \
    {                         \
        (void)j;              \
        return Scale{d, 0.f}; \
    }

/* ------------------------------------------------------------------ blocks of one scale */

enum { q4_0_SUB = 32, q4_1_SUB = 32, q5_0_SUB = 32, q5_1_SUB = 32, q8_0_SUB = 32, q8_1_SUB = 32, q8_k_SUB = 256 };

SCALE_OF_ALL(q4_0, half_at(((const block_q4_0 *)block)->d))
WEIGHTS(q4_0)
{
    (void)table;
    scaled(y, nibbles_at(((const block_q4_0 *)block)->q, at), 8, s.d);
}

SCALE(q4_1)
{
    const block_q4_1 *x = (const block_q4_1 *)block;
    (void)j;
    return Scale{half_at(x->d), half_at(x->m)};
}
WEIGHTS(q4_1)
{
    (void)table;
    scaled_plus(y, nibbles_in(((const block_q4_1 *)block)->q, at), s);
}

SCALE_OF_ALL(q5_0, half_at(((const block_q5_0 *)block)->d))
WEIGHTS(q5_0)
{
    const block_q5_0 *x = (const block_q5_0 *)block;
    (void)table;
    scaled(y, nibbles_at(x->q, at) | bits_to_bytes(x->h[at / 8] >> (at & 4), 4), 16, s.d);
}

SCALE(q5_1)
{
    const block_q5_1 *x = (const block_q5_1 *)block;
    (void)j;
    return Scale{half_at(x->d), half_at(x->m)};
}
WEIGHTS(q5_1)
{
    const block_q5_1 *x = (const block_q5_1 *)block;
    (void)table;
    scaled_plus(y, nibbles_in(x->q, at) | bits_to_bytes(x->h[at / 8] >> (at & 4), 4), s);
}

SCALE_OF_ALL(q8_0, half_at(((const block_q8_0 *)block)->d))
WEIGHTS(q8_0)
{
    (void)table;
    scaled_signed(y, word_at(((const block_q8_0 *)block)->q, at), s.d);
}

SCALE_OF_ALL(q8_1, half_at(((const q8_1_block *)block)->d))
WEIGHTS(q8_1)
{
    (void)table;
    scaled_signed(y, word_in(((const q8_1_block *)block)->qs, at), s.d);
}

SCALE_OF_ALL(q8_k, bits_to_f32(load_u32(((const q8_k_block *)block)->d)))
WEIGHTS(q8_k)
{
    (void)table;
    scaled_signed(y, word_in(((const q8_k_block *)block)->qs, at), s.d);
}

enum { iq4_nl_SUB = 32, mxfp4_SUB = 32, nvfp4_SUB = 16 };

SCALE_OF_ALL(iq4_nl, half_at(((const iq4_nl_block *)block)->d))
WEIGHTS(iq4_nl) { looked_up(y, nibbles_at(((const iq4_nl_block *)block)->qs, at), table, s.d); }

SCALE_OF_ALL(mxfp4, mxfp4_scale(((const mxfp4_block *)block)->e))
WEIGHTS(mxfp4) { looked_up(y, nibbles_at(((const mxfp4_block *)block)->qs, at), table, s.d); }

SCALE(nvfp4) { return Scale{nvfp4_scale(((const nvfp4_block *)block)->d[j]), 0.f}; }
WEIGHTS(nvfp4)
{
    const uint32_t both = word_in(((const nvfp4_block *)block)->qs, at / 16 * 8 + (at & 7));
    looked_up(y, both >> (at & 8 ? 4 : 0), table, s.d);
}

enum { q1_0_SUB = 128, q2_0_SUB = 64, tq1_0_SUB = 256, tq2_0_SUB = 256 };

SCALE_OF_ALL(q1_0, half_at(((const q1_0_block *)block)->d))
WEIGHTS(q1_0)
{
    const uint32_t minus = ~(uint32_t)((const q1_0_block *)block)->qs[at / 8] >> (at & 4);
    (void)table;
    for (int k = 0; k < 4; k++) {
        y[k] = negated(s.d, minus, k);
    }
}

SCALE_OF_ALL(q2_0, half_at(((const q2_0_block *)block)->d))
WEIGHTS(q2_0)
{
    const uint32_t bits = ((const q2_0_block *)block)->qs[at / 4];
    (void)table;
    scaled(y, (bits | bits << 6 | bits << 12 | bits << 18) & 0x03030303u, 1, s.d);
}

SCALE_OF_ALL(tq1_0, half_at(((const tq1_0_block *)block)->d))
WEIGHTS(tq1_0)
{
    const tq1_0_block *x = (const tq1_0_block *)block;
    const int first = at < 160 ? at : at < 240 ? at - 160 : at - 240, bits = at < 160 ? 5 : at < 240 ? 4 : 2;
    const uint8_t *q = at < 160 ? x->qs : at < 240 ? x->qs + 32 : x->qh;
    const uint32_t bytes = word_at(q, first & ((1 << bits) - 1));
    const uint32_t power = (uint32_t)(0x511b090301ull >> 8 * (first >> bits)) & 255; /* of three */
    const uint32_t low = 0x00ff00ffu, even = (bytes & low) * power & low, odd = (bytes >> 8 & low) * power & low;
    (void)table;
    scaled(y, (even * 3 >> 8 & low) | (odd * 3 & ~low), 1, s.d);
}

SCALE_OF_ALL(tq2_0, half_at(((const tq2_0_block *)block)->d))
WEIGHTS(tq2_0)
{
    const tq2_0_block *x = (const tq2_0_block *)block;
    (void)table;
    scaled(y, word_at(x->qs, at / 128 * 32 + at % 32) >> at / 32 % 4 * 2 & 0x03030303u, 1, s.d);
}

/* ------------------------------------------------------------------ superblocks */

enum { q2_k_SUB = 16, q3_k_SUB = 16, q4_k_SUB = 32, q5_k_SUB = 32, q6_k_SUB = 16, iq4_xs_SUB = 32 };

SCALE(q2_k)
{
    const block_q2_k *x = (const block_q2_k *)block;
    return Scale{half_at(x->d) * (float)(x->scales[j] & 15), half_at(x->dmin) * (float)(x->scales[j] >> 4)};
}
WEIGHTS(q2_k)
{
    const block_q2_k *x = (const block_q2_k *)block;
    (void)table;
    scaled_less(y, word_in(x->q, at / 128 * 32 + at % 32) >> at / 32 % 4 * 2 & 0x03030303u, s);
}

SCALE(q3_k)
{
    const block_q3_k *x = (const block_q3_k *)block;
    const int four = x->scales[j & 7] >> (j & 8 ? 4 : 0) & 15, two = x->scales[8 + (j & 3)] >> j / 4 * 2 & 3;
    return Scale{half_at(x->d) * (float)((four | two << 4) - 32), 0.f};
}
WEIGHTS(q3_k)
{
    const block_q3_k *x = (const block_q3_k *)block;
    const uint32_t low = word_at(x->q, at / 128 * 32 + at % 32) >> at / 32 % 4 * 2 & 0x03030303u;
    const uint32_t high = word_at(x->h, at % 32) >> at / 32 & 0x01010101u;
    (void)table;
    scaled(y, low | high << 2, 4, s.d);
}

SCALE(q4_k)
{
    const block_q4_k *x = (const block_q4_k *)block;
    int scale, min;
    six_bits_load(x->scales, j, &scale, &min);
    return Scale{half_at(x->d) * (float)scale, half_at(x->dmin) * (float)min};
}
WEIGHTS(q4_k)
{
    const block_q4_k *x = (const block_q4_k *)block;
    (void)table;
    scaled_less(y, word_in(x->q, at / 64 * 32 + at % 32) >> at / 32 % 2 * 4 & 0x0f0f0f0fu, s);
}

SCALE(q5_k)
{
    const block_q5_k *x = (const block_q5_k *)block;
    int scale, min;
    six_bits_load(x->scales, j, &scale, &min);
    return Scale{half_at(x->d) * (float)scale, half_at(x->dmin) * (float)min};
}
WEIGHTS(q5_k)
{
    const block_q5_k *x = (const block_q5_k *)block;
    const uint32_t low = word_in(x->q, at / 64 * 32 + at % 32) >> at / 32 % 2 * 4 & 0x0f0f0f0fu;
    const uint32_t high = word_in(x->h, at % 32) >> at / 32 & 0x01010101u;
    (void)table;
    scaled_less(y, low | high << 4, s);
}

SCALE(q6_k)
{
    const block_q6_k *x = (const block_q6_k *)block;
    return Scale{half_at(x->d) * (float)(int8_t)x->scales[j], 0.f};
}
WEIGHTS(q6_k)
{
    const block_q6_k *x = (const block_q6_k *)block;
    const int k = at / 32 % 4; /* which 32 of the 128 */
    const uint32_t low = word_at(x->low, at / 128 * 64 + k % 2 * 32 + at % 32) >> k / 2 * 4 & 0x0f0f0f0fu;
    const uint32_t high = word_at(x->high, at / 128 * 32 + at % 32) >> k * 2 & 0x03030303u;
    (void)table;
    scaled(y, low | high << 4, 32, s.d);
}

SCALE(iq4_xs)
{
    const iq4_xs_block *x = (const iq4_xs_block *)block;
    const int high = load_u16(x->high) >> 2 * j & 3, low = x->low[j / 2] >> 4 * (j % 2) & 15;
    return Scale{half_at(x->d) * (float)((high << 4 | low) - 32), 0.f};
}
WEIGHTS(iq4_xs)
{
    const uint32_t both = word_in(((const iq4_xs_block *)block)->qs, at / 32 * 16 + at % 16);
    looked_up(y, both >> (at & 16 ? 4 : 0), table, s.d);
}

/* ------------------------------------------------------------------ superblocks of lattice points */

enum { iq2_xxs_SUB = 32, iq2_xs_SUB = 16, iq2_s_SUB = 16, iq3_xxs_SUB = 32, iq3_s_SUB = 32 };
enum { iq1_s_SUB = 32, iq1_m_SUB = 16 };

V_FN float odd_of(uint32_t s) { return (float)(2 * (s & 15) + 1); }

/* Seven signs, and an eighth that makes their number even. */
V_FN uint32_t even_signs(uint32_t seven)
{
    seven &= 127;
#ifdef __CUDA_ARCH__
    return seven | (uint32_t)(__popc(seven) & 1) << 7;
#else
    return seven | (uint32_t)(__builtin_popcount(seven) & 1) << 7;
#endif
}

/* Components at % 8 and on of a point of eight bytes, where a bit says so negated, times d. */
V_FN void point_of_eight(float *y, uint64_t point, uint32_t minus, int at, float d)
{
    const uint32_t four = (uint32_t)(point >> 8 * (at & 4));
    for (int k = 0; k < 4; k++) {
        y[k] = negated(byte_less(four, k, 0) * d, minus >> (at & 4), k);
    }
}

V_FN void point_of_four(float *y, const float *point, uint32_t minus, int at, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = negated(point[k] * d, minus >> (at & 4), k);
    }
}

SCALE(iq2_xxs)
{
    const iq2_xxs_block *x = (const iq2_xxs_block *)block;
    return Scale{half_at(x->d) * 0.125f * odd_of(x->part[j].word[3] >> 4), 0.f};
}
WEIGHTS(iq2_xxs)
{
    const iq2_xxs_block *x = (const iq2_xxs_block *)block;
    const int i = at / 8 % 4;
    const uint32_t minus = even_signs(word_at(x->part[0].word, at / 32 * 8) >> 7 * i);
    (void)table;
    point_of_eight(y, forge_grid_iq2_xxs[x->part[at / 32].index[i]], minus, at, s.d);
}

SCALE(iq2_xs)
{
    const iq2_xs_block *x = (const iq2_xs_block *)block;
    return Scale{half_at(x->d) * 0.125f * odd_of(x->scales[j / 2] >> j % 2 * 4), 0.f};
}
WEIGHTS(iq2_xs)
{
    const uint32_t q = load_u16(((const iq2_xs_block *)block)->qs + at / 8 * 2);
    (void)table;
    point_of_eight(y, forge_grid_iq2_xs[q & 511], even_signs(q >> 9), at, s.d);
}

SCALE(iq2_s)
{
    const iq2_s_block *x = (const iq2_s_block *)block;
    return Scale{half_at(x->d) * 0.125f * odd_of(x->scales[j / 2] >> j % 2 * 4), 0.f};
}
WEIGHTS(iq2_s)
{
    const iq2_s_block *x = (const iq2_s_block *)block;
    const uint32_t index = x->index[at / 8] | (x->high[at / 32] >> at / 8 % 4 * 2 & 3) << 8;
    (void)table;
    point_of_eight(y, forge_grid_iq2_s[index], x->signs[at / 8], at, s.d);
}

SCALE(iq3_xxs)
{
    const iq3_xxs_block *x = (const iq3_xxs_block *)block;
    return Scale{half_at(x->d) * 0.25f * odd_of(x->word[4 * j + 3] >> 4), 0.f};
}
WEIGHTS(iq3_xxs)
{
    const iq3_xxs_block *x = (const iq3_xxs_block *)block;
    const uint32_t minus = even_signs(word_at(x->word, at / 32 * 4) >> at / 8 % 4 * 7);
    (void)table;
    point_of_four(y, forge_grid_iq3_xxs[x->index[at / 4]], minus, at, s.d);
}

SCALE(iq3_s)
{
    const iq3_s_block *x = (const iq3_s_block *)block;
    return Scale{half_at(x->d) * odd_of(x->scales[j / 2] >> j % 2 * 4), 0.f};
}
WEIGHTS(iq3_s)
{
    const iq3_s_block *x = (const iq3_s_block *)block;
    const uint32_t index = x->index[at / 4] | (x->high[at / 32] >> at / 4 % 8 & 1) << 8;
    (void)table;
    point_of_four(y, forge_grid_iq3_s[index], x->signs[at / 8], at, s.d);
}

/* The shift goes where other types have what is taken away. */
V_FN void shifted_point(float *y, uint32_t index, int at, Scale s)
{
    const uint32_t four = (uint32_t)(forge_grid_iq1[index] >> 8 * (at & 4)) ^ 0x80808080u;
    for (int k = 0; k < 4; k++) {
        y[k] = s.d * (byte_less(four, k, 128) + s.m);
    }
}

SCALE(iq1_s)
{
    const iq1_s_block *x = (const iq1_s_block *)block;
    const uint32_t high = load_u16(x->high + j * 2);
    return Scale{half_at(x->d) * (float)(2 * (high >> 12 & 7) + 1), high >> 15 ? -0.125f : 0.125f};
}
WEIGHTS(iq1_s)
{
    const iq1_s_block *x = (const iq1_s_block *)block;
    const uint32_t high = load_u16(x->high + at / 32 * 2);
    (void)table;
    shifted_point(y, x->index[at / 8] | (high >> at / 8 % 4 * 3 & 7) << 8, at, s);
}

SCALE(iq1_m)
{
    const iq1_m_block *x = (const iq1_m_block *)block;
    const uint32_t a = load_u32(x->scales), b = load_u32(x->scales + 4);
    const uint32_t half = (a >> 12 & 15) | (a >> 28) << 4 | (b >> 12 & 15) << 8 | (b >> 28) << 12;
    const uint32_t word = (j & 8 ? b : a) >> (j & 4 ? 16 : 0), s = word >> j % 4 * 3 & 7;
    return Scale{half_value((uint16_t)half) * (float)(2 * s + 1), 0.f};
}
WEIGHTS(iq1_m)
{
    const iq1_m_block *x = (const iq1_m_block *)block;
    const uint32_t high = x->high[at / 16] >> (at & 8 ? 4 : 0);
    (void)table;
    s.m = high & 8 ? -0.125f : 0.125f;
    shifted_point(y, x->index[at / 8] | (high & 7) << 8, at, s);
}

#undef SCALE
#undef WEIGHTS
#undef SCALE_OF_ALL

/* The above as types that kernels are made of. value(i): what level i stands for, where `table` is to hold that. */
#define READER(type, looked_up, table_value)                                                        \
    struct type##_reader {                                                                          \
        enum { SUB = type##_SUB, LOOKED_UP = looked_up };                                           \
        static float value(unsigned i) { return (void)i, table_value; }                             \
        static Scale scale(const uint8_t *block, int j) { return type##_scale(block, j); }          \
        static void four(const uint8_t *block, int at, Scale s, const float *table, float *y)       \
        {                                                                                           \
            type##_four(block, at, s, table, y);                                                    \
        }                                                                                           \
    };
READER(q4_0, 0, 0.f)
READER(q4_1, 0, 0.f)
READER(q5_0, 0, 0.f)
READER(q5_1, 0, 0.f)
READER(q8_0, 0, 0.f)
READER(q8_1, 0, 0.f)
READER(q8_k, 0, 0.f)
READER(iq4_nl, 1, iq4_values[i])
READER(mxfp4, 1, fp4_values[i])
READER(nvfp4, 1, fp4_values[i])
READER(q1_0, 0, 0.f)
READER(q2_0, 0, 0.f)
READER(tq1_0, 0, 0.f)
READER(tq2_0, 0, 0.f)
READER(q2_k, 0, 0.f)
READER(q3_k, 0, 0.f)
READER(q4_k, 0, 0.f)
READER(q5_k, 0, 0.f)
READER(q6_k, 0, 0.f)
READER(iq4_xs, 1, iq4_values[i])
READER(iq2_xxs, 0, 0.f)
READER(iq2_xs, 0, 0.f)
READER(iq2_s, 0, 0.f)
READER(iq3_xxs, 0, 0.f)
READER(iq3_s, 0, 0.f)
READER(iq1_s, 0, 0.f)
READER(iq1_m, 0, 0.f)
#undef READER

#endif

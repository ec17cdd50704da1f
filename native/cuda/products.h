/* What a lane of a product reads: eight neighbouring levels as floats, and what they are to be scaled by. Layouts and
 * the meaning of each number are the codecs'; the tests hold sums to those of the weights that the codecs decode. For
 * each type that launch.def names under MATVEC, with y as the reader makes it:
 *
 *   a weight is d (y - middle()) - m         (LESS: m is not always 0)
 *   SUB                             how many weights share d and m
 *   AT_ONCE, scales(block, j, s)    sub-blocks j .. j + AT_ONCE - 1 of a block, j a multiple of AT_ONCE
 *   eight<whole>(block, at, y)      weights at .. at + 7, at a multiple of 8; whole: of blocks whose size is a multiple
 *                                   of 8, all lie on a boundary of 8
 *
 * Where a level has at most seven bits, y is made by one instruction: the bits become the upper ones of a mantissa, so
 * that y = (1 + level / 2^bits) / 2. */
#ifndef FORGE_CUDA_PRODUCTS_H
#define FORGE_CUDA_PRODUCTS_H

#include "fours.h"

/* The bytes of a word, none above 127, below the upper byte of a power of two: that, times 1 + byte / 128. */
enum { OF_HALF = 0x3f, OF_32 = 0x42 };

template <int upper> V_FN void in_mantissa(float *y, uint32_t bytes)
{
    for (int k = 0; k < 4; k++) {
        y[k] = bits_to_f32(chosen(bytes, (uint32_t)upper << 24, 0x7044u + ((uint32_t)k << 8)));
    }
}

V_FN uint32_t rotated_left(uint32_t word, int bits)
{
#ifdef __CUDA_ARCH__
    return __funnelshift_l(word, word, (uint32_t)bits);
#else
    return word << (bits & 31) | word >> (-bits & 31);
#endif
}

/* Where the nibbles of a word are to come in its bytes, `up` bits above their lowest: how far to turn it. */
V_FN int turn_of(bool high, int up) { return high ? up - 4 : up; }

/* Bytes at .. at + 7 of a field. */
template <bool whole> V_FN Eight pair_at(const uint8_t *field, int at)
{
    return whole ? *(const Eight *)(field + at) : Eight{{word_at(field, at), word_at(field, at + 4)}};
}

/* Eight nibbles, the low or the high ones of bytes at .. at + 7, as 1/2 + nibble / 32. */
template <bool whole> V_FN void nibbles_of(float *y, const uint8_t *field, int at, bool high)
{
    const Eight p = pair_at<whole>(field, at);
    const int turn = turn_of(high, 3);
    for (int k = 0; k < 2; k++) {
        in_mantissa<OF_HALF>(y + 4 * k, rotated_left(p.at[k], turn) & 0x78787878u);
    }
}

/* Four of a superblock's eight scales, times `unit`, and minimums of six bits, after the two half floats that they
 * count in. The three words are scales, minimums, and the lower bits of the other four of both. */
V_FN void four_of_six_bits(const uint8_t *head, int j, float unit, Scale *s)
{
    const uint32_t halves = word_in(head, 0), a = word_in(head, 4), b = word_in(head, 8), both = word_in(head, 12);
    const uint32_t low = 0x0f0f0f0fu, high = 0x30303030u, six = 0x3f3f3f3fu;
    const uint32_t scales = j ? (both & low) | (a >> 2 & high) : a & six;
    const uint32_t minimums = j ? (both >> 4 & low) | (b >> 2 & high) : b & six;
    const float d = half_value((uint16_t)(halves & 0xffff)) * unit, dmin = half_value((uint16_t)(halves >> 16));
    for (int k = 0; k < 4; k++) {
        s[k] = Scale{d * byte_less(scales, k, 0), dmin * byte_less(minimums, k, 0)};
    }
}

struct q4_0_product {
    enum { SUB = 32, AT_ONCE = 1, LESS = 0 };
    static float middle(void) { return 0.75f; } /* of level 8 */
    static void scales(const uint8_t *block, int, Scale *s)
    {
        *s = Scale{half_at(((const block_q4_0 *)block)->d) * 32, 0.f};
    }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        nibbles_of<false>(y, ((const block_q4_0 *)block)->q, at & 15, at & 16);
    }
};

struct q4_k_product {
    enum { SUB = 32, AT_ONCE = 4, LESS = 1 };
    static float middle(void) { return 0.5f; }
    static void scales(const uint8_t *block, int j, Scale *s) { four_of_six_bits(block, j, 32.f, s); }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        nibbles_of<whole>(y, ((const block_q4_k *)block)->q, at / 64 * 32 + at % 32, at & 32);
    }
};

struct q5_k_product {
    enum { SUB = 32, AT_ONCE = 4, LESS = 1 };
    static float middle(void) { return 0.5f; }
    static void scales(const uint8_t *block, int j, Scale *s) { four_of_six_bits(block, j, 64.f, s); }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        const block_q5_k *x = (const block_q5_k *)block;
        const Eight low = pair_at<whole>(x->q, at / 64 * 32 + at % 32), high = pair_at<whole>(x->h, at % 32);
        const int turn = turn_of(at & 32, 2), fifth = 6 - at / 32;
        for (int k = 0; k < 2; k++) {
            const uint32_t four = rotated_left(low.at[k], turn) & 0x3c3c3c3cu;
            in_mantissa<OF_HALF>(y + 4 * k, (rotated_left(high.at[k], fifth) & 0x40404040u) | four);
        }
    }
};

struct q6_k_product {
    enum { SUB = 16, AT_ONCE = 4, LESS = 0 };
    static float middle(void) { return 0.75f; } /* of level 32 */
    static void scales(const uint8_t *block, int j, Scale *s)
    {
        const block_q6_k *x = (const block_q6_k *)block;
        const uint32_t four = word_at(x->scales, j) ^ 0x80808080u;
        const float d = half_at(x->d) * 128;
        for (int k = 0; k < 4; k++) {
            s[k] = Scale{d * byte_less(four, k, 128), 0.f};
        }
    }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        const block_q6_k *x = (const block_q6_k *)block;
        const int k = at / 32 % 4; /* which 32 of the 128 */
        const Eight low = pair_at<false>(x->low, at / 128 * 64 + k % 2 * 32 + at % 32);
        const Eight high = pair_at<false>(x->high, at / 128 * 32 + at % 32);
        const int turn = turn_of(k / 2, 1), upper = 5 - 2 * k;
        for (int i = 0; i < 2; i++) {
            const uint32_t four = rotated_left(low.at[i], turn) & 0x1e1e1e1eu;
            in_mantissa<OF_HALF>(y + 4 * i, (rotated_left(high.at[i], upper) & 0x60606060u) | four);
        }
    }
};

struct q8_0_product {
    enum { SUB = 32, AT_ONCE = 1, LESS = 0 };
    static float middle(void) { return 0.f; }
    static void scales(const uint8_t *block, int j, Scale *s) { *s = q8_0_scale(block, j); }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        const Eight p = pair_at<false>(((const block_q8_0 *)block)->q, at);
        for (int k = 0; k < 8; k++) {
            y[k] = byte_less(p.at[k / 4] ^ 0x80808080u, k % 4, 128);
        }
    }
};

/* The nibbles of bytes at .. at + 7, the low or the high ones, looked up in sixteen bytes: of bytes 0, 4, 1, 5, and
 * then 2, 6, 3, 7. */
template <bool whole> V_FN Eight looked_up(const Sixteen table, const uint8_t *field, int at, bool high)
{
    const Eight p = pair_at<whole>(field, at);
    const uint32_t low = 0x0f0f0f0fu, first = rotated_left(p.at[0], turn_of(high, 0));
    const uint32_t q = (first & low) | (rotated_left(p.at[1], turn_of(high, 4)) & ~low);
    const uint32_t index = q & 0x77777777u, half = (q >> 1 & 0x44444444u) | 0x32103210u;
    Eight found;
    for (int k = 0; k < 2; k++) {
        const uint32_t a = chosen(table.at[0], table.at[1], index >> 16 * k);
        const uint32_t b = chosen(table.at[2], table.at[3], index >> 16 * k);
        found.at[k] = chosen(a, b, half >> 16 * k);
    }
    return found;
}

/* Where byte k of word i of these comes among the eight. */
V_FN int place_of(int i, int k) { return 4 * (k % 2) + 2 * i + k / 2; }

/* Values plus `more`, times `times`, as bytes. */
template <class Value> V_FN Sixteen table_of(const Value *values, int more, int times)
{
    Sixteen table = {{0, 0, 0, 0}};
    for (int i = 0; i < 16; i++) {
        table.at[i / 4] |= (uint32_t)(((int)values[i] + more) * times) << i % 4 * 8;
    }
    return table;
}

struct iq4_xs_product {
    enum { SUB = 32, AT_ONCE = 4, LESS = 0 };
    static float middle(void) { return 0.f; }
    static void scales(const uint8_t *block, int j, Scale *s)
    {
        const iq4_xs_block *x = (const iq4_xs_block *)block;
        const float d = half_at(x->d);
        uint32_t low = load_u16(x->low + j / 2), high = load_u16(x->high) >> 2 * j & 255;
        low = (low | low << 8) & 0x00ff00ffu; /* four nibbles, a byte each */
        low = (low | low << 4) & 0x0f0f0f0fu;
        high = (high | high << 12) & 0x000f000fu; /* four pairs of bits likewise */
        high = (high | high << 6) & 0x03030303u;
        for (int k = 0; k < 4; k++) {
            s[k] = Scale{d * byte_less(low | high << 4, k, 32), 0.f};
        }
    }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        const uint8_t *q = ((const iq4_xs_block *)block)->qs;
        const Eight p = looked_up<whole>(table_of(iq4_values, 128, 1), q, at / 32 * 16 + at % 16, at & 16);
        for (int i = 0; i < 8; i++) {
            y[place_of(i / 4, i % 4)] = byte_less(p.at[i / 4], i % 4, 128);
        }
    }
};

struct mxfp4_product {
    enum { SUB = 32, AT_ONCE = 1, LESS = 0 };
    static float middle(void) { return 44.f; } /* of value 0: 32 (1 + 48 / 128); d is as stored, which may be 2^127 */
    static void scales(const uint8_t *block, int j, Scale *s) { *s = mxfp4_scale(block, j); }
    template <bool whole> static void eight(const uint8_t *block, int at, float *y)
    {
        const uint8_t *q = ((const mxfp4_block *)block)->qs;
        const Eight p = looked_up<false>(table_of(fp4_values, 12, 4), q, at % 16, at & 16);
        for (int i = 0; i < 2; i++) {
            float four[4];
            in_mantissa<OF_32>(four, p.at[i]);
            for (int k = 0; k < 4; k++) {
                y[place_of(i, k)] = four[k];
            }
        }
    }
};

#endif

/* What products read of a block: levels as bytes, and what they are to be scaled by. Layouts and the meaning of each
 * number are the codecs'; the tests hold sums to those of the weights that the codecs decode. For each type that
 * launch.def names under MATVEC, with y what a byte stands for:
 *
 *   a weight is d (y - middle()) - m         (LESS: m is not always 0)
 *   SUB                              how many weights share d and m
 *   AT_ONCE, scales(block, j, s)     sub-blocks j .. j + AT_ONCE - 1 of a block, j a multiple of AT_ONCE
 *   STANDS                           what stands for y: bytes, as OF_HALF and LESS_128 say, or LOOKED_UP nibbles
 *   levels<whole>(block, at, apart)  bytes of weights at .. at + 3 and at + apart .. at + apart + 3, `at` a multiple of
 *                                    8, apart 4; where SUB is 16 also of 4, and 16. whole: of blocks whose size is a
 *                                    multiple of 8, all lie on a boundary of 8
 *   nibbles<whole>(block, at)        in its place, of eight weights in the order of place_of,
 *   table(bit)                       and a byte of each of the sixteen values as bfloat16, the lower (0) or upper (8)
 *
 * A byte of at most seven bits becomes a float by one instruction, as the upper bits of a mantissa, and two of them a
 * pair of bfloat16. */
#ifndef FORGE_CUDA_PRODUCTS_H
#define FORGE_CUDA_PRODUCTS_H

#include "fours.h"

/* How a byte stands for a number: as byte - 128; or as (1 + byte / 128) / 2, none being above 127, which it makes below
 * the upper byte of 1/2. */
enum { OF_HALF = 0x3f, LESS_128 = 0, LOOKED_UP = 1 };

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

/* Eight nibbles, the low or the high ones of bytes at .. at + 7, each times 8. */
template <bool whole> V_FN Eight nibbles_of(const uint8_t *field, int at, bool high)
{
    Eight p = pair_at<whole>(field, at);
    const int turn = turn_of(high, 3);
    for (int k = 0; k < 2; k++) {
        p.at[k] = rotated_left(p.at[k], turn) & 0x78787878u;
    }
    return p;
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

/* Numbers of x: eight of them, on a boundary of 16 bytes, are WORDS sixteens. On matrix units each is the sum of PIECES
 * numbers of bfloat16, in as many of a vector's COLUMNS. */
struct of_f32 {
    typedef float element;
    enum { WORDS = 2, PIECES = 3, COLUMNS = 4 };
    static float number(const Sixteen *words, int i) { return bits_to_f32(words[i / 4].at[i % 4]); }
};

struct of_f16 {
    typedef uint16_t element;
    enum { WORDS = 1, PIECES = 2, COLUMNS = 2 };
    static float number(const Sixteen *words, int i)
    {
        return half_value((uint16_t)(words->at[i / 2] >> i % 2 * 16 & 0xffff));
    }
};

struct q4_0_product {
    enum { SUB = 32, AT_ONCE = 1, LESS = 0, STANDS = OF_HALF };
    static float middle(void) { return 0.75f; } /* of level 8 */
    static void scales(const uint8_t *block, int, Scale *s)
    {
        *s = Scale{half_at(((const block_q4_0 *)block)->d) * 32, 0.f};
    }
    template <bool whole> static Eight levels(const uint8_t *block, int at, int)
    {
        return nibbles_of<false>(((const block_q4_0 *)block)->q, at & 15, at & 16);
    }
};

struct q4_k_product {
    enum { SUB = 32, AT_ONCE = 4, LESS = 1, STANDS = OF_HALF };
    static float middle(void) { return 0.5f; }
    static void scales(const uint8_t *block, int j, Scale *s) { four_of_six_bits(block, j, 32.f, s); }
    template <bool whole> static Eight levels(const uint8_t *block, int at, int)
    {
        return nibbles_of<whole>(((const block_q4_k *)block)->q, at / 64 * 32 + at % 32, at & 32);
    }
};

struct q5_k_product {
    enum { SUB = 32, AT_ONCE = 4, LESS = 1, STANDS = OF_HALF };
    static float middle(void) { return 0.5f; }
    static void scales(const uint8_t *block, int j, Scale *s) { four_of_six_bits(block, j, 64.f, s); }
    template <bool whole> static Eight levels(const uint8_t *block, int at, int)
    {
        const block_q5_k *x = (const block_q5_k *)block;
        Eight low = pair_at<whole>(x->q, at / 64 * 32 + at % 32);
        const Eight high = pair_at<whole>(x->h, at % 32);
        const int turn = turn_of(at & 32, 2), fifth = 6 - at / 32;
        for (int k = 0; k < 2; k++) {
            low.at[k] = rotated_left(low.at[k], turn) & 0x3c3c3c3cu;
            low.at[k] |= rotated_left(high.at[k], fifth) & 0x40404040u;
        }
        return low;
    }
};

struct q6_k_product {
    enum { SUB = 16, AT_ONCE = 4, LESS = 0, STANDS = OF_HALF };
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
    template <bool whole> static Eight levels(const uint8_t *block, int at, int apart)
    {
        const block_q6_k *x = (const block_q6_k *)block;
        const int k = at / 32 % 4; /* which 32 of the 128 */
        const uint8_t *low = x->low + at / 128 * 64 + k % 2 * 32, *high = x->high + at / 128 * 32;
        const int turn = turn_of(k / 2, 1), upper = 5 - 2 * k;
        Eight found;
        for (int i = 0; i < 2; i++) {
            found.at[i] = rotated_left(word_at(low, at % 32 + i * apart), turn) & 0x1e1e1e1eu;
            found.at[i] |= rotated_left(word_at(high, at % 32 + i * apart), upper) & 0x60606060u;
        }
        return found;
    }
};

struct q8_0_product {
    enum { SUB = 32, AT_ONCE = 1, LESS = 0, STANDS = LESS_128 };
    static float middle(void) { return 0.f; }
    static void scales(const uint8_t *block, int j, Scale *s) { *s = q8_0_scale(block, j); }
    template <bool whole> static Eight levels(const uint8_t *block, int at, int)
    {
        Eight p = pair_at<false>(((const block_q8_0 *)block)->q, at);
        for (int k = 0; k < 2; k++) {
            p.at[k] ^= 0x80808080u;
        }
        return p;
    }
};

/* Eight nibbles in which values are looked up: their lower three bits, and which half of a table they are in. */
typedef struct {
    uint32_t index, half;
} Nibbles;

/* The low or the high nibbles of bytes at .. at + 7: of bytes 0, 4, 1, 5, and then 2, 6, 3, 7. */
template <bool whole> V_FN Nibbles indices_of(const uint8_t *field, int at, bool high)
{
    const Eight p = pair_at<whole>(field, at);
    const uint32_t low = 0x0f0f0f0fu, first = rotated_left(p.at[0], turn_of(high, 0));
    const uint32_t q = (first & low) | (rotated_left(p.at[1], turn_of(high, 4)) & ~low);
    return Nibbles{q & 0x77777777u, (q >> 1 & 0x44444444u) | 0x32103210u};
}

/* Four of them, the first or the second, looked up in sixteen bytes. */
V_FN uint32_t looked_up(const Sixteen table, Nibbles q, int k)
{
    const uint32_t a = chosen(table.at[0], table.at[1], q.index >> 16 * k);
    const uint32_t b = chosen(table.at[2], table.at[3], q.index >> 16 * k);
    return chosen(a, b, q.half >> 16 * k);
}

/* Which of the eight byte i of these is. */
V_FN int place_of(int i) { return 4 * (i % 2) + i / 4 * 2 + i % 4 / 2; }

/* Of sixteen values as bfloat16 the bytes that begin at this bit. */
template <class Value> V_FN Sixteen bytes_of(const Value *values, int bit)
{
    Sixteen table = {{0, 0, 0, 0}};
    for (int i = 0; i < 16; i++) {
        table.at[i / 4] |= (f32_to_bits((float)values[i]) >> (16 + bit) & 255) << i % 4 * 8;
    }
    return table;
}

struct iq4_xs_product {
    enum { SUB = 32, AT_ONCE = 4, LESS = 0, STANDS = LOOKED_UP };
    static Sixteen table(int bit) { return bytes_of(iq4_values, bit); }
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
    template <bool whole> static Nibbles nibbles(const uint8_t *block, int at)
    {
        return indices_of<whole>(((const iq4_xs_block *)block)->qs, at / 32 * 16 + at % 16, at & 16);
    }
};

struct mxfp4_product {
    enum { SUB = 32, AT_ONCE = 1, LESS = 0, STANDS = LOOKED_UP };
    static Sixteen table(int bit) { return bytes_of(fp4_values, bit); }
    static float middle(void) { return 0.f; }
    static void scales(const uint8_t *block, int j, Scale *s) { *s = mxfp4_scale(block, j); }
    template <bool whole> static Nibbles nibbles(const uint8_t *block, int at)
    {
        return indices_of<false>(((const mxfp4_block *)block)->qs, at % 16, at & 16);
    }
};

#endif

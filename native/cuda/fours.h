/* Decoders for threads that make four weights each: what GPUs want in place of the codecs' own decoders, which make whole
 * blocks in order. The layouts are drawn in the codecs' files; so is what each number means, and the tests hold every
 * weight to what the codec makes of the same block.
 *
 * <type>_four(block, at, y): weights at .. at + 3 of a block, at a multiple of 4. The block lies in shared memory as
 * word_at asks. Four bytes are fetched at a time; scales are decoded by each thread again, which costs less than to pass
 * them on. */
#ifndef FORGE_CUDA_FOURS_H
#define FORGE_CUDA_FOURS_H

#include "device.h"

V_FN uint32_t byte_of(uint32_t word, int k) { return word >> 8 * k & 255; }
V_FN float half_at(const uint8_t *p) { return half_value(load_u16(p)); }

/* The four low nibbles of bytes i % 16 .. of 16 where i < 16, else the high ones. */
V_FN uint32_t nibbles_at(const uint8_t *q, int i) { return word_at(q + (i & 15)) >> (i & 16 ? 4 : 0) & 0x0f0f0f0fu; }

/* y = (level - low) d */
V_FN void scaled(float *y, uint32_t levels, int low, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = (float)((int)byte_of(levels, k) - low) * d;
    }
}

/* y = level d + m */
V_FN void scaled_plus(float *y, uint32_t levels, float d, float m)
{
    for (int k = 0; k < 4; k++) {
        y[k] = (float)byte_of(levels, k) * d + m;
    }
}

/* y = level d - m */
V_FN void scaled_less(float *y, uint32_t levels, float d, float m)
{
    for (int k = 0; k < 4; k++) {
        y[k] = (float)byte_of(levels, k) * d - m;
    }
}

V_FN void scaled_signed(float *y, uint32_t bytes, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = (float)(int8_t)byte_of(bytes, k) * d;
    }
}

/* Bits 0 .. 3 of `bits`, each as bit `to` of a byte. */
V_FN uint32_t bits_to_bytes(uint32_t bits, int to) { return ((bits & 15) * 0x00204081u & 0x01010101u) << to; }

/* ------------------------------------------------------------------ blocks of one scale */

V_FN void q4_0_four(const uint8_t *block, int at, float *y)
{
    const block_q4_0 *x = (const block_q4_0 *)block;
    scaled(y, nibbles_at(x->q, at), 8, half_at(x->d));
}

V_FN void q4_1_four(const uint8_t *block, int at, float *y)
{
    const block_q4_1 *x = (const block_q4_1 *)block;
    scaled_plus(y, nibbles_at(x->q, at), half_at(x->d), half_at(x->m));
}

V_FN void q5_0_four(const uint8_t *block, int at, float *y)
{
    const block_q5_0 *x = (const block_q5_0 *)block;
    scaled(y, nibbles_at(x->q, at) | bits_to_bytes(x->h[at / 8] >> (at & 4), 4), 16, half_at(x->d));
}

V_FN void q5_1_four(const uint8_t *block, int at, float *y)
{
    const block_q5_1 *x = (const block_q5_1 *)block;
    const uint32_t levels = nibbles_at(x->q, at) | bits_to_bytes(x->h[at / 8] >> (at & 4), 4);
    scaled_plus(y, levels, half_at(x->d), half_at(x->m));
}

V_FN void q8_0_four(const uint8_t *block, int at, float *y)
{
    const block_q8_0 *x = (const block_q8_0 *)block;
    scaled_signed(y, word_at(x->q + at), half_at(x->d));
}

V_FN void q8_1_four(const uint8_t *block, int at, float *y)
{
    const q8_1_block *x = (const q8_1_block *)block;
    scaled_signed(y, word_at(x->qs + at), half_at(x->d));
}

V_FN void q8_k_four(const uint8_t *block, int at, float *y)
{
    const q8_k_block *x = (const q8_k_block *)block;
    scaled_signed(y, word_at(x->qs + at), bits_to_f32(word_at(x->d)));
}

V_FN void looked_up(float *y, uint32_t indices, const float *table, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = table[byte_of(indices, k)] * d;
    }
}

V_FN void iq4_nl_four(const uint8_t *block, int at, float *y)
{
    const iq4_nl_block *x = (const iq4_nl_block *)block;
    looked_up(y, nibbles_at(x->qs, at), iq4_values, half_at(x->d));
}

V_FN void mxfp4_four(const uint8_t *block, int at, float *y)
{
    const mxfp4_block *x = (const mxfp4_block *)block;
    looked_up(y, nibbles_at(x->qs, at), fp4_values, mxfp4_scale(x->e));
}

V_FN void nvfp4_four(const uint8_t *block, int at, float *y)
{
    const nvfp4_block *x = (const nvfp4_block *)block;
    const uint32_t both = word_at(x->qs + at / 16 * 8 + (at & 7));
    looked_up(y, both >> (at & 8 ? 4 : 0) & 0x0f0f0f0fu, fp4_values, nvfp4_scale(x->d[at / 16]));
}

V_FN void q1_0_four(const uint8_t *block, int at, float *y)
{
    const q1_0_block *x = (const q1_0_block *)block;
    const uint32_t bits = x->qs[at / 8] >> (at & 4);
    const float d = half_at(x->d);
    for (int k = 0; k < 4; k++) {
        y[k] = bits >> k & 1 ? d : -d;
    }
}

V_FN void q2_0_four(const uint8_t *block, int at, float *y)
{
    const q2_0_block *x = (const q2_0_block *)block;
    const uint32_t bits = x->qs[at / 4];
    const float d = half_at(x->d);
    for (int k = 0; k < 4; k++) {
        y[k] = (float)((int)(bits >> 2 * k & 3) - 1) * d;
    }
}

V_FN void tq1_0_four(const uint8_t *block, int at, float *y)
{
    const tq1_0_block *x = (const tq1_0_block *)block;
    const int first = at < 160 ? at : at < 240 ? at - 160 : at - 240, apart = at < 160 ? 32 : at < 240 ? 16 : 4;
    const uint8_t *q = at < 160 ? x->qs : at < 240 ? x->qs + 32 : x->qh;
    const uint32_t bytes = word_at(q + first % apart), power = 0x511b090301u >> 8 * (first / apart) & 255; /* of three */
    const float d = half_at(x->d);
    for (int k = 0; k < 4; k++) {
        const uint32_t rest = byte_of(bytes, k) * power & 255;
        y[k] = (float)((int)(rest * 3 >> 8) - 1) * d;
    }
}

V_FN void tq2_0_four(const uint8_t *block, int at, float *y)
{
    const tq2_0_block *x = (const tq2_0_block *)block;
    const uint32_t levels = word_at(x->qs + at / 128 * 32 + at % 32) >> at / 32 % 4 * 2 & 0x03030303u;
    scaled(y, levels, 1, half_at(x->d));
}

/* ------------------------------------------------------------------ superblocks */

V_FN void q2_k_four(const uint8_t *block, int at, float *y)
{
    const block_q2_k *x = (const block_q2_k *)block;
    const uint32_t levels = word_at(x->q + at / 128 * 32 + at % 32) >> at / 32 % 4 * 2 & 0x03030303u;
    const uint32_t both = x->scales[at / 16];
    scaled_less(y, levels, half_at(x->d) * (float)(both & 15), half_at(x->dmin) * (float)(both >> 4));
}

V_FN void q3_k_four(const uint8_t *block, int at, float *y)
{
    const block_q3_k *x = (const block_q3_k *)block;
    const int j = at / 16;
    const uint32_t low = word_at(x->q + at / 128 * 32 + at % 32) >> at / 32 % 4 * 2 & 0x03030303u;
    const uint32_t high = word_at(x->h + at % 32) >> at / 32 & 0x01010101u;
    const int four = x->scales[j & 7] >> (j & 8 ? 4 : 0) & 15, two = x->scales[8 + (j & 3)] >> j / 4 * 2 & 3;
    scaled(y, low | high << 2, 4, half_at(x->d) * (float)((four | two << 4) - 32));
}

V_FN void q4_k_four(const uint8_t *block, int at, float *y)
{
    const block_q4_k *x = (const block_q4_k *)block;
    const int j = at / 32;
    int scale, min;
    six_bits_load(x->scales, j, &scale, &min);
    const uint32_t levels = word_at(x->q + j / 2 * 32 + at % 32) >> j % 2 * 4 & 0x0f0f0f0fu;
    scaled_less(y, levels, half_at(x->d) * (float)scale, half_at(x->dmin) * (float)min);
}

V_FN void q5_k_four(const uint8_t *block, int at, float *y)
{
    const block_q5_k *x = (const block_q5_k *)block;
    const int j = at / 32;
    int scale, min;
    six_bits_load(x->scales, j, &scale, &min);
    const uint32_t low = word_at(x->q + j / 2 * 32 + at % 32) >> j % 2 * 4 & 0x0f0f0f0fu;
    const uint32_t high = word_at(x->h + at % 32) >> j & 0x01010101u;
    scaled_less(y, low | high << 4, half_at(x->d) * (float)scale, half_at(x->dmin) * (float)min);
}

V_FN void q6_k_four(const uint8_t *block, int at, float *y)
{
    const block_q6_k *x = (const block_q6_k *)block;
    const int k = at / 32 % 4; /* which 32 of the 128 */
    const uint32_t low = word_at(x->low + at / 128 * 64 + k % 2 * 32 + at % 32) >> k / 2 * 4 & 0x0f0f0f0fu;
    const uint32_t high = word_at(x->high + at / 128 * 32 + at % 32) >> k * 2 & 0x03030303u;
    scaled(y, low | high << 4, 32, half_at(x->d) * (float)(int8_t)x->scales[at / 16]);
}

V_FN void iq4_xs_four(const uint8_t *block, int at, float *y)
{
    const iq4_xs_block *x = (const iq4_xs_block *)block;
    const int k = at / 32, high = load_u16(x->high) >> 2 * k & 3, low = x->low[k / 2] >> 4 * (k % 2) & 15;
    const float d = half_at(x->d) * (float)((high << 4 | low) - 32);
    looked_up(y, nibbles_at(x->qs + 16 * k, at % 32), iq4_values, d);
}

/* ------------------------------------------------------------------ superblocks of lattice points */

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
        const float value = (float)byte_of(four, k);
        y[k] = d * (minus >> (at & 4) >> k & 1 ? -value : value);
    }
}

V_FN void point_of_four(float *y, const float *point, uint32_t minus, int at, float d)
{
    for (int k = 0; k < 4; k++) {
        y[k] = d * (minus >> (at & 4) >> k & 1 ? -point[k] : point[k]);
    }
}

V_FN void iq2_xxs_four(const uint8_t *block, int at, float *y)
{
    const iq2_xxs_block *x = (const iq2_xxs_block *)block;
    const uint32_t word = word_at(x->part[at / 32].word);
    const int i = at / 8 % 4;
    const float d = half_at(x->d) * 0.125f * odd_of(word >> 28);
    point_of_eight(y, forge_grid_iq2_xxs[x->part[at / 32].index[i]], even_signs(word >> 7 * i), at, d);
}

V_FN void iq2_xs_four(const uint8_t *block, int at, float *y)
{
    const iq2_xs_block *x = (const iq2_xs_block *)block;
    const uint32_t q = load_u16(x->qs + at / 8 * 2);
    const float d = half_at(x->d) * 0.125f * odd_of(x->scales[at / 32] >> (at & 16 ? 4 : 0));
    point_of_eight(y, forge_grid_iq2_xs[q & 511], even_signs(q >> 9), at, d);
}

V_FN void iq2_s_four(const uint8_t *block, int at, float *y)
{
    const iq2_s_block *x = (const iq2_s_block *)block;
    const uint32_t index = x->index[at / 8] | (x->high[at / 32] >> at / 8 % 4 * 2 & 3) << 8;
    const float d = half_at(x->d) * 0.125f * odd_of(x->scales[at / 32] >> (at & 16 ? 4 : 0));
    point_of_eight(y, forge_grid_iq2_s[index], x->signs[at / 8], at, d);
}

V_FN void iq3_xxs_four(const uint8_t *block, int at, float *y)
{
    const iq3_xxs_block *x = (const iq3_xxs_block *)block;
    const uint32_t word = word_at(x->word + at / 32 * 4);
    const float d = half_at(x->d) * 0.25f * odd_of(word >> 28);
    point_of_four(y, forge_grid_iq3_xxs[x->index[at / 4]], even_signs(word >> at / 8 % 4 * 7), at, d);
}

V_FN void iq3_s_four(const uint8_t *block, int at, float *y)
{
    const iq3_s_block *x = (const iq3_s_block *)block;
    const uint32_t index = x->index[at / 4] | (x->high[at / 32] >> at / 4 % 8 & 1) << 8;
    const float d = half_at(x->d) * odd_of(x->scales[at / 64] >> (at & 32 ? 4 : 0));
    point_of_four(y, forge_grid_iq3_s[index], x->signs[at / 8], at, d);
}

V_FN void shifted_point(float *y, uint32_t index, int at, float shift, float d)
{
    const uint32_t four = (uint32_t)(forge_grid_iq1[index] >> 8 * (at & 4));
    for (int k = 0; k < 4; k++) {
        y[k] = d * ((float)(int8_t)byte_of(four, k) + shift);
    }
}

V_FN void iq1_s_four(const uint8_t *block, int at, float *y)
{
    const iq1_s_block *x = (const iq1_s_block *)block;
    const uint32_t high = load_u16(x->high + at / 32 * 2);
    const float d = half_at(x->d) * (float)(2 * (high >> 12 & 7) + 1);
    const uint32_t index = x->index[at / 8] | (high >> at / 8 % 4 * 3 & 7) << 8;
    shifted_point(y, index, at, high >> 15 ? -0.125f : 0.125f, d);
}

V_FN void iq1_m_four(const uint8_t *block, int at, float *y)
{
    const iq1_m_block *x = (const iq1_m_block *)block;
    const uint32_t a = word_at(x->scales), b = word_at(x->scales + 4);
    const uint32_t half = (a >> 12 & 15) | (a >> 28) << 4 | (b >> 12 & 15) << 8 | (b >> 28) << 12;
    const uint32_t word = (at & 128 ? b : a) >> (at & 64 ? 16 : 0), s = word >> at / 16 % 4 * 3 & 7;
    const uint32_t high = x->high[at / 16] >> (at & 8 ? 4 : 0);
    const float d = half_value((uint16_t)half) * (float)(2 * s + 1);
    shifted_point(y, x->index[at / 8] | (high & 7) << 8, at, high & 8 ? -0.125f : 0.125f, d);
}

#endif

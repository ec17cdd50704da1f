/* What matrix units of bfloat16 take and make: tiles of levels and of numbers, in pairs, and how these are made. GPUs
 * of compute capability 8.0 and more have them.
 *
 * Where a lane's values belong, with row = lane / 4 and t = lane % 4: of the levels in a, weights 2 t and 2 t + 1, and
 * these + 8, of `row` and of `row` + 8; of the numbers in b, the same ones of column `row`; of the sums in c, columns
 * 2 t and 2 t + 1 of `row` and of `row` + 8. In which order sixteen weights come does not matter if numbers come in the
 * same. */
#ifndef FORGE_CUDA_MATRIX_UNITS_H
#define FORGE_CUDA_MATRIX_UNITS_H

#include "products.h"

#ifndef __CUDACC__
#define MATRIX_UNITS (emulated_capability >= 80)
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define MATRIX_UNITS 0
#else
#define MATRIX_UNITS 1
#endif

/* c = a b, or c += a b where `more`, of a warp together. */
template <bool more> V_FN void multiply_tile(float *c, const uint32_t *a, const uint32_t *b)
{
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%10, %11, %12, %13};"
                 : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(more ? c[0] : 0.f),
                   "f"(more ? c[1] : 0.f), "f"(more ? c[2] : 0.f), "f"(more ? c[3] : 0.f));
#elif !defined(__CUDACC__)
    for (int j = 0; j < 4 && !more; j++) {
        c[j] = 0.f;
    }
    emulated_multiply_tile(c, a, b);
#endif
}

/* Pairs of bfloat16, added up; the sums are whole numbers that it holds. */
V_FN uint32_t sums_of_pairs(uint32_t a, uint32_t b)
{
    uint32_t sums = 0;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(sums) : "r"(a), "r"(0x3f803f80u), "r"(b));
#elif !defined(__CUDACC__)
    for (int k = 0; k < 32; k += 16) {
        sums |= f32_to_bits(bits_to_f32(a >> k << 16) + bits_to_f32(b >> k << 16)) >> 16 << k;
    }
#endif
    return sums;
}

/* What the bytes of a word stand for, as two pairs. */
template <int stands> V_FN void pairs_of(uint32_t four, uint32_t *pair)
{
    for (uint32_t k = 0; k < 2; k++) {
        const uint32_t which = 0x7170u + 0x0202u * k; /* bytes 2 k and 2 k + 1, each below the upper one */
        if (stands != LESS_128) {
            pair[k] = chosen(four, (uint32_t)stands << 24, which);
        } else { /* 128 and the lower seven bits, less 128 or, without the upper bit, 256 */
            const uint32_t less = chosen(~four & 0x80808080u, 0xc3000000u, which);
            pair[k] = sums_of_pairs(chosen(four & 0x7f7f7f7fu, 0x43000000u, which), less);
        }
    }
}

/* The pairs of two words of levels. Of values that are looked up both bytes of a bfloat16 are. */
template <class Type, bool whole> V_FN void pairs_at(const uint8_t *block, int at, int apart, uint32_t (*pairs)[2])
{
    if constexpr ((int)Type::STANDS == LOOKED_UP) {
        const Nibbles q = Type::template nibbles<whole>(block, at);
        for (int k = 0; k < 2; k++) {
            const uint32_t lower = looked_up(Type::table(0), q, k), upper = looked_up(Type::table(8), q, k);
            pairs[k][0] = chosen(lower, upper, 0x5140u);
            pairs[k][1] = chosen(lower, upper, 0x7362u);
        }
    } else {
        const Eight levels = Type::template levels<whole>(block, at, apart);
        for (int k = 0; k < 2; k++) {
            pairs_of<Type::STANDS>(levels.at[k], pairs[k]);
        }
    }
}

#endif

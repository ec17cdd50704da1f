/* What every source file asks of its compiler, so that results are the reference's to the bit: included first, and
 * refused with a sentence where it does not hold. Says nothing of blocks. */
#ifndef FORGE_EXACT_H
#define FORGE_EXACT_H

#include <float.h>

#if !defined(__clang__) && !defined(__GNUC__)
#error "GGUF Forge's core is written for GCC and clang, whose results are known to be exact: on Windows, use clang-cl."
#endif

/* -ffast-math, -Ofast and /fp:fast, or parts of them. clang shows less of these than GCC: compilers.py looks at the
 * command as well. */
#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__) || \
    defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || defined(__NO_SIGNED_ZEROS__)
#error "GGUF Forge's results must be exact: compile it without -ffast-math, -Ofast, /fp:fast and their parts (see CFLAGS)."
#endif

#if !defined(FLT_EVAL_METHOD) || FLT_EVAL_METHOD != 0
#error "GGUF Forge's results must be exact: floats must be computed as floats (for 32-bit x86: -msse2 -mfpmath=sse)."
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "GGUF Forge's core is written for processors that store the low byte first, and this one does not."
#endif

/* No multiplication is fused with an addition. clang, Apple's too, does that unless told not to, by this or by
 * -ffp-contract=off; GCC, which knows the flag alone, does not under -std=c11. */
#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

#endif

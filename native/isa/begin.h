/* Included first by each isa/<isa>.c, before the target pragma: headers must not be compiled for one ISA only. */
#ifndef FORGE_ISA_BEGIN_H
#define FORGE_ISA_BEGIN_H

#include "../backend.h"
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <string.h>

#define V_OUT static __attribute__((noinline, unused))
#define V_FN static inline __attribute__((always_inline, unused))

/* A vocabulary is larger than what one table of codecs happens to use. */
#pragma GCC diagnostic ignored "-Wunused-function"

#endif

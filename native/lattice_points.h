/* The lattices of grids.h as decoders need them: included where the tables of lattice.h lie, in lattice.c and on GPUs. */
#ifndef FORGE_LATTICE_POINTS_H
#define FORGE_LATTICE_POINTS_H

#include "grids.h"
#include "lattice.h"

/* The value of component k of a code, by a macro from component to byte. */
#define BYTE8(c, k, V) (uint64_t)(uint8_t)V((c) >> 2 * (k) & 3) << 8 * (k)
#define EIGHT(c, V)                                                                                          \
    BYTE8(c, 0, V) | BYTE8(c, 1, V) | BYTE8(c, 2, V) | BYTE8(c, 3, V) | BYTE8(c, 4, V) | BYTE8(c, 5, V) | \
        BYTE8(c, 6, V) | BYTE8(c, 7, V),
#define FOUR(c, V) {V((c) & 7), V((c) >> 3 & 7), V((c) >> 6 & 7), V((c) >> 9 & 7)},

#define IQ2_VALUE(l) ((l) == 0 ? 8 : (l) == 1 ? 25 : 43)
#define IQ1_VALUE(l) ((l) - 1)
#define IQ3_XXS_VALUE(l) ((l) == 7 ? 62 : 8 * (l) + 4)
#define IQ3_S_VALUE(l) (2 * (l) + 1)
#define IQ2(c) EIGHT(c, IQ2_VALUE)
#define IQ1(c) EIGHT(c, IQ1_VALUE)
#define IQ3_XXS(c) FOUR(c, IQ3_XXS_VALUE)
#define IQ3_S(c) FOUR(c, IQ3_S_VALUE)

LATTICE_POINTS const uint64_t forge_grid_iq2_xxs[256] = {GRID_IQ2_XXS(IQ2)};
LATTICE_POINTS const uint64_t forge_grid_iq2_xs[512] = {GRID_IQ2_XS(IQ2)};
LATTICE_POINTS const uint64_t forge_grid_iq2_s[1024] = {GRID_IQ2_S(IQ2)};
LATTICE_POINTS const uint64_t forge_grid_iq1[2048] = {GRID_IQ1(IQ1)};
LATTICE_POINTS const float forge_grid_iq3_xxs[256][4] = {GRID_IQ3_XXS(IQ3_XXS)};
LATTICE_POINTS const float forge_grid_iq3_s[512][4] = {GRID_IQ3_S(IQ3_S)};

#define BYTES(s, top)                                                                                         \
    (uint64_t)((s) & 1) | (uint64_t)((s) >> 1 & 1) << 8 | (uint64_t)((s) >> 2 & 1) << 16 |                    \
        (uint64_t)((s) >> 3 & 1) << 24 | (uint64_t)((s) >> 4 & 1) << 32 | (uint64_t)((s) >> 5 & 1) << 40 |    \
        (uint64_t)((s) >> 6 & 1) << 48 | (uint64_t)((top) & 1) << 56
#define BITS(s) BYTES(s, (s) >> 7)
#define EVEN(s) 255 * (BYTES(s, 0x6996 >> (((s) ^ (s) >> 4) & 15)))
#define TIMES4(P, s) P(s), P((s) + 1), P((s) + 2), P((s) + 3)
#define TIMES16(P, s) TIMES4(P, s), TIMES4(P, (s) + 4), TIMES4(P, (s) + 8), TIMES4(P, (s) + 12)
#define TIMES64(P, s) TIMES16(P, s), TIMES16(P, (s) + 16), TIMES16(P, (s) + 32), TIMES16(P, (s) + 48)
LATTICE_POINTS const uint64_t forge_even_signs[128] = {TIMES64(EVEN, 0), TIMES64(EVEN, 64)};
LATTICE_POINTS const uint64_t forge_bits[256] = {TIMES64(BITS, 0), TIMES64(BITS, 64), TIMES64(BITS, 128),
                                                 TIMES64(BITS, 192)};

#endif

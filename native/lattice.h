/* The lattices of the IQ types, for every instruction set: the points' values, and each vector's nearest points.
 *
 * A vector of small integers is a code: 8 components of two bits (values 0..2) or 4 of three bits (0..7).
 */
#ifndef FORGE_LATTICE_H
#define FORGE_LATTICE_H

#include "exact.h"
#include "forge.h"
#include <stdint.h>

#if defined(__CUDACC__)
#define LATTICE_POINTS __device__
#else
#define LATTICE_POINTS
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* As the decoders need them: one byte a component, the first lowest, or one float. */
extern LATTICE_POINTS const uint64_t forge_grid_iq2_xxs[256], forge_grid_iq2_xs[512], forge_grid_iq2_s[1024];
extern LATTICE_POINTS const uint64_t forge_grid_iq1[2048]; /* signed */
extern LATTICE_POINTS const float forge_grid_iq3_xxs[256][4], forge_grid_iq3_s[512][4];

/* Seven signs as seven bytes of 0 or 255, and an eighth that makes their number even. */
extern LATTICE_POINTS const uint64_t forge_even_signs[128];
/* Eight bits as eight bytes of 0 or 1. */
extern LATTICE_POINTS const uint64_t forge_bits[256];

enum {
    LATTICE_PLACES = 6561,
    LATTICE_RIVALS = 144 /* at most */
};

typedef struct {
    const uint16_t *near; /* lists of codes, nearest first; each begins at a multiple of 16 and is filled up to one by
                             repeating its last code */
    uint32_t place[LATTICE_PLACES]; /* a lattice point: index << 9; others: start of its list / 16 << 9 | length */
    const uint16_t *rivals; /* what each list keeps without the points that another one beats in every component; NULL
                               for IQ1. Each begins at a multiple of 8 */
    uint32_t rival[LATTICE_PLACES]; /* a lattice point: 0; others: start of its rivals / 8 << 9 | their number */
    uint16_t low[256], high[256];   /* a code's place is low[code & 255] + high[code >> 8] */
    const uint16_t *codes; /* of the points, in the order of their indices */
    int points;
    int listed; /* codes in `near` */
} forge_lattice;

/* The lattice and its neighbours, made on first use, which takes some 10 ms; safe to call from any thread. */
const forge_lattice *forge_lattice_get(int which);

#ifdef __cplusplus
}
#endif

static inline uint32_t forge_lattice_number(const forge_lattice *t, uint32_t code)
{
    return (uint32_t)t->low[code & 255] + t->high[code >> 8];
}

static inline uint32_t forge_lattice_place(const forge_lattice *t, uint32_t code)
{
    return t->place[forge_lattice_number(t, code)];
}

#endif

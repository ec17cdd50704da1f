/* Expands the lattices of grids.h, and finds for each vector off a lattice the points near it, in ggml's order. */
#include "lattice.h"
#include "grids.h"
#include "lattice_points.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CODE(c) c,

static const uint16_t iq2_xxs[] = {GRID_IQ2_XXS(CODE)}, iq2_xs[] = {GRID_IQ2_XS(CODE)}, iq2_s[] = {GRID_IQ2_S(CODE)};
static const uint16_t iq1[] = {GRID_IQ1(CODE)}, iq3_xxs[] = {GRID_IQ3_XXS(CODE)}, iq3_s[] = {GRID_IQ3_S(CODE)};

static uint16_t near_iq2_xxs[161136], near_iq2_xs[230560], near_iq2_s[100576], near_iq1[362352];
static uint16_t near_iq3_xxs[62432], near_iq3_s[59296];

enum { READ_BEYOND = 8 }; /* rivals may be loaded sixteen at a time */
static uint16_t rivals_iq2_xxs[104216 + READ_BEYOND], rivals_iq2_xs[119640 + READ_BEYOND];
static uint16_t rivals_iq2_s[69064 + READ_BEYOND];
static uint16_t rivals_iq3_xxs[31976 + READ_BEYOND], rivals_iq3_s[31144 + READ_BEYOND];

static const struct {
    const uint16_t *codes;
    uint16_t *near, *rivals;
    int points, dimensions, bits;
    int shells; /* how many different distances make the neighbourhood */
} plans[LATTICES] = {
    [LATTICE_IQ2_XXS] = {iq2_xxs, near_iq2_xxs, rivals_iq2_xxs, 256, 8, 2, 2},
    [LATTICE_IQ2_XS] = {iq2_xs, near_iq2_xs, rivals_iq2_xs, 512, 8, 2, 2},
    [LATTICE_IQ2_S] = {iq2_s, near_iq2_s, rivals_iq2_s, 1024, 8, 2, 1},
    [LATTICE_IQ1] = {iq1, near_iq1, NULL, 2048, 8, 2, 3},
    [LATTICE_IQ3_XXS] = {iq3_xxs, near_iq3_xxs, rivals_iq3_xxs, 256, 4, 3, 2},
    [LATTICE_IQ3_S] = {iq3_s, near_iq3_s, rivals_iq3_s, 512, 4, 3, 3},
};

static forge_lattice lattices[LATTICES];

/* squares[v] = squared distance of the components in byte v of a code from those in the same byte of `code`; a
 * component that straddles the bytes is in neither: three-bit components are taken six bits at a time instead. */
static void part_distances(uint8_t squares[256], unsigned code, int bits)
{
    const int width = bits == 3 ? 6 : 8;
    for (unsigned v = 0; v < 1u << width; v++) {
        int sum = 0;
        for (int k = 0; k < width; k += bits) {
            int mask = (1 << bits) - 1, d = (int)(v >> k & (unsigned)mask) - (int)(code >> k & (unsigned)mask);
            sum += d * d;
        }
        squares[v] = (uint8_t)sum;
    }
}

/* Writes the list of `code` and returns its length: the points in the nearest shells by distance, then index. */
static int list_neighbours(int which, unsigned code, uint16_t *list)
{
    enum { FARTHEST = 4 * 49 + 1 };
    const uint16_t *codes = plans[which].codes;
    const int points = plans[which].points, bits = plans[which].bits, part = bits == 3 ? 6 : 8;
    const unsigned mask = (1u << part) - 1;
    uint8_t low[256], high[256], distance[2048];
    int count[FARTHEST] = {0}, start[FARTHEST], total = 0, shells = 0, last = 0;
    part_distances(low, code & mask, bits);
    part_distances(high, code >> part, bits);
    for (int i = 0; i < points; i++) {
        distance[i] = (uint8_t)(low[codes[i] & mask] + high[codes[i] >> part]);
        count[distance[i]]++;
    }
    for (int d = 0; d < FARTHEST && shells < plans[which].shells; d++) {
        start[d] = total;
        total += count[d];
        shells += count[d] > 0;
        last = d;
    }
    for (int i = 0; i < points; i++) {
        if (distance[i] <= last) {
            list[start[distance[i]]++] = codes[i];
        }
    }
    return total;
}

/* Whether p, as a component of a vector that rounds to `code`, is nowhere farther off than q, in all components: there
 * they are the same, or p is fewer steps away. */
static int is_never_farther(unsigned p, unsigned q, unsigned code, int bits)
{
    const int mask = (1 << bits) - 1;
    for (int k = 0; k < 16 && (p ^ q) >> k != 0; k += bits) {
        int a = (int)(p >> k) & mask, b = (int)(q >> k) & mask, c = (int)(code >> k) & mask;
        a -= c, b -= c;
        if (a != b && abs(a) >= abs(b)) {
            return 0;
        }
    }
    return 1;
}

/* Writes those of a list that may be the nearest, and returns their number. */
static int list_rivals(unsigned code, const uint16_t *near, int n, int bits, uint16_t *rivals)
{
    int kept = 0;
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < kept && !is_never_farther(rivals[k], near[i], code, bits)) {
            k++;
        }
        if (k == kept) {
            rivals[kept++] = near[i];
        }
    }
    return kept;
}

/* Vectors of eight are numbered in base three, those of four by their code. */
static void number_places(forge_lattice *t, int bits)
{
    for (unsigned v = 0; v < 256; v++) {
        unsigned place = 0, power = 1;
        for (int k = 0; k < 8; k += 2) {
            place += (v >> k & 3) * power;
            power *= 3;
        }
        t->low[v] = (uint16_t)(bits == 3 ? v : place);
        t->high[v] = (uint16_t)(bits == 3 ? v << 8 & 0xfff : place * power);
    }
}

static void build(int which)
{
    forge_lattice *t = &lattices[which];
    const int dimensions = plans[which].dimensions, bits = plans[which].bits;
    uint16_t *near = plans[which].near;
    uint32_t used = 0, rivals = 0;
    t->codes = plans[which].codes;
    t->points = plans[which].points;
    t->near = near;
    t->rivals = plans[which].rivals;
    number_places(t, bits);
    for (int i = 0; i < plans[which].points; i++) {
        unsigned code = plans[which].codes[i];
        t->place[t->low[code & 255] + t->high[code >> 8]] = (uint32_t)i << 9 | 0x80000000u;
    }
    for (unsigned code = 0; code < 1u << bits * dimensions; code++) {
        if (bits == 2 && (code & code >> 1 & 0x5555)) {
            continue; /* a component of 3 */
        }
        uint32_t *place = &t->place[t->low[code & 255] + t->high[code >> 8]];
        if (*place & 0x80000000u) {
            *place &= 0x7fffffffu;
            continue;
        }
        int n = list_neighbours(which, code, near + used);
        if (t->rivals != NULL) {
            int few = list_rivals(code, near + used, n, bits, plans[which].rivals + rivals);
            t->rival[forge_lattice_number(t, code)] = rivals / 8 << 9 | (uint32_t)few;
            rivals += (uint32_t)(few + 7) / 8 * 8;
        }
        *place = used / 16 << 9 | (uint32_t)n;
        for (; n % 16; n++) {
            near[used + (uint32_t)n] = near[used + (uint32_t)n - 1];
        }
        used += (uint32_t)n;
    }
    t->listed = (int)used;
}

const forge_lattice *forge_lattice_get(int which)
{
    enum { ABSENT, BUILDING, READY };
    static atomic_int state[LATTICES];
    if (atomic_load_explicit(&state[which], memory_order_acquire) != READY) {
        int absent = ABSENT;
        if (atomic_compare_exchange_strong(&state[which], &absent, BUILDING)) {
            build(which);
            atomic_store_explicit(&state[which], READY, memory_order_release);
        }
        while (atomic_load_explicit(&state[which], memory_order_acquire) != READY) {
        }
    }
    return &lattices[which];
}

int64_t forge_lattice_image(int which, uint64_t address, uint8_t *image)
{
    const forge_lattice *t = forge_lattice_get(which);
    const size_t listed = (size_t)t->listed * sizeof *t->near;
    if (image != NULL) {
        forge_lattice there = *t;
        there.near = (const uint16_t *)(uintptr_t)(address + sizeof there);
        there.codes = there.rivals = NULL;
        memcpy(image, &there, sizeof there);
        memcpy(image + sizeof there, t->near, listed);
    }
    return (int64_t)(sizeof *t + listed);
}

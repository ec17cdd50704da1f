/* Runs every codec of two backends once over the same weights, each between two getppid() calls that a plugin of QEMU
 * sees and answers with a number of instructions:
 *
 *   TYPE BACKEND DIRECTION WEIGHTS COUNT        DIRECTION: plain, weighted or decode
 */
#define _DEFAULT_SOURCE
#include "forge.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { ROWS = 16, WIDTH = 2048, WEIGHTS = ROWS * WIDTH };

static float x[WEIGHTS], w[WIDTH], y[WEIGHTS];
static uint8_t packed[WEIGHTS * 8];

static double uniform(void) /* splitmix64 */
{
    static uint64_t state = 1;
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)(z >> 40) / (1 << 24);
}

static void encode(const forge_backend *b, const forge_type *t, const float *weights)
{
    int64_t where;
    if (forge_convert(b, 0, x, t->id, packed, ROWS, WIDTH, weights, 0, &where) != FORGE_OK) {
        fprintf(stderr, "%s: cannot be encoded\n", t->name);
        exit(1);
    }
}

static void measure_encode(const char *name, const forge_type *t, const char *how, const float *weights)
{
    const forge_backend *b = forge_backend_find(name);
    encode(b, t, weights); /* tables made on first use */
    printf("%s %s %s %d ", t->name, name, how, WEIGHTS);
    (void)getppid();
    encode(b, t, weights);
    (void)getppid();
}

static void measure_decode(const char *name, const forge_type *t)
{
    int64_t where;
    printf("%s %s decode %d ", t->name, name, WEIGHTS);
    (void)getppid();
    forge_convert(forge_backend_find(name), t->id, packed, 0, y, ROWS, WIDTH, NULL, 0, &where);
    (void)getppid();
}

int main(void)
{
    static const char *const names[] = {"scalar", "neon"};
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int i = 0; i < WEIGHTS; i++) {
        x[i] = (float)(uniform() + uniform() + uniform() + uniform() - 2);
    }
    for (int i = 0; i < WIDTH; i++) {
        w[i] = (float)uniform() + 0.01f;
    }
    for (const forge_type *t = forge_types; t->name; t++) {
        const int real = t->kind & (FORGE_KIND_FLOAT | FORGE_KIND_QUANT);
        if (!real || !t->block || !t->decodes || t->id == 0) {
            continue;
        }
        for (int i = 0; i < 2; i++) {
            if (t->encodes && !(t->kind & FORGE_KIND_NEEDS_WEIGHTS)) {
                measure_encode(names[i], t, "plain", NULL);
            }
            if (t->encodes && t->kind & (FORGE_KIND_WEIGHTED | FORGE_KIND_NEEDS_WEIGHTS)) {
                measure_encode(names[i], t, "weighted", w);
            }
            measure_decode(names[i], t);
        }
    }
    return 0;
}

/* Compares backends of the block core on made-up data and prints a digest of what each type's codec makes of it.
 *
 *   parity NAME      compares backend NAME with "scalar"; digests are of NAME's bytes
 *
 * Compared: encoded bytes without and with importance, decoded floats (any NaN equals any NaN), for every type, for row
 * counts that do and do not fill the lanes, and widths of one block and several; and fitted rows. What imports are made
 * of: matrices of words and nibbles turned, blocks out of given codes, 8-bit floats as every type. Output is the same
 * text on every machine, so that diff compares processors too.
 */
#include "forge.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 19, WIDTH = 1280, KINDS = 9 };

static uint64_t state;

static uint32_t draw(void) /* splitmix64 */
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)(z >> 32);
}

static float bell(void) /* a sum of uniforms: exact arithmetic, so the same everywhere */
{
    int sum = 0;
    for (int i = 0; i < 6; i++) {
        sum += (int)(draw() & 0xffff) - 0x8000;
    }
    return (float)sum / 65536;
}

static float element(int kind, int i)
{
    float f = 0;
    uint32_t u;
    switch (kind) {
    case 0: return bell() / 32;
    case 1: return fabsf(bell());
    case 2: return -1 - fabsf(bell()) / 64;
    case 3: return i % 256 < 128 ? 0 : bell();
    case 4: return i % 2 ? -0.0f : 0.0f;
    case 5: return 0.375f;
    case 6: return (float)((int)(draw() % 17) - 8);
    case 7:
        f = bell();
        return ldexpf(f, -(int)(draw() % 150));
    default:
        u = draw();
        u = (u & 0x7f800000u) == 0x7f800000u ? u & 0xff7fffffu : u;
        memcpy(&f, &u, sizeof f);
        return f;
    }
}

static uint64_t digest(uint64_t h, const void *data, size_t n) /* FNV-1a */
{
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 0x100000001b3u;
    }
    return h;
}

static void one_nan(float *y, int n)
{
    for (int i = 0; i < n; i++) {
        y[i] = y[i] != y[i] ? NAN : y[i];
    }
}

static float x[ROWS * WIDTH], w[WIDTH];
static uint8_t packed[2][ROWS * WIDTH * 8 + 1];
static float y[2][ROWS * WIDTH];

static int compare(const forge_backend *const *b, const forge_type *t, int rows, int width, const float *weights,
                   uint64_t *sum)
{
    size_t bytes = (size_t)(rows * width / t->block * t->bytes);
    int64_t where;
    for (int k = 0; k < 2; k++) {
        uint8_t *out = packed[k] + 1; /* blocks at odd addresses */
        int status = t->encodes ? forge_convert(b[k], 0, x, t->id, out, rows, width, weights, 0, &where) : 0;
        if (status != FORGE_OK) {
            printf("%s: status %d at %lld\n", t->name, status, (long long)where);
            return 1;
        }
        for (size_t i = 0; !t->encodes && i < bytes; i++) {
            out[i] = (uint8_t)draw();
        }
        if (k && !t->encodes) {
            memcpy(packed[1], packed[0], bytes + 1);
        }
        forge_convert(b[k], t->id, out, 0, y[k], rows, width, NULL, 0, &where);
        one_nan(y[k], rows * width);
    }
    *sum = digest(digest(*sum, packed[1] + 1, bytes), y[1], (size_t)(rows * width) * sizeof(float));
    return memcmp(packed[0], packed[1], bytes + 1) || memcmp(y[0], y[1], (size_t)(rows * width) * sizeof(float));
}

enum { WIDE = 832 }; /* columns of fitted rows: three chunks and a part */

/* A covariance of the first `width` columns of made-up inputs, factored by a backend; its memory is never freed. */
static forge_fit new_fit(const forge_backend *backend, int width)
{
    static float h[WIDE * WIDE], inputs[8][WIDE];
    const size_t n = (size_t)width, chunks = (n + 255) / 256;
    forge_fit fit = {width, calloc(n, sizeof(float)), calloc(n * 256, sizeof(float)), calloc(n * n, sizeof(int16_t)),
                     calloc(n * chunks, sizeof(float)), calloc(n * 256, sizeof(float)), NULL};
    state = 1;
    for (int i = 0; i < 8 * WIDE; i++) {
        inputs[i / WIDE][i % WIDE] = bell();
    }
    for (int i = 0; i < width * width; i++) {
        h[i] = i / width == i % width ? 0.5f : 0.f;
        for (int k = 0; k < 8; k++) {
            h[i] += inputs[k][i / width] * inputs[k][i % width] * 0.125f;
        }
    }
    if (forge_fit_prepare(backend, h, &fit) >= 0) {
        fprintf(stderr, "not positive definite\n");
        exit(1);
    }
    return fit;
}

/* Rows fitted by both backends, in every type that is; prints digests of b[1]'s bytes and errors. */
static int compare_fits(const forge_backend *const *b)
{
    static uint8_t blocks[2][ROWS * WIDE * 2];
    const int widths[2] = {WIDE, 768}; /* of blocks of 32 and 64, of larger ones */
    forge_fit fits[2][2];
    int bad = 0;
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 2; i++) {
            fits[k][i] = new_fit(b[k], widths[i]);
        }
    }
    for (int i = 0; i < ROWS * WIDE; i++) {
        x[i] = bell();
    }
    for (const forge_type *t = forge_types; t->name; t++) {
        const int large = t->block > 64, width = widths[large];
        const int64_t stride = t->block ? width / t->block * t->bytes : 0;
        double errors[2][ROWS] = {{0}};
        int status = FORGE_OK;
        memset(blocks, 0, sizeof blocks);
        for (int k = 0; k < 2; k++) {
            void *scratch = malloc((size_t)forge_fit_scratch(b[k], width));
            status = forge_fit_rows(b[k], &fits[k][large], t->id, x, WIDE, blocks[k], stride, ROWS, 2, 2, errors[k],
                                    scratch);
            free(scratch);
        }
        if (status != FORGE_OK) {
            continue;
        }
        const uint64_t sum = digest(0xcbf29ce484222325u, blocks[1], (size_t)(ROWS * stride));
        printf("%-8s %016llx fitted\n", t->name, (unsigned long long)digest(sum, errors[1], sizeof errors[1]));
        if (memcmp(blocks[0], blocks[1], sizeof blocks[0]) || memcmp(errors[0], errors[1], sizeof errors[0])) {
            printf("%s: fitted rows differ from scalar\n", t->name);
            bad = 1;
        }
    }
    return bad;
}

/* Prints the digest of what the second backend made, and whether the first made the same. */
static int told(const char *name, const char *what, const void *a, const void *b, size_t bytes)
{
    printf("%-8s %016llx %s\n", name, (unsigned long long)digest(0xcbf29ce484222325u, b, bytes), what);
    if (memcmp(a, b, bytes)) {
        printf("%s: %s differ from scalar\n", name, what);
        return 1;
    }
    return 0;
}

enum { HIGH = 300, BROAD = 75 }; /* words that fill no tile */

static int compare_turned(const forge_backend *const *b)
{
    static const uint8_t order[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    static uint32_t words[HIGH * BROAD], whole[2][HIGH * BROAD], nibbles[2][8 * BROAD * ((HIGH + 7) / 8)];
    int bad = 0;
    state = 3;
    for (int i = 0; i < HIGH * BROAD; i++) {
        words[i] = draw();
    }
    for (int height = HIGH - 1; height <= HIGH; height++) {
        memset(whole, 0, sizeof whole);
        memset(nibbles, 0, sizeof nibbles);
        for (int k = 0; k < 2; k++) {
            const float *from = (const float *)(const void *)words;
            forge_turn_words(b[k], from, height, BROAD, BROAD - 1, (float *)(void *)whole[k]);
            forge_turn_nibbles(b[k], from, height, BROAD, BROAD - 1, order, (float *)(void *)nibbles[k]);
        }
        bad |= told("words", "turned", whole[0], whole[1], sizeof whole[0]);
        bad |= told("nibbles", "turned", nibbles[0], nibbles[1], sizeof nibbles[0]);
    }
    return bad;
}

static int compare_grids(const forge_backend *const *b)
{
    static uint8_t codes[ROWS * WIDTH], blocks[2][ROWS * WIDTH * 2];
    static int16_t zeros[ROWS * WIDTH / 32];
    static uint16_t halves[2][ROWS * WIDTH / 32];
    int bad = 0;
    state = 4;
    for (int i = 0; i < ROWS * WIDTH; i++) {
        codes[i] = (uint8_t)draw();
    }
    for (int i = 0; i < ROWS * WIDTH / 32; i++) {
        zeros[i] = (int16_t)(draw() % 17);
        halves[0][i] = (uint16_t)draw();
        halves[1][i] = (uint16_t)draw();
    }
    for (const forge_type *t = forge_types; t->name; t++) {
        uint64_t sums[2] = {0xcbf29ce484222325u, 0xcbf29ce484222325u};
        int taken = 0;
        for (int way = 0; way < 16; way++) { /* 4 bits or 8, zeros or none, flipped or not, groups of 32 or 128 */
            const int bits = way & 1 ? 4 : 8;
            forge_grid g = {codes, bits, bits == 4 ? -8 : 0, way >> 2 & 1, way & 8 ? 128 : 32, way & 2 ? zeros : NULL,
                            halves[0], NULL};
            int status = FORGE_OK;
            for (int k = 0; k < 2; k++) {
                memset(blocks[k], 0, sizeof blocks[k]);
                status = forge_grid_blocks(b[k], t->id, &g, ROWS, WIDTH, blocks[k]);
                if (status == FORGE_E_TYPE) { /* a type with minima */
                    g.minima = halves[1];
                    status = forge_grid_blocks(b[k], t->id, &g, ROWS, WIDTH, blocks[k]);
                    g.minima = NULL;
                }
            }
            for (int k = 0; k < 2 && status == FORGE_OK; k++) {
                sums[k] = digest(sums[k], blocks[k], sizeof blocks[k]);
                taken = 1;
            }
        }
        if (taken) {
            bad |= told(t->name, "of given codes", &sums[0], &sums[1], sizeof sums[0]);
        }
    }
    return bad;
}

static int compare_floats8(const forge_backend *const *b)
{
    static uint8_t codes[ROWS * WIDTH], made[2][ROWS * WIDTH * 8];
    static float scales[ROWS * WIDTH / 32];
    int bad = 0;
    state = 5;
    for (int i = 0; i < ROWS * WIDTH; i++) {
        codes[i] = (uint8_t)draw();
    }
    for (int i = 0; i < ROWS * WIDTH / 32; i++) {
        const float f = bell();
        scales[i] = ldexpf(f, -(int)(draw() % 40));
    }
    for (const forge_type *t = forge_types; t->name; t++) {
        for (int i = 0; i < ROWS * WIDTH && t->kind & FORGE_KIND_QUANT; i++) {
            codes[i] &= 0xbb; /* no NaNs and infinities where blocks are to be made */
        }
        for (int format = FORGE_E4M3; format <= FORGE_E5M2FNUZ; format++) {
            const int64_t group = format == FORGE_E4M3 ? 128 : format == FORGE_E5M2 ? 300 : WIDTH;
            const forge_floats8 src = {codes, format, group, scales};
            double sums[2][2] = {{0}};
            int64_t where[2];
            int status = FORGE_OK;
            memset(made, 0, sizeof made);
            for (int k = 0; k < 2; k++) {
                status = forge_convert_floats8(b[k], &src, t->id, made[k], ROWS, WIDTH, 0, sums[k], &where[k]);
            }
            if (status != FORGE_OK) {
                continue;
            }
            bad |= told(t->name, "of 8-bit floats", made[0], made[1], sizeof made[0]);
            if (t->kind & FORGE_KIND_QUANT) {
                bad |= told(t->name, "squared errors", sums[0], sums[1], sizeof sums[0]);
            }
        }
    }
    return bad;
}

int main(int argc, char **argv)
{
    const forge_backend *b[2] = {forge_backend_find("scalar"), forge_backend_find(argc > 1 ? argv[1] : "scalar")};
    if (!b[1]) {
        fprintf(stderr, "no such backend here: %s\n", argv[1]);
        return 2;
    }
    int bad = 0;
    for (const forge_type *t = forge_types; t->name; t++) {
        if (!t->block || !t->decodes) {
            continue;
        }
        uint64_t sum = 0xcbf29ce484222325u;
        for (int kind = 0; kind < KINDS; kind++) {
            state = (uint64_t)(t->id * KINDS + kind);
            for (int i = 0; i < WIDTH; i++) {
                w[i] = kind % 3 == 2 && i % 5 == 0 ? 0 : ldexpf((float)(draw() & 0xffff), kind % 4 * -9);
            }
            for (int i = 0; i < ROWS * WIDTH; i++) {
                x[i] = element(kind, i);
            }
            for (int weighted = 0; weighted < 2; weighted++) {
                if (!weighted && (t->kind & FORGE_KIND_NEEDS_WEIGHTS)) {
                    continue;
                }
                const float *weights = weighted ? w : NULL;
                if (compare(b, t, 1, t->block, weights, &sum) || compare(b, t, ROWS, 256, weights, &sum) ||
                    compare(b, t, 3, WIDTH, weights, &sum)) {
                    printf("%s: %s differs from scalar on data of kind %d%s\n", t->name, argv[1], kind,
                           weighted ? " with importance" : "");
                    bad = 1;
                }
            }
        }
        printf("%-8s %016llx\n", t->name, (unsigned long long)sum);
    }
    return bad | compare_fits(b) | compare_turned(b) | compare_grids(b) | compare_floats8(b);
}

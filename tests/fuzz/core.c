/* Fuzz targets over the block core, for libFuzzer: `core TARGET [libFuzzer's arguments]`.
 *
 * Each input goes through every instruction set that this machine has, and what they make must be the same: bytes to
 * the bit, floats too but for which NaN. Memory is on the heap, as long as the documented sizes say and not a byte
 * longer, so that AddressSanitizer sees a step outside. A target is a row of `targets`. */
#include "../../native/forge.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

enum { MOST_ISAS = 8, TYPES = 43, Q8_K = 15, MXFP4 = 39 };

static const forge_backend *isas[MOST_ISAS];
static int isa_count;
static const forge_type *rows_by_id[TYPES];

/* ------------------------------------------------------------------ what an input says */

typedef struct {
    const uint8_t *p;
    size_t left;
} Input;

/* 0 where the input has ended. */
static uint8_t take(Input *in)
{
    return in->left ? in->left--, *in->p++ : 0;
}

static uint32_t take_word(Input *in)
{
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) {
        word |= (uint32_t)take(in) << 8 * i;
    }
    return word;
}

/* n bytes; where the input ends before, it starts again, so that a short one fills a block. */
static void take_bytes(Input *in, uint8_t *to, size_t n)
{
    const size_t some = in->left < n ? in->left : n;
    memcpy(to, in->p, some);
    for (size_t i = some; i < n; i++) {
        to[i] = some ? to[i - some] : 0;
    }
    in->p += some;
    in->left -= some;
}

/* 2^e, for e from -126 to 127. */
static float power(int e)
{
    const uint32_t bits = (uint32_t)(e + 127) << 23;
    float made;
    memcpy(&made, &bits, sizeof made);
    return made;
}

/* n floats as one of four forms: any bits; halves; a byte each from 2^-30 on upwards; small whole numbers. */
static void take_floats(Input *in, int form, float *to, int64_t n)
{
    if (form == 0) {
        take_bytes(in, (uint8_t *)to, (size_t)n * sizeof *to);
        return;
    }
    const size_t each = form == 1 ? 2 : 1;
    uint8_t *raw = malloc((size_t)n * each + 1);
    take_bytes(in, raw, (size_t)n * each);
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        switch (form) {
        case 1:
            memcpy(&half, raw + 2 * i, 2);
            to[i] = ((float)(half & 0x3ff) + (half & 0x7c00 ? 1024.0f : 0.0f)) * power((half >> 10 & 31) - 25);
            to[i] = half & 0x8000 ? -to[i] : to[i];
            break;
        case 2: to[i] = (float)((raw[i] & 1) + 2) * power((raw[i] >> 1 & 63) - 31) * (raw[i] & 128 ? -1.0f : 1.0f); break;
        default: to[i] = (float)(int8_t)raw[i] * 0.0078125f; break;
        }
    }
    free(raw);
}

/* ------------------------------------------------------------------ what must hold */

static void require(int holds, const char *what, const char *where)
{
    if (!holds) {
        fprintf(stderr, "FUZZ: %s: %s\n", where, what);
        abort();
    }
}

static void same_bytes(const void *a, const void *b, size_t n, const char *where)
{
    require(n == 0 || memcmp(a, b, n) == 0, "instruction sets make different bytes", where);
}

static void same_floats(const float *a, const float *b, int64_t n, const char *where)
{
    for (int64_t i = 0; memcmp(a, b, (size_t)n * sizeof *a) && i < n; i++) {
        require(memcmp(a + i, b + i, sizeof *a) == 0 || (isnan(a[i]) && isnan(b[i])),
                "instruction sets make different floats", where);
    }
}

/* n bytes of their own, `off` bytes past a boundary; what is before them is not looked after. */
static uint8_t *room(size_t n, int off, void **held)
{
    *held = malloc(n + (size_t)off + !(n + (size_t)off));
    return (uint8_t *)*held + off;
}

static size_t bytes_of(const forge_type *t, int64_t elements) { return (size_t)(elements / t->block * t->bytes); }

/* ------------------------------------------------------------------ targets */

/* Blocks of a type as floats. */
static void decode(Input *in)
{
    const forge_type *t = rows_by_id[take(in) % TYPES];
    const int off = take(in) & 3;
    if (!t->decodes) {
        return;
    }
    const int64_t fit = (int64_t)(in->left / (size_t)t->bytes), most = t->block < 512 ? 512 / t->block : 1;
    const int64_t blocks = fit < 1 ? 1 : fit < most ? fit : most, count = blocks * t->block;
    void *held;
    float *made[MOST_ISAS];
    uint8_t *data = room((size_t)(blocks * t->bytes), off, &held);
    take_bytes(in, data, (size_t)(blocks * t->bytes));
    for (int i = 0; i < isa_count; i++) {
        int64_t where;
        made[i] = malloc((size_t)count * sizeof(float));
        const int status = forge_convert(isas[i], t->id, data, 0, made[i], 1, count, NULL, 0, &where);
        require(status == FORGE_OK, "blocks are refused", t->name);
        same_floats(made[0], made[i], count, t->name);
    }
    const int64_t bad = forge_first_not_finite(t->id, data, blocks);
    require(bad >= 0 && bad <= blocks, "a block that is not there is not finite", t->name);
    /* Blocks whose scales are halves are far from a float's bounds; powers of two and floats as scales are not. */
    const int far = t->kind & FORGE_KIND_QUANT && t->id != MXFP4 && t->id != Q8_K;
    for (int64_t i = 0; far && i < bad * t->block; i++) {
        require(isfinite(made[0][i]), "numbers that are not finite are not seen", t->name);
    }
    for (int i = 0; i < isa_count; i++) {
        free(made[i]);
    }
    free(held);
}

/* Rows of floats as blocks of a type, and these as floats again. */
static void encode(Input *in, const forge_type *t)
{
    const int flags = take(in), form = flags & 3, off = flags >> 2 & 3, strict = flags >> 4 & 1;
    /* One block, or two, beside or below each other, whose lanes must not be mixed up. */
    const int64_t width = t->block * (1 + (flags >> 6 == 2)), rows = 1 + (flags >> 6 == 3);
    const int weighing = (flags >> 5 & 1) || (t->kind & FORGE_KIND_NEEDS_WEIGHTS);
    float *x = malloc((size_t)(rows * width) * sizeof *x), *w = malloc((size_t)width * sizeof *w);
    take_floats(in, form, x, rows * width);
    take_floats(in, form, w, width);
    for (int64_t i = 0; form && i < width; i++) {
        w[i] = fabsf(w[i]);
    }
    const size_t size = bytes_of(t, rows * width);
    int64_t where[MOST_ISAS];
    void *held[MOST_ISAS];
    uint8_t *made[MOST_ISAS];
    int status[MOST_ISAS];
    for (int i = 0; i < isa_count; i++) {
        made[i] = room(size, off, &held[i]);
        status[i] = forge_convert(isas[i], 0, x, t->id, made[i], rows, width, weighing ? w : NULL, strict, &where[i]);
        require(status[i] == status[0] && where[i] == where[0], "instruction sets refuse differently", t->name);
        if (status[0] == FORGE_OK) {
            same_bytes(made[0], made[i], size, t->name);
        }
    }
    require(status[0] == FORGE_OK || status[0] == FORGE_E_NOT_FINITE || status[0] == FORGE_E_WEIGHTS ||
                status[0] == FORGE_E_TOO_LARGE,
            "a status that floats do not lead to", t->name);
    if (status[0] == FORGE_OK) {
        float *y = malloc((size_t)(rows * width) * sizeof *y);
        int64_t at;
        require(forge_convert(isas[0], t->id, made[0], 0, y, rows, width, NULL, 0, &at) == FORGE_OK,
                "what was encoded is not decoded", t->name);
        free(y);
    }
    for (int i = 0; i < isa_count; i++) {
        free(held[i]);
    }
    free(x);
    free(w);
}

static void encode_some(Input *in, const int *ids, int n) { encode(in, rows_by_id[ids[take(in) % n]]); }

/* Floats, and blocks that are found in one pass or a short search. */
static void encode_plain(Input *in)
{
    static const int ids[] = {0, 1, 28, 30, 2, 3, 6, 7, 8, 34, 35, 39, 40, 41, 42};
    encode_some(in, ids, sizeof ids / sizeof *ids);
}

static void encode_k(Input *in)
{
    static const int ids[] = {10, 11, 12, 13, 14};
    encode_some(in, ids, sizeof ids / sizeof *ids);
}

static void encode_iq(Input *in)
{
    static const int ids[] = {16, 17, 18, 19, 20, 21, 22, 23, 29};
    encode_some(in, ids, sizeof ids / sizeof *ids);
}

/* Types, rows and widths as they come; where the core takes them, memory has the size that they declare. */
static void convert(Input *in)
{
    const int8_t from = (int8_t)take(in), to = (int8_t)take(in);
    const int flags = take(in);
    const int64_t rows = flags & 1 ? (int32_t)take_word(in) : take(in) % 3;
    const int64_t width = flags & 2 ? (int32_t)take_word(in) : (flags >> 4) * 32;
    const forge_type *a = from >= 0 && from < TYPES ? rows_by_id[from] : NULL;
    const forge_type *b = to >= 0 && to < TYPES ? rows_by_id[to] : NULL;
    const int known = a && b && a->block && b->block && a->decodes && b->encodes;
    const int whole = known && rows >= 0 && width >= 0 && width % a->block == 0 && width % b->block == 0;
    if (whole && rows * width > 512) {
        return; /* as much as is asked for is not there */
    }
    const size_t taken = whole ? bytes_of(a, rows * width) : 0, size = whole ? bytes_of(b, rows * width) : 0;
    void *held_from, *held[MOST_ISAS];
    uint8_t *src = room(taken, flags >> 2 & 1, &held_from), *made[MOST_ISAS];
    int64_t where[MOST_ISAS];
    int status[MOST_ISAS];
    take_bytes(in, src, taken);
    for (int i = 0; i < isa_count; i++) {
        made[i] = room(size, flags >> 3 & 1, &held[i]);
        status[i] = forge_convert(isas[i], from, src, to, made[i], rows, width, NULL, flags >> 2 & 1, &where[i]);
        require(status[i] == status[0] && where[i] == where[0], "instruction sets refuse differently", "convert");
        if (status[i] == FORGE_OK && to == 0) {
            same_floats((float *)(void *)made[0], (float *)(void *)made[i], flags >> 3 & 1 ? 0 : rows * width, b->name);
        } else if (status[i] == FORGE_OK && b->kind & FORGE_KIND_QUANT) {
            same_bytes(made[0], made[i], size, b->name);
        }
    }
    require(known || status[0] == FORGE_E_TYPE, "a type without a codec is taken", "convert");
    require(!known || whole || status[0] == FORGE_E_WIDTH, "rows that are not whole are taken", "convert");
    for (int i = 0; i < isa_count; i++) {
        free(held[i]);
    }
    free(held_from);
}

static void floats8(Input *in)
{
    const int id = take(in) % (TYPES + 2), flags = take(in), slow = id < TYPES && id >= 16 && id <= 29;
    const int64_t rows = 1 + (flags & 1), width = (1 + (take(in) & 15)) * (flags & 2 ? 32 : 17);
    const int64_t group = (int64_t)take(in) - 1, groups = group > 0 ? (width + group - 1) / group : 0;
    const forge_type *t = id < TYPES ? rows_by_id[id] : NULL;
    const size_t size = t && t->block ? bytes_of(t, rows * width) + (size_t)t->bytes : 0;
    if (rows * width > (slow ? 256 : 512)) {
        return;
    }
    uint8_t *codes = malloc((size_t)(rows * width));
    float *scales = malloc((size_t)(rows * groups) * sizeof *scales + 1);
    take_floats(in, flags >> 2 & 3, scales, rows * groups);
    take_bytes(in, codes, (size_t)(rows * width));
    const forge_floats8 src = {codes, flags >> 4 & 7, group, scales};
    void *held[MOST_ISAS];
    double squares[MOST_ISAS][2];
    int64_t where[MOST_ISAS];
    int status[MOST_ISAS];
    for (int i = 0; i < isa_count; i++) {
        held[i] = calloc(size + 1, 1);
        squares[i][0] = squares[i][1] = 0;
        double *sums = flags >> 7 ? squares[i] : NULL;
        status[i] = forge_convert_floats8(isas[i], &src, id, held[i], rows, width, 1, sums, &where[i]);
        require(status[i] == status[0] && where[i] == where[0], "instruction sets refuse differently", "floats8");
        if (status[i] == FORGE_OK && t->kind & FORGE_KIND_QUANT) {
            same_bytes(held[0], held[i], size, t->name);
            same_bytes(squares[0], squares[i], sizeof squares[0], "squares");
        } else if (status[i] == FORGE_OK && id == 0) {
            same_floats(held[0], held[i], rows * width, t->name);
        }
    }
    for (int i = 0; i < isa_count; i++) {
        free(held[i]);
    }
    free(codes);
    free(scales);
}

static void grid_blocks(Input *in)
{
    static const int ids[] = {2, 3, 6, 7, 8, 0, 12, -1};
    const int id = ids[take(in) & 7], flags = take(in), bits = flags & 1 ? 4 : flags & 2 ? 8 : take(in);
    const int64_t group = flags & 4 ? (int64_t)take(in) - 64 : 32 * (1 + (flags >> 3 & 1)), rows = 1 + (flags >> 4 & 1);
    const int64_t width = 64 * (1 + (flags >> 5 & 1));
    const int64_t groups = group > 0 ? rows * (width / group) : 0;
    uint8_t *codes = malloc((size_t)(rows * width * (bits == 4 ? 1 : 2) / 2));
    int16_t *zeros = malloc((size_t)groups * 2 + 1);
    uint16_t *scales = malloc((size_t)groups * 2 + 1), *minima = malloc((size_t)groups * 2 + 1);
    const int low = (int8_t)take(in);
    take_bytes(in, (uint8_t *)zeros, (size_t)groups * 2);
    take_bytes(in, (uint8_t *)scales, (size_t)groups * 2);
    take_bytes(in, (uint8_t *)minima, (size_t)groups * 2);
    take_bytes(in, codes, (size_t)(rows * width * (bits == 4 ? 1 : 2) / 2));
    const int with_minima = (id == 3 || id == 7) ^ (flags == 255);
    const forge_grid grid = {codes, bits, low, flags >> 7, group, flags >> 6 & 1 ? zeros : NULL, scales,
                             with_minima ? minima : NULL};
    const forge_type *t = id >= 0 ? rows_by_id[id] : NULL;
    const size_t size = t ? bytes_of(t, rows * width / t->block * t->block) : 0;
    void *held[MOST_ISAS];
    int status[MOST_ISAS];
    for (int i = 0; i < isa_count; i++) {
        held[i] = malloc(size + 1);
        status[i] = forge_grid_blocks(isas[i], id, &grid, rows, width, held[i]);
        require(status[i] == status[0], "instruction sets refuse differently", "grid_blocks");
        same_bytes(held[0], held[i], status[i] == FORGE_OK ? size : 0, "grid_blocks");
    }
    for (int i = 0; i < isa_count; i++) {
        free(held[i]);
    }
    free(codes);
    free(zeros);
    free(scales);
    free(minima);
}

static void turned(Input *in)
{
    const int nibbles = take(in) & 1;
    const int64_t height = 1 + take(in) % 140, width = 1 + take(in) % 40, stride = width + take(in) % 3;
    const int64_t count = (height - 1) * stride + width;
    const int64_t made_words = nibbles ? 8 * width * ((height + 7) / 8) : width * height;
    uint8_t order[8];
    take_bytes(in, order, 8);
    for (int i = 0; i < 8; i++) {
        order[i] &= 7;
    }
    float *words = malloc((size_t)count * sizeof *words), *made[MOST_ISAS];
    take_bytes(in, (uint8_t *)words, (size_t)count * sizeof *words);
    for (int i = 0; i < isa_count; i++) {
        made[i] = malloc((size_t)made_words * sizeof(float));
        if (nibbles) {
            forge_turn_nibbles(isas[i], words, height, stride, width, order, made[i]);
        } else {
            forge_turn_words(isas[i], words, height, stride, width, made[i]);
        }
        same_bytes(made[0], made[i], (size_t)made_words * sizeof(float), "turned");
    }
    for (int64_t k = 0; !nibbles && k < height; k++) {
        for (int64_t m = 0; m < width; m++) {
            same_bytes(made[0] + m * height + k, words + k * stride + m, sizeof(float), "turned");
        }
    }
    for (int i = 0; i < isa_count; i++) {
        free(made[i]);
    }
    free(words);
}

static void fields(Input *in)
{
    const int bits = take(in) % 10;
    const size_t n = in->left;
    uint8_t *packed = malloc(n + !n), *made = malloc(8 * n + 1);
    take_bytes(in, packed, n);
    const int status = forge_fields(packed, (int64_t)n, bits, made);
    require((status == FORGE_OK) == (bits == 1 || bits == 2 || bits == 4), "a width is taken or refused wrongly", "fields");
    for (size_t i = 0; status == FORGE_OK && i < n * 8 / (size_t)bits; i++) {
        const size_t each = 8 / (size_t)bits;
        require(made[i] == (packed[i / each] >> i % each * (size_t)bits & ((1 << bits) - 1)), "a field is another", "fields");
    }
    free(packed);
    free(made);
}

static void moments(Input *in)
{
    const int flags = take(in);
    const int64_t tokens = take(in) % 9, count = 1 + (flags & 3), first = (flags >> 2 & 3) % (count + 1);
    const int64_t last = first + (flags >> 4 & 3) % (count + 1 - first);
    const int64_t inputs = count * tokens * 16, sums = count * (count + 1) / 2 * 256;
    float *slices = malloc((size_t)inputs * sizeof *slices + 1), *tiles[MOST_ISAS];
    take_floats(in, flags >> 6, slices, inputs);
    for (int i = 0; i < isa_count; i++) {
        tiles[i] = malloc((size_t)sums * sizeof(float));
        for (int64_t k = 0; k < sums; k++) {
            tiles[i][k] = (float)k;
        }
        forge_moments(isas[i], slices, tokens, count, first, last, tiles[i]);
        same_floats(tiles[0], tiles[i], sums, "moments");
    }
    for (int i = 0; i < isa_count; i++) {
        free(tiles[i]);
    }
    free(slices);
}

/* A covariance, factored on each instruction set. */
typedef struct {
    forge_fit with[MOST_ISAS];
    int made, bad; /* bad: not positive definite */
} Factored;

/* Out of n columns of three vectors, and what is added to its diagonal. */
static void factor(Factored *f, const float *vectors, int64_t n, float ridge)
{
    const size_t size = (size_t)(n * n) * sizeof(float);
    float *h = malloc(size), *spoilt = malloc(size);
    int64_t first = -1;
    for (int64_t r = 0; r < n; r++) {
        for (int64_t c = 0; c <= r; c++) {
            float sum = r == c ? ridge : 0;
            for (int v = 0; v < 3; v++) {
                sum += vectors[v * n + r] * vectors[v * n + c];
            }
            h[r * n + c] = h[c * n + r] = sum;
        }
    }
    for (int i = 0; i < isa_count; i++) {
        const int64_t chunks = (n + 255) / 256;
        f->with[i] = (forge_fit){n, malloc((size_t)n * 4), malloc((size_t)n * 1024), malloc((size_t)(n * n) * 2),
                                 malloc((size_t)(n * chunks) * 4), malloc((size_t)n * 1024), NULL};
        memcpy(spoilt, h, size);
        const int64_t bad = forge_fit_prepare(isas[i], spoilt, &f->with[i]);
        first = i ? first : bad;
        require(bad == first && bad >= -1 && bad < n, "instruction sets factor differently", "fit");
    }
    f->made = 1;
    f->bad = first >= 0;
    free(h);
    free(spoilt);
}

static void forget(Factored *f)
{
    for (int i = 0; i < isa_count; i++) {
        free(f->with[i].d);
        free(f->with[i].inner);
        free(f->with[i].outer);
        free(f->with[i].outer_unit);
        free(f->with[i].own);
    }
}

/* One of eight covariances of 256 columns, which are factored once: that takes as long as a thousand fits. */
static const Factored *known_covariance(int which)
{
    static Factored kept[8];
    if (!kept[which].made) {
        float vectors[3 * 256];
        uint32_t state = (uint32_t)which;
        for (int i = 0; i < 3 * 256; i++) {
            state = state * 1664525u + 1013904223u;
            vectors[i] = (float)(int8_t)(state >> 24) * 0.0078125f;
        }
        factor(&kept[which], vectors, 256, power(-3 * which));
    }
    return &kept[which];
}

/* A row fitted against a covariance: of some columns, of the input's vectors; of 256, one that is known. */
static void fit(Input *in)
{
    static const int small[] = {2, 3, 6, 7, 8, 20, 39, 40, 41, 42}, large[] = {10, 11, 12, 13, 14, 16, 17, 18, 19, 21, 22, 23,
                                                                              29, 34, 35};
    const int which = take(in), flags = take(in), wide = (which & 7) == 7;
    const int id = which == 255 ? flags % TYPES
                   : wide       ? large[(which >> 3) % (int)(sizeof large / sizeof *large)]
                                : small[which % (int)(sizeof small / sizeof *small)];
    const forge_type *t = rows_by_id[id];
    const int64_t block = t && t->block > 32 ? t->block : 32, n = wide ? 256 : block, rows = 1 + (flags >> 1 & 1);
    float x[2 * 256], vectors[3 * 256];
    Factored own = {.made = 0};
    const Factored *against = &own;
    const int amount = take(in);
    take_floats(in, flags >> 2 & 1 ? 3 : 1, x, rows * n);
    if (wide) {
        against = known_covariance(amount & 7);
    } else {
        take_floats(in, 3, vectors, 3 * n);
        factor(&own, vectors, n, power((amount & 31) - 24));
    }
    const size_t size = t && t->block ? bytes_of(t, rows * n) : 0;
    void *held[MOST_ISAS];
    double errors[MOST_ISAS][2] = {{0}};
    int status[MOST_ISAS];
    for (int i = 0; i < isa_count && !against->bad; i++) {
        void *scratch = malloc((size_t)forge_fit_scratch(isas[i], n));
        held[i] = malloc(size + 1);
        status[i] = forge_fit_rows(isas[i], &against->with[i], id, x, n, held[i], (int64_t)size / rows, rows,
                                   1 + (flags >> 3 & 1), flags >> 4 & 1, errors[i], scratch);
        require(status[i] == status[0], "instruction sets refuse differently", "fit");
        if (status[0] == FORGE_OK) {
            same_bytes(held[0], held[i], size, t->name);
            same_bytes(errors[0], errors[i], sizeof errors[0], "errors of fits");
        }
        free(scratch);
    }
    for (int i = 0; i < isa_count && !against->bad; i++) {
        free(held[i]);
    }
    forget(&own);
}

/* Pieces of a file of 4096 bytes, 2048 of them in a block with its edge at the file's end. */
static void strided(Input *in)
{
#if defined(__linux__)
    enum { SIZE = 4096 };
    static int file = -1;
    static uint8_t held[SIZE];
    if (file < 0) {
        file = memfd_create("strided", 0);
        for (int i = 0; i < SIZE; i++) {
            held[i] = (uint8_t)(i * 7 + i / 256);
        }
        require(write(file, held, SIZE) == SIZE, "no file", "strided");
    }
    const int64_t offset = (int64_t)(take_word(in) % (SIZE + 64)), stride = (int64_t)(take_word(in) % (SIZE + 64));
    const int64_t bytes = 1 + take(in), pieces = take(in) % 32;
    const int fd = take(in) % 16 == 1 ? -1 : file;
    uint8_t *out = malloc((size_t)(bytes * pieces) + !pieces);
    const int64_t found = forge_read_strided(fd, offset, stride, bytes, pieces, out);
    int64_t there = 0;
    while (fd == file && there < pieces && offset + there * stride + bytes <= SIZE) {
        there++;
    }
    require(found == there, "pieces that are there are not read, or others are", "strided");
    for (int64_t i = 0; i < found; i++) {
        same_bytes(out + i * bytes, held + offset + i * stride, (size_t)bytes, "strided");
    }
    free(out);
#else
    (void)in;
#endif
}

/* ------------------------------------------------------------------ the table */

static const struct {
    const char *name;
    void (*run)(Input *in);
} targets[] = {
    {"decode", decode},   {"encode_plain", encode_plain}, {"encode_k", encode_k},       {"encode_iq", encode_iq},
    {"convert", convert}, {"floats8", floats8},           {"grid_blocks", grid_blocks}, {"turned", turned},
    {"fields", fields},   {"moments", moments},           {"fit", fit},                 {"strided", strided},
};

static void (*chosen)(Input *in);

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    for (size_t i = 0; *argc > 1 && i < sizeof targets / sizeof *targets; i++) {
        if (strcmp(targets[i].name, (*argv)[1]) == 0) {
            chosen = targets[i].run;
        }
    }
    if (!chosen) {
        fprintf(stderr, "usage: %s TARGET [arguments of libFuzzer]; targets:", (*argv)[0]);
        for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
            fprintf(stderr, " %s", targets[i].name);
        }
        fprintf(stderr, "\n");
        exit(2);
    }
    memmove(*argv + 1, *argv + 2, (size_t)(*argc - 1) * sizeof **argv);
    --*argc;
    while (isa_count < MOST_ISAS && forge_backend_name(isa_count)) {
        isas[isa_count] = forge_backend_find(forge_backend_name(isa_count));
        isa_count++;
    }
    for (const forge_type *t = forge_types; t->name; t++) {
        rows_by_id[t->id] = t;
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Input in = {data, size};
    chosen(&in);
    return 0;
}

/* The type table, the choice of backend, and the loop that takes rows from one type to another. */
#include "backend.h"
#include <float.h>
#include <math.h>
#include <string.h>

#define CODEC_ENCODE 1, 1
#define CODEC_DECODE 0, 1
#define CODEC_NONE 0, 0
#define KIND_FLOAT FORGE_KIND_FLOAT
#define KIND_INT FORGE_KIND_INT
#define KIND_QUANT FORGE_KIND_QUANT
#define KIND_WEIGHTED (FORGE_KIND_QUANT | FORGE_KIND_WEIGHTED)
#define KIND_NEEDS_WEIGHTS (KIND_WEIGHTED | FORGE_KIND_NEEDS_WEIGHTS)
const forge_type forge_types[] = {
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) {NAME, id, block, bytes, KIND_##kind, fit, codec},
#define REMOVED(id, NAME) {NAME, id, 0, 0, 0, 0, 0, 0},
#include "types.def"
#undef TYPE
#undef REMOVED
    {0},
};

extern const forge_backend forge_scalar;

/* Fastest first. */
#if defined(__x86_64__)
extern const forge_backend forge_avx512, forge_avx2;
static const forge_backend *const backends[] = {&forge_avx512, &forge_avx2, &forge_scalar};
#elif defined(__aarch64__)
extern const forge_backend forge_neon;
static const forge_backend *const backends[] = {&forge_neon, &forge_scalar};
#else
static const forge_backend *const backends[] = {&forge_scalar};
#endif

enum { BACKENDS = sizeof backends / sizeof backends[0] };

const char *forge_backend_name(int i)
{
    for (int b = 0; b < BACKENDS; b++) {
        if (backends[b]->supported() && i-- == 0) {
            return backends[b]->name;
        }
    }
    return NULL;
}

const forge_backend *forge_backend_find(const char *name)
{
    for (int b = 0; b < BACKENDS; b++) {
        if (strcmp(backends[b]->name, name) == 0) {
            return backends[b]->supported() ? backends[b] : NULL;
        }
    }
    return NULL;
}

enum {
    TILE = 4096,            /* floats on the stack: 16 KiB, whole blocks of every type, and 16 of the largest */
    GROUP = 65536,          /* about this many weighted elements between two looks for NaNs */
    STREAM_BYTES = 1 << 21, /* results from this size on bypass the caches, */
    STREAM_TILE = 1024,     /* in smaller steps, so that reading and writing overlap, */
    STREAM_FLOATS = 512     /* and in yet smaller ones from types that read as much as half of what they write */
};

static const forge_type *type_row(int id)
{
    for (const forge_type *t = forge_types; t->name; t++) {
        if (t->id == id) {
            return t->block ? t : NULL;
        }
    }
    return NULL;
}

/* How a number in a block is stored. */
enum { NOWHERE, F16, BF16, F32, F64, E8M0, F16_SPREAD };

typedef struct {
    int form, fields, at[2];
} number_place;

#define ALL_FINITE {NOWHERE, 0, {0, 0}}
#define F16_AT(a) {F16, 1, {a, 0}}
#define F16_AT_BOTH(a, b) {F16, 2, {a, b}}
#define BF16_AT(a) {BF16, 1, {a, 0}}
#define F32_AT(a) {F32, 1, {a, 0}}
#define F64_AT(a) {F64, 1, {a, 0}}
#define E8M0_AT(a) {E8M0, 1, {a, 0}}
#define F16_SPREAD_AT(a) {F16_SPREAD, 1, {a, 0}} /* four bits in each of four words */
static const number_place number_places[] = {
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) scales,
#define REMOVED(id, NAME) ALL_FINITE,
#include "types.def"
#undef TYPE
#undef REMOVED
};

/* Above all that blocks can hold whose scales are F16: at most 65504 * 128 * 32, in Q6_K. */
static const float REACH = 0x1p29f;

static int aligned(const void *p) { return (uintptr_t)p % _Alignof(float) == 0; }

typedef struct {
    const forge_backend *backend;
    const forge_type *src_type, *dst_type;
    const uint8_t *src;
    uint8_t *dst;
    float limit; /* of magnitudes that are encoded in blocks */
    int64_t *where;
} job;

static int64_t bytes_of(const forge_type *t, int64_t elements) { return elements / t->block * t->bytes; }

/* Elements [at, at + n) as floats: in place when they are, else decoded into the tile. */
static const float *tile_in(const job *j, int64_t at, int64_t n, float *tile)
{
    const uint8_t *src = j->src + bytes_of(j->src_type, at);
    if (j->src_type->id == 0 && aligned(src)) {
        return (const float *)(const void *)src;
    }
    j->backend->decode[j->src_type->id](src, tile, n / j->src_type->block);
    return tile;
}

/* The stores to come keep the memory busy and hide these reads. */
static void fetch_ahead(const uint8_t *src, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64) {
        __builtin_prefetch(src + i);
    }
}

/* Whether n floats can be encoded, those from element `at` on. */
static int check_values(const job *j, const float *x, int64_t n, int64_t at)
{
    const int64_t bad = j->backend->first_above(x, n, j->limit);
    if (bad == n) {
        return FORGE_OK;
    }
    *j->where = at + bad;
    return fabsf(x[bad]) <= FLT_MAX ? FORGE_E_TOO_LARGE : FORGE_E_NOT_FINITE;
}

static int encode_tiles(const job *j, int64_t count)
{
    _Alignas(64) float tile[TILE];
    _Alignas(64) uint8_t packed[TILE * sizeof(double)];
    const int blocks = (j->dst_type->kind & FORGE_KIND_QUANT) != 0;
    const int streaming = !blocks && bytes_of(j->dst_type, count) >= STREAM_BYTES;
    const int64_t step = !streaming ? TILE : j->src_type->block == 1 ? STREAM_FLOATS : STREAM_TILE;
    for (int64_t at = 0; at < count; at += step) {
        int64_t n = count - at < step ? count - at : step;
        const float *x = tile_in(j, at, n, tile);
        const int status = blocks ? check_values(j, x, n, at) : FORGE_OK;
        if (status != FORGE_OK) {
            return status;
        }
        uint8_t *dst = j->dst + bytes_of(j->dst_type, at);
        int64_t bytes = bytes_of(j->dst_type, n);
        if (streaming) {
            const uint8_t *from = (const uint8_t *)x;
            if (j->dst_type->id != 0) {
                j->backend->encode[j->dst_type->id](x, packed, n, NULL, 1);
                from = packed;
            }
            if (at + 2 * step <= count) {
                fetch_ahead(j->src + bytes_of(j->src_type, at + step), bytes_of(j->src_type, step));
            }
            j->backend->stream(dst, from, (size_t)bytes);
        } else {
            j->backend->encode[j->dst_type->id](x, dst, n / j->dst_type->block, NULL, 1);
        }
    }
    if (streaming) {
        j->backend->stream_end();
    }
    return FORGE_OK;
}

/* Straight into dst: blocks to floats that fit a cache. */
static void decode_in_place(const job *j, int64_t count)
{
    j->backend->decode[j->src_type->id](j->src, (float *)(void *)j->dst, count / j->src_type->block);
}

static int encode_weighted(const job *j, int64_t rows, int64_t width, const float *weights)
{
    const float *x = (const float *)(const void *)j->src;
    const int64_t row_blocks = width / j->dst_type->block, step = GROUP / width > 0 ? GROUP / width : 1;
    for (int64_t row = 0; row < rows; row += step) {
        int64_t n = rows - row < step ? rows - row : step;
        const int status = check_values(j, x + row * width, n * width, row * width);
        if (status != FORGE_OK) {
            return status;
        }
        j->backend->encode[j->dst_type->id](x + row * width, j->dst + bytes_of(j->dst_type, row * width),
                                            n * row_blocks, weights, row_blocks);
    }
    return FORGE_OK;
}

static int check_weights(const job *j, int64_t width, const float *weights)
{
    if (!aligned(weights) || j->src_type->id != 0 || !aligned(j->src)) {
        return FORGE_E_SOURCE;
    }
    for (int64_t i = 0; i < width; i++) {
        if (!(weights[i] >= 0 && weights[i] < INFINITY)) {
            *j->where = i;
            return FORGE_E_WEIGHTS;
        }
    }
    return FORGE_OK;
}

int forge_convert(const forge_backend *backend, int src_type, const void *src, int dst_type, void *dst,
                  int64_t rows, int64_t width, const float *weights, int strict, int64_t *where)
{
    *where = -1;
    job j = {backend, type_row(src_type), type_row(dst_type), src, dst, FLT_MAX, where};
    if (!j.src_type || !j.dst_type || !j.src_type->decodes || !j.dst_type->encodes) {
        return FORGE_E_TYPE;
    }
    if (rows < 0 || width < 0 || width % j.src_type->block || width % j.dst_type->block) {
        return FORGE_E_WIDTH;
    }
    if (!weights && (j.dst_type->kind & FORGE_KIND_NEEDS_WEIGHTS)) {
        return FORGE_E_WEIGHTS;
    }
    if (weights) {
        int status = check_weights(&j, width, weights);
        if (status != FORGE_OK) {
            return status;
        }
    }
    if (rows == 0 || width == 0) {
        return FORGE_OK;
    }
    if (strict && number_places[j.dst_type - forge_types].form != E8M0) {
        j.limit = REACH;
    }
    if (weights && (j.dst_type->kind & FORGE_KIND_WEIGHTED)) {
        return encode_weighted(&j, rows, width, weights);
    }
    if (dst_type == 0 && aligned(dst) && rows * width < STREAM_BYTES / (int64_t)sizeof(float)) {
        decode_in_place(&j, rows * width);
        return FORGE_OK;
    }
    return encode_tiles(&j, rows * width);
}

/* ------------------------------------------------------------------ 8-bit floats beside scales */

static int encode_floats8(const job *j, const forge_floats8 *src, int64_t width, int64_t count, double *squares)
{
    _Alignas(64) float tile[TILE], made[TILE];
    for (int64_t at = 0; at < count; at += TILE) {
        const int64_t n = count - at < TILE ? count - at : TILE;
        uint8_t *dst = j->dst + bytes_of(j->dst_type, at);
        j->backend->floats8(src, width, at, n, tile);
        const int status = j->dst_type->kind & FORGE_KIND_QUANT ? check_values(j, tile, n, at) : FORGE_OK;
        if (status != FORGE_OK) {
            return status;
        }
        j->backend->encode[j->dst_type->id](tile, dst, n / j->dst_type->block, NULL, 1);
        if (squares) {
            j->backend->decode[j->dst_type->id](dst, made, n / j->dst_type->block);
            j->backend->squares(tile, made, n, squares);
        }
    }
    return FORGE_OK;
}

int forge_convert_floats8(const forge_backend *backend, const forge_floats8 *src, int dst_type, void *dst, int64_t rows,
                          int64_t width, int strict, double *squares, int64_t *where)
{
    *where = -1;
    job j = {backend, NULL, type_row(dst_type), NULL, dst, FLT_MAX, where};
    if (!j.dst_type || !j.dst_type->encodes || src->format < FORGE_E4M3 || src->format > FORGE_E5M2FNUZ) {
        return FORGE_E_TYPE;
    }
    if (rows < 0 || width < 0 || src->group <= 0 || width % j.dst_type->block) {
        return FORGE_E_WIDTH;
    }
    if (j.dst_type->kind & FORGE_KIND_NEEDS_WEIGHTS) {
        return FORGE_E_WEIGHTS;
    }
    if (rows == 0 || width == 0) {
        return FORGE_OK;
    }
    if (strict && number_places[j.dst_type - forge_types].form != E8M0) {
        j.limit = REACH;
    }
    if (dst_type == 0 && !squares) {
        backend->floats8(src, width, 0, rows * width, dst);
        return FORGE_OK;
    }
    return encode_floats8(&j, src, width, rows * width, squares);
}

/* ------------------------------------------------------------------ fits against a covariance */

int64_t forge_fit_prepare(const forge_backend *backend, float *h, const forge_fit *fit)
{
    return backend->fit_prepare(h, fit);
}

int64_t forge_fit_scratch(const forge_backend *backend, int64_t width) { return backend->fit_scratch(width); }

int forge_fit_rows(const forge_backend *backend, const forge_fit *fit, int type, const float *x, int64_t x_stride,
                   uint8_t *out, int64_t out_stride, int64_t rows, int rounds, int again, double *error,
                   void *scratch)
{
    return backend->fit_rows(fit, type, x, x_stride, out, out_stride, rows, rounds, again, error, scratch);
}

void forge_moments(const forge_backend *backend, const float *slices, int64_t tokens, int64_t count, int64_t first,
                   int64_t last, float *tiles)
{
    backend->moments(slices, tokens, count, first, last, tiles);
}

/* ------------------------------------------------------------------ numbers that are not finite */

static inline uint32_t word_at(const uint8_t *p, int bytes)
{
    uint16_t half;
    uint32_t whole;
    if (bytes == 2) {
        memcpy(&half, p, 2);
        return half;
    }
    memcpy(&whole, p, 4);
    return whole;
}

/* Whether all bits of the exponent are set. */
static inline int endless(int form, const uint8_t *p)
{
    switch (form) {
    case F16: return (word_at(p, 2) & 0x7c00) == 0x7c00;
    case BF16: return (word_at(p, 2) & 0x7f80) == 0x7f80;
    case F32: return (word_at(p, 4) & 0x7f800000) == 0x7f800000;
    case F64: return (word_at(p + 4, 4) & 0x7ff00000) == 0x7ff00000;
    case E8M0: return *p == 0xff;
    default: return (word_at(p + 4, 2) & 0xc000) == 0xc000 && (word_at(p + 6, 2) & 0x7000) == 0x7000;
    }
}

/* `form` and, where it can be, `stride` are constants to the callers, which makes vectors of the inner loop. */
static inline int64_t scan(int form, const uint8_t *p, int64_t count, int64_t stride)
{
    enum { STEP = 1024 };
    int64_t at = 0;
    for (; at < count; at += STEP) {
        const int64_t end = count - at < STEP ? count : at + STEP;
        int any = 0;
        for (int64_t i = at; i < end; i++) {
            any |= endless(form, p + i * stride);
        }
        if (any) {
            break;
        }
    }
    for (; at < count && !endless(form, p + at * stride); at++) {
    }
    return at < count ? at : count;
}

static int64_t scan_field(int form, const uint8_t *p, int64_t count, int64_t stride)
{
    switch (form) {
    case F16: return stride == 2 ? scan(F16, p, count, 2) : scan(F16, p, count, stride);
    case BF16: return scan(BF16, p, count, 2);
    case F32: return stride == 4 ? scan(F32, p, count, 4) : scan(F32, p, count, stride);
    case F64: return scan(F64, p, count, 8);
    case E8M0: return scan(E8M0, p, count, stride);
    case F16_SPREAD: return scan(F16_SPREAD, p, count, stride);
    default: return count;
    }
}

int64_t forge_first_not_finite(int type, const void *data, int64_t count)
{
    const forge_type *t = type_row(type);
    if (!t) {
        return count;
    }
    const number_place *place = &number_places[t - forge_types];
    for (int i = 0; i < place->fields; i++) {
        count = scan_field(place->form, (const uint8_t *)data + place->at[i], count, t->bytes);
    }
    return count;
}

/* The type table, the choice of backend, and the loop that takes rows from one type to another. */
#include "backend.h"
#include <math.h>
#include <string.h>

#if defined(__GNUC__)
#define PREFETCH(p) __builtin_prefetch(p)
#else
#define PREFETCH(p) ((void)(p))
#endif

#define CODEC_ENCODE 1, 1
#define CODEC_DECODE 0, 1
#define CODEC_NONE 0, 0
const forge_type forge_types[] = {
#define TYPE(name, NAME, id, block, bytes, codec, kind) {NAME, id, block, bytes, kind, codec},
#define REMOVED(id, NAME) {NAME, id, 0, 0, 0, 0, 0},
#include "types.def"
#undef TYPE
#undef REMOVED
    {0},
};

extern const forge_backend forge_scalar;

/* Fastest first. */
#if defined(__x86_64__) || defined(_M_X64)
extern const forge_backend forge_avx512, forge_avx2;
static const forge_backend *const backends[] = {&forge_avx512, &forge_avx2, &forge_scalar};
#elif defined(__aarch64__) || defined(_M_ARM64)
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

static int aligned(const void *p) { return (uintptr_t)p % _Alignof(float) == 0; }

typedef struct {
    const forge_backend *backend;
    const forge_type *src_type, *dst_type;
    const uint8_t *src;
    uint8_t *dst;
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
        PREFETCH(src + i);
    }
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
        if (blocks) {
            int64_t bad = j->backend->first_not_finite(x, n);
            if (bad < n) {
                *j->where = at + bad;
                return FORGE_E_NOT_FINITE;
            }
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
        int64_t bad = j->backend->first_not_finite(x + row * width, n * width);
        if (bad < n * width) {
            *j->where = row * width + bad;
            return FORGE_E_NOT_FINITE;
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
                  int64_t rows, int64_t width, const float *weights, int64_t *where)
{
    *where = -1;
    job j = {backend, type_row(src_type), type_row(dst_type), src, dst, where};
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
    if (weights && (j.dst_type->kind & FORGE_KIND_WEIGHTED)) {
        return encode_weighted(&j, rows, width, weights);
    }
    if (dst_type == 0 && aligned(dst) && rows * width < STREAM_BYTES / (int64_t)sizeof(float)) {
        decode_in_place(&j, rows * width);
        return FORGE_OK;
    }
    return encode_tiles(&j, rows * width);
}

/* The type table, the choice of backend, and the loop that takes rows from one type to another. */
#include "backend.h"
#include <string.h>

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
static const forge_backend *const backends[] = {&forge_scalar};

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

int forge_convert(const forge_backend *backend, int src_type, const void *src, int dst_type, void *dst,
                  int64_t rows, int64_t width, const float *weights, int64_t *where)
{
    (void)backend, (void)src_type, (void)src, (void)dst_type, (void)dst, (void)rows, (void)width, (void)weights;
    (void)where;
    return FORGE_E_TYPE;
}

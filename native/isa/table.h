/* Included last by each isa/<isa>.c: every codec in that file's vocabulary, and the table of them.
 * The file defines FORGE_BACKEND (the struct's symbol), FORGE_BACKEND_NAME and forge_isa_supported(). */

#include "../codec/f32.h"

static int64_t first_not_finite(const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        if ((bits & 0x7f800000u) == 0x7f800000u) {
            return i;
        }
    }
    return n;
}

#define REMOVED(id, NAME)
#define ENCODE_CODEC_ENCODE(name, id) [id] = name##_encode,
#define ENCODE_CODEC_DECODE(name, id)
#define ENCODE_CODEC_NONE(name, id)
#define DECODE_CODEC_ENCODE(name, id) [id] = name##_decode,
#define DECODE_CODEC_DECODE(name, id) [id] = name##_decode,
#define DECODE_CODEC_NONE(name, id)

const forge_backend FORGE_BACKEND = {
    .name = FORGE_BACKEND_NAME,
    .supported = forge_isa_supported,
    .first_not_finite = first_not_finite,
    .encode = {
#define TYPE(name, NAME, id, block, bytes, codec, kind) ENCODE_##codec(name, id)
#include "../types.def"
#undef TYPE
    },
    .decode = {
#define TYPE(name, NAME, id, block, bytes, codec, kind) DECODE_##codec(name, id)
#include "../types.def"
#undef TYPE
    },
};

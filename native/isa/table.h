/* Included last by each isa/<isa>.c: every codec in that file's vocabulary, and the table of them.
 * The file defines FORGE_BACKEND (the struct's symbol), FORGE_BACKEND_NAME and forge_isa_supported(). */

#include "../lanes.h"
#include "../moments.h"
#include "../search.h"

#include "../codec/bf16.h"
#include "../codec/f16.h"
#include "../codec/f32.h"
#include "../codec/f64.h"
#include "../codec/q2_k.h"
#include "../codec/q3_k.h"
#include "../codec/q4_0.h"
#include "../codec/q4_1.h"
#include "../codec/q4_k.h"
#include "../codec/q5_0.h"
#include "../codec/q5_1.h"
#include "../codec/q5_k.h"
#include "../codec/q6_k.h"
#include "../codec/q8_0.h"

#include "../codec/iq1_m.h"
#include "../codec/iq1_s.h"
#include "../codec/iq2_s.h"
#include "../codec/iq2_xs.h"
#include "../codec/iq2_xxs.h"
#include "../codec/iq3_s.h"
#include "../codec/iq3_xxs.h"
#include "../codec/iq4_nl.h"
#include "../codec/iq4_xs.h"
#include "../codec/mxfp4.h"
#include "../codec/nvfp4.h"
#include "../codec/q1_0.h"
#include "../codec/q2_0.h"
#include "../codec/q8_1.h"
#include "../codec/q8_k.h"
#include "../codec/tq1_0.h"
#include "../codec/tq2_0.h"

#include "../fit/product.h"
#include "../fit/far.h"
#include "../fit/blocks.h"
#include "../fit/work.h"
#include "../fit/levels.h"
#include "../fit/points.h"
#include "../fit/groups.h"
#include "../fit/lattices.h"
#include "../fit/again.h"
#include "../fit/rows.h"
#include "../floats8.h"
#include "../grid_blocks.h"
#include "../turned.h"

static int64_t first_above(const float *x, int64_t n, float limit)
{
    const uint32_t bits = f32_to_bits(limit); /* magnitudes are in the order of their bits, NaNs above all */
    const VI magnitude = vi_set1(0x7fffffff), most = vi_set1((int32_t)bits);
    int64_t i = 0;
    for (; i + 4 * VN <= n; i += 4 * VN) {
        VM bad[4];
        for (int k = 0; k < 4; k++) {
            bad[k] = vi_gt(vi_and(vf_bits(vf_load(x + i + k * VN)), magnitude), most);
        }
        if (vm_any(vm_or(vm_or(bad[0], bad[1]), vm_or(bad[2], bad[3])))) {
            break;
        }
    }
    for (; i < n && (f32_to_bits(x[i]) & 0x7fffffffu) <= bits; i++) {
    }
    return i;
}

static void stream_copy(uint8_t *dst, const uint8_t *src, size_t bytes) { stream(dst, src, bytes); }
static void stream_finish(void) { stream_end(); }

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
    .first_above = first_above,
    .moments = moments,
    .stream = stream_copy,
    .stream_end = stream_finish,
    .fit_scratch = fit_scratch,
    .fit_prepare = fit_prepare,
    .fit_rows = fit_rows,
    .turn_words = turn_words,
    .turn_nibbles = turn_nibbles,
    .grid_blocks = grid_blocks,
    .floats8 = floats8,
    .squares = squares,
    .encode = {
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) ENCODE_##codec(name, id)
#include "../types.def"
#undef TYPE
    },
    .decode = {
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) DECODE_##codec(name, id)
#include "../types.def"
#undef TYPE
    },
};

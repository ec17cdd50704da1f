/* The decode kernels of every type, named as launch.h has it. */
#include "decode.h"

#define DECODER(name, suffix, ...)                                                                                  \
    extern "C" __global__ void __launch_bounds__(FORGE_DECODE_THREADS)                                              \
        forge_decode_##name##_##suffix(const uint8_t *blocks, void *out, uint64_t count)                            \
    {                                                                                                               \
        __VA_ARGS__(blocks, (to_##suffix::element *)out, count);                                                    \
    }

#define BLOCKS(name, block, bytes, suffix) \
    DECODER(name, suffix, decode_blocks<block, bytes, name##_reader, to_##suffix>)
#define FLOATS(name, bytes, suffix) DECODER(name, suffix, decode_floats<bytes, name##_value, to_##suffix>)

#define EACH_QUANT(name, block, bytes) \
    BLOCKS(name, block, bytes, f32) BLOCKS(name, block, bytes, f16) BLOCKS(name, block, bytes, bf16)
#define EACH_WEIGHTED(name, block, bytes) EACH_QUANT(name, block, bytes)
#define EACH_NEEDS_WEIGHTS(name, block, bytes) EACH_QUANT(name, block, bytes)
#define EACH_FLOAT(name, block, bytes) FLOATS(name, bytes, f32) FLOATS(name, bytes, f16) FLOATS(name, bytes, bf16)
#define EACH_INT(name, block, bytes)

#define REMOVED(id, NAME)
#define TYPE(name, NAME, id, block, bytes, codec, kind, fit, scales) EACH_##kind(name, block, bytes)
#include "../types.def"

/* Q8_1: 32 signed bytes times one scale. Made only inside ggml's dot products; here it is read.
 *
 *   d (f16)   s (f16): d times the sum of the weights' integers   qs[32] */
typedef struct {
    uint8_t d[2], s[2];
    uint8_t qs[32];
} q8_1_block;
_Static_assert(sizeof(q8_1_block) == 36, "Q8_1");

static void q8_1_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 32) {
        const q8_1_block *block = (const q8_1_block *)in + b;
        VF d = vf_set1(load_f16(block->d));
        for (int i = 0; i < 32; i += VN) {
            vf_store(y + i, vf_mul(vi_to_f(vi_load_i8(block->qs + i)), d));
        }
    }
}

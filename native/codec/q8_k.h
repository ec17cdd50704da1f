/* Q8_K: 256 signed bytes times one f32 scale. Made only inside ggml's dot products; here it is read.
 *
 *   d (f32)   qs[256]   sums[32]: sixteen 16-bit sums of sixteen integers each */
typedef struct {
    uint8_t d[4], qs[256], sums[32];
} q8_k_block;
_Static_assert(sizeof(q8_k_block) == 292, "Q8_K");

static void q8_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const q8_k_block *block = (const q8_k_block *)in + b;
        VF d = vf_set1(bits_to_f32(load_u32(block->d)));
        for (int i = 0; i < 256; i += VN) {
            vf_store(y + i, vf_mul(vi_to_f(vi_load_i8(block->qs + i)), d));
        }
    }
}

/* Q2_0: 64 weights of -1, 0, 1, 2 times the largest magnitude (so the encoder never writes 2).
 *
 *   d (f16)   qs[16]: weight i is bits 2 (i % 4) and up of byte i / 4, plus one */
typedef struct {
    uint8_t d[2], qs[16];
} q2_0_block;
_Static_assert(sizeof(q2_0_block) == 18, "Q2_0");

#include "../trits.h"

/* Moves bit i of 16 to bit 2 i. */
static inline uint32_t q2_0_spread(uint32_t a)
{
    a = (a | a << 8) & 0x00ff00ff;
    a = (a | a << 4) & 0x0f0f0f0f;
    a = (a | a << 2) & 0x33333333;
    return (a | a << 1) & 0x55555555;
}

static void q2_0_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    (void)w, (void)row_blocks;
    for (int64_t b = 0; b < blocks; b++, x += 64) {
        q2_0_block *block = (q2_0_block *)out + b;
        float d = abs_max(x, 64), inverse = trits_inverse(d);
        /* Where 1/d overflows ggml converts infinities and NaNs to int: on x86-64 the most negative one, field 0. */
        uint32_t keep = d > 0.f && inverse == 0.f ? 0 : 0xffff;
        VF id = vf_set1(inverse);
        for (int i = 0; i < 64; i += 16) {
            uint32_t zero = 0, plus = 0;
            for (int j = 0; j < 16; j += VN) {
                VF a = vf_mul(vf_load(x + i + j), id);
                plus |= vm_bits(vf_ge(a, vf_set1(0.5f))) << j;
                zero |= vm_bits(vf_lt(vf_abs(a), vf_set1(0.5f))) << j;
            }
            store_u32(block->qs + i / 4, q2_0_spread(zero & keep) | q2_0_spread(plus) << 1);
        }
        store_scale(block->d, d);
    }
}

static void q2_0_decode(const uint8_t *in, float *y, int64_t blocks)
{
    int32_t twice[16];
    for (int i = 0; i < 16; i++) {
        twice[i] = 2 * i;
    }
    VI shifts = vi_load(twice);
    for (int64_t b = 0; b < blocks; b++, y += 64) {
        const q2_0_block *block = (const q2_0_block *)in + b;
        VF d = vf_set1(load_f16(block->d));
        for (int i = 0; i < 64; i += VN) {
            uint32_t word = load_u32(block->qs + i / 16 * 4) >> 2 * (i % 16);
            VI q = vi_and(vi_shrv(vi_set1((int32_t)word), shifts), vi_set1(3));
            vf_store(y + i, vf_mul(vi_to_f(vi_sub(q, vi_set1(1))), d));
        }
    }
}

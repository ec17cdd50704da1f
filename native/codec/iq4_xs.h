/* IQ4_XS: 256 weights in eight sub-blocks of 32, each one of 16 uneven levels times a six-bit scale times d.
 *
 *   d (f16)   high (u16): two bits a sub-block   low[4]: four bits a sub-block; the scale is their value - 32
 *   qs[128]: sub-block k in bytes 16k..16k+15, byte j the index of weight j (low nibble) and j+16 (high) */
typedef struct {
    uint8_t d[2], high[2], low[4], qs[128];
} iq4_xs_block;
_Static_assert(sizeof(iq4_xs_block) == 136, "IQ4_XS");

#include "../iq4.h"
#include "../superblock.h"

/* Writes one superblock's scales; scale[] becomes what its weights are to be multiplied by. */
static void iq4_xs_scales(iq4_xs_block *block, float scale[8])
{
    float max = 0.f, amax = 0.f;
    for (int k = 0; k < 8; k++) {
        if (fabsf(scale[k]) > amax) {
            amax = fabsf(scale[k]);
            max = scale[k];
        }
    }
    float d = -max / 32, inverse = d != 0.f ? 1 / d : 0.f;
    unsigned high = 0;
    memset(block->low, 0, sizeof block->low);
    for (int k = 0; k < 8; k++) {
        int l = superblock_clamp(superblock_nearest(inverse * scale[k]), -32, 31);
        float dl = d * (float)l;
        scale[k] = dl != 0.f ? 1 / dl : 0.f;
        l += 32;
        block->low[k / 2] |= (uint8_t)((l & 15) << 4 * (k % 2));
        high |= (unsigned)l >> 4 << 2 * k;
    }
    store_u16(block->high, high);
    store_scale(block->d, d);
}

static void iq4_xs_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    iq4_tables t = iq4_load_tables();
    for (int64_t b = 0; b < blocks; b += SUPERBLOCKS) {
        int n = blocks - b < SUPERBLOCKS ? (int)(blocks - b) : SUPERBLOCKS;
        float sums[SUPERBLOCKS], scale[8 * SUPERBLOCKS];
        superblock_squares(x + 256 * b, n, sums);
        Lanes g;
        VF v[32], weight[32];
        for (int s = 0; s < 8 * n; s += VN) {
            lanes_at(&g, 8 * b + s, 8 * blocks, 32, 0, x, NULL, w, 8 * row_blocks);
            vf_load_lanes(v, g.x, 32);
            VF sigma2 = vf_mul(superblock_lanes(sums, s, 8), vf_set1(2.f / 256));
            iq4_importance(weight, v, w != NULL ? g.w : NULL, sigma2);
            vf_store(scale + s, iq4_scale(t, v, weight));
        }
        iq4_xs_block *block = (iq4_xs_block *)out + b;
        for (int k = 0; k < n; k++) {
            iq4_xs_scales(block + k, scale + 8 * k);
        }
        for (int s = 0; s < 8 * n; s += VN) {
            lanes_at(&g, s, 8 * n, 32, 0, x + 256 * b, NULL, NULL, 1);
            for (int l = 0; l < VN; l++) {
                g.out[l] = s + l < 8 * n ? block[(s + l) / 8].qs + 16 * ((s + l) % 8) : g.spare;
            }
            vf_load_lanes(v, g.x, 32);
            iq4_store(t, v, vf_load(scale + s), g.out);
        }
    }
}

static void iq4_xs_decode(const uint8_t *in, float *y, int64_t blocks)
{
    VFT values = vf_table16(iq4_values);
    for (int64_t b = 0; b < blocks; b++) {
        const iq4_xs_block *block = (const iq4_xs_block *)in + b;
        float d = load_f16(block->d);
        for (int k = 0; k < 8; k++, y += 32) {
            int high = load_u16(block->high) >> 2 * k & 3, low = block->low[k / 2] >> 4 * (k % 2) & 15;
            nibbles_decode32(values, block->qs + 16 * k, vf_set1(d * (float)((high << 4 | low) - 32)), y);
        }
    }
}

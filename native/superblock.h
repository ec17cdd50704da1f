/* What encoders of superblocks of 256 weights share: tiles of up to 16 superblocks whose sub-blocks fill the lanes. */
#ifndef FORGE_SUPERBLOCK_H
#define FORGE_SUPERBLOCK_H

enum { SUPERBLOCKS = 16 }; /* in a tile */

/* Sums of squares of n <= SUPERBLOCKS superblocks, each in order; spare entries repeat the last. */
static void superblock_squares(const float *x, int n, float sums[SUPERBLOCKS])
{
    for (int b = 0; b < SUPERBLOCKS; b += VN) {
        Lanes g;
        VF v[16], sum = vf_set1(0.f);
        lanes_at(&g, b, n, 256, 0, x, NULL, NULL, 1);
        for (int i = 0; i < 256 && b < n; i += 16) {
            vf_load_lanes(v, g.x, 16);
            for (int j = 0; j < 16; j++) {
                sum = vf_add(sum, vf_mul(v[j], v[j]));
            }
            for (int l = 0; l < VN; l++) {
                g.x[l] += 16;
            }
        }
        vf_store(sums + b, sum);
    }
}

/* The entries of `values`, one a superblock, for sub-blocks at, at + 1, ... of `per` a superblock. */
V_FN VF superblock_lanes(const float values[SUPERBLOCKS], int at, int per)
{
    float lanes[VN];
    for (int l = 0; l < VN; l++) {
        lanes[l] = values[(at + l) / per];
    }
    return vf_load(lanes);
}

static inline int superblock_nearest(float a)
{
    float made = a + 12582912.f; /* as vi_nearest; the mantissa of a NaN is that of x86 and ARM on a GPU, too */
    return made != made ? 0 : (int)(f32_to_bits(made) & 0x007fffffu) - 0x00400000;
}

static inline int superblock_clamp(int a, int low, int high)
{
    return a < low ? low : a > high ? high : a;
}

#endif

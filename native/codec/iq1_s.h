/* IQ1_S: 256 weights; each eight are a point of a lattice of 2048 in -1, 0, 1, all shifted by an eighth.
 *
 *   d (f16)   index[32]: low eight bits   high[8] (u16): - | sss | 3 | 3 | 3 | 3 bits of index, for each 32 weights
 *   weight = d (2 s + 1) * (point + 1/8), or - 1/8 when the top bit is set */
typedef struct {
    uint8_t d[2], index[32], high[16];
} iq1_s_block;
_Static_assert(sizeof(iq1_s_block) == 50, "IQ1_S");

#include "../iq1_fit.h"

enum { IQ1_S_NAN = 33 + 16 };

/* All splits of 32 sorted weights, both shifts. */
V_FN void iq1_s_candidates(iq1_candidates *c, const float *x, const float *w, const uint8_t *order)
{
    float sx[IQ1_S_NAN], sw[IQ1_S_NAN], last[4][IQ1_S_NAN]; /* last: what the third run adds to qx, q2, up and down */
    sx[0] = sw[0] = 0.f;
    for (int j = 0; j < 32; j++) {
        sx[j + 1] = sx[j] + w[order[j]] * x[order[j]];
        sw[j + 1] = sw[j] + w[order[j]];
    }
    for (int j = 33; j < IQ1_S_NAN; j++) {
        sx[j] = sw[j] = NAN; /* no such split: never better */
    }
    const float *up = iq1_levels[0], *down = iq1_levels[1];
    for (int j = 0; j + VN <= IQ1_S_NAN; j += VN) {
        VF rest_x = vf_sub(vf_set1(sx[32]), vf_load(sx + j)), rest_w = vf_sub(vf_set1(sw[32]), vf_load(sw + j));
        vf_store(last[0] + j, vf_mul(rest_x, vf_set1(up[2])));
        vf_store(last[1] + j, vf_mul(vf_mul(rest_w, vf_set1(up[2])), vf_set1(up[2])));
        vf_store(last[2] + j, vf_mul(rest_x, vf_set1(down[2])));
        vf_store(last[3] + j, vf_mul(vf_mul(rest_w, vf_set1(down[2])), vf_set1(down[2])));
    }
    int v = 0;
    iq1_greatest g[2];
    iq1_begin(c, x, w, 32, 2, g);
    for (int i1 = 0; i1 <= 32; i1++) {
        VF first[4] = {vf_set1(sx[i1] * up[0]), vf_set1(sw[i1] * up[0] * up[0]), vf_set1(sx[i1] * down[0]),
                       vf_set1(sw[i1] * down[0] * down[0])};
        for (int i2 = i1; i2 <= 32; i2 += VN) {
            iq1_at(c, v, i1, i2);
            VF mid_x = vf_sub(vf_load(sx + i2), vf_set1(sx[i1])), mid_w = vf_sub(vf_load(sw + i2), vf_set1(sw[i1]));
            for (int k = 0; k < 2; k++) {
                VF level = vf_set1(iq1_levels[k][1]);
                VF qx = vf_add(vf_add(first[2 * k], vf_mul(mid_x, level)), vf_load(last[2 * k] + i2));
                VF q2 = vf_add(first[2 * k + 1], vf_mul(vf_mul(mid_w, level), level));
                iq1_propose(c, k, v, qx, vf_add(q2, vf_load(last[2 * k + 1] + i2)), g + k);
            }
            v++;
        }
    }
    iq1_end(c, v, g);
}

/* One superblock. */
static void iq1_s_fit(const forge_lattice *t, const float *x, const float *given, float sigma2, iq1_s_block *block)
{
    float scale[8] = {0}, max = 0.f;
    uint8_t down[8] = {0};
    memset(block, 0, sizeof *block);
    for (int k = 0; k < 8; k++, x += 32) {
        float w[32];
        uint8_t order[32];
        uint16_t codes[4];
        iq1_candidates c;
        if (iq1_max(x, 32) < 1e-12f) {
            continue;
        }
        iq1_importance(x, given + 32 * k, 32, sigma2, w);
        iq1_sort(x, 32, order);
        iq1_s_candidates(&c, x, w, order);
        iq1_split s = iq1_choose(&c);
        if (s.shift < 0) {
            continue;
        }
        iq1_codes(order, 32, s, codes);
        down[k] = (uint8_t)(s.shift ^ (s.scale < 0.f));
        scale[k] = fabsf(s.scale);
        const uint8_t shifts[4] = {down[k], down[k], down[k], down[k]};
        if (!iq1_settle(t, x, w, 4, shifts, scale[k], codes)) {
            float sums[2] = {0.f, 0.f};
            for (int i = 0; i < 4; i++) {
                iq1_add(x + 8 * i, w + 8 * i, codes[i], iq1_levels[down[k]], 1.f, sums);
            }
            scale[k] = sums[0] > 0.f && sums[1] > 0.f ? sums[0] / sums[1] : scale[k];
        }
        unsigned high = 0;
        for (int i = 0; i < 4; i++) {
            const uint32_t index = forge_lattice_place(t, codes[i]) >> 9;
            block->index[4 * k + i] = (uint8_t)index;
            high |= index >> 8 << 3 * i;
        }
        store_u16(block->high + 2 * k, high);
        max = max > scale[k] ? max : scale[k];
    }
    if (max == 0.f) {
        return;
    }
    const float d = max / 15, inverse = 1 / d;
    store_scale(block->d, d * 1.125f);
    for (int k = 0; k < 8; k++) {
        int l = superblock_clamp(superblock_nearest(0.5f * (inverse * scale[k] - 1)), 0, 7) | down[k] << 3;
        store_u16(block->high + 2 * k, load_u16(block->high + 2 * k) | (unsigned)l << 12);
    }
}

static void iq1_s_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    const forge_lattice *t = forge_lattice_get(LATTICE_IQ1);
    float sums[SUPERBLOCKS];
    for (int64_t b = 0; b < blocks; b++) {
        if (b % SUPERBLOCKS == 0) {
            superblock_squares(x + 256 * b, blocks - b < SUPERBLOCKS ? (int)(blocks - b) : SUPERBLOCKS, sums);
        }
        const float *given = w + 256 * (b % row_blocks);
        iq1_s_fit(t, x + 256 * b, given, 2 * sums[b % SUPERBLOCKS] / 256, (iq1_s_block *)out + b);
    }
}

static void iq1_s_decode(const uint8_t *in, float *y, int64_t blocks)
{
    for (int64_t b = 0; b < blocks; b++, y += 256) {
        const iq1_s_block *block = (const iq1_s_block *)in + b;
        const float d = load_f16(block->d);
        for (int k = 0; k < 8; k++) {
            const uint8_t *index = block->index + 4 * k;
            const unsigned high = load_u16(block->high + 2 * k);
            const float scale = d * signed_grid_odd[high >> 12 & 7], *shift = iq1_shifts[high >> 15 ? 3 : 0];
            iq1_store(index[0] | (high << 8 & 0x700), index[1] | (high << 5 & 0x700), shift, scale, y + 32 * k);
            iq1_store(index[2] | (high << 2 & 0x700), index[3] | (high >> 1 & 0x700), shift, scale, y + 32 * k + 16);
        }
    }
}

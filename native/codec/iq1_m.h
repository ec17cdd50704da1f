/* IQ1_M: 256 weights; each eight are a point of a lattice of 2048 in -1, 0, 1, shifted by an eighth.
 *
 *   index[32]: low eight bits   high[16]: - | 3 bits of index, a nibble for each 8 weights, low one first
 *   scales[4] (u16): 4 bits of d | 3 | 3 | 3 | 3 bits s, for each 16 weights; d (f16) is spread lowest bits first
 *   weight = d (2 s + 1) * (point + 1/8), or - 1/8 when the nibble's top bit is set */
typedef struct {
    uint8_t index[32], high[16], scales[8];
} iq1_m_block;
_Static_assert(sizeof(iq1_m_block) == 56, "IQ1_M");

#include "../iq1_fit.h"

enum { IQ1_M_NAN = 17 + 16 };

/* All splits of 16 sorted weights, each half of the sub-block with either shift. */
V_FN void iq1_m_candidates(iq1_candidates *c, const float *x, const float *w, const uint8_t *order)
{
    float sx[2][IQ1_M_NAN], sw[2][IQ1_M_NAN]; /* by half: sums of the smallest 0, 1, .. weights where in that half */
    float x0 = 0.f, x1 = 0.f, w0 = 0.f, w1 = 0.f;
    for (int j = 0; j <= 16; j++) {
        sx[0][j] = x0, sx[1][j] = x1, sw[0][j] = w0, sw[1][j] = w1;
        if (j < 16) { /* adding 0 changes no sum, none being -0 */
            const int i = order[j];
            const float product = w[i] * x[i];
            x0 += i < 8 ? product : 0.f, x1 += i < 8 ? 0.f : product;
            w0 += i < 8 ? w[i] : 0.f, w1 += i < 8 ? 0.f : w[i];
        }
    }
    for (int j = 17; j < IQ1_M_NAN; j++) {
        sx[0][j] = sx[1][j] = sw[0][j] = sw[1][j] = NAN; /* no such split: never better */
    }
    int v = 0;
    iq1_greatest g[4];
    iq1_begin(c, x, w, 16, 4, g);
    for (int i1 = 0; i1 <= 16; i1++) {
        for (int i2 = i1; i2 <= 16; i2 += VN) {
            iq1_at(c, v, i1, i2);
            VF qx[2][2], q2[2][2]; /* half, shift */
            for (int h = 0; h < 2; h++) {
                VF sum_x = vf_add(vf_set1(sx[h][i1]), vf_load(sx[h] + i2)), sum_w = vf_load(sw[h] + i2);
                for (int k = 0; k < 2; k++) {
                    /* Levels are one apart, so the runs' sums shrink to the total times the highest less two parts;
                     * squares of levels differ by these. */
                    const float top = iq1_levels[k][2], below = k == 0 ? 0.75f : 1.25f, above = k == 0 ? -1.25f : -0.75f;
                    qx[h][k] = vf_sub(vf_set1(sx[h][16] * top), sum_x);
                    q2[h][k] = vf_add(vf_set1(sw[h][16] * top * top + sw[h][i1] * below), vf_mul(sum_w, vf_set1(above)));
                }
            }
            for (int k = 0; k < 4; k++) {
                iq1_propose(c, k, v, vf_add(qx[0][k / 2], qx[1][k % 2]), vf_add(q2[0][k / 2], q2[1][k % 2]), g + k);
            }
            v++;
        }
    }
    iq1_end(c, v, g);
}

/* Scales, and d by least squares over the whole superblock. */
static void iq1_m_scales(const float *x, const float *w, const float scale[16], float max, const uint16_t *codes,
                         const uint8_t *shifts, iq1_m_block *block)
{
    float d = max / 15, inverse = 1 / d, sums[2] = {0.f, 0.f};
    unsigned words[4] = {0};
    for (int k = 0; k < 16; k++) {
        const int l = superblock_clamp(superblock_nearest(0.5f * (inverse * scale[k] - 1)), 0, 7);
        words[k / 4] |= (unsigned)l << 3 * (k % 4);
        for (int i = 2 * k; i < 2 * k + 2; i++) {
            block->high[k] |= (uint8_t)(shifts[i] << (4 * (i % 2) + 3));
            iq1_add(x + 8 * i, w + 8 * i, codes[i], iq1_levels[shifts[i]], (float)(2 * l + 1), sums);
        }
    }
    if (sums[1] > 0.f) {
        d = sums[0] / sums[1];
    }
    const unsigned half = scale_bits(d * 1.1125f);
    for (int k = 0; k < 4; k++) {
        store_u16(block->scales + 2 * k, words[k] | (half >> 4 * k & 15) << 12);
    }
}

/* One superblock. */
static void iq1_m_fit(const forge_lattice *t, const float *x, const float *given, float sigma2, iq1_m_block *block)
{
    float scale[16] = {0}, max = 0.f, w[256];
    uint8_t shifts[32] = {0};
    uint16_t codes[32] = {0};
    memset(block, 0, sizeof *block);
    iq1_importance(x, given, 256, sigma2, w);
    for (int k = 0; k < 16; k++) {
        const float *at = x + 16 * k, *weight = w + 16 * k;
        uint8_t order[32];
        uint16_t code[4];
        iq1_candidates c;
        if (iq1_max(at, 16) < 1e-7f) {
            continue;
        }
        iq1_sort(at, 16, order);
        iq1_m_candidates(&c, at, weight, order);
        iq1_split s = iq1_choose(&c);
        if (s.shift < 0) {
            continue;
        }
        iq1_codes(order, 16, s, code);
        uint8_t *shift = shifts + 2 * k;
        shift[0] = (uint8_t)(s.shift >> 1 ^ (s.scale < 0.f));
        shift[1] = (uint8_t)((s.shift & 1) ^ (s.scale < 0.f));
        scale[k] = fabsf(s.scale);
        if (!iq1_settle(t, at, weight, 2, shift, scale[k], code)) {
            float sums[2] = {0.f, 0.f};
            iq1_add(at, weight, code[0], iq1_levels[shift[0]], 1.f, sums);
            iq1_add(at + 8, weight + 8, code[1], iq1_levels[shift[1]], 1.f, sums);
            scale[k] = sums[0] > 0.f && sums[1] > 0.f ? sums[0] / sums[1] : scale[k];
        }
        for (int i = 0; i < 2; i++) {
            const uint32_t index = forge_lattice_place(t, code[i]) >> 9;
            codes[2 * k + i] = code[i];
            block->index[2 * k + i] = (uint8_t)index;
            block->high[k] |= (uint8_t)(index >> 8 << 4 * i);
        }
        max = max > scale[k] ? max : scale[k];
    }
    if (max != 0.f) {
        iq1_m_scales(x, w, scale, max, codes, shifts, block);
    }
}

static void iq1_m_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    const forge_lattice *t = forge_lattice_get(LATTICE_IQ1);
    float sums[SUPERBLOCKS];
    for (int64_t b = 0; b < blocks; b++) {
        if (b % SUPERBLOCKS == 0) {
            superblock_squares(x + 256 * b, blocks - b < SUPERBLOCKS ? (int)(blocks - b) : SUPERBLOCKS, sums);
        }
        const float *given = w != NULL ? w + 256 * (b % row_blocks) : NULL;
        iq1_m_fit(t, x + 256 * b, given, 2 * sums[b % SUPERBLOCKS] / 256, (iq1_m_block *)out + b);
    }
}

static void iq1_m_read(grid_parts *parts, const void *in)
{
    const iq1_m_block *block = (const iq1_m_block *)in;
    const VB high = vb_load_u8(block->high), even = vb_field(high, 0, 7), odd = vb_field(high, 4, 7);
    grid_indices(parts->index, vb_load_u8(block->index), vb_zip(even, odd, 0));
    grid_indices(parts->index + 16, vb_load_u8(block->index + 16), vb_zip(even, odd, 1));
    vb_store(parts->shifts, vb_or(vb_field(high, 3, 1), vb_field(high, 6, 2)));
    uint64_t s[2];
    unsigned half = 0;
    for (int k = 0; k < 2; k++) {
        const unsigned w0 = load_u16(block->scales + 4 * k), w1 = load_u16(block->scales + 4 * k + 2);
        half |= (w0 >> 12 | w1 >> 12 << 4) << 8 * k;
        s[k] = (w0 & 0xfff) | (uint64_t)(w1 & 0xfff) << 32; /* fields of three bits to bytes: */
        s[k] = (s[k] | s[k] << 10) & 0x003f003f003f003fu;
        s[k] = (s[k] | s[k] << 5) & 0x0707070707070707u;
    }
    grid_scales(parts->scale, vb_set(s[0], s[1]), f16_to_f32((uint16_t)half));
}

static void iq1_m_write(const grid_parts *parts, const void *in, float *y)
{
    (void)in;
    for (int k = 0; k < 16; k++) {
        const uint16_t *index = parts->index + 2 * k;
        iq1_store(index[0], index[1], iq1_shifts[parts->shifts[k]], parts->scale[k], y + 16 * k);
    }
}

static void iq1_m_decode(const uint8_t *in, float *y, int64_t blocks)
{
    grid_decode(iq1_m_read, iq1_m_write, sizeof(iq1_m_block), in, y, blocks);
}

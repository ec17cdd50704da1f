/* Blocks taken apart and put together: scales, minimums and levels as numbers, for the types whose weights are levels of
 * their own, each with a scale. Knows where the bits lie (the codec's header draws it); searches nothing. */
#ifndef FORGE_FIT_BLOCKS_H
#define FORGE_FIT_BLOCKS_H

typedef struct {
    float d, dmin;      /* as a reader of the block sees them; dmin is subtracted */
    int scale[16], min[16];
    uint8_t level[256]; /* counted from the least of them, or in types with uneven levels the place in the sorted table */
} FitBlock;

/* Level i of `n` in fields of `bits`, the fields of one byte lying `apart` levels apart. */
static inline int fit_field(const uint8_t *q, int i, int bits, int apart)
{
    const int per = 8 / bits, group = apart * per;
    return q[i / group * apart + i % apart] >> (i % group / apart * bits) & ((1 << bits) - 1);
}

static inline void fit_set_field(uint8_t *q, int i, int bits, int apart, int value)
{
    const int per = 8 / bits, group = apart * per;
    q[i / group * apart + i % apart] |= (uint8_t)(value << (i % group / apart * bits));
}

/* Bits from `from` on of n levels, added to fields as above. */
V_FN void fit_set_fields(uint8_t *restrict q, const uint8_t *restrict level, int n, int from, int bits, int apart)
{
    const int per = 8 / bits, mask = (1 << bits) - 1;
    for (int group = 0; group < n; group += per * apart, q += apart) {
        for (int k = 0; k < per; k++) {
            for (int i = 0; i < apart; i++) {
                q[i] |= (uint8_t)((level[group + k * apart + i] >> from & mask) << k * bits);
            }
        }
    }
}

static inline void fit_store_f16(uint8_t *p, float a)
{
    store_u16(p, f32_to_f16(a));
}

/* ------------------------------------------------------------------ 32 weights with one scale */

static void q4_0_open(const uint8_t *in, FitBlock *f) { f->d = load_f16(in); }
static void q4_0_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 18);
    fit_store_f16(out, f->d);
    fit_set_fields(out + 2, f->level, 32, 0, 4, 16);
}

static void q4_1_open(const uint8_t *in, FitBlock *f)
{
    f->d = load_f16(in);
    f->dmin = -load_f16(in + 2);
}
static void q4_1_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 20);
    fit_store_f16(out, f->d);
    fit_store_f16(out + 2, -f->dmin);
    fit_set_fields(out + 4, f->level, 32, 0, 4, 16);
}

static void five_bits_close(const FitBlock *f, uint8_t *h)
{
    memset(h, 0, 20);
    fit_set_fields(h, f->level, 32, 4, 1, 1);
    fit_set_fields(h + 4, f->level, 32, 0, 4, 16);
}
static void q5_0_close(const FitBlock *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    five_bits_close(f, out + 2);
}
static void q5_1_close(const FitBlock *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    fit_store_f16(out + 2, -f->dmin);
    five_bits_close(f, out + 4);
}

static void q8_0_close(const FitBlock *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    for (int i = 0; i < 32; i++) {
        out[2 + i] = (uint8_t)(f->level[i] - 128);
    }
}

static void iq4_nl_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 18);
    fit_store_f16(out, f->d);
    fit_set_fields(out + 2, f->level, 32, 0, 4, 16);
}

/* ------------------------------------------------------------------ E2M1 */

/* Its values in order, twice what they are, and how they are written; zero stands twice. */
static const float fp4_sorted[16] = {-12, -8, -6, -4, -3, -2, -1, 0, 0, 1, 2, 3, 4, 6, 8, 12};
static const float fp4_edges[16] = {-10, -7, -5, -3.5f, -2.5f, -1.5f, -.5f, 0, .5f, 1.5f, 2.5f, 3.5f, 5, 7, 10, 0};
static inline int fp4_code(int place) { return place < 7 ? 15 - place : place < 9 ? 0 : place - 8; }

static void mxfp4_open(const uint8_t *in, FitBlock *f) { f->scale[0] = in[0]; }
static void mxfp4_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 17);
    out[0] = (uint8_t)f->scale[0];
    for (int i = 0; i < 32; i++) {
        fit_set_field(out + 1, i, 4, 16, fp4_code(f->level[i]));
    }
}

static void nvfp4_open(const uint8_t *in, FitBlock *f)
{
    for (int s = 0; s < 4; s++) {
        f->scale[s] = in[s];
    }
}
static void nvfp4_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 36);
    for (int s = 0; s < 4; s++) {
        out[s] = (uint8_t)f->scale[s];
    }
    for (int i = 0; i < 64; i++) {
        fit_set_field(out + 4, i, 4, 8, fp4_code(f->level[i]));
    }
}

/* ------------------------------------------------------------------ two, three or four levels, one scale */

static void tq1_0_close(const FitBlock *f, uint8_t *out)
{
    static const struct {
        int first, apart, digits; /* where a byte's weights begin, how far they lie from each other, how many there are */
    } parts[3] = {{0, 32, 5}, {160, 16, 5}, {240, 4, 4}};
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < parts[k].apart; i++) {
            int q = 0;
            for (int n = 0; n < 5; n++) {
                q = 3 * q + (n < parts[k].digits ? f->level[parts[k].first + n * parts[k].apart + i] : 0);
            }
            *out++ = (uint8_t)((q * 256 + 242) / 243);
        }
    }
    fit_store_f16(out, f->d);
}

static void tq2_0_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 64);
    fit_set_fields(out, f->level, 256, 0, 2, 32);
    fit_store_f16(out + 64, f->d);
}

static const float q1_0_values[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 1, 1, 1, 1, 1, 1, 1, 1}, q1_0_edges[16] = {0};
static void q1_0_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 18);
    fit_store_f16(out, f->d);
    for (int i = 0; i < 128; i++) {
        fit_set_field(out + 2, i, 1, 1, f->level[i] > 0);
    }
}

static void q2_0_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 18);
    fit_store_f16(out, f->d);
    fit_set_fields(out + 2, f->level, 64, 0, 2, 1);
}

/* ------------------------------------------------------------------ superblocks of 256 */

static void q2_k_open(const uint8_t *in, FitBlock *f)
{
    f->d = load_f16(in + 80);
    f->dmin = load_f16(in + 82);
    for (int j = 0; j < 16; j++) {
        f->scale[j] = in[j] & 15;
        f->min[j] = in[j] >> 4;
    }
}
static void q2_k_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 84);
    for (int j = 0; j < 16; j++) {
        out[j] = (uint8_t)(f->scale[j] | f->min[j] << 4);
    }
    fit_set_fields(out + 16, f->level, 256, 0, 2, 32);
    fit_store_f16(out + 80, f->d);
    fit_store_f16(out + 82, f->dmin);
}

static void q3_k_open(const uint8_t *in, FitBlock *f)
{
    f->d = load_f16(in + 108);
    for (int j = 0; j < 16; j++) {
        f->scale[j] = ((in[96 + j % 8] >> j / 8 * 4 & 15) | (in[104 + j % 4] >> j / 4 * 2 & 3) << 4) - 32;
    }
}
static void q3_k_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 110);
    fit_set_fields(out, f->level, 256, 2, 1, 32);
    fit_set_fields(out + 32, f->level, 256, 0, 2, 32);
    for (int j = 0; j < 16; j++) {
        const int s = f->scale[j] + 32;
        out[96 + j % 8] |= (uint8_t)((s & 15) << j / 8 * 4);
        out[104 + j % 4] |= (uint8_t)(s >> 4 << j / 4 * 2);
    }
    fit_store_f16(out + 108, f->d);
}

static void q4_k_open(const uint8_t *in, FitBlock *f)
{
    f->d = load_f16(in);
    f->dmin = load_f16(in + 2);
    for (int j = 0; j < 8; j++) {
        six_bits_load(in + 4, j, &f->scale[j], &f->min[j]);
    }
}
static void six_bits_close(const FitBlock *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    fit_store_f16(out + 2, f->dmin);
    for (int j = 0; j < 4; j++) {
        out[4 + j] = (uint8_t)(f->scale[j] | f->scale[4 + j] >> 4 << 6);
        out[8 + j] = (uint8_t)(f->min[j] | f->min[4 + j] >> 4 << 6);
        out[12 + j] = (uint8_t)((f->scale[4 + j] & 15) | (f->min[4 + j] & 15) << 4);
    }
}
static void q4_k_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 144);
    six_bits_close(f, out);
    fit_set_fields(out + 16, f->level, 256, 0, 4, 32);
}
static void q5_k_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 176);
    six_bits_close(f, out);
    fit_set_fields(out + 16, f->level, 256, 4, 1, 32);
    fit_set_fields(out + 48, f->level, 256, 0, 4, 32);
}

static void q6_k_open(const uint8_t *in, FitBlock *f)
{
    f->d = load_f16(in + 208);
    for (int j = 0; j < 16; j++) {
        f->scale[j] = (int8_t)in[192 + j];
    }
}
static void q6_k_close(const FitBlock *f, uint8_t *out)
{
    memset(out, 0, 192);
    fit_set_fields(out, f->level, 256, 0, 4, 64);
    fit_set_fields(out + 128, f->level, 256, 4, 2, 32);
    for (int j = 0; j < 16; j++) {
        out[192 + j] = (uint8_t)f->scale[j];
    }
    fit_store_f16(out + 208, f->d);
}

static void iq4_xs_open(const uint8_t *in, FitBlock *f)
{
    f->d = load_f16(in);
    for (int j = 0; j < 8; j++) {
        f->scale[j] = ((in[4 + j / 2] >> j % 2 * 4 & 15) | (load_u16(in + 2) >> 2 * j & 3) << 4) - 32;
    }
}
static void iq4_xs_close(const FitBlock *f, uint8_t *out)
{
    unsigned high = 0;
    memset(out, 0, 136);
    for (int j = 0; j < 8; j++) {
        const unsigned s = (unsigned)(f->scale[j] + 32);
        high |= s >> 4 << 2 * j;
        out[4 + j / 2] |= (uint8_t)((s & 15) << j % 2 * 4);
    }
    fit_store_f16(out, f->d);
    store_u16(out + 2, high);
    fit_set_fields(out + 8, f->level, 256, 0, 4, 16);
}

#endif

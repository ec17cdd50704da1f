/* Blocks of the lattice types taken apart and put together: scales as numbers, weights as what the scales multiply.
 * Knows where the bits lie (the codec's header draws it); searches nothing. */
#ifndef FORGE_FIT_POINTS_H
#define FORGE_FIT_POINTS_H

typedef struct {
    float d;
    int scale[16];      /* whole scales s, of which 2 s + 1 multiplies d */
    uint16_t index[64]; /* of each group's point */
    uint8_t signs[32];  /* of each eight weights, the first in bit 0 */
    uint8_t down[32];   /* whether each eight are shifted down, where points are shifted */
} FitPoints;

/* ------------------------------------------------------------------ four weights a point */

static void iq3_s_open(const uint8_t *in, FitPoints *f)
{
    f->d = load_f16(in);
    for (int k = 0; k < 8; k++) {
        f->scale[k] = fit_field(in + 106, k, 4, 1);
    }
}
static void iq3_s_close(const FitPoints *f, uint8_t *out)
{
    memset(out, 0, 110);
    fit_store_f16(out, f->d);
    for (int i = 0; i < 64; i++) {
        out[2 + i] = (uint8_t)f->index[i];
        fit_set_field(out + 66, i, 1, 1, f->index[i] >> 8);
    }
    memcpy(out + 74, f->signs, 32);
    for (int k = 0; k < 8; k++) {
        fit_set_field(out + 106, k, 4, 1, f->scale[k]);
    }
}

static void iq3_xxs_open(const uint8_t *in, FitPoints *f)
{
    f->d = load_f16(in);
    for (int k = 0; k < 8; k++) {
        f->scale[k] = in[66 + 4 * k + 3] >> 4;
    }
}
static uint32_t sevens_close(const FitPoints *f, int k)
{
    uint32_t word = (uint32_t)f->scale[k] << 28;
    for (int i = 0; i < 4; i++) {
        word |= (uint32_t)(f->signs[4 * k + i] & 127) << 7 * i;
    }
    return word;
}
static void iq3_xxs_close(const FitPoints *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    for (int i = 0; i < 64; i++) {
        out[2 + i] = (uint8_t)f->index[i];
    }
    for (int k = 0; k < 8; k++) {
        store_u32(out + 66 + 4 * k, sevens_close(f, k));
    }
}

/* ------------------------------------------------------------------ eight weights a point */

static void iq2_xxs_open(const uint8_t *in, FitPoints *f)
{
    f->d = load_f16(in);
    for (int k = 0; k < 8; k++) {
        f->scale[k] = in[2 + 8 * k + 7] >> 4;
    }
}
static void iq2_xxs_close(const FitPoints *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    for (int k = 0; k < 8; k++) {
        for (int i = 0; i < 4; i++) {
            out[2 + 8 * k + i] = (uint8_t)f->index[4 * k + i];
        }
        store_u32(out + 2 + 8 * k + 4, sevens_close(f, k));
    }
}

static void iq2_xs_open(const uint8_t *in, FitPoints *f)
{
    f->d = load_f16(in);
    for (int k = 0; k < 16; k++) {
        f->scale[k] = fit_field(in + 66, k, 4, 1);
    }
}
static void iq2_xs_close(const FitPoints *f, uint8_t *out)
{
    memset(out, 0, 74);
    fit_store_f16(out, f->d);
    for (int i = 0; i < 32; i++) {
        store_u16(out + 2 + 2 * i, f->index[i] | (f->signs[i] & 127u) << 9);
    }
    for (int k = 0; k < 16; k++) {
        fit_set_field(out + 66, k, 4, 1, f->scale[k]);
    }
}

static void iq2_s_open(const uint8_t *in, FitPoints *f)
{
    f->d = load_f16(in);
    for (int k = 0; k < 16; k++) {
        f->scale[k] = fit_field(in + 74, k, 4, 1);
    }
}
static void iq2_s_close(const FitPoints *f, uint8_t *out)
{
    memset(out, 0, 82);
    fit_store_f16(out, f->d);
    for (int i = 0; i < 32; i++) {
        out[2 + i] = (uint8_t)f->index[i];
        fit_set_field(out + 66, i, 2, 1, f->index[i] >> 8);
    }
    memcpy(out + 34, f->signs, 32);
    for (int k = 0; k < 16; k++) {
        fit_set_field(out + 74, k, 4, 1, f->scale[k]);
    }
}

/* ------------------------------------------------------------------ points of -1, 0, 1, shifted */

static void iq1_s_open(const uint8_t *in, FitPoints *f)
{
    f->d = load_f16(in);
    for (int k = 0; k < 8; k++) {
        f->scale[k] = load_u16(in + 34 + 2 * k) >> 12 & 7;
    }
}
static void iq1_s_close(const FitPoints *f, uint8_t *out)
{
    fit_store_f16(out, f->d);
    for (int k = 0; k < 8; k++) {
        unsigned high = (unsigned)f->scale[k] << 12 | (unsigned)f->down[4 * k] << 15;
        for (int i = 0; i < 4; i++) {
            out[2 + 4 * k + i] = (uint8_t)f->index[4 * k + i];
            high |= (unsigned)(f->index[4 * k + i] >> 8) << 3 * i;
        }
        store_u16(out + 34 + 2 * k, high);
    }
}

static void iq1_m_open(const uint8_t *in, FitPoints *f)
{
    unsigned half = 0;
    for (int k = 0; k < 16; k++) {
        const unsigned word = load_u16(in + 48 + k / 4 * 2);
        f->scale[k] = word >> 3 * (k % 4) & 7;
        half |= k % 4 ? 0 : word >> 12 << k;
    }
    f->d = f16_to_f32((uint16_t)half);
}
static void iq1_m_close(const FitPoints *f, uint8_t *out)
{
    const unsigned half = f32_to_f16(f->d);
    memset(out, 0, 56);
    for (int i = 0; i < 32; i++) {
        out[i] = (uint8_t)f->index[i];
        fit_set_field(out + 32, i, 4, 1, f->index[i] >> 8 | f->down[i] << 3);
    }
    for (int k = 0; k < 4; k++) {
        unsigned word = (half >> 4 * k & 15) << 12;
        for (int i = 0; i < 4; i++) {
            word |= (unsigned)f->scale[4 * k + i] << 3 * i;
        }
        store_u16(out + 48 + 2 * k, word);
    }
}

#endif

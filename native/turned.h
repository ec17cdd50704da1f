/* Matrices of words turned, so that what a row of blocks needs lies together: whole words, or the nibbles in them.
 *
 * Only bits move; words pass through float vectors because that is what the vocabulary transposes. */
#ifndef FORGE_TURNED_H
#define FORGE_TURNED_H

enum { STRIP = 16 }; /* columns of words taken together: a cache line of each row */

/* out[m * height + k] = words[k * stride + m], 0 <= m < width, 0 <= k < height. */
static void turn_words(const float *words, int64_t height, int64_t stride, int64_t width, float *out)
{
    int64_t m = 0;
    for (; m + STRIP <= width; m += STRIP) {
        int64_t k = 0;
        for (; k + VN <= height; k += VN) {
            const float *p[VN];
            VF column[STRIP];
            for (int l = 0; l < VN; l++) {
                p[l] = words + (k + l) * stride + m;
            }
            vf_load_lanes(column, p, STRIP);
            for (int i = 0; i < STRIP; i++) {
                vf_store(out + (m + i) * height + k, column[i]);
            }
        }
        for (; k < height; k++) {
            for (int i = 0; i < STRIP; i++) {
                out[(m + i) * height + k] = words[k * stride + m + i];
            }
        }
    }
    for (; m < width; m++) {
        for (int64_t k = 0; k < height; k++) {
            out[m * height + k] = words[k * stride + m];
        }
    }
}

/* Bits of two words exchanged: those of a that `mask` << k names with those of b that `mask` does. */
V_FN void exchange(VI *a, VI *b, int k, int mask)
{
    const VI t = vi_and(vi_xor(vi_shr(*a, k), *b), vi_set1(mask));
    *b = vi_xor(*b, t);
    *a = vi_xor(*a, vi_shl(t, k));
}

/* In each lane an 8 x 8 matrix of nibbles turned, a word a row. */
V_FN void turn8(VI *a)
{
    for (int i = 0; i < 8; i += 2) {
        exchange(&a[i], &a[i + 1], 4, 0x0f0f0f0f);
    }
    for (int i = 0; i < 8; i += 4) {
        exchange(&a[i], &a[i + 2], 8, 0x00ff00ff);
        exchange(&a[i + 1], &a[i + 3], 8, 0x00ff00ff);
    }
    for (int i = 0; i < 4; i++) {
        exchange(&a[i], &a[i + 4], 16, 0x0000ffff);
    }
}

/* 8 * VN rows of STRIP words: nibbles in whole words of the result. */
V_FN void turn_tile(const float *words, int64_t stride, const uint8_t *order, float *out, int64_t row)
{
    float tile[8][VN][STRIP];
    for (int b = 0; b < VN; b++, words += 8 * stride) {
        for (int c = 0; c < STRIP; c += VN) {
            VI a[8];
            for (int i = 0; i < 8; i++) {
                a[i] = vf_bits(vf_load(words + i * stride + c));
            }
            turn8(a);
            for (int i = 0; i < 8; i++) {
                vf_store(&tile[i][b][c], vi_as_f(a[i]));
            }
        }
    }
    for (int i = 0; i < 8; i++) {
        const float *p[VN];
        VF column[STRIP];
        for (int l = 0; l < VN; l++) {
            p[l] = tile[order[i]][l];
        }
        vf_load_lanes(column, p, STRIP);
        for (int c = 0; c < STRIP; c++) {
            vf_store(out + (8 * c + i) * row, column[c]);
        }
    }
}

/* One word of the result: field `at` of n <= 8 words, one below the other. */
V_FN float gather_nibbles(const float *words, int64_t stride, int n, int at)
{
    uint32_t found = 0;
    for (int j = 0; j < n; j++) {
        found |= (f32_to_bits(words[j * stride]) >> 4 * at & 15) << 4 * j;
    }
    return bits_to_f32(found);
}

/* Row 8 m + i of the result holds field order[i] of words[k * stride + m] for each k, eight to a word, the lowest first;
 * a row is ceil(height / 8) words, the rest of the last one zero. */
static void turn_nibbles(const float *words, int64_t height, int64_t stride, int64_t width, const uint8_t *order,
                         float *out)
{
    const int64_t row = (height + 7) / 8;
    for (int64_t m = 0; m < width; m += STRIP) {
        int64_t b = 0;
        for (; m + STRIP <= width && (b + VN) * 8 <= height; b += VN) {
            turn_tile(words + b * 8 * stride + m, stride, order, out + 8 * m * row + b, row);
        }
        for (int64_t c = m; c < width && c < m + STRIP; c++) {
            for (int i = 0; i < 8; i++) {
                for (int64_t k = b; k < row; k++) {
                    const int n = height - 8 * k < 8 ? (int)(height - 8 * k) : 8;
                    out[(8 * c + i) * row + k] = gather_nibbles(words + 8 * k * stride + c, stride, n, order[i]);
                }
            }
        }
    }
}

#endif

/* Second moments: sums over tokens of products of inputs, for the upper triangle of a symmetric matrix.
 *
 * The matrix lies in tiles of 16 x 16, the tile of rows I and columns J, I <= J, whole also on the diagonal:
 *
 *     0 1 2 3        tile (I, J) is number I * n - I * (I - 1) / 2 + J - I of n columns of tiles,
 *       4 5 6        and each holds 256 floats, row after row
 *         7 8
 *           9
 *
 * Inputs come in slices of 16 columns, a slice after the other, each with all tokens: 64 bytes a token, so that two
 * slices of 192 tokens stay in the first cache however wide the matrix is. A sum runs over the tokens of the call in
 * their order and is then added to the matrix: with 192 tokens a call a million tokens are 5209 additions, and float32
 * keeps four digits and more. Lanes are different columns; products and sums are rounded one by one, so that each
 * instruction set makes the same bytes. */

enum {
    MOMENTS_SIDE = 16,
    MOMENTS_VECTORS = MOMENTS_SIDE / VN < 4 ? MOMENTS_SIDE / VN : 4, /* columns at a time, in vectors */
    MOMENTS_ROWS = MOMENTS_VECTORS == 1 ? 8 : 4                      /* 8 to 16 sums in registers */
};

V_FN void moments_patch(const float *a, const float *b, int64_t tokens, float *tile)
{
    VF sum[MOMENTS_ROWS][MOMENTS_VECTORS];
    for (int r = 0; r < MOMENTS_ROWS; r++) {
        for (int v = 0; v < MOMENTS_VECTORS; v++) {
            sum[r][v] = vf_set1(0);
        }
    }
    for (int64_t t = 0; t < tokens; t++, a += MOMENTS_SIDE, b += MOMENTS_SIDE) {
        VF x[MOMENTS_VECTORS];
        for (int v = 0; v < MOMENTS_VECTORS; v++) {
            x[v] = vf_load(b + v * VN);
        }
        for (int r = 0; r < MOMENTS_ROWS; r++) {
            const VF y = vf_set1(a[r]);
            for (int v = 0; v < MOMENTS_VECTORS; v++) {
                sum[r][v] = vf_add(sum[r][v], vf_mul(y, x[v]));
            }
        }
    }
    for (int r = 0; r < MOMENTS_ROWS; r++) {
        for (int v = 0; v < MOMENTS_VECTORS; v++) {
            float *at = tile + r * MOMENTS_SIDE + v * VN;
            vf_store(at, vf_add(vf_load(at), sum[r][v]));
        }
    }
}

static void moments(const float *slices, int64_t tokens, int64_t count, int64_t first, int64_t last, float *tiles)
{
    tiles += (first * count - first * (first - 1) / 2) * MOMENTS_SIDE * MOMENTS_SIDE;
    for (int64_t i = first; i < last; i++) {
        for (int64_t j = i; j < count; j++, tiles += MOMENTS_SIDE * MOMENTS_SIDE) {
            const float *a = slices + i * tokens * MOMENTS_SIDE, *b = slices + j * tokens * MOMENTS_SIDE;
            for (int r = 0; r < MOMENTS_SIDE; r += MOMENTS_ROWS) {
                for (int c = 0; c < MOMENTS_SIDE; c += MOMENTS_VECTORS * VN) {
                    moments_patch(a + r, b + c, tokens, tiles + r * MOMENTS_SIDE + c);
                }
            }
        }
    }
}

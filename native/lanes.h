/* A group of VN blocks, one a lane: where each lane reads and writes.
 *
 * Surplus lanes of the last group repeat the last block, and write it into a spare block.
 */
typedef struct {
    const float *x[VN]; /* the block's elements */
    const float *w[VN]; /* its importance values, or NULL */
    uint8_t *out[VN];   /* its bytes; `spare` where none are asked for */
    uint8_t spare[384];
} Lanes;

/* Lanes for blocks first .. first + VN - 1 of `blocks`; `size` elements and `bytes` bytes a block. */
static inline void lanes_at(Lanes *g, int64_t first, int64_t blocks, int size, int bytes, const float *x, uint8_t *out,
                            const float *w, int64_t row_blocks)
{
    int64_t column = w ? first % row_blocks : 0, b = first;
    for (int l = 0; l < VN; l++) {
        g->x[l] = x + b * size;
        g->w[l] = w ? w + column * size : 0;
        g->out[l] = out && first + l < blocks ? out + b * bytes : g->spare;
        if (b + 1 < blocks) {
            b++;
            column = column + 1 < row_blocks ? column + 1 : 0;
        }
    }
}

/* out[i] lane l = p[l][at + i], 0 <= i < n; n a multiple of 16. */
V_FN void lanes_load(VF *out, const float *const *p, int at, int n)
{
    const float *from[VN];
    for (int l = 0; l < VN; l++) {
        from[l] = p[l] + at;
    }
    vf_load_lanes(out, from, n);
}

/* Byte at + i of lane l's block = low byte of v[i] lane l, 0 <= i < n; n a multiple of 16. */
V_FN void lanes_store_u8(const Lanes *g, int at, const VI *v, int n)
{
    uint8_t *to[VN];
    for (int l = 0; l < VN; l++) {
        to[l] = g->out[l] + at;
    }
    vi_store_lanes_u8(to, v, n);
}

/* One byte of each lane's block. */
V_FN void lanes_store_byte(const Lanes *g, int at, VI v)
{
    int32_t bytes[VN];
    vi_store(bytes, v);
    for (int l = 0; l < VN; l++) {
        g->out[l][at] = (uint8_t)bytes[l];
    }
}

V_FN VF sum_squares(const VF *x, int n)
{
    VF sum = vf_set1(0);
    for (int i = 0; i < n; i++) {
        sum = vf_add(sum, vf_mul(x[i], x[i]));
    }
    return sum;
}

V_FN VF sum_of(const VF *x, int n)
{
    VF sum = vf_set1(0);
    for (int i = 0; i < n; i++) {
        sum = vf_add(sum, x[i]);
    }
    return sum;
}

/* w[i] = importance * sqrt(sigma2 + x^2) for n elements from `at` on of each lane's block. */
V_FN void importance_load(VF *w, const Lanes *g, int at, const VF *x, int n, VF sigma2)
{
    lanes_load(w, g->w, at, n);
    for (int i = 0; i < n; i++) {
        w[i] = vf_mul(w[i], vf_sqrt(vf_add(sigma2, vf_mul(x[i], x[i]))));
    }
}

/* What lane l needs of its row, for blocks first .. first + VN - 1: of_row[r] belongs to the r-th of the rows that
 * begin at block 0 and end at block `end`. */
V_FN VF by_row(const float *of_row, int64_t first, int64_t end, int64_t row_blocks)
{
    float lanes[VN];
    int64_t row = first / row_blocks, next = (row + 1) * row_blocks;
    for (int l = 0; l < VN; l++) {
        if (first + l == next && next < end) {
            row++;
            next += row_blocks;
        }
        lanes[l] = of_row[row];
    }
    return vf_load(lanes);
}

/* sigma2 of each of VN rows from `first` on: the mean square of the whole row. Surplus lanes repeat the last row. */
static void row_mean_squares(float *sigma2, const float *x, int64_t first, int64_t rows, int64_t width)
{
    const float *p[VN];
    for (int l = 0; l < VN; l++) {
        p[l] = x + (first + l < rows ? first + l : rows - 1) * width;
    }
    VF sum = vf_set1(0);
    for (int64_t at = 0; at < width; at += 32) {
        VF v[32];
        vf_load_lanes(v, p, 32);
        for (int i = 0; i < 32; i++) {
            sum = vf_add(sum, vf_mul(v[i], v[i]));
        }
        for (int l = 0; l < VN; l++) {
            p[l] += 32;
        }
    }
    vf_store(sigma2, vf_div(sum, vf_set1((float)width)));
}

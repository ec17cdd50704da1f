/* A group of VN blocks, one a lane: where each lane reads and writes.
 *
 * Surplus lanes of the last group repeat the last block, and write it into a spare block.
 */
typedef struct {
    const float *x[VN]; /* the block's elements */
    const float *w[VN]; /* its importance values, or NULL */
    uint8_t *out[VN];   /* its bytes */
    uint8_t spare[384];
} Lanes;

/* Lanes for blocks first .. first + VN - 1 of `blocks`; `size` elements and `bytes` bytes a block. */
static inline void lanes_at(Lanes *g, int64_t first, int64_t blocks, int size, int bytes, const float *x, uint8_t *out,
                            const float *w, int64_t row_blocks)
{
    for (int l = 0; l < VN; l++) {
        int64_t b = first + l < blocks ? first + l : blocks - 1;
        g->x[l] = x + b * size;
        g->w[l] = w ? w + b % row_blocks * size : 0;
        g->out[l] = first + l < blocks ? out + b * bytes : g->spare;
    }
}

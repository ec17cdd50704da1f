/* Rows fitted against a covariance: the shapes of the types, chunks of columns, panels of rows. */
#ifndef FORGE_FIT_ROWS_H
#define FORGE_FIT_ROWS_H

extern const forge_backend FORGE_BACKEND;

static const FitShape fit_shapes[] = {
    {.type = 2, .block = 32, .sub = 32, .bytes = 18, .form = FIT_D, .least = -8, .most = 7,
     .open = q4_0_open, .close = q4_0_close},
    {.type = 3, .block = 32, .sub = 32, .bytes = 20, .form = FIT_D_MIN, .least = 0, .most = 15,
     .open = q4_1_open, .close = q4_1_close},
    {.type = 6, .block = 32, .sub = 32, .bytes = 22, .form = FIT_D, .least = -16, .most = 15,
     .open = q4_0_open, .close = q5_0_close},
    {.type = 7, .block = 32, .sub = 32, .bytes = 24, .form = FIT_D_MIN, .least = 0, .most = 31,
     .open = q4_1_open, .close = q5_1_close},
    {.type = 8, .block = 32, .sub = 32, .bytes = 34, .form = FIT_D, .least = -128, .most = 127,
     .open = q4_0_open, .close = q8_0_close},
    {.type = 10, .block = 256, .sub = 16, .bytes = 84, .form = FIT_INTS_MIN, .least = 0, .most = 3,
     .scale_least = 0, .scale_most = 15, .min_most = 15, .open = q2_k_open, .close = q2_k_close},
    {.type = 11, .block = 256, .sub = 16, .bytes = 110, .form = FIT_INTS, .least = -4, .most = 3,
     .scale_least = -32, .scale_most = 31, .open = q3_k_open, .close = q3_k_close},
    {.type = 12, .block = 256, .sub = 32, .bytes = 144, .form = FIT_INTS_MIN, .least = 0, .most = 15,
     .scale_least = 0, .scale_most = 63, .min_most = 63, .open = q4_k_open, .close = q4_k_close},
    {.type = 13, .block = 256, .sub = 32, .bytes = 176, .form = FIT_INTS_MIN, .least = 0, .most = 31,
     .scale_least = 0, .scale_most = 63, .min_most = 63, .open = q4_k_open, .close = q5_k_close},
    {.type = 14, .block = 256, .sub = 16, .bytes = 210, .form = FIT_INTS, .least = -32, .most = 31,
     .scale_least = -128, .scale_most = 127, .open = q6_k_open, .close = q6_k_close},
    {.type = 20, .block = 32, .sub = 32, .bytes = 18, .form = FIT_D, .values = iq4_values, .edges = iq4_edges,
     .open = q4_0_open, .close = iq4_nl_close},
    {.type = 23, .block = 256, .sub = 32, .bytes = 136, .form = FIT_INTS, .values = iq4_values, .edges = iq4_edges,
     .scale_least = -32, .scale_most = 31, .open = iq4_xs_open, .close = iq4_xs_close},
    {.type = 39, .block = 32, .sub = 32, .bytes = 17, .form = FIT_E8M0, .values = fp4_sorted, .edges = fp4_edges,
     .scale_least = 2, .scale_most = 254, .open = mxfp4_open, .close = mxfp4_close},
    {.type = 40, .block = 64, .sub = 16, .bytes = 36, .form = FIT_E4M3, .values = fp4_sorted, .edges = fp4_edges,
     .scale_least = 0, .scale_most = 126, .open = nvfp4_open, .close = nvfp4_close},
    {.type = 34, .block = 256, .sub = 256, .bytes = 54, .form = FIT_D, .few = 1, .least = -1, .most = 1,
     .close = tq1_0_close},
    {.type = 35, .block = 256, .sub = 256, .bytes = 66, .form = FIT_D, .few = 1, .least = -1, .most = 1,
     .close = tq2_0_close},
    {.type = 41, .block = 128, .sub = 128, .bytes = 18, .form = FIT_D, .few = 1, .values = q1_0_values,
     .edges = q1_0_edges, .close = q1_0_close},
    {.type = 42, .block = 64, .sub = 64, .bytes = 18, .form = FIT_D, .few = 1, .least = -1, .most = 2,
     .close = q2_0_close},
};

/* What a type is fitted as: levels, or the points of a lattice. */
typedef struct {
    const FitShape *shape;
    const FitLattice *lattice;
} FitType;

static FitType fit_type(int type)
{
    for (size_t i = 0; i < sizeof fit_shapes / sizeof fit_shapes[0]; i++) {
        if (fit_shapes[i].type == type) {
            return (FitType){&fit_shapes[i], NULL};
        }
    }
    for (size_t i = 0; i < sizeof fit_lattices / sizeof fit_lattices[0]; i++) {
        if (fit_lattices[i].shape.type == type) {
            return (FitType){&fit_lattices[i].shape, &fit_lattices[i]};
        }
    }
    return (FitType){NULL, NULL};
}

/* Where each row's block goes: surplus lanes repeat the last row, and are not written. */
typedef struct {
    uint8_t *out;
    int64_t stride;
    int rows;
} FitOut;

/* Puts levels and scales of a block where its columns lie. */
static void fit_return(const FitShape *s, FitBlock *f, const uint8_t *slot)
{
    const FitBlock moved = *f;
    for (int i = 0; i < s->block; i++) {
        f->level[slot[i]] = moved.level[i];
    }
    for (int i = 0; i < s->block / s->sub; i++) {
        const int to = slot[i * s->sub] / s->sub;
        f->scale[to] = moved.scale[i];
        f->min[to] = moved.min[i];
    }
}

/* Writes VN blocks, whose levels are in k->best. */
static void fit_write(const FitShape *s, const FitWork *k, const FitScales *best, const uint8_t *slot, const FitOut *to,
                      const uint8_t place[256])
{
    const VI least = vi_set1(s->values ? -128 : s->least);
    FitBlock block[VN];
    float d[VN], dmin[VN];
    int32_t scale[16][VN], min[16][VN];
    for (int i = 0; i < s->block; i += 16) {
        VI level[16];
        uint8_t *lane[VN];
        for (int j = 0; j < 16; j++) {
            level[j] = vi_sub(vf_trunc(k->best[i + j]), least);
        }
        for (int l = 0; l < VN; l++) {
            lane[l] = block[l].level + i;
        }
        vi_store_lanes_u8(lane, level, 16);
    }
    vf_store(d, best->d);
    vf_store(dmin, best->dmin);
    for (int i = 0; i < s->block / s->sub; i++) {
        vi_store(scale[i], best->scale[i]);
        vi_store(min[i], best->min[i]);
    }
    for (int l = 0; l < to->rows; l++) {
        FitBlock *f = &block[l];
        f->d = d[l];
        f->dmin = dmin[l];
        for (int i = 0; i < s->block / s->sub; i++) {
            f->scale[i] = scale[i][l];
            f->min[i] = min[i][l];
        }
        for (int i = 0; s->values && i < s->block; i++) {
            f->level[i] = place[f->level[i]];
        }
        if (slot) {
            fit_return(s, f, slot);
        }
        s->close(f, to->out + l * to->stride);
    }
}

/* One chunk of VN rows. scales: of its first block, of those of a panel. */
static void fit_chunk(const FitShape *s, FitWork *k, int columns, const float *u, const float *d, forge_encode_fn encode,
                      int rounds, int rows, FitScales *scales, double *error)
{
    FitScales best;
    memset(&best, 0, sizeof best);
    for (int at = 0; at < columns; at += s->block, scales += FIT_LANES) {
        if (s->few) {
            (s->values ? fit_uneven : fit_even)(s, k, &best, at, u, d, encode, rounds);
        } else if (s->values) {
            (s->sub == 16 ? fit_uneven16 : fit_uneven32)(s, k, &best, at, u, d, encode, rounds);
        } else if (fit_has_mins(s)) {
            (s->sub == 16 ? fit_even16_mins : fit_even32_mins)(s, k, &best, at, u, d, encode, rounds);
        } else {
            (s->sub == 16 ? fit_even16 : fit_even32)(s, k, &best, at, u, d, encode, rounds);
        }
        *scales = best;
        fit_carry_on(k, k->base, u, k->error, at, at + s->block, columns);
        float lanes[VN];
        vf_store(lanes, best.total);
        for (int l = 0; l < rows; l++) {
            error[l] += lanes[l];
        }
    }
}

typedef VF fit_lattice_fn(const FitLattice *s, const FitList *list, FitWork *k, FitScales *best, int at, const float *u,
                          const float *d, forge_encode_fn encode, forge_decode_fn decode, int rounds,
                          const FitMetric *metric, uint8_t *bytes);

static fit_lattice_fn *fit_of_lattice(const FitLattice *s)
{
    switch (s->signs) {
    case FIT_FREE: return s->dimensions == 4 ? fit_free4 : fit_free8;
    case FIT_EVEN: return s->dimensions == 4 ? fit_even4 : fit_even8;
    case FIT_SHIFT: return fit_shift8;
    default: return fit_shifts8;
    }
}

/* The same in points of a lattice. */
static void fit_lattice_chunk(const FitLattice *s, const FitList *list, FitWork *k, int columns, const float *u,
                              const float *d, int rounds, const FitMetric *metric, FitOut to, double *error)
{
    fit_lattice_fn *fit = fit_of_lattice(s);
    FitScales best;
    for (int at = 0; at < columns; at += 256, to.out += s->shape.bytes) {
        uint8_t bytes[VN * 128];
        const VF own = fit(s, list, k, &best, at, u, d, FORGE_BACKEND.encode[s->shape.type],
                           FORGE_BACKEND.decode[s->shape.type], rounds, metric, bytes);
        const uint32_t better = vm_bits(vf_lt(best.total, own));
        float lanes[VN];
        vf_store(lanes, best.total);
        for (int l = 0; l < to.rows; l++) {
            uint8_t *out = to.out + l * to.stride;
            if (better >> l & 1) {
                fit_write_points(s, k, &best, at, l, out);
            } else {
                memcpy(out, bytes + l * s->shape.bytes, (size_t)s->shape.bytes);
            }
            error[l] += lanes[l];
        }
    }
}

/* The caller's memory. What vectors are stored in comes first: all of it is a multiple of a vector. */
typedef struct {
    FitWork work;
    float w[FIT_CHUNK * FIT_ROWS], c[FIT_CHUNK * FIT_ROWS];
    FitMetric metric;
    FitList list;
    far_product_fn *far;
} FitPanel;

static int64_t fit_scratch(int64_t n)
{
    enum { NARROWEST = 32 }; /* blocks */
    const int64_t scales = (n + NARROWEST - 1) / NARROWEST * FIT_LANES * (int64_t)sizeof(FitScales);
    const int64_t a_row = FIT_CHUNK * 2 * (int64_t)sizeof(float) + FAR_DEEP * (int64_t)sizeof(int32_t) + (int64_t)sizeof(float);
    return 64 + (int64_t)sizeof(FitPanel) + scales + fit_chunks(n) * FIT_ROWS * a_row;
}

/* Writes the blocks of a panel. */
static void fit_close(const FitShape *s, const forge_fit *fit, const FitKept *kept, FitWork *k, uint8_t *out,
                      int64_t stride, int rows)
{
    uint8_t place[256] = {0};
    for (int i = 15; s->values && i >= 0; i--) {
        place[(int)s->values[i] + 128] = (uint8_t)i;
    }
    for (int64_t at = 0; at < fit->width; at += s->block) {
        for (int p = 0; p < rows; p += VN) {
            const FitOut to = {out + p * stride + at / s->block * s->bytes, stride, rows - p < VN ? rows - p : VN};
            for (int i = 0; i < s->block; i++) {
                k->best[i] = vf_load(kept->unit + (at + i) * FIT_ROWS + p);
            }
            fit_write(s, k, kept->scales + at / s->block * FIT_LANES + p / VN, fit->slot ? fit->slot + at : NULL, &to,
                      place);
        }
    }
}

/* Up to FIT_ROWS rows. */
static void fit_panel(FitType type, const forge_fit *fit, const float *x, int64_t x_stride, uint8_t *out,
                      int64_t out_stride, int rows, int rounds, int again, double *error, FitPanel *panel)
{
    const FitShape *s = type.shape;
    const int64_t chunks = fit_chunks(fit->width);
    FitKept kept = {.scales = (FitScales *)(void *)(panel + 1)};
    kept.unit = (float *)(void *)(kept.scales + (fit->width + s->block - 1) / s->block * FIT_LANES);
    kept.y = kept.unit + chunks * FIT_CHUNK * FIT_ROWS;
    float *units = kept.y + chunks * FIT_CHUNK * FIT_ROWS;
    int32_t *pairs = (int32_t *)(void *)(units + chunks * FIT_ROWS);
    for (int64_t chunk = 0; chunk < chunks; chunk++) {
        const int64_t at = chunk * FIT_CHUNK, left = fit->width - at;
        const int columns = left < FIT_CHUNK ? (int)left : FIT_CHUNK;
        if (type.lattice) {
            fit_metric(type.lattice, fit->inner + at * FIT_CHUNK, fit->d + at, columns, &panel->metric);
        }
        if (fit_has_mins(s)) {
            fit_sums(s, fit->inner + at * FIT_CHUNK, columns, panel->work.sums);
        }
        memset(panel->c, 0, sizeof panel->c);
        for (int64_t before = 0; before < chunk; before++) {
            panel->far(panel->c, fit->outer + at * fit->width + before * FIT_CHUNK * FAR_TALL, fit->width,
                       fit->outer_unit + at * chunks + before, chunks, pairs + before * FIT_ROWS * FAR_DEEP,
                       units + before * FIT_ROWS, columns, FAR_DEEP);
        }
        panel->work.near.u = fit->outer + at * fit->width + chunk * FIT_CHUNK * FAR_TALL;
        panel->work.near.unit = fit->outer_unit + at * chunks + chunk;
        panel->work.near.stride = fit->width;
        panel->work.near.unit_stride = chunks;
        for (int p = 0; p < rows; p += VN) {
            FitWork *k = &panel->work;
            const float *from[VN];
            for (int l = 0; l < VN; l++) {
                from[l] = x + (p + l < rows ? p + l : rows - 1) * x_stride + at;
            }
            vf_load_lanes(k->w, from, columns);
            for (int i = 0; i < columns; i++) {
                k->base[i] = vf_add(k->w[i], vf_load(panel->c + i * FIT_ROWS + p));
            }
            const float *inner = fit->inner + at * FIT_CHUNK, *d = fit->d + at;
            const int some = rows - p < VN ? rows - p : VN;
            if (type.lattice) {
                const FitOut to = {out + p * out_stride + at / s->block * s->bytes, out_stride, some};
                fit_lattice_chunk(type.lattice, &panel->list, k, columns, inner, d, rounds, &panel->metric, to,
                                  error + p);
            } else {
                fit_chunk(s, k, columns, inner, d, FORGE_BACKEND.encode[s->type], rounds, some,
                          kept.scales + at / s->block * FIT_LANES + p / VN, error + p);
            }
            for (int i = 0; i < columns; i++) {
                vf_store(panel->w + i * FIT_ROWS + p, k->error[i]);
                vf_store(kept.unit + (at + i) * FIT_ROWS + p, k->best[i]);
                vf_store(kept.y + (at + i) * FIT_ROWS + p, k->y[i]);
            }
        }
        for (int p = (rows + VN - 1) / VN * VN; p < FIT_ROWS; p++) {
            for (int i = 0; i < columns; i++) {
                panel->w[i * FIT_ROWS + p] = kept.y[(at + i) * FIT_ROWS + p] = 0.f;
            }
        }
        far_errors(panel->w, columns, pairs + chunk * FIT_ROWS * FAR_DEEP, units + chunk * FIT_ROWS);
    }
    if (!type.lattice) {
        for (int turn = 0; turn < again; turn++) {
            fit_again(s, fit, &kept, panel->far, &panel->work, panel->c, panel->w, pairs, units, rows, error);
        }
        fit_close(s, fit, &kept, &panel->work, out, out_stride, rows);
    }
}

static int fit_rows(const forge_fit *fit, int type, const float *x, int64_t x_stride, uint8_t *out, int64_t out_stride,
                    int64_t rows, int rounds, int again, double *error, void *scratch)
{
    const FitType as = fit_type(type);
    if (!as.shape || (as.lattice && fit->slot)) {
        return FORGE_E_TYPE;
    }
    if (fit->width % as.shape->block || fit->width % 32) {
        return FORGE_E_WIDTH;
    }
    FitPanel *panel = (FitPanel *)(void *)((uint8_t *)scratch + (64 - (uintptr_t)scratch % 64) % 64);
    const FarProducts products = far_products();
    panel->far = products.far;
    panel->work.near.product = products.near;
    if (as.lattice) {
        fit_list(as.lattice, &panel->list);
    }
    for (int64_t row = 0; row < rows; row += FIT_ROWS) {
        const int some = rows - row < FIT_ROWS ? (int)(rows - row) : FIT_ROWS;
        fit_panel(as, fit, x + row * x_stride, x_stride, out + row * out_stride, out_stride, some, rounds, again,
                  error + row, panel);
    }
    return FORGE_OK;
}

/* Factors h, which is spoilt, into what the rows need of it. */
static int64_t fit_prepare(float *h, const forge_fit *fit)
{
    const int64_t n = fit->width, chunks = fit_chunks(n);
    for (int64_t j = 0; j < n; j++) {
        const int64_t at = j / FIT_CHUNK * FIT_CHUNK;
        for (int64_t i = at; i <= j; i++) {
            fit->own[j * FIT_CHUNK + i - at] = fit->own[i * FIT_CHUNK + j - at] = h[j * n + i];
        }
    }
    const int64_t bad = fit_factor(h, fit->d, n);
    for (int64_t j = 0; bad < 0 && j < n; j++) {
        const int64_t at = j / FIT_CHUNK * FIT_CHUNK;
        float *inner = fit->inner + j * FIT_CHUNK;
        memset(inner, 0, FIT_CHUNK * sizeof *inner);
        memcpy(inner, h + j * n + at, (size_t)(j - at) * sizeof *inner);
        int16_t *whole = fit->outer + j / FAR_TALL * FAR_TALL * n + j % FAR_TALL * 2;
        float *unit = fit->outer_unit + j * chunks;
        for (int64_t before = 0; before < at; before += FIT_CHUNK) {
            far_pack(h + j * n + before, FIT_CHUNK, whole + before * FAR_TALL, unit++);
        }
        far_pack(inner, n - at < FIT_CHUNK ? n - at : FIT_CHUNK, whole + at * FAR_TALL, unit++);
        for (int64_t later = at + FIT_CHUNK; later < n; later += FIT_CHUNK) {
            float column[FIT_CHUNK];
            const int64_t many = n - later < FIT_CHUNK ? n - later : FIT_CHUNK;
            for (int64_t i = 0; i < many; i++) {
                column[i] = h[(later + i) * n + j];
            }
            far_pack(column, many, whole + later * FAR_TALL, unit++);
        }
    }
    return bad;
}

#endif

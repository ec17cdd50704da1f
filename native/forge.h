/* The C API of the block core: types, encode, decode. No threads, no allocation, no printing; one function reads a file.
 *
 * The region between the two markers is the text that both the C compiler and cffi read.
 */
#ifndef FORGE_H
#define FORGE_H

#include <stdint.h>

/* cdef begin */

enum {
    FORGE_KIND_FLOAT = 1,         /* IEEE or brain float elements */
    FORGE_KIND_INT = 2,           /* integer elements */
    FORGE_KIND_QUANT = 4,         /* blocks with scales */
    FORGE_KIND_WEIGHTED = 8,      /* the encoder uses an importance vector when given one */
    FORGE_KIND_NEEDS_WEIGHTS = 16 /* the encoder refuses to run without one */
};

enum {
    FORGE_OK = 0,
    FORGE_E_TYPE = 1,       /* no such type, or no codec for it in that direction */
    FORGE_E_WIDTH = 2,      /* row width is not a whole number of blocks */
    FORGE_E_NOT_FINITE = 3, /* NaN or infinity where blocks are to be made */
    FORGE_E_WEIGHTS = 4,    /* the type needs importance weights, or a weight is negative or not finite (*where) */
    FORGE_E_SOURCE = 5,     /* weights were given with a source that is not aligned F32 */
    FORGE_E_TOO_LARGE = 6   /* a number that no block of the type can come near (*where), and strict was asked for */
};

typedef struct {
    const char *name; /* as ggml spells it, in capitals; NULL ends the table */
    int id;           /* ggml type id */
    int block;        /* elements per block; 0 for a removed type */
    int bytes;        /* bytes per block; 0 for a removed type */
    int kind;         /* FORGE_KIND_* */
    int fit;          /* weights that one search for a scale weighs against each other; 0 without importance */
    int encodes;      /* 1 when blocks of this type can be made */
    int decodes;      /* 1 when blocks of this type can be turned into floats */
} forge_type;

extern const forge_type forge_types[];

typedef struct forge_backend forge_backend; /* one instruction set's codecs */

/* The name of the i-th backend this machine supports, fastest first; NULL past the last. */
const char *forge_backend_name(int i);
/* A backend by name; NULL when it is unknown here or the processor lacks it. */
const forge_backend *forge_backend_find(const char *name);

/* Turns rows of `width` elements of one type into another through float32: encode, decode, requantize.
 *
 * src and dst hold `rows` rows, each row a whole number of blocks, no padding, any address alignment.
 * weights: NULL, or `width` importance values used for every row; they and an F32 src must then lie on float
 * boundaries, and src must be F32. Types that use none ignore them.
 * Non-finite input is refused (FORGE_E_NOT_FINITE, *where = the element's index) when dst_type has blocks;
 * dst is then partly written. strict: so are magnitudes above 2^29 by types whose scales cannot take them there, and
 * which would make something else of them (FORGE_E_TOO_LARGE); 0: what ggml writes is written.
 */
int forge_convert(const forge_backend *backend, int src_type, const void *src, int dst_type, void *dst,
                  int64_t rows, int64_t width, const float *weights, int strict, int64_t *where);

/* The index of the first of `count` blocks (elements of a float type) with a NaN or an infinity: the element itself, or
 * a scale or minimum that is stored as a float. `count` when there is none, and for types that cannot hold any. */
int64_t forge_first_not_finite(int type, const void *data, int64_t count);

/* Fields of 1, 2 or 4 bits of each byte, the lowest first, a byte for each field. FORGE_E_WIDTH for other widths. */
int forge_fields(const uint8_t *packed, int64_t bytes, int bits, uint8_t *fields);

/* A matrix of words of 32 bits turned: out[m * height + k] = words[k * stride + m], 0 <= k < height, 0 <= m < width. Any
 * words, not only floats; all on boundaries of theirs. */
void forge_turn_words(const forge_backend *backend, const float *words, int64_t height, int64_t stride, int64_t width,
                      float *out);

/* Nibbles of words that run along their rows, turned: row 8 m + i of the result, of ceil(height / 8) words, holds nibble
 * order[i] of words[k * stride + m] for each k, eight to a word, the lowest first, and zeros in what is left over. */
void forge_turn_nibbles(const forge_backend *backend, const float *words, int64_t height, int64_t stride, int64_t width,
                        const uint8_t *order, float *out);

/* Rows of whole numbers beside scales: scale * (code - zero), or scale * code + minimum.
 *
 * With 8 bits a code is a byte, signed or not; with 4 two share a byte, the first in its low half, each as code - low.
 * zeros (or NULL), scales and minima (F16 bits; minima NULL for types without) have one for each `group` columns, a
 * multiple of 32 that divides the width. flip: the sign of code - zero is changed. */
typedef struct {
    const uint8_t *codes;
    int bits, low, flip;
    int64_t group;
    const int16_t *zeros;
    const uint16_t *scales, *minima;
} forge_grid;

/* Blocks of Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0 out of rows x width codes. What does not fit the type's fields is cut off.
 * FORGE_E_TYPE, FORGE_E_WIDTH. */
int forge_grid_blocks(const forge_backend *backend, int type, const forge_grid *grid, int64_t rows, int64_t width,
                      uint8_t *blocks);

/* 8-bit floats by their bits of exponent and mantissa: as OCP has them, and with one zero and one NaN (FNUZ). */
enum { FORGE_E4M3 = 1, FORGE_E5M2 = 2, FORGE_E4M3FNUZ = 3, FORGE_E5M2FNUZ = 4 };

/* Rows of 8-bit floats beside scales: rows x width codes, and for each row a scale for each `group` columns, of which
 * the last may be fewer. */
typedef struct {
    const uint8_t *codes;
    int format;
    int64_t group;
    const float *scales;
} forge_floats8;

/* Rows of another type out of rows of 8-bit floats: value times scale in float32, then as forge_convert does it without
 * weights. squares: NULL, or two numbers to which are added the sums over all elements of the squared differences that
 * the type makes, and of the squares themselves, added up in float32 some thousand at a time: the same on every
 * instruction set. A dst of F32 lies on float boundaries. FORGE_E_TYPE, FORGE_E_WIDTH, FORGE_E_WEIGHTS (the type cannot
 * do without), FORGE_E_NOT_FINITE and FORGE_E_TOO_LARGE (*where), as there. */
int forge_convert_floats8(const forge_backend *backend, const forge_floats8 *src, int dst_type, void *dst, int64_t rows,
                          int64_t width, int strict, double *squares, int64_t *where);

/* A covariance H = X'X of the inputs of a matrix, factored: what rows are fitted against. All memory is the caller's. */
typedef struct {
    int64_t width;     /* n: columns, a multiple of 32 */
    float *d;          /* n */
    float *inner;      /* n x 256: each column's row of the factor, within its chunk of 256 columns */
    int16_t *outer;    /* n x n: the same for this and earlier chunks, as integers; of later ones its column; */
    float *outer_unit; /* n x ceil(n / 256): and their units */
    float *own;        /* n x 256: H within each chunk */
    uint8_t *slot;     /* n, or NULL: for columns in another order than a block's, where in its block each lies */
} forge_fit;

/* Factors H, n x n floats, symmetric, of which the lower triangle is read and all is spoilt. -1, or the column at which
 * it was found not to be positive definite. */
int64_t forge_fit_prepare(const forge_backend *backend, float *h, const forge_fit *fit);

/* Bytes of memory that forge_fit_rows needs for rows of this width. */
int64_t forge_fit_scratch(const forge_backend *backend, int64_t width);

/* Rows of floats, all finite, to blocks of a type, so that the error (value - x)' H (value - x) of each row is small.
 *
 * x_stride in floats, out_stride in bytes; rounds: 1 to 8, how often each block is done; again: how often all columns are
 * looked at again when the last is done (lattices: not). error[row] gets the error added. It is infinite where a block's
 * scale would be no number; that block has no scale.
 * Where fit->slot is given, columns of a sub-block (32 columns, or 16, as the type has them) stand together in x; the
 * others of its block too. FORGE_E_TYPE for types that are not fitted, and for lattices with slots, FORGE_E_WIDTH for a
 * width that is not of whole blocks. */
int forge_fit_rows(const forge_backend *backend, const forge_fit *fit, int type, const float *x, int64_t x_stride,
                   uint8_t *out, int64_t out_stride, int64_t rows, int rounds, int again, double *error,
                   void *scratch);

/* Adds the products of inputs, summed over tokens, to the upper triangle of a symmetric matrix in tiles of 16 x 16.
 *
 * slices: `count` slices of 16 columns, each (tokens, 16), at most some hundred tokens a call; columns that fill the last
 * slice up are 0. tiles: count * (count + 1) / 2 tiles of 256 floats, a row of tiles after the other, each from the
 * diagonal on. Only the rows [first, last) of tiles are done, so that threads can share a call. The same result on every
 * instruction set. */
void forge_moments(const forge_backend *backend, const float *slices, int64_t tokens, int64_t count, int64_t first,
                   int64_t last, float *tiles);

/* The lattices of the IQ types. */
enum {
    LATTICE_IQ2_XXS,
    LATTICE_IQ2_XS,
    LATTICE_IQ2_S,
    LATTICE_IQ1,
    LATTICE_IQ3_XXS,
    LATTICE_IQ3_S,
    LATTICES
};

/* A lattice with what the encoders of a GPU look up in it, as bytes for that device's memory, where they will lie at
 * `address`. Returns their number, some 150 to 800 thousand; image may be NULL. */
int64_t forge_lattice_image(int which, uint64_t address, uint8_t *image);

/* Reads `pieces` of `bytes` each, the first from byte `offset` of a file on, each next `stride` bytes on, one behind the
 * other into `out`. How many were read whole before one was not, because of a signal, an error or the file's end; 0 on
 * Windows, where positioned reads gain nothing. */
int64_t forge_read_strided(int fd, int64_t offset, int64_t stride, int64_t bytes, int64_t pieces, uint8_t *out);

/* cdef end */

#endif

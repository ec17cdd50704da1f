/* Q3_K: 256 weights in 16 sub-blocks of 16; a half-float scale for all, six signed bits per sub-block, three a weight.
 *
 *   byte  0 .. 31   32 .. 63                                       64 .. 95      96 .. 107   108 109
 *        [   h    ][q96+i << 6 | q64+i << 4 | q32+i << 2 | qi][q128 .. q255][ scales ][   d   ]
 *   i < 32; q: lower two bits of a level; bit k of h[i]: upper bit of level 32 * k + i
 *
 *   scales: bytes 0 .. 7   [ lower 4 bits of scale 8+j | lower 4 bits of scale j ]
 *           bytes 8 .. 11  [ upper 2 bits of scales 12+j | 8+j | 4+j | j ]
 *   weight in sub-block j = d * (scale[j] - 32) * (level - 4)
 */
#include "../refined.h"
#include "../superblock.h"

typedef struct {
    uint8_t h[32];
    uint8_t q[64];
    uint8_t scales[12];
    uint8_t d[2];
} block_q3_k;
_Static_assert(sizeof(block_q3_k) == 110, "Q3_K is 110 bytes");

enum { Q3_TILE = REFINED_BLOCKS / 16 }; /* superblocks searched at once without importance */

/* Superblocks in lanes, up to their scales. */
typedef struct {
    Lanes g;
    VF d;
    VI scales[16];        /* 0 .. 63 */
    float step[16][VN];   /* d * (scale - 32) as stored */
    uint32_t lost;        /* lanes with a step of 0, as bits */
    float iscale[16][VN]; /* of the search with importance */
    uint32_t dead[16];    /* of the same, lanes as bits */
} Q3Group;

V_FN void q3_k_search_weighted(Q3Group *s)
{
    VF x[256], w[16], weight_sum[16], scale[16];
    vf_load_lanes(x, s->g.x, 256);
    const VF sigma2 = vf_div(vf_mul(vf_set1(2), sum_squares(x, 256)), vf_set1(256));
    for (int j = 0; j < 16; j++) {
        SignedFit fit;
        importance_load(w, &s->g, 16 * j, x + 16 * j, 16, sigma2);
        weight_sum[j] = sum_of(w, 16);
        search_signed(&fit, x + 16 * j, w, 16, 4, FINITE);
        scale[j] = fit.scale;
        vf_store(s->iscale[j], fit.iscale);
        s->dead[j] = vm_bits(fit.dead);
    }
    SignedFit all;
    search_signed(&all, scale, weight_sum, 16, 32, GARBAGE);
    for (int j = 0; j < 16; j++) {
        s->scales[j] = signed_fit_level(&all, scale[j], 32);
    }
    s->d = all.scale;
}

/* Superblocks from `first` of the n searched. */
V_FN void q3_k_search_plain(Q3Group *s, const Refined *found, int64_t first, int64_t n)
{
    const VF zero = vf_set1(0);
    VF scale[16], lx[16], l2[16], magnitude;
    Lanes g;
    lanes_at(&g, first, n, 16, 0, found->lx, NULL, NULL, 1);
    vf_load_lanes(lx, g.x, 16);
    lanes_at(&g, first, n, 16, 0, found->l2, NULL, NULL, 1);
    vf_load_lanes(l2, g.x, 16);
    for (int j = 0; j < 16; j++) {
        scale[j] = vf_select(vf_gt(l2[j], zero), vf_div(lx[j], l2[j]), zero);
    }
    VF max = peak_of(scale, 16, &magnitude), iscale = vf_div(vf_set1(-32), max);
    VM some = vf_neq(max, zero);
    for (int j = 0; j < 16; j++) {
        VI l = vi_sar(vi_shl(vi_nearest(vf_mul(iscale, scale[j])), 24), 24); /* a signed byte there */
        s->scales[j] = vi_select(some, vi_add(vi_clamp(l, -32, 31), vi_set1(32)), vi_set1(0));
    }
    s->d = vf_select(some, vf_div(vf_set1(1), iscale), zero);
}

V_FN void q3_k_store_scales(Q3Group *s)
{
    for (int j = 0; j < 8; j++) {
        VI low = vi_and(s->scales[j], vi_set1(15)), high = vi_and(s->scales[8 + j], vi_set1(15));
        lanes_store_byte(&s->g, 96 + j, vi_or(low, vi_shl(high, 4)));
    }
    for (int j = 0; j < 4; j++) {
        VI byte = vi_shr(s->scales[j], 4);
        for (int k = 1; k < 4; k++) {
            byte = vi_or(byte, vi_shl(vi_shr(s->scales[4 * k + j], 4), 2 * k));
        }
        lanes_store_byte(&s->g, 104 + j, byte);
    }
    vf_store_f16_lanes(s->g.out, 108, s->d);
    const VF d = vf_through_f16(s->d);
    s->lost = 0;
    for (int j = 0; j < 16; j++) {
        VF step = vf_mul(d, vi_to_f(vi_sub(s->scales[j], vi_set1(32))));
        vf_store(s->step[j], step);
        s->lost |= vm_bits(vf_eq(step, vf_set1(0)));
    }
}

/* Levels of lane l's superblock, 0 .. 7. Those of sub-blocks whose step is 0 mean nothing. */
V_FN void q3_k_levels(uint8_t *level, const Q3Group *s, int l)
{
    enum { AT_ONCE = 64 };
    for (int i = 0; i < 256; i += AT_ONCE) {
        VI v[AT_ONCE / VN];
        for (int k = 0; k < AT_ONCE / VN; k++) {
            const int at = i + k * VN;
            VI nearest = vi_nearest(vf_div(vf_load(s->g.x[l] + at), vf_set1(s->step[at / 16][l])));
            v[k] = vi_add(vi_clamp(nearest, -4, 3), vi_set1(4));
        }
        vi_store_u8(level + i, v, AT_ONCE / VN);
    }
}

/* Where a step is 0 the levels are those the search had. found: the search without importance, or NULL; the superblock
 * is number `at` there and in lane l here. */
static void q3_k_searched_levels(uint8_t *level, const Q3Group *s, int l, const Refined *found, int64_t at)
{
    for (int i = 0; i < 256; i++) {
        const int j = i / 16;
        if (s->step[j][l] != 0) {
            continue;
        }
        if (found) {
            const int64_t k = 16 * at + j;
            level[i] = found->l2[k] == 0 ? 0 : (uint8_t)(found->level[k][i % 16] + 4);
        } else {
            const int nearest = superblock_nearest(s->iscale[j][l] * s->g.x[l][i]);
            level[i] = s->dead[j] >> l & 1 ? 0 : (uint8_t)(superblock_clamp(nearest, -4, 3) + 4);
        }
    }
}

V_FN void q3_k_pack(uint8_t *out, const uint8_t *level)
{
    for (int side = 0; side < 32; side += 16) { /* weights 0 .. 15 and 16 .. 31 of each 32 */
        VB h = vb_set(0, 0);
        for (int half = 0; half < 2; half++) {
            VB q = vb_set(0, 0);
            for (int k = 0; k < 4; k++) {
                const VB l = vb_load_u8(level + 128 * half + 32 * k + side);
                const int bit = 4 * half + k;
                q = vb_or(q, vb_field(l, -2 * k, 3 << 2 * k));
                h = vb_or(h, vb_field(l, 2 - bit, 1 << bit));
            }
            vb_store(out + 32 + 32 * half + side, q);
        }
        vb_store(out + side, h);
    }
}

static void q3_k_encode(const float *x, uint8_t *out, int64_t blocks, const float *w, int64_t row_blocks)
{
    Refined found;
    for (int64_t b = 0; b < blocks; b += VN) {
        Q3Group s;
        lanes_at(&s.g, b, blocks, 256, sizeof(block_q3_k), x, out, w, row_blocks);
        const int64_t first = b % Q3_TILE, left = blocks - b;
        if (w) {
            q3_k_search_weighted(&s);
        } else {
            const int64_t searched = first + left < Q3_TILE ? first + left : Q3_TILE;
            if (first == 0) {
                search_refined(&found, x + b * 256, (int)searched * 16);
            }
            q3_k_search_plain(&s, &found, first, searched);
        }
        q3_k_store_scales(&s);
        for (int l = 0; l < VN && l < left; l++) {
            uint8_t level[256];
            q3_k_levels(level, &s, l);
            if (s.lost >> l & 1) {
                q3_k_searched_levels(level, &s, l, w ? NULL : &found, first + l);
            }
            q3_k_pack(s.g.out[l], level);
        }
    }
}

static void q3_k_decode(const uint8_t *in, float *y, int64_t blocks)
{
    const VB four = vb_set1(4);
    for (int64_t b = 0; b < blocks; b++, in += sizeof(block_q3_k), y += 256) {
        const block_q3_k *x = (const block_q3_k *)(const void *)in;
        const float d = load_f16(x->d);
        const uint32_t upper = load_u32(x->scales + 8);
        const VB high = vb_field(vb_set4(upper << 4, upper << 2, upper, upper >> 2), 0, 48);
        const VB six = vb_or(vb_nibbles(x->scales), high);
        float scales[16];
        for (int i = 0; i < 16 / VN; i++) {
            vf_store(scales + i * VN, vf_mul(vf_set1(d), vi_to_f(vi_sub(vb_widen(six, i), vi_set1(32)))));
        }
        for (int half = 0; half < 2; half++) {
            for (int side = 0; side < 2; side++) { /* weights 0 .. 15 and 16 .. 31 of each 32 */
                const VB q = vb_load_u8(x->q + 32 * half + 16 * side);
                const VB h = vb_field(vb_load_u8(x->h + 16 * side), 4 * half, 15);
                for (int k = 0; k < 4; k++) {
                    const int j = 8 * half + 2 * k + side;
                    VB level = vb_sub(vb_or(vb_field(q, 2 * k, 3), vb_field(h, k - 2, 4)), four);
                    vb_times(y + 16 * j, level, vf_set1(scales[j]));
                }
            }
        }
    }
}

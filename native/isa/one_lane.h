/* The vocabulary of one lane, as ordinary arithmetic: of plain C, and of a GPU's thread. Needs begin.h and half.h. */
#ifndef FORGE_ISA_ONE_LANE_H
#define FORGE_ISA_ONE_LANE_H

/* What arithmetic makes: on a host that is to be a GPU, NaNs are those of GPUs. */
#ifndef V_MADE
#define V_MADE(result) (result)
#endif

#define VN 1
typedef float VF;
typedef int32_t VI;
typedef int VM;

V_FN VF vf_set1(float f) { return f; }
V_FN VF vf_load(const float *p) { return *p; }
V_FN void vf_store(float *p, VF a) { *p = a; }
V_FN VF vf_add(VF a, VF b) { return V_MADE(a + b); }
V_FN VF vf_sub(VF a, VF b) { return V_MADE(a - b); }
V_FN VF vf_mul(VF a, VF b) { return V_MADE(a * b); }
V_FN VF vf_div(VF a, VF b) { return V_MADE(a / b); }
V_FN VF vf_sqrt(VF a) { return V_MADE(sqrtf(a)); }
V_FN VF vf_round_even(VF a) { return V_MADE((a + 12582912.f) - 12582912.f); }
V_FN VF vf_min(VF a, VF b) { return a < b ? a : b; }
V_FN VF vf_max(VF a, VF b) { return a > b ? a : b; }
V_FN VF vf_abs(VF a) { return fabsf(a); }
V_FN VF vf_neg(VF a) { return -a; }
V_FN VM vf_lt(VF a, VF b) { return a < b; }
V_FN VM vf_le(VF a, VF b) { return a <= b; }
V_FN VM vf_gt(VF a, VF b) { return a > b; }
V_FN VM vf_ge(VF a, VF b) { return a >= b; }
V_FN VM vf_eq(VF a, VF b) { return a == b; }
V_FN VM vf_neq(VF a, VF b) { return a != b; }
V_FN VF vf_select(VM m, VF a, VF b) { return m ? a : b; }
V_FN float vf_hmax(VF a) { return a; }
V_FN float vf_hmin(VF a) { return a; }

/* Unsigned arithmetic where ints could overflow: garbage lanes must wrap, not be undefined. */
V_FN VI vi_set1(int32_t i) { return i; }
V_FN VI vi_load(const int32_t *p) { return *p; }
V_FN void vi_store(int32_t *p, VI a) { *p = a; }
V_FN VI vi_add(VI a, VI b) { return (VI)((uint32_t)a + (uint32_t)b); }
V_FN VI vi_sub(VI a, VI b) { return (VI)((uint32_t)a - (uint32_t)b); }
V_FN VI vi_mul(VI a, VI b) { return (VI)((uint32_t)a * (uint32_t)b); }
V_FN VI vi_pairs(VI a, VI b) { return (int16_t)a * (int16_t)b + (a >> 16) * (b >> 16); }
V_FN VI vi_and(VI a, VI b) { return a & b; }
V_FN VI vi_or(VI a, VI b) { return a | b; }
V_FN VI vi_xor(VI a, VI b) { return a ^ b; }
V_FN VI vi_min(VI a, VI b) { return a < b ? a : b; }
V_FN VI vi_max(VI a, VI b) { return a > b ? a : b; }
V_FN VI vi_shl(VI a, int k) { return (VI)((uint32_t)a << k); }
V_FN VI vi_shr(VI a, int k) { return (VI)((uint32_t)a >> k); }
V_FN VI vi_sar(VI a, int k) { return a >> k; }
V_FN VI vi_shrv(VI a, VI b) { return (VI)((uint32_t)a >> b); }
V_FN VM vi_eq(VI a, VI b) { return a == b; }
V_FN VM vi_gt(VI a, VI b) { return a > b; }
V_FN VI vi_select(VM m, VI a, VI b) { return m ? a : b; }
V_FN VI vi_previous(VI before, VI a)
{
    (void)a;
    return before;
}

V_FN VI vf_trunc(VF a) { return a >= -2147483648.f && a < 2147483648.f ? (VI)a : INT_MIN; }
V_FN VF vi_to_f(VI a) { return (VF)a; }
V_FN VI vf_bits(VF a) { return (VI)f32_to_bits(a); }
V_FN VF vi_as_f(VI a) { return bits_to_f32((uint32_t)a); }

V_FN VF vf_at_most(VF a, VF top) { return a < top ? a : top; }
V_FN VF vf_not_negative(VF a) { return a > 0 ? a : 0; }

V_FN VM vm_and(VM a, VM b) { return a & b; }
V_FN VM vm_or(VM a, VM b) { return a | b; }
V_FN VM vm_andnot(VM a, VM b) { return a & !b; }
V_FN VM vm_not(VM a) { return !a; }
V_FN int vm_any(VM a) { return a; }
V_FN int vm_all(VM a) { return a; }
V_FN uint32_t vm_bits(VM a) { return (uint32_t)a; }
V_FN VM vm_from_bits(uint32_t u) { return (VM)(u & 1); }

V_FN VI vi_load_u8(const uint8_t *p) { return *p; }
V_FN VI vi_load_i8(const uint8_t *p) { return (int8_t)*p; }
V_FN VI vi_load_u16(const uint8_t *p) { return p[0] | p[1] << 8; }
V_FN void store_half(uint8_t *p, uint32_t h)
{
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}
V_FN void vi_store_high(uint8_t *p, VI a) { store_half(p, (uint32_t)a >> 16); }
V_FN void vi_store_u8(uint8_t *p, const VI *v, int n)
{
    for (int i = 0; i < n; i++) {
        p[i] = (uint8_t)v[i];
    }
}
V_FN void vi_store_i8(uint8_t *p, const VI *v, int n) { vi_store_u8(p, v, n); }

typedef struct {
    uint64_t at[2];
} VB;
V_FN VB vb_set(uint64_t low, uint64_t high) { return (VB){{low, high}}; }
V_FN VB vb_set4(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return vb_set(a | (uint64_t)b << 32, c | (uint64_t)d << 32);
}
V_FN VB vb_load(const int8_t *p)
{
    VB a;
    memcpy(&a, p, sizeof a);
    return a;
}
V_FN VB vb_nibbles(const uint8_t *p)
{
    uint64_t q;
    memcpy(&q, p, sizeof q);
    return vb_set(q & 0x0f0f0f0f0f0f0f0fu, q >> 4 & 0x0f0f0f0f0f0f0f0fu);
}
V_FN VB vb_load_u8(const uint8_t *p)
{
    VB a;
    memcpy(&a, p, sizeof a);
    return a;
}
V_FN void vb_store(uint8_t *p, VB a) { memcpy(p, &a, sizeof a); }
V_FN VB vb_or(VB a, VB b) { return vb_set(a.at[0] | b.at[0], a.at[1] | b.at[1]); }
V_FN uint64_t field8(uint64_t a, int k, int mask)
{
    return (k < 0 ? a << -k : a >> k) & (uint64_t)mask * 0x0101010101010101u;
}
V_FN VB vb_field(VB a, int k, int mask) { return vb_set(field8(a.at[0], k, mask), field8(a.at[1], k, mask)); }
V_FN VB vb_sub(VB a, VB b)
{
    const uint64_t top = 0x8080808080808080u; /* set before, so that no byte borrows from the next */
    for (int h = 0; h < 2; h++) {
        a.at[h] = ((a.at[h] | top) - (b.at[h] & ~top)) ^ ((a.at[h] ^ ~b.at[h]) & top);
    }
    return a;
}
V_FN VB vb_set1(int i) { return vb_set((uint8_t)i * 0x0101010101010101u, (uint8_t)i * 0x0101010101010101u); }
/* The product moves the bit of byte i to bit 56 + i, and no two terms meet. */
V_FN uint32_t bits8(uint64_t a, int k) { return (uint32_t)((a >> k & 0x0101010101010101u) * 0x0102040810204080u >> 56); }
V_FN uint32_t vb_bits(VB a, int k) { return bits8(a.at[0], k) | bits8(a.at[1], k) << 8; }
V_FN VB vb_lookup(VB t, VB i)
{
    int8_t entry[16];
    memcpy(entry, &t, sizeof t);
    VB a = {{0, 0}};
    for (int k = 0; k < 16; k++) {
        a.at[k / 8] |= (uint64_t)(uint8_t)entry[i.at[k / 8] >> k % 8 * 8 & 15] << k % 8 * 8;
    }
    return a;
}
V_FN uint64_t spread4(uint64_t a)
{
    a = (a & 0xffffu) | (a & 0xffff0000u) << 16;
    return (a | a << 8) & 0x00ff00ff00ff00ffu;
}
V_FN VB vb_zip(VB a, VB b, int half)
{
    uint64_t u = a.at[half], v = b.at[half];
    return vb_set(spread4(u) | spread4(v) << 8, spread4(u >> 32) | spread4(v >> 32) << 8);
}
V_FN uint64_t negate8(uint64_t a, uint64_t where) { return (a ^ where) + (where & 0x0101010101010101u); }
V_FN VB vb_negate(VB a, VB where) { return vb_set(negate8(a.at[0], where.at[0]), negate8(a.at[1], where.at[1])); }
V_FN VI vb_widen(VB a, int i) { return (int8_t)(a.at[i / 8] >> i % 8 * 8); }
/* Out of line, so that compilers see bytes in memory, of which they make vectors. */
V_OUT void times8(float *y, uint64_t a, float d)
{
    int8_t bytes[8];
    memcpy(bytes, &a, sizeof bytes);
    for (int k = 0; k < 8; k++) {
        y[k] = d * bytes[k];
    }
}
V_OUT void times8_less(float *y, uint64_t a, float d, float m)
{
    int8_t bytes[8];
    memcpy(bytes, &a, sizeof bytes);
    for (int k = 0; k < 8; k++) {
        y[k] = d * bytes[k] - m;
    }
}
V_FN void vb_times(float *y, VB a, VF d)
{
    times8(y, a.at[0], d);
    times8(y + 8, a.at[1], d);
}
V_FN void vb_times_less(float *y, VB a, VF d, VF m)
{
    times8_less(y, a.at[0], d, m);
    times8_less(y + 8, a.at[1], d, m);
}
V_FN VB vb_triple(VB *a)
{
    const uint64_t low = 0x00ff00ff00ff00ffu;
    VB carry;
    for (int h = 0; h < 2; h++) {
        uint64_t even = (a->at[h] & low) * 3, odd = (a->at[h] >> 8 & low) * 3;
        a->at[h] = (even & low) | (odd & low) << 8;
        carry.at[h] = (even >> 8 & low) | (odd & ~low);
    }
    return carry;
}

typedef struct {
    const float *entries;
} VFT;
V_FN VFT vf_table16(const float *p) { return (VFT){p}; }
V_FN VFT vf_table8(const float *p) { return (VFT){p}; }
V_FN VFT vf_table4(const float *p) { return (VFT){p}; }
V_FN VF vf_lookup16(VFT t, VI i) { return t.entries[i]; }
V_FN VF vf_lookup8(VFT t, VI i) { return t.entries[i & 7]; }
V_FN VF vf_lookup4(VFT t, VI i) { return t.entries[i & 3]; }

V_FN VI vi_eights(const uint64_t *a, const uint64_t *b, int i) { return (int8_t)((i < 8 ? *a : *b) >> i % 8 * 8); }
V_FN VF vf_fours(const float (*grid)[4], const uint16_t *index, int i) { return grid[index[i / 4]][i % 4]; }
V_FN VF vf_negate_bits(VF a, uint32_t u, int i)
{
    static const float sign[2] = {1.f, -1.f};
    return a * sign[u >> i & 1];
}

V_FN float f16_to_f32(uint16_t h) { return soft_f16_to_f32(h); }
V_FN uint16_t f32_to_f16(float f) { return soft_f32_to_f16(f); }
V_FN VF vf_from_f16(VI h) { return soft_f16_to_f32((uint16_t)h); }
V_FN VI vf_to_f16(VF a) { return soft_f32_to_f16(a); }
V_FN void vf_store_f16(uint8_t *p, VF a) { store_half(p, soft_f32_to_f16(a)); }

V_FN void vf_load_lanes(VF *out, const float *const *p, int n)
{
    for (int i = 0; i < n; i++) {
        out[i] = p[0][i];
    }
}
V_FN void vi_store_lanes_u8(uint8_t *const *p, const VI *v, int n) { vi_store_u8(p[0], v, n); }

V_FN void stream(uint8_t *dst, const uint8_t *src, size_t bytes) { memcpy(dst, src, bytes); }
V_FN void stream_end(void) {}

#endif

/* The vocabulary every codec is written in, and the operations that follow from its primitives.
 *
 * An isa/<isa>.c file defines the types VF (VN floats), VI (VN int32), VM (one truth value a lane), the number VN, and
 * each primitive below as a static function; then it includes this file and table.h. The scalar file has VN == 1, so a
 * codec's text is also its plain C form. Codecs never test for an ISA and never assume VN, except that it is a power of
 * two and at most 16. In encoders with sums each lane holds a different block or sub-block and repeats the reference's
 * float operations in the reference's order; lanes are never parts of one sum. (max, min and integer work may be split.)
 *
 * float           vf_set1(f)  vf_load(p)  vf_store(p, a)          p: float aligned
 *                 vf_add sub mul div (a, b)   vf_sqrt(a)          IEEE, never fused
 *                 vf_min(a, b) = a < b ? a : b    vf_max(a, b) = a > b ? a : b    (so b when either is a NaN)
 *                 vf_abs(a)  vf_neg(a)                            sign bit only
 *                 vf_lt le gt ge eq (a, b) -> VM                  false with a NaN;  vf_neq: true with one
 *                 vf_select(m, a, b) = m ? a : b
 *                 vf_round_even(a)                                halves to even, |a| < 2^22 (a NaN stays one)
 *                 vf_at_most(a, top) = a < top ? a : top          no NaNs, top > 0: may compare bits as integers
 *                 vf_not_negative(a) = a > 0 ? a : 0              no NaNs
 *                 vf_hmax(a) vf_hmin(a) -> float                  over the lanes, no NaNs
 * int32           vi_set1 vi_load vi_store  vi_add sub mul and or xor  vi_min max (signed)
 *                 vi_shl(a, k) vi_shr(a, k): by a constant, zeros shifted in      vi_sar(a, k): sign shifted in
 *                 vi_shrv(a, b): lane by lane, 0 <= b < 32
 *                 vi_eq gt (a, b) -> VM   vi_select(m, a, b)
 *                 vi_pairs(a, b)                  sum of the products of the two signed 16-bit halves, which fits
 *                 vi_previous(before, a)          each lane gets the one below it, the first the last of `before`
 * between         vf_trunc(a) -> VI       toward zero; INT_MIN when it does not fit or is a NaN (as x86 does)
 *                 vi_to_f(a) -> VF        rounded to nearest even      vf_bits(a) vi_as_f(a): the same 32 bits
 * masks           vm_and or (a, b)  vm_andnot(a, b) = a and not b  vm_not(a)  vm_any(a) vm_all(a) -> int
 *                 vm_bits(m) -> uint32_t, lane l as bit l          vm_from_bits(u)
 * memory, any     vi_load_u8 vi_load_i8 vi_load_u16 (p: uint8_t *)  VN elements widened to int32
 * alignment       vi_store_u8(p, v, n)  vi_store_i8(p, v, n)        n vectors, n * VN bytes; every value fits
 *                 vi_store_high(p, a)                               upper halves of VN elements
 * 16 bytes        VB vb_load(p)                               p: int8_t *
 *                 vb_load_u8(p)  vb_store(p, a)               p: uint8_t *
 *                 vb_set(low, high)  vb_set4(a, b, c, d)      from two uint64_t or four uint32_t, lowest byte first
 *                 vb_set1(i)  vb_sub or (a, b)
 *                 vb_field(a, k, mask)                        bits of each byte shifted right by k, or left by -k
 *                 vb_bits(a, k) -> uint32_t                   bit k of each byte, that of byte i as bit i
 *                 vb_nibbles(p)                               8 bytes to their low nibbles, then the high ones
 *                 vb_lookup(t, i)                             0 <= i < 16
 *                 vb_zip(a, b, half)                          a0 b0 a1 b1 .. a7 b7, or from a8 b8 on
 *                 vb_negate(a, where)                         where: bytes of 0 or 255
 *                 vb_triple(&a)                               each byte three times itself; what it carries, 0..2
 *                 vb_widen(a, i) -> VI                        signed bytes i * VN .. i * VN + VN - 1
 *                 vb_times(y, a, d)                           y[i] = d * a[i], 16 signed bytes; y: float *
 *                 vb_times_less(y, a, d, m)                   y[i] = d * a[i] - m
 * tables          VFT vf_table16 table8 table4(p)                   16, 8 or 4 floats, which must stay where they are
 *                 vf_lookup16(t, i)  lookup8  lookup4               by the low four (the rest 0), three or two bits of i
 * lattice points  vi_eights(a, b, i)                          components i .. i + VN - 1 of two points of eight
 *                                                             signed bytes; a, b: uint64_t *
 *                 vf_fours(grid, index, i)                    of four points of four floats: rows index[0] to [3]
 *                 vf_negate_bits(a, u, i)                     lanes l where bit i + l of u is set
 *                 vi_load_codes(p)                            VN elements widened to int32; p: uint16_t *
 * half floats     vf_from_f16(VI) vf_to_f16(VF) -> VI 0..65535      nearest even; a NaN becomes sign | 0x7e00
 *                 vf_store_f16(p, a)                                VN of them; p: uint8_t *
 *                 f16_to_f32(uint16_t) -> float   f32_to_f16(float) -> uint16_t      one value
 * transposes      vf_load_lanes(out, p, n)    out[i] lane l = p[l][i], 0 <= i < n; n a multiple of VN
 *                 vi_store_lanes_u8(p, v, n)  p[l][i] = low byte of v[i] lane l; n a multiple of 16
 * streaming       stream(dst, src, bytes)     memcpy past the caches; stream_end() after the last one
 */

/* The bits of what arithmetic made. A NaN of x86 and ARM has the highest bit of its mantissa set; one of GPUs has all,
 * which would count as the highest level. */
V_FN VI vf_made_bits(VF a)
{
#ifdef FORGE_CUDA
    return vi_min(vf_bits(a), vi_set1(0x7fc00000));
#else
    return vf_bits(a);
#endif
}

/* ggml's nearest_int: adds 1.5 * 2^23 and takes the mantissa. To nearest even while |a| < 2^22; other values give the
 * same garbage as there. */
V_FN VI vi_nearest(VF a)
{
    VI bits = vf_made_bits(vf_add(a, vf_set1(12582912.f)));
    return vi_sub(vi_and(bits, vi_set1(0x007fffff)), vi_set1(0x00400000));
}

V_FN VI vi_clamp(VI a, int low, int high)
{
    return vi_max(vi_min(a, vi_set1(high)), vi_set1(low));
}

V_FN VI vi_load_codes(const uint16_t *p)
{
#if VN > 1
    return vi_load_u16((const uint8_t *)p);
#else
    return *p;
#endif
}

#if VN > 1
V_FN void vb_times(float *y, VB a, VF d)
{
    for (int i = 0; i < 16 / VN; i++) {
        vf_store(y + i * VN, vf_mul(d, vi_to_f(vb_widen(a, i))));
    }
}

V_FN void vb_times_less(float *y, VB a, VF d, VF m)
{
    for (int i = 0; i < 16 / VN; i++) {
        vf_store(y + i * VN, vf_sub(vf_mul(d, vi_to_f(vb_widen(a, i))), m));
    }
}
#endif

/* roundf for |a| < 2^22: halves away from zero. 0.49999997 is the largest float below a half. */
V_FN VI vi_round_away(VF a)
{
    VI sign = vi_and(vf_bits(a), vi_set1((int)0x80000000u));
    return vf_trunc(vf_add(a, vi_as_f(vi_or(sign, vf_bits(vf_set1(0.49999997f))))));
}

/* The number of the lowest bit set; u is not 0. */
V_FN int first_bit(uint32_t u)
{
#if defined(__CUDACC__)
    return __ffs((int)u) - 1;
#else
    return __builtin_ctz(u);
#endif
}

static inline uint16_t load_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t load_u32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t load_u64(const uint8_t *p)
{
    return load_u32(p) | (uint64_t)load_u32(p + 4) << 32;
}

static inline void store_u16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(uint8_t *p, uint32_t v)
{
    store_u16(p, v & 0xffff);
    store_u16(p + 2, v >> 16);
}

static inline float load_f16(const uint8_t *p)
{
    return f16_to_f32(load_u16(p));
}

/* The NaN that arithmetic makes has its sign set on x86, where the reference's bytes come from, and clear on ARM and on
 * GPUs. */
#if defined(__aarch64__) || defined(FORGE_CUDA)
enum { NAN_SIGN_FLIP = 0x8000 };
#else
enum { NAN_SIGN_FLIP = 0 };
#endif

/* A scale, as arithmetic made it, as a half float. */
static inline unsigned scale_bits(float d)
{
    return f32_to_f16(d) ^ (d != d ? (unsigned)NAN_SIGN_FLIP : 0u);
}

static inline void store_scale(uint8_t *p, float d)
{
    store_u16(p, scale_bits(d));
}

/* p[l] + offset gets lane l of a, a scale, as a half float. */
V_FN void vf_store_f16_lanes(uint8_t *const *p, int offset, VF a)
{
    int32_t h[VN];
    vi_store(h, vi_xor(vf_to_f16(a), vi_select(vf_neq(a, a), vi_set1(NAN_SIGN_FLIP), vi_set1(0))));
    for (int l = 0; l < VN; l++) {
        store_u16(p[l] + offset, (unsigned)h[l]);
    }
}

/* The value a reader of the half float will see. */
V_FN VF vf_through_f16(VF a)
{
    return vf_from_f16(vf_to_f16(a));
}

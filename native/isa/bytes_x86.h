/* Sixteen bytes, one register on every x86 we build for, and the bytes of four vectors of integers in one. */
typedef __m128i VB;
V_FN VB vb_load(const int8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
V_FN VB vb_nibbles(const uint8_t *p)
{
    VB q = _mm_loadl_epi64((const __m128i *)p);
    return _mm_and_si128(_mm_unpacklo_epi64(q, _mm_srli_epi16(q, 4)), _mm_set1_epi8(15));
}
V_FN VB vb_load_u8(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)p); }
V_FN void vb_store(uint8_t *p, VB a) { _mm_storeu_si128((__m128i *)p, a); }
V_FN VB vb_set1(int i) { return _mm_set1_epi8((char)i); }
V_FN VB vb_sub(VB a, VB b) { return _mm_sub_epi8(a, b); }
V_FN VB vb_or(VB a, VB b) { return _mm_or_si128(a, b); }
V_FN VB vb_field(VB a, int k, int mask)
{
    return _mm_and_si128(k < 0 ? _mm_slli_epi16(a, -k) : _mm_srli_epi16(a, k), _mm_set1_epi8((char)mask));
}
V_FN uint32_t vb_bits(VB a, int k) { return (uint32_t)_mm_movemask_epi8(_mm_slli_epi16(a, 7 - k)); }
V_FN VB vb_lookup(VB t, VB i) { return _mm_shuffle_epi8(t, i); }
V_FN VB vb_set(uint64_t low, uint64_t high) { return _mm_set_epi64x((long long)high, (long long)low); }
V_FN VB vb_set4(uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    return _mm_setr_epi32((int)a, (int)b, (int)c, (int)d);
}
V_FN VB vb_negate(VB a, VB where) { return _mm_sub_epi8(_mm_xor_si128(a, where), where); }
V_FN VB vb_zip(VB a, VB b, int half) { return half ? _mm_unpackhi_epi8(a, b) : _mm_unpacklo_epi8(a, b); }
V_FN VB vb_triple(VB *a)
{
    const VB top = _mm_xor_si128(*a, _mm_set1_epi8(-128)); /* to compare as signed */
    const VB one = _mm_cmpgt_epi8(top, _mm_set1_epi8(85 - 128)), two = _mm_cmpgt_epi8(top, _mm_set1_epi8(170 - 128));
    *a = _mm_add_epi8(_mm_add_epi8(*a, *a), *a);
    return _mm_sub_epi8(_mm_setzero_si128(), _mm_add_epi8(one, two));
}

V_FN VI merge4(const VI *v)
{
    VI byte = vi_set1(0xff);
    VI low = vi_or(vi_and(v[0], byte), vi_shl(vi_and(v[1], byte), 8));
    VI high = vi_or(vi_and(v[2], byte), vi_shl(v[3], 8));
    return vi_or(low, vi_shl(high, 16));
}

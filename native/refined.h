/* Q3_K's search for scales where no importance is given: the reference's make_q3_quants, for many blocks at once.
 *
 * Weights are x^2, levels -4 .. 3. Levels are rounded for the inverse scale -4 / peak; then, up to five times over the
 * elements, single levels move where that raises lx^2 / l2. Each move changes the sums that the next is judged by.
 *
 * Few levels do move: four blocks in five are left as they were rounded. So every block starts, lanes being blocks; then
 * its first level that might move is looked for, lanes being elements, and all those found are tried, lanes being moves.
 * Blocks with another such level, further on or from the start for the next round, stay in the list.
 */
enum {
    REFINED = 16,
    REFINED_MAX = 4,
    REFINED_ROUNDS = 5,
    REFINED_BLOCKS = VN == 1 ? 16 : 512 /* one lane gains nothing by many */
};

/* What is found. lx, l2: sums of w x level and w level^2; 0 where all x are below TINY. */
typedef struct {
    float lx[REFINED_BLOCKS], l2[REFINED_BLOCKS];
    int8_t level[REFINED_BLOCKS][REFINED];
} Refined;

/* Blocks with a level that might move: its element and place, the block's sums, the rounds done, and whether any level
 * moved in this one. */
typedef struct {
    float x[REFINED_BLOCKS], lx[REFINED_BLOCKS], l2[REFINED_BLOCKS];
    int32_t level[REFINED_BLOCKS];
    uint16_t block[REFINED_BLOCKS];
    uint8_t at[REFINED_BLOCKS], rounds[REFINED_BLOCKS], changed[REFINED_BLOCKS];
} Moves;

/* As peak_of, for finite x. */
V_FN VF refined_peak(const VF *x, VM *dead)
{
    VF high = x[0], low = x[0];
    for (int i = 1; i < REFINED; i++) {
        high = vf_max(high, x[i]);
        low = vf_min(low, x[i]);
    }
    VF below = vf_neg(low), amax = vf_max(high, below);
    *dead = vf_lt(amax, vf_set1(TINY));
    if (vm_any(vm_andnot(vf_eq(high, below), *dead))) { /* which came first? */
        return peak_of(x, REFINED, &amax);
    }
    return vf_select(vf_gt(high, below), high, low);
}

/* Rounds VN blocks from `first` on. Says, as bits, which of them have a positive sum lx: where the peak is positive, all
 * products w x level are negative or 0, so is lx less any of them, and the reference moves nothing. */
V_FN uint32_t refined_start(Refined *r, const float *x, int first, int blocks)
{
    const VF zero = vf_set1(0);
    const float *from[VN];
    uint8_t *to[VN];
    for (int l = 0; l < VN; l++) {
        from[l] = x + (first + l < blocks ? first + l : blocks - 1) * REFINED;
        to[l] = (uint8_t *)r->level[first + l];
    }
    VF v[REFINED], lx = zero, l2 = zero;
    VI level[REFINED];
    VM dead;
    vf_load_lanes(v, from, REFINED);
    const VF iscale = vf_div(vf_set1(-REFINED_MAX), refined_peak(v, &dead));
    for (int i = 0; i < REFINED; i++) {
        VF l = signed_level(vf_mul(iscale, v[i]), REFINED_MAX, ABOVE_LOWEST), w = vf_mul(v[i], v[i]);
        lx = vf_add(lx, vf_mul(vf_mul(w, v[i]), l));
        l2 = vf_add(l2, vf_mul(vf_mul(w, l), l));
        level[i] = vf_trunc(l);
    }
    vi_store_lanes_u8(to, level, REFINED);
    vf_store(r->lx + first, vf_select(dead, zero, lx));
    vf_store(r->l2 + first, vf_select(dead, zero, l2));
    uint32_t bits = vm_bits(vm_andnot(vf_gt(lx, zero), dead));
    return blocks - first < VN ? bits & ((1u << (blocks - first)) - 1) : bits;
}

/* The elements of a block, as bits, whose level might move: all but those that surely round to the same level again.
 *
 * The reference takes the element out of the sums, lx' = lx - w x l and l2' = l2 - w l^2, and rounds x l2' / lx'. Since
 * x l2' - l lx' = x l2 - l lx, that gives l where |x l2 - l lx| < lx' / 2; for the highest level, to which it is
 * clamped, also where x l2 > l lx. We ask for 0.499 (lx' - lx / 1024): all rounding errors, the reference's and ours,
 * are together below lx / 2^17. No quotient we pass is too large to be rounded by nearest_int: lx <= 64 peak^3 and
 * lx^2 / l2 >= peak^4 / 16, which no move lowers, so x l2 / lx <= 1024; lx' > lx / 1024, so x l2' / lx' < 2^21.
 * Where products may leave the range of floats nothing passes. */
V_FN uint32_t refined_open(const float *x, const int8_t *level, float sum_lx, float sum_l2)
{
    const int calm = sum_lx > 0x1p-60f && sum_lx < 0x1p60f;
    const VF lx = vf_set1(sum_lx), l2 = vf_set1(sum_l2), top = vf_mul(lx, vf_set1(REFINED_MAX - 1));
    const VF most = vf_set1(calm ? sum_lx * (1 - 0x1p-10f) : -HUGE_VALF);
    uint32_t open = 0;
    for (int i = 0; i < REFINED; i += VN) {
        VF v = vf_load(x + i), l = vi_to_f(vi_load_i8((const uint8_t *)level + i));
        VF far = vf_abs(vf_sub(vf_min(vf_mul(v, l2), top), vf_mul(l, lx)));
        VF rest = vf_sub(most, vf_mul(vf_mul(vf_mul(v, v), v), l));
        open |= vm_bits(vm_not(vf_lt(far, vf_mul(rest, vf_set1(0.499f))))) << i;
    }
    return open;
}

/* Makes entry n a move of block k, if one is due from element `from` on. Says so. */
V_FN int moves_add(Moves *m, int n, const Refined *r, const float *x, unsigned k, unsigned from, unsigned rounds,
                   unsigned changed)
{
    const uint32_t open = refined_open(x + k * REFINED, r->level[k], r->lx[k], r->l2[k]), ahead = open >> from << from;
    const uint32_t over = !ahead, again = over & changed & (rounds + 1 < REFINED_ROUNDS);
    const uint32_t due = ahead | (open & (0u - again));
    const int at = first_bit(due | 1u << (REFINED - 1));
    m->x[n] = x[k * REFINED + (unsigned)at];
    m->lx[n] = r->lx[k];
    m->l2[n] = r->l2[k];
    m->level[n] = r->level[k][at];
    m->block[n] = (uint16_t)k;
    m->at[n] = (uint8_t)at;
    m->rounds[n] = (uint8_t)(rounds + over);
    m->changed[n] = (uint8_t)(changed & !over);
    return due != 0;
}

/* Tries VN moves from `first` on. */
V_FN void moves_try(Moves *m, int first)
{
    const VF zero = vf_set1(0), x = vf_load(m->x + first), w = vf_mul(x, x), wx = vf_mul(w, x);
    const VF sum_lx = vf_load(m->lx + first), sum_l2 = vf_load(m->l2 + first);
    const VF level = vi_to_f(vi_load(m->level + first));
    VF lx = vf_sub(sum_lx, vf_mul(wx, level)), l2 = vf_sub(sum_l2, vf_mul(vf_mul(w, level), level));
    const VF moved = signed_level(vf_div(vf_mul(x, l2), lx), REFINED_MAX, GARBAGE);
    VM take = vm_and(vf_gt(lx, zero), vf_neq(moved, level));
    lx = vf_add(lx, vf_mul(wx, moved));
    l2 = vf_add(l2, vf_mul(vf_mul(w, moved), moved));
    VM better = vf_gt(vf_mul(vf_mul(lx, lx), sum_l2), vf_mul(vf_mul(sum_lx, sum_lx), l2));
    take = vm_and(take, vm_and(vf_gt(l2, zero), better));
    vf_store(m->lx + first, vf_select(take, lx, sum_lx));
    vf_store(m->l2 + first, vf_select(take, l2, sum_l2));
    vi_store(m->level + first, vf_trunc(vf_select(take, moved, level)));
}

/* Tries all n moves, and replaces them by those due next. Returns their number. */
V_FN int moves_round(Moves *m, int n, Refined *r, const float *x)
{
    for (int i = n; i % VN; i++) { /* spare lanes repeat the last move */
        m->x[i] = m->x[n - 1];
        m->lx[i] = m->lx[n - 1];
        m->l2[i] = m->l2[n - 1];
        m->level[i] = m->level[n - 1];
    }
    for (int i = 0; i < n; i += VN) {
        moves_try(m, i);
    }
    for (int i = 0; i < n; i++) { /* apart from the next loop, which loads what was stored a byte at a time */
        const unsigned k = m->block[i];
        int8_t *level = &r->level[k][m->at[i]];
        m->changed[i] |= *level != m->level[i];
        *level = (int8_t)m->level[i];
        r->lx[k] = m->lx[i];
        r->l2[k] = m->l2[i];
    }
    int left = 0;
    for (int i = 0; i < n; i++) {
        left += moves_add(m, left, r, x, m->block[i], m->at[i] + 1u, m->rounds[i], m->changed[i]);
    }
    return left;
}

/* Sums and levels of blocks <= REFINED_BLOCKS consecutive blocks of 16. */
static void search_refined(Refined *r, const float *x, int blocks)
{
    Moves m;
    uint16_t positive[REFINED_BLOCKS];
    int count = 0, n = 0;
    for (int first = 0; first < blocks; first += VN) {
        uint32_t bits = refined_start(r, x, first, blocks);
        for (int l = 0; l < VN; l++) {
            positive[count] = (uint16_t)(first + l);
            count += bits >> l & 1;
        }
    }
    for (int i = 0; i < count; i++) {
        n += moves_add(&m, n, r, x, positive[i], 0, 0, 0);
    }
    while (n) {
        n = moves_round(&m, n, r, x);
    }
}

/* The reference's searches for a block's scale, VN blocks at a time, each lane in the reference's order of operations.
 *
 * Levels are kept as floats: |level| <= 64 is exact, and rounding a float to nearest even equals the reference's
 * nearest_int while |v| < 2^22. Where a larger v cannot be ruled out for all lanes, levels go through nearest_int
 * itself, garbage included.
 */
enum { BLOCK_MAX = 32 };
#define TINY 1e-15f /* the reference takes a block below this for all zero */

/* ------------------------------------------------------------------ scale and min: x ~ scale * level - min */

/* level = round((x - low) * iscale), 0 .. nmax */
typedef struct {
    VF scale, min, iscale, low;
} MinFit;

V_FN VI min_fit_level(const MinFit *f, VF x, int nmax)
{
    return vi_clamp(vi_nearest(vf_mul(f->iscale, vf_sub(x, f->low))), 0, nmax);
}

V_FN VF term(VF w, VF diff, int mad)
{
    return vf_mul(w, mad ? vf_abs(diff) : vf_mul(diff, diff));
}

V_FN VF min_level(VF v, VF top, int nmax, int garbage)
{
    if (garbage) {
        return vi_to_f(vi_clamp(vi_nearest(v), 0, nmax));
    }
    if (nmax == 3) { /* blocks of 16, all unrolled: comparing as integers only adds latency there */
        return vf_min(vf_max(vf_round_even(v), vf_set1(0)), top);
    }
    return vf_at_most(vf_not_negative(vf_round_even(v)), top);
}

/* Weighted sums over the levels of one inverse scale. */
typedef struct {
    VF l, l2, xl;
} MinSums;

V_FN void min_sums(MinSums *sum, VF *level, const VF *x, const VF *w, int n, int nmax, VF iscale, VF low, int garbage)
{
    const VF top = vf_set1((float)nmax);
    VF l1 = vf_set1(0), l2 = l1, xl = l1;
    for (int i = 0; i < n; i++) {
        VF l = min_level(vf_mul(iscale, vf_sub(x[i], low)), top, nmax, garbage), wl = vf_mul(w[i], l);
        level[i] = l;
        l1 = vf_add(l1, wl);
        l2 = vf_add(l2, vf_mul(wl, l));
        xl = vf_add(xl, vf_mul(wl, x[i]));
    }
    *sum = (MinSums){l1, l2, xl};
}

/* The reference's make_qkx2 and make_qkx3: tries the inverse scales (rmin + rdelta * k + nmax) / (high - min so far),
 * k = 0 .. nstep, each with the least-squares scale and min for its levels. mad: compare by absolute, not squared,
 * error. */
V_FN void search_min(MinFit *fit, const VF *x, const VF *w, int n, int nmax, float rmin, float rdelta, int nstep,
                     int mad)
{
    const VF zero = vf_set1(0), calm = vf_set1(2097152.f);
    VF low = x[0], high = x[0], sum_w = w[0], sum_x = vf_mul(w[0], x[0]);
    for (int i = 1; i < n; i++) {
        low = vf_min(x[i], low);
        high = vf_max(x[i], high);
        sum_w = vf_add(sum_w, w[i]);
        sum_x = vf_add(sum_x, vf_mul(w[i], x[i]));
    }
    VF min = vf_select(vf_gt(low, zero), zero, low);
    const VM flat = vf_eq(high, min);
    VF level[BLOCK_MAX];
    VF iscale = vf_div(vf_set1((float)nmax), vf_sub(high, min));
    VF scale = vf_div(vf_set1(1), iscale), best = zero, best_iscale = iscale, best_low = min;
    for (int i = 0; i < n; i++) {
        VF l = min_level(vf_mul(iscale, vf_sub(x[i], min)), vf_set1((float)nmax), nmax, 1);
        best = vf_add(best, term(w[i], vf_sub(vf_add(vf_mul(scale, l), min), x[i]), mad));
    }
    for (int k = 0; k <= nstep; k++) {
        iscale = vf_div(vf_set1(rmin + rdelta * (float)k + (float)nmax), vf_sub(high, min));
        /* Every |(x - min) * iscale| lies below the larger of these two. */
        VM below = vf_lt(vf_abs(vf_mul(iscale, vf_sub(low, min))), calm);
        VM above = vf_lt(vf_abs(vf_mul(iscale, vf_sub(high, min))), calm);
        MinSums sum;
        if (vm_all(vm_or(flat, vm_and(below, above)))) {
            min_sums(&sum, level, x, w, n, nmax, iscale, min, 0);
        } else {
            min_sums(&sum, level, x, w, n, nmax, iscale, min, 1);
        }
        VF det = vf_sub(vf_mul(sum_w, sum.l2), vf_mul(sum.l, sum.l));
        VF this_scale = vf_div(vf_sub(vf_mul(sum_w, sum.xl), vf_mul(sum_x, sum.l)), det);
        VF this_min = vf_div(vf_sub(vf_mul(sum.l2, sum_x), vf_mul(sum.l, sum.xl)), det);
        VM positive = vf_gt(this_min, zero);
        if (vm_any(positive)) {
            this_min = vf_select(positive, zero, this_min);
            this_scale = vf_select(positive, vf_div(sum.xl, sum.l2), this_scale);
        }
        VF error = zero;
        for (int i = 0; i < n; i++) {
            VF diff = vf_sub(vf_add(vf_mul(this_scale, level[i]), this_min), x[i]);
            error = vf_add(error, term(w[i], diff, mad));
        }
        VM better = vm_and(vf_gt(det, zero), vf_lt(error, best));
        best = vf_select(better, error, best);
        scale = vf_select(better, this_scale, scale);
        best_iscale = vf_select(better, iscale, best_iscale);
        best_low = vf_select(better, min, best_low);
        min = vf_select(better, this_min, min);
    }
    fit->scale = vf_select(flat, zero, scale);
    fit->min = vf_neg(min);
    fit->iscale = vf_select(flat, zero, best_iscale);
    fit->low = best_low;
}

/* ------------------------------------------------------------------ signed scale: x ~ scale * (level - nmax) */

/* level = round(x * iscale) + nmax, 0 .. 2 * nmax - 1; 0 where dead (all x below TINY) */
typedef struct {
    VF scale, iscale;
    VM dead;
} SignedFit;

V_FN VI signed_fit_level(const SignedFit *f, VF x, int nmax)
{
    VI l = vi_add(vi_clamp(vi_nearest(vf_mul(f->iscale, x)), -nmax, nmax - 1), vi_set1(nmax));
    return vi_select(f->dead, vi_set1(0), l);
}

/* The element of largest magnitude, the first of several. */
V_FN VF peak_of(const VF *x, int n, VF *magnitude)
{
    VF amax = vf_set1(0), max = vf_set1(0);
    for (int i = 0; i < n; i++) {
        VF a = vf_abs(x[i]);
        VM more = vf_gt(a, amax);
        amax = vf_select(more, a, amax);
        max = vf_select(more, x[i], max);
    }
    *magnitude = amax;
    return max;
}

/* What is known of the values that become levels. */
enum { GARBAGE, FINITE, ABOVE_LOWEST }; /* anything; far below 2^22; and no lower than -nmax - 0.4 */

V_FN VF signed_level(VF v, int nmax, int known)
{
    if (known == GARBAGE) {
        return vi_to_f(vi_clamp(vi_nearest(v), -nmax, nmax - 1));
    }
    VF l = vf_min(vf_round_even(v), vf_set1((float)(nmax - 1)));
    return known == FINITE ? vf_max(l, vf_set1((float)-nmax)) : l;
}

typedef struct {
    VF iscale, lx, l2; /* weighted sums of x level and level^2 */
} SignedTry;

/* Candidates side by side: their sums wait on themselves only, and share the loads. */
V_FN void signed_sums(SignedTry *t, int tries, const VF *x, const VF *wx, const VF *w, int n, int nmax, int known)
{
    for (int k = 0; k < tries; k++) {
        t[k].lx = t[k].l2 = vf_set1(0);
    }
    for (int i = 0; i < n; i++) {
        const VF xi = x[i], wxi = wx[i], wi = w[i];
        for (int k = 0; k < tries; k++) {
            VF l = signed_level(vf_mul(t[k].iscale, xi), nmax, known);
            t[k].lx = vf_add(t[k].lx, vf_mul(wxi, l));
            t[k].l2 = vf_add(t[k].l2, vf_mul(vf_mul(wi, l), l));
        }
    }
}

/* The reference's make_qx_quants with weights: tries the inverse scales -(nmax + k / 10) / peak, k = 0, then -9 .. 9.
 * known: GARBAGE when x may hold NaNs, as scales of scales can; else FINITE. */
V_FN void search_signed(SignedFit *fit, const VF *x, const VF *w, int n, int nmax, int known)
{
    enum { TRIES = 6, CALM = 12 }; /* the first 12 have k <= 3: |x iscale| < nmax + 0.4 */
    static const int order[18] = {-9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    const VF zero = vf_set1(0);
    VF amax, max = peak_of(x, n, &amax), wx[BLOCK_MAX];
    for (int i = 0; i < n; i++) {
        wx[i] = vf_mul(w[i], x[i]);
    }
    SignedTry t[TRIES];
    t[0].iscale = vf_div(vf_set1((float)-nmax), max);
    const int calm = known == FINITE ? ABOVE_LOWEST : known;
    signed_sums(t, 1, x, wx, w, n, nmax, calm);
    VF scale = vf_select(vf_eq(t[0].l2, zero), zero, vf_div(t[0].lx, t[0].l2));
    VF best = vf_mul(scale, t[0].lx), best_iscale = t[0].iscale;
    for (int step = 0; step < 18; step += TRIES) {
        for (int k = 0; k < TRIES; k++) {
            t[k].iscale = vf_div(vf_set1(-((float)nmax + 0.1f * (float)order[step + k])), max);
        }
        if (step < CALM) {
            signed_sums(t, TRIES, x, wx, w, n, nmax, calm);
        } else {
            signed_sums(t, TRIES, x, wx, w, n, nmax, known);
        }
        for (int k = 0; k < TRIES; k++) {
            VM more = vf_gt(vf_mul(t[k].lx, t[k].lx), vf_mul(best, t[k].l2));
            VM better = vm_and(vf_gt(t[k].l2, zero), more);
            VF this_scale = vf_div(t[k].lx, t[k].l2);
            scale = vf_select(better, this_scale, scale);
            best = vf_select(better, vf_mul(this_scale, t[k].lx), best);
            best_iscale = vf_select(better, t[k].iscale, best_iscale);
        }
    }
    fit->dead = vf_lt(amax, vf_set1(TINY));
    fit->scale = vf_select(fit->dead, zero, scale);
    fit->iscale = best_iscale;
}

/* ------------------------------------------------------------------ scale of scales: x ~ scale * level, x >= 0 */

V_FN VI positive_level(VF v, int nmax) { return vi_min(vi_nearest(v), vi_set1(nmax)); }

/* The reference's make_qp_quants. level[i] is a byte there: a negative one wraps. Returns the scale. */
V_FN VF search_positive(VI *level, const VF *x, const VF *w, int n, int nmax)
{
    const VF zero = vf_set1(0), one = vf_set1(1);
    const VI byte = vi_set1(255);
    VF max = zero;
    for (int i = 0; i < n; i++) {
        max = vf_max(max, x[i]);
    }
    const VM dead = vf_lt(max, vf_set1(TINY));
    VF iscale = vf_div(vf_set1((float)nmax), max), scale = vf_div(one, iscale), best = zero;
    for (int i = 0; i < n; i++) {
        VF l = vi_to_f(vi_and(vi_nearest(vf_mul(iscale, x[i])), byte)), diff = vf_sub(x[i], vf_mul(scale, l));
        best = vf_add(best, vf_mul(vf_mul(w[i], diff), diff));
    }
    for (int k = -4; k <= 4; k++) {
        if (k == 0) {
            continue;
        }
        VF this_iscale = vf_div(vf_set1(0.1f * (float)k + (float)nmax), max), this_scale = vf_div(one, this_iscale);
        VF error = zero;
        for (int i = 0; i < n; i++) {
            VF l = vi_to_f(positive_level(vf_mul(this_iscale, x[i]), nmax)), diff = vf_sub(x[i], vf_mul(this_scale, l));
            error = vf_add(error, vf_mul(vf_mul(w[i], diff), diff));
        }
        VM better = vf_lt(error, best);
        best = vf_select(better, error, best);
        iscale = vf_select(better, this_iscale, iscale);
    }
    VF sum_lx = zero, sum_l2 = zero;
    for (int i = 0; i < n; i++) {
        VI li = positive_level(vf_mul(iscale, x[i]), nmax);
        VF l = vi_to_f(li);
        level[i] = vi_and(li, byte);
        sum_lx = vf_add(sum_lx, vf_mul(vf_mul(w[i], x[i]), l));
        sum_l2 = vf_add(sum_l2, vf_mul(vf_mul(w[i], l), l));
    }
    for (int round = 0; round < 5; round++) {
        VM changed = vf_lt(zero, zero);
        for (int i = 0; i < n; i++) {
            VF l = vi_to_f(level[i]), wx = vf_mul(w[i], x[i]);
            VF lx = vf_sub(sum_lx, vf_mul(wx, l)), l2 = vf_sub(sum_l2, vf_mul(vf_mul(w[i], l), l));
            VI moved = positive_level(vf_div(vf_mul(x[i], l2), lx), nmax);
            VM open = vm_and(vf_gt(lx, zero), vf_gt(l2, zero));
            open = vm_andnot(vm_andnot(open, vi_eq(moved, level[i])), dead);
            VF m = vi_to_f(moved);
            lx = vf_add(lx, vf_mul(wx, m));
            l2 = vf_add(l2, vf_mul(vf_mul(w[i], m), m));
            VM take = vm_and(open, vf_gt(vf_mul(vf_mul(lx, lx), sum_l2), vf_mul(vf_mul(sum_lx, sum_lx), l2)));
            level[i] = vi_select(take, vi_and(moved, byte), level[i]);
            sum_lx = vf_select(take, lx, sum_lx);
            sum_l2 = vf_select(take, l2, sum_l2);
            changed = vm_or(changed, take);
        }
        if (!vm_any(changed)) {
            break;
        }
    }
    for (int i = 0; i < n; i++) {
        level[i] = vi_select(dead, vi_set1(0), level[i]);
    }
    return vf_select(vm_andnot(vf_gt(sum_l2, zero), dead), vf_div(sum_lx, sum_l2), zero);
}

/* The optimal transport bound (methods A 3.9; SpecTr, arXiv 2310.15141, and 2502.18779). The set H that
 * minimises p(H) - Pr(all draws lie in H) is a prefix of the tokens in the order of increasing p / q,
 * so one pass over them is enough. Tokens of q = 0 come last and add nothing to Pr.
 *
 * Pr(all draws lie in H):
 *   iid: q(H)^k.
 *   wor, k = 2: sum over i in H of q(i) (q(H) - q(i)) / (1 - q(i)), kept up to date by three sums. Only
 *   the likeliest token can have 1 - q(i) near 0; it is counted apart, from sums without it.
 *   wor, k > 2: tokens as bells that first ring at times of law Exp(q(t)), whose order is a draw
 *   without replacement. All draws lie in H if k bells of H have rung when the first one outside H
 *   does, at a time of law Exp(c), c = 1 - q(H): the integral over s of c exp(-c s) Pr(N(s) >= k), N
 *   the number of H's bells by s. With s = exp(y) the trapezoidal rule on a grid of y converges
 *   exponentially; each grid point carries the law of N over 0 .. k-1 and "k or more". */
#include "verifiers/ot_bound.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/kernels.h"

struct item {
    double p, q, ratio;
    double after; /* the sum of q behind it, for k > 2 */
    size_t token;
};

#define GRID_STEP .2
enum { GRID_START = -14, GRID_MOST = 3600 };

size_t sb_ot_bound_scratch_bytes(size_t n, int32_t k)
{
    size_t grid = k > 2 ? GRID_MOST * (2 + (size_t)k) * sizeof(double) : 0;
    return n * sizeof(struct item) + grid;
}

static int by_ratio(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->ratio != y->ratio)
        return x->ratio < y->ratio ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

/* The tokens that can be drawn, sorted. */
static size_t sort(struct item *item, const double *p, const double *q, size_t n)
{
    size_t m = 0;
    for (size_t t = 0; t < n; t++)
        if (q[t] > 0)
            item[m++] = (struct item){ p[t], q[t], p[t] / q[t], 0, t };
    qsort(item, m, sizeof *item, by_ratio);
    return m;
}

static double independent(const struct item *item, size_t m, int32_t k)
{
    double p = 0, q = 0, least = 0;
    for (size_t i = 0; i < m; i++) {
        double all = 1;
        p += item[i].p;
        q += item[i].q;
        for (int32_t j = 0; j < k; j++)
            all *= q;
        least = p - all < least ? p - all : least;
    }
    return least;
}

static double pairs_apart(const struct item *item, size_t m)
{
    size_t top = 0;
    double rest = 0, total = 0;
    for (size_t i = 1; i < m; i++)
        top = item[i].q > item[top].q ? i : top;
    for (size_t i = 0; i < m; i++)
        rest += i == top ? 0 : item[i].q;
    total = rest + item[top].q;
    double p = 0, q = 0, first = 0, same = 0, least = 0;
    for (size_t i = 0; i < m; i++) {
        p += item[i].p;
        if (i != top) {
            double share = item[i].q / (total - item[i].q);
            q += item[i].q; /* of H without the likeliest */
            first += share;
            same += share * item[i].q;
        }
        double both = q * first - same;
        if (top <= i) /* likeliest first, or second */
            both += q * item[top].q / rest + item[top].q * first;
        least = p - both < least ? p - both : least;
    }
    return least;
}

/* The grid of times, up to where exp(-c s) has vanished for the smallest c of a proper prefix. */
static size_t make_grid(double *time, double smallest)
{
    double end = 4 - sb_log(smallest);
    size_t n = 0;
    for (double y = GRID_START; y < end && y < 700; y = GRID_START + GRID_STEP * (double)n)
        time[n++] = sb_exp(y);
    return n;
}

static double apart(struct item *item, size_t m, int32_t k, double *time)
{
    double p = 0, least = 0;
    size_t n_grid = make_grid(time, item[m - 1].q), width = 1 + (size_t)k;
    double *count = time + n_grid; /* [n_grid, k + 1] */
    for (size_t i = 0; i < n_grid * width; i++)
        count[i] = i % width == 0;
    for (size_t i = m - 1; i-- > 0;)
        item[i].after = item[i + 1].after + item[i + 1].q;
    for (size_t i = 0; i < m; i++) {
        double all = 0, c = item[i].after;
        for (size_t g = 0; g < n_grid; g++) {
            double *law = count + g * width, silent = sb_exp(-item[i].q * time[g]);
            law[k] += (1 - silent) * law[k - 1];
            for (size_t j = (size_t)k; j-- > 1;)
                law[j] = silent * law[j] + (1 - silent) * law[j - 1];
            law[0] *= silent;
            all += c * time[g] * sb_exp(-c * time[g]) * law[k];
        }
        p += item[i].p;
        all = i + 1 == m ? 1 : all * GRID_STEP;
        least = p - all < least ? p - all : least;
    }
    return least;
}

double sb_ot_bound(const double *p, const double *q, size_t n, enum sb_draw_kind kind, int32_t k,
                   void *scratch)
{
    struct item *item = scratch;
    if (k < 1 || (kind != SB_DRAW_IID && kind != SB_DRAW_WOR))
        return NAN;
    size_t m = sort(item, p, q, n);
    if (m == 0)
        return NAN;
    if (kind == SB_DRAW_WOR && (size_t)k > m)
        k = (int32_t)m;
    double least = kind == SB_DRAW_IID || k == 1 ? independent(item, m, k)
                   : k == 2                      ? pairs_apart(item, m)
                                                 : apart(item, m, k, (double *)(item + n));
    return 1 + least;
}

/* Ratios of paired times: the bootstrap on prompts with one pair each. */
#include "results/stats.h"

#include <math.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "results/bootstrap.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Few values are the usual case: a bootstrap takes millions of such medians. */
static void sort_few(double *x, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        double v = x[i];
        size_t k = i;
        for (; k > 0 && x[k - 1] > v; k--)
            x[k] = x[k - 1];
        x[k] = v;
    }
}

double sb_median(double *values, size_t n)
{
    if (n <= 16)
        sort_few(values, n);
    else
        qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static enum sb_status check(const struct sb_pair *pairs, size_t n, struct sb_error *err)
{
    if (n == 0)
        return sb_fail(err, SB_EUSAGE, "a speedup needs at least one prompt, found none");
    for (size_t i = 0; i < n; i++)
        if (!(pairs[i].base > 0 && pairs[i].method > 0 && isfinite(pairs[i].base) &&
              isfinite(pairs[i].method)))
            return sb_fail(err, SB_EUSAGE, "prompt %zu: times %g and %g ns, expected both above 0",
                           i, pairs[i].base, pairs[i].method);
    return SB_OK;
}

static void pair_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    (void)word; /* one repeat, or a median of them */
    const struct sb_pair *p = (const struct sb_pair *)self + i;
    out->v[SB_SUM_BASE] = p->base;
    out->v[SB_SUM_METHOD] = p->method;
    out->v[SB_SUM_LOG_RATIO] = log(p->base) - log(p->method);
    out->v[SB_SUM_PROMPTS] = 1;
}

enum sb_status sb_speedup(struct sb_interval *totals, struct sb_interval *geometric,
                          const struct sb_pair *pairs, size_t n, int resamples, uint64_t seed,
                          struct sb_error *err)
{
    static const sb_estimator estimators[] = { sb_log_totals, sb_log_mean };
    struct sb_interval log_figure[2];
    enum sb_status rc = check(pairs, n, err);
    if (rc != SB_OK)
        return rc;
    int *stratum = sb_alloc_array(n, sizeof *stratum);
    if (!stratum)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", n);
    for (size_t i = 0; i < n; i++)
        stratum[i] = pairs[i].task;
    const struct sb_clusters clusters = {
        .n = n, .stratum = stratum, .row = pair_row, .self = pairs
    };
    rc = sb_bootstrap(log_figure, estimators, 2, &clusters, resamples, seed, err);
    if (rc == SB_OK) {
        *totals = sb_interval_exp(log_figure[0]);
        *geometric = sb_interval_exp(log_figure[1]);
    }
    sb_free(stratum);
    return rc;
}

enum sb_status sb_ratio_of_totals(struct sb_interval *out, const struct sb_pair *pairs, size_t n,
                                  int resamples, uint64_t seed, struct sb_error *err)
{
    struct sb_interval geometric;
    return sb_speedup(out, &geometric, pairs, n, resamples, seed, err);
}

enum sb_status sb_geometric_mean(struct sb_interval *out, const struct sb_pair *pairs, size_t n,
                                 int resamples, uint64_t seed, struct sb_error *err)
{
    struct sb_interval totals;
    return sb_speedup(&totals, out, pairs, n, resamples, seed, err);
}

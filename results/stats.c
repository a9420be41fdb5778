/* Paired bootstrap of speed ratios. One draw of prompts serves both estimators; a resample's value is a
 * pure function of (seed, stratum, resample), so threads change nothing. */
#include "results/stats.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

#define DEFAULT_RESAMPLES 10000
#define MAX_RESAMPLES     10000000
#define STRATUM_MIN       10 /* prompts a task needs to be a stratum of its own */
#define BCA_BELOW         50

/* What a resample sums up. Both estimators are functions of these four. */
struct sums {
    double base, method, log_ratio, n;
};

static struct sums add(struct sums a, struct sums b)
{
    return (struct sums){ a.base + b.base, a.method + b.method, a.log_ratio + b.log_ratio,
                          a.n + b.n };
}

static double log_totals(struct sums s)
{
    return log(s.base) - log(s.method);
}

static double log_mean(struct sums s)
{
    return s.log_ratio / s.n;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double sb_median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, compare);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/* ---- the normal law ---- */

static double normal_cdf(double z)
{
    return 0.5 * erfc(-z * M_SQRT1_2);
}

static double normal_quantile(double p) /* by bisection: called four times per interval */
{
    double low = -9, high = 9;
    for (int i = 0; i < 60; i++) {
        double mid = (low + high) / 2;
        *(normal_cdf(mid) < p ? &low : &high) = mid;
    }
    return (low + high) / 2;
}

/* 97.5 % points of Student's t for 1 to 8 degrees of freedom. */
static const double t_975[] = { 12.706205, 4.302653, 3.182446, 2.776445,
                                2.570582,  2.446912, 2.364624, 2.306004 };

/* ---- resampling ---- */

struct sample {
    struct sums *item; /* [n], grouped by stratum */
    size_t *start;     /* [n_strata + 1] */
    size_t n, n_strata;
    struct sums total;
};

static void sample_finish(struct sample *s)
{
    sb_free(s->item);
    sb_free(s->start);
}

struct tagged {
    int task;
    size_t index; /* keeps the order within a task, so that equal inputs give equal draws */
};

static int by_task(const void *a, const void *b)
{
    const struct tagged *x = a, *y = b;
    int d = (x->task > y->task) - (x->task < y->task);
    return d ? d : (x->index > y->index) - (x->index < y->index);
}

/* Boundaries of the strata; one for all as soon as a task has too few prompts. */
static void cut_strata(struct sample *s, const struct tagged *order)
{
    s->n_strata = 0;
    for (size_t i = 0; i < s->n; i++)
        if (i == 0 || order[i].task != order[i - 1].task)
            s->start[s->n_strata++] = i;
    s->start[s->n_strata] = s->n;
    for (size_t k = 0; k < s->n_strata; k++)
        if (s->start[k + 1] - s->start[k] < STRATUM_MIN) {
            s->n_strata = 1;
            s->start[1] = s->n;
            return;
        }
}

static enum sb_status sample_init(struct sample *s, const struct sb_pair *pairs, size_t n,
                                  struct sb_error *err)
{
    struct tagged *order = sb_alloc_array(n, sizeof *order);
    *s = (struct sample){ .n = n };
    s->item = sb_alloc_array(n, sizeof *s->item);
    s->start = sb_alloc_array(n + 1, sizeof *s->start);
    if (!order || !s->item || !s->start) {
        sb_free(order);
        sample_finish(s);
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", n);
    }
    for (size_t i = 0; i < n; i++)
        order[i] = (struct tagged){ pairs[i].task, i };
    qsort(order, n, sizeof *order, by_task);
    for (size_t i = 0; i < n; i++) {
        const struct sb_pair *p = &pairs[order[i].index];
        s->item[i] = (struct sums){ p->base, p->method, log(p->base) - log(p->method), 1 };
        s->total = add(s->total, s->item[i]);
    }
    cut_strata(s, order);
    sb_free(order);
    return SB_OK;
}

/* Philox gives four words at a time. The index is (word * n) >> 32, whose bias is below n / 2^32. */
static struct sums resample_stratum(const struct sums *item, size_t n, const uint32_t key[2],
                                    uint32_t stratum, uint32_t resample)
{
    struct sums sum = { 0 };
    uint32_t word[4];
    for (size_t i = 0; i < n; i++) {
        if (i % 4 == 0) {
            const uint32_t counter[4] = { (uint32_t)(i / 4), resample, stratum,
                                          SB_STREAM_BOOTSTRAP };
            sb_philox4x32_10(word, counter, key);
        }
        sum = add(sum, item[(uint64_t)word[i % 4] * n >> 32]);
    }
    return sum;
}

static void resample_all(const struct sample *s, int resamples, uint64_t seed, double *totals,
                         double *means)
{
    const uint32_t key[2] = { (uint32_t)seed, (uint32_t)(seed >> 32) };
#pragma omp parallel for schedule(static) if ((double)resamples * (double)s->n > 1e5)
    for (int r = 0; r < resamples; r++) {
        struct sums sum = { 0 };
        for (size_t k = 0; k < s->n_strata; k++)
            sum = add(sum, resample_stratum(s->item + s->start[k], s->start[k + 1] - s->start[k],
                                            key, (uint32_t)k, (uint32_t)r));
        totals[r] = log_totals(sum);
        means[r] = log_mean(sum);
    }
}

/* ---- intervals ---- */

struct jackknife {
    double se, acceleration;
};

static struct jackknife jackknife(const struct sample *s, double (*f)(struct sums))
{
    double mean = 0, square = 0, cube = 0, n = (double)s->n;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < s->n; i++) {
            struct sums without = s->total, x = s->item[i];
            without = add(without, (struct sums){ -x.base, -x.method, -x.log_ratio, -1 });
            double value = f(without);
            if (pass == 0) {
                mean += value / n;
            } else {
                square += (mean - value) * (mean - value);
                cube += (mean - value) * (mean - value) * (mean - value);
            }
        }
    return (struct jackknife){ .se = sqrt((n - 1) / n * square),
                               .acceleration = square > 0 ? cube / (6 * pow(square, 1.5)) : 0 };
}

static double quantile(const double *sorted, int n, double p)
{
    double at = p * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* Corrected levels of the BCa interval; value holds the sorted resamples. Ties count half, so that a
 * sample without spread is not taken for bias. */
static double bca_level(double p, const double *value, int n, double estimate, double a)
{
    double below = 0;
    for (int i = 0; i < n; i++)
        below += value[i] < estimate ? 1 : value[i] == estimate ? 0.5 : 0;
    double edge = 0.5 / n, share = fmin(fmax(below / n, edge), 1 - edge);
    double z0 = normal_quantile(share), z = z0 + normal_quantile(p), scale = 1 - a * z;
    return scale > 0 ? normal_cdf(z0 + z / scale) : p;
}

static struct sb_interval interval(const struct sample *s, double (*f)(struct sums), double *value,
                                   int resamples)
{
    double estimate = f(s->total), low = 0.025, high = 0.975;
    if (s->n == 1)
        return (struct sb_interval){ exp(estimate), NAN, NAN };
    struct jackknife jack = jackknife(s, f);
    if (s->n < SB_FEW_PROMPTS) {
        double half = t_975[s->n - 2] * jack.se;
        return (struct sb_interval){ exp(estimate), exp(estimate - half), exp(estimate + half) };
    }
    qsort(value, (size_t)resamples, sizeof *value, compare);
    if (s->n < BCA_BELOW) {
        low = bca_level(0.025, value, resamples, estimate, jack.acceleration);
        high = bca_level(0.975, value, resamples, estimate, jack.acceleration);
    }
    return (struct sb_interval){ exp(estimate), exp(quantile(value, resamples, low)),
                                 exp(quantile(value, resamples, high)) };
}

static enum sb_status check(const struct sb_pair *pairs, size_t n, int resamples,
                            struct sb_error *err)
{
    if (n == 0 || n > UINT32_MAX)
        return sb_fail(err, SB_EUSAGE, "a speedup needs at least one prompt, found %zu", n);
    if (resamples < 0 || resamples > MAX_RESAMPLES)
        return sb_fail(err, SB_EUSAGE, "resamples=%d: expected 0 (the default) to %d", resamples,
                       MAX_RESAMPLES);
    for (size_t i = 0; i < n; i++)
        if (!(pairs[i].base > 0 && pairs[i].method > 0 && isfinite(pairs[i].base) &&
              isfinite(pairs[i].method)))
            return sb_fail(err, SB_EUSAGE, "prompt %zu: times %g and %g ns, expected both above 0",
                           i, pairs[i].base, pairs[i].method);
    return SB_OK;
}

enum sb_status sb_speedup(struct sb_interval *totals, struct sb_interval *geometric,
                          const struct sb_pair *pairs, size_t n, int resamples, uint64_t seed,
                          struct sb_error *err)
{
    enum sb_status rc = check(pairs, n, resamples, err);
    if (rc != SB_OK)
        return rc;
    if (resamples == 0)
        resamples = DEFAULT_RESAMPLES;
    struct sample s;
    rc = sample_init(&s, pairs, n, err);
    if (rc != SB_OK)
        return rc;
    double *value = sb_alloc_array((size_t)resamples * 2, sizeof *value);
    if (value) {
        if (n >= SB_FEW_PROMPTS)
            resample_all(&s, resamples, seed, value, value + resamples);
        *totals = interval(&s, log_totals, value, resamples);
        *geometric = interval(&s, log_mean, value + resamples, resamples);
    } else {
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %d resamples", resamples);
    }
    sb_free(value);
    sample_finish(&s);
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

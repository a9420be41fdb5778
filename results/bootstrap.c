/* The resampling. Prompts' sums are laid out as one cache line each, so that a draw is one load and add;
 * resamples come in blocks, and every block draws the repeats of each prompt a few times anew. */
#include "results/bootstrap.h"

#include <math.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

#define DEFAULT_RESAMPLES 10000
#define MAX_RESAMPLES     10000000
#define STRATUM_MIN       10 /* prompts a stratum needs to be one of its own */
#define BCA_BELOW         50

enum {
    BLOCK = 500,  /* resamples that share their drawn repeats; part of what a seed means */
    VERSIONS = 4, /* how often each prompt's repeats are drawn for a block */
    WORDS = 256,  /* random words made at a time */
};
/* Coordinates of the repeats' draws, away from any stratum's. */
#define REPEAT_STRATUM 0xFFFFFFFFu

double sb_log_totals(const struct sb_sums *s)
{
    return log(s->v[SB_SUM_BASE]) - log(s->v[SB_SUM_METHOD]);
}

double sb_log_totals_all(const struct sb_sums *s)
{
    return log(s->v[SB_SUM_BASE_ALL]) - log(s->v[SB_SUM_METHOD_ALL]);
}

double sb_log_mean(const struct sb_sums *s)
{
    return s->v[SB_SUM_LOG_RATIO] / s->v[SB_SUM_PROMPTS];
}

struct sb_interval sb_interval_exp(struct sb_interval x)
{
    return (struct sb_interval){ exp(x.estimate), exp(x.low), exp(x.high) };
}

static void add(struct sb_sums *sum, const struct sb_sums *x)
{
    for (int k = 0; k < SB_SUMS; k++)
        sum->v[k] += x->v[k];
}

/* ---- the sample ---- */

struct sample {
    const struct sb_clusters *clusters;
    size_t *order; /* [n] cluster at each place: grouped by stratum, then as they came */
    size_t *start; /* [n_strata + 1] */
    size_t n, n_strata;
    struct sb_sums *item; /* [n] by place, repeats as they are */
    struct sb_sums total;
    size_t versions;
};

static void sample_finish(struct sample *s)
{
    sb_free(s->order);
    sb_free(s->start);
    sb_free(s->item);
}

struct tagged {
    int stratum;
    size_t index;
};

static int by_stratum(const void *a, const void *b)
{
    const struct tagged *x = a, *y = b;
    int d = (x->stratum > y->stratum) - (x->stratum < y->stratum);
    return d ? d : (x->index > y->index) - (x->index < y->index);
}

/* Boundaries of the strata; one for all as soon as one has too few prompts. */
static void cut_strata(struct sample *s)
{
    const int *stratum = s->clusters->stratum;
    s->n_strata = 0;
    for (size_t i = 0; i < s->n; i++)
        if (i == 0 || stratum[s->order[i]] != stratum[s->order[i - 1]])
            s->start[s->n_strata++] = i;
    s->start[s->n_strata] = s->n;
    for (size_t k = 0; k < s->n_strata; k++)
        if (s->start[k + 1] - s->start[k] < STRATUM_MIN) {
            s->n_strata = 1;
            s->start[1] = s->n;
            return;
        }
}

static enum sb_status sample_init(struct sample *s, const struct sb_clusters *c,
                                  struct sb_error *err)
{
    struct tagged *tagged = sb_alloc_array(c->n, sizeof *tagged);
    *s = (struct sample){ .clusters = c, .n = c->n, .versions = c->repeats > 1 ? VERSIONS : 1 };
    s->order = sb_alloc_array(c->n, sizeof *s->order);
    s->start = sb_alloc_array(c->n + 1, sizeof *s->start);
    s->item = sb_alloc_zero(c->n, sizeof *s->item);
    if (!tagged || !s->order || !s->start || !s->item) {
        sb_free(tagged);
        sample_finish(s);
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", c->n);
    }
    for (size_t i = 0; i < c->n; i++)
        tagged[i] = (struct tagged){ c->stratum[i], i };
    qsort(tagged, c->n, sizeof *tagged, by_stratum);
    for (size_t i = 0; i < c->n; i++) {
        s->order[i] = tagged[i].index;
        c->row(&s->item[i], c->self, s->order[i], NULL);
        add(&s->total, &s->item[i]);
    }
    sb_free(tagged);
    cut_strata(s);
    return SB_OK;
}

/* ---- resampling ---- */

/* The items of a block, [n, versions]: each version has repeats of its own. */
static void draw_repeats(struct sb_sums *table, const struct sample *s, uint32_t block,
                         const uint32_t key[2])
{
    size_t repeats = s->clusters->repeats,
           words = repeats < SB_REPEAT_WORDS ? repeats : SB_REPEAT_WORDS;
    for (size_t i = 0; i < s->n; i++)
        for (uint32_t v = 0; v < s->versions; v++) {
            uint32_t word[SB_REPEAT_WORDS];
            const uint32_t first[4] = { ((uint32_t)i * VERSIONS + v) * (SB_REPEAT_WORDS / 4), block,
                                        REPEAT_STRATUM, SB_STREAM_BOOTSTRAP };
            sb_philox_fill(word, words, first, key);
            struct sb_sums *at = &table[i * s->versions + v];
            *at = (struct sb_sums){ 0 };
            s->clusters->row(at, s->clusters->self, s->order[i], word);
        }
}

/* One word chooses a prompt and a version of it, with a bias below n * versions / 2^32. */
static void resample_stratum(struct sb_sums *sum, const struct sb_sums *table, size_t n,
                             size_t versions, const uint32_t key[2], uint32_t stratum,
                             uint32_t resample)
{
    uint32_t word[WORDS];
    struct sb_sums total = *sum;
    for (size_t i = 0; i < n; i += WORDS) {
        size_t m = n - i < WORDS ? n - i : WORDS;
        const uint32_t first[4] = { (uint32_t)(i / 4), resample, stratum, SB_STREAM_BOOTSTRAP };
        sb_philox_fill(word, m, first, key);
        for (size_t k = 0; k < m; k++) {
            uint64_t at = (uint64_t)word[k] * (n * versions) >> 32;
            add(&total, &table[at]);
        }
    }
    *sum = total;
}

struct resampling {
    const struct sample *sample;
    const sb_estimator *estimator;
    size_t n_estimators;
    int resamples;
    uint32_t key[2];
    double *value; /* [n_estimators, resamples] */
};

static void resample_block(const struct resampling *r, int block, struct sb_sums *own)
{
    const struct sample *s = r->sample;
    const struct sb_sums *table = s->item;
    int end = (block + 1) * BLOCK < r->resamples ? (block + 1) * BLOCK : r->resamples;
    if (own) {
        draw_repeats(own, s, (uint32_t)block, r->key);
        table = own;
    }
    for (int i = block * BLOCK; i < end; i++) {
        struct sb_sums sum = { 0 };
        for (size_t k = 0; k < s->n_strata; k++)
            resample_stratum(&sum, table + s->start[k] * s->versions, s->start[k + 1] - s->start[k],
                             s->versions, r->key, (uint32_t)k, (uint32_t)i);
        for (size_t e = 0; e < r->n_estimators; e++)
            r->value[e * (size_t)r->resamples + (size_t)i] = r->estimator[e](&sum);
    }
}

static enum sb_status resample_all(const struct resampling *r, struct sb_error *err)
{
    const struct sample *s = r->sample;
    int n_blocks = (r->resamples + BLOCK - 1) / BLOCK;
    bool failed = false;
#pragma omp parallel for schedule(static) if ((double)r->resamples * (double)s->n > 1e5)
    for (int b = 0; b < n_blocks; b++) {
        struct sb_sums *own =
            s->versions > 1 ? sb_alloc_array(s->n * s->versions, sizeof *own) : NULL;
        if (s->versions > 1 && !own) {
#pragma omp atomic write
            failed = true;
        } else {
            resample_block(r, b, own);
        }
        sb_free(own);
    }
    return failed ? sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", s->n) : SB_OK;
}

/* ---- intervals ---- */

static double normal_cdf(double z)
{
    return 0.5 * erfc(-z * M_SQRT1_2);
}

static double normal_quantile(double p) /* by bisection: called a few times per interval */
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

struct jackknife {
    double se, acceleration;
};

static struct jackknife jackknife(const struct sample *s, sb_estimator f)
{
    double mean = 0, square = 0, cube = 0, n = (double)s->n;
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < s->n; i++) {
            struct sb_sums without = s->total;
            for (int k = 0; k < SB_SUMS; k++)
                without.v[k] -= s->item[i].v[k];
            double value = f(&without);
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

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, int n, double p)
{
    double at = p * (n - 1);
    int i = (int)at;
    return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* Corrected level of the BCa interval; value holds the resamples. Ties count half, so that a sample
 * without spread is not taken for bias. */
static double bca_level(double p, const double *value, int n, double estimate, double a)
{
    double below = 0;
    for (int i = 0; i < n; i++)
        below += value[i] < estimate ? 1 : value[i] == estimate ? 0.5 : 0;
    double edge = 0.5 / n, share = fmin(fmax(below / n, edge), 1 - edge);
    double z0 = normal_quantile(share), z = z0 + normal_quantile(p), scale = 1 - a * z;
    return scale > 0 ? normal_cdf(z0 + z / scale) : p;
}

static struct sb_interval interval(const struct sample *s, sb_estimator f, double *value,
                                   int resamples)
{
    double estimate = f(&s->total), low = 0.025, high = 0.975;
    if (s->n == 1)
        return (struct sb_interval){ estimate, NAN, NAN };
    struct jackknife jack = s->n < BCA_BELOW ? jackknife(s, f) : (struct jackknife){ 0 };
    if (s->n < SB_FEW_PROMPTS) {
        double half = t_975[s->n - 2] * jack.se;
        return (struct sb_interval){ estimate, estimate - half, estimate + half };
    }
    qsort(value, (size_t)resamples, sizeof *value, compare);
    if (s->n < BCA_BELOW) {
        low = bca_level(0.025, value, resamples, estimate, jack.acceleration);
        high = bca_level(0.975, value, resamples, estimate, jack.acceleration);
    }
    return (struct sb_interval){ estimate, quantile(value, resamples, low),
                                 quantile(value, resamples, high) };
}

enum sb_status sb_bootstrap(struct sb_interval *out, const sb_estimator *estimator,
                            size_t n_estimators, const struct sb_clusters *clusters, int resamples,
                            uint64_t seed, struct sb_error *err)
{
    struct sample s;
    if (clusters->n == 0 || clusters->n > UINT32_MAX / (VERSIONS * SB_REPEAT_WORDS))
        return sb_fail(err, SB_EUSAGE, "an interval needs at least one prompt, found %zu",
                       clusters->n);
    if (resamples < 0 || resamples > MAX_RESAMPLES)
        return sb_fail(err, SB_EUSAGE, "resamples=%d: expected 0 (the default) to %d", resamples,
                       MAX_RESAMPLES);
    struct resampling r = { .sample = &s,
                            .estimator = estimator,
                            .n_estimators = n_estimators,
                            .resamples = resamples ? resamples : DEFAULT_RESAMPLES,
                            .key = { (uint32_t)seed, (uint32_t)(seed >> 32) } };
    enum sb_status rc = sample_init(&s, clusters, err);
    if (rc != SB_OK)
        return rc;
    r.value = sb_alloc_array((size_t)r.resamples * n_estimators, sizeof *r.value);
    if (!r.value)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %d resamples", r.resamples);
    else if (s.n >= SB_FEW_PROMPTS)
        rc = resample_all(&r, err);
    for (size_t e = 0; e < n_estimators && rc == SB_OK; e++)
        out[e] = interval(&s, estimator[e], r.value + e * (size_t)r.resamples, r.resamples);
    sb_free(r.value);
    sample_finish(&s);
    return rc;
}

/* results/bootstrap: published intervals, coverage with repeats, the same draws for the same seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "results/bootstrap.h"

/* ---- three answers to one question ---- */

/* Methods C 7.2: A 10 tokens in 1.0 s -> 0.25 s, B 1,000 tokens in 20 s -> 20 s. */
static void a_pair_of_prompts_has_two_speedups(void **state)
{
    (void)state;
    const struct sb_pair pairs[] = { { 1e9, .25e9, 0 }, { 20e9, 20e9, 0 } };
    struct sb_interval totals, mean;
    assert_int_equal(sb_speedup(&totals, &mean, pairs, 2, 0, 1, NULL), SB_OK);
    assert_true(fabs(totals.estimate - 21 / 20.25) < 1e-12);
    assert_true(fabs(mean.estimate - 2) < 1e-12);
}

/* ---- BCa against a published interval and a slow second implementation ---- */

/* Efron and Tibshirani (1993), An Introduction to the Bootstrap, table 14.1: the A values of 26 children.
 * Their figure is the variance with n below the line, 171.5; its 90 % BCa interval is (115.8, 259.6). */
static const double spatial[] = { 48, 36, 20, 29, 42, 42, 20, 42, 22, 41, 45, 14, 6,
                                  0,  33, 28, 34, 4,  32, 24, 47, 41, 24, 26, 30, 41 };
enum { SPATIAL = 26, SLOW_DRAWS = 20000 };

static void spatial_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    (void)self;
    (void)word;
    out->v[0] = spatial[i];
    out->v[1] = spatial[i] * spatial[i];
    out->v[2] = 1;
}

static double variance_of_sums(const struct sb_sums *s)
{
    double mean = s->v[0] / s->v[2];
    return s->v[1] / s->v[2] - mean * mean;
}

static double variance(const double *x, size_t n)
{
    double mean = 0, square = 0;
    for (size_t i = 0; i < n; i++)
        mean += x[i] / (double)n;
    for (size_t i = 0; i < n; i++)
        square += (x[i] - mean) * (x[i] - mean) / (double)n;
    return square;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The quantile of the normal law by Newton's method on erfc. */
static double probit(double p)
{
    double z = 0;
    for (int i = 0; i < 200; i++)
        z -= fmax(fmin((0.5 * erfc(-z / sqrt(2)) - p) / (exp(-z * z / 2) / sqrt(2 * M_PI)), .5),
                  -.5);
    return z;
}

/* As the book has it, equations 14.9 to 14.15: whole samples drawn and put into the formula. */
static void slow_bca(double limits[2], double tail, double *z0_out, double *a_out)
{
    static double value[SLOW_DRAWS];
    double x[SPATIAL], leave[SPATIAL], mean = 0, square = 0, cube = 0, below = 0;
    double estimate = variance(spatial, SPATIAL);
    struct sb_rng rng = sb_rng_make(99, SB_STREAM_DATA);
    for (int b = 0; b < SLOW_DRAWS; b++) {
        for (int i = 0; i < SPATIAL; i++)
            x[i] = spatial[sb_rng_below(&rng, SPATIAL)];
        value[b] = variance(x, SPATIAL);
        below += value[b] < estimate;
    }
    for (int i = 0; i < SPATIAL; i++) {
        memcpy(x, spatial, sizeof x);
        x[i] = x[SPATIAL - 1];
        leave[i] = variance(x, SPATIAL - 1);
        mean += leave[i] / SPATIAL;
    }
    for (int i = 0; i < SPATIAL; i++) {
        square += pow(mean - leave[i], 2);
        cube += pow(mean - leave[i], 3);
    }
    double a = cube / (6 * pow(square, 1.5)), z0 = probit(below / SLOW_DRAWS);
    qsort(value, SLOW_DRAWS, sizeof *value, ascending);
    for (int side = 0; side < 2; side++) {
        double z = z0 + probit(side ? 1 - tail : tail);
        double level = 0.5 * erfc(-(z0 + z / (1 - a * z)) / sqrt(2));
        limits[side] = value[(int)(level * SLOW_DRAWS)];
    }
    *z0_out = z0;
    *a_out = a;
}

static void the_slow_interval_is_the_published_one(void **state)
{
    (void)state;
    double limits[2], z0, a;
    slow_bca(limits, .05, &z0, &a);
    assert_true(fabs(variance(spatial, SPATIAL) - 171.5) < .05);
    assert_true(fabs(a - .061) < .0006);
    assert_true(fabs(z0 - .146) < .04); /* theirs is of 2,000 draws */
    assert_true(fabs(limits[0] - 115.8) < 3 && fabs(limits[1] - 259.6) < 4);
}

static void bca_agrees_with_the_slow_implementation(void **state)
{
    (void)state;
    static const int one_stratum[SPATIAL];
    static const sb_estimator estimators[] = { variance_of_sums };
    double slow[2], z0, a;
    struct sb_interval x;
    const struct sb_clusters clusters = { .n = SPATIAL,
                                          .stratum = one_stratum,
                                          .row = spatial_row };
    slow_bca(slow, .025, &z0, &a);
    assert_int_equal(sb_bootstrap(&x, estimators, 1, &clusters, SLOW_DRAWS, 3, NULL), SB_OK);
    assert_true(fabs(x.estimate - 171.534) < .001);
    if (fabs(x.low - slow[0]) > 2 || fabs(x.high - slow[1]) > 4)
        fail_msg("(%g, %g), slowly (%g, %g)", x.low, x.high, slow[0], slow[1]);
    assert_true(x.high - x.estimate > x.estimate - x.low); /* skewed, as the percentiles are not */
}

/* ---- repeats ---- */

enum { MOST = 120, REPEATS = 3 };
struct repeated {
    double base[MOST][REPEATS], method[MOST][REPEATS];
};

static void repeated_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    const struct repeated *r = self;
    double base[REPEATS], method[REPEATS];
    for (size_t k = 0; k < REPEATS; k++) {
        size_t at = sb_draw_repeat(word, k, REPEATS);
        base[k] = r->base[i][at];
        method[k] = r->method[i][at];
    }
    out->v[SB_SUM_BASE] = sb_median(base, REPEATS);
    out->v[SB_SUM_METHOD] = sb_median(method, REPEATS);
    out->v[SB_SUM_LOG_RATIO] = log(out->v[SB_SUM_BASE] / out->v[SB_SUM_METHOD]);
    out->v[SB_SUM_PROMPTS] = 1;
}

/* Prompts differ by `between` in their log speedup, times by `within` from repeat to repeat. */
static void make_repeated(struct repeated *r, double between, double within, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < MOST; i++) {
        double ratio = log(1.5) + between * sb_rng_normal(&rng);
        for (size_t k = 0; k < REPEATS; k++) {
            r->base[i][k] = 1e8 * exp(within * sb_rng_normal(&rng));
            r->method[i][k] = 1e8 * exp(within * sb_rng_normal(&rng) - ratio);
        }
    }
}

static struct sb_interval mean_interval(const struct repeated *r, size_t n, bool draw_repeats,
                                        int resamples, uint64_t seed)
{
    static int stratum[MOST];
    static const sb_estimator estimators[] = { sb_log_mean };
    struct sb_interval x;
    for (int i = 0; i < MOST; i++)
        stratum[i] = i % 3;
    const struct sb_clusters clusters = { .n = n,
                                          .stratum = stratum,
                                          .repeats = draw_repeats ? REPEATS : 1,
                                          .row = repeated_row,
                                          .self = r };
    assert_int_equal(sb_bootstrap(&x, estimators, 1, &clusters, resamples, seed, NULL), SB_OK);
    return sb_interval_exp(x);
}

/* Equal prompts, noisy repeats: all the spread there is comes from the repeats. */
static void noise_of_repeats_widens_the_interval(void **state)
{
    (void)state;
    struct repeated r;
    make_repeated(&r, .05, .3, 5);
    struct sb_interval prompts = mean_interval(&r, MOST, false, 2000, 1);
    struct sb_interval both = mean_interval(&r, MOST, true, 2000, 1);
    assert_true(prompts.estimate == both.estimate);
    assert_true(both.high - both.low > 1.1 * (prompts.high - prompts.low));
    assert_true(both.high - both.low < 1.7 * (prompts.high - prompts.low));
    make_repeated(&r, .3, 0, 5); /* and where repeats agree it adds nothing */
    prompts = mean_interval(&r, MOST, false, 2000, 1);
    both = mean_interval(&r, MOST, true, 2000, 1);
    assert_true(fabs(both.low / prompts.low - 1) < .01 && fabs(both.high / prompts.high - 1) < .01);
}

/* 200 experiments each, all from fixed seeds: a standard error of 1.5 points about 95 %. */
static void intervals_with_repeats_cover_the_truth(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        double between, within, least, most;
    } cases[] = { { 5, .2, .1, .90, 1 },
                  { 20, .2, .1, .90, .99 },
                  { 60, .2, .05, .91, .99 },
                  { 120, .1, .1, .91, 1 } };
    struct repeated r;
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        int covered = 0;
        for (unsigned trial = 0; trial < 200; trial++) {
            make_repeated(&r, cases[c].between, cases[c].within, 5000 * (c + 1) + trial);
            struct sb_interval x = mean_interval(&r, cases[c].n, true, 400, 11);
            covered += x.low <= 1.5 && 1.5 <= x.high;
        }
        if (covered < cases[c].least * 200 || covered > cases[c].most * 200)
            fail_msg("n = %zu: %d of 200 intervals cover the truth", cases[c].n, covered);
    }
}

static void a_seed_means_the_same_interval_whatever_the_threads(void **state)
{
    (void)state;
    struct repeated r;
    make_repeated(&r, .2, .2, 9);
    int threads = sb_threads_get();
    sb_threads_set(1);
    struct sb_interval a = mean_interval(&r, MOST, true, 3001, 7);
    sb_threads_set(3);
    struct sb_interval b = mean_interval(&r, MOST, true, 3001, 7);
    sb_threads_set(threads);
    assert_memory_equal(&a, &b, sizeof a);
    struct sb_interval c = mean_interval(&r, MOST, true, 3001, 8);
    assert_true(c.estimate == a.estimate && c.low != a.low);
}

static void drawn_repeats_are_there_and_all_of_them_come_up(void **state)
{
    (void)state;
    uint32_t word[SB_REPEAT_WORDS];
    bool seen[7] = { false };
    for (uint32_t i = 0; i < 50; i++) {
        const uint32_t first[4] = { i * 8, 0, 0, 0 }, key[2] = { 1, 2 };
        sb_philox_fill(word, SB_REPEAT_WORDS, first, key);
        for (size_t k = 0; k < 100; k++) {
            size_t at = sb_draw_repeat(word, k, 7);
            assert_true(at < 7);
            seen[at] = true;
        }
    }
    for (size_t i = 0; i < 7; i++)
        assert_true(seen[i]);
    assert_int_equal(sb_draw_repeat(NULL, 5, 7), 5);
}

static void filled_words_are_those_of_single_blocks(void **state)
{
    (void)state;
    const uint32_t first[4] = { 3, 5, 7, 9 }, key[2] = { 11, 13 };
    uint32_t word[11], block[4];
    sb_philox_fill(word, 11, first, key);
    for (uint32_t i = 0; i < 11; i++) {
        const uint32_t counter[4] = { 3 + i / 4, 5, 7, 9 };
        sb_philox4x32_10(block, counter, key);
        assert_int_equal(word[i], block[i % 4]);
    }
}

static void nothing_to_resample_is_refused(void **state)
{
    (void)state;
    static const sb_estimator estimators[] = { sb_log_mean };
    struct sb_interval x = { 42, 42, 42 };
    const struct sb_clusters none = { .row = repeated_row };
    static const int stratum[1];
    struct repeated r;
    const struct sb_clusters one = { .n = 1, .stratum = stratum, .row = repeated_row, .self = &r };
    make_repeated(&r, 0, 0, 1);
    assert_int_equal(sb_bootstrap(&x, estimators, 1, &none, 0, 0, NULL), SB_EUSAGE);
    assert_int_equal(sb_bootstrap(&x, estimators, 1, &one, -1, 0, NULL), SB_EUSAGE);
    assert_true(x.estimate == 42);
    assert_int_equal(sb_bootstrap(&x, estimators, 1, &one, 0, 0, NULL), SB_OK);
    assert_true(fabs(x.estimate - log(1.5)) < 1e-12 && isnan(x.low) && isnan(x.high));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pair_of_prompts_has_two_speedups),
        cmocka_unit_test(the_slow_interval_is_the_published_one),
        cmocka_unit_test(bca_agrees_with_the_slow_implementation),
        cmocka_unit_test(noise_of_repeats_widens_the_interval),
        cmocka_unit_test(intervals_with_repeats_cover_the_truth),
        cmocka_unit_test(a_seed_means_the_same_interval_whatever_the_threads),
        cmocka_unit_test(drawn_repeats_are_there_and_all_of_them_come_up),
        cmocka_unit_test(filled_words_are_those_of_single_blocks),
        cmocka_unit_test(nothing_to_resample_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* results/stats: known answers, coverage, reproducibility. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "results/stats.h"

static void medians_of_odd_and_even_counts(void **state)
{
    (void)state;
    double odd[] = { 5, 1, 3 }, even[] = { 4, 1, 3, 2 }, one[] = { 7 };
    assert_true(sb_median(odd, 3) == 3);
    assert_true(sb_median(even, 4) == 2.5);
    assert_true(sb_median(one, 1) == 7);
}

/* Methods C 7.2: A 1.0 s -> 0.25 s, B 20 s -> 20 s. */
static void two_prompts_give_the_worked_example(void **state)
{
    (void)state;
    const struct sb_pair pairs[] = { { 1e9, 0.25e9, 0 }, { 20e9, 20e9, 0 } };
    struct sb_interval totals, mean;
    assert_int_equal(sb_ratio_of_totals(&totals, pairs, 2, 0, 1, NULL), SB_OK);
    assert_int_equal(sb_geometric_mean(&mean, pairs, 2, 0, 1, NULL), SB_OK);
    assert_true(fabs(totals.estimate - 21 / 20.25) < 1e-12);
    assert_true(fabs(mean.estimate - 2.0) < 1e-12);
    assert_true(mean.low < 2.0 && mean.high > 2.0);
}

/* log ratios 0.1 .. 0.5: mean 0.3, s = sqrt(0.025), t(4) = 2.776445. */
static void few_prompts_get_the_t_interval_of_their_log_ratios(void **state)
{
    (void)state;
    struct sb_pair pairs[5];
    for (int i = 0; i < 5; i++)
        pairs[i] = (struct sb_pair){ exp(0.1 * (i + 1)), 1, i };
    struct sb_interval mean;
    assert_int_equal(sb_geometric_mean(&mean, pairs, 5, 0, 1, NULL), SB_OK);
    double half = 2.776445 * sqrt(0.025 / 5);
    assert_true(fabs(log(mean.low) - (0.3 - half)) < 1e-6);
    assert_true(fabs(log(mean.high) - (0.3 + half)) < 1e-6);
}

static void one_prompt_has_no_interval(void **state)
{
    (void)state;
    const struct sb_pair pair = { 3, 2, 0 };
    struct sb_interval totals;
    assert_int_equal(sb_ratio_of_totals(&totals, &pair, 1, 0, 1, NULL), SB_OK);
    assert_true(totals.estimate == 1.5 || fabs(totals.estimate - 1.5) < 1e-12);
    assert_true(isnan(totals.low) && isnan(totals.high));
}

static void make_pairs(struct sb_pair *pairs, size_t n, double speedup, double noise, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++) {
        double base = 1e8 * exp(0.5 * sb_rng_normal(&rng));
        double method = base / speedup * exp(noise * sb_rng_normal(&rng));
        pairs[i] = (struct sb_pair){ base, method, (int)(i % 4) };
    }
}

static void the_same_seed_gives_the_same_interval_with_any_number_of_threads(void **state)
{
    (void)state;
    struct sb_pair pairs[120];
    make_pairs(pairs, 120, 2, 0.2, 5);
    struct sb_interval a, b, c;
    int threads = sb_threads_get();
    sb_threads_set(1);
    assert_int_equal(sb_ratio_of_totals(&a, pairs, 120, 2000, 7, NULL), SB_OK);
    sb_threads_set(2);
    assert_int_equal(sb_ratio_of_totals(&b, pairs, 120, 2000, 7, NULL), SB_OK);
    sb_threads_set(threads);
    assert_memory_equal(&a, &b, sizeof a);
    assert_int_equal(sb_ratio_of_totals(&c, pairs, 120, 2000, 8, NULL), SB_OK);
    assert_true(a.estimate == c.estimate && a.low != c.low);
}

static void a_baseline_against_itself_covers_one(void **state)
{
    (void)state;
    static const size_t sizes[] = { 2, 6, 12, 30, 60, 480 };
    struct sb_pair pairs[480];
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        struct sb_interval totals, mean;
        make_pairs(pairs, sizes[k], 1, 0.02, 3 + k);
        assert_int_equal(sb_speedup(&totals, &mean, pairs, sizes[k], 2000, 1, NULL), SB_OK);
        assert_true(totals.low <= 1 && totals.high >= 1);
        assert_true(mean.low <= 1 && mean.high >= 1);
        for (size_t i = 0; i < sizes[k]; i++)
            pairs[i].method = pairs[i].base; /* equal times: an interval of width 0 at 1 */
        assert_int_equal(sb_speedup(&totals, &mean, pairs, sizes[k], 500, 1, NULL), SB_OK);
        assert_true(fabs(totals.low - 1) < 1e-12 && fabs(totals.high - 1) < 1e-12);
    }
}

/* 95 % intervals hold the truth about 95 times in 100; 300 trials have a standard error of 1.3 points.
 * The geometric mean's true value is the speedup itself. */
static void intervals_cover_the_truth_as_often_as_they_say(void **state)
{
    (void)state;
    static const struct {
        size_t n;
        double least;
    } cases[] = { { 3, 0.90 }, { 8, 0.90 }, { 16, 0.87 }, { 40, 0.90 }, { 80, 0.90 } };
    struct sb_pair pairs[80];
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        int covered = 0;
        for (int trial = 0; trial < 300; trial++) {
            struct sb_interval totals, mean;
            make_pairs(pairs, cases[k].n, 1.5, 0.3, 1000 * k + (unsigned)trial);
            assert_int_equal(sb_speedup(&totals, &mean, pairs, cases[k].n, 400, 9, NULL), SB_OK);
            assert_true(totals.low <= totals.estimate && totals.estimate <= totals.high);
            covered += mean.low <= 1.5 && 1.5 <= mean.high;
        }
        if (covered < cases[k].least * 300 || covered > 0.99 * 300)
            fail_msg("n = %zu: %d of 300 intervals cover the truth", cases[k].n, covered);
    }
}

/* Stratification takes the spread between tasks out; tasks of one prompt must not take out all of it. */
static void small_tasks_are_not_strata(void **state)
{
    (void)state;
    struct sb_pair pairs[40];
    struct sb_interval strata, single;
    for (int i = 0; i < 40; i++)
        pairs[i] = (struct sb_pair){ 100 + 100 * (i % 2), 100, i % 2 };
    assert_int_equal(sb_geometric_mean(&strata, pairs, 40, 1000, 1, NULL), SB_OK);
    assert_true(strata.high - strata.low < 1e-9); /* each task has no spread of its own */
    for (int i = 0; i < 40; i++)
        pairs[i].task = i;
    assert_int_equal(sb_geometric_mean(&single, pairs, 40, 1000, 1, NULL), SB_OK);
    assert_true(single.high - single.low > 0.1);
}

static void senseless_input_is_refused(void **state)
{
    (void)state;
    struct sb_interval out = { 42, 42, 42 };
    struct sb_pair pair = { 1, 1, 0 };
    assert_int_equal(sb_ratio_of_totals(&out, &pair, 0, 0, 1, NULL), SB_EUSAGE);
    assert_int_equal(sb_ratio_of_totals(&out, &pair, 1, -1, 1, NULL), SB_EUSAGE);
    static const double bad[] = { 0, -1, NAN, INFINITY };
    for (size_t i = 0; i < 4; i++) {
        pair.method = bad[i];
        assert_int_equal(sb_ratio_of_totals(&out, &pair, 1, 0, 1, NULL), SB_EUSAGE);
    }
    assert_true(out.estimate == 42);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medians_of_odd_and_even_counts),
        cmocka_unit_test(two_prompts_give_the_worked_example),
        cmocka_unit_test(few_prompts_get_the_t_interval_of_their_log_ratios),
        cmocka_unit_test(one_prompt_has_no_interval),
        cmocka_unit_test(the_same_seed_gives_the_same_interval_with_any_number_of_threads),
        cmocka_unit_test(a_baseline_against_itself_covers_one),
        cmocka_unit_test(intervals_cover_the_truth_as_often_as_they_say),
        cmocka_unit_test(small_tasks_are_not_strata),
        cmocka_unit_test(senseless_input_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

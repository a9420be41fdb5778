/* results/stats, laws and counts: values from mpmath at 30 digits and from methods C 6.3, and how often
 * tests and bounds are wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "harness/core/rng.h"
#include "results/stats.h"

static void relative(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("got %.17g, expected %.17g", got, want);
}

static void chi_square_tails_have_their_known_values(void **state)
{
    (void)state;
    static const struct {
        double x, df, tail;
    } known[] = {
        { 3.841458820694124, 1, .050000000000000057 },
        { 18.307038053275146, 10, .050000000000000007 },
        { 2, 2, .36787944117144232 },
        { .5, 3, .91889141165467586 },
        { 60, 63, .58392733052627716 },
        { 37.7, 15, .0009990843015883134 },
        { 149.449, 100, .0010000462217732489 },
        { 1106.969, 1000, .009999996853907445 },
        { 200, 300, .99999811578953396 },
        { 100, 5, 5.2851483609432401e-20 },
        { 700, 1, 2.9902269751246203e-154 },
        { 1300, 4, 3.3278807185719027e-280 },
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        relative(sb_chi_square_tail(known[i].x, known[i].df), known[i].tail, 1e-11);
    assert_true(sb_chi_square_tail(0, 4) == 1 && sb_chi_square_tail(-1, 4) == 1);
    assert_true(sb_chi_square_tail(INFINITY, 4) == 0);
    for (double df = 1; df < 200; df *= 1.7)
        for (double tail = .9; tail > 1e-9; tail /= 7)
            relative(sb_chi_square_tail(sb_chi_square_point(tail, df), df), tail, 1e-9);
}

static void power_has_its_known_values(void **state)
{
    (void)state;
    relative(sb_chi_square_power(37.70, 15, 55.16), .98999131954241, 1e-9);
    relative(sb_chi_square_power(10.83, 1, 31.55), .989991848464174, 1e-9);
    relative(sb_chi_square_power(103.44, 63, 87), .990005779445112, 1e-9);
    relative(sb_chi_square_power(10.83, 1, 0), sb_chi_square_tail(10.83, 1), 1e-12);
    assert_true(sb_chi_square_power(100, 5, 4000) > 1 - 1e-12); /* no term underflows */
}

/* The table of methods C 6.3: level .001, power .99. */
static void detectable_variation_is_that_of_the_methods_card(void **state)
{
    (void)state;
    static const struct {
        double cells, n, variation;
    } known[] = { { 2, 3155, .05 },    { 4, 23708, .02 }, { 8, 28364, .02 },  { 16, 5517, .05 },
                  { 16, 137904, .01 }, { 32, 6851, .05 }, { 64, 217496, .01 } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        relative(sb_detectable_variation(known[i].n, known[i].cells - 1, .001, .99),
                 known[i].variation, 2e-4);
    assert_true(sb_detectable_variation(3, 15, .001, .99) == 1);
    assert_true(sb_detectable_variation(0, 15, .001, .99) == 1);
}

static void g_adds_up_over_tables(void **state)
{
    (void)state;
    const int64_t coin[] = { 30, 70 }, die[] = { 10, 20, 30 }, none[] = { 0, 0 }, one[] = { 9 };
    const double half[] = { .5, .5 }, third[] = { 1. / 3, 1. / 3, 1. / 3 }, sure[] = { 1 };
    struct sb_fit fit = { 0 };
    sb_fit_add(&fit, coin, half, 2);
    double g_coin = 2 * (30 * log(.6) + 70 * log(1.4)) / (1 + 3. / 600);
    relative(fit.g, g_coin, 1e-12);
    relative(fit.variation, .2, 1e-12);
    assert_true(fit.df == 1 && fit.n == 100);
    relative(sb_fit_p(&fit), erfc(sqrt(g_coin / 2)), 1e-10);
    relative(sb_fit_variation_upper(&fit, .95), .2 + sqrt(log(20) / 200), 1e-12);
    sb_fit_add(&fit, die, third, 3);
    sb_fit_add(&fit, none, half, 2);
    double g_die = 2 * (10 * log(.5) + 30 * log(1.5)) / (1 + 8. / 720);
    relative(fit.g, g_coin + g_die, 1e-12);
    assert_true(fit.df == 3 && fit.n == 160);
    relative(fit.variation, (100 * .2 + 60 * (1. / 6)) / 160, 1e-12);
    sb_fit_add(&fit, one, sure, 1);
    assert_true(fit.df == 3 && fit.n == 169 && !fit.impossible);
    relative(sb_fit_p(&(struct sb_fit){ 0 }), 1, 0);
    assert_true(sb_fit_variation_upper(&(struct sb_fit){ 0 }, .95) == 1);
}

static void an_impossible_count_refutes_the_law(void **state)
{
    (void)state;
    const int64_t count[] = { 50, 50, 1 };
    const double p[] = { .5, .5, 0 };
    struct sb_fit fit = { 0 };
    sb_fit_add(&fit, count, p, 3);
    assert_true(fit.impossible && sb_fit_p(&fit) == 0);
}

/* Cells of expected count 10 and more, as certify makes them. */
enum { CELLS = 12, DRAWS = 300, TRIALS = 4000 };

static const double law[CELLS] = { .25, .15, .1, .1, .08, .07, .05, .05, .04, .04, .035, .035 };

static struct sb_fit draw_fit(const double *from, uint64_t trial)
{
    int64_t count[CELLS] = { 0 };
    struct sb_rng rng = sb_rng_make(trial, SB_STREAM_DATA);
    for (int i = 0; i < DRAWS; i++) {
        double u = sb_rng_uniform(&rng);
        size_t cell = 0;
        while (cell + 1 < CELLS && u >= from[cell])
            u -= from[cell++];
        count[cell]++;
    }
    struct sb_fit fit = { 0 };
    sb_fit_add(&fit, count, law, CELLS);
    return fit;
}

static void the_g_test_is_wrong_as_often_as_it_says(void **state)
{
    (void)state;
    int below_5 = 0, below_1 = 0, above_95 = 0;
    double variation = 0, bias = 0;
    for (int trial = 0; trial < TRIALS; trial++) {
        struct sb_fit fit = draw_fit(law, (uint64_t)trial);
        double p = sb_fit_p(&fit);
        below_5 += p < .05;
        below_1 += p < .01;
        above_95 += p > .95;
        variation += fit.variation / TRIALS;
        bias += fit.variation_bias / TRIALS;
    }
    /* Standard errors: 14, 6 and 14. */
    assert_in_range(below_5, .05 * TRIALS - 45, .05 * TRIALS + 45);
    assert_in_range(below_1, .01 * TRIALS - 20, .01 * TRIALS + 20);
    assert_in_range(above_95, .05 * TRIALS - 45, .05 * TRIALS + 45);
    relative(bias, variation, .02);
}

static void the_bound_on_the_variation_holds(void **state)
{
    (void)state;
    double other[CELLS], truth = .06;
    for (size_t i = 0; i < CELLS; i++)
        other[i] = law[i] + (i == 0 ? -truth : i == 1 ? truth : 0);
    int missed = 0;
    for (int trial = 0; trial < 1000; trial++) {
        struct sb_fit fit = draw_fit(other, (uint64_t)trial);
        missed += sb_fit_variation_upper(&fit, .95) < truth;
    }
    assert_true(missed <= 50);
}

static void holm_adjusts_in_steps(void **state)
{
    (void)state;
    const double p[] = { .01, .04, .03, NAN, .005 }, want[] = { .03, .06, .06, NAN, .02 };
    double adjusted[5];
    sb_holm(adjusted, p, 5);
    for (size_t i = 0; i < 5; i++)
        assert_true(isnan(want[i]) ? isnan(adjusted[i]) : fabs(adjusted[i] - want[i]) < 1e-15);
    const double ties[] = { .3, .3, .9, .001 }, wanted[] = { .9, .9, .9, .004 };
    sb_holm(adjusted, ties, 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(fabs(adjusted[i] - wanted[i]) < 1e-15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chi_square_tails_have_their_known_values),
        cmocka_unit_test(power_has_its_known_values),
        cmocka_unit_test(detectable_variation_is_that_of_the_methods_card),
        cmocka_unit_test(g_adds_up_over_tables),
        cmocka_unit_test(an_impossible_count_refutes_the_law),
        cmocka_unit_test(the_g_test_is_wrong_as_often_as_it_says),
        cmocka_unit_test(the_bound_on_the_variation_holds),
        cmocka_unit_test(holm_adjusts_in_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* decode/sampling: the transform S against a plain sort, and draws by weight. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/sampling.h"

enum { MOST = 5000 };
static uint32_t scratch[MOST];

static void apply(double *prob, struct sb_sampling s, const float *logits, size_t n)
{
    assert_true(sb_sampling_scratch_bytes(n) <= sizeof scratch);
    sb_sampling_apply(prob, &s, logits, n, scratch);
}

/* The same law by definition: sort all, cut, exponentiate with libm. */
static const float *sort_by;
static int likelier(const void *a, const void *b)
{
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    if (sort_by[i] != sort_by[j])
        return sort_by[i] > sort_by[j] ? -1 : 1;
    return (i > j) - (i < j);
}

static double weight_of(double z)
{
    return z < -700 ? 0 : exp(z);
}

static void apply_by_sorting(double *prob, struct sb_sampling s, const float *logits, size_t n)
{
    static size_t order[MOST];
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    sort_by = logits;
    qsort(order, n, sizeof *order, likelier);
    size_t k = s.top_k > 0 && s.top_k < n ? s.top_k : n;
    double mass = 0, part = 0;
    for (size_t i = 0; i < k; i++)
        mass += weight_of(((double)logits[order[i]] - logits[order[0]]) / s.temperature);
    size_t kept = s.top_p > 0 && s.top_p < 1 ? 0 : k;
    if (kept)
        part = mass;
    while (kept < k && part < s.top_p * mass)
        part += weight_of(((double)logits[order[kept++]] - logits[order[0]]) / s.temperature);
    memset(prob, 0, n * sizeof *prob);
    for (size_t i = 0; i < kept; i++)
        prob[order[i]] =
            weight_of(((double)logits[order[i]] - logits[order[0]]) / s.temperature) / part;
}

static double sum_of(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return sum;
}

static void s_equals_its_definition(void **state)
{
    (void)state;
    static float logits[MOST];
    static double got[MOST], want[MOST];
    static const struct sb_sampling settings[] = {
        { .temperature = 1 },
        { .temperature = .8, .top_k = 1 },
        { .temperature = .8, .top_k = 40 },
        { .temperature = 1.7, .top_p = .9 },
        { .temperature = .6, .top_k = 50, .top_p = .95 },
        { .temperature = .05, .top_p = .3 },
        { .temperature = 1, .top_k = MOST + 1, .top_p = 1 },
    };
    struct sb_rng rng = sb_rng_make(3, SB_STREAM_INIT);
    for (size_t n = 1; n <= MOST; n = n < 40 ? n + 1 : n * 3) {
        for (size_t c = 0; c < sizeof settings / sizeof *settings; c++) {
            for (size_t i = 0; i < n; i++)
                logits[i] = (float)(4 * sb_rng_normal(&rng));
            apply(got, settings[c], logits, n);
            apply_by_sorting(want, settings[c], logits, n);
            assert_true(fabs(sum_of(got, n) - 1) <= 1e-12);
            for (size_t i = 0; i < n; i++) {
                assert_true((got[i] == 0) == (want[i] == 0));
                assert_true(fabs(got[i] - want[i]) < 1e-13);
            }
        }
    }
}

static void same_as_sorting(struct sb_sampling s, const float *logits, size_t n)
{
    static double got[MOST], want[MOST];
    apply(got, s, logits, n);
    apply_by_sorting(want, s, logits, n);
    assert_true(fabs(sum_of(got, n) - 1) <= 1e-12);
    for (size_t i = 0; i < n; i++)
        if ((got[i] == 0) != (want[i] == 0) || !(fabs(got[i] - want[i]) < 1e-13))
            fail_msg("T=%g k=%zu p=%g n=%zu token %zu, logit %g: %.17g, not %.17g", s.temperature,
                     s.top_k, s.top_p, n, i, (double)logits[i], got[i], want[i]);
}

/* Logits of few values: borders fall among equals. */
static void cuts_among_many_equals_are_those_of_sorting(void **state)
{
    (void)state;
    static float logits[MOST];
    static const size_t sizes[] = { 2, 3, 10, 100, 256, 700, MOST };
    struct sb_rng rng = sb_rng_make(13, SB_STREAM_INIT);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int c = 0; c < 60; c++) {
            size_t n = sizes[s];
            double step = c % 3 == 0 ? 4 : c % 3 == 1 ? .5 : 1e-3;
            for (size_t i = 0; i < n; i++)
                logits[i] = (float)(rint(2 * sb_rng_normal(&rng)) * step);
            if (c % 5 == 0)
                for (size_t i = 0; i < n; i += 3)
                    logits[i] = -INFINITY;
            if (c % 7 == 0)
                for (size_t i = 0; i < n; i++)
                    logits[i] = i % 4 ? -0.f : 0.f;
            logits[n / 2] = 0;
            same_as_sorting(
                (struct sb_sampling){ .temperature = .9, .top_k = 1 + sb_rng_below(&rng, n) },
                logits, n);
            same_as_sorting((struct sb_sampling){ .temperature = .9, .top_p = .0123 + c * .0161 },
                            logits, n);
            same_as_sorting((struct sb_sampling){ .temperature = 2,
                                                  .top_k = 1 + sb_rng_below(&rng, n),
                                                  .top_p = .0123 + c * .0161 },
                            logits, n);
        }
}

/* Flat rows, steep ones, and numbers of very different size, at every rank. */
static void cuts_of_any_shape_are_those_of_sorting(void **state)
{
    (void)state;
    static float logits[MOST];
    struct sb_rng rng = sb_rng_make(14, SB_STREAM_INIT);
    for (int shape = 0; shape < 6; shape++) {
        for (size_t i = 0; i < MOST; i++) {
            double z = sb_rng_normal(&rng);
            logits[i] = (float)(shape == 0   ? 1e-4 * z
                                : shape == 1 ? 100 + z
                                : shape == 2 ? 30 * z
                                : shape == 3 ? -exp(8 * z)
                                : shape == 4 ? 1e30 * z
                                             : 1e-38 * z);
        }
        for (size_t k = 1; k < MOST; k += 1 + k / 3)
            same_as_sorting((struct sb_sampling){ .temperature = 1, .top_k = k }, logits, MOST);
        for (double p = .01; p < 1; p += .07)
            same_as_sorting((struct sb_sampling){ .temperature = 1, .top_p = p }, logits, MOST);
    }
}

static void a_top_p_next_to_0_or_1_keeps_one_token_or_all(void **state)
{
    (void)state;
    static float logits[MOST];
    static double prob[MOST];
    for (size_t i = 0; i < MOST; i++)
        logits[i] = (float)(i * 7919 % MOST) * 1e-3f;
    apply(prob, (struct sb_sampling){ .temperature = 1, .top_p = 5e-324 }, logits, MOST);
    for (size_t i = 0; i < MOST; i++)
        assert_true(prob[i] == (i * 7919 % MOST == MOST - 1));
    apply(prob, (struct sb_sampling){ .temperature = 1, .top_p = 1 - 0x1p-53 }, logits, MOST);
    for (size_t i = 0; i < MOST; i++)
        assert_true(prob[i] > 0);
}

static void without_cuts_no_scratch_is_needed(void **state)
{
    (void)state;
    const float logits[] = { 1, 1 };
    double prob[2];
    sb_sampling_apply(prob, &(struct sb_sampling){ .temperature = 1, .top_k = 2, .top_p = 1 },
                      logits, 2, NULL);
    assert_true(prob[0] == .5 && prob[1] == .5);
    sb_sampling_apply(prob, &(struct sb_sampling){ .top_k = 1, .top_p = .5 }, logits, 2, NULL);
    assert_true(prob[0] == 1 && prob[1] == 0);
}

static void ties_at_the_border_go_to_the_smaller_id(void **state)
{
    (void)state;
    const float logits[] = { 1, 2, 1, 2, 1 };
    double prob[5];
    apply(prob, (struct sb_sampling){ .temperature = 1, .top_k = 3 }, logits, 5);
    assert_true(prob[0] > 0 && prob[1] > 0 && prob[3] > 0 && prob[2] == 0 && prob[4] == 0);
    apply(prob, (struct sb_sampling){ .temperature = 1, .top_k = 1 }, logits, 5);
    assert_true(prob[1] == 1);
    /* Four equal ones: top_p = .5 is reached by exactly two. */
    const float equal[] = { 0, 0, 0, 0 };
    apply(prob, (struct sb_sampling){ .temperature = 1, .top_p = .5 }, equal, 4);
    assert_true(prob[0] == .5 && prob[1] == .5 && prob[2] == 0 && prob[3] == 0);
}

static void temperature_zero_is_one_hot_at_the_smallest_arg_max(void **state)
{
    (void)state;
    const float logits[] = { 1, 5, 5, -INFINITY };
    const double want[] = { 0, 1, 0, 0 };
    double prob[4];
    apply(prob, (struct sb_sampling){ .top_p = .5 }, logits, 4);
    assert_memory_equal(prob, want, sizeof want);
}

static void a_tiny_temperature_and_far_logits_stay_finite(void **state)
{
    (void)state;
    const float logits[] = { -3e38f, 3e38f, 0, -INFINITY };
    double prob[4];
    apply(prob, (struct sb_sampling){ .temperature = 1e-300 }, logits, 4);
    assert_true(prob[1] == 1 && prob[0] == 0 && prob[2] == 0 && prob[3] == 0);
    apply(prob, (struct sb_sampling){ .temperature = 1e300 }, logits, 4);
    assert_true(fabs(prob[0] - 1. / 3) < 1e-12 && prob[3] == 0);
}

static void logits_that_are_no_numbers_make_a_row_of_nan(void **state)
{
    (void)state;
    static const float cases[][3] = { { 0, NAN, 1 },
                                      { 0, INFINITY, 1 },
                                      { -INFINITY, -INFINITY, -INFINITY } };
    for (size_t c = 0; c < 3; c++) {
        for (int t = 0; t < 2; t++) {
            double prob[3];
            apply(prob, (struct sb_sampling){ .temperature = t, .top_k = 2 }, cases[c], 3);
            assert_true(isnan(prob[0]) && isnan(prob[1]) && isnan(prob[2]));
        }
    }
}

static void nothing_is_allocated(void **state)
{
    (void)state;
    float logits[100];
    double prob[100];
    for (int i = 0; i < 100; i++)
        logits[i] = (float)i / 10;
    size_t before = sb_alloc_count();
    apply(prob, (struct sb_sampling){ .temperature = 1, .top_k = 9, .top_p = .5 }, logits, 100);
    assert_int_equal(sb_alloc_count(), before);
}

static void a_pick_follows_the_weights_and_never_takes_weight_zero(void **state)
{
    (void)state;
    const double weight[] = { 0, 1, 0, 2, 1, 0 };
    assert_int_equal(sb_pick_by(0, weight, 6), 1);
    assert_int_equal(sb_pick_by(.2499, weight, 6), 1);
    assert_int_equal(sb_pick_by(.25, weight, 6), 3);
    assert_int_equal(sb_pick_by(.7499, weight, 6), 3);
    assert_int_equal(sb_pick_by(.75, weight, 6), 4);
    assert_int_equal(sb_pick_by(0x1.fffffffffffffp-1, weight, 6), 4);
    const double tiny[] = { 0, 5e-324, 0 }; /* u * total rounds to the total */
    assert_int_equal(sb_pick_by(0x1.fffffffffffffp-1, tiny, 3), 1);
    const double one[] = { 1 };
    assert_int_equal(sb_pick_by(.5, one, 1), 0);
}

static void dice_depend_on_position_alone(void **state)
{
    (void)state;
    double weight[64];
    for (size_t i = 0; i < 64; i++)
        weight[i] = 1;
    struct sb_rng_dice a = sb_rng_dice_make(9, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE), b = a;
    struct sb_dice at_5 = sb_rng_dice_at(&a, 5), at_2 = sb_rng_dice_at(&b, 2);
    for (uint64_t offset = 3; offset < 20; offset++) {
        sb_dice_seek(&at_2, offset);
        at_2.flip(at_2.self, .5);
        sb_dice_seek(&at_5, offset - 3);
        assert_int_equal(at_5.pick(at_5.self, weight, 64), at_2.pick(at_2.self, weight, 64));
    }
}

static void a_new_key_changes_all_numbers_but_the_shared_noise(void **state)
{
    (void)state;
    double weight[64];
    for (size_t i = 0; i < 64; i++)
        weight[i] = 1;
    struct sb_rng_dice a = sb_rng_dice_make(9, SB_STREAM_DRAFT, SB_STREAM_DRAFT), b = a;
    sb_rng_dice_rekey(&b, 10);
    int same = 0;
    for (uint64_t position = 0; position < 100; position++) {
        struct sb_dice old = sb_rng_dice_at(&a, position), new = sb_rng_dice_at(&b, position);
        same += old.pick(old.self, weight, 64) == new.pick(new.self, weight, 64);
        same += old.uniform(old.self) == new.uniform(new.self);
        assert_int_equal(old.race(old.self, weight, 64), new.race(new.self, weight, 64));
    }
    assert_true(same < 10);
}

static void a_race_has_its_noise_by_position_alone(void **state)
{
    (void)state;
    double w[64], scaled[64];
    for (size_t i = 0; i < 64; i++)
        w[i] = 1 + (double)(i % 5), scaled[i] = 3 * w[i];
    struct sb_rng_dice a = sb_rng_dice_make(9, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
    struct sb_rng_dice b =
        sb_rng_dice_make(9, SB_STREAM_DRAFT, SB_STREAM_DRAFT); /* the drafter's */
    struct sb_dice at_5 = sb_rng_dice_at(&a, 5), at_2 = sb_rng_dice_at(&b, 2);
    int moved = 0;
    size_t before = 64;
    for (uint64_t offset = 3; offset < 60; offset++) {
        sb_dice_seek(&at_2, offset);
        at_2.pick(at_2.self, w, 64);
        sb_dice_seek(&at_5, offset - 3);
        size_t winner = at_5.race(at_5.self, w, 64);
        assert_int_equal(at_5.race(at_5.self, w, 64), winner);
        assert_int_equal(at_2.race(at_2.self, scaled, 64), winner);
        moved += winner != before;
        before = winner;
    }
    assert_true(moved > 45);
}

static void a_flip_is_strict(void **state)
{
    (void)state;
    struct sb_rng_dice rng = sb_rng_dice_make(1, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    struct sb_dice dice = sb_rng_dice_at(&rng, 0);
    int n = 0;
    for (int i = 0; i < 4000; i++) {
        assert_false(dice.flip(dice.self, 0));
        assert_true(dice.flip(dice.self, 1));
        n += dice.flip(dice.self, .25);
    }
    assert_true(abs(n - 1000) < 140); /* 5 standard errors */
}

static void flips_and_picks_of_one_stream_are_different_draws(void **state)
{
    (void)state;
    const double half[] = { 1, 1 };
    struct sb_rng_dice rng = sb_rng_dice_make(1, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    int equal = 0;
    for (uint64_t position = 0; position < 400; position++) {
        struct sb_dice dice = sb_rng_dice_at(&rng, position);
        equal += dice.flip(dice.self, .5) == (dice.pick(dice.self, half, 2) == 0);
    }
    assert_true(abs(equal - 200) < 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(s_equals_its_definition),
        cmocka_unit_test(cuts_among_many_equals_are_those_of_sorting),
        cmocka_unit_test(cuts_of_any_shape_are_those_of_sorting),
        cmocka_unit_test(a_top_p_next_to_0_or_1_keeps_one_token_or_all),
        cmocka_unit_test(without_cuts_no_scratch_is_needed),
        cmocka_unit_test(ties_at_the_border_go_to_the_smaller_id),
        cmocka_unit_test(temperature_zero_is_one_hot_at_the_smallest_arg_max),
        cmocka_unit_test(a_tiny_temperature_and_far_logits_stay_finite),
        cmocka_unit_test(logits_that_are_no_numbers_make_a_row_of_nan),
        cmocka_unit_test(nothing_is_allocated),
        cmocka_unit_test(a_pick_follows_the_weights_and_never_takes_weight_zero),
        cmocka_unit_test(dice_depend_on_position_alone),
        cmocka_unit_test(a_new_key_changes_all_numbers_but_the_shared_noise),
        cmocka_unit_test(a_race_has_its_noise_by_position_alone),
        cmocka_unit_test(a_flip_is_strict),
        cmocka_unit_test(flips_and_picks_of_one_stream_are_different_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* kernels/prob.h: values against long double and plain loops, borders, and the race. That variants
 * agree is tests/property/test_prob_invariance.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/prob.h"

enum { MOST = 2000 };

static void fill_logits(float *x, size_t n, double deviation, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(deviation * sb_rng_normal(&rng));
}

static void fill_weights(double *w, size_t n, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++)
        w[i] = sb_rng_uniform(&rng) < .3 ? 0 : sb_rng_uniform(&rng);
}

static void close_to(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("got %.17g, expected %.17g within %g", got, want, tolerance);
}

/* ---- logits ---- */

static void the_largest_logit_and_those_of_groups(void **state)
{
    (void)state;
    static float x[MOST], group[MOST];
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111) {
        fill_logits(x, n, 3, n);
        float want = -INFINITY;
        for (size_t i = 0; i < n; i++)
            want = fmaxf(want, x[i]);
        assert_true(sb_logits_max(x, n, group) == want);
        assert_int_equal(sb_logits_groups(n), (n + 255) / 256 * 16);
        for (size_t g = 0; g < sb_logits_groups(n); g++) {
            float largest = -INFINITY;
            for (size_t i = g / 16 * 256 + g % 16; i < n && i < (g / 16 + 1) * 256; i += 16)
                largest = fmaxf(largest, x[i]);
            assert_true(group[g] == largest);
        }
    }
}

static void one_nan_anywhere_is_seen(void **state)
{
    (void)state;
    float x[600];
    for (size_t n = 1; n < 600; n += n < 40 ? 1 : 37)
        for (size_t at = 0; at < n; at++) {
            for (size_t i = 0; i < n; i++)
                x[i] = i % 2 ? -INFINITY : (float)i;
            x[at] = at % 3 ? NAN : -NAN;
            assert_true(isnan(sb_logits_max(x, n, NULL)));
            assert_int_equal(sb_logits_argmax(x, n), n);
            x[at] = INFINITY;
            assert_true(sb_logits_max(x, n, NULL) == INFINITY);
            assert_int_equal(sb_logits_argmax(x, n), at);
        }
}

static void logits_are_counted_and_taken_from_a_border_on(void **state)
{
    (void)state;
    static float x[MOST], out[MOST], place[MOST];
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111) {
        fill_logits(x, n, 1, n + 1);
        for (float least = -2; least < 4; least++) {
            size_t count = 0;
            if (n > 3)
                x[n / 2] = least; /* the border itself belongs to it */
            for (size_t i = 0; i < n; i++)
                if (x[i] >= least)
                    place[count++] = x[i];
            assert_int_equal(sb_logits_count(x, n, least), count);
            assert_int_equal(sb_logits_take(out, x, n, least), count);
            assert_memory_equal(out, place, count * sizeof *out);
            memcpy(out, x, n * sizeof *x);
            assert_int_equal(sb_logits_take(out, out, n, least), count);
            assert_memory_equal(out, place, count * sizeof *out);
        }
        assert_int_equal(sb_logits_count(x, n, -INFINITY), n);
    }
}

/* ---- from logits to weights ---- */

static void weights_are_exponentials_within_the_stated_error(void **state)
{
    (void)state;
    static float x[MOST];
    static double got[MOST];
    static const double temperatures[] = { 1, .8, .1, 3, 1e-3, 1e4 };
    for (size_t t = 0; t < 6; t++)
        for (uint64_t seed = 0; seed < 40; seed++) {
            double temperature = temperatures[t];
            fill_logits(x, MOST, (seed % 4 + .1) * 50 * temperature, seed);
            float max = sb_logits_max(x, MOST, NULL);
            struct sb_temper temper = sb_temper_make(max, temperature);
            long double sum = 0;
            double total = sb_prob_exp(got, x, MOST, &temper);
            for (size_t i = 0; i < MOST; i++) {
                long double z = ((long double)x[i] - max) / (long double)temperature;
                long double want = expl(z), error = fabsl(got[i] - want) / want;
                sum += got[i];
                if (z < -701)
                    assert_true(got[i] == 0);
                else if (z > -699 && !(error <= (53 + 3 * fabsl(z)) * 0x1p-53L))
                    fail_msg("exp(%Lg): %.17g, relative error %Lg", z, got[i], error);
                if (x[i] == max)
                    assert_true(got[i] == 1);
            }
            close_to(total, (double)sum, 1e-13 * total);
            assert_true(sb_prob_exp(NULL, x, MOST, &temper) == total);
        }
}

static void extreme_temperatures_and_logits_give_numbers(void **state)
{
    (void)state;
    const float x[] = { 3e38f, -3e38f, 0, -INFINITY, 3e38f };
    static const double temperatures[] = {
        5e-324, 1e-300, 1e-30, 1, 1e30, 1e300, DBL_MAX, INFINITY
    };
    for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
        double w[5];
        struct sb_temper temper = sb_temper_make(3e38f, temperatures[t]);
        sb_prob_exp(w, x, 5, &temper);
        assert_true(w[0] == 1 && w[4] == 1 && w[3] == 0);
        assert_true(w[1] >= 0 && w[1] <= w[2] && w[2] <= 1);
        if (temperatures[t] <= 1)
            assert_true(w[2] == 0);
        if (temperatures[t] >= 1e300)
            assert_true(w[1] == 1);
    }
    struct sb_temper temper = sb_temper_make(0, 1e-300); /* the least difference is infinite here */
    const float near[] = { 0, -1e-45f, -0.f };
    double w[3];
    sb_prob_exp(w, near, 3, &temper);
    assert_true(w[0] == 1 && w[1] == 0 && w[2] == 1);
}

static void the_moment_gives_the_entropy_of_the_weights(void **state)
{
    (void)state;
    static float x[MOST];
    for (size_t n = 1; n < MOST; n += n < 70 ? 1 : 111) {
        fill_logits(x, n, 4, n);
        if (n > 2)
            x[1] = -INFINITY;
        float max = sb_logits_max(x, n, NULL);
        struct sb_temper temper = sb_temper_make(max, 1.7);
        double dot, sum = sb_prob_moment(x, n, &temper, &dot);
        long double total = 0, entropy = 0;
        for (size_t i = 0; i < n; i++)
            total += expl(((long double)x[i] - max) / 1.7L);
        for (size_t i = 0; i < n; i++) {
            long double p = expl(((long double)x[i] - max) / 1.7L) / total;
            entropy -= p > 0 ? p * logl(p) : 0;
        }
        assert_true(sum == sb_prob_exp(NULL, x, n, &temper));
        close_to(sb_log(sum) - dot / sum, (double)entropy, 1e-13);
    }
}

/* ---- rows ---- */

static void a_row_is_checked_for_signs_and_nan(void **state)
{
    (void)state;
    double x[600];
    for (size_t n = 1; n < 600; n += n < 40 ? 1 : 37)
        for (size_t at = 0; at < n; at++) {
            for (size_t i = 0; i < n; i++)
                x[i] = .25;
            x[at] = -0.;
            assert_true(sb_prob_check(x, n) == .25 * (double)(n - 1));
            x[at] = INFINITY;
            assert_true(sb_prob_check(x, n) == INFINITY);
            x[at] = -5e-324;
            assert_true(isnan(sb_prob_check(x, n)));
            x[at] = NAN;
            assert_true(isnan(sb_prob_check(x, n)));
        }
    assert_true(sb_prob_check(x, 0) == 0);
}

static void residuals_and_overlaps_follow_their_definitions(void **state)
{
    (void)state;
    static double p[MOST], q[MOST], got[MOST];
    static const double factors[][2] = { { 1, 1 }, { .5, 2 }, { 3, .7 }, { 1, 0 }, { 0, 1 } };
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111)
        for (size_t f = 0; f < 5; f++) {
            double a = factors[f][0], b = factors[f][1], rest = 0, overlap = 0;
            fill_weights(p, n, 2 * n);
            fill_weights(q, n, 2 * n + 1);
            double sum = sb_prob_residual(got, a, p, b, q, n);
            for (size_t i = 0; i < n; i++) {
                double d = a * p[i] - b * q[i];
                assert_true(got[i] == (d > 0 ? d : 0) && !signbit(got[i]));
                rest += got[i];
                overlap += fmin(a * p[i], b * q[i]);
            }
            close_to(sum, rest, 1e-13 * (1 + rest));
            close_to(sb_prob_overlap(a, p, b, q, n), overlap, 1e-13 * (1 + overlap));
            assert_true(sb_prob_residual(NULL, a, p, b, q, n) == sum);
            assert_true(sb_prob_residual(p, a, p, b, q, n) == sum);
            assert_memory_equal(p, got, n * sizeof *p);
            fill_weights(p, n, 2 * n);
            assert_true(sb_prob_residual(q, a, p, b, q, n) == sum);
            assert_memory_equal(q, got, n * sizeof *q);
        }
}

static void blends_and_selections_follow_their_definitions(void **state)
{
    (void)state;
    static double p[MOST], q[MOST], got[MOST], want[MOST];
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111) {
        double sum = 0;
        fill_weights(p, n, 2 * n);
        fill_weights(q, n, 2 * n + 1);
        for (size_t i = 0; i < n; i++)
            want[i] = .3 * p[i] + -1.7 * q[i];
        sb_prob_blend(got, .3, p, -1.7, q, n);
        assert_memory_equal(got, want, n * sizeof *got);
        sb_prob_blend(q, .3, p, -1.7, q, n);
        assert_memory_equal(q, want, n * sizeof *q);
        if (n > 5)
            q[5] = .25, q[4] = NAN; /* neither is below */
        for (size_t i = 0; i < n; i++) {
            want[i] = q[i] < .25 ? p[i] : 0;
            sum += want[i];
        }
        close_to(sb_prob_below(got, p, q, .25, n), sum, 1e-13 * (1 + sum));
        assert_memory_equal(got, want, n * sizeof *got);
        sb_prob_below(q, p, q, .25, n);
        assert_memory_equal(q, want, n * sizeof *q);
    }
}

static void a_one_hot_residual_is_that_of_the_row(void **state)
{
    (void)state;
    static double p[MOST], q[MOST], got[MOST], want[MOST];
    for (size_t n = 1; n < 600; n += n < 40 ? 1 : 61) {
        fill_weights(p, n, n);
        for (size_t t = 0; t < n; t += 1 + n / 9) {
            for (double b = .01; b < 3; b *= 9) {
                memset(q, 0, sizeof q);
                q[t] = 1;
                double sum = sb_prob_residual(want, .8, p, b, q, n);
                close_to(sb_prob_residual_onehot(got, .8, p, b, t, n), sum, 1e-12);
                assert_memory_equal(got, want, n * sizeof *got);
                close_to(sb_prob_residual_onehot(NULL, .8, p, b, t, n), sum, 1e-12);
            }
        }
    }
}

static void scaling_multiplies_each_element_once(void **state)
{
    (void)state;
    static double x[MOST], got[MOST];
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111) {
        fill_weights(x, n, n);
        sb_prob_scale(got, x, n, 1 / 3.);
        for (size_t i = 0; i < n; i++)
            assert_true(got[i] == x[i] * (1 / 3.));
        sb_prob_scale(x, x, n, 1 / 3.);
        assert_memory_equal(got, x, n * sizeof *x);
    }
}

static void the_mass_from_a_border_on(void **state)
{
    (void)state;
    static double w[MOST];
    static float x[MOST];
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111) {
        fill_weights(w, n, n);
        fill_logits(x, n, 1, n);
        for (float least = -1; least < 2; least += .5f) {
            double want = 0;
            size_t count = 0, got_count;
            for (size_t i = 0; i < n; i++)
                if (x[i] >= least) {
                    want += w[i];
                    count++;
                }
            close_to(sb_prob_mass(w, x, n, least, &got_count), want, 1e-12);
            assert_int_equal(got_count, count);
        }
        size_t all;
        assert_true(sb_prob_mass(w, x, n, -INFINITY, &all) == sb_prob_sum(w, n));
        assert_int_equal(all, n);
    }
}

static void pairs_are_taken_and_spread_to_their_places_again(void **state)
{
    (void)state;
    static double w[MOST], got[MOST];
    static float x[MOST], kept[MOST];
    for (size_t n = 0; n < MOST; n += n < 70 ? 1 : 111)
        for (int least = -3; least < 5; least++) {
            fill_logits(x, n, 2, n + 3);
            size_t equal = 0;
            for (size_t i = 0; i < n; i++) {
                x[i] = rintf(x[i]); /* many equals */
                w[i] = 1 + (double)i;
                equal += x[i] == (float)least;
            }
            memcpy(kept, x, sizeof x);
            memcpy(got, w, sizeof w);
            size_t m = sb_prob_take(got, kept, n, (float)least);
            for (size_t i = 0, at = 0; i < n; i++)
                if (x[i] >= (float)least) {
                    assert_true(got[at] == w[i] && kept[at] == x[i]);
                    at++;
                }
            for (size_t ties = 0; ties <= equal + 1; ties += 1 + equal / 3) {
                size_t left = 0, seen = 0;
                for (size_t i = 0; i < n; i++)
                    if (x[i] > (float)least || (x[i] == (float)least && seen++ < ties))
                        got[left++] = w[i];
                assert_true(left <= m);
                sb_prob_spread(got, left, x, n, (float)least, ties);
                seen = 0;
                for (size_t i = 0; i < n; i++) {
                    bool here = x[i] > (float)least || (x[i] == (float)least && seen++ < ties);
                    assert_true(got[i] == (here ? w[i] : 0));
                }
            }
        }
}

static void entropies_of_known_rows(void **state)
{
    (void)state;
    static double p[MOST];
    for (size_t n = 1; n < MOST; n += n < 70 ? 1 : 111) {
        long double want = 0;
        for (size_t i = 0; i < n; i++)
            p[i] = 1. / (double)n;
        close_to(sb_prob_entropy(p, n), log((double)n), 1e-13);
        memset(p, 0, sizeof p);
        p[n / 3] = 1;
        assert_true(sb_prob_entropy(p, n) == 0);
        p[n / 3] = .5;
        assert_true(sb_prob_entropy(p, n) == -.5 * sb_log(.5));
        fill_weights(p, n, n);
        for (size_t i = 0; i < n; i++) {
            p[i] = i % 7 == 3 ? pow(p[i], 100) : p[i];
            want -= p[i] > 0 ? (long double)p[i] * logl((long double)p[i]) : 0;
        }
        close_to(sb_prob_entropy(p, n), (double)want, 1e-13 * (1 + (double)want));
    }
    /* Single logarithms, near 1 and far from it; what is subnormal counts as 0. */
    struct sb_rng rng = sb_rng_make(5, SB_STREAM_DATA);
    for (int i = 0; i < 20000; i++) {
        double x =
            i < 5000 ? 1 - sb_rng_uniform(&rng) * 1e-3 : exp(-700 * pow(sb_rng_uniform(&rng), 3));
        double want = -sb_log(x);
        close_to(sb_prob_entropy(&x, 1) / x, want, 0x1p-51 * (i < 5000 ? want + 1e-17 : 1 + want));
    }
    double tiny = 0x1p-1023;
    assert_true(sb_prob_entropy(&tiny, 1) == 0);
}

static void the_arg_max_is_the_smallest_of_the_largest(void **state)
{
    (void)state;
    double x[100];
    for (size_t n = 1; n < 100; n++)
        for (size_t at = 0; at < n; at++) {
            for (size_t i = 0; i < n; i++)
                x[i] = i > at ? (i % 3 ? 2 : -1) : (i % 2 ? 1 : NAN);
            x[at] = 2;
            assert_int_equal(sb_prob_argmax(x, n), at);
        }
    for (size_t i = 0; i < 100; i++)
        x[i] = NAN;
    assert_int_equal(sb_prob_argmax(x, 100), 0);
}

static void the_next_index_from_a_border_on(void **state)
{
    (void)state;
    double x[200];
    struct sb_rng rng = sb_rng_make(6, SB_STREAM_DATA);
    for (size_t n = 1; n < 200; n += 7)
        for (size_t from = 0; from <= n + 1; from++) {
            for (size_t i = 0; i < n; i++)
                x[i] = sb_rng_uniform(&rng) < .9 ? .5 : i % 3 ? .75 : NAN;
            size_t want = from < n ? from : n;
            while (want < n && !(x[want] >= .75))
                want++;
            assert_int_equal(sb_prob_next(x, from, n, .75), want);
        }
}

/* ---- picks ---- */

static void equal_weights_are_picked_in_equal_parts(void **state)
{
    (void)state;
    static const size_t sizes[] = { 1, 2, 255, 256, 257, 1000, 32000, 300000 }; /* > 1,024 chunks */
    static double w[300000];
    for (size_t i = 0; i < 300000; i++)
        w[i] = 1;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        size_t n = sizes[s];
        for (size_t i = 0; i < n; i += 1 + n / 500) {
            /* i + 1/2 is exact, and so is each partial sum */
            assert_int_equal(sb_prob_pick(((double)i + .5) / (double)n, w, n), i);
        }
        assert_int_equal(sb_prob_pick(0, w, n), 0);
        assert_int_equal(sb_prob_pick(0x1.fffffffffffffp-1, w, n), n - 1);
    }
}

/* u * sum on a border between two indices, or two chunks, belongs to the upper one. */
static void a_pick_on_a_border_is_the_upper_index(void **state)
{
    (void)state;
    double w[1024];
    for (size_t i = 0; i < 1024; i++)
        w[i] = 3;
    for (size_t i = 0; i < 1024; i++)
        assert_int_equal(sb_prob_pick((double)i / 1024, w, 1024), i);
}

static void weight_zero_is_never_picked(void **state)
{
    (void)state;
    static double w[MOST];
    struct sb_rng rng = sb_rng_make(8, SB_STREAM_DATA);
    for (int round = 0; round < 300; round++) {
        size_t n = 1 + sb_rng_below(&rng, MOST), last = n;
        double keep = round % 3 == 0 ? .003 : .5;
        for (size_t i = 0; i < n; i++)
            w[i] = sb_rng_uniform(&rng) < keep ? pow(sb_rng_uniform(&rng), 20) : 0;
        w[sb_rng_below(&rng, n)] = .1;
        while (!(w[last - 1] > 0))
            last--;
        for (int i = 0; i < 50; i++)
            assert_true(w[sb_prob_pick(sb_rng_uniform(&rng), w, n)] > 0);
        assert_true(w[sb_prob_pick(0, w, n)] > 0);
        assert_true(sb_prob_pick(0x1.fffffffffffffp-1, w, n) < last);
    }
    memset(w, 0, sizeof w);
    assert_int_equal(sb_prob_pick(.5, w, MOST), 0);
    w[1234] = 5e-324; /* u * sum rounds to the sum */
    assert_int_equal(sb_prob_pick(0x1.fffffffffffffp-1, w, MOST), 1234);
    assert_int_equal(sb_prob_pick(0, w, MOST), 1234);
}

static void picks_move_up_with_u(void **state)
{
    (void)state;
    static double w[MOST];
    fill_weights(w, MOST, 3);
    size_t before = 0;
    double sum = sb_prob_sum(w, MOST), part = 0;
    for (int i = 0; i < 100000; i++) {
        double u = i * 1e-5;
        size_t at = sb_prob_pick(u, w, MOST);
        assert_true(at >= before);
        for (; before < at; before++)
            part += w[before];
        assert_true(part <= u * sum + 1e-9 && u * sum < part + w[at] + 1e-9);
    }
}

/* ---- the race ---- */

/* The mapping that prob.h states, word by word. */
static uint64_t noise_of(const struct sb_rng *noise, uint32_t token)
{
    const uint32_t key[2] = { (uint32_t)noise->key, (uint32_t)(noise->key >> 32) };
    uint32_t counter[4] = { token / 64 * 8 + token % 8, noise->stream, (uint32_t)noise->position,
                            (uint32_t)(noise->position >> 32) };
    uint32_t out[4];
    sb_philox4x32_10(out, counter, key);
    uint64_t upper = out[token / 8 % 4];
    upper = token / 32 % 2 ? upper >> 16 : upper & 0xffff;
    counter[0] = 0x80000000u + token;
    sb_philox4x32_10(out, counter, key);
    return upper << 48 | (uint64_t)out[1] << 16 | out[0] >> 16;
}

static void the_noise_of_a_token_is_the_one_stated(void **state)
{
    (void)state;
    struct sb_rng noise = sb_rng_make(0x123456789abcdef, SB_STREAM_NOISE);
    for (uint32_t token = 0; token < 300000; token += token < 200 ? 1 : 997) {
        noise.position = (uint64_t)token << 30 | 5;
        long double x = ((long double)noise_of(&noise, token) + .5L) * 0x1p-64L;
        double want = (double)-log1pl(-x), got = sb_race_time(&noise, token);
        close_to(got, want, 4 * 0x1p-52 * want);
    }
}

/* Plain arg min of time / weight. */
static size_t slowly(const struct sb_rng *noise, const double *w, size_t n)
{
    size_t winner = 0;
    double best = INFINITY;
    for (size_t t = 0; t < n; t++) {
        if (!(w[t] > 0))
            continue;
        double time = sb_race_time(noise, t) / w[t];
        if (time < best) {
            best = time;
            winner = t;
        }
    }
    return winner;
}

static void the_race_has_the_winner_of_the_plain_loop(void **state)
{
    (void)state;
    static double w[MOST];
    struct sb_rng noise = sb_rng_make(77, SB_STREAM_NOISE), rng = sb_rng_make(1, SB_STREAM_DATA);
    for (int round = 0; round < 600; round++) {
        size_t n = 1 + sb_rng_below(&rng, round % 2 ? 200 : MOST);
        static const double powers[] = { 0, 1, 8, 60, 300 };
        double power = powers[round % 5];
        for (size_t t = 0; t < n; t++)
            w[t] = round % 3 && sb_rng_uniform(&rng) < .6 ? 0 : pow(sb_rng_uniform(&rng), power);
        noise.position = (uint64_t)round;
        assert_int_equal(sb_race(&noise, w, n), slowly(&noise, w, n));
        if (round % 7 == 0) { /* scaling changes no order, and no bound may overflow */
            sb_prob_scale(w, w, n, round % 2 ? 0x1p900 : 0x1p-900);
            assert_int_equal(sb_race(&noise, w, n), slowly(&noise, w, n));
        }
    }
    memset(w, 0, sizeof w);
    assert_int_equal(sb_race(&noise, w, MOST), 0);
    w[1999] = 5e-324;
    assert_int_equal(sb_race(&noise, w, MOST), 1999);
    assert_int_equal(sb_race(&noise, w, 0), 0);
}

static void noise_depends_neither_on_the_width_nor_on_other_weights(void **state)
{
    (void)state;
    static double w[MOST], only[MOST];
    struct sb_rng noise = sb_rng_make(78, SB_STREAM_NOISE);
    for (size_t round = 0; round < 100; round++) {
        noise.position = round;
        fill_weights(w, MOST, round);
        size_t winner = sb_race(&noise, w, MOST);
        for (size_t n = winner + 1; n < MOST; n += 97) /* whoever wins, wins a narrower race */
            assert_int_equal(sb_race(&noise, w, n), winner);
        memset(only, 0, sizeof only);
        for (size_t t = round; t < MOST; t += 11)
            only[t] = w[t];
        only[winner] = w[winner];
        assert_int_equal(sb_race(&noise, only, MOST), winner);
    }
}

static void repeated_races_are_a_draw_without_replacement(void **state)
{
    (void)state;
    enum { N = 300 };
    double w[N], last = 0;
    struct sb_rng noise = sb_rng_make(79, SB_STREAM_NOISE);
    fill_weights(w, N, 4);
    for (int i = 0; i < 40; i++) {
        size_t winner = sb_race(&noise, w, N);
        double time = sb_race_time(&noise, winner) / w[winner];
        assert_true(time > last);
        last = time;
        w[winner] = 0;
    }
}

/* Pearson's statistic against equal shares. */
static double chi_square(const int *count, size_t n, const double *share, double total)
{
    double x = 0;
    for (size_t i = 0; i < n; i++) {
        double want = total * share[i];
        x += (count[i] - want) * (count[i] - want) / want;
    }
    return x;
}

static void the_winner_follows_the_weights(void **state)
{
    (void)state;
    enum { N = 100, RUNS = 40000 };
    static const size_t at[] = { 0, 8, 32, 40, 99 }; /* some share a block, or a word */
    static const double share[] = { .4, .3, .15, .1, .05 };
    double w[N] = { 0 };
    int count[5] = { 0 };
    for (size_t i = 0; i < 5; i++)
        w[at[i]] = 7 * share[i];
    struct sb_rng noise = sb_rng_make(80, SB_STREAM_NOISE);
    for (noise.position = 0; noise.position < RUNS; noise.position++) {
        size_t winner = sb_race(&noise, w, N), i = 0;
        while (at[i] != winner)
            i++;
        count[i]++;
    }
    assert_true(chi_square(count, 5, share, RUNS) < 18.5); /* 4 degrees: 1 in 1,000 */
}

static void times_are_exponential_and_independent(void **state)
{
    (void)state;
    enum { BINS = 32, N = 64, RUNS = 4000 };
    static int count[BINS], pair[4][16];
    static const size_t other[] = { 1, 8, 32, 40 }; /* another block, word, half, both */
    double equal[BINS], sixteenth[16];
    for (size_t i = 0; i < BINS; i++)
        equal[i] = 1. / BINS;
    for (size_t i = 0; i < 16; i++)
        sixteenth[i] = 1. / 16;
    struct sb_rng noise = sb_rng_make(81, SB_STREAM_NOISE);
    for (noise.position = 0; noise.position < RUNS; noise.position++) {
        double u[N];
        for (size_t t = 0; t < N; t++) {
            u[t] = exp(-sb_race_time(&noise, t));
            count[(int)(u[t] * BINS)]++;
        }
        for (size_t i = 0; i < 4; i++)
            for (size_t t = 0; t + other[i] < N; t += 5)
                pair[i][(int)(u[t] * 4) * 4 + (int)(u[t + other[i]] * 4)]++;
    }
    assert_true(chi_square(count, BINS, equal, N * (double)RUNS) < 61.1); /* 31: 1 in 1,000 */
    for (size_t i = 0; i < 4; i++) {
        double total = 0;
        for (size_t c = 0; c < 16; c++)
            total += pair[i][c];
        assert_true(chi_square(pair[i], 16, sixteenth, total) < 37.7); /* 15: 1 in 1,000 */
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_largest_logit_and_those_of_groups),
        cmocka_unit_test(one_nan_anywhere_is_seen),
        cmocka_unit_test(logits_are_counted_and_taken_from_a_border_on),
        cmocka_unit_test(weights_are_exponentials_within_the_stated_error),
        cmocka_unit_test(extreme_temperatures_and_logits_give_numbers),
        cmocka_unit_test(the_moment_gives_the_entropy_of_the_weights),
        cmocka_unit_test(a_row_is_checked_for_signs_and_nan),
        cmocka_unit_test(residuals_and_overlaps_follow_their_definitions),
        cmocka_unit_test(blends_and_selections_follow_their_definitions),
        cmocka_unit_test(a_one_hot_residual_is_that_of_the_row),
        cmocka_unit_test(scaling_multiplies_each_element_once),
        cmocka_unit_test(the_mass_from_a_border_on),
        cmocka_unit_test(pairs_are_taken_and_spread_to_their_places_again),
        cmocka_unit_test(entropies_of_known_rows),
        cmocka_unit_test(the_arg_max_is_the_smallest_of_the_largest),
        cmocka_unit_test(the_next_index_from_a_border_on),
        cmocka_unit_test(equal_weights_are_picked_in_equal_parts),
        cmocka_unit_test(a_pick_on_a_border_is_the_upper_index),
        cmocka_unit_test(weight_zero_is_never_picked),
        cmocka_unit_test(picks_move_up_with_u),
        cmocka_unit_test(the_noise_of_a_token_is_the_one_stated),
        cmocka_unit_test(the_race_has_the_winner_of_the_plain_loop),
        cmocka_unit_test(noise_depends_neither_on_the_width_nor_on_other_weights),
        cmocka_unit_test(repeated_races_are_a_draw_without_replacement),
        cmocka_unit_test(the_winner_follows_the_weights),
        cmocka_unit_test(times_are_exponential_and_independent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

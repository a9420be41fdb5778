/* Optimal transport: the bound against brute force, and rules that reach it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "tests/property/toy_tables.h"
#include "verifiers/ot_bound.h"

/* ---- the bound ---- */

static double bound(const double *p, const double *q, size_t n, enum sb_draw_kind kind, int32_t k)
{
    void *scratch = malloc(sb_ot_bound_scratch_bytes(n, k));
    double bound = sb_ot_bound(p, q, n, kind, k, scratch);
    free(scratch);
    return bound;
}

/* The probability that the next k draws lie in the set H, of weights q[n] that sum to 1 - gone. */
static double all_inside(const double *q, size_t n, unsigned H, bool repeats, int32_t k)
{
    double sum = 0, total = 0;
    for (size_t t = 0; t < n; t++)
        total += q[t];
    if (k == 0 || !(total > 0)) /* fewer tokens than draws: all were drawn */
        return 1;
    for (size_t t = 0; t < n; t++) {
        double rest[SB_ENUM_VOCAB];
        if (!(H >> t & 1) || !(q[t] > 0))
            continue;
        memcpy(rest, q, n * sizeof *q);
        rest[t] = repeats ? q[t] : 0;
        sum += q[t] / total * all_inside(rest, n, H, repeats, k - 1);
    }
    return sum;
}

static double by_brute_force(const double *p, const double *q, size_t n, bool repeats, int32_t k)
{
    double least = 0;
    for (unsigned H = 1; H < 1u << n; H++) {
        double value = -all_inside(q, n, H, repeats, k);
        for (size_t t = 0; t < n; t++)
            value += H >> t & 1 ? p[t] : 0;
        least = fmin(least, value);
    }
    return 1 + least;
}

static void the_bound_has_its_published_values(void **state)
{
    (void)state;
    close_to(bound(toy_p, toy_q, 3, SB_DRAW_IID, 1), .7);
    close_to(bound(toy_p, toy_q, 3, SB_DRAW_WOR, 1), .7);
    close_to(bound(toy_p, toy_q, 3, SB_DRAW_IID, 2), .86);
    close_to(bound(toy_p, toy_q, 3, SB_DRAW_WOR, 2), 1);
    close_to(bound(toy_p, toy_q, 3, SB_DRAW_WOR, 9), 1);
    assert_true(isnan(bound(toy_p, toy_q, 3, SB_DRAW_ONEHOT, 2)));
    assert_true(isnan(bound(toy_p, toy_q, 3, SB_DRAW_IID, 0)));
}

static void the_bound_is_that_of_brute_force(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(31, SB_STREAM_INIT);
    for (int i = 0; i < 600; i++) {
        double p[SB_ENUM_VOCAB], q[SB_ENUM_VOCAB], sum = 0;
        size_t n = 2 + (size_t)i % 4;
        random_row(p, n, &rng);
        random_row(q, n, &rng);
        if (i % 5 == 0) /* nearly one-hot */
            for (size_t t = 0; t < n; t++)
                q[t] *= t == 1 ? 1 : pow(10, -(double)sb_rng_below(&rng, 40));
        for (size_t t = 0; t < n; t++)
            sum += q[t];
        for (size_t t = 0; t < n; t++)
            q[t] /= sum;
        for (int32_t k = 1; k <= 4; k++) {
            close_to(bound(p, q, n, SB_DRAW_IID, k), by_brute_force(p, q, n, true, k));
            double got = bound(p, q, n, SB_DRAW_WOR, k);
            double want = by_brute_force(p, q, n, false, k);
            if (!(fabs(got - want) < (k > 2 ? 1e-11 : 1e-12)))
                fail_msg("instance %d, k = %d: got %.15g, expected %.15g", i, k, got, want);
        }
    }
}

/* ---- rules that reach it ---- */

static void pairs_have_their_published_acceptance(void **state)
{
    (void)state;
    close_to(run_rows("spechub", enum_propose_hub, 1, 2, 3, toy_p, toy_q).accepted, 1);
    close_to(run_rows("topk-plus-one", enum_propose_topk1, 1, 2, 3, toy_p, toy_q).accepted, 1);
    close_to(run_rows("topk-plus-one", enum_propose_topk1, 1, 1, 3, toy_p, toy_q).accepted, .7);
    close_to(run_rows("ot-flow", enum_propose_iid, 1, 1, 3, toy_p, toy_q).accepted, .7);
    close_to(run_rows("ot-flow", enum_propose_iid, 1, 2, 3, toy_p, toy_q).accepted, .86);
    close_to(run_rows("ot-flow", enum_propose_wor, 1, 2, 3, toy_p, toy_q).accepted, 1);
}

static void flow_attains_the_bound(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(32, SB_STREAM_INIT);
    for (int i = 0; i < 300; i++) {
        double p[SB_ENUM_VOCAB], q[SB_ENUM_VOCAB];
        size_t n = 2 + (size_t)i % 4;
        random_row(p, n, &rng);
        random_row(q, n, &rng);
        for (int32_t k = 1; k <= 2; k++) {
            close_to(run_rows("ot-flow", enum_propose_iid, 1, k, n, p, q).accepted,
                     bound(p, q, n, SB_DRAW_IID, k));
            close_to(run_rows("ot-flow", enum_propose_wor, 1, k, n, p, q).accepted,
                     bound(p, q, n, SB_DRAW_WOR, k));
        }
        double few = run_rows("ot-flow:m=2", enum_propose_iid, 1, 2, n, p, q).accepted;
        assert_true(few <= bound(p, q, n, SB_DRAW_IID, 2) + 1e-12);
    }
}

/* p(S) + sum of min(p, q') outside S. */
static void one_sampled_child_beside_the_likeliest_accepts_the_most_it_can(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(33, SB_STREAM_INIT);
    for (int i = 0; i < 200; i++) {
        double p[5], q[5], want = 0, rest = 0;
        size_t top = 0;
        random_row(p, 5, &rng);
        random_row(q, 5, &rng);
        for (size_t t = 1; t < 5; t++)
            top = q[t] > q[top] ? t : top;
        for (size_t t = 0; t < 5; t++)
            rest += t == top ? 0 : q[t];
        for (size_t t = 0; t < 5; t++)
            want += t == top ? (rest > 0 ? p[t] : fmin(p[t], 1))
                             : fmin(p[t], rest > 0 ? q[t] / rest : 0);
        close_to(run_rows("topk-plus-one", enum_propose_topk1, 1, 2, 5, p, q).accepted, want);
    }
}

/* ---- more tokens than the enumerating dice can walk: all pairs of one node ---- */

enum { MANY = 40 };

/* Takes note of the weights it is asked to choose by, and refuses the pair. */
struct notes {
    double pair[3], law[MANY];
};

static size_t note(void *self, const double *weight, size_t n)
{
    struct notes *notes = self;
    memcpy(n == 3 ? notes->pair : notes->law, weight, n * sizeof *weight);
    return n == 3 ? 2 : 0;
}

static bool never(void *self, double probability)
{
    return false;
}

static const double *only_row(void *self, int32_t node)
{
    return self;
}

/* Adds the law of the next token over all pairs to law[MANY]; returns the acceptance. */
static double over_all_pairs(const struct plug *plug, double *p, const double *q,
                             enum sb_draw_kind kind, double *law)
{
    static double scratch[8192];
    int32_t path[3];
    uint8_t decision[3];
    double accepted = 0;
    struct sb_tree tree;
    assert_true(plug->ops->scratch_size(plug->params, MANY, 3) <= sizeof scratch);
    assert_int_equal(sb_tree_create(&tree, 3, NULL), SB_OK);
    const struct sb_rows rows = { .row = only_row, .self = p, .n_vocab = MANY };
    for (sb_token a = 0; a < MANY; a++) {
        double rest = 0;
        for (sb_token t = 0; t < MANY; t++)
            rest += t == a ? 0 : q[t];
        for (sb_token b = 0; b < MANY; b++) {
            struct notes notes = { .pair = { 0 } };
            struct sb_dice dice = { .flip = never, .pick = note, .self = &notes };
            struct sb_verdict verdict = { .path = path, .decision = decision };
            double mass = q[a] * (kind == SB_DRAW_IID ? q[b] : a == b ? 0 : q[b] / rest);
            if (!(mass > 0))
                continue;
            sb_tree_reset(&tree, 0, 1);
            sb_tree_draw(&tree, 0, a, kind, q, 0, 0);
            sb_tree_draw(&tree, 0, b, kind, q, 0, 0);
            assert_int_equal(
                plug->ops->verify(plug->params, &tree, &rows, &dice, scratch, &verdict, NULL),
                SB_OK);
            double sum = notes.pair[0] + notes.pair[1] + notes.pair[2], left = 0;
            for (size_t t = 0; t < MANY; t++)
                left += notes.law[t];
            law[a] += mass * notes.pair[0] / sum;
            law[b] += mass * notes.pair[1] / sum;
            for (size_t t = 0; t < MANY; t++)
                law[t] += mass * notes.pair[2] / sum * notes.law[t] / left;
            accepted += mass * (notes.pair[0] + notes.pair[1]) / sum;
        }
    }
    sb_tree_finish(&tree);
    return accepted;
}

static void flow_is_exact_and_optimal_over_forty_tokens(void **state)
{
    (void)state;
    static const char *const texts[] = { "ot-flow:m=1", "ot-flow:m=7", "ot-flow:m=39", "ot-flow" };
    struct sb_rng rng = sb_rng_make(34, SB_STREAM_INIT);
    for (int i = 0; i < 6; i++) {
        double p[MANY], q[MANY];
        random_row(p, MANY, &rng);
        random_row(q, MANY, &rng);
        if (i == 5) { /* a likely token of the drafter */
            for (size_t t = 0; t < MANY; t++)
                q[t] *= 1e-7;
            q[3] += 1 - 1e-7;
        }
        for (int kind = SB_DRAW_IID; kind <= SB_DRAW_WOR; kind++) {
            double best = bound(p, q, MANY, (enum sb_draw_kind)kind, 2), most = 0;
            for (size_t m = 0; m < 4; m++) {
                struct plug plug;
                double law[MANY] = { 0 };
                plug_open(&plug, texts[m]);
                double accepted = over_all_pairs(&plug, p, q, (enum sb_draw_kind)kind, law);
                plug_close(&plug);
                for (size_t t = 0; t < MANY; t++)
                    close_to(law[t], p[t]);
                assert_true(accepted <= best + 1e-12);
                most = accepted; /* with all of them explicit, at last */
            }
            close_to(most, best);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_has_its_published_values),
        cmocka_unit_test(the_bound_is_that_of_brute_force),
        cmocka_unit_test(pairs_have_their_published_acceptance),
        cmocka_unit_test(flow_attains_the_bound),
        cmocka_unit_test(one_sampled_child_beside_the_likeliest_accepts_the_most_it_can),
        cmocka_unit_test(flow_is_exact_and_optimal_over_forty_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

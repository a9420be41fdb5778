/* The certifier's first proof: the registry on random tables of every kind, planted rules, shared noise,
 * and what cannot be judged. test_enumerate asks more of single rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/certify/enumerate.h"
#include "harness/certify/exact.h"
#include "harness/certify/planted.h"
#include "harness/certify/tables.h"
#include "harness/core/alloc.h"
#include "harness/core/rng.h"

static void close_to(double got, double want)
{
    if (!(fabs(got - want) < 1e-12))
        fail_msg("got %.15g, expected %.15g", got, want);
}

/* ---- the registry ---- */

static void *default_params(const struct sb_verifier_ops *v)
{
    struct sb_spec spec;
    void *params = calloc(1, v->params_size + 1);
    assert_non_null(params);
    assert_int_equal(sb_spec_init(&spec, v->name, NULL), SB_OK);
    assert_int_equal(sb_params_apply(params, v->params, &spec, v->name, NULL), SB_OK);
    sb_spec_finish(&spec);
    return params;
}

/* Sanitizers make enumerations ten times as long. */
static struct sb_exact_options options(void)
{
    return (struct sb_exact_options){ .tables = getenv("SB_SANITIZED") ? 40 : 200, .seed = 11 };
}

/* What a verifier declares holds on every kind of tree it takes, with its published acceptance. */
static void every_verifier_keeps_the_law_it_declares(void **state)
{
    (void)state;
    const struct sb_exact_options o = options();
    int kinds = 0, golden = 0;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        void *params = default_params(v);
        for (int k = 2 * SB_DRAW_ONEHOT; k < 2 * SB_DRAW_KINDS; k++) {
            enum sb_draw_kind kind = (enum sb_draw_kind)(k / 2);
            bool coupled = k % 2;
            struct sb_exact r;
            if (!(v->kinds & SB_KIND_BIT(kind)) ||
                (coupled && (kind != SB_DRAW_WOR || v->bottom_up)))
                continue;
            assert_int_equal(sb_exact_run(&r, v, params, kind, coupled, &o, NULL), SB_OK);
            if (r.failed || r.unsupported || r.golden_missed)
                fail_msg("%s on %s: %s", v->name, sb_draw_kind_name(kind), r.note);
            bool claims = v->guarantee != SB_LOSSY || v->law;
            if (claims && !(r.max_error < SB_EXACT_TOLERANCE))
                fail_msg("%s on %s: error %g", v->name, sb_draw_kind_name(kind), r.max_error);
            kinds++;
            golden += r.golden;
        }
        free(params);
    }
    assert_true(kinds > 60 && golden > 20);
}

static void planted_rules_are_caught_and_the_control_passes(void **state)
{
    (void)state;
    const struct sb_exact_options o = options();
    for (const struct sb_planted *p = sb_planted; p->name; p++) {
        struct sb_exact r;
        assert_int_equal(
            sb_exact_run_drawing(&r, &sb_control_verifier, &p->rule, &p->drawing, &o, NULL), SB_OK);
        assert_false(r.failed || r.unsupported);
        if ((p == sb_planted) != (r.max_error < SB_EXACT_TOLERANCE))
            fail_msg("%s: error %g, variation %g", p->name, r.max_error, r.variation);
        assert_true(p == sb_planted || r.variation > .005);
    }
}

static void the_control_is_exact_on_every_kind_it_takes(void **state)
{
    (void)state;
    const struct sb_exact_options o = options();
    const struct sb_control plain = { 0 };
    for (int k = SB_DRAW_IID; k <= SB_DRAW_PATHS; k++) {
        struct sb_exact r;
        assert_int_equal(
            sb_exact_run(&r, &sb_control_verifier, &plain, (enum sb_draw_kind)k, false, &o, NULL),
            SB_OK);
        assert_true(!r.failed && r.tables == o.tables && r.max_error < SB_EXACT_TOLERANCE);
    }
}

static void threads_and_seeds_change_what_they_should(void **state)
{
    (void)state;
    const struct sb_verifier_ops *v = sb_verifier_find("naive-sample");
    struct sb_exact_options o = { .tables = 25, .seed = 3 };
    struct sb_exact a, b;
    assert_int_equal(sb_exact_run(&a, v, NULL, SB_DRAW_IID, false, &o, NULL), SB_OK);
    assert_int_equal(sb_exact_run(&b, v, NULL, SB_DRAW_IID, false, &o, NULL), SB_OK);
    assert_memory_equal(&a, &b, sizeof a);
    o.seed = 4;
    assert_int_equal(sb_exact_run(&b, v, NULL, SB_DRAW_IID, false, &o, NULL), SB_OK);
    assert_true(a.runs != b.runs);
}

/* ---- single cases ---- */

static struct sb_enum_result run_same_rows(const double *p, const double *q, size_t n,
                                           const struct sb_verifier_ops *verifier,
                                           const void *params, struct sb_drawing drawing)
{
    static struct sb_enum_table target, draft;
    struct sb_enum_result r;
    struct sb_error err;
    sb_enum_table_fill(&target, p, n);
    sb_enum_table_fill(&draft, q, n);
    const struct sb_enum_case c = { .target = &target,
                                    .draft = &draft,
                                    .drawing = drawing,
                                    .depth = drawing.depth,
                                    .width = drawing.width,
                                    .verifier = verifier,
                                    .params = params };
    if (sb_enum_run(&r, &c, &err) != SB_OK)
        fail_msg("%s", err.message);
    close_to(r.total, 1);
    return r;
}

static const double toy_p[] = { .5, .3, .2 }, toy_q[] = { .2, .6, .2 };

/* Methods A 9: the wrong-kind detector. */
static void deterministic_children_under_a_sampling_rule_are_off_by_a_fifth(void **state)
{
    (void)state;
    const struct sb_control plain = { 0 };
    struct sb_drawing d = { .kind = SB_DRAW_WOR, .depth = 1, .width = 2 };
    struct sb_enum_result right = run_same_rows(toy_p, toy_q, 3, &sb_control_verifier, &plain, d);
    close_to(right.first_accept, .85);
    assert_true(right.max_error < 1e-12);
    d.wrong = SB_DRAWN_TOP;
    struct sb_enum_result wrong = run_same_rows(toy_p, toy_q, 3, &sb_control_verifier, &plain, d);
    close_to(wrong.first_accept, 1);
    close_to(wrong.variation, .2);
}

/* p = .5, .3, .2 and q = .2, .6, .2: token 1 is rejected half of its .6, then drawn from p again. */
static void redrawing_from_the_target_moves_the_law_as_computed(void **state)
{
    (void)state;
    const struct sb_control redraw = { .redraw = true };
    const struct sb_drawing chain = { .kind = SB_DRAW_IID, .depth = 1, .width = 1 };
    struct sb_enum_result r = run_same_rows(toy_p, toy_q, 3, &sb_control_verifier, &redraw, chain);
    close_to(r.first[0], .2 + .3 * .5);
    close_to(r.first[1], .3 + .3 * .3);
    close_to(r.variation, .15);
}

static void dropping_unlikely_draws_moves_the_law_as_computed(void **state)
{
    (void)state;
    const double p[] = { .9, .1 };
    const struct sb_control plain = { 0 };
    struct sb_enum_result r =
        run_same_rows(p, p, 2, &sb_control_verifier, &plain,
                      (struct sb_drawing){
                          .kind = SB_DRAW_IID, .depth = 1, .width = 1, .wrong = SB_DRAWN_DROPPED });
    close_to(r.first[0], .99); /* .9, and .1 times .9 where the draw was dropped */
}

/* ---- shared noise ---- */

static void the_joint_law_of_two_races_adds_up(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(8, SB_STREAM_INIT);
    for (int i = 0; i < 200; i++) {
        size_t n = 2 + sb_rng_below(&rng, 4);
        double p[5], q[5], agree = 0;
        sb_table_random_row(p, n, &rng);
        sb_table_random_row(q, n, &rng);
        if (i % 10 == 0)
            memcpy(p, q, sizeof p);
        for (size_t a = 0; a < n; a++) {
            double of_q = 0, of_p = 0;
            for (size_t b = 0; b < n; b++) {
                of_q += q[a] > 0 && p[b] > 0 ? sb_race_joint(q, p, n, a, b) : 0;
                of_p += q[b] > 0 && p[a] > 0 ? sb_race_joint(q, p, n, b, a) : 0;
            }
            close_to(of_q, q[a]);
            close_to(of_p, p[a]);
            agree += q[a] > 0 && p[a] > 0 ? sb_race_joint(q, p, n, a, a) : 0;
        }
        if (i % 10 == 0)
            close_to(agree, 1);
    }
    double agree = 0;
    for (size_t a = 0; a < 3; a++)
        agree += sb_race_joint(toy_q, toy_p, 3, a, a);
    close_to(agree, 17. / 26); /* methods A 3.14 */
}

/* Both races of a position, from one noise. */
static enum sb_status race_verify(const void *params, const struct sb_tree *tree,
                                  const struct sb_rows *rows, const struct sb_dice *dice,
                                  void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0;;) {
        sb_dice_seek(dice, (uint64_t)tree->node[node].depth + 1);
        size_t token = dice->race(dice->self, rows->row(rows->self, node), rows->n_vocab);
        int32_t child = sb_tree_child(tree, node, (sb_token)token);
        if (child < 0) {
            sb_verdict_close(verdict, tree, (sb_token)token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        node = child;
    }
}
static const struct sb_verifier_ops racer = { .name = "racer",
                                              .guarantee = SB_DISTRIBUTION_EXACT,
                                              .kinds = SB_KINDS_ALL,
                                              .verify = race_verify };

static void races_of_one_noise_are_enumerated(void **state)
{
    (void)state;
    struct sb_enum_result r = run_same_rows(
        toy_p, toy_q, 3, &racer, NULL,
        (struct sb_drawing){ .kind = SB_DRAW_WOR, .depth = 2, .width = 1, .coupled = true });
    close_to(r.first_accept, 17. / 26);
    close_to(r.accepted, 17. / 26 + 17. / 26 * 17. / 26);
    assert_true(r.max_error < 1e-12);
    const struct sb_exact_options o = options();
    struct sb_exact all;
    assert_int_equal(sb_exact_run(&all, &racer, NULL, SB_DRAW_WOR, true, &o, NULL), SB_OK);
    assert_true(!all.failed && !all.unsupported && all.max_error < SB_EXACT_TOLERANCE);
}

/* ---- what cannot be enumerated, or is no verdict ---- */

static enum sb_status uniform_verify(const void *params, const struct sb_tree *tree,
                                     const struct sb_rows *rows, const struct sb_dice *dice,
                                     void *scratch, struct sb_verdict *verdict,
                                     struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    sb_verdict_close(verdict, tree, dice->uniform(dice->self) < .5);
    return SB_OK;
}
static const struct sb_verifier_ops uniform = { .name = "uniform", .verify = uniform_verify };

static enum sb_status wild_verify(const void *params, const struct sb_tree *tree,
                                  const struct sb_rows *rows, const struct sb_dice *dice,
                                  void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    sb_verdict_close(verdict, tree, 1000);
    return SB_OK;
}
static const struct sb_verifier_ops wild = { .name = "wild", .verify = wild_verify };

static void rules_that_cannot_be_judged_are_named(void **state)
{
    (void)state;
    const struct sb_exact_options o = { .tables = 4, .seed = 1 };
    struct sb_exact r;
    assert_int_equal(sb_exact_run(&r, &uniform, NULL, SB_DRAW_IID, false, &o, NULL), SB_OK);
    assert_true(r.unsupported && !r.failed && r.tables == 0);
    assert_non_null(strstr(r.note, "verifier uniform: draws a uniform number"));
    assert_int_equal(sb_exact_run(&r, &wild, NULL, SB_DRAW_IID, false, &o, NULL), SB_OK);
    assert_true(r.failed && !r.unsupported);
    assert_non_null(strstr(r.note, "final token 1000"));
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    const struct sb_exact_options o = { .tables = 6, .seed = 1 };
    const struct sb_verifier_ops *v = sb_verifier_find("naive-sample");
    for (size_t n = 0; n < 6; n++) {
        struct sb_exact r;
        sb_alloc_fail_after(n);
        enum sb_status rc = sb_exact_run(&r, v, NULL, SB_DRAW_IID, false, &o, NULL);
        sb_alloc_fail_after(SIZE_MAX);
        assert_int_equal(rc, SB_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verifier_keeps_the_law_it_declares),
        cmocka_unit_test(planted_rules_are_caught_and_the_control_passes),
        cmocka_unit_test(the_control_is_exact_on_every_kind_it_takes),
        cmocka_unit_test(threads_and_seeds_change_what_they_should),
        cmocka_unit_test(deterministic_children_under_a_sampling_rule_are_off_by_a_fifth),
        cmocka_unit_test(redrawing_from_the_target_moves_the_law_as_computed),
        cmocka_unit_test(dropping_unlikely_draws_moves_the_law_as_computed),
        cmocka_unit_test(the_joint_law_of_two_races_adds_up),
        cmocka_unit_test(races_of_one_noise_are_enumerated),
        cmocka_unit_test(rules_that_cannot_be_judged_are_named),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

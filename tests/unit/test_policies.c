/* drafters/policy: the worked examples of methods A 5, A 11 and C 3. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#include "drafters/policy/cost.h"
#include "harness/core/alloc.h"
#include "harness/decode/policy.h"

struct rig {
    struct sb_spec spec;
    struct sb_policy policy;
    void *params;
};

static void rig_open(struct rig *rig, const char *text)
{
    assert_int_equal(sb_spec_parse(&rig->spec, text, NULL), SB_OK);
    const struct sb_policy_ops *ops = sb_policy_find(rig->spec.name);
    rig->params = sb_alloc_zero(1, ops->params_size);
    assert_int_equal(sb_params_apply(rig->params, ops->params, &rig->spec, "it", NULL), SB_OK);
    rig->policy = (struct sb_policy){ .ops = ops,
                                      .params = rig->params,
                                      .state = sb_alloc_zero(1, ops->state_size + 1) };
    if (ops->open)
        assert_int_equal(ops->open(rig->policy.state, rig->params, NULL), SB_OK);
}

static void rig_close(struct rig *rig)
{
    sb_free(rig->policy.state);
    sb_free(rig->params);
    sb_spec_finish(&rig->spec);
}

static void begin(const struct rig *rig)
{
    rig->policy.ops->begin(rig->policy.state, rig->params);
}

static int32_t plan(const struct rig *rig)
{
    int32_t k = sb_policy_plan(&rig->policy, 10);
    assert_true(k <= sb_policy_longest(&rig->policy, 10));
    return k;
}

static void learn(const struct rig *rig, int32_t accepted, bool leaf)
{
    rig->policy.ops->learn(rig->policy.state, rig->params,
                           &(struct sb_policy_step){ .accepted = accepted, .leaf = leaf });
}

/* ---- heuristic ---- */

static void heuristic_adds_two_and_takes_one(void **state)
{
    (void)state;
    static const char *const specs[] = { "heuristic", "heuristic:scope=run" };
    for (int s = 0; s < 2; s++) {
        struct rig rig;
        rig_open(&rig, specs[s]);
        begin(&rig);
        assert_int_equal(plan(&rig), 5);
        learn(&rig, 5, true);
        assert_int_equal(plan(&rig), 7);
        learn(&rig, 3, true); /* the budget cut the draft: all of it counts */
        assert_int_equal(plan(&rig), 9);
        learn(&rig, 8, false);
        assert_int_equal(plan(&rig), 8);
        learn(&rig, 0, true); /* no draft */
        assert_int_equal(plan(&rig), 8);
        learn(&rig, 0, false);
        assert_int_equal(plan(&rig), 7);
        begin(&rig);
        assert_int_equal(plan(&rig), s ? 7 : 5);
        rig_close(&rig);
    }
}

static void heuristic_stays_between_one_and_its_bound(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "heuristic:start=9,max=4");
    assert_int_equal(plan(&rig), 4);
    learn(&rig, 4, true);
    assert_int_equal(plan(&rig), 4);
    for (int i = 0; i < 6; i++)
        learn(&rig, 0, false);
    assert_int_equal(plan(&rig), 1);
    rig_close(&rig);
}

/* ---- cost curves, optimal-gamma ---- */

static const char measured[] = "1:1;2:1.05;3:1.1;4:1.16;5:1.22;6:1.3;8:1.45;16:2";

static void curves_go_straight_through_their_points(void **state)
{
    (void)state;
    struct sb_cost_curve curve = { 0 };
    assert_float_equal(sb_cost_of_rows(&curve, 9), 1, 0);
    assert_int_equal(sb_cost_curve_parse(&curve, "4:1.3;8:2.1", "it", NULL), SB_OK);
    static const double want[] = { 1, 1.1, 1.2, 1.3, 1.5, 1.7, 1.9, 2.1, 2.3 };
    for (int32_t m = 1; m <= 9; m++)
        assert_float_equal(sb_cost_of_rows(&curve, m), want[m - 1], 1e-12);
    assert_int_equal(sb_cost_curve_parse(&curve, "1:2", "it", NULL), SB_OK);
    assert_float_equal(sb_cost_of_rows(&curve, 9), 2, 0);
    assert_int_equal(sb_cost_curve_parse(&curve, NULL, "it", NULL), SB_OK);
    assert_int_equal(curve.n, 0);
}

static void curves_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = { "4",     "4:",       "x:1",     "0:1",     "4:0",
                                       "4:-1",  "4:nan",    "4:inf",   "2:1;2:2", "4:1;2:2",
                                       "4:1;",  "4:1 8:2",  "4:1,8:2", ";4:1",    "-3:1",
                                       "4:1;;", "999999:1", "4:1;8:2x" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sb_cost_curve curve = { .n = 7 };
        if (sb_cost_curve_parse(&curve, bad[i], "it", NULL) != SB_EUSAGE)
            fail_msg("curve=%s was taken", bad[i]);
        assert_int_equal(curve.n, 7);
    }
    char text[600], *at = text;
    for (int m = 1; m <= SB_COST_POINTS + 1; m++)
        at += snprintf(at, 12, "%s%d:1", m > 1 ? ";" : "", m);
    struct sb_cost_curve curve;
    assert_int_equal(sb_cost_curve_parse(&curve, text, "it", NULL), SB_EUSAGE);
}

static void speedups_are_those_of_the_formula(void **state)
{
    (void)state;
    static const struct {
        const char *curve;
        double alpha, c;
        int32_t gamma;
        double speedup;
    } cases[] = {
        { NULL, .8, .1, 5, 2.460 },       { NULL, .8, .1, 6, 2.470 },
        { NULL, .8, .1, 7, 2.448 },       { NULL, .8, 0, 5, 3.68928 },
        { NULL, .8, .05, 5, 2.95142 },    { NULL, .8, .05, 8, 3.092 },
        { NULL, .6, .05, 4, 1.921 },      { NULL, .8, .2, 4, 1.868 },
        { NULL, .9, .02, 19, 6.365 },     { NULL, .5, .1, 2, 1.458 },
        { measured, .5, .02, 3, 1.537 },  { measured, .7, .02, 4, 2.133 },
        { measured, .9, .02, 10, 3.697 }, { NULL, .3, .2, 1, 1.3 / 1.2 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_cost_curve curve;
        assert_int_equal(sb_cost_curve_parse(&curve, cases[i].curve, "it", NULL), SB_OK);
        assert_float_equal(sb_chain_speedup(&curve, cases[i].c, cases[i].alpha, cases[i].gamma),
                           cases[i].speedup, 5.1e-4);
    }
}

/* One acceptance and one rejection stand in the estimate beforehand: 7 of 8 give alpha = .8. */
static void optimal_gamma_takes_the_best_length(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int32_t accepted, rejected, want;
    } cases[] = {
        { "optimal-gamma", 7, 1, 6 },
        { "optimal-gamma:c=0.05", 7, 1, 8 },
        { "optimal-gamma:c=0.05", 2, 1, 4 },
        { "optimal-gamma:c=0.2", 7, 1, 4 },
        { "optimal-gamma:c=0.02", 8, 0, 19 },
        { "optimal-gamma:c=0.02,max=12", 8, 0, 12 },
        { "optimal-gamma", 0, 0, 2 },
        { "optimal-gamma:c=0.02,curve='1:1;2:1.05;3:1.1;4:1.16;5:1.22;6:1.3;8:1.45;16:2'", 0, 0,
          3 },
        { "optimal-gamma:c=0.02,curve='1:1;2:1.05;3:1.1;4:1.16;5:1.22;6:1.3;8:1.45;16:2'", 6, 2,
          4 },
        { "optimal-gamma:c=0.02,curve='1:1;2:1.05;3:1.1;4:1.16;5:1.22;6:1.3;8:1.45;16:2'", 8, 0,
          10 },
        { "optimal-gamma", 0, 90, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig;
        rig_open(&rig, cases[i].spec);
        begin(&rig);
        for (int32_t r = 0; r < cases[i].rejected; r++)
            learn(&rig, r ? 0 : cases[i].accepted, false);
        if (!cases[i].rejected && cases[i].accepted)
            learn(&rig, cases[i].accepted, true);
        assert_int_equal(plan(&rig), cases[i].want);
        begin(&rig);
        int32_t fresh = plan(&rig);
        learn(&rig, 1, false); /* one of each: nothing changes */
        assert_int_equal(plan(&rig), fresh);
        rig_close(&rig);
    }
}

static void optimal_gamma_forgets_old_tokens(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "optimal-gamma:window=8,scope=run");
    learn(&rig, 500, true);
    learn(&rig, 7, false); /* the last eight: 7 and a miss */
    begin(&rig);
    assert_int_equal(plan(&rig), 6);
    rig_close(&rig);
}

static void optimal_gamma_goes_on_asking_where_no_draft_pays(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "optimal-gamma:c=0.6");
    begin(&rig);
    for (int step = 1; step <= 64; step++) {
        int32_t k = plan(&rig);
        assert_int_equal(k, step % 16 == 0);
        learn(&rig, 0, k == 0);
    }
    rig_close(&rig);
}

/* ---- svip, confidence ---- */

static double entropy(const double *p, int n)
{
    double h = 0;
    for (int i = 0; i < n; i++)
        h -= p[i] * log(p[i]);
    return h;
}

static bool stops(const struct rig *rig, const struct sb_policy_node *node)
{
    return sb_policy_stops(&rig->policy, node);
}

static void svip_stops_after_uncertain_rows(void **state)
{
    (void)state;
    const double rows[][4] = { { .9, .05, .03, .02 }, { .5, .3, .1, .1 }, { .7, .3 } };
    static const double root[] = { .2534, .4186, .3027 };
    struct rig rig;
    rig_open(&rig, "svip");
    assert_int_equal(plan(&rig), 40);
    for (int i = 0; i < 3; i++) {
        double h = entropy(rows[i], i < 2 ? 4 : 2);
        assert_float_equal(sqrt(.15 * h), root[i], 5e-5);
        assert_int_equal(stops(&rig, &(struct sb_policy_node){ .top_prob = .5, .entropy = h }),
                         i > 0);
    }
    assert_false(stops(&rig, &(struct sb_policy_node){ .depth = 9 })); /* a drafter without rows */
    rig_close(&rig);
}

/* A chain of tokens of these probabilities; returns after how many it stops. */
static int32_t draft(const struct rig *rig, const double *prob, int32_t n)
{
    double path = 1;
    plan(rig);
    for (int32_t i = 1; i <= n; i++) {
        path *= prob[i - 1];
        if (stops(rig, &(struct sb_policy_node){ .depth = i,
                                                 .n_nodes = i,
                                                 .top_prob = .95,
                                                 .prob = prob[i - 1],
                                                 .path_prob = path }))
            return i;
    }
    return n;
}

static void confidence_keeps_the_token_it_stops_after(void **state)
{
    (void)state;
    static const double prob[] = { .9, .7, .4, .5, .39, .9 };
    struct rig rig;
    rig_open(&rig, "confidence");
    assert_int_equal(plan(&rig), 20);
    assert_int_equal(draft(&rig, prob, 6), 5);
    assert_false(stops(&rig, &(struct sb_policy_node){ .depth = 1 }));
    learn(&rig, 1, false);
    assert_int_equal(draft(&rig, prob, 6), 5);
    rig_close(&rig);
    rig_open(&rig, "confidence:of=path,k=0"); /* .9 .63 .252 */
    assert_int_equal(plan(&rig), 10);
    assert_int_equal(draft(&rig, prob, 6), 3);
    rig_close(&rig);
}

static void confidence_learns_its_threshold(void **state)
{
    (void)state;
    static const struct {
        double first[3], second[2], third[1], want;
    } cases[] = {
        { { .9, .8, .7 }, { .6, .3 }, { .2 }, .6 },
        { { .9, .8, .3 }, { .7, .2 }, { .6 }, .7 },
    };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig, "confidence:adapt=1,threshold=0");
        begin(&rig);
        draft(&rig, cases[i].first, 3);
        learn(&rig, 2, false);
        draft(&rig, cases[i].second, 2);
        learn(&rig, 1, false);
        const double low = 1e-9;
        assert_int_equal(draft(&rig, &low, 1), 1);
        assert_false(stops(&rig, &(struct sb_policy_node){ .depth = 9, .top_prob = 1 }));
        plan(&rig); /* five pairs are not enough */
        draft(&rig, cases[i].third, 1);
        learn(&rig, 0, false);
        const struct sb_policy_node at = { .depth = 9, .top_prob = 1, .prob = cases[i].want },
                                    below = { .depth = 9,
                                              .top_prob = 1,
                                              .prob = cases[i].want - 1e-9 };
        assert_false(stops(&rig, &at));
        assert_true(stops(&rig, &below));
        begin(&rig);
        assert_false(stops(&rig, &below));
        rig_close(&rig);
    }
}

/* ---- tree-cost ---- */

/* How deep a chain goes whose every token has probability p. */
static int32_t grow(const struct rig *rig, double p, int32_t most)
{
    double path = 1, sum = 0;
    int32_t depth = 0;
    plan(rig);
    for (; depth < most; depth++) {
        struct sb_policy_node node = {
            .depth = depth, .n_nodes = depth, .path_prob = path, .n_seen = depth, .sum_seen = sum
        };
        node.top_prob = p;
        if (sb_policy_refuses(&rig->policy, &node))
            return depth;
        path *= p;
        sum += path;
        node = (struct sb_policy_node){ .depth = depth + 1,
                                        .n_nodes = depth + 1,
                                        .top_prob = p,
                                        .prob = p,
                                        .path_prob = path,
                                        .n_seen = depth + 1,
                                        .sum_seen = sum };
        if (stops(rig, &node))
            return depth + 1;
    }
    return depth;
}

/* p = 1/2: S is 1, 1.5, 1.75, 1.875 over the costs. */
static void tree_cost_drafts_while_it_pays(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        int32_t want;
    } cases[] = {
        { "tree-cost:c=0,curve='1:1'", 30 },                  /* rows for nothing: everything */
        { "tree-cost:c=0,curve='1:1;2:2'", 0 },               /* c(M) = M: nothing */
        { "tree-cost:c=0,curve='1:1;2:1.2;3:1.6'", 1 },       /* 1.25, then 1.094 */
        { "tree-cost:c=0,curve='1:1;2:1.2;3:1.3;4:1.5'", 2 }, /* 1.25, 1.346, 1.25 */
        /* Rows for nothing, forwards of .4: 1.5/1.4, 1.75/1.8. After the first token the bound is the
         * token's own .5: 2/1.8 > 1.5/1.4, so the row is made, and then paid for: the child comes. */
        { "tree-cost:c=0.4,curve='1:1'", 2 },
        { "tree-cost:c=2,curve='1:1'", 1 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig;
        rig_open(&rig, cases[i].spec);
        assert_int_equal(grow(&rig, .5, 30), cases[i].want);
        learn(&rig, 0, false);
        assert_int_equal(plan(&rig), cases[i].want ? 10 : plan(&rig));
        rig_close(&rig);
    }
}

static void tree_cost_plans_for_drafters_without_rows(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, "tree-cost:curve='1:1;2:1.2;3:1.6;4:1.7'");
    begin(&rig);
    assert_int_equal(plan(&rig), 10); /* nothing is known */
    learn(&rig, 0, true);
    /* Every token 1/2: 1.25, 1.094, 1.103, ... */
    assert_int_equal(plan(&rig), 1);
    for (int i = 0; i < 30; i++)
        learn(&rig, 10, true);
    assert_int_equal(plan(&rig), 10);
    begin(&rig);
    for (int i = 0; i < 31; i++)
        learn(&rig, 2, false); /* two are good, the third never: 1.82, 2.38 of 31/33, 3 of 1.7 */
    assert_int_equal(plan(&rig), 2);
    begin(&rig);
    int32_t asked = 0;
    for (int i = 1; i <= 33; i++) {
        learn(&rig, 0, false);
        asked += plan(&rig);
    }
    assert_int_equal(asked, 4); /* after 1 and 2 it still hopes; at 16 and 32 it asks */
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heuristic_adds_two_and_takes_one),
        cmocka_unit_test(heuristic_stays_between_one_and_its_bound),
        cmocka_unit_test(curves_go_straight_through_their_points),
        cmocka_unit_test(curves_that_make_no_sense_are_refused),
        cmocka_unit_test(speedups_are_those_of_the_formula),
        cmocka_unit_test(optimal_gamma_takes_the_best_length),
        cmocka_unit_test(optimal_gamma_forgets_old_tokens),
        cmocka_unit_test(optimal_gamma_goes_on_asking_where_no_draft_pays),
        cmocka_unit_test(svip_stops_after_uncertain_rows),
        cmocka_unit_test(confidence_keeps_the_token_it_stops_after),
        cmocka_unit_test(confidence_learns_its_threshold),
        cmocka_unit_test(tree_cost_drafts_while_it_pays),
        cmocka_unit_test(tree_cost_plans_for_drafters_without_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

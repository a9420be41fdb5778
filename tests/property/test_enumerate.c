/* Every exact verifier leaves the target's law unchanged, by exact enumeration; wrong rules do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/property/toy_tables.h"

struct rejection_params {
    double lenience, alpha, beta;
};
static const struct rejection_params exact = { 1, 0, 1 };

struct shape {
    const char *verifier; /* with its parameters */
    proposer *propose;
    int32_t depth, width;
    size_t n_vocab;
};

/* Trees with V^depth sequences and every draw enumerated: these sizes take milliseconds each. */
static const struct shape shapes[] = {
    { "rejection", enum_propose_iid, 1, 1, 5 },
    { "rejection", enum_propose_iid, 3, 1, 3 },
    { "rejection", enum_propose_iid, 2, 1, 4 },
    { "rejection", enum_propose_top, 3, 1, 4 },
    { "rejection", enum_propose_wor, 3, 1, 3 },
    { "naive-sample", enum_propose_iid, 3, 1, 3 },
    { "naive-sample", enum_propose_top, 3, 1, 4 },
    { "naive-sample", enum_propose_iid, 1, 3, 4 },
    { "naive-sample", enum_propose_iid, 2, 2, 3 },
    { "naive-sample", enum_propose_wor, 2, 2, 3 },
    { "naive-sample", enum_propose_top, 3, 2, 3 },
    { "spechub", enum_propose_hub, 1, 2, 5 },
    { "spechub", enum_propose_hub, 2, 2, 4 },
    { "spechub", enum_propose_hub, 3, 2, 2 },
    { "topk-plus-one", enum_propose_topk1, 1, 3, 5 },
    { "topk-plus-one", enum_propose_topk1, 2, 2, 4 },
    { "topk-plus-one", enum_propose_topk1, 2, 3, 3 },
    { "topk-plus-one", enum_propose_topk1, 3, 1, 3 },
    { "ot-flow", enum_propose_iid, 1, 2, 5 },
    { "ot-flow", enum_propose_wor, 1, 2, 5 },
    { "ot-flow", enum_propose_iid, 1, 3, 4 },
    { "ot-flow", enum_propose_wor, 1, 4, 5 },
    { "ot-flow", enum_propose_iid, 2, 1, 3 },
    { "ot-flow", enum_propose_wor, 2, 2, 3 },
    { "ot-flow", enum_propose_iid, 2, 2, 2 },
    { "ot-flow:m=1", enum_propose_iid, 1, 2, 5 },
    { "ot-flow:m=2", enum_propose_iid, 1, 2, 5 },
    { "ot-flow:m=2", enum_propose_wor, 1, 3, 5 },
    { "ot-flow:m=3", enum_propose_wor, 1, 2, 5 },
};

static void exact_verifiers_leave_the_law_unchanged_on_random_tables(void **state)
{
    (void)state;
    static struct enum_table p, q;
    struct sb_rng rng = sb_rng_make(11, SB_STREAM_INIT);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        struct plug plug;
        plug_open(&plug, shapes[s].verifier);
        for (int i = 0; i < 100; i++) {
            enum flavour kind = (enum flavour)(i % N_FLAVOURS);
            random_tables(&p, &q, shapes[s].n_vocab, kind, &rng);
            struct enum_result r = enum_run(&(struct enum_case){
                .target = &p,
                .draft = &q,
                .propose = shapes[s].propose,
                .depth = shapes[s].depth,
                .width = shapes[s].width,
                .verifier = plug.ops,
                .params = plug.params,
            });
            assert_int_equal(r.status, SB_OK);
            close_to(r.total, 1);
            if (!(r.max_error < 1e-12))
                fail_msg("%s, shape %zu, table %d: error %g", shapes[s].verifier, s, i,
                         r.max_error);
            bool sampled = shapes[s].propose != enum_propose_top;
            bool optimal = strcmp(shapes[s].verifier, "rejection") == 0 ||
                           strcmp(shapes[s].verifier, "ot-flow") == 0 ||
                           shapes[s].propose == enum_propose_topk1;
            if (kind == EQUAL && sampled && optimal)
                close_to(r.accepted, shapes[s].depth);
            if (kind == DISJOINT && sampled)
                close_to(r.accepted, 0);
        }
        plug_close(&plug);
    }
}

/* The rows that decoding uses: logits through S at temperature 0.8, with top-k and top-p. */
static void rejection_keeps_the_law_behind_the_sampling_transform(void **state)
{
    (void)state;
    static struct enum_table p, q;
    static const struct sb_sampling settings[] = { { .temperature = .8 },
                                                   { .temperature = .8, .top_k = 3 },
                                                   { .temperature = .8, .top_p = .7 } };
    struct sb_rng rng = sb_rng_make(12, SB_STREAM_INIT);
    const size_t n = 4;
    double accepted = 0;
    for (int i = 0; i < 30; i++) {
        p.n_vocab = q.n_vocab = n;
        for (size_t r = 0; r < sizeof p.row / sizeof *p.row; r++) {
            float target[4], draft[4];
            uint32_t scratch[4];
            for (size_t t = 0; t < n; t++) {
                target[t] = (float)(2 * sb_rng_normal(&rng));
                draft[t] = target[t] + (float)sb_rng_normal(&rng);
            }
            sb_sampling_apply(p.row[r], &settings[i % 3], target, n, scratch);
            sb_sampling_apply(q.row[r], &settings[i % 3], draft, n, scratch);
        }
        struct enum_result r =
            enum_run(&(struct enum_case){ .target = &p,
                                          .draft = &q,
                                          .propose = enum_propose_iid,
                                          .depth = 3,
                                          .width = 1,
                                          .verifier = sb_verifier_find("rejection"),
                                          .params = &exact });
        assert_int_equal(r.status, SB_OK);
        assert_true(r.max_error < 1e-12);
        accepted += r.accepted / 30;
    }
    assert_true(accepted > .5 && accepted < 3); /* the toys are alike, not equal */
}

/* ---- known figures ---- */

static struct enum_result run_toy(const double *p, const double *q, size_t n, const char *verifier,
                                  const void *params, int32_t depth, int32_t width,
                                  void (*propose)(const struct enum_case *, const struct sb_dice *,
                                                  struct sb_tree *))
{
    static struct enum_table target, draft;
    fill(&target, n, p);
    fill(&draft, n, q);
    struct enum_result r = enum_run(&(struct enum_case){ .target = &target,
                                                         .draft = &draft,
                                                         .propose = propose,
                                                         .depth = depth,
                                                         .width = width,
                                                         .verifier = sb_verifier_find(verifier),
                                                         .params = params });
    assert_int_equal(r.status, SB_OK);
    return r;
}

/* Methods A 3.2, 3.3 and 9. */
static void acceptance_has_the_published_values(void **state)
{
    (void)state;
    close_to(run_toy(toy_p, toy_q, 3, "rejection", &exact, 1, 1, enum_propose_iid).accepted, .7);
    close_to(run_toy(toy_p, toy_q, 3, "rejection", &exact, 2, 1, enum_propose_iid).accepted, 1.19);
    close_to(run_toy(toy_p, toy_q, 3, "naive-sample", NULL, 1, 1, enum_propose_iid).accepted, .32);
    close_to(run_toy(toy_p, toy_q, 3, "naive-sample", NULL, 1, 2, enum_propose_top).accepted, .8);
    close_to(run_toy(toy_p, toy_q, 3, "rejection", &exact, 1, 1, enum_propose_top).accepted, .3);
    const double p[] = { 1. / 3, 2. / 3 }, q[] = { 2. / 3, 1. / 3 };
    const double want[] = { 2. / 3, 10. / 9, 38. / 27 };
    for (int32_t k = 1; k <= 3; k++)
        close_to(run_toy(p, q, 2, "rejection", &exact, k, 1, enum_propose_iid).accepted,
                 want[k - 1]);
}

static void lenience_has_its_published_law_and_bound(void **state)
{
    (void)state;
    const double p[] = { 10. / 27, 5. / 27, 12. / 27 }, q[] = { 4. / 12, 5. / 12, 3. / 12 };
    const double law[] = { 1072. / 3051, 10. / 27, 283. / 1017 };
    const struct rejection_params half = { .5, 0, 1 };
    struct enum_result r = run_toy(p, q, 3, "rejection", &half, 1, 1, enum_propose_iid);
    close_to(r.first_accept, 103. / 108);
    for (size_t t = 0; t < 3; t++)
        close_to(r.first[t], law[t]);
    assert_true(r.variation > .01);

    struct sb_rng rng = sb_rng_make(5, SB_STREAM_INIT);
    for (int i = 0; i < 100; i++) {
        double a[4], b[4];
        const struct rejection_params lenient = { .1 + .9 * sb_rng_uniform(&rng), 0, 1 };
        random_row(a, 4, &rng);
        random_row(b, 4, &rng);
        r = run_toy(a, b, 4, "rejection", &lenient, 1, 1, enum_propose_iid);
        double accept = 0;
        for (size_t t = 0; t < 4; t++) {
            assert_true(r.first[t] <= a[t] / lenient.lenience + 1e-12);
            accept += fmin(b[t], a[t] / lenient.lenience);
        }
        close_to(r.first_accept, accept);
    }
}

static void the_two_parameter_form_accepts_more_and_is_lossy(void **state)
{
    (void)state;
    const struct rejection_params lossy = { 1, .5, .5 };
    struct enum_result r = run_toy(toy_p, toy_q, 3, "rejection", &lossy, 1, 1, enum_propose_iid);
    close_to(r.first_accept, .2 + .6 * 1 + .2); /* .3 / (.5 * .6) = 1: everything is accepted */
    close_to(r.variation, .3);
    const struct rejection_params milder = { 1, .25, .75 };
    r = run_toy(toy_p, toy_q, 3, "rejection", &milder, 1, 1, enum_propose_iid);
    close_to(r.first_accept, .4 + .3 / .75);
    close_to(r.first[1], .3 / .75);
    close_to(r.first[0], .2 + .2 * (.5 / .75 - .2) / (.5 / .75 - .2 + .2 / .75 - .2));
}

/* ---- planted wrong rules: a certifier that passes these is broken ---- */

/* Recursive rejection for children drawn without replacement (methods A 3.4): right for those. */
static enum sb_status rrs_verify(const void *params, const struct sb_tree *tree,
                                 const struct sb_rows *rows, const struct sb_dice *dice,
                                 void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    double p[ENUM_MAX_VOCAB], q[ENUM_MAX_VOCAB];
    size_t n = rows->n_vocab;
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0;;) {
        memcpy(p, rows->row(rows->self, node), n * sizeof *p);
        if (tree->node[node].q)
            memcpy(q, tree->node[node].q, n * sizeof *q);
        int32_t taken = -1;
        for (int32_t d = 0; d < tree->node[node].n_draws && taken < 0; d++) {
            int32_t child = tree->draw[tree->node[node].first_draw + d];
            sb_token t = tree->node[child].token;
            double sum_p = 0, sum_q = 0;
            if (dice->flip(dice->self, fmin(1, p[t] / q[t]))) {
                taken = child;
                break;
            }
            for (size_t i = 0; i < n; i++) {
                p[i] = fmax(p[i] - q[i], 0);
                q[i] = i == (size_t)t ? 0 : q[i];
                sum_p += p[i];
                sum_q += q[i];
            }
            for (size_t i = 0; i < n; i++) {
                p[i] /= sum_p;
                q[i] = sum_q > 0 ? q[i] / sum_q : q[i];
            }
        }
        if (taken < 0) {
            sb_verdict_close(verdict, tree, (sb_token)dice->pick(dice->self, p, n));
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, taken);
        node = taken;
    }
}
static const struct sb_verifier_ops rrs = { .name = "rrs", .verify = rrs_verify };

/* Top-2 children, passed off as drawn without replacement. */
static void propose_top_as_wor(const struct enum_case *c, const struct sb_dice *dice,
                               struct sb_tree *tree)
{
    const double *q = enum_row(c->draft, NULL, 0);
    sb_token order[2] = { 1, 0 }; /* toy_q: .6, then .2 */
    for (int i = 0; i < 2; i++)
        sb_tree_draw(tree, 0, order[i], SB_DRAW_WOR, q, (float)log(q[order[i]]), 0);
}

static struct enum_result run_planted(const struct sb_verifier_ops *verifier,
                                      void (*propose)(const struct enum_case *,
                                                      const struct sb_dice *, struct sb_tree *),
                                      int32_t width)
{
    static struct enum_table target, draft;
    fill(&target, 3, toy_p);
    fill(&draft, 3, toy_q);
    struct enum_result r = enum_run(&(struct enum_case){ .target = &target,
                                                         .draft = &draft,
                                                         .propose = propose,
                                                         .depth = 1,
                                                         .width = width,
                                                         .verifier = verifier,
                                                         .params = &exact });
    assert_int_equal(r.status, SB_OK);
    return r;
}

static void deterministic_children_under_a_sampling_rule_are_caught(void **state)
{
    (void)state;
    struct enum_result right = run_planted(&rrs, enum_propose_wor, 2);
    close_to(right.first_accept, .85);
    assert_true(right.max_error < 1e-12);
    struct enum_result wrong = run_planted(&rrs, propose_top_as_wor, 2);
    close_to(wrong.first_accept, 1);
    close_to(wrong.variation, .2);
}

/* One deterministic token, passed off as drawn from q. */
static void propose_top_as_iid(const struct enum_case *c, const struct sb_dice *dice,
                               struct sb_tree *tree)
{
    sb_tree_draw(tree, 0, 1, SB_DRAW_IID, enum_row(c->draft, NULL, 0), (float)log(.6), 0);
}

static void a_deterministic_chain_under_rejection_is_caught(void **state)
{
    (void)state;
    struct enum_result r = run_planted(sb_verifier_find("rejection"), propose_top_as_iid, 1);
    assert_true(r.variation > .1);
}

/* Redraw from p, not from the residual: the draft token comes up with p + (1 - p) p. */
static enum sb_status redraw_verify(const void *params, const struct sb_tree *tree,
                                    const struct sb_rows *rows, const struct sb_dice *dice,
                                    void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    const double *p = rows->row(rows->self, 0);
    sb_verdict_begin(verdict, tree);
    if (tree->n > 1 && dice->flip(dice->self, p[tree->node[1].token])) {
        sb_verdict_accept(verdict, tree, 1);
        p = rows->row(rows->self, 1);
    }
    sb_verdict_close(verdict, tree, (sb_token)dice->pick(dice->self, p, rows->n_vocab));
    return SB_OK;
}
static const struct sb_verifier_ops redraw = { .name = "redraw", .verify = redraw_verify };

static void redrawing_from_the_target_after_a_rejection_is_caught(void **state)
{
    (void)state;
    struct enum_result r = run_planted(&redraw, enum_propose_top, 1);
    close_to(r.first[1], .3 + .7 * .3);
    close_to(r.variation, .21);
}

/* Methods C 3: dropping a token already drawn because q of it is low. */
static void propose_and_drop(const struct enum_case *c, const struct sb_dice *dice,
                             struct sb_tree *tree)
{
    const double *q = enum_row(c->draft, NULL, 0);
    size_t t = dice->pick(dice->self, q, c->draft->n_vocab);
    if (q[t] >= .5)
        sb_tree_draw(tree, 0, (sb_token)t, SB_DRAW_IID, q, (float)log(q[t]), 0);
}

static void dropping_unlikely_draws_is_caught(void **state)
{
    (void)state;
    const double p[] = { .9, .1 };
    struct enum_result r = run_toy(p, p, 2, "rejection", &exact, 1, 1, propose_and_drop);
    close_to(r.first[0], .99);
    close_to(r.variation, .09);
}

static void greedy_is_caught_as_no_sampler(void **state)
{
    (void)state;
    struct enum_result r = run_toy(toy_p, toy_q, 3, "greedy", NULL, 2, 1, enum_propose_iid);
    close_to(r.first[0], 1);
    assert_true(r.variation > .4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_verifiers_leave_the_law_unchanged_on_random_tables),
        cmocka_unit_test(rejection_keeps_the_law_behind_the_sampling_transform),
        cmocka_unit_test(acceptance_has_the_published_values),
        cmocka_unit_test(lenience_has_its_published_law_and_bound),
        cmocka_unit_test(the_two_parameter_form_accepts_more_and_is_lossy),
        cmocka_unit_test(deterministic_children_under_a_sampling_rule_are_caught),
        cmocka_unit_test(a_deterministic_chain_under_rejection_is_caught),
        cmocka_unit_test(redrawing_from_the_target_after_a_rejection_is_caught),
        cmocka_unit_test(dropping_unlikely_draws_is_caught),
        cmocka_unit_test(greedy_is_caught_as_no_sampler),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Laws made from both models' rows: what they are, and that their verifiers sample them exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/property/toy_tables.h"

/* K i.i.d. paths: as many draws at a node as paths arrive there. */
static void propose_paths(const struct sb_enum_case *c, const struct sb_dice *dice,
                          struct sb_tree *tree)
{
    for (int32_t node = 0; node < tree->n; node++) {
        sb_token x[(SB_ENUM_DEPTH + 1)];
        int32_t depth = tree->node[node].depth, arrived = node == 0 ? c->width : 0;
        for (int32_t i = node, d = depth; d-- > 0; i = tree->node[i].parent)
            x[d] = tree->node[i].token;
        for (int32_t d = 0; d < tree->n_draws; d++)
            arrived += tree->draw[d] == node;
        const double *q = sb_enum_row(c->draft, x, (size_t)depth);
        for (int32_t i = 0; i < arrived && depth < c->depth; i++) {
            size_t t = dice->pick(dice->self, q, c->draft->n_vocab);
            sb_tree_draw(tree, node, (sb_token)t, SB_DRAW_PATHS, q, 0, 0);
        }
    }
}

static const struct {
    proposer *propose;
    int32_t depth, width;
    size_t n_vocab;
} shapes[] = {
    { enum_propose_iid, 3, 1, 3 }, { enum_propose_iid, 1, 3, 5 }, { enum_propose_iid, 2, 2, 2 },
    { enum_propose_wor, 2, 2, 3 }, { enum_propose_wor, 1, 4, 5 }, { enum_propose_top, 2, 2, 4 },
    { propose_paths, 2, 2, 3 },
};

static void verifiers_of_a_law_sample_it_exactly(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "speccascade-chow:alpha=0.3",
        "speccascade-diff:alpha=0.1",
        "speccascade-opt:alpha=0.4",
        "speccascade-token1:alpha=0.2",
        "speccascade-token2:alpha=0.2",
        "speccascade-token3:alpha=0.5",
        "scd",
        "scd:beta=2,a=0,bonus=expert",
        "ot-flow", /* which has no law of its own, on paths */
    };
    static struct sb_enum_table p, q;
    struct sb_rng rng = sb_rng_make(21, SB_STREAM_INIT);
    for (size_t v = 0; v < sizeof texts / sizeof *texts; v++) {
        struct plug plug;
        double moved = 0;
        plug_open(&plug, texts[v]);
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
            for (int i = 0; i < 40; i++) {
                enum flavour kind = (enum flavour)(i % N_FLAVOURS);
                if (shapes[s].propose == enum_propose_top && !plug.ops->law)
                    continue;
                random_tables(&p, &q, shapes[s].n_vocab, kind, &rng);
                struct enum_result r =
                    enum_run(&(struct sb_enum_case){ .target = &p,
                                                     .draft = &q,
                                                     .propose = shapes[s].propose,
                                                     .depth = shapes[s].depth,
                                                     .width = shapes[s].width,
                                                     .verifier = plug.ops,
                                                     .params = plug.params });
                assert_int_equal(r.status, SB_OK);
                close_to(r.total, 1);
                if (!(r.max_error < 1e-12))
                    fail_msg("%s, shape %zu, table %d: error %g", texts[v], s, i, r.max_error);
                for (size_t t = 0; t < shapes[s].n_vocab; t++)
                    moved += fabs(r.first[t] - p.row[0][t]);
            }
        }
        assert_true(!plug.ops->law == !(moved > 1)); /* lossy with respect to the target */
        plug_close(&plug);
    }
}

/* A coupling against the target in the place of pi, to see that the certifier looks at pi. */
static void sampling_the_target_in_the_place_of_the_law_is_caught(void **state)
{
    (void)state;
    static struct sb_enum_table p, q;
    struct plug plug;
    fill(&p, 3, toy_p);
    fill(&q, 3, toy_q);
    plug_open(&plug, "scd");
    struct sb_verifier_ops wrong = *plug.ops;
    wrong.verify = sb_verifier_find("naive-sample")->verify;
    struct enum_result r = enum_run(&(struct sb_enum_case){ .target = &p,
                                                            .draft = &q,
                                                            .propose = enum_propose_iid,
                                                            .depth = 1,
                                                            .width = 1,
                                                            .verifier = &wrong,
                                                            .params = plug.params });
    assert_true(r.variation > .1);
    plug_close(&plug);
}

/* ---- known figures ---- */

static void law_is(const char *text, const double *p, const double *q, size_t n, const double *want)
{
    double pi[SB_ENUM_VOCAB];
    struct plug plug;
    plug_open(&plug, text);
    plug.ops->law(plug.params, pi, p, q, n);
    for (size_t t = 0; t < n; t++)
        if (!(fabs(pi[t] - want[t]) < 1e-12))
            fail_msg("%s: pi(%zu) = %.15g, expected %.15g", text, t, pi[t], want[t]);
    plug_close(&plug);
}

static void cascades_have_their_published_laws(void **state)
{
    (void)state;
    const double third[] = { .3, .66, .04 };
    law_is("speccascade-opt:alpha=0", toy_p, toy_q, 3, toy_q);
    law_is("speccascade-opt:alpha=0.5", toy_p, toy_q, 3, toy_q);
    law_is("speccascade-opt:alpha=0.5", toy_q, toy_p, 3, toy_p); /* .5 < .6 - .5 * .3 is false */
    law_is("speccascade-opt:alpha=0.3", toy_q, toy_p, 3, toy_q); /* .5 < .6 - .3 * .3 */
    law_is("speccascade-chow:alpha=0.2", toy_p, toy_q, 3, toy_p);
    law_is("speccascade-chow:alpha=0.5", toy_p, toy_q, 3, toy_q);
    law_is("speccascade-diff:alpha=0.05", toy_q, toy_p, 3, toy_q);
    law_is("speccascade-diff:alpha=0.15", toy_q, toy_p, 3, toy_p);
    law_is("speccascade-token3:alpha=0.5", toy_p, toy_q, 3, third);
    const double first[] = { .2 * 0 + .5 * .4, .6 + .3 * .4, .2 * .4 }; /* A, C below .5 - .1 */
    law_is("speccascade-token1:alpha=0.1", toy_p, toy_q, 3, first);
    const double second[] = { .2 + .5 * .8, .3 * .8, .2 * .8 }; /* B, C below .5 - .1 */
    law_is("speccascade-token2:alpha=0.1", toy_p, toy_q, 3, second);
    law_is("speccascade-token3:alpha=0.5", toy_p, NULL, 3, toy_p);
    law_is("speccascade-opt", toy_p, NULL, 3, toy_p);

    /* pi = q: everything is accepted. */
    struct enum_result r = run_rows("speccascade-opt", enum_propose_iid, 3, 1, 3, toy_p, toy_q);
    close_to(r.accepted, 3);
    r = run_rows("speccascade-token3:alpha=0.5", enum_propose_iid, 1, 1, 3, toy_p, toy_q);
    close_to(r.first_accept, .2 + .6 + .04);
}

static void cascades_reach_both_models_at_the_ends_of_alpha(void **state)
{
    (void)state;
    static const char *const never[] = {
        "speccascade-chow:alpha=1",   "speccascade-diff:alpha=1",   "speccascade-opt:alpha=1",
        "speccascade-token1:alpha=1", "speccascade-token2:alpha=1", "speccascade-token3:alpha=1"
    };
    struct sb_rng rng = sb_rng_make(22, SB_STREAM_INIT);
    for (int i = 0; i < 2000; i++) {
        double p[4], q[4], best_p = 0, best_q = 0;
        random_row(p, 4, &rng);
        random_row(q, 4, &rng);
        for (size_t v = 0; v < 6; v++)
            law_is(never[v], p, q, 4, q);
        for (size_t t = 0; t < 4; t++) {
            best_p = fmax(best_p, p[t]);
            best_q = fmax(best_q, q[t]);
        }
        law_is("speccascade-chow:alpha=0", p, q, 4, best_q < 1 ? p : q);
        law_is("speccascade-diff:alpha=0", p, q, 4, best_q < best_p ? p : q);
    }
}

static void the_contrast_has_its_published_law(void **state)
{
    (void)state;
    /* s = (-.235, -1.551, -1.609) */
    double want[] = { pow(.5, 1.5) / sqrt(.2), pow(.3, 1.5) / sqrt(.6), pow(.2, 1.5) / sqrt(.2) };
    assert_true(fabs(log(want[0]) + .235) < 5e-4 && fabs(log(want[1]) + 1.551) < 5e-4 &&
                fabs(log(want[2]) + 1.609) < 5e-4);
    double sum = want[0] + want[1] + want[2], accepted = 0;
    for (size_t t = 0; t < 3; t++) {
        want[t] /= sum;
        accepted += fmin(want[t], toy_q[t]);
    }
    assert_true(fabs(want[0] - .657) < 5e-4 && fabs(want[1] - .176) < 5e-4 &&
                fabs(want[2] - .166) < 5e-4 && fabs(accepted - .543) < 5e-4);
    law_is("scd", toy_p, toy_q, 3, want);
    struct enum_result r = run_rows("scd", enum_propose_iid, 1, 1, 3, toy_p, toy_q);
    close_to(r.first_accept, accepted);

    law_is("scd:beta=0,a=0", toy_p, toy_q, 3, toy_p);
    law_is("scd", toy_p, NULL, 3, toy_p);
    const double first[] = { 1, 0, 0 };
    law_is("scd:a=0.7", toy_p, toy_q, 3, first);
    /* Where q = 0 the smallest q stands in. */
    const double p[] = { .5, .3, .2 }, q[] = { .25, .75, 0 };
    double s[] = { pow(.5, 1.5) / sqrt(.25), pow(.3, 1.5) / sqrt(.75), pow(.2, 1.5) / sqrt(.25) };
    sum = s[0] + s[1] + s[2];
    for (size_t t = 0; t < 3; t++)
        s[t] /= sum;
    law_is("scd", p, q, 3, s);
}

static void rows_behind_a_full_draft_are_wanted_for_a_contrast_only(void **state)
{
    (void)state;
    struct plug contrast, expert;
    plug_open(&contrast, "scd:bonus=contrast");
    plug_open(&expert, "scd:bonus=expert");
    assert_int_equal(sb_verifier_draft_rows(contrast.ops, contrast.params), SB_DRAFT_ROWS_ALL);
    assert_int_equal(sb_verifier_draft_rows(expert.ops, expert.params), SB_DRAFT_ROWS_PARENTS);
    assert_int_equal(sb_verifier_draft_rows(expert.ops, NULL), SB_DRAFT_ROWS_ALL);
    assert_int_equal(sb_verifier_draft_rows(sb_verifier_find("rejection"), NULL),
                     SB_DRAFT_ROWS_NONE);
    plug_close(&contrast);
    plug_close(&expert);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verifiers_of_a_law_sample_it_exactly),
        cmocka_unit_test(sampling_the_target_in_the_place_of_the_law_is_caught),
        cmocka_unit_test(cascades_have_their_published_laws),
        cmocka_unit_test(cascades_reach_both_models_at_the_ends_of_alpha),
        cmocka_unit_test(the_contrast_has_its_published_law),
        cmocka_unit_test(rows_behind_a_full_draft_are_wanted_for_a_contrast_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

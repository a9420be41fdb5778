/* Every exact verifier leaves the target's law unchanged, by exact enumeration; wrong rules do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "harness/core/rng.h"
#include "tests/property/enumerate.h"
#include "tests/property/toy_tables.h"

struct rejection_params {
    double lenience, alpha, beta;
};
static const struct rejection_params exact = { 1, 0, 1 };

/* A target and two drafters. */
static struct tables {
    struct sb_enum_table p, q, second;
} toys;

static void random_toys(struct tables *t, size_t n, enum flavour kind, struct sb_rng *rng)
{
    t->p.n_vocab = t->q.n_vocab = t->second.n_vocab = n;
    for (size_t i = 0; i < sizeof t->p.row / sizeof *t->p.row; i++) {
        double *p = t->p.row[i], *q = t->q.row[i], *second = t->second.row[i];
        size_t cut = 1 + sb_rng_below(rng, n - 1);
        memset(p, 0, n * sizeof *p);
        memset(q, 0, n * sizeof *q);
        memset(second, 0, n * sizeof *second);
        if (kind == DISJOINT) {
            random_row(p, cut, rng);
            random_row(q + cut, n - cut, rng);
            random_row(second + cut, n - cut, rng);
            continue;
        }
        random_row(p, n, rng);
        random_row(q, n, rng);
        random_row(second, n, rng);
        if (kind == EQUAL) {
            memcpy(q, p, n * sizeof *p);
            memcpy(second, p, n * sizeof *p);
        }
        if (kind == WHOLE) {
            whole_row(p, n, rng);
            whole_row(q, n, rng);
            whole_row(second, n, rng);
        }
        if (kind == ONE_HOT) {
            one_hot(q, n, rng);
            one_hot(second, n, rng);
        }
    }
}

static struct enum_result run_tables(const struct tables *t, const char *verifier,
                                     enum_propose *propose, int32_t depth, int32_t width)
{
    struct plug plug;
    plug_open(&plug, verifier);
    struct enum_result r = enum_run(&(struct sb_enum_case){ .target = &t->p,
                                                            .draft = &t->q,
                                                            .second = &t->second,
                                                            .propose = propose,
                                                            .depth = depth,
                                                            .width = width,
                                                            .verifier = plug.ops,
                                                            .params = plug.params });
    plug_close(&plug);
    assert_int_equal(r.status, SB_OK);
    close_to(r.total, 1);
    return r;
}

struct shape {
    const char *verifier;
    enum_propose *propose;
    int32_t depth, width;
    size_t n_vocab;
    int tables; /* 0: 100 */
};

/* Trees with V^depth sequences and every draw enumerated: most of these sizes take milliseconds, and
 * the others see fewer tables. Every verifier meets 200 tables and more, on chains and trees. */
static const struct shape shapes[] = {
    { "rejection", enum_propose_iid, 1, 1, 5 },
    { "rejection", enum_propose_iid, 3, 1, 3 },
    { "rejection", enum_propose_iid, 2, 1, 4 },
    { "rejection", enum_propose_top, 3, 1, 4 },
    { "rejection", enum_propose_wor, 3, 1, 3 },
    { "rejection", enum_propose_paths, 3, 1, 3 },
    { "naive-sample", enum_propose_iid, 3, 1, 3 },
    { "naive-sample", enum_propose_top, 3, 1, 4 },
    { "naive-sample", enum_propose_iid, 1, 3, 4 },
    { "naive-sample", enum_propose_iid, 2, 2, 3 },
    { "naive-sample", enum_propose_wor, 2, 2, 3 },
    { "naive-sample", enum_propose_top, 3, 2, 3 },
    { "gumbel-coupled", enum_propose_iid, 2, 2, 3 },
    { "gumbel-coupled", enum_propose_top, 3, 2, 3 },
    { "gumbel-coupled", enum_propose_mix, 2, 2, 3 },
    { "rrs", enum_propose_iid, 1, 3, 5 },
    { "rrs", enum_propose_wor, 1, 4, 4 },
    { "rrs", enum_propose_wor, 1, 3, 5 },
    { "rrs", enum_propose_top, 2, 2, 4 },
    { "rrs", enum_propose_iid, 2, 2, 2 },
    { "rrs", enum_propose_wor, 3, 1, 3 },
    { "rrs", enum_propose_wor, 2, 2, 3, 40 },
    { "rrs", enum_propose_iid, 2, 2, 3, 40 },
    { "rrs", enum_propose_paths, 2, 3, 3, 40 },
    { "mss", enum_propose_iid, 1, 3, 4 },
    { "mss", enum_propose_mix, 1, 2, 5 },
    { "mss", enum_propose_mix, 1, 3, 3 },
    { "mss", enum_propose_mix, 3, 1, 3 },
    { "mss", enum_propose_mix, 2, 2, 2 },
    { "mss", enum_propose_paths, 2, 2, 3, 40 },
    { "k-seq", enum_propose_iid, 1, 3, 5 },
    { "k-seq", enum_propose_iid, 1, 4, 3 },
    { "k-seq", enum_propose_iid, 3, 1, 3 },
    { "k-seq", enum_propose_iid, 2, 2, 2 },
    { "k-seq", enum_propose_paths, 2, 3, 3, 40 },
    { "block", enum_propose_iid, 1, 1, 5 },
    { "block", enum_propose_iid, 3, 1, 3 },
    { "block", enum_propose_iid, 2, 1, 4 },
    { "block", enum_propose_top, 3, 1, 4 },
    { "block", enum_propose_wor, 3, 1, 3 },
    { "block", enum_propose_paths, 3, 1, 3 },
    { "traversal", enum_propose_iid, 3, 1, 3 },
    { "traversal", enum_propose_iid, 1, 3, 5 },
    { "traversal", enum_propose_wor, 1, 4, 4 },
    { "traversal", enum_propose_top, 2, 2, 4 },
    { "traversal", enum_propose_top, 3, 2, 3 },
    { "traversal", enum_propose_iid, 2, 2, 2 },
    { "traversal", enum_propose_wor, 2, 2, 3, 40 },
    { "traversal", enum_propose_iid, 2, 2, 3, 40 },
    { "traversal", enum_propose_paths, 2, 3, 3, 40 },
    { "gbv", enum_propose_paths, 1, 3, 4 },
    { "gbv", enum_propose_paths, 1, 2, 5 },
    { "gbv", enum_propose_paths, 3, 1, 3 },
    { "gbv", enum_propose_paths, 2, 2, 3 },
    { "gbv", enum_propose_paths, 3, 2, 2 },
    { "gbv", enum_propose_paths, 2, 3, 3, 40 },
    { "gbv", enum_propose_paths, 3, 2, 3, 20 },
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

/* Does it accept every draw of a drafter that is the target? */
static bool keeps_equal_drafts(const char *verifier)
{
    static const char *const names[] = { "rejection", "rrs",       "mss",     "k-seq",
                                         "block",     "traversal", "ot-flow", "topk-plus-one" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(names[i], verifier) == 0)
            return true;
    return false;
}

static void exact_verifiers_leave_the_law_unchanged_on_random_tables(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(11, SB_STREAM_INIT);
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        const struct shape *shape = &shapes[s];
        for (int i = 0; i < (shape->tables ? shape->tables : 100); i++) {
            enum flavour kind = (enum flavour)(i % N_FLAVOURS);
            random_toys(&toys, shape->n_vocab, kind, &rng);
            struct enum_result r =
                run_tables(&toys, shape->verifier, shape->propose, shape->depth, shape->width);
            if (!(r.max_error < 1e-12))
                fail_msg("%s, shape %zu, table %d: error %g", shape->verifier, s, i, r.max_error);
            bool sampled = shape->propose != enum_propose_top;
            if (kind == EQUAL && sampled && shape->propose != enum_propose_paths &&
                keeps_equal_drafts(shape->verifier))
                close_to(r.accepted, shape->depth);
            if (kind == DISJOINT && sampled)
                close_to(r.accepted, 0);
        }
    }
}

static void every_exact_verifier_of_the_registry_is_among_the_shapes(void **state)
{
    (void)state;
    for (size_t v = 0; sb_verifiers[v]; v++) {
        int tables = 0;
        for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
            if (strcmp(shapes[s].verifier, sb_verifiers[v]->name) == 0)
                tables += shapes[s].tables ? shapes[s].tables : 100;
        if (sb_verifiers[v]->guarantee == SB_DISTRIBUTION_EXACT && tables < 200)
            fail_msg("%s was proven on %d tables", sb_verifiers[v]->name, tables);
    }
}

/* The rows that decoding uses: logits through S at temperature 0.8, with top-k and top-p. */
static void rejection_keeps_the_law_behind_the_sampling_transform(void **state)
{
    (void)state;
    static struct sb_enum_table p, q;
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
            enum_run(&(struct sb_enum_case){ .target = &p,
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
                                  enum_propose *propose)
{
    static struct sb_enum_table target, draft;
    fill(&target, n, p);
    fill(&draft, n, q);
    struct enum_result r = enum_run(&(struct sb_enum_case){ .target = &target,
                                                            .draft = &draft,
                                                            .second = &draft,
                                                            .propose = propose,
                                                            .depth = depth,
                                                            .width = width,
                                                            .verifier = sb_verifier_find(verifier),
                                                            .params = params });
    assert_int_equal(r.status, SB_OK);
    return r;
}

/* Methods A 3 and 9: expected accepted drafts on the toy rows. */
static void acceptance_has_the_published_values(void **state)
{
    (void)state;
    static const struct {
        const char *verifier;
        enum_propose *propose;
        int32_t depth, width;
        double accepted;
    } golden[] = {
        { "rejection", enum_propose_iid, 1, 1, .7 },
        { "rejection", enum_propose_iid, 2, 1, 1.19 },
        { "rejection", enum_propose_top, 1, 1, .3 },
        { "naive-sample", enum_propose_iid, 1, 1, .32 },
        { "naive-sample", enum_propose_top, 1, 2, .8 },
        { "gumbel-coupled", enum_propose_top, 1, 2, .8 },
        { "rrs", enum_propose_iid, 2, 1, 1.19 },
        { "rrs", enum_propose_iid, 1, 2, .76 },
        { "rrs", enum_propose_wor, 1, 2, .85 },
        { "rrs", enum_propose_top, 1, 2, .8 },
        { "rrs", enum_propose_iid, 2, 2, 1.3376 },
        { "rrs", enum_propose_wor, 2, 2, 1.5725 },
        { "mss", enum_propose_iid, 1, 2, .76 },
        { "mss", enum_propose_mix, 1, 2, .76 },
        { "mss", enum_propose_iid, 2, 2, 1.3376 },
        { "block", enum_propose_iid, 1, 1, .7 },
        { "block", enum_propose_iid, 2, 1, 1.25 },
        { "traversal", enum_propose_iid, 2, 1, 1.25 },
        { "traversal", enum_propose_iid, 2, 2, 1.4096 },
        { "traversal", enum_propose_wor, 2, 2, 1.6175 },
        { "traversal", enum_propose_top, 1, 2, .8 },
        { "gbv", enum_propose_paths, 1, 2, .86 }, /* the bound for two independent draws, A 3.9 */
    };
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++)
        close_to(run_toy(toy_p, toy_q, 3, golden[i].verifier, &exact, golden[i].depth,
                         golden[i].width, golden[i].propose)
                     .accepted,
                 golden[i].accepted);
}

static void chains_of_opposite_rows_have_the_published_values(void **state)
{
    (void)state;
    const double p[] = { 1. / 3, 2. / 3 }, q[] = { 2. / 3, 1. / 3 };
    const double want[2][3] = { { 2. / 3, 10. / 9, 38. / 27 }, { 2. / 3, 11. / 9, 5. / 3 } };
    static const struct {
        const char *verifier;
        bool by_block;
    } rules[] = { { "rejection", false }, { "rrs", false },  { "mss", false },
                  { "k-seq", false },     { "block", true }, { "traversal", true } };
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        for (int32_t k = 1; k <= 3; k++)
            close_to(run_toy(p, q, 2, rules[i].verifier, &exact, k, 1, enum_propose_iid).accepted,
                     want[rules[i].by_block][k - 1]);
    for (int32_t k = 2; k <= 3; k++) /* one path, selected from one: block */
        close_to(run_toy(toy_p, toy_q, 3, "gbv", &exact, k, 1, enum_propose_paths).accepted,
                 run_toy(toy_p, toy_q, 3, "block", &exact, k, 1, enum_propose_paths).accepted);
}

/* Methods A 3.6: rho is the root of rho^2 - 1.8 rho + .5, and a draw passes with beta = .2 + .5 / rho. */
static void sequential_selection_has_the_published_values(void **state)
{
    (void)state;
    double rho = (1.8 + sqrt(1.24)) / 2, miss = 1 - (.2 + .5 / rho);
    assert_true(fabs(rho - 1.4567764) < 1e-7); /* the card's 1.4567766 is a slip */
    struct enum_result r = run_toy(toy_p, toy_q, 3, "k-seq", NULL, 1, 2, enum_propose_iid);
    close_to(r.accepted, 1 - miss * miss);
    assert_true(fabs(r.accepted - .7913552) < 1e-7);
    double both = r.accepted * (1 + r.accepted); /* more than `traversal`, 1.4096 */
    close_to(run_toy(toy_p, toy_q, 3, "k-seq", NULL, 2, 2, enum_propose_iid).accepted, both);
    r = run_toy(toy_p, toy_q, 3, "k-seq", NULL, 1, 1, enum_propose_iid); /* rho = 1 */
    close_to(r.accepted, .7);
}

/* Of draws from two rows, which is tested first matters for acceptance: .73 and .72 here. */
static void multi_step_sampling_tests_in_random_order(void **state)
{
    (void)state;
    static const double other[] = { .1, .1, .8 };
    fill(&toys.p, 3, toy_p);
    fill(&toys.q, 3, toy_q);
    fill(&toys.second, 3, other);
    close_to(run_tables(&toys, "mss", enum_propose_mix, 1, 2).accepted, (.73 + .72) / 2);
}

static void same_step(struct enum_result a, struct enum_result b)
{
    close_to(a.accepted, b.accepted);
    close_to(a.first_accept, b.first_accept);
}

/* Methods A 9: rules that are one rule where each node has one draw, and who never does worse. */
static void rules_coincide_where_they_should(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(13, SB_STREAM_INIT);
    double gain = 0;
    for (int i = 0; i < 60; i++) {
        random_toys(&toys, 3, (enum flavour)(i % N_FLAVOURS), &rng);
        struct enum_result rejection = run_tables(&toys, "rejection", enum_propose_iid, 3, 1);
        same_step(run_tables(&toys, "rrs", enum_propose_iid, 3, 1), rejection);
        same_step(run_tables(&toys, "mss", enum_propose_iid, 3, 1), rejection);
        same_step(run_tables(&toys, "k-seq", enum_propose_iid, 3, 1), rejection);
        same_step(run_tables(&toys, "traversal", enum_propose_iid, 1, 1),
                  run_tables(&toys, "rejection", enum_propose_iid, 1, 1));
        struct enum_result block = run_tables(&toys, "block", enum_propose_iid, 3, 1);
        same_step(run_tables(&toys, "traversal", enum_propose_iid, 3, 1), block);
        assert_true(block.accepted >= rejection.accepted - 1e-12);
        gain += block.accepted - rejection.accepted;
        same_step(run_tables(&toys, "gbv", enum_propose_paths, 3, 1),
                  run_tables(&toys, "block", enum_propose_paths, 3, 1));
        same_step(run_tables(&toys, "rrs", enum_propose_top, 2, 2),
                  run_tables(&toys, "naive-sample", enum_propose_top, 2, 2));
        same_step(run_tables(&toys, "mss", enum_propose_iid, 1, 3),
                  run_tables(&toys, "rrs", enum_propose_iid, 1, 3));
        static enum_propose *const trees[] = { enum_propose_iid, enum_propose_wor };
        for (size_t k = 0; k < 2 && i < 30; k++)
            assert_true(run_tables(&toys, "traversal", trees[k], 2, 2).accepted >=
                        run_tables(&toys, "rrs", trees[k], 2, 2).accepted - 1e-12);
    }
    assert_true(gain > .1);
}

/* A lossy rule is a rule that some table catches; with capped weights it would be `block`. */
static void the_reading_of_hsd_is_lossy(void **state)
{
    (void)state;
    const double p[] = { 1. / 3, 2. / 3 }, q[] = { 2. / 3, 1. / 3 };
    struct enum_result r = run_toy(p, q, 2, "hsd-experimental", NULL, 1, 1, enum_propose_iid);
    assert_true(r.max_error < 1e-12); /* one token: block verification, and rejection */
    r = run_toy(p, q, 2, "hsd-experimental", NULL, 3, 1, enum_propose_iid);
    close_to(r.variation, 1. / 9);
    r = run_toy(toy_p, toy_q, 3, "hsd-experimental", NULL, 2, 1, enum_propose_iid);
    close_to(r.variation, .06);
    struct sb_rng rng = sb_rng_make(14, SB_STREAM_INIT);
    double mean = 0;
    for (int i = 0; i < 50; i++) {
        random_toys(&toys, 3, PLAIN, &rng);
        mean += run_tables(&toys, "hsd-experimental", enum_propose_iid, 3, 1).variation / 50;
    }
    assert_true(mean > .01);
    random_toys(&toys, 3, EQUAL, &rng);
    r = run_tables(&toys, "hsd-experimental", enum_propose_iid, 3, 1);
    assert_true(r.max_error < 1e-12);
    close_to(r.accepted, 3);
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

/* Top-2 children, passed off as drawn without replacement. */
static void propose_top_as_wor(const struct sb_enum_case *c, const struct sb_dice *dice,
                               struct sb_tree *tree)
{
    const double *q = sb_enum_row(c->draft, NULL, 0);
    sb_token order[2] = { 1, 0 }; /* toy_q: .6, then .2 */
    for (int i = 0; i < 2; i++)
        sb_tree_draw(tree, 0, order[i], SB_DRAW_WOR, q, (float)log(q[order[i]]), 0);
}

static struct enum_result run_planted(const struct sb_verifier_ops *verifier, enum_propose *propose,
                                      int32_t width)
{
    static struct sb_enum_table target, draft;
    fill(&target, 3, toy_p);
    fill(&draft, 3, toy_q);
    struct enum_result r = enum_run(&(struct sb_enum_case){ .target = &target,
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
    struct enum_result right = run_planted(sb_verifier_find("rrs"), enum_propose_wor, 2);
    close_to(right.first_accept, .85);
    assert_true(right.max_error < 1e-12);
    struct enum_result wrong = run_planted(sb_verifier_find("rrs"), propose_top_as_wor, 2);
    close_to(wrong.first_accept, 1);
    close_to(wrong.variation, .2);
}

/* One deterministic token, passed off as drawn from q. */
static void propose_top_as_iid(const struct sb_enum_case *c, const struct sb_dice *dice,
                               struct sb_tree *tree)
{
    sb_tree_draw(tree, 0, 1, SB_DRAW_IID, sb_enum_row(c->draft, NULL, 0), (float)log(.6), 0);
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
static void propose_and_drop(const struct sb_enum_case *c, const struct sb_dice *dice,
                             struct sb_tree *tree)
{
    const double *q = sb_enum_row(c->draft, NULL, 0);
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
        cmocka_unit_test(every_exact_verifier_of_the_registry_is_among_the_shapes),
        cmocka_unit_test(rejection_keeps_the_law_behind_the_sampling_transform),
        cmocka_unit_test(acceptance_has_the_published_values),
        cmocka_unit_test(chains_of_opposite_rows_have_the_published_values),
        cmocka_unit_test(sequential_selection_has_the_published_values),
        cmocka_unit_test(multi_step_sampling_tests_in_random_order),
        cmocka_unit_test(rules_coincide_where_they_should),
        cmocka_unit_test(the_reading_of_hsd_is_lossy),
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

/* verifiers/: walks, decision logs, broken input, and which pairs are lawful. Laws are tested by
 * enumeration in tests/property. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/decode/verifier.h"

enum { V = 4, CAP = 16 };

/* One row for every node, or a row per node. */
struct table {
    double row[CAP][V];
    size_t n_vocab;
    int32_t asked[CAP];
    int32_t n_asked;
};

static const double *table_row(void *self, int32_t node)
{
    struct table *t = self;
    t->asked[t->n_asked++ % CAP] = node;
    return t->row[node];
}

static size_t table_argmax(void *self, int32_t node)
{
    struct table *t = self;
    const double *row = table_row(self, node);
    size_t best = 0;
    for (size_t i = 0; i < t->n_vocab; i++) {
        if (isnan(row[i]))
            return t->n_vocab;
        if (row[i] > row[best])
            best = i;
    }
    return best;
}

/* Dice with a fixed uniform number. */
static bool fixed_flip(void *self, double probability)
{
    return *(double *)self < probability;
}

static size_t fixed_pick(void *self, const double *weight, size_t n)
{
    return sb_pick_by(*(double *)self, weight, n);
}

struct rig {
    struct sb_tree tree;
    struct table table;
    int32_t path[CAP];
    uint8_t decision[CAP];
    struct sb_verdict verdict;
    double u;
};

struct rejection_params {
    double lenience, alpha, beta;
};
static const struct rejection_params exact = { 1, 0, 1 };

static void rig_open(struct rig *rig)
{
    *rig = (struct rig){ .table.n_vocab = V };
    assert_int_equal(sb_tree_create(&rig->tree, CAP, NULL), SB_OK);
    sb_tree_reset(&rig->tree, 0, CAP);
    rig->verdict = (struct sb_verdict){ .path = rig->path, .decision = rig->decision };
}

/* With the verifier's default parameters. */
static enum sb_status verify(struct rig *rig, const char *name, struct sb_error *err)
{
    double scratch[1024], params[8];
    const struct sb_verifier_ops *v = sb_verifier_find(name);
    assert_non_null(v);
    assert_true(v->params_size <= sizeof params);
    assert_int_equal(sb_params_apply(params, v->params, NULL, name, NULL), SB_OK);
    assert_true(!v->scratch_size || v->scratch_size(params, V, CAP) <= sizeof scratch);
    memset(scratch, 0xff, sizeof scratch);
    struct sb_dice dice = { .flip = fixed_flip, .pick = fixed_pick, .self = &rig->u };
    struct sb_rows rows = {
        .row = table_row, .argmax = table_argmax, .self = &rig->table, .n_vocab = rig->table.n_vocab
    };
    rig->table.n_asked = 0;
    return v->verify(params, &rig->tree, &rows, &dice, scratch, &rig->verdict, err);
}

static void set_row(struct rig *rig, int32_t node, double a, double b, double c, double d)
{
    const double row[V] = { a, b, c, d };
    memcpy(rig->table.row[node], row, sizeof row);
}

/* Root -> 1, 2; 1 -> 1, 3. */
static void grow(struct rig *rig)
{
    sb_tree_add(&rig->tree, 0, 1, 0);
    sb_tree_add(&rig->tree, 0, 2, 0);
    sb_tree_add(&rig->tree, 1, 1, 0);
    sb_tree_add(&rig->tree, 1, 3, 0);
}

static void greedy_and_naive_walk_to_the_leaf_that_matches(void **state)
{
    (void)state;
    static const char *const names[] = { "greedy", "naive-sample" };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        rig_open(&rig);
        grow(&rig);
        set_row(&rig, 0, 0, 1, 0, 0);
        set_row(&rig, 1, 0, 0, 0, 1);
        set_row(&rig, 4, 1, 0, 0, 0);
        assert_int_equal(verify(&rig, names[i], NULL), SB_OK);
        const int32_t path[] = { 0, 1, 4 };
        const uint8_t decision[] = { SB_ACCEPTED, SB_ACCEPTED, SB_REJECTED, SB_REJECTED,
                                     SB_ACCEPTED };
        assert_int_equal(rig.verdict.n_path, 3);
        assert_memory_equal(rig.path, path, sizeof path);
        assert_memory_equal(rig.decision, decision, sizeof decision);
        assert_int_equal(rig.verdict.final_token, 0);
        assert_true(rig.verdict.bonus);
        assert_int_equal(rig.table.n_asked, 3); /* rows are asked for lazily */
        sb_tree_finish(&rig.tree);
    }
}

static void a_mismatch_ends_the_walk_with_a_correction(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig);
    grow(&rig);
    set_row(&rig, 0, .4, .1, .3, .2);
    assert_int_equal(verify(&rig, "greedy", NULL), SB_OK);
    const uint8_t decision[] = { SB_ACCEPTED, SB_REJECTED, SB_REJECTED, SB_NOT_REACHED,
                                 SB_NOT_REACHED };
    assert_memory_equal(rig.decision, decision, sizeof decision);
    assert_int_equal(rig.verdict.n_path, 1);
    assert_int_equal(rig.verdict.final_token, 0);
    assert_false(rig.verdict.bonus);
    sb_tree_finish(&rig.tree);
}

static void an_empty_tree_is_a_plain_step_for_every_verifier(void **state)
{
    (void)state;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        struct rig rig;
        rig_open(&rig);
        rig.u = .5;
        set_row(&rig, 0, 0, 0, 1, 0);
        assert_int_equal(verify(&rig, sb_verifiers[i]->name, NULL), SB_OK);
        assert_int_equal(rig.verdict.n_path, 1);
        assert_int_equal(rig.verdict.final_token, 2);
        assert_true(rig.verdict.bonus);
        sb_tree_finish(&rig.tree);
    }
}

static void auxiliary_nodes_are_never_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        struct rig rig;
        rig_open(&rig);
        sb_tree_add_auxiliary(&rig.tree, 0, 2, 0);
        set_row(&rig, 0, 0, 0, 1, 0);
        assert_int_equal(verify(&rig, sb_verifiers[i]->name, NULL), SB_OK);
        assert_int_equal(rig.verdict.n_path, 1);
        assert_int_equal(rig.decision[1], SB_NOT_REACHED);
        assert_true(rig.verdict.bonus);
        sb_tree_finish(&rig.tree);
    }
}

/* A child of any kind that was drawn from q. */
static int32_t draw(struct sb_tree *tree, int32_t parent, sb_token token, enum sb_draw_kind kind,
                    const double *q)
{
    return kind == SB_DRAW_ONEHOT ? sb_tree_add(tree, parent, token, 0)
                                  : sb_tree_draw(tree, parent, token, kind, q, 0, 0);
}

static void a_vocabulary_of_one_token_accepts_everything(void **state)
{
    (void)state;
    const double q[] = { 1 };
    for (size_t i = 0; sb_verifiers[i]; i++) {
        for (int kind = SB_DRAW_ONEHOT; kind < SB_DRAW_KINDS; kind++) {
            struct rig rig;
            if (!(sb_verifiers[i]->kinds & SB_KIND_BIT(kind)))
                continue;
            rig_open(&rig);
            rig.table.n_vocab = 1;
            rig.u = 0x1.fffffffffffffp-1;
            for (int32_t node = 0; node < 3; node++)
                rig.table.row[node][0] = 1;
            for (int32_t node = 0; node < 2; node++)
                assert_int_equal(draw(&rig.tree, node, 0, (enum sb_draw_kind)kind, q), node + 1);
            assert_int_equal(verify(&rig, sb_verifiers[i]->name, NULL), SB_OK);
            assert_int_equal(rig.verdict.n_path, 3);
            assert_int_equal(rig.verdict.final_token, 0);
            assert_true(rig.verdict.bonus);
            sb_tree_finish(&rig.tree);
        }
    }
}

/* The verifiers that divide by q, each with a kind it takes. */
static const struct by_ratio {
    const char *name;
    enum sb_draw_kind kind;
} by_ratio[] = {
    { "rejection", SB_DRAW_IID },
    { "rejection", SB_DRAW_WOR },
    { "rrs", SB_DRAW_IID },
    { "rrs", SB_DRAW_WOR },
    { "mss", SB_DRAW_MIX },
    { "mss", SB_DRAW_IID },
    { "k-seq", SB_DRAW_IID },
    { "k-seq", SB_DRAW_PATHS },
    { "block", SB_DRAW_IID },
    { "traversal", SB_DRAW_WOR },
    { "traversal", SB_DRAW_PATHS },
    { "gbv", SB_DRAW_PATHS },
    { "hsd-experimental", SB_DRAW_IID },
};
enum { N_BY_RATIO = sizeof by_ratio / sizeof *by_ratio };

/* p = (.5, .3, .2), q = (.2, .6, .2), draft token 1: accepted below .5, else token 0. */
static void rejection_accepts_strictly_below_the_ratio(void **state)
{
    (void)state;
    const double q[V] = { .2, .6, .2, 0 };
    static const struct {
        double u;
        int32_t n_path;
        sb_token final;
    } cases[] = { { .4999, 2, 1 }, { .5, 1, 0 }, { .9999, 1, 0 } };
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        rig_open(&rig);
        sb_tree_draw(&rig.tree, 0, 1, SB_DRAW_IID, q, -.5f, 0);
        set_row(&rig, 0, .5, .3, .2, 0);
        set_row(&rig, 1, 0, 1, 0, 0);
        rig.u = cases[i].u;
        assert_int_equal(verify(&rig, "rejection", NULL), SB_OK);
        assert_int_equal(rig.verdict.n_path, cases[i].n_path);
        assert_int_equal(rig.verdict.final_token, cases[i].final);
        sb_tree_finish(&rig.tree);
    }
}

static void a_probability_of_zero_is_never_accepted_even_at_u_zero(void **state)
{
    (void)state;
    const double q[V] = { 0, 1, 0, 0 };
    for (size_t i = 0; i < N_BY_RATIO; i++) {
        struct rig rig;
        rig_open(&rig);
        draw(&rig.tree, 0, 1, by_ratio[i].kind, q);
        draw(&rig.tree, 1, 1, by_ratio[i].kind, q);
        set_row(&rig, 0, 0, 0, 1, 0);
        set_row(&rig, 1, NAN, NAN, NAN, NAN); /* no path goes there: nobody asks */
        assert_int_equal(verify(&rig, by_ratio[i].name, NULL), SB_OK);
        assert_int_equal(rig.verdict.n_path, 1);
        assert_int_equal(rig.verdict.final_token, 2);
        assert_false(rig.verdict.bonus);
        assert_int_equal(rig.decision[1], SB_REJECTED);
        assert_int_equal(rig.decision[2], SB_NOT_REACHED);
        sb_tree_finish(&rig.tree);
    }
}

static const float *fixed_logits(void *self, int32_t node)
{
    static const float logits[V] = { 2, 1, 1.4f, -9 }; /* token 1: exp(-1), token 2: exp(-.6) */
    return logits;
}

/* Methods A 3.3: at temperature 0 a token passes with p(t) >= l max p. */
static void lenience_at_temperature_zero_compares_with_the_largest(void **state)
{
    (void)state;
    static const struct {
        double lenience;
        sb_token token;
        int32_t n_path;
    } cases[] = { { .5, 0, 2 }, { .5, 2, 2 }, { .5, 1, 1 }, { .3, 1, 2 }, { 1, 2, 1 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig;
        double scratch[V];
        const struct rejection_params lenient = { cases[i].lenience, 0, 1 };
        rig_open(&rig);
        sb_tree_add(&rig.tree, 0, cases[i].token, 0);
        set_row(&rig, 0, 1, 0, 0, 0);
        set_row(&rig, 1, 0, 0, 0, 1);
        rig.u = .7;
        struct sb_dice dice = { .flip = fixed_flip, .pick = fixed_pick, .self = &rig.u };
        struct sb_rows rows = { .row = table_row,
                                .argmax = table_argmax,
                                .logits = fixed_logits,
                                .greedy = true,
                                .self = &rig.table,
                                .n_vocab = V };
        assert_int_equal(
            sb_verifier_find("rejection")
                ->verify(&lenient, &rig.tree, &rows, &dice, scratch, &rig.verdict, NULL),
            SB_OK);
        assert_int_equal(rig.verdict.n_path, cases[i].n_path);
        assert_int_equal(rig.verdict.final_token, cases[i].n_path == 2 ? 3 : 0);
        sb_tree_finish(&rig.tree);
    }
}

/* p below q by rounding at the drawn token only: a rejection leaves no residual. */
static void an_empty_residual_falls_back_to_the_target_row(void **state)
{
    (void)state;
    const double q[V] = { .5, .5, 0, 0 };
    for (size_t i = 0; i < N_BY_RATIO; i++) {
        struct rig rig;
        rig_open(&rig);
        draw(&rig.tree, 0, 1, by_ratio[i].kind, q);
        set_row(&rig, 0, .5, .5 - 1e-13, 0, 0);
        rig.u = 0x1.fffffffffffffp-1;
        assert_int_equal(verify(&rig, by_ratio[i].name, NULL), SB_OK);
        assert_int_equal(rig.verdict.n_path, 1);
        assert_int_equal(rig.verdict.final_token, 1);
        sb_tree_finish(&rig.tree);
    }
}

/* What a likely token leaves of q may be as small as numbers get, and is a law all the same. */
static void the_last_crumbs_of_q_can_be_drawn_without_replacement(void **state)
{
    (void)state;
    const double q[V] = { 1, 3e-310, 1e-310, 0 };
    static const char *const names[] = { "rrs", "traversal" };
    for (size_t i = 0; i < 2; i++) {
        for (int accepted = 0; accepted < 2; accepted++) {
            struct rig rig;
            rig_open(&rig);
            draw(&rig.tree, 0, 0, SB_DRAW_WOR, q);
            draw(&rig.tree, 0, 1, SB_DRAW_WOR, q);
            set_row(&rig, 0, 0, .6, .4, 0); /* the second draw passes with .6 / .75 */
            set_row(&rig, 2, 0, 0, 0, 1);
            rig.u = accepted ? .79 : .81;
            assert_int_equal(verify(&rig, names[i], NULL), SB_OK);
            assert_int_equal(rig.verdict.n_path, accepted ? 2 : 1);
            assert_int_equal(rig.verdict.final_token, accepted ? 3 : 2);
            sb_tree_finish(&rig.tree);
        }
    }
}

static void broken_target_rows_are_refused_by_every_verifier(void **state)
{
    (void)state;
    static const char *const messages[] = {
        "the target's logits at node 0 hold NaN",
        "the target's row at node 0 is no probability row (its logits hold NaN or infinity)",
    };
    for (size_t i = 0; sb_verifiers[i]; i++) {
        struct rig rig;
        struct sb_error err;
        rig_open(&rig);
        set_row(&rig, 0, NAN, NAN, NAN, NAN);
        assert_int_equal(verify(&rig, sb_verifiers[i]->name, &err), SB_EFORMAT);
        assert_string_equal(err.message, messages[strcmp(sb_verifiers[i]->name, "greedy") != 0]);
        set_row(&rig, 0, .5, .4, 0, 0); /* no sum of 1: greedy does not care */
        if (strcmp(sb_verifiers[i]->name, "greedy") != 0)
            assert_int_equal(verify(&rig, sb_verifiers[i]->name, &err), SB_EFORMAT);
        sb_tree_finish(&rig.tree);
    }
}

static void broken_rows_further_down_are_refused_where_they_are_needed(void **state)
{
    (void)state;
    const double q[V] = { 0, 1, 0, 0 };
    for (size_t i = 0; i < N_BY_RATIO; i++) {
        struct rig rig;
        struct sb_error err;
        rig_open(&rig);
        draw(&rig.tree, 0, 1, by_ratio[i].kind, q);
        set_row(&rig, 0, 0, 1, 0, 0);
        set_row(&rig, 1, INFINITY, 0, 0, 0);
        assert_int_equal(verify(&rig, by_ratio[i].name, &err), SB_EFORMAT);
        assert_string_equal(err.message, "the target's row at node 1 is no probability row (its "
                                         "logits hold NaN or infinity)");
        sb_tree_finish(&rig.tree);
    }
}

static void refused(struct rig *rig, const char *name, const char *message)
{
    struct sb_error err;
    char want[200];
    snprintf(want, sizeof want, "verifier %s: %s", name, message);
    assert_int_equal(verify(rig, name, &err), SB_EINTERNAL);
    assert_string_equal(err.message, want);
}

static void broken_drafts_are_refused(void **state)
{
    (void)state;
    static const struct {
        double q[V];
        const char *message;
    } cases[] = {
        { { .5, 0, .5, 0 }, "the drafter drew token 1 with q = 0" },
        { { .5, .4, 0, 0 }, "the drafter's row at node 0 is no probability row" },
        { { NAN, .4, 0, 0 }, "the drafter's row at node 0 is no probability row" },
        { { -.1, 1.1, 0, 0 }, "the drafter's row at node 0 is no probability row" },
    };
    for (size_t v = 0; v < N_BY_RATIO; v++) {
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            struct rig rig;
            rig_open(&rig);
            draw(&rig.tree, 0, 1, by_ratio[v].kind, cases[i].q);
            set_row(&rig, 0, .25, .25, .25, .25);
            refused(&rig, by_ratio[v].name, cases[i].message);
            sb_tree_finish(&rig.tree);
        }
    }
}

static void draws_that_a_rule_cannot_take_are_refused(void **state)
{
    (void)state;
    const double q[V] = { .25, .25, .25, .25 };
    static const char *const chains[] = { "rejection", "block", "hsd-experimental" };
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        rig_open(&rig);
        grow(&rig);
        set_row(&rig, 0, .25, .25, .25, .25);
        refused(&rig, chains[i], "node 0 has more than one draw");
        sb_tree_finish(&rig.tree);
        rig_open(&rig); /* one node, drawn twice */
        draw(&rig.tree, 0, 1, SB_DRAW_IID, q);
        draw(&rig.tree, 0, 1, SB_DRAW_IID, q);
        set_row(&rig, 0, .25, .25, .25, .25);
        refused(&rig, chains[i], "node 0 has more than one draw");
        sb_tree_finish(&rig.tree);
    }
    static const struct {
        const char *name;
        enum sb_draw_kind kind;
        const char *message;
    } kinds[] = {
        { "rrs", SB_DRAW_MIX, "node 0 has draws of kind mixture, which it does not take" },
        { "k-seq", SB_DRAW_WOR, "node 0 has draws of kind wor, which it does not take" },
        { "mss", SB_DRAW_ONEHOT, "node 0 has draws of kind onehot, which it does not take" },
        { "traversal", SB_DRAW_HUB, "node 0 has draws of kind hub, which it does not take" },
        { "gbv", SB_DRAW_IID, "node 0 has draws of kind iid, which it does not take" },
        { "block", SB_DRAW_TOPK1, "node 0 has draws of kind topk+1, which it does not take" },
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        struct rig rig;
        rig_open(&rig);
        draw(&rig.tree, 0, 1, kinds[i].kind, q);
        set_row(&rig, 0, .25, .25, .25, .25);
        refused(&rig, kinds[i].name, kinds[i].message);
        sb_tree_finish(&rig.tree);
    }
}

/* Two paths reach node 1, and one goes on: the selected path's law would not be the known one. */
static void paths_that_get_lost_are_refused_by_gbv(void **state)
{
    (void)state;
    const double q[V] = { .25, .25, .25, .25 };
    struct rig rig;
    rig_open(&rig);
    for (int32_t i = 0; i < 3; i++)
        draw(&rig.tree, i < 2 ? 0 : 1, 1, SB_DRAW_PATHS, q);
    set_row(&rig, 0, .25, .25, .25, .25);
    set_row(&rig, 1, .25, .25, .25, .25);
    refused(&rig, "gbv", "2 paths reach node 1, 1 go on");
    sb_tree_finish(&rig.tree);
}

/* Three paths of one unlikely token each: the chance of that is q^3 per level, which leaves the range of
 * numbers at the third level, while its ratio to the level before never does. */
static void gbv_survives_paths_of_tiny_probability(void **state)
{
    (void)state;
    const double q[V] = { 1e-60, 1, 0, 0 };
    struct rig rig;
    rig_open(&rig);
    for (int32_t node = 0; node < 3; node++) {
        for (int i = 0; i < 3; i++)
            draw(&rig.tree, node, 0, SB_DRAW_PATHS, q);
        set_row(&rig, node, 5e-61, 1, 0, 0);
    }
    set_row(&rig, 3, 0, 0, 1, 0);
    rig.u = .5;
    assert_int_equal(verify(&rig, "gbv", NULL), SB_OK);
    assert_int_equal(rig.verdict.n_path, 4);
    assert_int_equal(rig.verdict.final_token, 2);
    sb_tree_finish(&rig.tree);
}

/* p = (.5, .3, .2), q = (.2, .6, .2) at every node; under the root 1 and 0, under 1 another 1, under 0
 * another 0. The leaf 1 1 is kept with .5 x .5; then node 1 with 1/11, its weight after that; then all
 * that p has left is token 0, and 0 0 is kept for sure. Leaves that are not kept need no row. */
static void traversal_asks_only_for_rows_on_its_way(void **state)
{
    (void)state;
    const double q[V] = { .2, .6, .2, 0 };
    static const struct {
        double u;
        int32_t leaf, n_asked;
    } cases[] = { { .2499, 3, 3 }, { .25, 4, 4 }, { .9999, 4, 4 } };
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        rig_open(&rig);
        draw(&rig.tree, 0, 1, SB_DRAW_IID, q);
        draw(&rig.tree, 0, 0, SB_DRAW_IID, q);
        draw(&rig.tree, 1, 1, SB_DRAW_IID, q);
        draw(&rig.tree, 2, 0, SB_DRAW_IID, q);
        for (int32_t node = 0; node < 5; node++)
            set_row(&rig, node, .5, .3, .2, 0);
        rig.u = cases[i].u;
        assert_int_equal(verify(&rig, "traversal", NULL), SB_OK);
        assert_int_equal(rig.verdict.n_path, 3);
        assert_int_equal(rig.path[2], cases[i].leaf);
        assert_int_equal(rig.decision[cases[i].leaf], SB_ACCEPTED);
        assert_true(rig.verdict.bonus);
        assert_int_equal(rig.table.n_asked, cases[i].n_asked);
        sb_tree_finish(&rig.tree);
    }
}

static void auxiliary_children_are_no_draws(void **state)
{
    (void)state;
    struct rig rig;
    struct sb_draw d = SB_DRAW_BEGIN;
    rig_open(&rig);
    sb_tree_add_auxiliary(&rig.tree, 0, 3, 0);
    grow(&rig);
    sb_tree_add_auxiliary(&rig.tree, 0, 0, 0);
    assert_true(sb_draw_next(&rig.tree, 0, &d));
    assert_int_equal(d.child, 2);
    assert_int_equal(d.token, 1);
    assert_null(d.q);
    assert_true(sb_draw_next(&rig.tree, 0, &d));
    assert_int_equal(d.index, 1);
    assert_int_equal(d.token, 2);
    assert_false(sb_draw_next(&rig.tree, 0, &d));
    sb_tree_finish(&rig.tree);
}

static void parameters_decide_the_guarantee_of_rejection(void **state)
{
    (void)state;
    const struct sb_verifier_ops *v = sb_verifier_find("rejection");
    static const struct rejection_params lossy[] = { { .5, 0, 1 }, { 1, .1, 1 }, { 1, 0, 2 } };
    assert_int_equal(sb_verifier_guarantee(v, &exact), SB_DISTRIBUTION_EXACT);
    assert_int_equal(sb_verifier_guarantee(v, NULL), SB_DISTRIBUTION_EXACT);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(sb_verifier_guarantee(v, &lossy[i]), SB_LOSSY);
        assert_int_equal(v->check(&lossy[i], NULL), SB_OK);
    }
    struct sb_error err;
    assert_int_equal(v->check(&(struct rejection_params){ 1, .2, .5 }, &err), SB_EUSAGE);
    assert_string_equal(err.message,
                        "verifier rejection: beta=0.5: expected at least 1 - alpha = 0.8");
    assert_int_equal(v->check(&(struct rejection_params){ .5, .2, 1 }, &err), SB_EUSAGE);
    assert_int_equal(v->check(&exact, &err), SB_OK);
    assert_string_equal(sb_guarantee_name(SB_LOSSY), "lossy");
}

/* ---- what rows cost ---- */

static const double *no_row(void *self, int32_t node)
{
    fail_msg("a row was made at temperature 0, node %d", (int)node);
    return NULL;
}

static const float *given_logits(void *self, int32_t node)
{
    return self;
}

/* Root -> 1 -> 2 where the arg max is 1, then 3: one token is accepted, then 3 corrects. */
static void at_temperature_zero_verifiers_make_no_rows(void **state)
{
    (void)state;
    static const char *const names[] = { "block", "greedy",    "gumbel-coupled", "k-seq",    "mss",
                                         "rrs",   "rejection", "naive-sample",   "traversal" };
    static const double one[V] = { 0, 1, 0, 0 };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (int sampled = 0; sampled < 2; sampled++) {
            struct rig rig;
            double scratch[64];
            const struct sb_verifier_ops *v = sb_verifier_find(names[i]);
            if (!sampled && !(v->kinds & SB_KIND_BIT(SB_DRAW_ONEHOT)))
                continue;
            rig_open(&rig);
            for (int32_t node = 0; node < 2; node++)
                sampled ? sb_tree_draw(&rig.tree, node, 1, SB_DRAW_IID, one, 0, 0)
                        : sb_tree_add(&rig.tree, node, 1, 0);
            set_row(&rig, 0, 0, 1, 0, 0);
            set_row(&rig, 1, 0, 0, 0, 1);
            struct sb_dice dice = { .flip = fixed_flip, .pick = fixed_pick, .self = &rig.u };
            struct sb_rows rows = { .row = no_row,
                                    .argmax = table_argmax,
                                    .greedy = true,
                                    .self = &rig.table,
                                    .n_vocab = V };
            assert_int_equal(
                v->verify(&exact, &rig.tree, &rows, &dice, scratch, &rig.verdict, NULL), SB_OK);
            assert_int_equal(rig.verdict.n_path, 2);
            assert_int_equal(rig.verdict.final_token, 3);
            struct sb_error err;
            set_row(&rig, 1, 0, NAN, 0, 1);
            assert_int_equal(
                v->verify(&exact, &rig.tree, &rows, &dice, scratch, &rig.verdict, &err),
                SB_EFORMAT);
            assert_string_equal(err.message, "the target's logits at node 1 hold NaN");
            sb_tree_finish(&rig.tree);
        }
}

/* Rows of S are laws or NaN: looking at the first entry is enough, and all that is done. */
static void trusted_rows_are_refused_by_their_first_entry(void **state)
{
    (void)state;
    struct table table = { .n_vocab = V };
    struct sb_rows rows = { .row = table_row, .trusted = true, .self = &table, .n_vocab = V };
    const double *row;
    table.row[0][1] = 1;
    assert_int_equal(sb_rows_get(&rows, 0, &row, NULL), SB_OK);
    assert_ptr_equal(row, table.row[0]);
    table.row[0][1] = .5; /* no law */
    assert_int_equal(sb_rows_get(&rows, 0, &row, NULL), SB_OK);
    rows.trusted = false;
    assert_int_equal(sb_rows_get(&rows, 0, &row, NULL), SB_EFORMAT);
    rows.trusted = true;
    table.row[0][0] = NAN;
    assert_int_equal(sb_rows_get(&rows, 0, &row, NULL), SB_EFORMAT);
}

/* So are those of a draft, where the drafter says that S made them. */
static void rows_of_a_trusted_draft_are_refused_by_their_first_entry(void **state)
{
    (void)state;
    double q[V] = { .5, .4, 0, 0 }; /* no law */
    const struct sb_verifier_ops *v = sb_verifier_find("rejection");
    struct rig rig;
    struct sb_error err;
    rig_open(&rig);
    sb_tree_draw(&rig.tree, 0, 1, SB_DRAW_IID, q, -.9f, 0);
    assert_int_equal(sb_draws_check(v, &rig.tree, 0, V, NULL), SB_EINTERNAL);
    rig.tree.trusted = true;
    assert_int_equal(sb_draws_check(v, &rig.tree, 0, V, NULL), SB_OK);
    q[0] = NAN;
    assert_int_equal(sb_draws_check(v, &rig.tree, 0, V, &err), SB_EINTERNAL);
    assert_string_equal(err.message,
                        "verifier rejection: the drafter's row at node 0 is no probability row");
    q[0] = .5;
    q[1] = 0; /* no token of q = 0 is ever trusted */
    assert_int_equal(sb_draws_check(v, &rig.tree, 0, V, NULL), SB_EINTERNAL);
    sb_tree_reset(&rig.tree, 0, 3);
    assert_false(rig.tree.trusted);
    sb_tree_finish(&rig.tree);
}

/* Without replacement, what is left of q after its likely tokens may be as small as numbers get. */
static void a_residual_divides_by_masses_without_an_inverse(void **state)
{
    (void)state;
    const double p[V] = { .5, .25, .25, 0 }, q[V] = { 0, 2e-310, 0, 2e-310 };
    double rest[V];
    assert_true(1 / 4e-310 == INFINITY);
    assert_true(sb_residual(rest, 1, p, q, 4e-310, -1, V) == .75);
    assert_true(rest[0] == .5 && rest[1] == 0 && rest[2] == .25 && rest[3] == 0);
}

/* Rules that look behind S need the row at temperature 1 alone, and refuse what S refuses. */
static void a_softmax_of_the_logits_makes_no_other_row(void **state)
{
    (void)state;
    float logits[V] = { 0, 0, -INFINITY, -INFINITY };
    double prob[V];
    struct sb_rows rows = {
        .row = no_row, .logits = given_logits, .greedy = true, .self = logits, .n_vocab = V
    };
    struct sb_error err;
    assert_int_equal(sb_rows_softmax(&rows, 0, prob, NULL), SB_OK);
    assert_true(prob[0] == .5 && prob[1] == .5 && prob[2] == 0 && prob[3] == 0);
    logits[3] = NAN;
    assert_int_equal(sb_rows_softmax(&rows, 5, prob, &err), SB_EFORMAT);
    assert_string_equal(err.message, "the target's row at node 5 is no probability row (its logits "
                                     "hold NaN or infinity)");
    logits[3] = INFINITY;
    assert_int_equal(sb_rows_softmax(&rows, 0, prob, NULL), SB_EFORMAT);
}

static void a_residual_is_what_the_draft_leaves(void **state)
{
    (void)state;
    const double p[V] = { .5, .25, .25, 0 }, q[V] = { .25, .5, 0, .25 };
    double rest[V];
    assert_true(sb_residual(rest, 1, p, q, 1, -1, V) == .5);
    assert_true(rest[0] == .25 && rest[1] == 0 && rest[2] == .25 && rest[3] == 0);
    assert_true(sb_residual(rest, 2, p, NULL, 2, 0, V) == 1.5);
    assert_true(rest[0] == .5 && rest[1] == .5 && rest[2] == .5 && rest[3] == 0);
    assert_true(sb_residual(NULL, 1, p, NULL, 1, 3, V) == 1);
}

static void a_row_is_a_law_within_a_millionth(void **state)
{
    (void)state;
    static const struct {
        double row[V];
        bool law;
    } cases[] = {
        { { .5, .5, 0, 0 }, true },           { { .5, .5 + 9e-7, 0, 0 }, true },
        { { .5, .5 + 1.1e-6, 0, 0 }, false }, { { .5, .5 - 1.1e-6, 0, 0 }, false },
        { { 1.5, -.5, 0, 0 }, false },        { { NAN, 1, 0, 0 }, false },
        { { INFINITY, 0, 0, 0 }, false },     { { 0, 0, 0, 0 }, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(sb_row_is_law(cases[i].row, V), cases[i].law);
}

/* ---- lawful pairs ---- */

static bool asked_for_a_tree(const void *params)
{
    return params && *(const bool *)params;
}

static const struct sb_drafter_ops onehot_chain = { .name = "onehot-chain",
                                                    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT) };
static const struct sb_drafter_ops model_like = {
    .name = "model-like",
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds_sampling = SB_KIND_BIT(SB_DRAW_IID),
    .makes_trees = true,
    .branches = asked_for_a_tree,
};

static void the_default_verifier_is_the_strongest_exact_one(void **state)
{
    (void)state;
    const struct sb_sampling cold = { 0 }, warm = { .temperature = .8 };
    const bool tree = true;
    assert_string_equal(sb_verifier_default(&onehot_chain, &cold)->name, "greedy");
    assert_string_equal(sb_verifier_default(&onehot_chain, &warm)->name, "naive-sample");
    assert_string_equal(sb_verifier_default(&model_like, &cold)->name, "greedy");
    assert_string_equal(sb_verifier_default(&model_like, &warm)->name, "traversal");
    assert_string_equal(sb_verifier_default_with(&model_like, &tree, &warm)->name, "traversal");
}

static void begins_with(const char *text, const char *start)
{
    if (strncmp(text, start, strlen(start)) != 0)
        fail_msg("got '%s', expected '%s'", text, start);
}

static void unlawful_pairs_are_refused_with_the_lawful_ones(void **state)
{
    (void)state;
    const struct sb_sampling cold = { 0 }, warm = { .temperature = .8 };
    const struct sb_verifier_ops *rejection = sb_verifier_find("rejection");
    const bool tree = true;
    struct sb_error err;
    assert_int_equal(sb_pair_check(&onehot_chain, sb_verifier_find("greedy"), &warm, &err),
                     SB_EUSAGE);
    begins_with(err.message,
                "drafter onehot-chain with verifier greedy: the verifier never samples, and the "
                "temperature is above 0; lawful here: ");
    assert_non_null(strstr(err.message, "naive-sample, "));
    assert_int_equal(sb_pair_check_with(&model_like, &tree, rejection, &warm, &err), SB_EUSAGE);
    begins_with(
        err.message,
        "drafter model-like with verifier rejection: the verifier takes chains only, and the "
        "drafter makes trees with these parameters; lawful here: ");
    assert_null(strstr(err.message + 40, "rejection"));
    assert_null(strstr(err.message, "greedy"));
    assert_int_equal(sb_pair_check(&model_like, rejection, &warm, &err), SB_OK);
    assert_int_equal(sb_pair_check(&onehot_chain, sb_verifier_find("greedy"), &cold, &err), SB_OK);
    assert_int_equal(sb_pair_check_with(&model_like, &tree, rejection, &cold, &err), SB_EUSAGE);
    static const struct sb_verifier_ops iid_only = { .name = "iid-only",
                                                     .guarantee = SB_DISTRIBUTION_EXACT,
                                                     .kinds = SB_KIND_BIT(SB_DRAW_IID) };
    assert_int_equal(sb_pair_check(&onehot_chain, &iid_only, &warm, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "would be biased by the way this drafter draws"));
}

static void registries_are_sorted_and_complete(void **state)
{
    (void)state;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        assert_true(v->name && v->summary && v->paper && v->verify && v->kinds);
        assert_true(i == 0 || strcmp(sb_verifiers[i - 1]->name, v->name) < 0);
        assert_ptr_equal(sb_verifier_find(v->name), v);
    }
    assert_null(sb_verifier_find("no-such-verifier"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_and_naive_walk_to_the_leaf_that_matches),
        cmocka_unit_test(a_mismatch_ends_the_walk_with_a_correction),
        cmocka_unit_test(an_empty_tree_is_a_plain_step_for_every_verifier),
        cmocka_unit_test(auxiliary_nodes_are_never_accepted),
        cmocka_unit_test(a_vocabulary_of_one_token_accepts_everything),
        cmocka_unit_test(rejection_accepts_strictly_below_the_ratio),
        cmocka_unit_test(a_probability_of_zero_is_never_accepted_even_at_u_zero),
        cmocka_unit_test(lenience_at_temperature_zero_compares_with_the_largest),
        cmocka_unit_test(an_empty_residual_falls_back_to_the_target_row),
        cmocka_unit_test(broken_target_rows_are_refused_by_every_verifier),
        cmocka_unit_test(the_last_crumbs_of_q_can_be_drawn_without_replacement),
        cmocka_unit_test(broken_rows_further_down_are_refused_where_they_are_needed),
        cmocka_unit_test(broken_drafts_are_refused),
        cmocka_unit_test(draws_that_a_rule_cannot_take_are_refused),
        cmocka_unit_test(paths_that_get_lost_are_refused_by_gbv),
        cmocka_unit_test(gbv_survives_paths_of_tiny_probability),
        cmocka_unit_test(traversal_asks_only_for_rows_on_its_way),
        cmocka_unit_test(auxiliary_children_are_no_draws),
        cmocka_unit_test(parameters_decide_the_guarantee_of_rejection),
        cmocka_unit_test(at_temperature_zero_verifiers_make_no_rows),
        cmocka_unit_test(trusted_rows_are_refused_by_their_first_entry),
        cmocka_unit_test(rows_of_a_trusted_draft_are_refused_by_their_first_entry),
        cmocka_unit_test(a_residual_divides_by_masses_without_an_inverse),
        cmocka_unit_test(a_softmax_of_the_logits_makes_no_other_row),
        cmocka_unit_test(a_residual_is_what_the_draft_leaves),
        cmocka_unit_test(a_row_is_a_law_within_a_millionth),
        cmocka_unit_test(the_default_verifier_is_the_strongest_exact_one),
        cmocka_unit_test(unlawful_pairs_are_refused_with_the_lawful_ones),
        cmocka_unit_test(registries_are_sorted_and_complete),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

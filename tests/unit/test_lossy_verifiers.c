/* verifiers/: what thresholds let pass, laws of both models at temperature 0, and drafts that rules for
 * pairs, flows and laws refuse. Laws above temperature 0 are tested by enumeration in
 * tests/property. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/rng.h"
#include "harness/decode/verifier.h"

enum { V = 4, CAP = 16 };

/* A tree, the target's rows, and logits whose softmax they are. At temperature 0 the rows that a
 * verifier is given are one-hot. */
struct rig {
    struct sb_tree tree;
    double p[CAP][V];
    float logits[CAP][V];
    double given[CAP][V];
    int32_t path[CAP];
    uint8_t decision[CAP];
    struct sb_verdict verdict;
    bool greedy, with_logits, mixed;
    double u; /* every random number */
};

static void rig_open(struct rig *rig, bool greedy)
{
    *rig = (struct rig){ .greedy = greedy, .with_logits = greedy };
    assert_int_equal(sb_tree_create(&rig->tree, CAP, NULL), SB_OK);
    sb_tree_reset(&rig->tree, 0, CAP);
    rig->verdict = (struct sb_verdict){ .path = rig->path, .decision = rig->decision };
}

static void set_row(struct rig *rig, int32_t node, double a, double b, double c, double d)
{
    const double row[V] = { a, b, c, d };
    memcpy(rig->p[node], row, sizeof row);
    for (size_t t = 0; t < V; t++)
        rig->logits[node][t] = row[t] > 0 ? (float)log(row[t]) : -90;
}

static size_t row_argmax(void *self, int32_t node)
{
    struct rig *rig = self;
    size_t best = 0;
    for (size_t t = 1; t < V; t++)
        best = rig->p[node][t] > rig->p[node][best] ? t : best;
    return best;
}

static const double *row_of(void *self, int32_t node)
{
    struct rig *rig = self;
    if (!rig->greedy)
        return rig->p[node];
    memset(rig->given[node], 0, sizeof rig->given[node]);
    rig->given[node][row_argmax(self, node)] = 1;
    return rig->given[node];
}

static const float *logits_of(void *self, int32_t node)
{
    return ((struct rig *)self)->logits[node];
}

static const double *law_of(void *self, int32_t node)
{
    return ((struct rig *)self)->p[node];
}

static bool fixed_flip(void *self, double probability)
{
    return ((struct rig *)self)->u < probability;
}

static size_t fixed_pick(void *self, const double *weight, size_t n)
{
    return sb_pick_by(((struct rig *)self)->u, weight, n);
}

/* "bild:rb=6" */
static enum sb_status verify(struct rig *rig, const char *text, struct sb_error *err)
{
    double scratch[1024], params[8];
    struct sb_spec spec;
    assert_int_equal(sb_spec_parse(&spec, text, NULL), SB_OK);
    const struct sb_verifier_ops *v = sb_verifier_find(spec.name);
    assert_non_null(v);
    assert_int_equal(sb_params_apply(params, v->params, &spec, text, NULL), SB_OK);
    assert_true(!v->scratch_size || v->scratch_size(params, V, CAP) <= sizeof scratch);
    const struct sb_dice dice = { .flip = fixed_flip, .pick = fixed_pick, .self = rig };
    const struct sb_rows rows = { .row = row_of,
                                  .argmax = row_argmax,
                                  .logits = rig->with_logits ? logits_of : NULL,
                                  .mixed = rig->mixed ? law_of : NULL,
                                  .greedy = rig->greedy,
                                  .self = rig,
                                  .n_vocab = V };
    enum sb_status rc = v->verify(params, &rig->tree, &rows, &dice, scratch, &rig->verdict, err);
    sb_spec_finish(&spec);
    return rc;
}

static int32_t accepted(struct rig *rig, const char *text)
{
    struct sb_error err = { .message = "" };
    if (verify(rig, text, &err) != SB_OK)
        fail_msg("%s: %s", text, err.message);
    return rig->verdict.n_path - 1;
}

/* ---- thresholds ---- */

/* p = (.5, .3, .2): H = 1.030, delta exp(-H) = .107, so epsilon decides: all pass. */
static void typical_has_its_published_thresholds(void **state)
{
    (void)state;
    for (sb_token t = 0; t < 3; t++) {
        struct rig rig;
        rig_open(&rig, false);
        sb_tree_add(&rig.tree, 0, t, 0);
        set_row(&rig, 0, .5, .3, .2, 0);
        set_row(&rig, 1, 0, 0, 0, 1);
        assert_int_equal(accepted(&rig, "typical"), 1);
        assert_int_equal(rig.verdict.final_token, 3);
        assert_true(rig.verdict.bonus);
        /* Above epsilon the entropy decides: .35 exp(-H) = .125, .6 exp(-H) = .214. */
        assert_int_equal(accepted(&rig, "typical:epsilon=1,delta=0.35"), 1);
        assert_int_equal(accepted(&rig, "typical:epsilon=1,delta=0.6"), t < 2);
        set_row(&rig, 0, .97, .02, .01, 0); /* only the first */
        assert_int_equal(accepted(&rig, "typical"), t == 0);
        assert_int_equal(accepted(&rig, "typical:epsilon=0"), 1);
        set_row(&rig, 0, t == 0 ? 0 : 1, t == 0 ? 1 : 0, 0, 0);
        assert_int_equal(accepted(&rig, "typical:epsilon=0"), 0); /* p = 0 never passes */
        sb_tree_finish(&rig.tree);
    }
}

/* max p = .5: the bar is gamma / 4. At temperature 0 the row behind the one-hot one is judged, which may be
 * a drafter's mixture instead of the logits' softmax. */
static void nest_relaxed_takes_what_is_near_the_likeliest(void **state)
{
    (void)state;
    for (int greedy = 0; greedy < 2; greedy++) {
        for (sb_token t = 0; t < 3; t++) {
            struct rig rig;
            rig_open(&rig, greedy);
            sb_tree_add(&rig.tree, 0, t, 0);
            set_row(&rig, 0, .5, .3, .2, 0);
            set_row(&rig, 1, .1, .2, .3, .4);
            rig.u = .95;
            for (rig.mixed = false;; rig.with_logits = false, rig.mixed = true) {
                assert_int_equal(accepted(&rig, "nest-relaxed"), 1);
                assert_int_equal(rig.verdict.final_token, 3);
                assert_int_equal(accepted(&rig, "nest-relaxed:gamma=1"), t < 2); /* above .25 */
                assert_int_equal(accepted(&rig, "nest-relaxed:gamma=1.9"), t < 1);
                assert_int_equal(accepted(&rig, "nest-relaxed:gamma=2"), 0);
                assert_int_equal(rig.verdict.final_token, greedy ? 0 : 2);
                if (!greedy || rig.mixed)
                    break;
            }
            set_row(&rig, 0, t == 0 ? 0 : 1, t == 0 ? 1 : 0, 0, 0);
            assert_int_equal(accepted(&rig, "nest-relaxed:gamma=0"), 0); /* p = 0 never passes */
            sb_tree_finish(&rig.tree);
        }
    }
}

static void typical_samples_after_the_path(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, false);
    sb_tree_add(&rig.tree, 0, 3, 0);
    set_row(&rig, 0, .5, .3, .2, 0);
    rig.u = .6;
    assert_int_equal(accepted(&rig, "typical"), 0);
    assert_int_equal(rig.verdict.final_token, 1);
    assert_false(rig.verdict.bonus);
    assert_int_equal(rig.decision[1], SB_REJECTED);
    sb_tree_finish(&rig.tree);
}

/* Root -> 0, 1; 0 -> 2; 1 -> 2, 3: of the deepest paths that pass the likeliest is taken. */
static void the_longest_path_wins_then_the_likeliest(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, false);
    sb_tree_add(&rig.tree, 0, 0, 0); /* 1 */
    sb_tree_add(&rig.tree, 0, 1, 0); /* 2 */
    sb_tree_add(&rig.tree, 1, 2, 0); /* 3 */
    sb_tree_add(&rig.tree, 2, 2, 0); /* 4 */
    sb_tree_add(&rig.tree, 2, 3, 0); /* 5 */
    set_row(&rig, 0, .6, .4, 0, 0);
    set_row(&rig, 1, .5, 0, .5, 0);
    set_row(&rig, 2, 0, 0, .2, .8);
    for (int32_t i = 3; i < 6; i++)
        set_row(&rig, i, 0, 1, 0, 0);
    assert_int_equal(accepted(&rig, "typical"), 2); /* .4 * .8 > .6 * .5 > .4 * .2 */
    const int32_t path[] = { 0, 2, 5 };
    const uint8_t decision[] = { SB_ACCEPTED,    SB_REJECTED, SB_ACCEPTED,
                                 SB_NOT_REACHED, SB_REJECTED, SB_ACCEPTED };
    assert_memory_equal(rig.path, path, sizeof path);
    assert_memory_equal(rig.decision, decision, sizeof decision);
    set_row(&rig, 2, .9, .04, .03, .03); /* below the bar: the other branch is longer */
    assert_int_equal(accepted(&rig, "typical"), 2);
    assert_int_equal(rig.path[2], 3);
    set_row(&rig, 1, 1, 0, 0, 0);
    assert_int_equal(accepted(&rig, "typical"), 1);
    assert_int_equal(rig.path[1], 1);
    sb_tree_finish(&rig.tree);
}

static void typical_accepts_less_the_larger_epsilon_is(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(3, SB_STREAM_INIT);
    for (int i = 0; i < 200; i++) {
        struct rig rig;
        rig_open(&rig, false);
        for (int32_t n = 1; n < 12; n++)
            sb_tree_add(&rig.tree, (int32_t)sb_rng_below(&rng, (uint32_t)rig.tree.n),
                        (sb_token)sb_rng_below(&rng, V), 0);
        for (int32_t node = 0; node < rig.tree.n; node++) {
            double row[V], sum = 0;
            for (size_t t = 0; t < V; t++)
                sum += row[t] = pow(sb_rng_uniform(&rng), 3);
            set_row(&rig, node, row[0] / sum, row[1] / sum, row[2] / sum,
                    1 - (row[0] + row[1] + row[2]) / sum);
        }
        assert_int_equal(accepted(&rig, "typical:epsilon=0"), sb_tree_depth(&rig.tree));
        int32_t before = CAP;
        for (int e = 0; e <= 20; e++) {
            char text[64];
            snprintf(text, sizeof text, "typical:delta=2,epsilon=%g", e / 20.);
            int32_t now = accepted(&rig, text);
            assert_true(now <= before);
            before = now;
        }
        sb_tree_finish(&rig.tree);
    }
}

static void top_beta_has_its_published_example(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool passes[3];
    } cases[] = {
        { "top-beta:beta=2,tau=1", { true, true, false } }, /* the gap of B is .511 */
        { "top-beta:beta=2,tau=0.4", { true, false, false } },
        { "top-beta:beta=3,tau=1", { true, true, true } }, /* .916 */
        { "top-beta:beta=3,tau=0.9", { true, true, false } },
        { "top-beta:beta=3,tau=0", { true, false, false } },
        { "top-beta:beta=1,tau=9", { true, false, false } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (sb_token t = 0; t < 3; t++) {
            struct rig rig;
            rig_open(&rig, true);
            sb_tree_add(&rig.tree, 0, t, 0);
            set_row(&rig, 0, .5, .3, .2, 0);
            set_row(&rig, 1, 0, 0, 0, 1);
            assert_int_equal(accepted(&rig, cases[i].text), cases[i].passes[t]);
            assert_int_equal(rig.verdict.final_token, cases[i].passes[t] ? 3 : 0);
            set_row(&rig, 0, .4, .4, .2, 0); /* a tie: the smaller id is the arg max */
            assert_int_equal(accepted(&rig, "top-beta:beta=1"), t == 0);
            assert_int_equal(accepted(&rig, "top-beta:beta=2,tau=0"), t < 2);
            sb_tree_finish(&rig.tree);
        }
    }
}

/* Tokens of p = .9, .5, .004, .8: losses .105, .693, 5.52, .223. The first and the last are the arg
 * max of their rows. */
static void bild_has_its_published_example(void **state)
{
    (void)state;
    struct rig rig;
    rig_open(&rig, true);
    for (int32_t i = 0; i < 4; i++)
        sb_tree_add(&rig.tree, i, 1, 0);
    set_row(&rig, 0, .05, .9, .05, 0);
    set_row(&rig, 1, .5, .5, 0, 0); /* a tie: 0 is the arg max */
    set_row(&rig, 2, .9, .004, .096, 0);
    set_row(&rig, 3, .1, .8, .1, 0);
    set_row(&rig, 4, 0, 0, 1, 0);
    static const struct {
        const char *text;
        int32_t accepted;
        sb_token final;
    } cases[] = {
        { "bild:rb=5", 2, 0 },     { "bild:rb=6", 4, 2 },     { "bild:rb=5.521", 2, 0 },
        { "bild:rb=5.522", 4, 2 }, { "bild:rb=0.694", 2, 0 }, { "bild:rb=0.693", 1, 0 },
        { "bild:rb=0.1", 1, 0 }, /* the arg max passes at any loss */
        { "bild:rb=0", 1, 0 },     { "bild", 2, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(accepted(&rig, cases[i].text), cases[i].accepted);
        assert_int_equal(rig.verdict.final_token, cases[i].final);
        assert_int_equal(rig.verdict.bonus, cases[i].accepted == 4);
    }
    sb_tree_finish(&rig.tree);
}

static void parameters_decide_the_guarantees(void **state)
{
    (void)state;
    const double rb[] = { 0, .1 };
    const struct {
        int64_t beta;
        double tau;
    } beta[] = { { 1, 5 }, { 2, 0 } };
    for (size_t i = 0; i < 2; i++) {
        enum sb_guarantee want = i == 0 ? SB_GREEDY_EXACT : SB_LOSSY;
        assert_int_equal(sb_verifier_guarantee(sb_verifier_find("bild"), &rb[i]), want);
        assert_int_equal(sb_verifier_guarantee(sb_verifier_find("top-beta"), &beta[i]), want);
    }
    assert_int_equal(sb_verifier_guarantee(sb_verifier_find("bild"), NULL), SB_LOSSY);
}

/* ---- laws of both models at temperature 0 ---- */

static void laws_take_their_arg_max_at_temperature_zero(void **state)
{
    (void)state;
    static const double q[] = { .2, .6, .2, 0 }, sure[] = { 0, 0, 1, 0 };
    static const struct {
        const char *text;
        sb_token token;
    } cases[] = {
        { "speccascade-opt", 1 },              /* pi = q */
        { "speccascade-chow:alpha=0.2", 0 },   /* pi = p */
        { "speccascade-token3:alpha=0.5", 1 }, /* (.3, .66, .04) */
        { "scd", 0 },                          /* (.657, .176, .166) */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (sb_token t = 0; t < 2; t++) {
            struct rig rig;
            rig_open(&rig, true);
            sb_tree_add(&rig.tree, 0, t, 0);
            rig.tree.node[0].draft_row = q;
            set_row(&rig, 0, .5, .3, .2, 0);
            set_row(&rig, 1, 0, 0, .4, .6);
            assert_int_equal(accepted(&rig, cases[i].text), t == cases[i].token);
            assert_int_equal(rig.verdict.final_token, t == cases[i].token ? 3 : cases[i].token);
            rig.tree.node[1].draft_row = sure; /* at a leaf, too, where the drafter gives one */
            verify(&rig, cases[i].text, NULL);
            if (t == cases[i].token && strncmp(cases[i].text, "speccascade", 11) == 0)
                assert_int_equal(rig.verdict.final_token, 2);
            rig.tree.node[0].draft_row = NULL; /* none: the target's own arg max */
            assert_int_equal(accepted(&rig, cases[i].text), t == 0);
            sb_tree_finish(&rig.tree);
        }
    }
}

static void a_contrast_without_bonus_does_not_read_the_row_of_a_leaf(void **state)
{
    (void)state;
    static const double q[] = { .2, .6, .2, 0 }, near_p[] = { 0, 0, .1, .9 };
    struct rig rig;
    rig_open(&rig, true);
    sb_tree_add(&rig.tree, 0, 0, 0);
    rig.tree.node[0].draft_row = q;
    rig.tree.node[1].draft_row = near_p;
    set_row(&rig, 0, .5, .3, .2, 0);
    set_row(&rig, 1, 0, 0, .45, .55);
    assert_int_equal(accepted(&rig, "scd:beta=2"), 1);
    assert_int_equal(rig.verdict.final_token, 2);
    assert_int_equal(accepted(&rig, "scd:beta=2,bonus=expert"), 1);
    assert_int_equal(rig.verdict.final_token, 3);
    sb_tree_finish(&rig.tree);
}

/* ---- drafts that are refused ---- */

static void refused(struct rig *rig, const char *verifier, const char *message)
{
    struct sb_error err = { .message = "accepted" };
    set_row(rig, 0, .25, .25, .25, .25);
    assert_int_equal(verify(rig, verifier, &err), SB_EINTERNAL);
    assert_string_equal(err.message, message);
    sb_tree_finish(&rig->tree);
}

static void broken_drafts_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *verifier;
        enum sb_draw_kind kind;
        const char *message; /* after "verifier NAME: " */
        double q[V];
        int32_t n;
        sb_token draw[3];
    } cases[] = {
        { "spechub",
          SB_DRAW_HUB,
          "the drafter drew token 1 with q = 0",
          { .5, 0, .5, 0 },
          1,
          { 1 } },
        { "spechub",
          SB_DRAW_HUB,
          "the drafter's row at node 0 is no probability row",
          { .5, .4, 0, 0 },
          1,
          { 1 } },
        { "spechub",
          SB_DRAW_HUB,
          "node 0 was not drawn as a pair with the arg max",
          { .5, .3, .2, 0 },
          2,
          { 1, 2 } },
        { "spechub",
          SB_DRAW_HUB,
          "node 0 was not drawn as a pair with the arg max",
          { .5, .3, .2, 0 },
          3,
          { 0, 1, 2 } },
        { "topk-plus-one",
          SB_DRAW_TOPK1,
          "the drafter drew token 1 with q = 0",
          { .5, 0, .5, 0 },
          2,
          { 0, 1 } },
        { "topk-plus-one",
          SB_DRAW_TOPK1,
          "the drafter's row at node 0 is no probability row",
          { NAN, .4, 0, 0 },
          1,
          { 1 } },
        { "topk-plus-one",
          SB_DRAW_IID,
          "node 0 has draws of kind iid, which it does not take",
          { .5, .5, 0, 0 },
          2,
          { 1, 1 } },
        { "ot-flow",
          SB_DRAW_IID,
          "the drafter drew token 3 with q = 0",
          { .5, .5, 0, 0 },
          2,
          { 0, 3 } },
        { "ot-flow",
          SB_DRAW_WOR,
          "the drafter's row at node 0 is no probability row",
          { .7, .7, 0, 0 },
          2,
          { 0, 1 } },
        { "scd",
          SB_DRAW_IID,
          "the drafter's row at node 0 is no probability row",
          { .7, .7, 0, 0 },
          1,
          { 0 } },
        { "speccascade-token2",
          SB_DRAW_WOR,
          "the drafter drew token 2 with q = 0",
          { .5, .5, 0, 0 },
          2,
          { 0, 2 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rig rig;
        char message[160];
        rig_open(&rig, false);
        for (int32_t d = 0; d < cases[i].n; d++)
            sb_tree_draw(&rig.tree, 0, cases[i].draw[d], cases[i].kind, cases[i].q, -1, 0);
        snprintf(message, sizeof message, "verifier %s: %s", cases[i].verifier, cases[i].message);
        refused(&rig, cases[i].verifier, message);
    }
    struct rig rig; /* a bad row beside one-hot children */
    static const double q[] = { .5, NAN, .5, 0 };
    rig_open(&rig, false);
    sb_tree_add(&rig.tree, 0, 1, 0);
    rig.tree.node[0].draft_row = q;
    refused(&rig, "scd", "verifier scd: the drafter's row at node 0 is no probability row");
    rig_open(&rig, false); /* children that say nothing about a law */
    sb_tree_add(&rig.tree, 0, 1, 0);
    refused(&rig, "ot-flow",
            "verifier ot-flow: node 0 has draws of kind onehot, which it does not take");
}

/* p = q up to rounding at the drawn tokens only: a refusal leaves nothing to draw from but p. */
static void an_empty_residual_falls_back_to_the_target_row(void **state)
{
    (void)state;
    static const char *const names[] = { "topk-plus-one", "spechub", "ot-flow", "scd:beta=0,a=0" };
    static const enum sb_draw_kind kinds[] = { SB_DRAW_TOPK1, SB_DRAW_HUB, SB_DRAW_IID,
                                               SB_DRAW_IID };
    static const double q[] = { .5, .5, 0, 0 };
    for (size_t i = 0; i < 4; i++) {
        struct rig rig;
        rig_open(&rig, false);
        sb_tree_draw(&rig.tree, 0, 1, kinds[i], q, -.7f, 0);
        set_row(&rig, 0, .5, .5 - 1e-13, 0, 0);
        set_row(&rig, 1, 0, 0, 0, 1);
        rig.u = 0x1.fffffffffffffp-1;
        accepted(&rig, names[i]);
        /* The token comes from p; topk-plus-one then finds it among the children. */
        assert_int_equal(rig.verdict.n_path, i == 0 ? 2 : 1);
        sb_tree_finish(&rig.tree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(typical_has_its_published_thresholds),
        cmocka_unit_test(nest_relaxed_takes_what_is_near_the_likeliest),
        cmocka_unit_test(typical_samples_after_the_path),
        cmocka_unit_test(the_longest_path_wins_then_the_likeliest),
        cmocka_unit_test(typical_accepts_less_the_larger_epsilon_is),
        cmocka_unit_test(top_beta_has_its_published_example),
        cmocka_unit_test(bild_has_its_published_example),
        cmocka_unit_test(parameters_decide_the_guarantees),
        cmocka_unit_test(laws_take_their_arg_max_at_temperature_zero),
        cmocka_unit_test(a_contrast_without_bonus_does_not_read_the_row_of_a_leaf),
        cmocka_unit_test(broken_drafts_are_refused),
        cmocka_unit_test(an_empty_residual_falls_back_to_the_target_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

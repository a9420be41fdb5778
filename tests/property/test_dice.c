/* Verifiers under the dice that runs use. Enumeration proves what a rule does with independent choices;
 * here the numbers come from counters keyed by position, over steps that follow each other, where a
 * number that comes up twice is a bias that no single step shows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/rng.h"
#include "tests/property/enumerate.h"

enum { V = 3, LENGTH = 4, CELLS = 81 /* V^LENGTH */, GENERATIONS = 150000 };

struct rejection_params {
    double lenience, alpha, beta;
};
static const struct rejection_params exact = { 1, 0, 1 };

static struct sb_enum_table target, draft, second;

/* Rows that agree often, not always, without zeros: deep drafts, and every branch taken. */
static void alike_row(double *row, const double *near, struct sb_rng *rng)
{
    double sum = 0;
    for (size_t t = 0; t < V; t++)
        sum += row[t] = (near ? near[t] / 2 : 0) + .02 + pow(sb_rng_uniform(rng), 3);
    for (size_t t = 0; t < V; t++)
        row[t] /= sum;
}

static int make_tables(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(21, SB_STREAM_INIT);
    target.n_vocab = draft.n_vocab = second.n_vocab = V;
    for (size_t i = 0; i < sizeof target.row / sizeof *target.row; i++) {
        alike_row(target.row[i], NULL, &rng);
        alike_row(draft.row[i], target.row[i], &rng);
        alike_row(second.row[i], target.row[i], &rng);
    }
    return 0;
}

/* Sanitizers make runs ten times as long. */
static size_t n_generations(void)
{
    return getenv("SB_SANITIZED") ? GENERATIONS / 10 : GENERATIONS;
}

struct pair {
    const char *verifier;
    enum_propose *propose;
    int32_t depth, width;
};

static struct sb_enum_case case_of(const struct pair *pair)
{
    return (struct sb_enum_case){ .target = &target,
                                  .draft = &draft,
                                  .second = &second,
                                  .propose = pair->propose,
                                  .depth = pair->depth,
                                  .width = pair->width,
                                  .verifier = sb_verifier_find(pair->verifier),
                                  .params = &exact };
}

static double law_of(size_t cell, size_t length)
{
    sb_token x[LENGTH];
    double p = 1;
    for (size_t i = length; i-- > 0; cell /= V)
        x[i] = (sb_token)(cell % V);
    for (size_t i = 0; i < length; i++)
        p *= sb_enum_row(&target, x, i)[x[i]];
    return p;
}

/* How far the text is from the target's law: the largest deviation of any sequence's count, in standard
 * deviations of the binomial. *steps: how many were made. */
static double deviation(const struct sb_enum_case *c, size_t *steps)
{
    size_t count[CELLS] = { 0 }, n = n_generations();
    double worst = 0;
    *steps = 0;
    for (size_t i = 0; i < n; i++) {
        sb_token x[LENGTH + 1];
        struct enum_decoded run = enum_decode(c, sb_rng_mix(3, i), x, LENGTH);
        assert_int_equal(run.status, SB_OK);
        *steps += (size_t)run.steps;
        size_t cell = 0;
        for (size_t k = 0; k < LENGTH; k++)
            cell = cell * V + (size_t)x[k];
        count[cell]++;
    }
    for (size_t cell = 0; cell < CELLS; cell++) {
        double p = law_of(cell, LENGTH), expected = p * (double)n;
        double z = fabs((double)count[cell] - expected) / sqrt(expected * (1 - p));
        worst = z > worst ? z : worst;
    }
    return worst;
}

/* Of 81 sequences one is beyond 4.5 deviations once in 2,000 times. */
static void sampled_text_follows_the_law_over_many_steps(void **state)
{
    (void)state;
    static const struct pair pairs[] = {
        { "rrs", enum_propose_wor, 3, 2 },       { "mss", enum_propose_mix, 2, 2 },
        { "k-seq", enum_propose_paths, 3, 3 },   { "block", enum_propose_iid, 3, 1 },
        { "traversal", enum_propose_iid, 3, 2 }, { "traversal", enum_propose_wor, 2, 2 },
        { "gbv", enum_propose_paths, 3, 3 },     { "gumbel-coupled", enum_propose_race, 3, 1 },
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        size_t steps;
        struct sb_enum_case c = case_of(&pairs[i]);
        double z = deviation(&c, &steps);
        if (!(z < 4.5))
            fail_msg("%s: %g standard deviations", pairs[i].verifier, z);
        assert_true(steps > n_generations()); /* steps follow steps */
    }
}

/* ---- numbers that come up twice, planted ---- */

/* A rule from the leaves up whose draft numbers come back at the same position: what the deeper draws
 * were decides where the path ends, and then they are drawn again. */
static void drafts_that_come_back_after_a_bottom_up_rule_are_caught(void **state)
{
    (void)state;
    static const struct pair pairs[] = { { "block", enum_propose_iid, 3, 1 },
                                         { "traversal", enum_propose_iid, 3, 2 } };
    for (size_t i = 0; i < 2; i++) {
        size_t steps;
        struct sb_enum_case c = case_of(&pairs[i]);
        struct sb_verifier_ops forgetful = *c.verifier;
        forgetful.bottom_up = false;
        c.verifier = &forgetful;
        assert_true(deviation(&c, &steps) > (getenv("SB_SANITIZED") ? 4.5 : 9));
    }
}

/* Flips with a seek before each, as if every node had its position to itself. */
static const struct sb_dice *replayed;

static bool flip_again(void *self, double probability)
{
    sb_dice_seek(replayed, 1);
    return replayed->flip(self, probability);
}

static enum sb_status replaying_verify(const void *params, const struct sb_tree *tree,
                                       const struct sb_rows *rows, const struct sb_dice *dice,
                                       void *scratch, struct sb_verdict *verdict,
                                       struct sb_error *err)
{
    struct sb_dice again = *dice;
    again.flip = flip_again;
    replayed = dice;
    return sb_verifier_find("traversal")->verify(params, tree, rows, &again, scratch, verdict, err);
}

static void flips_that_share_a_number_are_caught(void **state)
{
    (void)state;
    size_t steps;
    struct sb_enum_case c = case_of(&(struct pair){ "traversal", enum_propose_iid, 2, 2 });
    struct sb_verifier_ops replaying = *c.verifier;
    replaying.verify = replaying_verify;
    c.verifier = &replaying;
    assert_true(deviation(&c, &steps) > (getenv("SB_SANITIZED") ? 4.5 : 9));
}

/* ---- who looks below ---- */

static const struct {
    enum sb_draw_kind kind;
    enum_propose *propose;
} proposers[] = { { SB_DRAW_ONEHOT, enum_propose_top },
                  { SB_DRAW_IID, enum_propose_iid },
                  { SB_DRAW_WOR, enum_propose_wor },
                  { SB_DRAW_PATHS, enum_propose_paths },
                  { SB_DRAW_MIX, enum_propose_mix } };

/* The first token of a step from one draft of `depth` levels. */
static sb_token first_token(struct sb_enum_case c, int32_t depth, uint64_t key)
{
    struct sb_rng_dice d = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    struct sb_rng_dice v = sb_rng_dice_make(key, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
    struct sb_dice draft_dice = sb_rng_dice_at(&d, 7), verify_dice = sb_rng_dice_at(&v, 7);
    struct sb_enum_bench *bench;
    const struct sb_tree *tree;
    const struct sb_verdict *verdict;
    assert_int_equal(sb_enum_bench_create(&bench, &c, NULL), SB_OK);
    assert_int_equal(
        sb_enum_bench_step(bench, NULL, 0, depth, &draft_dice, &verify_dice, &tree, &verdict, NULL),
        SB_OK);
    sb_token token =
        verdict->n_path > 1 ? tree->node[verdict->path[1]].token : verdict->final_token;
    sb_enum_bench_destroy(bench);
    return token;
}

/* With one draft and one seed, does the first token depend on whether there is a second level? Where it
 * does, numbers of the second level are spent on it, and the rule must say so. Lossy rules may. */
static void rules_that_look_below_say_that_they_are_bottom_up(void **state)
{
    (void)state;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        bool looks_below = false;
        double params[64];
        struct sb_spec defaults;
        if (v->guarantee == SB_LOSSY)
            continue;
        assert_true(v->params_size <= sizeof params);
        assert_int_equal(sb_spec_init(&defaults, v->name, NULL), SB_OK);
        assert_int_equal(sb_params_apply(params, v->params, &defaults, v->name, NULL), SB_OK);
        sb_spec_finish(&defaults);
        for (size_t k = 0; k < sizeof proposers / sizeof *proposers; k++) {
            if (!(v->kinds & SB_KIND_BIT(proposers[k].kind)))
                continue;
            struct sb_enum_case c =
                case_of(&(struct pair){ v->name, proposers[k].propose, 2, v->chains_only ? 1 : 2 });
            c.params = params;
            for (uint64_t key = 0; key < 300; key++)
                looks_below = looks_below || first_token(c, 1, key) != first_token(c, 2, key);
        }
        if (looks_below != v->bottom_up)
            fail_msg("%s %s below", v->name, looks_below ? "looks" : "does not look");
    }
}

/* ---- noise that drafter and verifier share ---- */

/* Any tree, of any kind or of several: rows and tokens have nothing to do with the target. */
static void propose_anything(const struct sb_enum_case *c, const struct sb_dice *dice,
                             struct sb_tree *tree)
{
    static const double flat[V] = { 1. / V, 1. / V, 1. / V };
    for (int32_t node = 0; node < tree->n && tree->n < 20; node++) {
        enum sb_draw_kind kind = 1 + dice->pick(dice->self, (double[7]){ 1, 1, 1, 1, 1, 1, 1 }, 7);
        size_t n = dice->pick(dice->self, (double[4]){ 1, 2, 2, 1 }, 4);
        for (size_t i = 0; i < n; i++) {
            sb_token t = (sb_token)dice->pick(dice->self, flat, V);
            if (kind == SB_DRAW_ONEHOT)
                sb_tree_add(tree, node, t, 0);
            else
                sb_tree_draw(tree, node, t, kind, flat, -1, 0);
        }
    }
}

static void coupled_text_is_that_of_plain_sampling_for_any_tree(void **state)
{
    (void)state;
    unsigned kinds = 0;
    int32_t accepted = 0;
    for (uint64_t key = 0; key < 2000; key++) {
        sb_token want[LENGTH + 1], got[LENGTH + 1];
        struct sb_enum_case c = case_of(&(struct pair){ "gumbel-coupled", propose_anything, 0, 0 });
        struct enum_decoded plain = enum_decode(&c, key, want, LENGTH);
        assert_int_equal(plain.status, SB_OK);
        assert_int_equal(plain.accepted, 0);
        c.depth = 3;
        struct enum_decoded run = enum_decode(&c, key, got, LENGTH);
        assert_int_equal(run.status, SB_OK);
        assert_int_equal(run.steps + run.accepted, LENGTH);
        assert_memory_equal(got, want, LENGTH * sizeof *got);
        accepted += run.accepted;

        struct sb_tree tree;
        struct sb_rng_dice rng = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
        struct sb_dice dice = sb_rng_dice_at(&rng, 0);
        assert_int_equal(sb_tree_create(&tree, SB_ENUM_NODES, NULL), SB_OK);
        sb_tree_reset(&tree, 0, 3);
        propose_anything(&c, &dice, &tree);
        kinds |= sb_tree_kinds(&tree);
        sb_tree_finish(&tree);
    }
    assert_int_equal(kinds, SB_KINDS_ALL);
    assert_true(accepted > 1000);
}

/* Methods A 3.14: acceptance is the sum over i of 1 / sum over j of max(p_j / p_i, q_j / q_i). */
static void coupled_drafts_are_accepted_as_published(void **state)
{
    (void)state;
    static struct sb_enum_table p = { .n_vocab = V }, q = { .n_vocab = V };
    static const double toy_p[V] = { .5, .3, .2 }, toy_q[V] = { .2, .6, .2 };
    for (size_t i = 0; i < sizeof p.row / sizeof *p.row; i++) {
        memcpy(p.row[i], toy_p, sizeof toy_p);
        memcpy(q.row[i], toy_q, sizeof toy_q);
    }
    double want = 0, variation = 0;
    for (size_t i = 0; i < V; i++) {
        double sum = 0;
        for (size_t j = 0; j < V; j++)
            sum += fmax(toy_p[j] / toy_p[i], toy_q[j] / toy_q[i]);
        want += 1 / sum;
        variation += fabs(toy_p[i] - toy_q[i]) / 2;
    }
    assert_true(fabs(want - .653846) < 1e-6);
    assert_true(want >= (1 - variation) / (1 + variation));
    struct sb_enum_case c = case_of(&(struct pair){ "gumbel-coupled", enum_propose_race, 1, 1 });
    c.target = &p;
    c.draft = &q;
    size_t n = 2 * n_generations();
    int64_t accepted = 0;
    for (size_t i = 0; i < n; i++) {
        sb_token x[3];
        struct enum_decoded run = enum_decode(&c, sb_rng_mix(5, i), x, 2);
        assert_int_equal(run.status, SB_OK);
        accepted += run.first_accepted;
    }
    double got = (double)accepted / (double)n;
    if (!(fabs(got - want) < 4 * sqrt(want * (1 - want) / (double)n)))
        fail_msg("accepted %g, expected %g", got, want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sampled_text_follows_the_law_over_many_steps),
        cmocka_unit_test(drafts_that_come_back_after_a_bottom_up_rule_are_caught),
        cmocka_unit_test(flips_that_share_a_number_are_caught),
        cmocka_unit_test(rules_that_look_below_say_that_they_are_bottom_up),
        cmocka_unit_test(coupled_text_is_that_of_plain_sampling_for_any_tree),
        cmocka_unit_test(coupled_drafts_are_accepted_as_published),
    };
    return cmocka_run_group_tests(tests, make_tables, NULL);
}

/* The drafter nest: its mixture at single rows, and runs of sessions whose prompts have passages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/decode/session.h"
#include "tests/property/toy_model.h"

enum { V = 24, CONTEXT = 96, BUDGET = 30, D_MOST = 256 };

static struct toy_model target;
static const sb_token prompt[] = { 1, 9, 14, 2, 9, 14, 2, 11, 9, 14 };
/* The prompt, and another text behind it than the target's. Nothing is 23. */
static const sb_token passage[] = { 1, 9, 14, 2, 9,  14, 2, 11, 9, 14, 5, 6,
                                    7, 8, 3,  4, 10, 12, 5, 13, 6, 15, 7, 16 };
enum { N_PROMPT = sizeof prompt / sizeof *prompt, N_PASSAGE = sizeof passage / sizeof *passage };
static const struct sb_document document = { passage, N_PASSAGE };

static int make_model(void **state)
{
    (void)state;
    sb_threads_set(1); /* the model is too small to share out */
    target = toy_model_create(1, 0, V, CONTEXT, -1);
    return 0;
}

static int destroy_model(void **state)
{
    (void)state;
    toy_model_destroy(&target);
    return 0;
}

/* ---- the drafter alone ---- */

struct rig {
    const struct sb_drafter_ops *ops;
    struct sb_spec spec;
    void *st, *params;
    struct sb_tap_plan taps;
    struct sb_policy policy;
    int64_t constant_k;
    struct sb_tree tree;
    float *state; /* [N_PASSAGE, d_model] the passage's states */
    size_t d_model;
};

/* The states that enter the last layer, by a forward of the test's own. */
static void fill_states(struct rig *rig)
{
    struct sb_seq *seq;
    size_t last_row;
    rig->state = sb_alloc_array(N_PASSAGE * rig->d_model, sizeof *rig->state);
    const struct sb_tap tap = { .kind = SB_TAP_IN,
                                .layer = sb_model_config(target.model)->n_layers - 1,
                                .dst = rig->state };
    assert_int_equal(sb_seq_create(&seq, target.model, CONTEXT, 8, NULL), SB_OK);
    assert_int_equal(sb_seq_prefill(seq, passage, N_PASSAGE, &tap, 1, &last_row, NULL), SB_OK);
    sb_seq_destroy(seq);
}

static struct sb_context context(const struct rig *rig, const sb_token *x, size_t n,
                                 const float *const *taps)
{
    return (struct sb_context){ .tokens = x,
                                .n = n,
                                .n_prompt = 1,
                                .policy = &rig->policy,
                                .documents = &document,
                                .n_documents = 1,
                                .taps = taps };
}

static void open_rig(struct rig *rig, const char *text)
{
    const struct sb_config *config = sb_model_config(target.model);
    *rig = (struct rig){ .taps = { .n_layers = config->n_layers, .d_model = config->d_model },
                         .ops = sb_drafter_find("nest"),
                         .d_model = config->d_model };
    assert_true(rig->d_model <= D_MOST);
    assert_int_equal(sb_spec_parse(&rig->spec, text, NULL), SB_OK);
    rig->st = sb_alloc_zero(1, rig->ops->state_size);
    rig->params = sb_alloc_zero(1, rig->ops->params_size);
    assert_int_equal(sb_params_apply(rig->params, rig->ops->params, &rig->spec, "it", NULL), SB_OK);
    rig->policy =
        (struct sb_policy){ .ops = sb_policy_find("constant"), .params = &rig->constant_k };
    assert_int_equal(sb_tree_create(&rig->tree, 80, NULL), SB_OK);
    assert_int_equal(rig->ops->open(rig->st,
                                    &(struct sb_drafter_env){ .target = target.model,
                                                              .max_context = CONTEXT,
                                                              .n_vocab = V,
                                                              .params = rig->params,
                                                              .taps = &rig->taps,
                                                              .policy = &rig->policy },
                                    NULL),
                     SB_OK);
    fill_states(rig);
    struct sb_context ctx = context(rig, prompt, 1, NULL);
    assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

static void close_rig(struct rig *rig)
{
    rig->ops->close(rig->st);
    sb_tree_finish(&rig->tree);
    sb_spec_finish(&rig->spec);
    sb_free(rig->st);
    sb_free(rig->params);
    sb_free(rig->state);
}

/* The mixture of level logits at the state h; returns the target's share c. No passage has token 23. */
static double share(struct rig *rig, const float *h, double row[V])
{
    const float logits[V] = { 0 };
    sb_tree_reset(&rig->tree, 0, 9);
    for (int i = 0; i < V; i++)
        row[i] = i == 0;
    rig->ops->mix(rig->st, &rig->tree, 0, &h, logits, row);
    assert_true(sb_row_is_law(row, V));
    return row[23] * V;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void a_state_of_a_passage_trusts_it_and_drafts_what_follows(void **state)
{
    (void)state;
    struct rig rig;
    double row[V];
    open_rig(&rig, "nest:window=4");
    for (size_t at = 10; at < 14; at++) { /* their prefixes end in tokens of their own */
        const float *h = rig.state + at * rig.d_model;
        double c = share(&rig, h, row);
        assert_true(fabs(c - sigmoid(-1)) < 1e-9); /* d_min = 0 */
        float taps[3 * D_MOST] = { 0 };
        const float *rows = taps;
        memcpy(taps + rig.d_model, h, rig.d_model * sizeof *h);
        const sb_token text[] = { 0, passage[at], passage[at + 1] };
        struct sb_context ctx = context(&rig, text, 3, &rows);
        sb_tree_reset(&rig.tree, text[2], 9);
        assert_int_equal(rig.ops->propose(rig.st, &ctx, &rig.tree, NULL), SB_OK);
        assert_int_equal(rig.tree.n, 5);
        for (int32_t i = 1; i < 5; i++)
            assert_int_equal(rig.tree.node[i].token, passage[at + 1 + (size_t)i]);
        /* A root that no passage has is followed by nothing. */
        const sb_token other[] = { 0, passage[at], 23 };
        ctx = context(&rig, other, 3, &rows);
        sb_tree_reset(&rig.tree, 23, 9);
        assert_int_equal(rig.ops->propose(rig.st, &ctx, &rig.tree, NULL), SB_OK);
        assert_int_equal(rig.tree.n, 1);
    }
    close_rig(&rig);
}

/* Accept the first n_path - 1 nodes of the rig's chain. */
static void observe(struct rig *rig, int32_t n_path)
{
    static const int32_t path[] = { 0, 1, 2, 3, 4 };
    struct sb_context ctx = context(rig, prompt, 1, NULL);
    const struct sb_outcome outcome = { .tree = &rig->tree, .path = path, .n_path = n_path };
    assert_int_equal(rig->ops->observe(rig->st, &ctx, &outcome, NULL), SB_OK);
}

static void an_accepted_span_goes_on_and_its_entry_is_masked(void **state)
{
    (void)state;
    for (int32_t n_path = 1; n_path <= 4; n_path++) {
        struct rig rig;
        double row[V];
        float taps[3 * D_MOST] = { 0 };
        const float *rows = taps;
        open_rig(&rig, "nest:window=3");
        const float *h = rig.state + 10 * rig.d_model;
        memcpy(taps + rig.d_model, h, rig.d_model * sizeof *h);
        const sb_token text[] = { 0, passage[10], passage[11] };
        struct sb_context ctx = context(&rig, text, 3, &rows);
        sb_tree_reset(&rig.tree, text[2], 9);
        assert_int_equal(rig.ops->propose(rig.st, &ctx, &rig.tree, NULL), SB_OK);
        assert_int_equal(rig.tree.n, 4);
        observe(&rig, n_path);
        bool masked = fabs(share(&rig, h, row) - sigmoid(-1)) > 1e-6;
        assert_int_equal(masked, n_path > 1);
        /* The state says nothing (all distances are large and alike); only a whole span goes on. */
        for (size_t i = 0; i < 3 * D_MOST; i++)
            taps[i] = 1000;
        const sb_token next[] = { 0, 0, passage[15] };
        ctx = context(&rig, next, 3, &rows);
        sb_tree_reset(&rig.tree, next[2], 9);
        assert_int_equal(rig.ops->propose(rig.st, &ctx, &rig.tree, NULL), SB_OK);
        assert_int_equal(rig.tree.n, n_path == 4 ? 4 : 1);
        for (int32_t i = 1; i < rig.tree.n; i++)
            assert_int_equal(rig.tree.node[i].token, passage[15 + i]);
        close_rig(&rig);
    }
}

static void equal_distances_leave_the_row_to_the_target(void **state)
{
    (void)state;
    struct rig rig;
    double row[V];
    float h[D_MOST];
    open_rig(&rig, "nest:token_k=1"); /* the nearest is the farthest */
    for (size_t i = 0; i < rig.d_model; i++)
        h[i] = rig.state[i] + 1;
    assert_true(fabs(share(&rig, h, row) - sigmoid(9)) < 1e-9);
    assert_true(fabs(sigmoid(9) - .9999) < 1e-4);
    close_rig(&rig);
}

static void the_mixture_is_that_of_all_distances(void **state)
{
    (void)state;
    struct rig rig;
    double row[V], want[V] = { 0 }, d[N_PASSAGE], least = INFINITY, most = 0, sum = 0;
    float h[D_MOST];
    open_rig(&rig, "nest");
    for (size_t i = 0; i < rig.d_model; i++)
        h[i] = .5002f * rig.state[15 * rig.d_model + i] + .4998f * rig.state[16 * rig.d_model + i];
    for (size_t k = 0; k + 1 < N_PASSAGE; k++) {
        d[k] = 0;
        for (size_t i = 0; i < rig.d_model; i++)
            d[k] += pow((double)h[i] - (double)rig.state[k * rig.d_model + i], 2);
        least = fmin(least, d[k]);
        most = fmax(most, d[k]);
    }
    for (size_t k = 0; k + 1 < N_PASSAGE; k++) {
        double weight = exp(-d[k] / sqrt((double)rig.d_model));
        want[passage[k + 1]] += weight;
        sum += weight;
    }
    double c = sigmoid((least / most - .1) / .1);
    double second = want[passage[17]] / sum; /* neither lost beside the nearest nor like it */
    assert_true(second > .01 && second < .49);
    assert_true(fabs(share(&rig, h, row) - c) < 1e-9 && c > sigmoid(-1));
    for (int t = 0; t < V; t++)
        assert_true(fabs(row[t] - c / V - (1 - c) * want[t] / sum) < 1e-9);
    close_rig(&rig);
}

/* ---- sessions ---- */

static struct sb_session *opened(const char *drafter, const char *verifier, double temperature)
{
    struct sb_session *s;
    struct sb_spec spec[2];
    struct sb_error err = { .message = "" };
    assert_int_equal(sb_spec_parse(&spec[0], drafter, NULL), SB_OK);
    assert_int_equal(sb_spec_parse(&spec[1], verifier, NULL), SB_OK);
    if (sb_session_create(&s,
                          &(struct sb_session_options){ .target = target.model,
                                                        .drafter = &spec[0],
                                                        .verifier = &spec[1],
                                                        .sampling.temperature = temperature },
                          &err) != SB_OK)
        fail_msg("%s with %s: %s", drafter, verifier, err.message);
    sb_spec_finish(&spec[0]);
    sb_spec_finish(&spec[1]);
    return s;
}

static struct sb_generation decode(const char *drafter, const char *verifier, double temperature,
                                   size_t n_documents, bool plain)
{
    struct sb_session *s = opened(drafter, verifier, temperature);
    struct sb_generation out;
    struct sb_error err = { .message = "" };
    for (int again = 0; again < 2; again++) { /* what came before leaves nothing behind */
        enum sb_status rc =
            sb_session_generate(s,
                                &(struct sb_request){ .prompt = prompt,
                                                      .n_prompt = N_PROMPT,
                                                      .max_new_tokens = BUDGET,
                                                      .rng_key = 5,
                                                      .documents = &document,
                                                      .n_documents = again ? n_documents : 1,
                                                      .plain = again && plain },
                                &out, &err);
        if (rc != SB_OK)
            fail_msg("%s with %s: %s", drafter, verifier, err.message);
        if (!again)
            sb_generation_finish(&out);
    }
    sb_session_destroy(s);
    return out;
}

static bool same_text(const struct sb_generation *a, const struct sb_generation *b)
{
    return a->tokens.n == b->tokens.n &&
           memcmp(a->tokens.id, b->tokens.id, a->tokens.n * sizeof *a->tokens.id) == 0;
}

static const double temperatures[] = { 0, .8 };

static void without_passages_or_when_plain_the_text_is_the_targets(void **state)
{
    (void)state;
    for (size_t t = 0; t < 2; t++) {
        struct sb_generation want = decode("none", "naive-sample", temperatures[t], 0, false);
        struct sb_generation bare = decode("nest", "naive-sample", temperatures[t], 0, false);
        struct sb_generation plain = decode("nest", "naive-sample", temperatures[t], 1, true);
        assert_true(same_text(&want, &bare) && same_text(&want, &plain));
        assert_int_equal(bare.drafted, 0);
        assert_int_equal(plain.drafted, 0);
        sb_generation_finish(&want);
        sb_generation_finish(&bare);
        sb_generation_finish(&plain);
    }
}

static void a_text_that_reaches_a_passage_copies_it(void **state)
{
    (void)state;
    static const char *const verifiers[] = { "greedy", "nest-relaxed", "typical", "top-beta" };
    struct sb_generation plain = decode("none", "greedy", 0, 0, false);
    assert_int_not_equal(plain.tokens.id[0], passage[N_PROMPT]);
    for (size_t v = 0; v < 4; v++) {
        struct sb_generation got = decode("nest:window=3", verifiers[v], 0, 1, false);
        assert_int_equal(got.tokens.n, BUDGET);
        assert_true(got.accepted >= 6);
        for (size_t i = 0; i < 6; i++)
            assert_int_equal(got.tokens.id[i], passage[N_PROMPT + i]);
        sb_generation_finish(&got);
    }
    sb_generation_finish(&plain);
}

static void nothing_accepted_gives_the_mixtures_own_text_whatever_the_batch(void **state)
{
    (void)state;
    static const char *const drafters[] = { "nest", "nest:window=1", "nest:window=5" };
    for (size_t t = 0; t < 2; t++) {
        struct sb_generation want =
            decode("nest:beta=0", "naive-sample", temperatures[t], 1, false);
        struct sb_generation target_text =
            decode("none", "naive-sample", temperatures[t], 1, false);
        assert_false(same_text(&want, &target_text));
        assert_int_equal(want.drafted, 0);
        for (size_t d = 0; d < 3; d++) {
            struct sb_generation got =
                decode(drafters[d], "nest-relaxed:gamma=2", temperatures[t], 1, false);
            assert_true(got.drafted > 0 && got.accepted == 0);
            if (!same_text(&got, &want))
                fail_msg("%s at temperature %g: another text", drafters[d], temperatures[t]);
            sb_generation_finish(&got);
        }
        sb_generation_finish(&want);
        sb_generation_finish(&target_text);
    }
}

static void a_session_that_mixes_is_lossy_with_every_verifier(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        const struct sb_drafter_ops *nest = sb_drafter_find("nest");
        if (sb_pair_check(nest, v, &(struct sb_sampling){ 0 }, NULL) != SB_OK)
            continue;
        struct sb_session *s = opened("nest", v->name, 0);
        assert_int_equal(sb_session_guarantee(s), SB_LOSSY);
        sb_session_destroy(s);
        struct sb_generation got = decode("nest", v->name, 0, 1, false);
        assert_int_equal(got.tokens.id[0], passage[N_PROMPT]); /* all see the mixture */
        sb_generation_finish(&got);
        n++;
    }
    assert_true(n >= 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_of_a_passage_trusts_it_and_drafts_what_follows),
        cmocka_unit_test(an_accepted_span_goes_on_and_its_entry_is_masked),
        cmocka_unit_test(equal_distances_leave_the_row_to_the_target),
        cmocka_unit_test(the_mixture_is_that_of_all_distances),
        cmocka_unit_test(without_passages_or_when_plain_the_text_is_the_targets),
        cmocka_unit_test(a_text_that_reaches_a_passage_copies_it),
        cmocka_unit_test(nothing_accepted_gives_the_mixtures_own_text_whatever_the_batch),
        cmocka_unit_test(a_session_that_mixes_is_lossy_with_every_verifier),
    };
    return cmocka_run_group_tests(tests, make_model, destroy_model);
}

/* Whole runs of lossy verifiers: exact where their parameters say so, and the two halves of Big-Little
 * decoding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/decode/session.h"
#include "tests/property/toy_model.h"

enum { V = 24, CONTEXT = 96, BUDGET = 60 };

static struct toy_model target, near;
static const sb_token prompt[] = { 1, 9, 14, 2, 9, 14, 2, 11, 9, 14 };
enum { N_PROMPT = sizeof prompt / sizeof *prompt };

static int make_models(void **state)
{
    (void)state;
    sb_threads_set(1); /* the models are too small to share out */
    target = toy_model_create(1, 0, V, CONTEXT, -1);
    near = toy_model_create(1, .12, V, CONTEXT, -1);
    return 0;
}

static int destroy_models(void **state)
{
    (void)state;
    toy_model_destroy(&target);
    toy_model_destroy(&near);
    return 0;
}

static enum sb_status load(void *loader, const char *name, struct sb_model **model,
                           const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = near.model;
    *tokenizer = NULL;
    return SB_OK;
}

static enum sb_status open_session(struct sb_session **out, const char *drafter,
                                   const char *verifier, const char *policy, double temperature,
                                   struct sb_error *err)
{
    struct sb_spec spec[3];
    const char *text[] = { drafter, verifier, policy };
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(sb_spec_parse(&spec[i], text[i], NULL), SB_OK);
    const struct sb_session_options options = { .target = target.model,
                                                .drafter = &spec[0],
                                                .verifier = &spec[1],
                                                .policy = &spec[2],
                                                .sampling.temperature = temperature,
                                                .load_model = load };
    enum sb_status rc = sb_session_create(out, &options, err);
    for (size_t i = 0; i < 3; i++)
        sb_spec_finish(&spec[i]);
    return rc;
}

/* Greedy text; *guarantee of the session, when asked for. */
static struct sb_generation generate(const char *drafter, const char *verifier, const char *policy,
                                     enum sb_guarantee *guarantee)
{
    struct sb_session *s;
    struct sb_generation out;
    struct sb_error err = { .message = "" };
    if (open_session(&s, drafter, verifier, policy, 0, &err) != SB_OK)
        fail_msg("%s with %s: %s", drafter, verifier, err.message);
    const struct sb_request request = { .prompt = prompt,
                                        .n_prompt = N_PROMPT,
                                        .max_new_tokens = BUDGET };
    assert_int_equal(sb_session_generate(s, &request, &out, &err), SB_OK);
    if (guarantee)
        *guarantee = sb_session_guarantee(s);
    sb_session_destroy(s);
    return out;
}

static bool same_text(const struct sb_generation *a, const struct sb_generation *b)
{
    return a->tokens.n == b->tokens.n &&
           memcmp(a->tokens.id, b->tokens.id, a->tokens.n * sizeof(sb_token)) == 0;
}

static void strict_parameters_equal_plain_greedy_decoding(void **state)
{
    (void)state;
    static const char *const pairs[][3] = {
        { "small-lm:model=x,k=6", "bild:rb=0", "constant" },
        { "small-lm:model=x,k=6", "bild:rb=0", "fallback" },
        { "pld:wrap=1", "bild:rb=0", "constant" },
        { "small-lm:model=x,k=6", "top-beta:beta=1", "constant" },
        { "small-lm:model=x,tree=3x2x2", "top-beta:beta=1,tau=9", "constant" },
        { "small-lm:model=x,tree=3x2x2", "typical", "constant" }, /* at temperature 0 */
    };
    struct sb_generation want = generate("none", "greedy", "constant", NULL);
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        enum sb_guarantee guarantee;
        struct sb_generation got = generate(pairs[i][0], pairs[i][1], pairs[i][2], &guarantee);
        if (!same_text(&got, &want))
            fail_msg("%s with %s: another text", pairs[i][0], pairs[i][1]);
        assert_int_equal(guarantee, strcmp(pairs[i][1], "typical") ? SB_GREEDY_EXACT : SB_LOSSY);
        assert_true(got.accepted > 0 && got.accepted < got.drafted);
        sb_generation_finish(&got);
    }
    sb_generation_finish(&want);
}

static void without_a_rollback_the_small_model_writes_alone(void **state)
{
    (void)state;
    enum sb_guarantee guarantee;
    struct sb_generation want = generate("none", "greedy", "constant", NULL);
    struct sb_generation got =
        generate("small-lm:model=x,k=6", "bild:rb=1000", "fallback:fb=0", &guarantee);
    assert_int_equal(guarantee, SB_LOSSY);
    assert_int_equal(got.accepted, got.drafted);
    assert_true(got.drafted > BUDGET / 2);
    assert_false(same_text(&got, &want));
    struct sb_generation all =
        generate("small-lm:model=x,k=6", "top-beta:beta=24,tau=1000", "constant", &guarantee);
    assert_true(same_text(&all, &got));
    sb_generation_finish(&all);
    sb_generation_finish(&got);
    sb_generation_finish(&want);
}

static void rules_without_samples_are_refused_above_temperature_zero(void **state)
{
    (void)state;
    static const char *const names[] = { "bild", "bild:rb=0", "top-beta", "top-beta:beta=1" };
    for (size_t i = 0; i < 4; i++) {
        struct sb_session *s;
        struct sb_error err;
        assert_int_equal(open_session(&s, "pld", names[i], "constant", .7, &err), SB_EUSAGE);
        assert_non_null(strstr(err.message, "never samples, and the temperature is above 0"));
    }
}

static void laws_of_both_models_need_a_drafter_with_rows(void **state)
{
    (void)state;
    static const char *const names[] = { "scd", "speccascade-opt" };
    for (size_t i = 0; i < 2; i++) {
        struct sb_session *s;
        struct sb_error err;
        assert_int_equal(open_session(&s, "pld", names[i], "constant", .7, &err), SB_EUSAGE);
        assert_non_null(strstr(err.message, "needs the drafter's own rows, and it gives none"));
    }
}

/* ---- the policy, on one draft ---- */

static double seen[64];
static int32_t n_seen;

static enum sb_policy_verdict watch_node(void *st, const void *params,
                                         const struct sb_policy_node *node)
{
    seen[n_seen++] = node->top_prob;
    return SB_POLICY_GO_ON;
}

static int32_t as_wanted(void *st, const void *params, int32_t wanted)
{
    return wanted;
}

/* Draft once below the prompt; the tokens of the chain. */
static int32_t draft(const struct sb_policy *policy, double temperature, sb_token *chain)
{
    const struct sb_drafter_ops *ops = sb_drafter_find("small-lm");
    struct sb_spec spec;
    struct sb_tree tree;
    assert_int_equal(sb_spec_parse(&spec, "small-lm:model=x,k=20", NULL), SB_OK);
    void *params = sb_alloc_zero(1, ops->params_size), *st = sb_alloc_zero(1, ops->state_size);
    assert_int_equal(sb_params_apply(params, ops->params, &spec, "drafter", NULL), SB_OK);
    const struct sb_drafter_env env = { .target = target.model,
                                        .sampling.temperature = temperature,
                                        .max_context = CONTEXT,
                                        .n_vocab = V,
                                        .params = params,
                                        .policy = policy,
                                        .load_model = load };
    struct sb_rng_dice rng = sb_rng_dice_make(1, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    const struct sb_context ctx = { .tokens = prompt,
                                    .n = N_PROMPT,
                                    .n_prompt = N_PROMPT,
                                    .dice = sb_rng_dice_at(&rng, N_PROMPT),
                                    .policy = policy };
    assert_int_equal(ops->open(st, &env, NULL), SB_OK);
    assert_int_equal(sb_tree_create(&tree, 21, NULL), SB_OK);
    sb_tree_reset(&tree, prompt[N_PROMPT - 1], 20);
    assert_int_equal(ops->begin(st, &ctx, NULL), SB_OK);
    assert_int_equal(ops->propose(st, &ctx, &tree, NULL), SB_OK);
    assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
    int32_t n = tree.n - 1;
    for (int32_t i = 0; i < n; i++)
        chain[i] = tree.node[i + 1].token;
    ops->close(st);
    sb_tree_finish(&tree);
    sb_spec_finish(&spec);
    sb_free(st);
    sb_free(params);
    return n;
}

static void fallback_stops_before_the_first_token_of_an_unsure_row(void **state)
{
    (void)state;
    static const struct sb_policy_ops watcher = { .name = "watch",
                                                  .plan = as_wanted,
                                                  .after_node = watch_node };
    static const double temperatures[] = { 0, .7 };
    for (size_t t = 0; t < 2; t++) {
        sb_token all[20], some[20];
        const struct sb_policy watch = { .ops = &watcher };
        bool cut = false;
        n_seen = 0;
        assert_int_equal(draft(&watch, temperatures[t], all), 20);
        assert_int_equal(n_seen, 20);
        for (double fb = 0; fb <= 1; fb += .1) {
            const struct sb_policy policy = { .ops = sb_policy_find("fallback"), .params = &fb };
            int32_t n = draft(&policy, temperatures[t], some), want = 0;
            while (want < 20 && seen[want] >= fb)
                want++;
            assert_int_equal(n, want);
            assert_memory_equal(some, all, (size_t)n * sizeof *all);
            cut = cut || (n > 0 && n < 20);
        }
        assert_true(cut);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strict_parameters_equal_plain_greedy_decoding),
        cmocka_unit_test(without_a_rollback_the_small_model_writes_alone),
        cmocka_unit_test(rules_without_samples_are_refused_above_temperature_zero),
        cmocka_unit_test(laws_of_both_models_need_a_drafter_with_rows),
        cmocka_unit_test(fallback_stops_before_the_first_token_of_an_unsure_row),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}

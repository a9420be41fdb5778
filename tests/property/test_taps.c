/* Hidden states that a session keeps for its drafter: after any steps they are those of the committed text
 * computed afresh, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "harness/decode/session.h"
#include "kernels/prob.h"
#include "tests/property/toy_model.h"

enum { V = 24, CONTEXT = 96, N_TAPS = 3, BRANCH = 3 };

static struct toy_model toy;

/* What the spy sees is compared at once with a sequence of its own. */
struct spy {
    size_t index[N_TAPS], d, steps, accepted;
    struct sb_seq *own;
    float *row[N_TAPS];
};
static struct spy *last_spy;

static enum sb_status spy_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct spy *spy = st;
    last_spy = spy;
    spy->d = sb_model_config(env->target)->d_model;
    assert_int_equal(sb_tap_want(env->taps, SB_TAP_FINAL, 0, &spy->index[0], err), SB_OK);
    assert_int_equal(sb_tap_want(env->taps, SB_TAP_IN, 1, &spy->index[1], err), SB_OK);
    assert_int_equal(sb_tap_want(env->taps, SB_TAP_LAST, 0, &spy->index[2], err), SB_OK);
    size_t again, none = 77;
    assert_int_equal(sb_tap_want(env->taps, SB_TAP_IN, 1, &again, err), SB_OK);
    assert_int_equal(again, spy->index[1]);
    assert_int_equal(sb_tap_want(env->taps, SB_TAP_OUT, 99, &none, NULL), SB_EUSAGE);
    assert_int_equal(none, 77);
    for (int i = 0; i < N_TAPS; i++)
        spy->row[i] = calloc(CONTEXT * spy->d, sizeof(float));
    return sb_seq_create(&spy->own, env->target, CONTEXT, 64, err);
}

static void spy_close(void *st)
{
    struct spy *spy = st;
    sb_seq_destroy(spy->own);
    for (int i = 0; i < N_TAPS; i++)
        free(spy->row[i]);
}

static void compare(struct spy *spy, const struct sb_context *ctx)
{
    const struct sb_tap taps[N_TAPS] = { { SB_TAP_FINAL, 0, spy->row[0] },
                                         { SB_TAP_IN, 1, spy->row[1] },
                                         { SB_TAP_LAST, 0, spy->row[2] } };
    sb_seq_truncate(spy->own, 0);
    assert_int_equal(sb_seq_prefill(spy->own, ctx->tokens, ctx->n - 1, taps, N_TAPS, NULL, NULL),
                     SB_OK);
    for (int i = 0; i < N_TAPS; i++)
        assert_memory_equal(ctx->taps[spy->index[i]], spy->row[i],
                            (ctx->n - 1) * spy->d * sizeof(float));
}

/* Every second token of the tree is what the target would say, so paths of all lengths are kept. */
static enum sb_status spy_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                  struct sb_error *err)
{
    (void)err;
    struct spy *spy = st;
    compare(spy, ctx);
    size_t last;
    int32_t parent = 0;
    sb_token root = ctx->tokens[ctx->n - 1];
    for (int depth = 0; depth < 3; depth++) {
        assert_int_equal(sb_seq_prefill(spy->own, &root, 1, NULL, 0, &last, NULL), SB_OK);
        const float *logits = sb_seq_logits(spy->own, last);
        sb_token best = (sb_token)sb_logits_argmax(logits, V);
        for (int b = 0; b < BRANCH; b++) {
            bool right = b == 1 && (ctx->n + (size_t)depth) % 4 != 0;
            sb_tree_add(tree, parent, right ? best : (best + 5 + b) % V, 0);
        }
        parent = sb_tree_child(tree, parent, best);
        root = best;
        if (parent < 0)
            break;
    }
    spy->steps++;
    return SB_OK;
}

static enum sb_status spy_observe(void *st, const struct sb_context *ctx,
                                  const struct sb_outcome *outcome, struct sb_error *err)
{
    (void)err;
    struct spy *spy = st;
    compare(spy, ctx);
    spy->accepted += (size_t)outcome->n_path - 1;
    return SB_OK;
}

static int32_t spy_nodes(const void *params, const struct sb_policy *policy)
{
    (void)params, (void)policy;
    return 3 * BRANCH;
}

static const struct sb_drafter_ops spy_ops = {
    .name = "spy",
    .summary = "looks at hidden states",
    .state_size = sizeof(struct spy),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .open = spy_open,
    .propose = spy_propose,
    .observe = spy_observe,
    .close = spy_close,
    .max_nodes = spy_nodes,
};

static void taps_are_those_of_the_committed_text(void **state)
{
    (void)state;
    toy = toy_model_create(3, 0, V, CONTEXT, -1);
    struct sb_session *session;
    const struct sb_session_options options = { .target = toy.model, .drafter_ops = &spy_ops };
    assert_int_equal(sb_session_create(&session, &options, NULL), SB_OK);
    for (size_t n_prompt = 1; n_prompt < 8; n_prompt += 3) {
        static const sb_token prompt[] = { 4, 9, 1, 7, 20, 3, 11 };
        const struct sb_request request = { .prompt = prompt,
                                            .n_prompt = n_prompt,
                                            .max_new_tokens = 60 };
        struct sb_generation out;
        assert_int_equal(sb_session_generate(session, &request, &out, NULL), SB_OK);
        assert_int_equal(out.tokens.n, 60);
        sb_generation_finish(&out);
    }
    assert_true(last_spy->accepted > 20);
    assert_true(last_spy->accepted < 3 * last_spy->steps);
    sb_session_destroy(session);
    toy_model_destroy(&toy);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(taps_are_those_of_the_committed_text) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

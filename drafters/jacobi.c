/* Jacobi decoding (methods C 2.1): guess the next tokens anyhow, let one forward say what should stand
 * at each place given the guesses before it, and guess that next time. What is accepted is what the
 * iteration has settled.
 *
 * Differs from the paper: its blocks (PJ, PGJ, HGJ) are a window here that slides with the text.
 *
 * Above temperature 0 guess=coupled takes, at each place, the winner of the race that decides there
 * under gumbel-coupled: the fixed point is then the sample itself. Other verifiers share no noise; for
 * them the likeliest token (guess=argmax) is the best guess. Both are chosen, not drawn from a law that
 * a verifier would have to know, so any verifier of one-hot drafts is lawful. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "kernels/kernels.h"

struct jacobi_params {
    int64_t m;
    const char *fill, *guess;
};

static const struct sb_param jacobi_params[] = {
    { .name = "m",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct jacobi_params, m),
      .fallback = "8",
      .min = 1,
      .max = 1000,
      .meaning = "tokens guessed" },
    { .name = "fill",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct jacobi_params, fill),
      .fallback = "repeat",
      .choices = "repeat|root|prompt",
      .meaning =
          "what stands where nothing was said yet: the last guess, the last token of the text, "
          "random tokens of the prompt" },
    { .name = "guess",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct jacobi_params, guess),
      .fallback = "argmax",
      .choices = "argmax|coupled",
      .meaning =
          "above temperature 0: the likeliest token, or the winner of gumbel-coupled's race" },
    { 0 },
};

struct jacobi {
    enum { REPEAT, ROOT, PROMPT } fill;
    bool coupled;
    int32_t m, longest;
    struct sb_sampling sampling;
    size_t n_vocab;
    sb_token *guess; /* [longest] of the tokens after the root */
    int32_t n_guess;
    sb_token last; /* what REPEAT repeats */
    size_t n;      /* length of the text that the draft was made for */
    struct sb_rng rng;
    double *prob; /* [n_vocab]; coupled only, like scratch */
    void *scratch;
};

static int32_t jacobi_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct jacobi_params *)params)->m);
}

static enum sb_status jacobi_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct jacobi *j = st;
    const struct jacobi_params *p = env->params;
    j->m = (int32_t)p->m;
    j->longest = jacobi_max_nodes(p, env->policy);
    j->fill = strcmp(p->fill, "repeat") == 0 ? REPEAT
              : strcmp(p->fill, "root") == 0 ? ROOT
                                             : PROMPT;
    j->coupled = strcmp(p->guess, "coupled") == 0 && env->sampling.temperature > 0;
    j->sampling = env->sampling;
    j->n_vocab = env->n_vocab;
    j->guess = sb_alloc_array((size_t)j->longest, sizeof *j->guess);
    if (j->coupled) {
        j->prob = sb_alloc_array(j->n_vocab, sizeof *j->prob);
        j->scratch = sb_alloc(sb_sampling_scratch_bytes(j->n_vocab));
    }
    if (!j->guess || (j->coupled && (!j->prob || !j->scratch)))
        return sb_fail(err, SB_ENOMEM, "drafter jacobi: no memory for %d guesses", (int)j->longest);
    return SB_OK;
}

static void jacobi_close(void *st)
{
    struct jacobi *j = st;
    sb_free(j->guess);
    sb_free(j->prob);
    sb_free(j->scratch);
    *j = (struct jacobi){ 0 };
}

static enum sb_status jacobi_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct jacobi *j = st;
    j->n_guess = 0;
    j->last = ctx->tokens[ctx->n - 1];
    j->rng =
        sb_rng_make(0, SB_STREAM_DRAFT); /* one seed: a repeat of a greedy run is the same run */
    return SB_OK;
}

static sb_token filler(struct jacobi *j, const struct sb_context *ctx)
{
    if (j->fill == REPEAT)
        return j->last;
    if (j->fill == ROOT)
        return ctx->tokens[ctx->n - 1];
    return ctx->tokens[sb_rng_below(&j->rng, ctx->n_prompt)];
}

static enum sb_status jacobi_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                     struct sb_error *err)
{
    struct jacobi *j = st;
    int32_t k = sb_policy_plan(ctx->policy, j->m), node = 0;
    j->n = ctx->n;
    for (int32_t i = 0; i < k && node >= 0; i++)
        node = sb_tree_add(tree, node, i < j->n_guess ? j->guess[i] : filler(j, ctx), 0);
    return SB_OK;
}

/* What the target says should follow the node. */
static sb_token say(struct jacobi *j, const struct sb_context *ctx, const float *logits,
                    int32_t node)
{
    if (!j->coupled || !ctx->dice.race)
        return (sb_token)sb_argmax(logits, j->n_vocab);
    sb_sampling_apply(j->prob, &j->sampling, logits, j->n_vocab, j->scratch);
    if (!(j->prob[0] >= 0))
        return j->last; /* no law: the verifier refuses the row if it ever gets there */
    /* The token stands at j->n + node; the dice at ctx->n - 1, never behind it: see below. */
    sb_dice_seek(&ctx->dice, j->n + (size_t)node + 1 - ctx->n);
    return (sb_token)ctx->dice.race(ctx->dice.self, j->prob, j->n_vocab);
}

/* The draft is a chain, so node i is the i-th guess and its row speaks of the next. Rows up to the
 * last accepted one have become text. */
static enum sb_status jacobi_observe(void *st, const struct sb_context *ctx,
                                     const struct sb_outcome *outcome, struct sb_error *err)
{
    struct jacobi *j = st;
    j->n_guess = 0;
    j->last = ctx->tokens[ctx->n - 1];
    if (outcome->final_token < 0)
        return SB_OK; /* it is over */
    for (int32_t node = outcome->n_path; node < outcome->tree->n; node++) {
        const float *logits = sb_seq_logits(outcome->target, (size_t)node);
        if (!logits)
            return sb_fail(err, SB_EINTERNAL, "drafter jacobi: a node without a row");
        j->last = j->guess[j->n_guess++] = say(j, ctx, logits, node);
    }
    return SB_OK;
}

const struct sb_drafter_ops sb_drafter_jacobi = {
    .name = "jacobi",
    .summary = "guess what the target said at each place given the last guesses",
    .paper = "Santilli et al. 2023, arXiv 2305.10427",
    .params = jacobi_params,
    .params_size = sizeof(struct jacobi_params),
    .state_size = sizeof(struct jacobi),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .target_rows = SB_TARGET_ROWS_OWN,
    .open = jacobi_open,
    .begin = jacobi_begin,
    .propose = jacobi_propose,
    .observe = jacobi_observe,
    .close = jacobi_close,
    .max_nodes = jacobi_max_nodes,
};

/* SAM-Decoding (methods C 1.9): a suffix automaton of the text says how much of its end occurred
 * before, and where first; the draft is what followed there, the longer the longer the match.
 *
 * The automaton holds the text but for the root, and each token is matched before it is appended, so a
 * match is always with earlier text. Where the first occurrence has too little behind it, a shorter
 * match with an earlier first occurrence takes its place.
 *
 * Differs from the original: only the automaton of the running text, no corpus (that comes with the
 * datastore) and no second drafter for short matches; no draft below min_match, none is padded. The
 * automaton may outlive the prompt: texts are then joined by a token that matches nothing, and a prompt
 * that begins with the text before it is read on from where that ended.
 *
 * Memory: about 130 bytes per token kept, for max_context tokens at open; scope=conversation and run
 * grow at begin, never in a step. */
#include <inttypes.h>
#include <string.h>

#include "drafters/automaton.h"
#include "drafters/scope.h"
#include "harness/decode/drafter.h"

enum { JOINT = -1 }; /* between two texts */

struct sam_params {
    int64_t k, min_match;
    double alpha;
    const char *scope;
};

static const struct sb_param sam_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sam_params, k),
      .fallback = "39",
      .min = 1,
      .max = 1000,
      .meaning = "longest draft" },
    { .name = "alpha",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct sam_params, alpha),
      .fallback = "4",
      .min = 0.01,
      .max = 1000,
      .meaning = "draft at most alpha tokens per matched token" },
    { .name = "min_match",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sam_params, min_match),
      .fallback = "1",
      .min = 1,
      .max = 1000,
      .meaning = "shortest match to copy from" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct sam_params, scope),
      .fallback = "conversation",
      .choices = SB_SCOPE_CHOICES,
      .meaning = SB_SCOPE_MEANING },
    { 0 },
};

struct sam {
    struct sam_params params;
    struct sb_scope scope;
    struct sb_automaton text;
    struct sb_automaton_match match; /* of the text but for the root */
    size_t start;                    /* of this prompt's text in the automaton's */
    size_t max_context;
};

static enum sb_status sam_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct sam *sam = st;
    sam->params = *(const struct sam_params *)env->params;
    sam->max_context = env->max_context;
    enum sb_status rc = sb_scope_init(&sam->scope, sam->params.scope, env->max_context, "sam", err);
    return rc == SB_OK ? sb_automaton_reserve(&sam->text, env->max_context, err) : rc;
}

static void sam_close(void *st)
{
    struct sam *sam = st;
    sb_scope_finish(&sam->scope);
    sb_automaton_finish(&sam->text);
}

/* Take in what was committed since, up to the root. */
static void read_on(struct sam *sam, const struct sb_context *ctx)
{
    while (sam->text.n - sam->start + 1 < ctx->n) {
        sb_token token = ctx->tokens[sam->text.n - sam->start];
        sam->match = sb_automaton_read(&sam->text, sam->match, token);
        sb_automaton_append(&sam->text, token);
    }
}

static enum sb_status sam_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct sam *sam = st;
    size_t before = sam->text.n - sam->start;
    if (sb_scope_forgets(&sam->scope, ctx)) {
        sb_automaton_clear(&sam->text);
        sam->match = (struct sb_automaton_match){ 0 };
        sam->start = 0;
    } else if (before >= ctx->n ||
               memcmp(sam->text.text + sam->start, ctx->tokens, before * sizeof(sb_token)) != 0) {
        enum sb_status rc = sb_automaton_reserve(&sam->text, sam->text.n + 1, err);
        if (rc != SB_OK)
            return rc;
        sb_automaton_append(&sam->text, JOINT);
        sam->match = (struct sb_automaton_match){ 0 };
        sam->start = sam->text.n;
    }
    enum sb_status rc = sb_automaton_reserve(&sam->text, sam->start + sam->max_context, err);
    if (rc == SB_OK && ctx->n <= sam->max_context)
        read_on(sam, ctx);
    return rc;
}

static enum sb_status sam_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                  struct sb_error *err)
{
    struct sam *sam = st;
    const struct sb_automaton *text = &sam->text;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)sam->params.k);
    if (ctx->n > sam->max_context)
        return SB_OK;
    read_on(sam, ctx);
    struct sb_automaton_match m =
        sb_automaton_read(&sam->text, sam->match, ctx->tokens[ctx->n - 1]);
    if (k < 1 || m.len < sam->params.min_match)
        return SB_OK;
    if (sam->params.alpha * m.len < k)
        k = (int32_t)(sam->params.alpha * m.len);
    const struct sb_automaton_state *s = &text->state[m.state];
    while ((int32_t)text->n - s->end <= k && text->state[s->link].len >= sam->params.min_match)
        s = &text->state[s->link];
    size_t from = (size_t)s->end;
    for (int32_t i = 0, node = 0; i < k && node >= 0 && from < text->n; i++, from++) {
        if (text->text[from] == JOINT)
            break;
        node = sb_tree_add(tree, node, text->text[from], m.len);
    }
    return SB_OK;
}

/* The last step's tokens, which no further propose would see. */
static enum sb_status sam_observe(void *st, const struct sb_context *ctx,
                                  const struct sb_outcome *outcome, struct sb_error *err)
{
    struct sam *sam = st;
    if (ctx->n <= sam->max_context)
        read_on(sam, ctx);
    return SB_OK;
}

static int32_t sam_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct sam_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_sam = {
    .name = "sam",
    .summary =
        "copy what followed the longest repeated end of the text, found by a suffix automaton",
    .paper = "Hu et al. 2024, arXiv 2411.10666",
    .params = sam_params,
    .params_size = sizeof(struct sam_params),
    .state_size = sizeof(struct sam),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .source_is_match = true,
    .open = sam_open,
    .begin = sam_begin,
    .propose = sam_propose,
    .observe = sam_observe,
    .close = sam_close,
    .max_nodes = sam_max_nodes,
};

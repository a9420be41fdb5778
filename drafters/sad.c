/* drafters/sad: input-guided aggressive decoding (methods C 1.4), for output that copies its input with
 * few changes: editing, correction. The draft is the input from where the output has got to.
 *
 * A pointer into the input starts at its first token and moves with every token of the output that
 * equals the one it points at; any other token loses it. A lost pointer looks for the shortest suffix
 * of the output, of at most q_max tokens, that occurs exactly once in the input, and goes on behind
 * it; where there is none, there is no draft.
 *
 * The input is what the data set names as the prompt's documents; where it names none, the prompt between
 * the first token `from` and the next token `to` (ids; -1: the prompt's beginning, its end). In a prompt
 * without the token `from` there is no input. Written from the paper's idea, for a decoder alone; the shallow decoder of
 * its title is a model's shape, not decoding.
 *
 * Nothing is learnt, so there is no scope. Memory: about 550 KiB at 4,096 positions and q_max=8. */
#include <string.h>

#include "drafters/gram_index.h"
#include "harness/decode/drafter.h"

struct sad_params {
    int64_t k, q_max, from, to;
};

static const struct sb_param sad_params[] = {
    { .name = "from",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sad_params, from),
      .fallback = "-1",
      .min = -1,
      .max = INT32_MAX,
      .meaning = "token id before the input; -1: the prompt is the input from its beginning" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sad_params, k),
      .fallback = "32",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "q_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sad_params, q_max),
      .fallback = "8",
      .min = 1,
      .max = 16,
      .meaning = "longest end of the output to look for in the input" },
    { .name = "to",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sad_params, to),
      .fallback = "-1",
      .min = -1,
      .max = INT32_MAX,
      .meaning = "token id behind the input; -1: the prompt is the input to its end" },
    { 0 },
};

struct sad {
    struct sad_params params;
    struct sb_gram_index index; /* its text is the input */
    size_t n_input, at;         /* the pointer */
    size_t seen;                /* tokens of the text that have moved it */
    bool lost;
    int32_t found; /* the suffix that found it again; 0: it was never lost. A node's source */
};

static enum sb_status sad_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct sad *sad = st;
    sad->params = *(const struct sad_params *)env->params;
    enum sb_status rc =
        sb_gram_index_init(&sad->index, env->max_context, (size_t)sad->params.q_max, err);
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter sad");
}

static void sad_close(void *st)
{
    sb_gram_index_finish(&((struct sad *)st)->index);
}

static size_t position_of(const sb_token *x, size_t from, size_t n, int64_t token)
{
    while (from < n && x[from] != token)
        from++;
    return from;
}

/* The input into the index's text: the prompt's own documents, one behind the other, or a part of it. */
static size_t take_input(struct sad *sad, const struct sb_context *ctx)
{
    size_t n = ctx->n_prompt < sad->index.cap ? ctx->n_prompt : sad->index.cap, from = 0, at = 0;
    for (size_t i = 0; i < ctx->n_documents; i++) {
        size_t room = sad->index.cap - at, size = ctx->documents[i].n;
        size = size < room ? size : room;
        memcpy(sad->index.text + at, ctx->documents[i].tokens, size * sizeof *ctx->tokens);
        at += size;
    }
    if (ctx->n_documents > 0)
        return at;
    if (sad->params.from >= 0) {
        from = position_of(ctx->tokens, 0, n, sad->params.from);
        from += from < n;
    }
    if (sad->params.to >= 0)
        n = position_of(ctx->tokens, from, n, sad->params.to);
    memcpy(sad->index.text, ctx->tokens + from, (n - from) * sizeof *ctx->tokens);
    return n - from;
}

static enum sb_status sad_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct sad *sad = st;
    sb_gram_index_clear(&sad->index);
    sad->n_input = take_input(sad, ctx);
    sad->at = 0;
    sad->seen = ctx->n_prompt;
    sad->lost = false;
    sad->found = 0;
    for (size_t end = 0; end < sad->n_input; end++)
        for (size_t q = 1; q <= (size_t)sad->params.q_max && q <= end + 1; q++)
            sb_gram_index_add(&sad->index, end, q);
    return SB_OK;
}

/* Where the shortest unique suffix of the output leads; false: there is none. */
static bool find_again(struct sad *sad, const struct sb_context *ctx)
{
    size_t generated = ctx->n - ctx->n_prompt;
    for (size_t q = 1; q <= (size_t)sad->params.q_max && q <= generated; q++) {
        const struct sb_gram_place *place =
            sb_gram_index_find(&sad->index, ctx->tokens + ctx->n - q, q);
        if (!place)
            return false;
        if (place->n > 1)
            continue;
        sad->at = (size_t)place->first + 1;
        sad->found = (int32_t)q;
        return true;
    }
    return false;
}

static enum sb_status sad_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                  struct sb_error *err)
{
    struct sad *sad = st;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)sad->params.k), node = 0;
    for (; sad->seen < ctx->n; sad->seen++) {
        sad->lost = sad->lost || sad->at >= sad->n_input ||
                    sad->index.text[sad->at] != ctx->tokens[sad->seen];
        sad->at++;
    }
    if (sad->lost)
        sad->lost = !find_again(sad, ctx);
    for (size_t i = 0; !sad->lost && i < (size_t)k && sad->at + i < sad->n_input && node >= 0; i++)
        node = sb_tree_add(tree, node, sad->index.text[sad->at + i], sad->found);
    return SB_OK;
}

static int32_t sad_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct sad_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_sad = {
    .name = "sad",
    .summary = "copy the input from where the output has got to in it",
    .paper = "Sun et al. 2021, ACL 2021 long 462",
    .params = sad_params,
    .params_size = sizeof(struct sad_params),
    .state_size = sizeof(struct sad),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .open = sad_open,
    .begin = sad_begin,
    .propose = sad_propose,
    .close = sad_close,
    .max_nodes = sad_max_nodes,
};

/* drafters/mag: the max-gram drafter of cascade speculative drafting (methods A 4.6). Copy what followed
 * the longest repeated end of the text where it occurred first; where that is shorter than k, go on
 * with the most frequent successor of each token in a corpus.
 *
 * The suffix automaton of the text has the longest repeated end at its last state's link, with its
 * first occurrence: exact for any length, in amortised constant time per token. An earlier occurrence
 * may overlap the end.
 *
 * Differs from the source: bigrams come from an n-gram cache file (`bigram`; its records of one token),
 * not from a built-in table; without a file a draft ends where its copy ends. Among equally frequent
 * successors the smallest id.
 *
 * Text and table are the prompt's own: nothing is learnt that another prompt could see, so there is no
 * scope. Memory: about 130 bytes per position, 520 KiB at 4,096. */
#include "drafters/automaton.h"
#include "drafters/ngrams.h"
#include "harness/decode/drafter.h"

struct mag_params {
    int64_t k, min_match;
    const char *bigram;
};

static const struct sb_param mag_params[] = {
    { .name = "bigram",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct mag_params, bigram),
      .meaning = "n-gram cache file whose successors of one token go on where the text ends" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct mag_params, k),
      .fallback = "10",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "min_match",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct mag_params, min_match),
      .fallback = "1",
      .min = 1,
      .max = 1000,
      .meaning = "shortest repeated end to copy from" },
    { 0 },
};

enum { FROM_BIGRAM = 0 }; /* a node's source; copies have the length of the match */

struct mag {
    struct mag_params params;
    size_t max_context;
    struct sb_automaton text;
    struct sb_ngrams bigram;
};

static enum sb_status mag_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct mag *mag = st;
    mag->params = *(const struct mag_params *)env->params;
    mag->max_context = env->max_context;
    enum sb_status rc = sb_automaton_reserve(&mag->text, env->max_context, err);
    if (rc == SB_OK && mag->params.bigram)
        rc = sb_ngrams_load(&mag->bigram, mag->params.bigram, env->n_vocab, 1, SB_NGRAM_FILE_ORDER,
                            err);
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter mag");
}

static void mag_close(void *st)
{
    struct mag *mag = st;
    sb_automaton_finish(&mag->text);
    sb_ngrams_finish(&mag->bigram);
}

static void read_on(struct mag *mag, const struct sb_context *ctx)
{
    while (mag->text.n < ctx->n && mag->text.n < mag->max_context)
        sb_automaton_append(&mag->text, ctx->tokens[mag->text.n]);
}

static enum sb_status mag_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct mag *mag = st;
    sb_automaton_clear(&mag->text);
    read_on(mag, ctx);
    return SB_OK;
}

static enum sb_status mag_observe(void *st, const struct sb_context *ctx,
                                  const struct sb_outcome *outcome, struct sb_error *err)
{
    read_on(st, ctx);
    return SB_OK;
}

static sb_token successor(const struct mag *mag, sb_token token)
{
    int32_t node[2];
    if (sb_ngrams_walk(&mag->bigram, &token, 1, 1, node) < 1)
        return -1;
    int32_t best = mag->bigram.node[node[1]].best;
    return best < 0 ? -1 : mag->bigram.next[best].token;
}

static enum sb_status mag_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                  struct sb_error *err)
{
    struct mag *mag = st;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)mag->params.k), node = 0;
    read_on(mag, ctx);
    const struct sb_automaton_state *state = mag->text.state;
    int32_t link = state[mag->text.last].link, i = 0;
    sb_token token = ctx->tokens[ctx->n - 1];
    if (link > 0 && state[link].len >= mag->params.min_match)
        for (size_t at = (size_t)state[link].end; i < k && at < ctx->n && node >= 0; at++, i++) {
            token = ctx->tokens[at];
            node = sb_tree_add(tree, node, token, state[link].len);
        }
    for (; i < k && node >= 0 && (token = successor(mag, token)) >= 0; i++)
        node = sb_tree_add(tree, node, token, FROM_BIGRAM);
    return SB_OK;
}

static int32_t mag_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct mag_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_mag = {
    .name = "mag",
    .summary = "copy after the first occurrence of the longest repeated end, then bigrams",
    .paper = "Chen et al. 2023, arXiv 2312.11462",
    .params = mag_params,
    .params_size = sizeof(struct mag_params),
    .state_size = sizeof(struct mag),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .source_is_match = true,
    .open = mag_open,
    .begin = mag_begin,
    .propose = mag_propose,
    .observe = mag_observe,
    .close = mag_close,
    .max_nodes = mag_max_nodes,
};

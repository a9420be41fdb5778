/* drafters/ngram-cache: llama.cpp's lookup decoding with three caches (methods C 1.11).
 *
 * context: what followed each 1 to 4 tokens of this text; dynamic: the same from earlier requests and
 * from a file; static: what follows two tokens in a corpus, from a file. A draft grows token by token:
 * the longest context whose counts are numerous and one-sided enough, weighted by the static cache;
 * then the dynamic cache under stricter limits; then the static cache alone; then nothing.
 *
 * Differs from the source: ties go to the smaller id, not to the order of a hash map; records of a
 * context that a file has twice add up; counts stop at 2^28; keys are compared, so that permutations
 * of an n-gram never collide.
 *
 * scope: with prompt, each request counts its text anew. With conversation, counts are kept while a
 * prompt continues the last one, and only what is new is counted. With run, the context of a finished
 * conversation is merged into the dynamic cache, as the source does through its file: drafts then
 * depend on the order of requests, and a repeated prompt finds its own earlier answer.
 *
 * Memory: about 1 MiB per cache at 4,096 positions; dynamic grows between requests, never in a step. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "drafters/ngrams.h"
#include "drafters/scope.h"
#include "drafters/seen.h"
#include "harness/decode/drafter.h"

enum { ORDERS = 4, STATIC_ORDER = 2 };
enum { FROM_CONTEXT = 0, FROM_DYNAMIC = 10, FROM_STATIC = 20 }; /* + order: a node's source */

struct cache_params {
    int64_t k, ngram_min, ngram_max;
    const char *static_file, *dynamic_file, *save, *scope;
};

static const struct sb_param cache_params[] = {
    { .name = "dynamic",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct cache_params, dynamic_file),
      .meaning = "n-gram cache file of earlier texts (1 to 4 tokens)" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct cache_params, k),
      .fallback = "16",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "ngram_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct cache_params, ngram_max),
      .fallback = "4",
      .min = 1,
      .max = ORDERS,
      .meaning = "longest context, tried first" },
    { .name = "ngram_min",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct cache_params, ngram_min),
      .fallback = "1",
      .min = 1,
      .max = ORDERS,
      .meaning = "shortest context" },
    { .name = "save",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct cache_params, save),
      .meaning = "file to write the dynamic cache to at the end; needs scope=run" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct cache_params, scope),
      .fallback = "conversation",
      .choices = SB_SCOPE_CHOICES,
      .meaning = "how long counts live; run: they pass into the dynamic cache" },
    { .name = "static",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct cache_params, static_file),
      .meaning = "n-gram cache file of a corpus (2 tokens)" },
    { 0 },
};

/* Fewest counts, and least share of the best in percent, by order. */
struct limits {
    int32_t samples[ORDERS + 1], percent[ORDERS + 1];
};
static const struct limits lax = { { 0, 2, 2, 1, 1 }, { 0, 66, 50, 50, 50 } };
static const struct limits strict = { { 0, 4, 3, 2, 2 }, { 0, 75, 66, 66, 66 } };

struct cache {
    struct cache_params params;
    struct sb_scope scope; /* of the context: run is conversation here */
    bool merges;           /* scope=run: finished conversations into the dynamic cache */
    size_t n_vocab, max_context;
    struct sb_ngrams context, dynamic, corpus;
    struct sb_seen seen;
};

static enum sb_status cache_load(struct cache *c, const struct sb_drafter_env *env,
                                 struct sb_error *err)
{
    const char *file[] = { c->params.static_file, c->params.dynamic_file };
    enum sb_status rc = SB_OK;
    if (c->params.static_file)
        rc = sb_ngrams_load(&c->corpus, c->params.static_file, c->n_vocab, STATIC_ORDER,
                            STATIC_ORDER, err);
    if (rc == SB_OK && c->params.dynamic_file)
        rc = sb_ngrams_load(&c->dynamic, c->params.dynamic_file, c->n_vocab, 1, ORDERS, err);
    for (size_t i = 0; i < 2 && rc == SB_OK; i++)
        rc = file[i] ? sb_drafter_uses(env, file[i], err) : SB_OK;
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter ngram-cache");
}

/* The file is written at close, which cannot report: what is wrong with it is said here. */
static enum sb_status check_save(const struct cache *c, struct sb_error *err)
{
    if (!c->params.save)
        return SB_OK;
    if (!c->merges)
        return sb_fail(err, SB_EUSAGE,
                       "drafter ngram-cache: save=%s: goes with scope=run only, not scope=%s",
                       c->params.save, c->params.scope);
    FILE *f = fopen(c->params.save, "ab");
    if (!f)
        return sb_fail(err, SB_EINPUT, "drafter ngram-cache: save=%s: %s", c->params.save,
                       strerror(errno));
    fclose(f);
    return SB_OK;
}

static enum sb_status cache_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct cache *c = st;
    c->params = *(const struct cache_params *)env->params;
    c->merges = strcmp(c->params.scope, "run") == 0;
    c->n_vocab = env->n_vocab;
    c->max_context = env->max_context;
    if (c->params.ngram_min > c->params.ngram_max)
        return sb_fail(err, SB_EUSAGE,
                       "drafter ngram-cache: ngram_min=%" PRId64
                       ": expected at most ngram_max=%" PRId64,
                       c->params.ngram_min, c->params.ngram_max);
    enum sb_status rc = check_save(c, err);
    if (rc == SB_OK)
        rc = cache_load(c, env, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_scope_init(&c->scope, c->merges ? "conversation" : c->params.scope, env->max_context,
                       "ngram-cache", err);
    if (rc == SB_OK)
        rc = sb_seen_init(&c->seen, env->max_context, err);
    if (rc == SB_OK)
        rc = sb_ngrams_reserve(&c->context, env->max_context * ORDERS, env->max_context * ORDERS,
                               err);
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter ngram-cache");
}

static enum sb_status merge_context(struct cache *c, struct sb_error *err)
{
    enum sb_status rc = sb_ngrams_reserve(&c->dynamic, c->context.n_nodes, c->context.n_nexts, err);
    if (rc == SB_OK)
        sb_ngrams_merge(&c->dynamic, &c->context, 1);
    return rc;
}

static void cache_close(void *st)
{
    struct cache *c = st;
    if (c->params.save && c->seen.text && merge_context(c, NULL) == SB_OK)
        sb_ngrams_save(&c->dynamic, c->params.save, NULL);
    sb_ngrams_finish(&c->context);
    sb_ngrams_finish(&c->dynamic);
    sb_ngrams_finish(&c->corpus);
    sb_seen_finish(&c->seen);
    sb_scope_finish(&c->scope);
}

static void learn(struct cache *c, const struct sb_context *ctx)
{
    for (size_t at = c->seen.n; at < ctx->n; at++)
        sb_ngrams_count(&c->context, ctx->tokens, at, (size_t)c->params.ngram_min,
                        (size_t)c->params.ngram_max);
    sb_seen_all(&c->seen, ctx);
}

static enum sb_status cache_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct cache *c = st;
    bool forgets = sb_scope_forgets(&c->scope, ctx);
    enum sb_status rc = forgets && c->merges ? merge_context(c, err) : SB_OK;
    sb_seen_begin(&c->seen, ctx, forgets);
    if (forgets)
        sb_ngrams_clear(&c->context);
    /* Tokens of the last turn that were spelt differently stay counted: make room beyond them. */
    size_t most = c->max_context * ORDERS;
    if (rc == SB_OK)
        rc = sb_ngrams_reserve(&c->context, most, most, err);
    if (rc != SB_OK)
        return sb_fail_context(err, rc, "drafter ngram-cache");
    learn(c, ctx);
    return SB_OK;
}

static enum sb_status cache_observe(void *st, const struct sb_context *ctx,
                                    const struct sb_outcome *outcome, struct sb_error *err)
{
    learn(st, ctx);
    return SB_OK;
}

/* The successor of `node` with the highest count times 100 times its count in the static cache; those
 * the static cache does not have count once. The unweighted best stands for all of the latter: no other
 * of them scores more. So only tokens that both have need a look, from the shorter list of the two. */
static int32_t best_weighted(const struct sb_ngrams *t, int32_t node,
                             const struct sb_ngrams *corpus, int32_t part)
{
    int32_t best = t->node[node].best;
    if (part < 0)
        return best;
    bool by_corpus = corpus->node[part].n_next < t->node[node].n_next;
    const struct sb_ngrams *walked = by_corpus ? corpus : t, *other = by_corpus ? t : corpus;
    int64_t highest = t->next[best].count;
    for (int32_t i = walked->node[by_corpus ? part : node].first; i >= 0;
         i = walked->next[i].link) {
        int32_t j = sb_ngrams_find(other, by_corpus ? node : part, walked->next[i].token);
        if (j < 0)
            continue;
        int32_t index = by_corpus ? j : i;
        int64_t score = 100 * (int64_t)walked->next[i].count * other->next[j].count;
        if (score > highest || (score == highest && t->next[index].token < t->next[best].token)) {
            highest = score;
            best = index;
        }
    }
    return best;
}

/* A token under `limits` from the longest order that has one; -1: none. */
static sb_token draft_from(const struct cache *c, const struct sb_ngrams *t, const sb_token *tail,
                           size_t n, const struct limits *limits, int32_t part, int32_t *source)
{
    int32_t node[ORDERS + 1];
    size_t order = sb_ngrams_walk(t, tail, n, (size_t)c->params.ngram_max, node);
    for (; order >= (size_t)c->params.ngram_min; order--) {
        const struct sb_ngram_node *entry = &t->node[node[order]];
        if (entry->total < limits->samples[order])
            continue;
        const struct sb_ngram_next *best =
            &t->next[best_weighted(t, node[order], &c->corpus, part)];
        if (100 * (int64_t)best->count < limits->percent[order] * entry->total)
            continue;
        *source += (int32_t)order;
        return best->token;
    }
    return -1;
}

static sb_token draft_static(const struct cache *c, int32_t part)
{
    if (part < 0)
        return -1;
    const struct sb_ngram_node *entry = &c->corpus.node[part];
    const struct sb_ngram_next *best = &c->corpus.next[entry->best];
    bool sure = entry->total >= lax.samples[STATIC_ORDER] &&
                100 * (int64_t)best->count >= lax.percent[STATIC_ORDER] * entry->total;
    return sure ? best->token : -1;
}

/* The next token after tail[0..n), the last tokens of text and draft; -1: none. */
static sb_token draft_token(const struct cache *c, const sb_token *tail, size_t n, int32_t *source)
{
    int32_t node[STATIC_ORDER + 1];
    bool known = sb_ngrams_walk(&c->corpus, tail, n, STATIC_ORDER, node) == STATIC_ORDER;
    int32_t part = known ? node[STATIC_ORDER] : -1;
    *source = FROM_CONTEXT;
    sb_token token = draft_from(c, &c->context, tail, n, &lax, part, source);
    if (token < 0) {
        *source = FROM_DYNAMIC;
        token = draft_from(c, &c->dynamic, tail, n, &strict, part, source);
    }
    if (token < 0) {
        *source = FROM_STATIC + STATIC_ORDER;
        token = draft_static(c, part);
    }
    return token;
}

static enum sb_status cache_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    const struct cache *c = st;
    sb_token tail[ORDERS];
    size_t n = ctx->n < ORDERS ? ctx->n : ORDERS;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)c->params.k), node = 0, source;
    if (ctx->n < 2)
        return SB_OK;
    memcpy(tail, ctx->tokens + ctx->n - n, n * sizeof *tail);
    for (int32_t i = 0; i < k; i++) {
        sb_token token = draft_token(c, tail, n, &source);
        if (token < 0 || (node = sb_tree_add(tree, node, token, source)) < 0)
            break;
        if (n == ORDERS)
            memmove(tail, tail + 1, (n - 1) * sizeof *tail);
        else
            n++;
        tail[n - 1] = token;
    }
    return SB_OK;
}

static int32_t cache_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct cache_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_ngram_cache = {
    .name = "ngram-cache",
    .summary = "counted n-grams of the text, of earlier texts and of a corpus",
    .paper = "llama.cpp examples/lookup, github.com/ggml-org/llama.cpp",
    .params = cache_params,
    .params_size = sizeof(struct cache_params),
    .state_size = sizeof(struct cache),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .open = cache_open,
    .begin = cache_begin,
    .propose = cache_propose,
    .observe = cache_observe,
    .close = cache_close,
    .max_nodes = cache_max_nodes,
};

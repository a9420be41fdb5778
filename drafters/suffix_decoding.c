/* SuffixDecoding (methods C 1.10): suffix trees with counts, one of this prompt and its output, one of
 * all outputs. Each match of the text's end, of p tokens, gives a draft of at most factor * p + offset
 * tokens that follows the likeliest tokens by count; the one with most expected accepted tokens wins,
 * the longer match and the text's own tree on ties.
 *
 * Differs from the original: equal counts go to the smaller token id, not to the child that was counted
 * last; the tree of outputs forgets its older half at a prompt's begin when it has grown beyond `keep`
 * tokens, where the original drops single requests; no second drafter to hand over to, but min_score.
 *
 * Per token 2 * depth steps down a tree. Per step no walk in the text's own tree, whose matches are at
 * hand; with tree=1 the children of the nodes on the way are looked through. Memory: about 100 bytes
 * per token, for twice max_context tokens at open; the tree of outputs grows at begin, never in a
 * step, to at most 2 * (keep + max_context) tokens. */
#include <inttypes.h>
#include <string.h>

#include "drafters/scope.h"
#include "drafters/suffix_tree.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

enum { MOST_DRAFT = 256, MOST_DEPTH = 256, MOST_OPEN = 128 };

struct suffix_decoding_params {
    int64_t k, depth, keep;
    double factor, offset, p_min, min_score;
    bool tree;
    const char *scope;
};

static const struct sb_param suffix_decoding_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct suffix_decoding_params, k),
      .fallback = "64",
      .min = 1,
      .max = MOST_DRAFT,
      .meaning = "largest draft" },
    { .name = "depth",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct suffix_decoding_params, depth),
      .fallback = "64",
      .min = 2,
      .max = MOST_DEPTH,
      .meaning = "match and draft together are at most this long" },
    { .name = "factor",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct suffix_decoding_params, factor),
      .fallback = "1",
      .min = 0,
      .max = 100,
      .meaning = "draft tokens per matched token" },
    { .name = "offset",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct suffix_decoding_params, offset),
      .fallback = "0",
      .min = -100,
      .max = 100,
      .meaning = "added to factor times match" },
    { .name = "p_min",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct suffix_decoding_params, p_min),
      .fallback = "0.1",
      .min = 0.01,
      .max = 1,
      .meaning = "least probability of a drafted path, by counts" },
    { .name = "min_score",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct suffix_decoding_params, min_score),
      .fallback = "0",
      .min = 0,
      .max = MOST_DRAFT,
      .meaning = "no draft of fewer expected accepted tokens" },
    { .name = "tree",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct suffix_decoding_params, tree),
      .fallback = "false",
      .meaning = "draft the likeliest nodes as a tree, not one chain" },
    { .name = "keep",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct suffix_decoding_params, keep),
      .fallback = "262144",
      .min = 1,
      .max = 1 << 26,
      .meaning = "tokens of outputs kept before the older half is forgotten" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct suffix_decoding_params, scope),
      .fallback = "run",
      .choices = SB_SCOPE_CHOICES,
      .meaning = "outputs are kept for this prompt, the conversation, or the run" },
    { 0 },
};

struct guess {
    double score; /* expected accepted tokens: the sum of path probabilities */
    int32_t match, n;
    sb_token token[MOST_DRAFT];
    int32_t parent[MOST_DRAFT]; /* 0: the root, else 1 + an earlier index */
};

struct suffix_decoding {
    struct suffix_decoding_params params;
    struct sb_scope scope;
    struct sb_suffix_tree text, outputs;
    size_t *start; /* [n_starts] where the outputs begin */
    size_t n_starts, cap_starts;
    size_t max_context;
    struct guess trial, own, shared;
};

static enum sb_status suffix_decoding_open(void *st, const struct sb_drafter_env *env,
                                           struct sb_error *err)
{
    struct suffix_decoding *sd = st;
    sd->params = *(const struct suffix_decoding_params *)env->params;
    sd->max_context = env->max_context;
    int32_t depth = (int32_t)sd->params.depth;
    enum sb_status rc =
        sb_scope_init(&sd->scope, sd->params.scope, env->max_context, "suffix-decoding", err);
    if (rc == SB_OK)
        rc = sb_suffix_tree_reserve(&sd->text, env->max_context, depth, err);
    return rc == SB_OK ? sb_suffix_tree_reserve(&sd->outputs, env->max_context, depth, err) : rc;
}

static void suffix_decoding_close(void *st)
{
    struct suffix_decoding *sd = st;
    sb_scope_finish(&sd->scope);
    sb_suffix_tree_finish(&sd->text);
    sb_suffix_tree_finish(&sd->outputs);
    sb_free(sd->start);
    sd->start = NULL;
}

/* ---- learning ---- */

static void read_on(struct suffix_decoding *sd, const struct sb_context *ctx)
{
    while (sd->text.n < ctx->n)
        sb_suffix_tree_append(&sd->text, ctx->tokens[sd->text.n]);
    size_t start = sd->start[sd->n_starts - 1];
    while (ctx->n_prompt + sd->outputs.n - start < ctx->n)
        sb_suffix_tree_append(&sd->outputs, ctx->tokens[ctx->n_prompt + sd->outputs.n - start]);
}

/* Keep the newest outputs of together at most half of `keep`: their tree is built anew, in place, as
 * each token moves to the front of where it was. */
static void forget_older_half(struct suffix_decoding *sd)
{
    struct sb_suffix_tree *t = &sd->outputs;
    size_t n = t->n, n_starts = sd->n_starts, first = 0;
    while (first < n_starts && n - sd->start[first] > (size_t)sd->params.keep / 2)
        first++;
    sb_suffix_tree_clear(t);
    sd->n_starts = 0;
    for (size_t i = first; i < n_starts; i++) {
        size_t from = sd->start[i], to = i + 1 < n_starts ? sd->start[i + 1] : n;
        sb_suffix_tree_cut(t);
        sd->start[sd->n_starts++] = t->n;
        for (size_t j = from; j < to; j++)
            sb_suffix_tree_append(t, t->text[j]);
    }
}

static enum sb_status suffix_decoding_begin(void *st, const struct sb_context *ctx,
                                            struct sb_error *err)
{
    struct suffix_decoding *sd = st;
    sb_suffix_tree_clear(&sd->text);
    if (sb_scope_forgets(&sd->scope, ctx)) {
        sb_suffix_tree_clear(&sd->outputs);
        sd->n_starts = 0;
    } else if (sd->outputs.n > (size_t)sd->params.keep) {
        forget_older_half(sd);
    }
    if (sb_grow((void **)&sd->start, &sd->cap_starts, sd->n_starts + 1, sizeof *sd->start) != 0)
        return sb_fail(err, SB_ENOMEM, "drafter suffix-decoding: no memory for %zu outputs",
                       sd->n_starts + 1);
    enum sb_status rc =
        sb_suffix_tree_reserve(&sd->outputs, sd->outputs.n + sd->max_context, 0, err);
    if (rc != SB_OK)
        return rc;
    sb_suffix_tree_cut(&sd->outputs);
    sd->start[sd->n_starts++] = sd->outputs.n;
    if (ctx->n <= sd->max_context)
        read_on(sd, ctx);
    return SB_OK;
}

/* ---- guessing ---- */

static int32_t budget_of(const struct suffix_decoding_params *params, int32_t k, int32_t match)
{
    double budget = params->factor * match + params->offset + 1e-6;
    return budget < 1 ? 0 : budget < k ? (int32_t)budget : k;
}

static void add(struct guess *g, sb_token token, int32_t parent, double prob)
{
    g->token[g->n] = token;
    g->parent[g->n++] = parent;
    g->score += prob;
}

/* The likeliest token, again and again. */
static void guess_chain(struct guess *g, const struct sb_suffix_tree *t, struct sb_suffix_place at,
                        int32_t budget, double p_min)
{
    double prob = 1;
    while (g->n < budget) {
        const struct sb_suffix_node *v = &t->node[at.node];
        if (at.offset == v->len) {
            if (v->best < 0)
                break;
            prob *= (double)t->node[v->best].count / v->count;
            at = (struct sb_suffix_place){ v->best, 0 };
        }
        if (prob < p_min)
            break;
        add(g, t->text[t->node[at.node].start + at.offset++], g->n, prob);
    }
}

/* A node that may come next. */
struct open {
    struct sb_suffix_place at; /* behind its token */
    double prob;
    int32_t parent, depth;
    sb_token token;
};

static bool likelier(const struct open *a, const struct open *b)
{
    if (a->prob != b->prob)
        return a->prob > b->prob;
    return a->depth != b->depth ? a->depth < b->depth : a->token < b->token;
}

/* What may follow a place. The paths still open exclude one another, and each has p_min at least, so
 * there are at most 1 / p_min of them. */
static int32_t open_below(struct open *open, int32_t n, const struct sb_suffix_tree *t,
                          struct sb_suffix_place at, const struct open *from, double p_min)
{
    const struct sb_suffix_node *v = &t->node[at.node];
    bool inside = at.offset < v->len;
    for (int32_t c = inside ? at.node : v->child; c >= 0 && n < MOST_OPEN;
         c = inside ? -1 : t->node[c].next) {
        double prob = from->prob * (inside ? 1 : (double)t->node[c].count / v->count);
        int32_t offset = inside ? at.offset : 0;
        if (prob >= p_min)
            open[n++] = (struct open){ .at = { c, offset + 1 },
                                       .prob = prob,
                                       .parent = from->parent,
                                       .depth = from->depth + 1,
                                       .token = t->text[t->node[c].start + offset] };
    }
    return n;
}

/* The likeliest paths first. */
static void guess_tree(struct guess *g, const struct sb_suffix_tree *t, struct sb_suffix_place at,
                       int32_t budget, double p_min)
{
    struct open open[MOST_OPEN];
    int32_t n = open_below(open, 0, t, at, &(struct open){ .prob = 1 }, p_min);
    while (n > 0 && g->n < budget) {
        int32_t first = 0;
        for (int32_t i = 1; i < n; i++)
            first = likelier(&open[i], &open[first]) ? i : first;
        struct open next = open[first];
        open[first] = open[--n];
        add(g, next.token, next.parent, next.prob);
        next.parent = g->n;
        n = open_below(open, n, t, next.at, &next, p_min);
    }
}

/* Most that a guess after a match of p tokens can score: each token counts 1 at best, and so does each
 * level of a tree. */
static int32_t bound(const struct suffix_decoding *sd, int32_t k, int32_t p)
{
    int32_t budget = budget_of(&sd->params, k, p), below = (int32_t)sd->params.depth - p;
    return budget < below ? budget : below;
}

/* Guess after a match of p tokens, and keep it if it is the best yet. */
static void try_match(struct suffix_decoding *sd, struct guess *best,
                      const struct sb_suffix_tree *t, struct sb_suffix_place at, int32_t k,
                      int32_t p)
{
    struct guess *g = &sd->trial;
    int32_t most = bound(sd, k, p);
    if (most < best->score || (most == best->score && p <= best->match))
        return;
    g->score = g->n = 0;
    if (sd->params.tree)
        guess_tree(g, t, at, budget_of(&sd->params, k, p), sd->params.p_min);
    else
        guess_chain(g, t, at, most, sd->params.p_min);
    if (g->n == 0 || g->score < best->score || (g->score == best->score && p < best->match))
        return;
    best->score = g->score;
    best->match = p;
    best->n = g->n;
    memcpy(best->token, g->token, (size_t)g->n * sizeof *g->token);
    memcpy(best->parent, g->parent, (size_t)g->n * sizeof *g->parent);
}

/* The best guess after any match; `best` has score 0 where nothing was found. What may score most is
 * tried first: in a text that repeats itself it spares the others. */
static void search(struct suffix_decoding *sd, struct guess *best, const struct sb_suffix_tree *t,
                   const struct sb_context *ctx, int32_t k)
{
    struct sb_suffix_place at[MOST_DEPTH + 1];
    int32_t p = 1, first = 1;
    int32_t most = ctx->n < (size_t)t->depth ? (int32_t)ctx->n : t->depth;
    best->score = best->n = best->match = 0;
    for (; p <= most; p++) {
        if (t == &sd->text) {
            int32_t node = sb_suffix_tree_end(t, p);
            at[p] = (struct sb_suffix_place){ node, t->node[node].len };
        } else if (!sb_suffix_tree_find(t, ctx->tokens + ctx->n - p, (size_t)p, &at[p])) {
            break;
        }
        if (at[p].offset == t->node[at[p].node].len && t->node[at[p].node].best < 0)
            break; /* nothing ever followed, nor will after a longer match */
        first = bound(sd, k, p) > bound(sd, k, first) ? p : first;
    }
    if (p > 1)
        try_match(sd, best, t, at[first], k, first);
    for (int32_t i = 1; i < p; i++)
        if (i != first)
            try_match(sd, best, t, at[i], k, i);
}

static enum sb_status suffix_decoding_propose(void *st, const struct sb_context *ctx,
                                              struct sb_tree *tree, struct sb_error *err)
{
    struct suffix_decoding *sd = st;
    int32_t node[MOST_DRAFT + 1] = { 0 };
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)sd->params.k);
    k = k < MOST_DRAFT ? k : MOST_DRAFT;
    if (ctx->n > sd->max_context)
        return SB_OK;
    read_on(sd, ctx);
    search(sd, &sd->own, &sd->text, ctx, k);
    search(sd, &sd->shared, &sd->outputs, ctx, k);
    bool own = sd->own.score >= sd->shared.score;
    const struct guess *g = own ? &sd->own : &sd->shared;
    if (g->score < sd->params.min_score)
        return SB_OK;
    for (int32_t i = 0; i < g->n; i++) { /* source: the match, below 0 in the tree of outputs */
        int32_t parent = node[g->parent[i]];
        node[i + 1] =
            parent < 0 ? -1 : sb_tree_add(tree, parent, g->token[i], own ? g->match : -g->match);
    }
    return SB_OK;
}

/* The last step's tokens, which no further propose would see. */
static enum sb_status suffix_decoding_observe(void *st, const struct sb_context *ctx,
                                              const struct sb_outcome *outcome,
                                              struct sb_error *err)
{
    struct suffix_decoding *sd = st;
    if (ctx->n <= sd->max_context)
        read_on(sd, ctx);
    return SB_OK;
}

static bool suffix_decoding_branches(const void *params)
{
    return params && ((const struct suffix_decoding_params *)params)->tree;
}

static int32_t suffix_decoding_max_nodes(const void *params, const struct sb_policy *policy)
{
    int32_t k =
        sb_policy_longest(policy, (int32_t)((const struct suffix_decoding_params *)params)->k);
    return k < MOST_DRAFT ? k : MOST_DRAFT;
}

const struct sb_drafter_ops sb_drafter_suffix_decoding = {
    .name = "suffix-decoding",
    .summary = "follow the counts of suffix trees of the text and of earlier outputs",
    .paper = "Oliaro et al. 2024, arXiv 2411.04975",
    .params = suffix_decoding_params,
    .params_size = sizeof(struct suffix_decoding_params),
    .state_size = sizeof(struct suffix_decoding),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .source_is_match = true,
    .makes_trees = true,
    .branches = suffix_decoding_branches,
    .open = suffix_decoding_open,
    .begin = suffix_decoding_begin,
    .propose = suffix_decoding_propose,
    .observe = suffix_decoding_observe,
    .close = suffix_decoding_close,
    .max_nodes = suffix_decoding_max_nodes,
};

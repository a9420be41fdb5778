/* REST (methods C 1.6): retrieval from a datastore. The longest end of the text that occurs in the store
 * is looked up in its suffix array; what followed it there makes a trie with counts, and the prefixes
 * seen most often make the tree.
 *
 * A pattern occurs only where its own end does, so the longest is found by bisection. Hits come in the
 * order of what follows them: the trie grows along its last path, without look-ups; hits of several
 * chunks are merged into that order.
 *
 * Differs from the original: nothing is drafted where nothing is found (it drafts token 100); ties by
 * rules instead of the order of a hash map (the larger count, the shorter prefix, the smaller ids);
 * up to `choices` nodes (cut=count), where it counts each prefix with the number of its different tokens
 * and draws the line far lower (cut=ref); nothing is copied across the documents of an .sbidx.
 *
 * It learns nothing, so it has no scope. Memory: the mapped store, 4 bytes per id and chunk, and 20 bytes
 * per hit, chunk and token of `long`. */
#include <stdlib.h>
#include <string.h>

#include "drafters/datastore.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

enum { MOST_SPAN = 64, MOST_CHOICES = 1000 };

struct rest_params {
    int64_t choices, k, longest, span_max, span_min;
    const char *cut, *store;
};

static const struct sb_param rest_params[] = {
    { .name = "choices",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rest_params, choices),
      .fallback = "64",
      .min = 1,
      .max = MOST_CHOICES,
      .meaning = "nodes of the tree" },
    { .name = "cut",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct rest_params, cut),
      .fallback = "count",
      .choices = "count|ref",
      .meaning =
          "choices counts nodes, or, as in the original, the different tokens of each prefix" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rest_params, k),
      .fallback = "500",
      .min = 1,
      .max = 100000,
      .meaning = "hits looked at per chunk, evenly spread where there are more" },
    { .name = "long",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rest_params, longest),
      .fallback = "10",
      .min = 1,
      .max = 64,
      .meaning = "tokens taken from behind each hit" },
    { .name = "span_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rest_params, span_max),
      .fallback = "16",
      .min = 1,
      .max = MOST_SPAN,
      .meaning = "longest end of the text to look up" },
    { .name = "span_min",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rest_params, span_min),
      .fallback = "2",
      .min = 1,
      .max = MOST_SPAN,
      .meaning = "shortest" },
    { .name = "store",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct rest_params, store),
      .required = true,
      .meaning = "datastore: a file of specbench index, or REST's .idx" },
    { 0 },
};

/* A prefix of what followed the hits. In the trie's order a prefix stands before what begins with it,
 * and smaller ids first. */
struct prefix {
    sb_token token;
    int32_t parent; /* -1: begins behind the pattern */
    int32_t depth, count;
    int32_t at; /* its node in the tree */
};

/* The hits of one chunk, in order: n suffixes from `from` on, of which `taken`, evenly spread, are looked
 * at, from `skip` tokens in. */
struct hits {
    size_t from, n, taken, skip;
    size_t next; /* of those taken */
    size_t at;   /* position behind the next one */
};

struct rest {
    struct rest_params params;
    struct sb_datastore store;
    struct hits *hits;       /* [n_chunks] */
    struct prefix *prefix;   /* [n_chunks * k * longest] the trie */
    int32_t *path;           /* [longest] the last one */
    int32_t *best, n_best;   /* [choices] */
    int32_t n_prefix, depth; /* of the last path */
};

static enum sb_status rest_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct rest *rest = st;
    rest->params = *(const struct rest_params *)env->params;
    struct rest_params *p = &rest->params;
    if (p->span_min > p->span_max)
        return sb_fail(err, SB_EUSAGE, "drafter rest: span_min=%d is above span_max=%d",
                       (int)p->span_min, (int)p->span_max);
    enum sb_status rc =
        sb_datastore_open(&rest->store, p->store, env->tokenizer, env->n_vocab, err);
    if (rc != SB_OK)
        return sb_fail_context(err, rc, "drafter rest");
    rc = sb_drafter_uses(env, p->store, err);
    if (rc != SB_OK)
        return rc;
    size_t most = 0;
    for (size_t c = 0; c < rest->store.n_chunks; c++) {
        size_t n = rest->store.chunk[c].n;
        most += n < (size_t)p->k ? n : (size_t)p->k;
    }
    int32_t longest = sb_policy_longest(env->policy, (int32_t)p->choices);
    p->choices = longest < MOST_CHOICES ? longest : MOST_CHOICES;
    rest->hits = sb_alloc_zero(rest->store.n_chunks + 1, sizeof *rest->hits);
    rest->prefix = most < INT32_MAX / (size_t)p->longest
                       ? sb_alloc_array(most * (size_t)p->longest, sizeof *rest->prefix)
                       : NULL;
    rest->path = sb_alloc_array((size_t)p->longest, sizeof *rest->path);
    rest->best = sb_alloc_array((size_t)p->choices + 1, sizeof *rest->best);
    if (!rest->hits || !rest->prefix || !rest->path || !rest->best)
        return sb_fail(err, SB_ENOMEM, "drafter rest: no memory for %zu hits", most);
    return SB_OK;
}

static void rest_close(void *st)
{
    struct rest *rest = st;
    sb_datastore_close(&rest->store);
    sb_free(rest->hits);
    sb_free(rest->prefix);
    sb_free(rest->path);
    sb_free(rest->best);
}

/* ---- looking up ---- */

/* Take the hits of the text's last `span` tokens; false: there are none. */
static bool find_span(struct rest *rest, const struct sb_context *ctx, size_t span)
{
    bool found = false;
    for (size_t c = 0; c < rest->store.n_chunks; c++) {
        struct sb_datastore_range r =
            sb_datastore_find(&rest->store, c, ctx->tokens + ctx->n - span, span);
        if (r.from == r.to)
            continue;
        if (!found) /* the first: what a shorter span found is forgotten */
            memset(rest->hits, 0, rest->store.n_chunks * sizeof *rest->hits);
        size_t n = r.to - r.from, k = (size_t)rest->params.k;
        rest->hits[c] = (struct hits){ r.from, n, n < k ? n : k, span, 0, 0 };
        found = true;
    }
    return found;
}

/* The longest span that has hits, which are taken; 0: none. */
static size_t find_longest(struct rest *rest, const struct sb_context *ctx)
{
    size_t low = (size_t)rest->params.span_min, high = (size_t)rest->params.span_max, found = 0;
    high = high < ctx->n ? high : ctx->n;
    while (low <= high) {
        size_t middle = (low + high) / 2;
        if (find_span(rest, ctx, middle))
            low = (found = middle) + 1;
        else
            high = middle - 1;
    }
    return found;
}

/* ---- counting ---- */

/* Where the text of a hit of that number begins. */
static size_t hit_at(const struct rest *rest, size_t c, size_t number)
{
    const struct hits *h = &rest->hits[c];
    return sb_datastore_suffix(&rest->store.chunk[c], h->from + number * h->n / h->taken);
}

static void aim(struct rest *rest, size_t c)
{
    struct hits *h = &rest->hits[c];
    h->at = h->next < h->taken ? hit_at(rest, c, h->next) + h->skip : 0;
}

/* Token j behind the next hit; -1: the chunk ends before. */
static sb_token behind(const struct rest *rest, size_t c, size_t j)
{
    const struct sb_datastore_chunk *chunk = &rest->store.chunk[c];
    size_t at = rest->hits[c].at + j;
    return at < chunk->n ? sb_datastore_token(&rest->store, chunk, at) : -1;
}

/* Does what follows the hit of chunk a come before that of chunk b? */
static bool comes_before(const struct rest *rest, size_t a, size_t b)
{
    for (size_t j = 0; j < (size_t)rest->params.longest; j++) {
        sb_token x = behind(rest, a, j), y = behind(rest, b, j);
        if (x != y || x < 0)
            return x < y;
    }
    return false;
}

/* The chunk with the next hit in the order of what follows; n_chunks: all are read. */
static size_t next_chunk(const struct rest *rest)
{
    size_t best = rest->store.n_chunks;
    for (size_t c = 0; c < rest->store.n_chunks; c++)
        if (rest->hits[c].next < rest->hits[c].taken &&
            (best == rest->store.n_chunks || comes_before(rest, c, best)))
            best = c;
    return best;
}

/* Count all prefixes of what follows the next hit of a chunk. */
static void count_hit(struct rest *rest, size_t c)
{
    bool same = true; /* as the last path, so far */
    int32_t depth = 0, parent = -1;
    for (; depth < rest->params.longest; depth++) {
        sb_token token = behind(rest, c, (size_t)depth);
        if (token < 0 || (size_t)token >= rest->store.n_vocab)
            break; /* the end of the text or of a document */
        same = same && depth < rest->depth && rest->prefix[rest->path[depth]].token == token;
        if (!same) {
            rest->path[depth] = rest->n_prefix;
            rest->prefix[rest->n_prefix++] =
                (struct prefix){ .token = token, .parent = parent, .depth = depth + 1 };
        }
        parent = rest->path[depth];
        rest->prefix[parent].count++;
    }
    rest->depth = depth;
}

static void count_hits(struct rest *rest)
{
    enum { AHEAD = 8 }; /* a hit's text lies anywhere: ask for it early */
    rest->n_prefix = rest->depth = 0;
    for (size_t c = 0; c < rest->store.n_chunks; c++)
        aim(rest, c);
    for (size_t c; (c = next_chunk(rest)) < rest->store.n_chunks; aim(rest, c)) {
        size_t ahead = rest->hits[c].next++ + AHEAD;
        if (ahead < rest->hits[c].taken)
            __builtin_prefetch(rest->store.chunk[c].tokens +
                               hit_at(rest, c, ahead) * rest->store.width);
        count_hit(rest, c);
    }
}

/* ---- choosing ---- */

/* The larger count, then the shorter, then the one of smaller ids. */
static bool is_better(const struct rest *rest, int32_t a, int32_t b)
{
    const struct prefix *x = &rest->prefix[a], *y = &rest->prefix[b];
    if (x->count != y->count)
        return x->count > y->count;
    return x->depth != y->depth ? x->depth < y->depth : a < b;
}

/* Put `index` into a heap of n places, the worst on top, from the top down. */
static void sink(struct rest *rest, int32_t n, int32_t index)
{
    int32_t at = 0;
    for (int32_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && is_better(rest, rest->best[child], rest->best[child + 1]))
            child++;
        if (!is_better(rest, index, rest->best[child]))
            break;
        rest->best[at] = rest->best[child];
    }
    rest->best[at] = index;
}

static void rise(struct rest *rest, int32_t index)
{
    int32_t at = rest->n_best++;
    for (; at > 0 && is_better(rest, rest->best[(at - 1) / 2], index); at = (at - 1) / 2)
        rest->best[at] = rest->best[(at - 1) / 2];
    rest->best[at] = index;
}

/* best[n_best]: the best prefixes, the very best first. */
static void choose(struct rest *rest, int32_t choices)
{
    rest->n_best = 0;
    for (int32_t i = 0; i < rest->n_prefix; i++) {
        if (rest->n_best < choices)
            rise(rest, i);
        else if (choices > 0 && is_better(rest, i, rest->best[0]))
            sink(rest, rest->n_best, i);
    }
    for (int32_t n = rest->n_best - 1; n > 0; n--) {
        int32_t last = rest->best[n];
        rest->best[n] = rest->best[0];
        sink(rest, n, last);
    }
}

static int32_t different_tokens(const struct rest *rest, int32_t index)
{
    int32_t n = 0;
    for (int32_t i = index; i >= 0; i = rest->prefix[i].parent) {
        int32_t j = rest->prefix[i].parent;
        while (j >= 0 && rest->prefix[j].token != rest->prefix[i].token)
            j = rest->prefix[j].parent;
        n += j < 0;
    }
    return n;
}

/* The original's second cut: drop prefixes, those of most different tokens first and of these the worst,
 * until the numbers of different tokens add up to `choices`. */
static void cut_as_ref(struct rest *rest, int32_t choices)
{
    int32_t sum = 0, width[MOST_CHOICES];
    for (int32_t i = 0; i < rest->n_best; i++)
        sum += width[i] = different_tokens(rest, rest->best[i]);
    while (sum > choices) {
        int32_t worst = 0;
        for (int32_t i = 1; i < rest->n_best; i++)
            worst = width[i] >= width[worst] ? i : worst;
        sum -= width[worst];
        rest->n_best--;
        memmove(width + worst, width + worst + 1, (size_t)(rest->n_best - worst) * sizeof *width);
        memmove(rest->best + worst, rest->best + worst + 1,
                (size_t)(rest->n_best - worst) * sizeof *rest->best);
    }
}

static enum sb_status rest_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                   struct sb_error *err)
{
    struct rest *rest = st;
    int32_t choices = sb_policy_plan(ctx->policy, (int32_t)rest->params.choices);
    choices = choices < rest->params.choices ? choices : (int32_t)rest->params.choices;
    size_t span = find_longest(rest, ctx);
    if (span == 0 || choices < 1)
        return SB_OK;
    count_hits(rest);
    choose(rest, choices);
    if (strcmp(rest->params.cut, "ref") == 0)
        cut_as_ref(rest, choices);
    for (int32_t i = 0; i < rest->n_best; i++) {
        struct prefix *p = &rest->prefix[rest->best[i]];
        int32_t parent = p->parent < 0 ? 0 : rest->prefix[p->parent].at;
        p->at = parent < 0 ? -1 : sb_tree_add(tree, parent, p->token, (int32_t)span);
    }
    return SB_OK;
}

static int32_t rest_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct rest_params *)params)->choices);
}

const struct sb_drafter_ops sb_drafter_rest = {
    .name = "rest",
    .summary = "a tree of what most often followed the longest match in a datastore",
    .paper = "He et al. 2023, arXiv 2311.08252",
    .params = rest_params,
    .params_size = sizeof(struct rest_params),
    .state_size = sizeof(struct rest),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .source_is_match = true,
    .makes_trees = true,
    .open = rest_open,
    .propose = rest_propose,
    .close = rest_close,
    .max_nodes = rest_max_nodes,
};

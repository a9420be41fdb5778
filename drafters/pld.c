/* Prompt lookup decoding (methods C 1.1): find the last n tokens earlier in the text, for n from
 * ngram_max down to ngram_min, and propose what followed them there.
 *
 * Which occurrence: match=ref is the original's rule (leftmost with k tokens after it, not running
 * into the suffix), first is that of transformers (leftmost), last the rightmost, best the one with
 * the longest common suffix. Differs from the original: nothing found means no draft, not token 100.
 *
 * ref, first and last need the first or the last position of an n-gram: a hash table per order n,
 * filled as tokens are committed. best keeps, for each position, how many tokens before it equal
 * those at the end of the text; a new token shifts and extends these runs in one pass. */
#include <inttypes.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

struct pld_params {
    int64_t k, ngram_min, ngram_max;
    const char *match;
    bool wrap;
};

static const struct sb_param pld_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct pld_params, k),
      .fallback = "10",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "ngram_min",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct pld_params, ngram_min),
      .fallback = "1",
      .min = 1,
      .max = 64,
      .meaning = "shortest n-gram to look up" },
    { .name = "ngram_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct pld_params, ngram_max),
      .fallback = "3",
      .min = 1,
      .max = 64,
      .meaning = "longest n-gram to look up, tried first" },
    { .name = "match",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct pld_params, match),
      .fallback = "last",
      .choices = "ref|first|last|best",
      .meaning = "which occurrence to copy from" },
    { .name = "wrap",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct pld_params, wrap),
      .fallback = "false",
      .meaning = "copy on from the draft itself where the text ends" },
    { 0 },
};

/* First and last end position of one n-gram; empty: first < 0. */
struct place {
    int32_t first, last;
};

struct pld {
    struct pld_params params;
    enum { REF, FIRST, LAST, BEST } match;
    size_t n_slots;      /* per order, a power of two, at least twice the context */
    struct place *table; /* [orders, n_slots] */
    int32_t *run; /* [max_context]; best only: run[j] = common suffix of x[0..j] and the text */
    size_t max_context;
    size_t seen; /* tokens of the text that table or run cover */
};

static size_t n_orders(const struct pld *pld)
{
    return (size_t)(pld->params.ngram_max - pld->params.ngram_min + 1);
}

static enum sb_status pld_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct pld *pld = st;
    pld->params = *(const struct pld_params *)env->params;
    if (pld->params.ngram_min > pld->params.ngram_max)
        return sb_fail(err, SB_EUSAGE,
                       "drafter pld: ngram_min=%" PRId64 ": expected at most ngram_max=%" PRId64,
                       pld->params.ngram_min, pld->params.ngram_max);
    const char *match = pld->params.match;
    pld->match = strcmp(match, "ref") == 0     ? REF
                 : strcmp(match, "first") == 0 ? FIRST
                 : strcmp(match, "last") == 0  ? LAST
                                               : BEST;
    pld->max_context = env->max_context;
    pld->n_slots = 16;
    while (pld->n_slots < 2 * env->max_context)
        pld->n_slots *= 2;
    if (pld->match == BEST)
        pld->run = sb_alloc_array(env->max_context + 1, sizeof *pld->run);
    else
        pld->table = sb_alloc_array(n_orders(pld) * pld->n_slots, sizeof *pld->table);
    if (!pld->run && !pld->table)
        return sb_fail(err, SB_ENOMEM, "drafter pld: no memory for an index of %zu tokens",
                       env->max_context);
    return SB_OK;
}

static void pld_close(void *st)
{
    struct pld *pld = st;
    sb_free(pld->table);
    sb_free(pld->run);
    pld->table = NULL;
    pld->run = NULL;
}

static enum sb_status pld_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct pld *pld = st;
    if (pld->table) /* all ones: first = -1 */
        memset(pld->table, 0xff, n_orders(pld) * pld->n_slots * sizeof *pld->table);
    pld->seen = 0;
    return SB_OK;
}

/* The slot of the n-gram x[end + 1 - n .. end] in order n's table: its own, or the empty one where
 * it belongs. Tokens are compared, so that a hash collision never makes a match. */
static struct place *find_place(const struct pld *pld, const sb_token *x, size_t end, size_t n)
{
    struct place *table = pld->table + (n - (size_t)pld->params.ngram_min) * pld->n_slots;
    const sb_token *gram = x + end + 1 - n;
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (uint32_t)gram[i]) * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash >> 32) & (pld->n_slots - 1);
    while (table[at].first >= 0 && memcmp(x + table[at].first + 1 - n, gram, n * sizeof *gram) != 0)
        at = (at + 1) & (pld->n_slots - 1);
    return &table[at];
}

/* Index every n-gram that ends before the last token: the suffix itself is no occurrence. */
static void index_text(struct pld *pld, const sb_token *x, size_t n_text)
{
    size_t lowest = (size_t)pld->params.ngram_min, highest = (size_t)pld->params.ngram_max;
    for (; pld->seen + 1 < n_text; pld->seen++)
        for (size_t n = lowest; n <= highest && n <= pld->seen + 1; n++) {
            struct place *place = find_place(pld, x, pld->seen, n);
            if (place->first < 0)
                place->first = (int32_t)pld->seen;
            place->last = (int32_t)pld->seen;
        }
}

/* Where the draft is copied from, and the n-gram order that found it (0: nothing found). */
struct match {
    size_t from, order;
};

static struct match look_up(struct pld *pld, const sb_token *x, size_t n_text, size_t k)
{
    index_text(pld, x, n_text);
    size_t highest = (size_t)pld->params.ngram_max;
    for (size_t n = highest < n_text ? highest : n_text - 1;
         n > 0 && n >= (size_t)pld->params.ngram_min; n--) {
        const struct place *place = find_place(pld, x, n_text - 1, n);
        if (place->first < 0)
            continue;
        size_t from = (size_t)(pld->match == LAST ? place->last : place->first) + 1;
        /* Both conditions of ref bound the position from above, so the leftmost decides. */
        if (pld->match == REF && (from + k > n_text || from + n >= n_text))
            continue;
        return (struct match){ from, n };
    }
    return (struct match){ 0 };
}

/* Extend every run by x[end], the newest token: run[j] becomes run[j - 1] + 1 where x[j] equals it. */
static void extend_runs(int32_t *run, const sb_token *x, size_t end)
{
    sb_token newest = x[end];
    for (size_t j = end; j-- > 1;)
        run[j] = x[j] == newest ? run[j - 1] + 1 : 0;
    run[0] = end > 0 && x[0] == newest;
    run[end] = 0; /* of itself; the next token overwrites it before it is used */
}

/* Runs of a text from scratch, the Z function of the reversed text: linear where extending token by
 * token would be quadratic. */
static void make_runs(int32_t *run, const sb_token *x, size_t n)
{
    size_t right = 0,
           left = 0; /* reversed indices: the stretch that matches furthest to the right */
    for (size_t i = 1; i < n; i++) {
        size_t z = 0;
        if (i < right) {
            size_t inside = (size_t)run[n - 1 - (i - left)];
            z = inside < right - i ? inside : right - i;
        }
        while (i + z < n && x[n - 1 - z] == x[n - 1 - i - z])
            z++;
        run[n - 1 - i] = (int32_t)z;
        if (i + z > right) {
            left = i;
            right = i + z;
        }
    }
    run[n - 1] = 0;
}

static struct match look_up_best(struct pld *pld, const sb_token *x, size_t n_text)
{
    int32_t *run = pld->run;
    if (pld->seen == 0)
        make_runs(run, x, n_text);
    for (; pld->seen > 0 && pld->seen < n_text; pld->seen++)
        extend_runs(run, x, pld->seen);
    pld->seen = n_text;
    int32_t longest = 0;
    for (size_t j = 0; j + 1 < n_text; j++)
        longest = run[j] > longest ? run[j] : longest;
    if (longest < pld->params.ngram_min)
        return (struct match){ 0 };
    size_t j = n_text - 2;
    while (run[j] != longest)
        j--;
    return (struct match){ j + 1, (size_t)longest };
}

static enum sb_status pld_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                  struct sb_error *err)
{
    struct pld *pld = st;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)pld->params.k);
    if (k < 1 || ctx->n < 2 || ctx->n > pld->max_context)
        return SB_OK;
    struct match match = pld->match == BEST ? look_up_best(pld, ctx->tokens, ctx->n)
                                            : look_up(pld, ctx->tokens, ctx->n, (size_t)k);
    if (match.order == 0)
        return SB_OK;
    size_t period = ctx->n - match.from; /* what wrap repeats */
    for (int32_t i = 0, node = 0; i < k && ((size_t)i < period || pld->params.wrap); i++) {
        sb_token token = ctx->tokens[match.from + (size_t)i % period];
        node = sb_tree_add(tree, node, token, (int32_t)match.order);
        if (node < 0)
            break;
    }
    return SB_OK;
}

static int32_t pld_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct pld_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_pld = {
    .name = "pld",
    .summary = "copy what followed the last n-gram where it occurred before",
    .paper = "Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding",
    .params = pld_params,
    .params_size = sizeof(struct pld_params),
    .state_size = sizeof(struct pld),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .source_is_match = true,
    .open = pld_open,
    .begin = pld_begin,
    .propose = pld_propose,
    .close = pld_close,
    .max_nodes = pld_max_nodes,
};

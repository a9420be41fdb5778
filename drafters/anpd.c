/* drafters/anpd: an n-gram model of the text, drafting by its most frequent successors (Adaptive N-gram
 * Parallel Decoding; methods C 1.5). With source=corpus it is the plain n-gram drafter.
 *
 * Counts of what followed each 1 to n-1 tokens, from the prompt and every committed token, and from a
 * corpus with a weight. A draft grows token by token: the longest known context gives its most
 * frequent successor (backoff=first), or the orders compete by relative frequency, each shorter one
 * at .4 of the one above (backoff=stupid; Brants et al. 2007): a token has the score of the longest
 * context that it followed.
 *
 * Among equal counts, tie=latest takes the successor that was first seen latest (a corpus was seen
 * before the text), tie=smallest the smallest id. Equal scores of two orders go to the longer.
 *
 * Differs from the source: the prompt is counted once, not twice; nothing known means no draft, not
 * token 1; works on ids.
 *
 * Drafts are chosen. With q=true and a temperature above 0 they are drawn instead, from the relative
 * frequencies after the longest known context, and verifiers get that row.
 *
 * scope as in drafters/scope.h; what a text shares with the one before, from its beginning, counts once.
 * Memory: about 1 MiB at n=5 and 4,096 positions, the corpus beside it, and with q up to k rows; with scope=run it grows
 * between requests, never in a step. */
#include <string.h>

#include "drafters/ngrams.h"
#include "drafters/scope.h"
#include "drafters/seen.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "kernels/kernels.h"

enum { MOST_ORDERS = 15 };
static const double BACKOFF = .4;

struct anpd_params {
    int64_t k, n, weight;
    const char *source, *corpus, *backoff, *tie, *scope;
    bool q;
};

static const struct sb_param anpd_params[] = {
    { .name = "backoff",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct anpd_params, backoff),
      .fallback = "first",
      .choices = "first|stupid",
      .meaning = "the longest known context decides, or all compete" },
    { .name = "corpus",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct anpd_params, corpus),
      .meaning = "n-gram cache file with the counts of a corpus" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct anpd_params, k),
      .fallback = "6",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "n",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct anpd_params, n),
      .fallback = "5",
      .min = 2,
      .max = MOST_ORDERS + 1,
      .meaning = "longest n-gram: n-1 tokens of context and their successor" },
    { .name = "q",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct anpd_params, q),
      .fallback = "false",
      .meaning = "above temperature 0: draw drafts from the relative frequencies" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct anpd_params, scope),
      .fallback = "conversation",
      .choices = SB_SCOPE_CHOICES,
      .meaning = "how long counts of the text live" },
    { .name = "source",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct anpd_params, source),
      .fallback = "text",
      .choices = "text|both|corpus",
      .meaning = "what is counted" },
    { .name = "tie",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct anpd_params, tie),
      .fallback = "latest",
      .choices = "latest|smallest",
      .meaning = "which of equally frequent successors: first seen latest, or smallest id" },
    { .name = "weight",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct anpd_params, weight),
      .fallback = "1",
      .min = 1,
      .max = 1000,
      .meaning = "what a count of the corpus is worth in counts of the text" },
    { 0 },
};

/* One context in both tables; -1: unknown there. */
struct view {
    int32_t text, corpus;
};

/* Rows for drafts that are drawn, zero but for the tokens listed: a draw costs what its context has
 * successors, not the vocabulary. Verifiers may read them until the next draft. */
struct rows {
    double *q;       /* [cap, n_vocab]; NULL: drafts are chosen */
    sb_token *token; /* [cap, n_vocab] successors; only used pages become real */
    size_t *n_token; /* [cap] */
    double *weight;  /* [n_vocab] of the row at hand */
    size_t n, cap, n_vocab;
};

struct anpd {
    struct anpd_params params;
    struct rows rows;
    struct sb_scope scope;
    bool learns, competes;
    size_t orders, max_context;
    struct sb_ngrams text, corpus;
    struct sb_seen seen;
};

static enum sb_status load_corpus(struct anpd *a, size_t n_vocab, struct sb_error *err)
{
    bool wanted = strcmp(a->params.source, "text") != 0;
    if (wanted != (a->params.corpus != NULL))
        return wanted ? sb_fail(err, SB_EUSAGE,
                                "source=%s needs corpus=... (path of an n-gram cache file)",
                                a->params.source)
                      : sb_fail(err, SB_EUSAGE, "corpus=%s: goes with source=both or corpus only",
                                a->params.corpus);
    return wanted
               ? sb_ngrams_load(&a->corpus, a->params.corpus, n_vocab, 1, SB_NGRAM_FILE_ORDER, err)
               : SB_OK;
}

static enum sb_status make_rows(struct anpd *a, const struct sb_drafter_env *env,
                                struct sb_error *err)
{
    struct rows *r = &a->rows;
    if (!a->params.q)
        return SB_OK;
    if (a->competes)
        return sb_fail(err, SB_EUSAGE, "q=true: goes with backoff=first only");
    if (env->sampling.temperature <= 0)
        return SB_OK;
    *r = (struct rows){ .cap = (size_t)sb_policy_longest(env->policy, (int32_t)a->params.k),
                        .n_vocab = env->n_vocab };
    r->q =
        r->cap <= SIZE_MAX / r->n_vocab ? sb_alloc_zero(r->cap * r->n_vocab, sizeof *r->q) : NULL;
    r->token = r->q ? sb_alloc_array(r->cap * r->n_vocab, sizeof *r->token) : NULL;
    r->n_token = sb_alloc_array(r->cap, sizeof *r->n_token);
    r->weight = sb_alloc_array(r->n_vocab, sizeof *r->weight);
    return r->q && r->token && r->n_token && r->weight
               ? SB_OK
               : sb_fail(err, SB_ENOMEM, "no memory for %zu rows of %zu tokens", r->cap,
                         r->n_vocab);
}

static enum sb_status anpd_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct anpd *a = st;
    a->params = *(const struct anpd_params *)env->params;
    a->learns = strcmp(a->params.source, "corpus") != 0;
    a->competes = strcmp(a->params.backoff, "stupid") == 0;
    a->orders = (size_t)a->params.n - 1;
    a->max_context = env->max_context;
    a->text.tie = a->corpus.tie =
        strcmp(a->params.tie, "latest") == 0 ? SB_NGRAM_LATEST : SB_NGRAM_SMALLEST;
    enum sb_status rc = load_corpus(a, env->n_vocab, err);
    if (rc == SB_OK)
        rc = sb_scope_init(&a->scope, a->params.scope, env->max_context, "anpd", err);
    if (rc == SB_OK)
        rc = sb_seen_init(&a->seen, env->max_context, err);
    if (rc == SB_OK && a->learns)
        rc = sb_ngrams_reserve(&a->text, env->max_context * a->orders, env->max_context * a->orders,
                               err);
    if (rc == SB_OK)
        rc = make_rows(a, env, err);
    return rc == SB_OK ? rc : sb_fail_context(err, rc, "drafter anpd");
}

static void anpd_close(void *st)
{
    struct anpd *a = st;
    sb_ngrams_finish(&a->text);
    sb_ngrams_finish(&a->corpus);
    sb_free(a->rows.q);
    sb_free(a->rows.n_token);
    sb_free(a->rows.weight);
    sb_free(a->rows.token);
    a->rows = (struct rows){ 0 };
    sb_seen_finish(&a->seen);
    sb_scope_finish(&a->scope);
}

static int32_t first_of(const struct sb_ngrams *t, int32_t node)
{
    return node < 0 ? -1 : t->node[node].first;
}

static void learn(struct anpd *a, const struct sb_context *ctx)
{
    for (size_t at = a->seen.n; at < ctx->n && a->learns; at++)
        sb_ngrams_count(&a->text, ctx->tokens, at, 1, a->orders);
    sb_seen_all(&a->seen, ctx);
}

static enum sb_status anpd_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct anpd *a = st;
    bool forgets = sb_scope_forgets(&a->scope, ctx);
    sb_seen_begin(&a->seen, ctx, forgets);
    if (forgets)
        sb_ngrams_clear(&a->text);
    size_t most = a->learns ? a->max_context * a->orders : 0;
    enum sb_status rc = sb_ngrams_reserve(&a->text, most, most, err);
    if (rc != SB_OK)
        return sb_fail_context(err, rc, "drafter anpd");
    learn(a, ctx);
    return SB_OK;
}

static enum sb_status anpd_observe(void *st, const struct sb_context *ctx,
                                   const struct sb_outcome *outcome, struct sb_error *err)
{
    learn(st, ctx);
    return SB_OK;
}

/* ---- drafting ---- */

struct candidate {
    sb_token token;
    int64_t count;
    int64_t seen; /* when it was first seen, as an order */
};

static int64_t total(const struct anpd *a, struct view view)
{
    return (view.text < 0 ? 0 : a->text.node[view.text].total) +
           (view.corpus < 0 ? 0 : a->params.weight * a->corpus.node[view.corpus].total);
}

static struct candidate candidate(const struct anpd *a, struct view view, sb_token token)
{
    int32_t in_text = view.text < 0 ? -1 : sb_ngrams_find(&a->text, view.text, token);
    int32_t in_corpus = view.corpus < 0 ? -1 : sb_ngrams_find(&a->corpus, view.corpus, token);
    return (struct candidate){
        token,
        (in_text < 0 ? 0 : a->text.next[in_text].count) +
            (in_corpus < 0 ? 0 : a->params.weight * a->corpus.next[in_corpus].count),
        in_corpus < 0 ? (int64_t)INT32_MAX + in_text : in_corpus,
    };
}

static void keep_better(const struct anpd *a, struct candidate *best, struct candidate other)
{
    bool ahead =
        a->text.tie == SB_NGRAM_LATEST ? other.seen > best->seen : other.token < best->token;
    if (other.count > best->count || (other.count == best->count && ahead))
        *best = other;
}

/* The most frequent successor. Those that one table alone has cannot beat its best; those that both
 * have are all in the shorter list. */
static struct candidate best_of(const struct anpd *a, struct view view)
{
    struct candidate best = { .token = -1, .count = 0, .seen = -1 };
    const struct sb_ngram_node *t = view.text < 0 ? NULL : &a->text.node[view.text];
    const struct sb_ngram_node *c = view.corpus < 0 ? NULL : &a->corpus.node[view.corpus];
    if (t && t->best >= 0)
        keep_better(a, &best, candidate(a, view, a->text.next[t->best].token));
    if (c && c->best >= 0)
        keep_better(a, &best, candidate(a, view, a->corpus.next[c->best].token));
    if (!t || !c)
        return best;
    bool by_text = t->n_next < c->n_next;
    const struct sb_ngrams *walked = by_text ? &a->text : &a->corpus;
    for (int32_t i = by_text ? t->first : c->first; i >= 0; i = walked->next[i].link)
        keep_better(a, &best, candidate(a, view, walked->next[i].token));
    return best;
}

/* Did `token` follow a longer context than view[order]? */
static bool known_above(const struct anpd *a, const struct view *view, size_t order, size_t highest,
                        sb_token token)
{
    for (size_t o = order + 1; o <= highest; o++)
        if (candidate(a, view[o], token).count > 0)
            return true;
    return false;
}

/* The most frequent successor of view[order] that followed no longer context. */
static struct candidate best_new(const struct anpd *a, const struct view *view, size_t order,
                                 size_t highest)
{
    struct candidate best = { .token = -1, .count = 0, .seen = -1 };
    const struct sb_ngrams *table[] = { &a->text, &a->corpus };
    const int32_t node[] = { view[order].text, view[order].corpus };
    for (size_t s = 0; s < 2; s++)
        for (int32_t i = first_of(table[s], node[s]); i >= 0; i = table[s]->next[i].link)
            if (!known_above(a, view, order, highest, table[s]->next[i].token))
                keep_better(a, &best, candidate(a, view[order], table[s]->next[i].token));
    return best;
}

/* view[1..result]: the contexts that end tail[0..n). */
static size_t find_views(const struct anpd *a, const sb_token *tail, size_t n, struct view *view)
{
    int32_t in_text[MOST_ORDERS + 1], in_corpus[MOST_ORDERS + 1];
    size_t text = sb_ngrams_walk(&a->text, tail, n, a->orders, in_text);
    size_t corpus = sb_ngrams_walk(&a->corpus, tail, n, a->orders, in_corpus);
    size_t highest = text > corpus ? text : corpus;
    for (size_t o = 1; o <= highest; o++)
        view[o] = (struct view){ o <= text ? in_text[o] : -1, o <= corpus ? in_corpus[o] : -1 };
    return highest;
}

/* The next token after tail[0..n); -1: no context is known. *order: the context that gave it. */
static sb_token draft_token(const struct anpd *a, const sb_token *tail, size_t n, int32_t *order)
{
    struct view view[MOST_ORDERS + 1];
    size_t highest = find_views(a, tail, n, view);
    sb_token token = -1;
    double score = 0, factor = 1;
    for (size_t o = highest; o >= 1; o--) {
        double all = (double)total(a, view[o]);
        struct candidate best = { .token = -1 };
        if (all > 0)
            best = best_of(a, view[o]);
        if (token >= 0 && factor * (double)best.count > score * all)
            best = best_new(a, view, o, highest);
        if (all > 0 && factor * (double)best.count > score * all) {
            token = best.token;
            score = factor * (double)best.count / all;
            *order = (int32_t)o;
        }
        if (token >= 0) { /* a longer context that nothing followed costs nothing */
            factor *= BACKOFF;
            if (!a->competes)
                break;
        }
    }
    return token;
}

static void wipe_rows(struct rows *r)
{
    for (; r->n > 0; r->n--)
        for (size_t i = 0, row = (r->n - 1) * r->n_vocab; i < r->n_token[r->n - 1]; i++)
            r->q[row + (size_t)r->token[row + i]] = 0;
}

/* A row of the relative frequencies after a context; its tokens' counts are in r->weight. */
static const double *make_row(struct anpd *a, struct view view)
{
    const struct sb_ngrams *text = &a->text, *corpus = &a->corpus;
    struct rows *r = &a->rows;
    double *q = r->q + r->n * r->n_vocab, all = (double)total(a, view);
    sb_token *token = r->token + r->n * r->n_vocab;
    size_t n = 0;
    for (int32_t i = first_of(text, view.text); i >= 0; i = text->next[i].link)
        token[n++] = text->next[i].token;
    for (int32_t i = first_of(corpus, view.corpus); i >= 0; i = corpus->next[i].link)
        if (view.text < 0 || sb_ngrams_find(text, view.text, corpus->next[i].token) < 0)
            token[n++] = corpus->next[i].token;
    for (size_t i = 0; i < n; i++) {
        r->weight[i] = (double)candidate(a, view, token[i]).count;
        q[token[i]] = r->weight[i] / all;
    }
    r->n_token[r->n++] = n;
    return q;
}

/* Draw the next token from the longest known context; returns the new node, or -1: no context, no room. */
static int32_t draw_token(struct anpd *a, const struct sb_context *ctx, struct sb_tree *tree,
                          int32_t node, const sb_token *tail, size_t n)
{
    struct view view[MOST_ORDERS + 1];
    struct rows *r = &a->rows;
    size_t order = find_views(a, tail, n, view);
    while (order > 0 && total(a, view[order]) == 0)
        order--;
    if (order == 0 || r->n == r->cap || !sb_tree_has_room(tree, node, SB_DRAW_IID, 1))
        return -1;
    const double *q = make_row(a, view[order]);
    size_t at = ctx->dice.pick(ctx->dice.self, r->weight, r->n_token[r->n - 1]);
    sb_token token = r->token[(r->n - 1) * r->n_vocab + at];
    float log_q = (float)sb_log(q[token]);
    return sb_tree_draw(tree, node, token, SB_DRAW_IID, q, log_q < 0 ? log_q : 0, (int32_t)order);
}

static int32_t choose_token(const struct anpd *a, struct sb_tree *tree, int32_t node,
                            const sb_token *tail, size_t n)
{
    int32_t order = 0;
    sb_token token = draft_token(a, tail, n, &order);
    return token < 0 ? -1 : sb_tree_add(tree, node, token, order);
}

static enum sb_status anpd_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                   struct sb_error *err)
{
    struct anpd *a = st;
    sb_token tail[MOST_ORDERS];
    size_t n = ctx->n < a->orders ? ctx->n : a->orders;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)a->params.k), node = 0;
    memcpy(tail, ctx->tokens + ctx->n - n, n * sizeof *tail);
    wipe_rows(&a->rows);
    for (int32_t i = 0; i < k; i++) {
        node = a->rows.q ? draw_token(a, ctx, tree, node, tail, n)
                         : choose_token(a, tree, node, tail, n);
        if (node < 0)
            break;
        if (n == a->orders)
            memmove(tail, tail + 1, (n - 1) * sizeof *tail);
        else
            n++;
        tail[n - 1] = tree->node[node].token;
    }
    return SB_OK;
}

static unsigned anpd_kinds(const void *params, const struct sb_sampling *sampling)
{
    const struct anpd_params *p = params;
    return SB_KIND_BIT(p && p->q && sampling->temperature > 0 ? SB_DRAW_IID : SB_DRAW_ONEHOT);
}

static int32_t anpd_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct anpd_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_anpd = {
    .name = "anpd",
    .summary = "most frequent successors in an n-gram model of the text, or of a corpus",
    .paper = "Ou et al. 2024, arXiv 2404.08698",
    .params = anpd_params,
    .params_size = sizeof(struct anpd_params),
    .state_size = sizeof(struct anpd),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds = anpd_kinds,
    .open = anpd_open,
    .begin = anpd_begin,
    .propose = anpd_propose,
    .observe = anpd_observe,
    .close = anpd_close,
    .max_nodes = anpd_max_nodes,
};

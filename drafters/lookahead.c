/* Lookahead decoding (methods C 2.2): a window of Jacobi iterations runs beside the text and leaves
 * n-grams behind; those that begin with the last token are drafted.
 *
 * The window has rows 0 .. N-2, older iterations first. Row 0 follows the root as a chain; token j of row
 * 1 follows the j-th of (root, row 0), token j of row r the j-th of row r-1. These parent links are the
 * authors' mask: every row sees row 0 up to its column, and the diagonal of the older rows. What the
 * target says after the newest row is the next one.
 *
 * Differs from the authors' code: the last token of a guess counts too; guesses that begin alike share
 * nodes; with little room left the window pauses. With prompt_pool guesses are drafted from the first
 * step on. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "kernels/kernels.h"

enum { MOST_NODES = 1000, GUESS = 0, WINDOW = 1 /* nodes' source */ };

struct lookahead_params {
    int64_t window, ngram, guesses, seed;
    const char *start;
    bool prompt_pool;
};

static const struct sb_param lookahead_params[] = {
    { .name = "window",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct lookahead_params, window),
      .fallback = "5",
      .min = 1,
      .max = 64,
      .meaning = "W: tokens per row of the window" },
    { .name = "ngram",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct lookahead_params, ngram),
      .fallback = "4",
      .min = 3,
      .max = 16,
      .meaning = "N: length of n-grams; a guess has one token less, the window one row less" },
    { .name = "guesses",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct lookahead_params, guesses),
      .fallback = "5",
      .min = 1,
      .max = 64,
      .meaning = "G: n-grams kept, and drafted, per first token" },
    { .name = "start",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct lookahead_params, start),
      .fallback = "random",
      .choices = "random|cyclic",
      .meaning =
          "first row of the window: random tokens of the prompt, or the prompt over and over" },
    { .name = "seed",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct lookahead_params, seed),
      .fallback = "0",
      .min = 0,
      .max = 1e9,
      .meaning = "of start=random" },
    { .name = "prompt_pool",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct lookahead_params, prompt_pool),
      .fallback = "false",
      .meaning = "begin with the n-grams of the prompt" },
    { 0 },
};

struct lookahead {
    struct lookahead_params params;
    int32_t W, N, G;
    size_t n_vocab;
    /* The window: n_rows of N-1 rows are there. Row 0 has `width` tokens, the others one more. */
    sb_token *row[16]; /* [W + N - 3] each; row[0] owns them all */
    sb_token *newest;  /* [W + N - 3] what the target says after the last row */
    int32_t n_rows, width;
    int32_t first; /* node of the last row's first token; 0: the window pauses */
    /* The pool: for a token, up to G tuples of the N-1 tokens that followed it, oldest first. */
    int32_t *entry_of; /* [n_vocab] -1: none */
    int32_t *count;    /* [n_entries] tuples */
    sb_token *tuple;   /* [n_entries, G, N-1] */
    int32_t n_entries;
};

/* ---- opening ---- */

static int32_t window_nodes(int32_t n_rows, int32_t width)
{
    return width + (n_rows - 1) * (width + 1);
}

static int32_t most_nodes(const struct lookahead_params *p, const struct sb_policy *policy)
{
    int32_t W = (int32_t)p->window, N = (int32_t)p->ngram, most = 0;
    int32_t longest = sb_policy_longest(policy, N - 1);
    for (int32_t n_rows = 1; n_rows < N; n_rows++) {
        int32_t n = window_nodes(n_rows, W + N - 2 - n_rows);
        most = n > most ? n : most;
    }
    return most + (int32_t)p->guesses * (longest < N - 1 ? longest : N - 1);
}

static int32_t lookahead_max_nodes(const void *params, const struct sb_policy *policy)
{
    int32_t n = most_nodes(params, policy);
    return n <= MOST_NODES ? n : 0; /* open reports what is wrong */
}

static enum sb_status lookahead_open(void *st, const struct sb_drafter_env *env,
                                     struct sb_error *err)
{
    struct lookahead *la = st;
    const struct lookahead_params *p = env->params;
    la->params = *p;
    la->W = (int32_t)p->window;
    la->N = (int32_t)p->ngram;
    la->G = (int32_t)p->guesses;
    la->n_vocab = env->n_vocab;
    if (most_nodes(p, env->policy) > MOST_NODES)
        return sb_fail(err, SB_EUSAGE,
                       "drafter lookahead: window=%d, ngram=%d, guesses=%d: %d tokens per step, "
                       "expected at most %d",
                       (int)la->W, (int)la->N, (int)la->G, (int)most_nodes(p, env->policy),
                       MOST_NODES);
    /* A step gives the pool W first tokens at most, the prompt as many as it is long. */
    size_t stride = (size_t)(la->W + la->N - 3), entries = (size_t)(la->W + 1) * env->max_context;
    entries = entries < la->n_vocab ? entries : la->n_vocab;
    la->row[0] = sb_alloc_array((size_t)(la->N - 1) * stride, sizeof *la->row[0]);
    la->newest = sb_alloc_array(stride, sizeof *la->newest);
    la->entry_of = sb_alloc_array(la->n_vocab, sizeof *la->entry_of);
    la->count = sb_alloc_array(entries, sizeof *la->count);
    la->tuple = sb_alloc_array(entries * (size_t)(la->G * (la->N - 1)), sizeof *la->tuple);
    if (!la->row[0] || !la->newest || !la->entry_of || !la->count || !la->tuple)
        return sb_fail(err, SB_ENOMEM, "drafter lookahead: no memory for a pool of %zu tokens",
                       entries);
    for (int32_t r = 1; r < la->N - 1; r++)
        la->row[r] = la->row[r - 1] + stride;
    return SB_OK;
}

static void lookahead_close(void *st)
{
    struct lookahead *la = st;
    sb_free(la->row[0]);
    sb_free(la->newest);
    sb_free(la->entry_of);
    sb_free(la->count);
    sb_free(la->tuple);
    *la = (struct lookahead){ 0 };
}

/* ---- the pool ---- */

static sb_token *tuple_at(const struct lookahead *la, int32_t entry, int32_t i)
{
    return la->tuple + ((size_t)entry * (size_t)la->G + (size_t)i) * (size_t)(la->N - 1);
}

/* The tuple becomes the newest of `key`, once; a full list loses its oldest. */
static void pool_add(struct lookahead *la, sb_token key, const sb_token *tuple)
{
    size_t size = (size_t)(la->N - 1) * sizeof *tuple;
    int32_t entry = la->entry_of[key];
    if (entry < 0) {
        entry = la->entry_of[key] = la->n_entries++;
        la->count[entry] = 0;
    }
    int32_t n = la->count[entry], at = 0;
    while (at < n && memcmp(tuple_at(la, entry, at), tuple, size) != 0)
        at++;
    if (at == n && n < la->G) {
        la->count[entry]++;
    } else {
        at = at == n ? 0 : at; /* the oldest, or itself, moves out */
        memmove(tuple_at(la, entry, at), tuple_at(la, entry, at + 1), (size_t)(n - 1 - at) * size);
        at = n - 1;
    }
    memcpy(tuple_at(la, entry, at), tuple, size);
}

/* ---- a step ---- */

static enum sb_status lookahead_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct lookahead *la = st;
    struct sb_rng rng = sb_rng_make((uint64_t)la->params.seed, SB_STREAM_DRAFT);
    bool cyclic = strcmp(la->params.start, "cyclic") == 0;
    memset(la->entry_of, -1, la->n_vocab * sizeof *la->entry_of);
    la->n_entries = 0;
    la->n_rows = 1;
    la->width = la->W + la->N - 3;
    la->first = 0;
    for (size_t i = 0; i < (size_t)la->width; i++)
        la->row[0][i] = ctx->tokens[cyclic ? i % ctx->n_prompt : sb_rng_below(&rng, ctx->n_prompt)];
    for (size_t i = 0; la->params.prompt_pool && i + (size_t)la->N <= ctx->n_prompt; i++)
        pool_add(la, ctx->tokens[i], ctx->tokens + i + 1);
    return SB_OK;
}

static void draft_guesses(const struct lookahead *la, struct sb_tree *tree, int32_t length)
{
    int32_t entry = la->entry_of[tree->node[0].token];
    for (int32_t i = 0; entry >= 0 && i < la->count[entry]; i++) {
        const sb_token *tuple = tuple_at(la, entry, i);
        for (int32_t t = 0, node = 0; t < length && node >= 0; t++)
            node = sb_tree_add(tree, node, tuple[t], GUESS);
    }
}

/* Lay out the window; only its last row is read. */
static void lay_window(struct lookahead *la, struct sb_tree *tree)
{
    int32_t above = tree->n; /* first node of the row above */
    for (int32_t j = 0; j < la->width; j++)
        sb_tree_add_auxiliary(tree, j ? above + j - 1 : 0, la->row[0][j], WINDOW);
    la->first = above;
    for (int32_t r = 1; r < la->n_rows; r++) {
        la->first = tree->n;
        for (int32_t j = 0; j <= la->width; j++) {
            int32_t parent = r > 1 ? above + j : j ? above + j - 1 : 0;
            sb_tree_add_auxiliary(tree, parent, la->row[r][j], WINDOW);
        }
        above = la->first;
    }
    for (int32_t i = tree->n - window_nodes(la->n_rows, la->width); i < la->first; i++)
        tree->node[i].unread = true;
}

static enum sb_status lookahead_propose(void *st, const struct sb_context *ctx,
                                        struct sb_tree *tree, struct sb_error *err)
{
    struct lookahead *la = st;
    int32_t longest = la->N - 1, length = sb_policy_plan(ctx->policy, longest);
    draft_guesses(la, tree, length < longest ? length : longest);
    la->first = 0;
    /* At the last token of the budget nothing comes of a window. */
    if (tree->max_depth > 0 && window_nodes(la->n_rows, la->width) <= tree->cap - tree->n)
        lay_window(la, tree);
    return SB_OK;
}

/* The first rows: each costs every row its first token. */
static void fill_window(struct lookahead *la, int32_t n_newest)
{
    int32_t skip = la->n_rows > 1;
    memcpy(la->row[la->n_rows], la->newest + skip, (size_t)(n_newest - skip) * sizeof *la->newest);
    for (int32_t r = 0; r < la->n_rows; r++) {
        int32_t n = la->width + (r > 0);
        memmove(la->row[r], la->row[r] + 1, (size_t)(n - 1) * sizeof *la->row[r]);
    }
    la->n_rows++;
    la->width--;
}

/* Column by column, the window and what came out of it are n-grams. */
static void harvest(struct lookahead *la, sb_token root)
{
    sb_token tuple[16];
    for (int32_t j = 0; j < la->W; j++) {
        for (int32_t r = 1; r < la->n_rows; r++)
            tuple[r - 1] = la->row[r][j];
        tuple[la->N - 2] = la->newest[j];
        pool_add(la, j ? la->row[0][j - 1] : root, tuple);
    }
}

/* Every row moves up by one, however many tokens were accepted. */
static void shift_window(struct lookahead *la)
{
    size_t size = (size_t)la->W * sizeof *la->newest;
    memcpy(la->row[0], la->row[1] + 1, size - sizeof *la->newest);
    for (int32_t r = 1; r + 1 < la->n_rows; r++)
        memcpy(la->row[r], la->row[r + 1], size);
    memcpy(la->row[la->n_rows - 1], la->newest, size);
}

static enum sb_status lookahead_observe(void *st, const struct sb_context *ctx,
                                        const struct sb_outcome *outcome, struct sb_error *err)
{
    struct lookahead *la = st;
    int32_t n = la->width + (la->n_rows > 1);
    if (la->first == 0)
        return SB_OK;
    for (int32_t j = 0; j < n; j++) {
        const float *logits = sb_seq_logits(outcome->target, (size_t)(la->first + j));
        if (!logits)
            return sb_fail(err, SB_EINTERNAL, "drafter lookahead: a node without a row");
        la->newest[j] = (sb_token)sb_argmax(logits, la->n_vocab);
    }
    if (la->n_rows < la->N - 1) {
        fill_window(la, n);
    } else {
        harvest(la, outcome->tree->node[0].token);
        shift_window(la);
    }
    return SB_OK;
}

const struct sb_drafter_ops sb_drafter_lookahead = {
    .name = "lookahead",
    .summary = "n-grams from Jacobi iterations that run beside the text",
    .paper = "Fu et al. 2024, arXiv 2402.02057",
    .params = lookahead_params,
    .params_size = sizeof(struct lookahead_params),
    .state_size = sizeof(struct lookahead),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .target_rows = SB_TARGET_ROWS_OWN,
    .makes_trees = true,
    .open = lookahead_open,
    .begin = lookahead_begin,
    .propose = lookahead_propose,
    .observe = lookahead_observe,
    .close = lookahead_close,
    .max_nodes = lookahead_max_nodes,
};

/* A small language model of the same vocabulary as drafter (methods A 4.1): a chain of k tokens, or a
 * product tree with a fixed number of children per node and level (A 5.5).
 *
 * At temperature 0 children are the model's most likely tokens (one-hot); above, they are drawn
 * independently from its row after the same transform S, equal draws merged (iid).
 *
 * The drafter's sequence holds, between steps, a prefix of the committed text. A step feeds the rows
 * it lacks and drafts level by level. As long as a level is one node, its row is committed at once
 * (the spine); from the first wider level on, all nodes below the spine are one batch, recomputed
 * with each level, since a sequence keeps only one path. Afterwards the accepted path stays. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "kernels/prob.h"

enum { MAX_LEVELS = 16, MAX_WIDTH = 64, MAX_SHAPE_NODES = 1000, CATCH_UP_ROWS = 64 };
enum { FIRST_TEXT_ID = 5, MAX_SIZE_DIFFERENCE = 128 }; /* llama.cpp's rule for vocabularies */

struct small_lm_params {
    const char *model, *tree;
    int64_t k;
    double p_min;
};

static const struct sb_param small_lm_params[] = {
    { .name = "model",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct small_lm_params, model),
      .required = true,
      .meaning = "path of the draft model, or the name of a bundled one" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct small_lm_params, k),
      .fallback = "4",
      .min = 1,
      .max = 256,
      .meaning = "draft length of a chain" },
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct small_lm_params, tree),
      .meaning = "children per node of each level, as 3x2x1; replaces k" },
    { .name = "p_min",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct small_lm_params, p_min),
      .fallback = "0",
      .min = 0,
      .max = 1,
      .meaning = "stop below a token whose row's largest probability was below this" },
    { 0 },
};

/* Children per node of each level; n_levels = 0: a chain. */
struct shape {
    int32_t n_levels, width[MAX_LEVELS];
    int32_t n_nodes, n_internal; /* at most, the root among the internal ones */
};

struct small_lm {
    struct small_lm_params params;
    struct shape shape;
    struct sb_sampling sampling;
    struct sb_seq *seq;
    size_t n_vocab, n_shared; /* the target's vocabulary; ids that both models have */
    size_t n_draft_vocab;
    size_t max_context;
    double *q;          /* [n_internal, n_vocab]; only above temperature 0 */
    int32_t n_q;        /* rows of q used in this step */
    struct sb_row *row; /* [n_rows] */
    size_t n_rows;
    int32_t *batch;    /* [n_rows] node of each batch row; ascending */
    int32_t *row_of;   /* [cap] batch row of a node, or SB_PARENT_PREFIX on the spine */
    int32_t *spine;    /* [levels] nodes whose rows are committed after the text */
    double *path_prob; /* [cap] */
    bool *halted;      /* [cap] nothing below this node */
    int32_t n_batch, n_spine;
    size_t base; /* committed tokens when the draft began; 0: no draft in this step */
    void *scratch;
};

/* "3x2x1"; false when it is no such text or makes too many nodes. */
static bool parse_shape(struct shape *out, const char *text)
{
    struct shape shape = { .n_internal = 1 };
    int64_t level = 1;
    for (const char *p = text;; p++) {
        int32_t width = 0;
        for (; *p >= '0' && *p <= '9' && width <= MAX_WIDTH; p++)
            width = width * 10 + (*p - '0');
        if (width < 1 || width > MAX_WIDTH || shape.n_levels == MAX_LEVELS)
            return false;
        shape.width[shape.n_levels++] = width;
        shape.n_internal = 1 + shape.n_nodes;
        level *= width;
        if (shape.n_nodes + level > MAX_SHAPE_NODES)
            return false;
        shape.n_nodes += (int32_t)level;
        if (*p == '\0')
            break;
        if (*p != 'x')
            return false;
    }
    *out = shape;
    return true;
}

static bool small_lm_branches(const void *params)
{
    const struct small_lm_params *p = params;
    struct shape shape;
    if (!p || !p->tree || !parse_shape(&shape, p->tree))
        return false;
    for (int32_t i = 0; i < shape.n_levels; i++)
        if (shape.width[i] > 1)
            return true;
    return false;
}

static int32_t small_lm_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct small_lm_params *p = params;
    struct shape shape;
    if (p->tree)
        return parse_shape(&shape, p->tree) ? shape.n_nodes : 0; /* open reports what is wrong */
    return sb_policy_longest(policy, (int32_t)p->k);
}

/* ---- opening ---- */

static enum sb_status check_vocabulary(const struct sb_drafter_env *env,
                                       const struct sb_model *model,
                                       const struct sb_tokenizer *tokenizer, const char *name,
                                       struct sb_error *err)
{
    size_t n_target = env->n_vocab, n_draft = sb_model_config(model)->n_vocab;
    size_t difference = n_target > n_draft ? n_target - n_draft : n_draft - n_target;
    if (difference > MAX_SIZE_DIFFERENCE)
        return sb_fail(err, SB_EUSAGE,
                       "drafter small-lm: model %s has a vocabulary of %zu, the target one of %zu: "
                       "expected a difference of at most %d",
                       name, n_draft, n_target, MAX_SIZE_DIFFERENCE);
    const struct sb_tokenizer *target = env->tokenizer;
    if (!target || !tokenizer || target == tokenizer)
        return SB_OK;
    if (sb_tokenizer_bos(target) != sb_tokenizer_bos(tokenizer) ||
        sb_tokenizer_eos(target) != sb_tokenizer_eos(tokenizer))
        return sb_fail(err, SB_EUSAGE,
                       "drafter small-lm: model %s has BOS %" PRId32 " and EOS %" PRId32
                       ", the target %" PRId32 " and %" PRId32,
                       name, sb_tokenizer_bos(tokenizer), sb_tokenizer_eos(tokenizer),
                       sb_tokenizer_bos(target), sb_tokenizer_eos(target));
    size_t n_a = sb_tokenizer_size(target), n_b = sb_tokenizer_size(tokenizer);
    for (size_t id = FIRST_TEXT_ID; id < n_a && id < n_b; id++) {
        const char *a = sb_tokenizer_piece(target, (sb_token)id);
        const char *b = sb_tokenizer_piece(tokenizer, (sb_token)id);
        if (strcmp(a ? a : "", b ? b : "") != 0)
            return sb_fail(err, SB_EUSAGE,
                           "drafter small-lm: model %s has another vocabulary than the target: "
                           "token %zu is '%s', there '%s'",
                           name, id, b ? b : "", a ? a : "");
    }
    return SB_OK;
}

static enum sb_status allocate(struct small_lm *lm, struct sb_model *model, struct sb_error *err)
{
    size_t cap = (size_t)lm->shape.n_nodes + 1;
    lm->n_rows = cap > CATCH_UP_ROWS ? cap : CATCH_UP_ROWS;
    lm->row = sb_alloc_array(lm->n_rows, sizeof *lm->row);
    lm->batch = sb_alloc_array(lm->n_rows, sizeof *lm->batch);
    lm->row_of = sb_alloc_array(cap, sizeof *lm->row_of);
    lm->spine = sb_alloc_array(cap, sizeof *lm->spine);
    lm->path_prob = sb_alloc_array(cap, sizeof *lm->path_prob);
    lm->halted = sb_alloc_array(cap, sizeof *lm->halted);
    lm->scratch = sb_alloc(sb_sampling_scratch_bytes(lm->n_vocab));
    bool enough = lm->row && lm->batch && lm->row_of && lm->spine && lm->path_prob && lm->halted &&
                  lm->scratch;
    if (enough && lm->sampling.temperature > 0) {
        size_t n_rows = (size_t)lm->shape.n_internal;
        lm->q = n_rows > SIZE_MAX / lm->n_vocab
                    ? NULL
                    : sb_alloc_array(n_rows * lm->n_vocab, sizeof *lm->q);
        enough = lm->q != NULL;
    }
    if (!enough)
        return sb_fail(err, SB_ENOMEM, "drafter small-lm: no memory for drafts of %zu tokens",
                       cap - 1);
    /* A batch shares the context with the text where the model has no positions beyond it. */
    size_t most = sb_model_config(model)->max_context;
    if (lm->max_context + lm->n_rows < most)
        most = lm->max_context + lm->n_rows;
    return sb_seq_create(&lm->seq, model, most, lm->n_rows, err);
}

static enum sb_status small_lm_open(void *st, const struct sb_drafter_env *env,
                                    struct sb_error *err)
{
    struct small_lm *lm = st;
    struct sb_model *model = NULL;
    const struct sb_tokenizer *tokenizer = NULL;
    lm->params = *(const struct small_lm_params *)env->params;
    if (lm->params.tree && !parse_shape(&lm->shape, lm->params.tree))
        return sb_fail(err, SB_EUSAGE,
                       "drafter small-lm: tree=%s: expected children per level such as 3x2x1, at "
                       "most %d levels of 1 to %d and %d nodes",
                       lm->params.tree, MAX_LEVELS, MAX_WIDTH, MAX_SHAPE_NODES);
    if (!lm->params.tree) {
        int32_t longest = sb_policy_longest(env->policy, (int32_t)lm->params.k);
        lm->shape = (struct shape){ .n_nodes = longest, .n_internal = longest };
    }
    if (!env->load_model)
        return sb_fail(err, SB_EUSAGE, "drafter small-lm: no draft model can be loaded here");
    enum sb_status rc = env->load_model(env->loader, lm->params.model, &model, &tokenizer, err);
    if (rc == SB_OK)
        rc = check_vocabulary(env, model, tokenizer, lm->params.model, err);
    if (rc != SB_OK)
        return rc;
    const struct sb_config *config = sb_model_config(model);
    lm->sampling = env->sampling;
    lm->n_vocab = env->n_vocab;
    lm->n_draft_vocab = config->n_vocab;
    lm->n_shared = config->n_vocab < env->n_vocab ? config->n_vocab : env->n_vocab;
    lm->max_context =
        config->max_context < env->max_context ? config->max_context : env->max_context;
    return allocate(lm, model, err);
}

static void small_lm_close(void *st)
{
    struct small_lm *lm = st;
    sb_seq_destroy(lm->seq);
    sb_free(lm->q);
    sb_free(lm->row);
    sb_free(lm->batch);
    sb_free(lm->row_of);
    sb_free(lm->spine);
    sb_free(lm->path_prob);
    sb_free(lm->halted);
    sb_free(lm->scratch);
    *lm = (struct small_lm){ 0 };
}

/* ---- feeding the draft model ---- */

/* An id that only the target has is fed as 0: any draft is lawful, this one is just no better. */
static struct sb_row token_row(const struct small_lm *lm, sb_token token, int32_t parent)
{
    return (struct sb_row){ .token = (size_t)token < lm->n_draft_vocab ? token : 0,
                            .parent = parent };
}

/* Feed and commit the text that the sequence lacks, up to token n; the last row wants logits if
 * `logits`. The row of the last token is then the last of the batch. */
static enum sb_status catch_up(struct small_lm *lm, const sb_token *tokens, size_t n, bool logits,
                               size_t *last_row, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    while (rc == SB_OK && sb_seq_length(lm->seq) < n) {
        size_t from = sb_seq_length(lm->seq), m = n - from < lm->n_rows ? n - from : lm->n_rows;
        for (size_t i = 0; i < m; i++) {
            lm->row[i] = token_row(lm, tokens[from + i], (int32_t)i - 1);
            lm->batch[i] = (int32_t)i;
        }
        lm->row[m - 1].want_logits = logits && from + m == n;
        rc = sb_forward(lm->seq, lm->row, m, NULL, err);
        if (rc == SB_OK)
            rc = sb_seq_commit(lm->seq, lm->batch, m, err);
        *last_row = m - 1;
    }
    return rc;
}

static enum sb_status small_lm_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct small_lm *lm = st;
    size_t last_row;
    sb_seq_truncate(lm->seq, 0);
    lm->base = 0;
    if (ctx->n > lm->max_context) /* longer than the draft model can read: it never drafts */
        return SB_OK;
    return catch_up(lm, ctx->tokens, ctx->n - 1, false, &last_row, err);
}

/* A batch of one node is a path already: keep its row, and the batch starts anew below it. */
static enum sb_status extend_spine(struct small_lm *lm, struct sb_error *err)
{
    const int32_t first = 0;
    enum sb_status rc = sb_seq_commit(lm->seq, &first, 1, err);
    if (rc != SB_OK)
        return rc;
    lm->row_of[lm->batch[0]] = SB_PARENT_PREFIX;
    lm->spine[lm->n_spine++] = lm->batch[0];
    lm->n_batch = 0;
    return SB_OK;
}

/* Feed the nodes from `first` on that go on: their rows ask for logits. */
static enum sb_status feed_level(struct small_lm *lm, const struct sb_tree *tree, int32_t first,
                                 struct sb_error *err)
{
    if (lm->n_batch == 1) {
        enum sb_status rc = extend_spine(lm, err);
        if (rc != SB_OK)
            return rc;
    }
    for (int32_t i = 0; i < lm->n_batch; i++)
        lm->row[i].want_logits = false;
    for (int32_t node = first; node < tree->n; node++) {
        if (lm->halted[node])
            continue;
        const struct sb_node *t = &tree->node[node];
        lm->row[lm->n_batch] = token_row(lm, t->token, lm->row_of[t->parent]);
        lm->row[lm->n_batch].want_logits = true;
        lm->batch[lm->n_batch] = node;
        lm->row_of[node] = lm->n_batch++;
    }
    return sb_forward(lm->seq, lm->row, (size_t)lm->n_batch, NULL, err);
}

/* ---- drafting ---- */

/* What the stop rules look at: the row at temperature 1 in greedy drafting, else q itself. */
struct row_figures {
    double top, entropy, log_sum; /* log_sum: of the logits, at temperature 0 */
};

static struct row_figures figures_of_logits(const float *logits, size_t n)
{
    float max = sb_logits_max(logits, n, NULL);
    const struct sb_temper temper = sb_temper_make(max, 1);
    double dot, sum = sb_prob_moment(logits, n, &temper, &dot), log_sum = sb_log(sum);
    return (struct row_figures){ 1 / sum, log_sum - dot / sum, (double)max + log_sum };
}

static struct row_figures figures_of_row(const double *q, size_t n)
{
    return (struct row_figures){ .top = q[sb_prob_argmax(q, n)], .entropy = sb_prob_entropy(q, n) };
}

/* The most likely id that is no child of `node` yet; smallest on ties; -1: none left. */
static sb_token next_best(const struct sb_tree *tree, int32_t node, const float *logits, size_t n)
{
    sb_token best = -1;
    for (size_t i = 0; i < n; i++)
        if ((best < 0 || logits[i] > logits[best]) &&
            (node + 1 == tree->n || sb_tree_child(tree, node, (sb_token)i) < 0))
            best = (sb_token)i;
    return best;
}

/* Add `width` children to `node` from the logits of its row; *figures when stop rules need them. */
static enum sb_status add_children(struct small_lm *lm, const struct sb_context *ctx,
                                   struct sb_tree *tree, int32_t node, const float *logits,
                                   int32_t width, struct row_figures *figures, struct sb_error *err)
{
    if (lm->sampling.temperature <= 0) {
        if (figures)
            *figures = figures_of_logits(logits, lm->n_shared);
        int32_t child = sb_tree_add(tree, node, (sb_token)sb_argmax(logits, lm->n_shared), 0);
        for (int32_t i = 1; i < width && child >= 0; i++) {
            sb_token token = next_best(tree, node, logits, lm->n_shared);
            child = token < 0 ? -1 : sb_tree_add(tree, node, token, 0);
        }
        return SB_OK;
    }
    double *q = lm->q + (size_t)lm->n_q++ * lm->n_vocab;
    sb_sampling_apply(q, &lm->sampling, logits, lm->n_shared, lm->scratch);
    memset(q + lm->n_shared, 0, (lm->n_vocab - lm->n_shared) * sizeof *q);
    if (isnan(q[0]))
        return sb_fail(err, SB_EFORMAT,
                       "drafter small-lm: model %s: its logits hold NaN or infinity",
                       lm->params.model);
    if (figures)
        *figures = figures_of_row(q, lm->n_shared);
    for (int32_t i = 0; i < width; i++) {
        size_t token = ctx->dice.pick(ctx->dice.self, q, lm->n_shared);
        if (sb_tree_draw(tree, node, (sb_token)token, SB_DRAW_IID, q, (float)sb_log(q[token]), 0) <
            0)
            break;
    }
    return SB_OK;
}

/* Decide for the children of `node`, from `first` on, whether drafting goes on below them. */
static void halt_children(struct small_lm *lm, const struct sb_context *ctx,
                          const struct sb_tree *tree, int32_t node, int32_t first,
                          const float *logits, const struct row_figures *figures)
{
    for (int32_t i = first; i < tree->n; i++) {
        sb_token token = tree->node[i].token;
        lm->halted[i] = sb_tree_ends(tree, token);
        if (!figures)
            continue;
        double prob = tree->node[node].q ? tree->node[node].q[token]
                                         : sb_exp((double)logits[token] - figures->log_sum);
        lm->path_prob[i] = lm->path_prob[node] * prob;
        const struct sb_policy_node info = { .depth = tree->node[i].depth,
                                             .n_nodes = tree->n - 1,
                                             .top_prob = figures->top,
                                             .entropy = figures->entropy,
                                             .path_prob = lm->path_prob[i] };
        if (figures->top < lm->params.p_min || sb_policy_stops(ctx->policy, &info))
            lm->halted[i] = true;
    }
}

/* Grow level `depth` under the fed nodes first..last-1; batch rows are theirs. */
static enum sb_status grow_level(struct small_lm *lm, const struct sb_context *ctx,
                                 struct sb_tree *tree, int32_t first, int32_t last, size_t root_row,
                                 struct sb_error *err)
{
    bool needs_figures = lm->params.p_min > 0 || ctx->policy->ops->after_node;
    int32_t level = tree->node[first].depth;
    int32_t width = lm->shape.n_levels ? lm->shape.width[level] : 1;
    sb_dice_seek(&ctx->dice, (uint64_t)level + 1);
    for (int32_t node = first; node < last; node++) {
        if (lm->halted[node])
            continue;
        size_t row = node == 0 ? root_row : (size_t)lm->row_of[node];
        const float *logits = sb_seq_logits(lm->seq, row);
        if (!logits)
            return sb_fail(err, SB_EINTERNAL, "drafter small-lm: a row without logits");
        struct row_figures figures = { 0 };
        int32_t n_before = tree->n;
        enum sb_status rc =
            add_children(lm, ctx, tree, node, logits, width, needs_figures ? &figures : NULL, err);
        if (rc != SB_OK)
            return rc;
        halt_children(lm, ctx, tree, node, n_before, logits, needs_figures ? &figures : NULL);
    }
    return SB_OK;
}

/* Are there nodes to feed from `first` on, and does the batch with them fit the sequence? */
static bool goes_on(const struct small_lm *lm, int32_t first, int32_t last)
{
    size_t n_new = 0;
    for (int32_t i = first; i < last; i++)
        n_new += !lm->halted[i];
    return n_new > 0 &&
           (size_t)lm->n_batch + n_new <= sb_seq_capacity(lm->seq) - sb_seq_length(lm->seq);
}

/* How deep this step's draft may go: setting, policy, budget, and the draft model's positions. */
static int32_t plan_depth(const struct small_lm *lm, const struct sb_context *ctx,
                          const struct sb_tree *tree)
{
    int32_t depth = sb_policy_plan(ctx->policy,
                                   lm->shape.n_levels ? lm->shape.n_levels : (int32_t)lm->params.k);
    int32_t most = lm->shape.n_levels ? lm->shape.n_levels : lm->shape.n_nodes;
    depth = depth < most ? depth : most;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    if (ctx->n > lm->max_context)
        return 0;
    size_t room = lm->max_context - ctx->n + 1; /* the deepest level is never fed */
    return (size_t)depth < room ? depth : (int32_t)room;
}

static enum sb_status small_lm_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                       struct sb_error *err)
{
    struct small_lm *lm = st;
    int32_t depth = plan_depth(lm, ctx, tree);
    lm->base = 0;
    lm->n_batch = lm->n_spine = lm->n_q = 0;
    if (depth < 1)
        return SB_OK;
    if (sb_seq_length(lm->seq) >=
        ctx->n) /* the root's row always runs anew: its logits are needed */
        sb_seq_truncate(lm->seq, ctx->n - 1);
    size_t root_row = 0;
    enum sb_status rc = catch_up(lm, ctx->tokens, ctx->n, true, &root_row, err);
    lm->base = ctx->n;
    lm->row_of[0] = SB_PARENT_PREFIX;
    lm->path_prob[0] = 1;
    lm->halted[0] = false;
    for (int32_t level = 0, first = 0; rc == SB_OK; level++) {
        int32_t last = tree->n;
        rc = grow_level(lm, ctx, tree, first, last, root_row, err);
        first = last;
        if (rc != SB_OK || level + 1 == depth || !goes_on(lm, first, tree->n))
            break;
        rc = feed_level(lm, tree, first, err);
    }
    return rc;
}

/* Keep the rows of the accepted path that were computed, drop the others. */
static enum sb_status small_lm_observe(void *st, const struct sb_context *ctx,
                                       const struct sb_outcome *outcome, struct sb_error *err)
{
    struct small_lm *lm = st;
    if (lm->base == 0)
        return SB_OK;
    int32_t kept = 0, n = 0;
    while (kept < lm->n_spine && kept + 1 < outcome->n_path &&
           outcome->path[kept + 1] == lm->spine[kept])
        kept++;
    if (kept < lm->n_spine) {
        sb_seq_truncate(lm->seq, lm->base + (size_t)kept);
        return SB_OK;
    }
    /* Fed nodes of the path come first on it: a node is fed only below a fed one. */
    for (int32_t i = kept + 1; i < outcome->n_path; i++) {
        int32_t node = outcome->path[i], b = 0;
        while (b < lm->n_batch && lm->batch[b] != node)
            b++;
        if (b == lm->n_batch)
            break;
        lm->row_of[n++] = b; /* row_of is free until the next draft */
    }
    return n > 0 ? sb_seq_commit(lm->seq, lm->row_of, (size_t)n, err) : SB_OK;
}

const struct sb_drafter_ops sb_drafter_small_lm = {
    .name = "small-lm",
    .summary = "a small language model of the same vocabulary: a chain or a fixed tree",
    .paper = "Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318",
    .params = small_lm_params,
    .params_size = sizeof(struct small_lm_params),
    .state_size = sizeof(struct small_lm),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds_sampling = SB_KIND_BIT(SB_DRAW_IID),
    .makes_trees = true,
    .branches = small_lm_branches,
    .open = small_lm_open,
    .begin = small_lm_begin,
    .propose = small_lm_propose,
    .observe = small_lm_observe,
    .close = small_lm_close,
    .max_nodes = small_lm_max_nodes,
};

#include "drafters/lm_tree.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "kernels/kernels.h"
#include "kernels/prob.h"

/* What stop rules look at: the row at temperature 1 in greedy drafting, else q itself. */
struct sb_lm_figures {
    double top, entropy;
    double log_sum; /* of the logits' exponentials; greedy drafting only */
};

/* ---- opening ---- */

static enum sb_status allocate(struct sb_lm_tree *lt, struct sb_error *err)
{
    const struct sb_lm_tree_options *o = &lt->options;
    size_t n_nodes = (size_t)o->most_nodes(o->self, o->depth) + 1;
    if (lt->gives == SB_DRAFT_ROWS_ALL)
        lt->n_rows = (int32_t)n_nodes;
    else if (!lt->greedy || lt->gives != SB_DRAFT_ROWS_NONE)
        lt->n_rows = o->most_nodes(o->self, o->depth - 1) + 1;
    lt->row_of = sb_alloc_array(n_nodes, sizeof *lt->row_of);
    lt->figures = sb_alloc_array(n_nodes, sizeof *lt->figures);
    lt->path_prob = sb_alloc_array(n_nodes, sizeof *lt->path_prob);
    lt->path_sum = sb_alloc_array(n_nodes, sizeof *lt->path_sum);
    lt->level = sb_alloc_array(n_nodes, sizeof *lt->level);
    lt->open = sb_alloc_array(n_nodes, sizeof *lt->open);
    lt->row_scratch = sb_alloc(sb_sampling_scratch_bytes(lt->n_vocab));
    lt->draw_scratch = sb_alloc(sb_draw_scratch_bytes(lt->n_vocab));
    if ((size_t)lt->n_rows <= SIZE_MAX / lt->n_vocab)
        lt->row = sb_alloc_array((size_t)lt->n_rows * lt->n_vocab, sizeof *lt->row);
    if (!lt->row_of || !lt->figures || !lt->path_prob || !lt->path_sum || !lt->level || !lt->open ||
        !lt->row_scratch || !lt->draw_scratch || !lt->row)
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory for drafts of %zu tokens", o->drafter,
                       n_nodes - 1);
    return SB_OK;
}

enum sb_status sb_lm_tree_open(struct sb_lm_tree *lt, const struct sb_drafter_env *env,
                               const struct sb_lm_tree_options *options, struct sb_error *err)
{
    lt->options = *options;
    lt->greedy = env->sampling.temperature <= 0;
    lt->sampling = lt->greedy ? (struct sb_sampling){ .temperature = 1 } : env->sampling;
    lt->gives = env->draft_rows;
    lt->n_vocab = env->n_vocab;
    enum sb_status rc = sb_lm_feeder_open(&lt->feeder, env, options->drafter, options->model,
                                          options->most_nodes(options->self, options->depth), err);
    return rc == SB_OK ? allocate(lt, err) : rc;
}

enum sb_status sb_lm_tree_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct sb_lm_tree *lt = st;
    return sb_lm_feeder_begin(&lt->feeder, ctx, err);
}

enum sb_status sb_lm_tree_observe(void *st, const struct sb_context *ctx,
                                  const struct sb_outcome *outcome, struct sb_error *err)
{
    struct sb_lm_tree *lt = st;
    return sb_lm_feeder_keep(&lt->feeder, outcome, err);
}

void sb_lm_tree_close(void *st)
{
    struct sb_lm_tree *lt = st;
    sb_lm_feeder_close(&lt->feeder);
    sb_free(lt->row);
    sb_free(lt->row_of);
    sb_free(lt->figures);
    sb_free(lt->path_prob);
    sb_free(lt->path_sum);
    sb_free(lt->level);
    sb_free(lt->open);
    sb_free(lt->row_scratch);
    sb_free(lt->draw_scratch);
    *lt = (struct sb_lm_tree){ 0 };
}

/* ---- rows ---- */

/* At temperature 1. */
static struct sb_lm_figures figures_of_logits(const float *logits, size_t n)
{
    float max = sb_logits_max(logits, n, NULL);
    if (!isfinite(max))
        return (struct sb_lm_figures){ 0 };
    const struct sb_temper temper = sb_temper_make(max, 1);
    double dot, sum = sb_prob_moment(logits, n, &temper, &dot), log_sum = sb_log(sum);
    return (struct sb_lm_figures){ 1 / sum, log_sum - dot / sum, (double)max + log_sum };
}

static struct sb_lm_figures figures_of_row(const double *q, size_t n)
{
    return (struct sb_lm_figures){ .top = q[sb_prob_argmax(q, n)],
                                   .entropy = sb_prob_entropy(q, n) };
}

/* Make the row of a fed node, if anybody reads it. */
static enum sb_status make_row(struct sb_lm_tree *lt, struct sb_tree *tree, int32_t node,
                               struct sb_error *err)
{
    const float *logits = sb_lm_feeder_logits(&lt->feeder, node);
    size_t n = lt->feeder.n_shared;
    lt->row_of[node] = NULL;
    if (!logits)
        return sb_fail(err, SB_EINTERNAL, "drafter %s: a row without logits", lt->options.drafter);
    if (lt->n_rows == 0)
        return SB_OK;
    double *row = lt->row + (size_t)lt->used_rows++ * lt->n_vocab;
    sb_sampling_apply(row, &lt->sampling, logits, n, lt->row_scratch);
    memset(row + n, 0, (lt->n_vocab - n) * sizeof *row);
    if (isnan(row[0]))
        return sb_fail(err, SB_EFORMAT, "drafter %s: model %s: its logits hold NaN or infinity",
                       lt->options.drafter, lt->options.model);
    lt->row_of[node] = row;
    if (lt->gives != SB_DRAFT_ROWS_NONE)
        tree->node[node].draft_row = row;
    return SB_OK;
}

const double *sb_lm_tree_row(const struct sb_lm_tree *lt, int32_t node)
{
    return lt->row_of[node];
}

const float *sb_lm_tree_logits(const struct sb_lm_tree *lt, int32_t node)
{
    return sb_lm_feeder_logits(&lt->feeder, node);
}

void sb_lm_tree_children(struct sb_lm_tree *lt, const struct sb_context *ctx, struct sb_tree *tree,
                         int32_t node, enum sb_draw_rule rule, int32_t width)
{
    size_t n = lt->feeder.n_shared;
    if (lt->greedy)
        sb_choose_children(tree, node, sb_lm_tree_logits(lt, node), n, width, 0);
    else
        sb_draw_children(tree, node, rule, lt->row_of[node], n, width, &ctx->dice, lt->draw_scratch,
                         0);
}

/* ---- growing ---- */

/* What a policy sees of a node: figures of the row it came from. */
static struct sb_policy_node seen(const struct sb_lm_tree *lt, const struct sb_tree *tree,
                                  int32_t node, const struct sb_lm_figures *figures)
{
    const struct sb_lm_tree_options *o = &lt->options;
    int32_t depth = tree->node[node].depth;
    return (struct sb_policy_node){
        .depth = depth,
        .n_nodes = o->paths_apart ? o->most_nodes(o->self, depth) : tree->n - 1,
        .top_prob = figures->top,
        .entropy = figures->entropy,
        .path_prob = lt->path_prob[node],
        .n_seen = lt->greedy ? tree->n - 1 : depth,
        .sum_seen = lt->greedy ? lt->tree_sum : lt->path_sum[node],
    };
}

/* The drafter's probability of a node's token. */
static double prob_of(const struct sb_lm_tree *lt, const struct sb_node *n)
{
    return lt->greedy ? sb_exp((double)sb_lm_tree_logits(lt, n->parent)[n->token] -
                               lt->figures[n->parent].log_sum)
                      : lt->row_of[n->parent][n->token];
}

static void add_up(struct sb_lm_tree *lt, const struct sb_tree *tree, int32_t node)
{
    int32_t parent = tree->node[node].parent;
    lt->path_prob[node] = lt->path_prob[parent] * prob_of(lt, &tree->node[node]);
    lt->path_sum[node] = lt->path_sum[parent] + lt->path_prob[node];
    lt->tree_sum += lt->path_prob[node];
}

/* Does a rule stop drafting below this node? Its token stays: dropping a token that was drawn, for
 * what it is, would change the law of the draw. */
static bool stops(struct sb_lm_tree *lt, const struct sb_context *ctx, const struct sb_tree *tree,
                  int32_t node)
{
    const struct sb_node *n = &tree->node[node];
    const struct sb_lm_figures *f = &lt->figures[n->parent];
    struct sb_policy_node info = seen(lt, tree, node, f);
    info.prob = prob_of(lt, n);
    return f->top < lt->options.p_min || sb_policy_stops(ctx->policy, &info);
}

/* Feed the newest level and make its rows: of the nodes to draw below, or of all where a verifier looks
 * at leaves too. Those must not wait, since nothing can be fed beside a spine that has passed it. */
static enum sb_status read_level(struct sb_lm_tree *lt, struct sb_tree *tree, struct sb_error *err)
{
    bool all = lt->gives == SB_DRAFT_ROWS_ALL;
    const int32_t *node = all ? lt->level : lt->open;
    int32_t n = all ? lt->n_level : lt->n_open;
    enum sb_status rc =
        n == 0 || node[0] == 0 ? SB_OK : sb_lm_feeder_feed(&lt->feeder, tree, node, n, err);
    for (int32_t i = 0; i < n && rc == SB_OK; i++)
        rc = make_row(lt, tree, node[i], err);
    return rc;
}

/* One level below the open nodes, whose rows are there; it is the newest then. */
static void grow_level(struct sb_lm_tree *lt, const struct sb_context *ctx, struct sb_tree *tree,
                       sb_lm_level *level, void *self)
{
    const struct sb_policy_ops *policy = ctx->policy->ops;
    bool rules = lt->options.p_min > 0 || policy->after_node || policy->before_children;
    int32_t first = tree->n, n_open = 0;
    for (int32_t i = 0; i < lt->n_open && rules; i++) {
        int32_t node = lt->open[i];
        const float *logits = sb_lm_tree_logits(lt, node);
        lt->figures[node] = lt->greedy ? figures_of_logits(logits, lt->feeder.n_shared)
                                       : figures_of_row(lt->row_of[node], lt->feeder.n_shared);
        const struct sb_policy_node info = seen(lt, tree, node, &lt->figures[node]);
        if (!sb_policy_refuses(ctx->policy, &info))
            lt->open[n_open++] = node;
    }
    lt->n_open = rules ? n_open : lt->n_open;
    level(self, ctx, tree, lt->open, lt->n_open);
    lt->n_level = lt->n_open = 0;
    for (int32_t i = first; i < tree->n && rules; i++)
        add_up(lt, tree, i);
    for (int32_t i = first; i < tree->n; i++) {
        bool shut = rules && stops(lt, ctx, tree, i);
        lt->level[lt->n_level++] = i;
        if (!shut && !sb_tree_ends(tree, tree->node[i].token))
            lt->open[lt->n_open++] = i;
    }
}

/* How deep this step's draft may go; -1: the model cannot even read the root. A level begins only if
 * all of it fits, however many tokens coincide: how long paths are must not tell what they hold. */
static int32_t plan_depth(const struct sb_lm_tree *lt, const struct sb_context *ctx,
                          const struct sb_tree *tree, int32_t depth)
{
    const struct sb_lm_tree_options *o = &lt->options;
    int32_t unfed = lt->gives == SB_DRAFT_ROWS_ALL ? 0 : 1; /* levels that need no rows */
    int32_t fed = sb_lm_feeder_depth(&lt->feeder, ctx);
    if (fed < 0)
        return -1;
    depth = depth < o->depth ? depth : o->depth;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    depth = depth - unfed < fed ? depth : fed + unfed;
    int32_t room = sb_lm_feeder_room(&lt->feeder, ctx);
    while (depth > 0 && (o->most_nodes(o->self, depth) >= tree->cap ||
                         o->most_nodes(o->self, depth - unfed) > room))
        depth--;
    return depth > 0 ? depth : 0;
}

enum sb_status sb_lm_tree_grow(struct sb_lm_tree *lt, const struct sb_context *ctx,
                               struct sb_tree *tree, int32_t depth, sb_lm_level *level, void *self,
                               struct sb_error *err)
{
    depth = plan_depth(lt, ctx, tree, depth);
    lt->used_rows = 0;
    tree->trusted = true;
    if (depth < 0 || (depth == 0 && lt->gives != SB_DRAFT_ROWS_ALL))
        return SB_OK;
    enum sb_status rc = sb_lm_feeder_start(&lt->feeder, ctx, err);
    lt->path_prob[0] = 1;
    lt->path_sum[0] = lt->tree_sum = 0;
    lt->level[0] = lt->open[0] = 0;
    lt->n_level = lt->n_open = 1;
    for (int32_t i = 0; rc == SB_OK && i < depth && lt->n_open > 0; i++) {
        rc = read_level(lt, tree, err);
        if (rc == SB_OK)
            grow_level(lt, ctx, tree, level, self);
    }
    return rc == SB_OK && lt->gives == SB_DRAFT_ROWS_ALL ? read_level(lt, tree, err) : rc;
}

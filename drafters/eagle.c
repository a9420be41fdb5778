/* EAGLE-1: a decoder layer that predicts the target's next feature from this one and the token after it; the
 * target's LM head turns features into tokens, and those fill a static tree (methods B 5.1).
 *
 * At temperature 0 children are a row's best tokens. Above, as in the paper, they are drawn from it without
 * replacement after the transform S, as many as the shape has there; draw=top keeps to the best ones.
 *
 * Differs from the source: no node is expanded that ends the generation. */
#include <math.h>
#include <string.h>

#include "drafters/eagle_body.h"
#include "drafters/static_tree.h"
#include "harness/core/alloc.h"
#include "harness/decode/draw.h"

struct eagle_params {
    const char *head, *tree, *draw;
};

static const struct sb_param eagle_params[] = {
    SB_HEAD_PARAM(struct eagle_params),
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct eagle_params, tree),
      .fallback = "eagle1_25",
      .meaning = SB_STATIC_TREE_MEANING },
    { .name = "draw",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct eagle_params, draw),
      .fallback = "wor",
      .choices = "wor|top",
      .meaning = "children above temperature 0: drawn without replacement, or the best" },
    { 0 },
};

struct eagle {
    struct sb_eagle_body body;
    struct sb_static_tree shape;
    struct sb_sampling sampling;
    bool draws;
    int32_t *node_of, *row_of; /* [shape.n] of this step; node -1: not there */
    sb_token *token;           /* [shape.n] rows to compute, or a row's best */
    int32_t *above, *open;     /* [shape.n] */
    float *log_prob;           /* [shape.n] */
    double *row;               /* [internal nodes, n_vocab] that children were drawn from */
    int32_t n_rows;            /* made in this step */
    void *row_scratch, *draw_scratch;
};

static bool draws_children(const char *draw, const struct sb_sampling *sampling)
{
    return sampling->temperature > 0 && (!draw || strcmp(draw, "wor") == 0);
}

static size_t count_internal(const struct sb_static_tree *shape)
{
    size_t n = 0;
    for (int32_t i = 0; i < shape->n; i++)
        n += shape->node[i].n_children > 0;
    return n;
}

static enum sb_status allocate(struct eagle *e, size_t n_vocab, struct sb_error *err)
{
    size_t n = (size_t)e->shape.n, rows = e->draws ? count_internal(&e->shape) : 0;
    /* A row's best tokens go through `token`, ranks that the shape leaves out included. */
    size_t wide = n > SB_STATIC_RANKS ? n : SB_STATIC_RANKS;
    e->node_of = sb_alloc_array(n, sizeof *e->node_of);
    e->row_of = sb_alloc_array(n, sizeof *e->row_of);
    e->token = sb_alloc_array(wide, sizeof *e->token);
    e->log_prob = sb_alloc_array(wide, sizeof *e->log_prob);
    e->above = sb_alloc_array(n, sizeof *e->above);
    e->open = sb_alloc_array(n, sizeof *e->open);
    e->row_scratch = sb_alloc(sb_sampling_scratch_bytes(n_vocab));
    e->draw_scratch = sb_alloc(sb_draw_scratch_bytes(n_vocab));
    e->row = sb_alloc_array(rows * n_vocab, sizeof *e->row);
    if (!e->node_of || !e->row_of || !e->token || !e->log_prob || !e->above || !e->open ||
        !e->row_scratch || !e->draw_scratch || !e->row)
        return sb_fail(err, SB_ENOMEM, "drafter eagle: no memory for drafts of %zu tokens", n - 1);
    return SB_OK;
}

static enum sb_status eagle_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct eagle *e = st;
    const struct eagle_params *p = env->params;
    e->sampling = env->sampling;
    e->draws = draws_children(p->draw, &env->sampling);
    enum sb_status rc = sb_static_tree_open(&e->shape, p->tree, "eagle", err);
    if (rc == SB_OK)
        rc = sb_static_tree_uses(env, p->tree, err);
    if (rc == SB_OK)
        rc = sb_eagle_body_open(&e->body, SB_EAGLE_1, env, "eagle", p->head,
                                count_internal(&e->shape), err);
    return rc == SB_OK ? allocate(e, env->n_vocab, err) : rc;
}

static void eagle_close(void *st)
{
    struct eagle *e = st;
    sb_eagle_body_close(&e->body);
    sb_static_tree_finish(&e->shape);
    sb_free(e->node_of);
    sb_free(e->row_of);
    sb_free(e->token);
    sb_free(e->log_prob);
    sb_free(e->above);
    sb_free(e->open);
    sb_free(e->row);
    sb_free(e->row_scratch);
    sb_free(e->draw_scratch);
    *e = (struct eagle){ 0 };
}

static enum sb_status eagle_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    return sb_eagle_body_begin(&((struct eagle *)st)->body, ctx, err);
}

/* ---- children ---- */

/* The best tokens of the node's row, at the ranks of the shape. */
static enum sb_status choose(struct eagle *e, struct sb_tree *tree, int32_t at,
                             struct sb_error *err)
{
    const struct sb_static_node *s = &e->shape.node[at];
    int32_t n;
    enum sb_status rc =
        sb_eagle_body_best(&e->body, e->row_of[at], s->width, e->token, e->log_prob, &n, err);
    for (int32_t i = s->first_child; i < s->first_child + s->n_children && rc == SB_OK; i++) {
        int32_t rank = e->shape.node[i].rank;
        if (rank < n)
            e->node_of[i] = sb_tree_add(tree, e->node_of[at], e->token[rank], s->depth + 1);
    }
    return rc;
}

static enum sb_status draw(struct eagle *e, const struct sb_context *ctx, struct sb_tree *tree,
                           int32_t at, struct sb_error *err)
{
    const struct sb_static_node *s = &e->shape.node[at];
    size_t n_vocab = e->body.n_vocab;
    double *q = e->row + (size_t)e->n_rows++ * n_vocab;
    sb_sampling_apply(q, &e->sampling, sb_eagle_body_logits(&e->body, e->row_of[at]), n_vocab,
                      e->row_scratch);
    if (isnan(q[0]))
        return sb_fail(err, SB_EFORMAT, "drafter eagle: head %s: its logits hold NaN or infinity",
                       e->body.head.path);
    int32_t first = tree->n;
    sb_draw_children(tree, e->node_of[at], SB_RULE_WOR, q, n_vocab, s->n_children, &ctx->dice,
                     e->draw_scratch, s->depth + 1);
    for (int32_t i = 0; i < s->n_children && first + i < tree->n; i++)
        e->node_of[s->first_child + i] = first + i;
    return SB_OK;
}

/* Rows for the nodes of a level that have children in the shape; e->open[] are those. Returns how many. */
static enum sb_status read_level(struct eagle *e, const struct sb_tree *tree, int32_t depth,
                                 int32_t *n_open, struct sb_error *err)
{
    int32_t n = 0, first = 0;
    for (int32_t i = e->shape.level[depth]; i < e->shape.level[depth + 1]; i++) {
        int32_t node = e->node_of[i];
        if (node < 0 || e->shape.node[i].n_children == 0 ||
            sb_tree_ends(tree, tree->node[node].token))
            continue;
        e->token[n] = tree->node[node].token;
        e->above[n] = depth > 0 ? e->row_of[e->shape.node[i].parent] : 0;
        e->open[n++] = i;
    }
    *n_open = n;
    if (n == 0 || depth == 0)
        return SB_OK; /* the root's row is there */
    enum sb_status rc = sb_eagle_body_grow(&e->body, e->token, e->above, (size_t)n, &first, err);
    for (int32_t i = 0; i < n; i++)
        e->row_of[e->open[i]] = first + i;
    return rc;
}

static enum sb_status eagle_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    struct eagle *e = st;
    int32_t depth = sb_policy_plan(ctx->policy, e->shape.depth), n_open = 1;
    depth = depth < e->shape.depth ? depth : e->shape.depth;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    bool ready;
    /* Whether a set is drawn must not tell which tokens other sets hold: levels that fit as a whole. */
    while (e->draws && depth > 0 && e->shape.level[depth + 1] > tree->cap)
        depth--;
    if (depth < 1 || tree->cap < 2)
        return SB_OK;
    enum sb_status rc = sb_eagle_body_start(&e->body, ctx, &ready, err);
    if (rc != SB_OK || !ready)
        return rc;
    for (int32_t i = 0; i < e->shape.n; i++)
        e->node_of[i] = -1;
    e->node_of[0] = 0;
    e->row_of[0] = SB_PARENT_PREFIX;
    e->n_rows = 0;
    tree->trusted = true;
    for (int32_t level = 0; level < depth && rc == SB_OK && n_open > 0; level++) {
        rc = read_level(e, tree, level, &n_open, err);
        for (int32_t i = 0; i < n_open && rc == SB_OK; i++)
            rc = e->draws ? draw(e, ctx, tree, e->open[i], err) : choose(e, tree, e->open[i], err);
    }
    return rc;
}

/* ---- what the table says ---- */

static unsigned eagle_kinds(const void *params, const struct sb_sampling *sampling)
{
    const struct eagle_params *p = params;
    return SB_KIND_BIT(draws_children(p ? p->draw : NULL, sampling) ? SB_DRAW_WOR : SB_DRAW_ONEHOT);
}

static bool eagle_branches(const void *params)
{
    const struct eagle_params *p = params;
    struct sb_static_tree tree;
    if (!p || sb_static_tree_open(&tree, p->tree, "eagle", NULL) != SB_OK)
        return true;
    bool branches = tree.n > tree.depth + 1;
    sb_static_tree_finish(&tree);
    return branches;
}

static int32_t eagle_max_nodes(const void *params, const struct sb_policy *policy)
{
    (void)policy;
    return sb_static_tree_nodes(((const struct eagle_params *)params)->tree);
}

const struct sb_drafter_ops sb_drafter_eagle = {
    .name = "eagle",
    .summary = "a decoder layer that predicts the target's next hidden state; static tree",
    .paper = "Li et al. 2024, arXiv 2401.15077",
    .params = eagle_params,
    .params_size = sizeof(struct eagle_params),
    .state_size = sizeof(struct eagle),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds_sampling = SB_KIND_BIT(SB_DRAW_WOR),
    .kinds = eagle_kinds,
    .makes_trees = true,
    .branches = eagle_branches,
    .open = eagle_open,
    .begin = eagle_begin,
    .propose = eagle_propose,
    .close = eagle_close,
    .max_nodes = eagle_max_nodes,
};

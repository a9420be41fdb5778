/* The union of two drafters' trees, within one budget of nodes: each drafts on a tree of its own, then a's
 * nodes are added, then b's; equal prefixes are one. A node's source says whose it is: 1 for a, 2 for b, 3
 * for both.
 *
 * Nodes that a part drew become chosen ones, since a node's children are of one kind and drawn and chosen
 * ones meet under one parent. That is lawful: for any tree that is made without the verifier's numbers,
 * taking its tokens as given keeps the target's law. It gives up what the rows q were for: above
 * temperature 0 naive-sample, or another verifier of chosen children, judges them.
 *
 * How many nodes are left for b must not depend on tokens that a drew, whose numbers may come back in the
 * next step: where a draws, b gets what the largest draft of a leaves. */
#include "drafters/parts.h"
#include "harness/core/alloc.h"

struct merge_params {
    struct sb_parts_params parts;
    int64_t nodes;
};

static const struct sb_parts_params defaults = { "sam", "token-recycling" };

static const struct sb_param merge_params[] = {
    { .name = "a",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct merge_params, parts.a),
      .fallback = "sam",
      .meaning = SB_PARTS_MEANING "; its nodes come first" },
    { .name = "b",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct merge_params, parts.b),
      .fallback = "token-recycling",
      .meaning = SB_PARTS_MEANING },
    { .name = "nodes",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct merge_params, nodes),
      .fallback = "64",
      .min = 1,
      .max = 4096,
      .meaning = "nodes of both together" },
    { 0 },
};

struct own_tree {
    struct sb_tree tree;
    int32_t *at;   /* [tree.cap] its nodes in the union; -1: not there */
    int32_t *path; /* [tree.cap] the accepted ones */
    int32_t cap;   /* of the tree */
};

struct merge {
    struct sb_parts parts;
    struct own_tree own[2];
    int64_t nodes;
    bool proposed; /* in this step */
};

static enum sb_status open_tree(struct own_tree *own, int32_t most,
                                const struct sb_drafter_env *env, struct sb_error *err)
{
    enum sb_status rc = sb_tree_create(&own->tree, most + 1, err);
    if (rc != SB_OK)
        return rc;
    own->cap = most + 1;
    own->tree.eos = env->eos;
    own->tree.n_eos = env->n_eos;
    own->at = sb_alloc_array((size_t)own->cap, sizeof *own->at);
    own->path = sb_alloc_array((size_t)own->cap, sizeof *own->path);
    return own->at && own->path ? SB_OK : sb_fail(err, SB_ENOMEM, "drafter merge: out of memory");
}

static enum sb_status merge_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct merge *m = st;
    m->nodes = ((const struct merge_params *)env->params)->nodes;
    enum sb_status rc = sb_parts_open(&m->parts, "merge", env, err);
    for (size_t i = 0; i < 2 && rc == SB_OK; i++)
        rc = open_tree(&m->own[i], m->parts.part[i].most, env, err);
    return rc;
}

static void merge_close(void *st)
{
    struct merge *m = st;
    sb_parts_close(&m->parts);
    for (size_t i = 0; i < 2; i++) {
        sb_tree_finish(&m->own[i].tree);
        sb_free(m->own[i].at);
        sb_free(m->own[i].path);
    }
}

static enum sb_status merge_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct merge *m = st;
    m->proposed = false;
    return sb_parts_begin(&m->parts, ctx, err);
}

/* Let a part draft at most `room` nodes on its own tree. */
static enum sb_status draft(struct merge *m, size_t i, const struct sb_context *ctx,
                            const struct sb_tree *tree, int32_t room, struct sb_error *err)
{
    struct own_tree *own = &m->own[i];
    own->tree.cap = room + 1 < own->cap ? room + 1 : own->cap;
    sb_tree_reset(&own->tree, tree->node[0].token, tree->max_depth);
    return sb_part_propose(&m->parts.part[i], ctx, &own->tree, err);
}

/* Add a part's nodes to the union. */
static void unite(struct sb_tree *tree, struct own_tree *own, int32_t source)
{
    own->at[0] = 0;
    for (int32_t i = 1; i < own->tree.n; i++) {
        const struct sb_node *node = &own->tree.node[i];
        int32_t parent = own->at[node->parent];
        own->at[i] = parent < 0 ? -1 : sb_tree_add(tree, parent, node->token, 0);
        if (own->at[i] >= 0)
            tree->node[own->at[i]].source |= source;
    }
}

static enum sb_status merge_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    struct merge *m = st;
    int32_t room = tree->cap - 1 < m->nodes ? tree->cap - 1 : (int32_t)m->nodes;
    enum sb_status rc = draft(m, 0, ctx, tree, room, err);
    if (rc != SB_OK)
        return rc;
    int32_t most = m->parts.part[0].most;
    int32_t taken = !m->parts.part[0].draws ? m->own[0].tree.n - 1 : most < room ? most : room;
    rc = draft(m, 1, ctx, tree, room - taken, err);
    if (rc != SB_OK)
        return rc;
    unite(tree, &m->own[0], SB_FROM_A);
    unite(tree, &m->own[1], SB_FROM_B);
    m->proposed = true;
    return SB_OK;
}

/* The step as one on the part's own tree: accepted is what of its own was, and the token behind that. */
static struct sb_outcome own_outcome(const struct merge *m, size_t i,
                                     const struct sb_outcome *outcome)
{
    const struct own_tree *own = &m->own[i];
    struct sb_outcome out = *outcome;
    out.tree = &own->tree;
    out.path = own->path;
    out.n_path = 1;
    own->path[0] = 0;
    for (int32_t node = 1; m->proposed && node < own->tree.n && out.n_path < outcome->n_path;
         node++)
        if (own->tree.node[node].parent == own->path[out.n_path - 1] &&
            own->at[node] == outcome->path[out.n_path])
            own->path[out.n_path++] = node;
    if (out.n_path < outcome->n_path)
        out.final_token = outcome->tree->node[outcome->path[out.n_path]].token;
    return out;
}

/* A part that reads the target's rows finds them at the nodes of the union. */
static enum sb_status merge_observe(void *st, const struct sb_context *ctx,
                                    const struct sb_outcome *outcome, struct sb_error *err)
{
    struct merge *m = st;
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < 2 && rc == SB_OK; i++) {
        bool reads = m->parts.part[i].rows != SB_TARGET_ROWS_NONE;
        struct sb_outcome own = own_outcome(m, i, outcome);
        rc = sb_part_observe(&m->parts.part[i], ctx, reads ? outcome : &own, err);
    }
    m->proposed = false;
    return rc;
}

static void merge_cancel(void *st)
{
    sb_parts_cancel(&((struct merge *)st)->parts);
}

static enum sb_target_rows merge_target_rows(const void *params)
{
    return sb_parts_target_rows(params, &defaults);
}

static bool merge_keeps_run(const void *params)
{
    return sb_parts_keep_run(params);
}

static int32_t merge_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct merge_params *p = params;
    int32_t most[2];
    sb_parts_nodes(&p->parts, policy, most);
    return most[0] + most[1] < p->nodes ? most[0] + most[1] : (int32_t)p->nodes;
}

const struct sb_drafter_ops sb_drafter_merge = {
    .name = "merge",
    .summary = "the union of two drafters' trees within one budget",
    .paper = "none",
    .params = merge_params,
    .params_size = sizeof(struct merge_params),
    .state_size = sizeof(struct merge),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .target_rows_with = merge_target_rows,
    .keeps_run = merge_keeps_run,
    .makes_trees = true,
    .open = merge_open,
    .begin = merge_begin,
    .propose = merge_propose,
    .observe = merge_observe,
    .cancel = merge_cancel,
    .close = merge_close,
    .max_nodes = merge_max_nodes,
};

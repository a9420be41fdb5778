/* Recursive speculative decoding with constant branching (methods A 4.8): every node of level i has
 * b_i children, drawn without replacement from a small model's row; at temperature 0 the b_i most
 * likely. The authors draw by the Gumbel-top-k trick; one draw after the other, each without those
 * before, has the same law and reads the row once. */
#include "drafters/lm_tree.h"
#include "drafters/shape.h"

struct rsd_c_params {
    const char *model, *tree;
};

static const struct sb_param rsd_c_params[] = {
    { .name = "model",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct rsd_c_params, model),
      .required = true,
      .meaning = "path of the draft model, or the name of a bundled one" },
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct rsd_c_params, tree),
      .fallback = "2x2x2",
      .meaning = "children per node of each level" },
    { 0 },
};

struct rsd_c {
    struct sb_lm_tree lt; /* first */
    struct sb_shape shape;
};

static int32_t most_nodes(const void *self, int32_t depth)
{
    return sb_shape_nodes(&((const struct rsd_c *)self)->shape, depth);
}

static bool rsd_c_branches(const void *params)
{
    const struct rsd_c_params *p = params;
    struct sb_shape shape;
    return !p ||
           (sb_shape_parse(&shape, p->tree, "rsd-c", NULL) == SB_OK && sb_shape_widest(&shape) > 1);
}

static int32_t rsd_c_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct rsd_c_params *p = params;
    struct sb_shape shape;
    if (sb_shape_parse(&shape, p->tree, "rsd-c", NULL) != SB_OK)
        return 0; /* open reports what is wrong */
    return sb_shape_nodes(&shape, shape.n_levels);
}

static enum sb_status rsd_c_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct rsd_c *rsd = st;
    const struct rsd_c_params *p = env->params;
    enum sb_status rc = sb_shape_parse(&rsd->shape, p->tree, "rsd-c", err);
    if (rc != SB_OK)
        return rc;
    const struct sb_lm_tree_options options = { .drafter = "rsd-c",
                                                .model = p->model,
                                                .depth = rsd->shape.n_levels,
                                                .most_nodes = most_nodes,
                                                .self = rsd };
    return sb_lm_tree_open(&rsd->lt, env, &options, err);
}

static void draw_level(void *self, const struct sb_context *ctx, struct sb_tree *tree,
                       const int32_t *node, int32_t n)
{
    struct rsd_c *rsd = self;
    int32_t width = rsd->shape.width[tree->node[node[0]].depth];
    for (int32_t i = 0; i < n; i++)
        sb_lm_tree_children(&rsd->lt, ctx, tree, node[i], SB_RULE_WOR, width);
}

static enum sb_status rsd_c_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    struct rsd_c *rsd = st;
    int32_t depth = sb_policy_plan(ctx->policy, rsd->shape.n_levels);
    return sb_lm_tree_grow(&rsd->lt, ctx, tree, depth, draw_level, rsd, err);
}

const struct sb_drafter_ops sb_drafter_rsd_c = {
    .name = "rsd-c",
    .summary = "a small model's tree of constant branching, drawn without replacement",
    .paper = "Jeon et al. 2024, arXiv 2402.14160",
    .params = rsd_c_params,
    .params_size = sizeof(struct rsd_c_params),
    .state_size = sizeof(struct rsd_c),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds_sampling = SB_KIND_BIT(SB_DRAW_WOR),
    .draft_rows = SB_DRAFT_ROWS_ALL,
    .makes_trees = true,
    .branches = rsd_c_branches,
    .open = rsd_c_open,
    .begin = sb_lm_tree_begin,
    .propose = rsd_c_propose,
    .observe = sb_lm_tree_observe,
    .close = sb_lm_tree_close,
    .max_nodes = rsd_c_max_nodes,
};

/* A small language model of the same vocabulary as drafter (methods A 4.1): a chain of k tokens, a
 * product tree with a fixed number of children per node and level (A 5.5; SpecInfer's expansion, and
 * with draw=wor MCSD), or several paths of k tokens.
 *
 * At temperature 0 children are the model's most likely tokens (one-hot), whatever `draw` says; above,
 * they are drawn from its row after the same transform S. */
#include <inttypes.h>
#include <string.h>

#include "drafters/lm_tree.h"
#include "drafters/shape.h"

struct small_lm_params {
    const char *model, *tree, *draw;
    int64_t k, paths;
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
      .meaning = "draft length of a chain, or of each path" },
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct small_lm_params, tree),
      .meaning = "children per node of each level, as 3x2x1; replaces k" },
    { .name = "draw",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct small_lm_params, draw),
      .fallback = "iid",
      .choices = SB_DRAW_RULES,
      .meaning = "how children are drawn above temperature 0" },
    { .name = "paths",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct small_lm_params, paths),
      .fallback = "0",
      .min = 0,
      .max = SB_DRAW_WIDTH,
      .meaning = "with draw=paths: how many independent paths of k tokens" },
    { .name = "p_min",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct small_lm_params, p_min),
      .fallback = "0",
      .min = 0,
      .max = 1,
      .meaning = "stop below a token whose row's largest probability was below this" },
    { 0 },
};

struct small_lm {
    struct sb_lm_tree lt;  /* first */
    struct sb_shape shape; /* n_levels = 0: a chain, or paths */
    int32_t k, paths;      /* paths: 1 unless they are drawn */
    enum sb_draw_rule rule;
};

/* Which parameters go together; the shape they make. */
static enum sb_status read_params(struct small_lm *lm, const struct small_lm_params *p,
                                  struct sb_error *err)
{
    lm->rule = sb_draw_rule_of(p->draw);
    lm->paths = p->paths > 0 ? (int32_t)p->paths : 1;
    lm->k = (int32_t)p->k;
    enum sb_status rc = p->tree ? sb_shape_parse(&lm->shape, p->tree, "small-lm", err) : SB_OK;
    if (rc != SB_OK)
        return rc;
    bool pairs = lm->shape.n_levels > 0;
    for (int32_t i = 0; i < lm->shape.n_levels; i++)
        pairs = pairs && lm->shape.width[i] == 2;
    if (lm->rule == SB_RULE_PATHS && (p->tree || p->paths == 0))
        return sb_fail(err, SB_EUSAGE,
                       "drafter small-lm: draw=paths: expected paths=1 to %d, and no tree",
                       SB_DRAW_WIDTH);
    if (lm->rule != SB_RULE_PATHS && p->paths > 0)
        return sb_fail(err, SB_EUSAGE,
                       "drafter small-lm: paths=%" PRId64 ": goes with draw=paths only", p->paths);
    if (lm->rule == SB_RULE_HUB && !pairs)
        return sb_fail(
            err, SB_EUSAGE,
            "drafter small-lm: draw=hub draws pairs: expected a tree such as 2x2, not %s",
            p->tree ? p->tree : "a chain");
    return SB_OK;
}

static int32_t most_nodes(const void *self, int32_t depth)
{
    const struct small_lm *lm = self;
    return lm->shape.n_levels ? sb_shape_nodes(&lm->shape, depth) : lm->paths * depth;
}

static int32_t longest(const struct small_lm *lm, const struct sb_policy *policy)
{
    return lm->shape.n_levels ? lm->shape.n_levels : sb_policy_longest(policy, lm->k);
}

/* ---- what the table says of the parameters ---- */

static unsigned small_lm_kinds(const void *params, const struct sb_sampling *sampling)
{
    const struct small_lm_params *p = params;
    if (sampling->temperature <= 0)
        return SB_KIND_BIT(SB_DRAW_ONEHOT);
    return SB_KIND_BIT(p ? sb_draw_rule_kind(sb_draw_rule_of(p->draw)) : SB_DRAW_IID);
}

static bool small_lm_branches(const void *params)
{
    struct small_lm lm = { 0 };
    if (!params || read_params(&lm, params, NULL) != SB_OK)
        return false;
    return lm.paths > 1 || sb_shape_widest(&lm.shape) > 1;
}

static int32_t small_lm_max_nodes(const void *params, const struct sb_policy *policy)
{
    struct small_lm lm = { 0 };
    if (read_params(&lm, params, NULL) != SB_OK)
        return 0; /* open reports what is wrong */
    int32_t n = most_nodes(&lm, longest(&lm, policy));
    return n <= SB_SHAPE_NODES ? n : 0;
}

/* ---- drafting ---- */

static enum sb_status small_lm_open(void *st, const struct sb_drafter_env *env,
                                    struct sb_error *err)
{
    struct small_lm *lm = st;
    const struct small_lm_params *p = env->params;
    enum sb_status rc = read_params(lm, p, err);
    if (rc != SB_OK)
        return rc;
    int32_t depth = longest(lm, env->policy);
    if (most_nodes(lm, depth) > SB_SHAPE_NODES)
        return sb_fail(err, SB_EUSAGE,
                       "drafter small-lm: paths=%" PRId32 " of %" PRId32
                       " tokens: expected at most %d tokens in all",
                       lm->paths, depth, SB_SHAPE_NODES);
    const struct sb_lm_tree_options options = {
        .drafter = "small-lm",
        .model = p->model,
        .p_min = p->p_min,
        .depth = depth,
        .most_nodes = most_nodes,
        .self = lm,
        .paths_apart = lm->rule == SB_RULE_PATHS,
    };
    return sb_lm_tree_open(&lm->lt, env, &options, err);
}

static void draw_level(void *self, const struct sb_context *ctx, struct sb_tree *tree,
                       const int32_t *node, int32_t n)
{
    struct small_lm *lm = self;
    int32_t width = lm->shape.n_levels ? lm->shape.width[tree->node[node[0]].depth]
                    : lm->lt.greedy    ? 1
                                       : lm->paths;
    for (int32_t i = 0; i < n; i++)
        sb_lm_tree_children(&lm->lt, ctx, tree, node[i], lm->rule, width);
}

static enum sb_status small_lm_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                       struct sb_error *err)
{
    struct small_lm *lm = st;
    int32_t wanted = lm->shape.n_levels ? lm->shape.n_levels : lm->k;
    return sb_lm_tree_grow(&lm->lt, ctx, tree, sb_policy_plan(ctx->policy, wanted), draw_level, lm,
                           err);
}

const struct sb_drafter_ops sb_drafter_small_lm = {
    .name = "small-lm",
    .summary = "a small language model of the same vocabulary: a chain, a fixed tree, or paths",
    .paper = "Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318",
    .params = small_lm_params,
    .params_size = sizeof(struct small_lm_params),
    .state_size = sizeof(struct small_lm),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds_sampling = SB_KIND_BIT(SB_DRAW_IID),
    .kinds = small_lm_kinds,
    .draft_rows = SB_DRAFT_ROWS_ALL,
    .makes_trees = true,
    .branches = small_lm_branches,
    .open = small_lm_open,
    .begin = sb_lm_tree_begin,
    .propose = small_lm_propose,
    .observe = sb_lm_tree_observe,
    .close = sb_lm_tree_close,
    .max_nodes = small_lm_max_nodes,
};

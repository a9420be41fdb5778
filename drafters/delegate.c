/* A drafter that copies where its match is long, and another one where it is not (methods C 1.9, the choice
 * of SAM-Decoding). `a` drafts first; where the match behind its first node is shorter than min_match, or
 * it drafts nothing, its draft is dropped and `b` drafts.
 *
 * Whose draft it is depends on the text alone, so nodes keep the way they were drawn: the pair is lawful
 * with verifiers that take the kinds of both. Both see every step; a node's source is 1 for a, 2 for b. */
#include <stdlib.h>

#include "drafters/parts.h"

struct delegate_params {
    struct sb_parts_params parts;
    int64_t min_match;
};

static const struct sb_parts_params defaults = { "sam", "token-recycling" };

static const struct sb_param delegate_params[] = {
    { .name = "a",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct delegate_params, parts.a),
      .fallback = "sam",
      .meaning = SB_PARTS_MEANING ", one that says how long its match is" },
    { .name = "b",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct delegate_params, parts.b),
      .fallback = "token-recycling",
      .meaning = SB_PARTS_MEANING },
    { .name = "min_match",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct delegate_params, min_match),
      .fallback = "5",
      .min = 1,
      .max = 1000,
      .meaning = "shortest match of a to draft from" },
    { 0 },
};

struct delegate {
    struct sb_parts parts;
    int64_t min_match;
};

static enum sb_status delegate_open(void *st, const struct sb_drafter_env *env,
                                    struct sb_error *err)
{
    struct delegate *d = st;
    d->min_match = ((const struct delegate_params *)env->params)->min_match;
    enum sb_status rc = sb_parts_open(&d->parts, "delegate", env, err);
    if (rc == SB_OK && !d->parts.part[0].ops->source_is_match)
        return sb_fail(err, SB_EUSAGE,
                       "drafter delegate: a=%s does not say how long its match is; pld, sam, "
                       "suffix-decoding, rest, llma and mag do",
                       d->parts.part[0].ops->name);
    return rc;
}

static enum sb_status delegate_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    return sb_parts_begin(&((struct delegate *)st)->parts, ctx, err);
}

static enum sb_status delegate_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                       struct sb_error *err)
{
    struct delegate *d = st;
    int32_t source = SB_FROM_A;
    enum sb_status rc = sb_part_propose(&d->parts.part[0], ctx, tree, err);
    if (rc == SB_OK && (tree->n == 1 || abs(tree->node[1].source) < d->min_match)) {
        sb_tree_reset(tree, tree->node[0].token, tree->max_depth);
        source = SB_FROM_B;
        rc = sb_part_propose(&d->parts.part[1], ctx, tree, err);
    }
    for (int32_t i = 1; i < tree->n; i++)
        tree->node[i].source = source;
    return rc;
}

static enum sb_status delegate_observe(void *st, const struct sb_context *ctx,
                                       const struct sb_outcome *outcome, struct sb_error *err)
{
    struct delegate *d = st;
    enum sb_status rc = sb_part_observe(&d->parts.part[0], ctx, outcome, err);
    return rc == SB_OK ? sb_part_observe(&d->parts.part[1], ctx, outcome, err) : rc;
}

static void delegate_cancel(void *st)
{
    sb_parts_cancel(&((struct delegate *)st)->parts);
}

static void delegate_close(void *st)
{
    sb_parts_close(&((struct delegate *)st)->parts);
}

static unsigned delegate_kinds(const void *params, const struct sb_sampling *sampling)
{
    return sb_parts_kinds(params, &defaults, sampling);
}

static bool delegate_branches(const void *params)
{
    return sb_parts_branch(params, &defaults);
}

static enum sb_target_rows delegate_target_rows(const void *params)
{
    return sb_parts_target_rows(params, &defaults);
}

static bool delegate_keeps_run(const void *params)
{
    return sb_parts_keep_run(params);
}

static int32_t delegate_max_nodes(const void *params, const struct sb_policy *policy)
{
    int32_t most[2];
    sb_parts_nodes(params, policy, most);
    return most[0] > most[1] ? most[0] : most[1];
}

const struct sb_drafter_ops sb_drafter_delegate = {
    .name = "delegate",
    .summary = "a drafter that copies where its match is long, else another one",
    .paper = "Hu et al. 2024, arXiv 2411.10666 (its choice of drafters)",
    .params = delegate_params,
    .params_size = sizeof(struct delegate_params),
    .state_size = sizeof(struct delegate),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds = delegate_kinds,
    .target_rows_with = delegate_target_rows,
    .keeps_run = delegate_keeps_run,
    .makes_trees = true,
    .branches = delegate_branches,
    .open = delegate_open,
    .begin = delegate_begin,
    .propose = delegate_propose,
    .observe = delegate_observe,
    .cancel = delegate_cancel,
    .close = delegate_close,
    .max_nodes = delegate_max_nodes,
};

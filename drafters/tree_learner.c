#include "drafters/tree_learner.h"

#include <string.h>

/* What is assumed before anything was seen, as if seen so many times: each depth is right less often than the
 * one above, each rank less than half as often as the one before. */
enum { ASSUMED_TRIALS = 16 };
static const double assumed_first = .5, per_depth = .8, per_rank = .4;

static bool is_auto(const char *tree)
{
    return strcmp(tree, "auto") == 0;
}

static void assume(struct sb_tree_learner *l, int32_t depth, int32_t nodes)
{
    double first = assumed_first * ASSUMED_TRIALS;
    *l = (struct sb_tree_learner){ .depth = depth, .nodes = nodes };
    for (int32_t j = 0; j < depth; j++, first *= per_depth) {
        double right = first;
        l->tried[j] = ASSUMED_TRIALS;
        for (int32_t r = 0; r < SB_LEARN_RANKS; r++, right *= per_rank)
            l->right[j][r] = right;
    }
}

static enum sb_status best_tree(const struct sb_tree_learner *l, struct sb_static_tree *out,
                                struct sb_error *err)
{
    double accuracy[SB_STATIC_DEPTH * SB_LEARN_RANKS];
    for (int32_t j = 0; j < l->depth; j++)
        for (int32_t r = 0; r < SB_LEARN_RANKS; r++)
            accuracy[j * SB_LEARN_RANKS + r] = l->right[j][r] / l->tried[j];
    return sb_static_tree_best(out, accuracy, l->depth, SB_LEARN_RANKS, l->nodes, err);
}

enum sb_status sb_tree_learner_open(struct sb_tree_learner *learner, struct sb_static_tree *shape,
                                    const char *tree, int64_t nodes, int32_t depth,
                                    const char *drafter, struct sb_error *err)
{
    if (is_auto(tree)) {
        assume(learner, depth, (int32_t)nodes);
        return best_tree(learner, shape, err);
    }
    enum sb_status rc = sb_static_tree_open(shape, tree, drafter, err);
    if (rc == SB_OK)
        sb_static_tree_cut(shape, depth);
    return rc;
}

int32_t sb_tree_learner_nodes(const char *tree, int64_t nodes)
{
    return is_auto(tree) ? (int32_t)nodes : sb_static_tree_nodes(tree);
}

bool sb_tree_learner_branches(const char *tree, int64_t nodes)
{
    return is_auto(tree) ? nodes > 1 : sb_static_tree_branches(tree);
}

void sb_tree_learner_see(struct sb_tree_learner *l, int32_t depth, sb_token token,
                         const sb_token *list, int32_t n)
{
    l->tried[depth - 1]++;
    for (int32_t r = 0; r < n && r < SB_LEARN_RANKS; r++)
        if (list[r] == token)
            l->right[depth - 1][r]++;
}

sb_token sb_tree_learner_token(const struct sb_outcome *outcome, int32_t depth)
{
    if (depth + 1 < outcome->n_path)
        return outcome->tree->node[outcome->path[depth + 1]].token;
    return depth + 1 == outcome->n_path ? outcome->final_token : -1;
}

enum sb_status sb_tree_learner_update(const struct sb_tree_learner *learner,
                                      struct sb_static_tree *shape, struct sb_error *err)
{
    struct sb_static_tree next;
    if (learner->depth == 0)
        return SB_OK;
    enum sb_status rc = best_tree(learner, &next, err);
    if (rc != SB_OK)
        return rc;
    sb_static_tree_finish(shape);
    *shape = next;
    return SB_OK;
}

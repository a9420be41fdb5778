/* Static trees that fit what was right so far (methods B 2, B7; `tree=auto`): how often each rank at each depth
 * was the target's token, where all above it was right, and the tree of most expected accepted tokens by that.
 * It is learned over the whole run, and a tree is made anew for each prompt, so results depend on the order of
 * prompts. */
#ifndef SB_DRAFTERS_TREE_LEARNER_H
#define SB_DRAFTERS_TREE_LEARNER_H

#include "drafters/static_tree.h"
#include "harness/decode/drafter.h"

enum { SB_LEARN_RANKS = 10 };

struct sb_tree_learner { /* zeroed: off */
    int32_t depth, nodes;
    double right[SB_STATIC_DEPTH][SB_LEARN_RANKS], tried[SB_STATIC_DEPTH];
};

#define SB_TREE_MEANING SB_STATIC_TREE_MEANING ", or auto: learned from what is accepted"
#define SB_NODES_PARAM(params)                                                    \
    {                                                                             \
        .name = "nodes", .type = SB_PARAM_INT, .offset = offsetof(params, nodes), \
        .fallback = "63", .min = 1, .max = SB_STATIC_NODES,                       \
        .meaning = "with tree=auto: draft tokens of a tree"                       \
    }

/* A shape by the parameters `tree` and `nodes`, no deeper than `depth`; with tree=auto the learner is on, and
 * the shape is that of a guess. The caller owns *shape. */
enum sb_status sb_tree_learner_open(struct sb_tree_learner *learner, struct sb_static_tree *shape,
                                    const char *tree, int64_t nodes, int32_t depth,
                                    const char *drafter, struct sb_error *err);
/* What max_nodes and branches of a drafter answer. */
int32_t sb_tree_learner_nodes(const char *tree, int64_t nodes);
bool sb_tree_learner_branches(const char *tree, int64_t nodes);

/* Ranks that have to be known at a node of `width`. */
static inline size_t sb_tree_learner_width(const struct sb_tree_learner *learner, int32_t width)
{
    return learner->depth > 0 && width < SB_LEARN_RANKS ? SB_LEARN_RANKS : (size_t)width;
}

/* The token of this depth (1, 2, ...), where list[n] are the best guesses, best first. */
void sb_tree_learner_see(struct sb_tree_learner *learner, int32_t depth, sb_token token,
                         const sb_token *list, int32_t n);
/* The token behind the first `depth` accepted ones of a step; -1: none is known. */
sb_token sb_tree_learner_token(const struct sb_outcome *outcome, int32_t depth);
/* The best tree now, in place of *shape; nothing happens when it is off. */
enum sb_status sb_tree_learner_update(const struct sb_tree_learner *learner,
                                      struct sb_static_tree *shape, struct sb_error *err);

#endif

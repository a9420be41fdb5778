/* Dynamic trees (methods B 2, B5; 5.2: Li et al. 2024, arXiv 2406.16858): a pool of candidates grown level
 * by level below the most confident ones, of which the best become the draft. Confidence is the product of
 * the drafter's probabilities along the path, kept as a sum of logarithms.
 *
 * A drafter gives the root's best tokens, then asks for a frontier, computes a row for each of its nodes and
 * gives their best tokens, and so on; at last it asks for the draft. A candidate never ranks above its parent
 * and stands behind it in the pool, so the chosen ones are closed under ancestors. */
#ifndef SB_DRAFTERS_DYNAMIC_TREE_H
#define SB_DRAFTERS_DYNAMIC_TREE_H

#include "drafters/policy/cost.h"
#include "harness/decode/policy.h"
#include "harness/decode/tree.h"

enum { SB_DYNAMIC_TOP_K = 64, SB_DYNAMIC_DEPTH = 32, SB_DYNAMIC_TOTAL = 1000 };

struct sb_candidate {
    sb_token token;
    int32_t parent; /* in the pool; -1: the root */
    int32_t depth;
    int32_t row;    /* the drafter's own, of a frontier node; -1 */
    float log_prob; /* of the token in the row it came from */
    float score;    /* sum of log_prob along the path */
    float row_top;  /* the largest log_prob of the row it came from */
    bool chosen;    /* among the best so far */
};

struct sb_dynamic_tree {
    struct sb_candidate *pool; /* [cap] by level, rank of the parent in its frontier, rank */
    int32_t n, cap;
    int32_t level;     /* first candidate of the newest level */
    int32_t *frontier; /* [top_k] candidates to expand, best first */
    int32_t n_frontier;
    int32_t top_k;
    int32_t *best; /* [cap_best] the n_best candidates of highest score so far, in order */
    int32_t n_best, most_best, cap_best;
    double sum; /* of all path probabilities; for policies that look at nodes only */
    /* Or no points: the draft then has as many of the best as there may be. */
    struct sb_cost_curve curve;
};

/* Room for `levels` levels of top_k x top_k candidates and a draft of `most` nodes. */
enum sb_status sb_dynamic_tree_open(struct sb_dynamic_tree *dt, int32_t top_k, int32_t levels,
                                    int32_t most, struct sb_error *err);
void sb_dynamic_tree_close(struct sb_dynamic_tree *dt); /* accepts zeroed */

/* With dt->curve set, the draft is of the N best candidates that make (1 + the sum of their path
 * probabilities) / c(N + 1) largest: the tokens to expect, the one behind the draft included, for the time of
 * the target's forward. What is not among those is not expanded. Our own: the authors measure a forward's
 * time and choose one N for all drafts. */

/* A new draft, of the at most `most` best candidates. */
void sb_dynamic_tree_start(struct sb_dynamic_tree *dt, int32_t most);
/* The n <= top_k best tokens (likeliest first) of the row at a frontier node, -1: the root. Frontier nodes
 * come in their order. */
void sb_dynamic_tree_add(struct sb_dynamic_tree *dt, int32_t parent, const sb_token *token,
                         const float *log_prob, int32_t n);
/* dt->frontier: the at most top_k best of the newest level, ties to the earlier one. Returns how many.
 * Passed over are tokens that end a generation (the authors expand them), what the policy stops at, and
 * candidates that are not among the best so far: nothing below them could be, so the draft is the same. */
int32_t sb_dynamic_tree_frontier(struct sb_dynamic_tree *dt, const struct sb_tree *tree,
                                 const struct sb_policy *policy);
/* Add the best candidates of all to the tree (one-hot, source: depth), ties to the earlier one; parents
 * come first. */
void sb_dynamic_tree_choose(struct sb_dynamic_tree *dt, struct sb_tree *tree);

#endif

/* Traversal verification: trees from the leaves to the root (methods A 3.11). A node is visited with a joint
 * weight a, the chance that the path down to it is to be kept; the root's is 1. Its draws come in the
 * order they were made: draw t is visited with min(1, a p(t) / q(t)). If nothing at or below it is kept,
 * then with w = [a p - q]+ and S = sum of w, p becomes w / S and a becomes S / (S + 1 - a), and the next
 * draw is visited; without replacement, q loses the token. When no draw is left the node itself ends the
 * path with probability a, and the final token comes from what is left of p. A visit keeps something
 * with probability a exactly, whatever lies below, so how many draws a child has may depend on its
 * siblings. On a chain this is block verification. In our tests it never accepts less than `rrs`, whose
 * order it shares; `k-seq`, which weighs the draws of a node together, sometimes accepts more.
 *
 * The order of draws may differ from the authors'. A child that was chosen counts as drawn from a row
 * that is one-hot at it. Draws of weight 0 are not visited. */
#include <math.h>

#include "harness/decode/verifier.h"

extern const struct sb_verifier_ops sb_verifier_traversal;

struct traversal {
    const struct sb_tree *tree;
    const struct sb_rows *rows;
    const struct sb_dice *dice;
    double *left; /* [max_nodes, n_vocab] by depth: what is left of p at the nodes being visited */
    struct sb_verdict *verdict;
    bool kept;
};

static size_t traversal_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    size_t rows = (size_t)max_nodes; /* a path has no more */
    return rows <= SIZE_MAX / sizeof(double) / n_vocab ? rows * n_vocab * sizeof(double) : SIZE_MAX;
}

/* The path ends at `node`; the final token comes from law. */
static void keep(struct traversal *w, int32_t node, const double *law)
{
    sb_verdict_accept_path(w->verdict, w->tree, node);
    sb_dice_seek(w->dice, (uint64_t)w->tree->node[node].depth + 1);
    size_t token = w->dice->pick(w->dice->self, law, w->rows->n_vocab);
    sb_verdict_close(w->verdict, w->tree, (sb_token)token);
    w->kept = true;
}

static enum sb_status visit(struct traversal *w, int32_t node, double a, struct sb_error *err)
{
    const struct sb_dice *dice = w->dice;
    const size_t n = w->rows->n_vocab;
    const bool leaf = w->tree->node[node].kind == SB_DRAW_NONE;
    const double *p;
    if (leaf && node > 0 && !dice->flip(dice->self, a))
        return SB_OK; /* its row was not needed */
    enum sb_status rc = sb_rows_get(w->rows, node, &p, err);
    if (rc == SB_OK)
        rc = sb_draws_check(&sb_verifier_traversal, w->tree, node, n, err);
    if (rc != SB_OK)
        return rc;
    struct sb_rest rest = sb_rest_begin(p, n);
    double *left = w->left + (size_t)w->tree->node[node].depth * n;
    struct sb_draw draw = SB_DRAW_BEGIN;
    while (a > 0 && sb_draw_next(w->tree, node, &draw)) {
        double weight = fmin(1, a * sb_rest_ratio(&rest, &draw));
        if (weight > 0)
            rc = visit(w, draw.child, weight, err);
        if (rc != SB_OK || w->kept)
            return rc;
        double sum = sb_rest_reject(&rest, a, w->tree, node, &draw, left);
        /* Nothing left: the draws have used up all of a, or a = 1 and p = q up to rounding. */
        if (sum > SB_EMPTY_RESIDUAL)
            a = sum / (sum + (1 - a));
        else if (1 - a > SB_EMPTY_RESIDUAL)
            a = 0;
    }
    if (leaf || node == 0 || (a > 0 && dice->flip(dice->self, a)))
        keep(w, node, rest.p);
    return SB_OK;
}

static enum sb_status traversal_verify(const void *params, const struct sb_tree *tree,
                                       const struct sb_rows *rows, const struct sb_dice *dice,
                                       void *scratch, struct sb_verdict *verdict,
                                       struct sb_error *err)
{
    struct traversal w = {
        .tree = tree, .rows = rows, .dice = dice, .left = scratch, .verdict = verdict
    };
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    sb_verdict_begin(verdict, tree);
    sb_dice_seek(dice, 1); /* all flips of a step: see bottom_up */
    return visit(&w, 0, 1, err);
}

const struct sb_verifier_ops sb_verifier_traversal = {
    .name = "traversal",
    .summary = "keep the first path, leaves before their parents, that passes by its joint weight",
    .paper = "Traversal Verification 2025, arXiv 2505.12398",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) |
             SB_KIND_BIT(SB_DRAW_PATHS),
    .bottom_up = true,
    .needs_q = true,
    .strength = 40,
    .scratch_size = traversal_scratch,
    .verify = traversal_verify,
};

/* Greedy draft sampling (methods A 3.8): the children of a node are tokens S chosen deterministically,
 * the most likely of q, and one y drawn from q' = q restricted to the other tokens, normalised.
 *   Accept y with min(1, p(y) / q'(y)); else draw z from norm([p - q']+), where S keeps all of p:
 *   a z in S accepts that child, any other is the final token.
 * Accepts p(S) + sum of min(p, q') outside S, the most that children drawn so allow.
 *
 * The last draw of a node is the sampled one, and there always is one: the drafter sees to it that
 * there is room, and takes no token into S that would leave q' without mass. That S is the top of q
 * is the drafter's business; the rule is exact for any S that is a function of the context. */
#include <inttypes.h>
#include <string.h>

#include "harness/decode/verifier.h"
#include "kernels/prob.h"

extern const struct sb_verifier_ops sb_verifier_topk_plus_one;

static size_t topk_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double);
}

/* rest[n] = q' times *sum, from the node's row and all draws but the last. */
static enum sb_status sampled_row(const struct sb_tree *tree, int32_t node, double *rest, size_t n,
                                  double *sum, struct sb_error *err)
{
    const struct sb_node *parent = &tree->node[node];
    enum sb_status rc = sb_draws_check(&sb_verifier_topk_plus_one, tree, node, n, err);
    if (rc != SB_OK)
        return rc;
    memcpy(rest, parent->q, n * sizeof *rest);
    for (int32_t d = 0; d + 1 < parent->n_draws; d++)
        rest[tree->node[tree->draw[parent->first_draw + d]].token] = 0;
    *sum = sb_prob_sum(rest, n);
    return SB_OK;
}

/* One node: *child is the accepted one, or -1 and *token is final. */
static enum sb_status try_node(const struct sb_tree *tree, int32_t node, const double *p,
                               const struct sb_dice *dice, double *row, size_t n, int32_t *child,
                               sb_token *token, struct sb_error *err)
{
    const struct sb_node *parent = &tree->node[node];
    const double *law = p;
    if (parent->kind != SB_DRAW_NONE) {
        double mass;
        enum sb_status rc = sampled_row(tree, node, row, n, &mass, err);
        if (rc != SB_OK)
            return rc;
        int32_t last = tree->draw[parent->first_draw + parent->n_draws - 1];
        sb_token y = tree->node[last].token;
        double q_y = row[y] / mass;
        if (dice->flip(dice->self, p[y] < q_y ? p[y] / q_y : 1)) {
            *child = last;
            return SB_OK;
        }
        double sum = sb_residual(row, 1, p, row, mass, y, n);
        law = sum > SB_EMPTY_RESIDUAL ? row : p;
    }
    *token = (sb_token)dice->pick(dice->self, law, n);
    *child = sb_tree_child(tree, node, *token);
    return SB_OK;
}

static enum sb_status topk_verify(const void *params, const struct sb_tree *tree,
                                  const struct sb_rows *rows, const struct sb_dice *dice,
                                  void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0, child;; node = child) {
        const double *p;
        sb_token token = -1;
        enum sb_status rc = sb_rows_get(rows, node, &p, err);
        sb_dice_seek(dice, (uint64_t)tree->node[node].depth + 1);
        if (rc == SB_OK)
            rc = try_node(tree, node, p, dice, scratch, rows->n_vocab, &child, &token, err);
        if (rc != SB_OK)
            return rc;
        if (child < 0) {
            sb_verdict_close(verdict, tree, token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
    }
}

const struct sb_verifier_ops sb_verifier_topk_plus_one = {
    .name = "topk-plus-one",
    .summary = "the most likely children and one sampled, with the best acceptance for these",
    .paper = "Hu et al. 2025, arXiv 2502.18779",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_TOPK1),
    .needs_q = true,
    .strength = 50,
    .scratch_size = topk_scratch,
    .verify = topk_verify,
};

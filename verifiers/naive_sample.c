/* Sample the target once, then look the token up among the children (methods A 3.2). The walk never
 * asks how the tree was drawn, so every kind of tree is lawful; a node accepts with the target's
 * total probability of its children. The draw for a token is keyed by the token's position, which
 * makes the text the same for every drafter. */
#include "harness/decode/verifier.h"

static enum sb_status naive_verify(const void *params, const struct sb_tree *tree,
                                   const struct sb_rows *rows, const struct sb_dice *dice,
                                   void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0;;) {
        const double *p;
        enum sb_status rc = sb_rows_get(rows, node, &p, err);
        if (rc != SB_OK)
            return rc;
        sb_dice_seek(dice, (uint64_t)tree->node[node].depth + 1);
        sb_token token = (sb_token)dice->pick(dice->self, p, rows->n_vocab);
        int32_t child = sb_tree_child(tree, node, token);
        if (child < 0) {
            sb_verdict_close(verdict, tree, token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        node = child;
    }
}

const struct sb_verifier_ops sb_verifier_naive_sample = {
    .name = "naive-sample",
    .summary = "sample the target, accept the child that carries the sampled token",
    .paper = "Miao et al. 2023, arXiv 2305.09781 (the baseline rule there)",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KINDS_ALL,
    .strength = 10,
    .verify = naive_verify,
};

/* Sample the target once, then look the token up among the children (methods A 3.2). The walk never
 * asks how the tree was drawn, so every kind of tree is lawful; a node accepts with the target's
 * total probability of its children. The draw for a token is keyed by the token's position, which
 * makes the text the same for every drafter. */
#include "harness/decode/verifier.h"

/* The target's token below `node`, which stands at `depth`. */
static enum sb_status sample(const struct sb_rows *rows, int32_t node, int32_t depth,
                             const struct sb_dice *dice, sb_token *token, struct sb_error *err)
{
    const double *p;
    if (rows->greedy)
        return sb_rows_greedy(rows, node, token, err);
    enum sb_status rc = sb_rows_get(rows, node, &p, err);
    if (rc != SB_OK)
        return rc;
    sb_dice_seek(dice, (uint64_t)depth + 1);
    *token = (sb_token)dice->pick(dice->self, p, rows->n_vocab);
    return SB_OK;
}

static enum sb_status naive_verify(const void *params, const struct sb_tree *tree,
                                   const struct sb_rows *rows, const struct sb_dice *dice,
                                   void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0;;) {
        sb_token token;
        enum sb_status rc = sample(rows, node, tree->node[node].depth, dice, &token, err);
        if (rc != SB_OK)
            return rc;
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

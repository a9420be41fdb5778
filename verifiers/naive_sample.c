/* Sample the target once, then look the token up among the children (methods A 3.2). The walk never
 * asks how the tree was drawn, so every kind of tree is lawful; a node accepts with the target's
 * total probability of its children. The draw for a token is keyed by the token's position, which
 * makes the text the same for every drafter. */
#include "harness/decode/verifier.h"

static enum sb_status naive_verify(const void *params, const struct sb_tree *tree,
                                   const struct sb_rows *rows, const struct sb_dice *dice,
                                   void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    return sb_lookup_verify(tree, rows, dice, dice->pick, verdict, err);
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

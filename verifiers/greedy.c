/* Exact match against the target's arg max, along chains and trees (methods A 3.1). At most one child
 * of a node can match, so the order of siblings does not matter, nor does how they were drawn. */
#include "harness/decode/verifier.h"

static enum sb_status greedy_verify(const void *params, const struct sb_tree *tree,
                                    const struct sb_rows *rows, const struct sb_dice *dice,
                                    void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    return sb_greedy_verify(tree, rows, verdict, err);
}

const struct sb_verifier_ops sb_verifier_greedy = {
    .name = "greedy",
    .summary = "accept the draft tokens that are the target's arg max",
    .paper = "Leviathan et al. 2022, arXiv 2211.17192; trees: Miao et al. 2023, arXiv 2305.09781",
    .guarantee = SB_GREEDY_EXACT,
    .kinds = SB_KINDS_ALL,
    .strength = 10,
    .verify = greedy_verify,
};

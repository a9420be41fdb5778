/* Drafter-invariant sampling (methods A 3.14). Every position has noise of its own, E(t) ~ Exp(1) for each
 * token t, that drafter and verifier share. The target's token is the winner of an exponential race,
 * arg min E(t) / p(t), which has the law p; a drafter that proposes the winner of the same race under q
 * agrees with at least (1 - TV) / (1 + TV). The walk looks the target's token up among the children,
 * like `greedy` with another arg max. So the text for a seed is that of plain sampling, whatever was
 * drafted and however: the lists of 2506.05632 need no other rule.
 *
 * A drafter that ignores the noise is lawful too, and then accepts as much as under naive-sample. Dice
 * that share no noise (the certifier's) draw the token by its law instead, which is the same law. */
#include "harness/decode/verifier.h"

static enum sb_status gumbel_verify(const void *params, const struct sb_tree *tree,
                                    const struct sb_rows *rows, const struct sb_dice *dice,
                                    void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    return sb_lookup_verify(tree, rows, dice, dice->race ? dice->race : dice->pick, verdict, err);
}

const struct sb_verifier_ops sb_verifier_gumbel_coupled = {
    .name = "gumbel-coupled",
    .summary = "sample the target by noise that the drafter shares: one text per seed, any drafter",
    .paper = "Daliri et al. 2024, arXiv 2408.07978; lists of drafts: arXiv 2506.05632",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KINDS_ALL,
    .strength = 5,
    .verify = gumbel_verify,
};

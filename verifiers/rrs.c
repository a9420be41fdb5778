/* Recursive rejection sampling (methods A 3.4): the rule of MCSD and RSD for trees, of Sequoia, and of
 * EAGLE's sampler. At a node the draws are tested in the order they were made: accept token t with
 * min(1, p(t) / q(t)), else p becomes the normalised [p - q]+ and the next draw is tested against
 * that; without replacement, q loses the token as well. When all are rejected the token comes from what
 * is left of p. A child that was chosen counts as drawn from a row that is one-hot at it: it is
 * accepted with p(t), and p loses it.
 *
 * Equal draws share a node, and each is tested and subtracted. Sequoia goes on uniformly over unused
 * tokens when q has no mass left; here a draw has q > 0 (the tree's contract), so such a drafter stops
 * instead. */
#include "harness/decode/verifier.h"

extern const struct sb_verifier_ops sb_verifier_rrs;

static size_t rrs_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double);
}

static int32_t rrs_test(const struct sb_level *level, const double **law)
{
    struct sb_rest rest = sb_rest_begin(level->p, level->rows->n_vocab);
    int32_t child = sb_rest_try(&rest, level->tree, level->node, 0, level->dice, level->scratch);
    *law = rest.p;
    return child;
}

static enum sb_status rrs_verify(const void *params, const struct sb_tree *tree,
                                 const struct sb_rows *rows, const struct sb_dice *dice,
                                 void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    return sb_levels_verify(&sb_verifier_rrs, params, tree, rows, dice, scratch, rrs_test, verdict,
                            err);
}

const struct sb_verifier_ops sb_verifier_rrs = {
    .name = "rrs",
    .summary = "test a node's draws in turn with min(1, p / q), subtracting q from p after each",
    .paper = "Yang et al. 2024 (MCSD), arXiv 2401.06706; RSD, arXiv 2402.14160; Sequoia, arXiv "
             "2402.12374",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) |
             SB_KIND_BIT(SB_DRAW_PATHS),
    .needs_q = true,
    .strength = 25,
    .scratch_size = rrs_scratch,
    .verify = rrs_verify,
};

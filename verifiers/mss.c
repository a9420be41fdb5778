/* SpecInfer's multi-step speculative sampling (methods A 3.5): like rrs, but the draw to test next is
 * picked at random among the untested ones, and each is tested against, and subtracted with, the row
 * of the model that made it. Several draft models thus serve one tree; a token that more than one of
 * them proposed is one node with several draws. Where all draws come from one row the order does not
 * matter, and the law of what is accepted is that of rrs. */
#include <math.h>

#include "harness/decode/verifier.h"

extern const struct sb_verifier_ops sb_verifier_mss;

static size_t mss_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return (n_vocab + (size_t)max_nodes) * sizeof(double);
}

static int32_t mss_test(const struct sb_level *level, const double **law)
{
    const struct sb_dice *dice = level->dice;
    struct sb_rest rest = sb_rest_begin(level->p, level->rows->n_vocab);
    double *residual = level->scratch, *untested = residual + rest.n; /* 1 or 0 per draw */
    size_t n = (size_t)level->tree->node[level->node].n_draws;
    for (size_t i = 0; i < n; i++)
        untested[i] = 1;
    for (size_t left = n; left > 0; left--) {
        size_t i = dice->pick(dice->self, untested, n);
        struct sb_draw draw = { .index = (int32_t)i - 1 };
        sb_draw_next(level->tree, level->node, &draw);
        if (dice->flip(dice->self, fmin(1, sb_rest_ratio(&rest, &draw))))
            return draw.child;
        sb_rest_reject(&rest, 1, level->tree, level->node, &draw, residual);
        untested[i] = 0;
    }
    *law = rest.p;
    return -1;
}

static enum sb_status mss_verify(const void *params, const struct sb_tree *tree,
                                 const struct sb_rows *rows, const struct sb_dice *dice,
                                 void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    return sb_levels_verify(&sb_verifier_mss, params, tree, rows, dice, scratch, mss_test, verdict,
                            err);
}

const struct sb_verifier_ops sb_verifier_mss = {
    .name = "mss",
    .summary = "recursive rejection in random order, each draw against the row of its own model",
    .paper = "Miao et al. 2023 (SpecInfer), arXiv 2305.09781",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_PATHS) | SB_KIND_BIT(SB_DRAW_MIX),
    .needs_q = true,
    .strength = 22,
    .scratch_size = mss_scratch,
    .verify = mss_verify,
};

/* Block verification (methods A 3.10): the draft is kept down to the longest prefix that passes. Going
 * down, w_0 = 1 and w_i = min(1, w_(i-1) p(x_i) / q(x_i)). With S_i = sum of [w_i p - q]+ over the rows
 * behind x_i, prefix i passes with h_i = S_i / (S_i + 1 - w_i), the whole draft with its w. The final
 * token comes from [w p - q]+ behind the longest prefix that passes, from p behind the whole draft. No
 * rule for one path accepts more, and `rejection` never does. Tests go from the end up and stop at the
 * first that passes; all their chances are independent.
 *
 * hsd-experimental (A 3.13) is our reading of the single-chain variants in the public code of hierarchical
 * speculative decoding: the same walk with weights that are not capped, so that a prefix may lend
 * to what follows what it has above 1. Capped everywhere it is block verification, term for term; as
 * it stands it is off the target's law, and says so. That is a finding about the reading, not about the
 * paper. */
#include <math.h>

#include "harness/decode/verifier.h"

extern const struct sb_verifier_ops sb_verifier_block, sb_verifier_hsd_experimental;

static size_t block_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double) + (size_t)max_nodes * sizeof(struct sb_path_node);
}

static const double *drafted_row(void *self, int32_t i)
{
    const struct sb_path *path = self;
    const struct sb_tree *tree = path->tree;
    return tree->node[path->at[i].node].q;
}

/* Follow the chain down; weights are at most `cap`. */
static enum sb_status follow(struct sb_path *path, const struct sb_verifier_ops *verifier,
                             const struct sb_rows *rows, double cap, struct sb_error *err)
{
    double w = 1;
    for (int32_t node = 0;;) {
        path->at[path->n++] = (struct sb_path_node){ node, w };
        if (!(w > 0) || path->tree->node[node].kind == SB_DRAW_NONE)
            return SB_OK;
        const double *p;
        enum sb_status rc = sb_rows_get(rows, node, &p, err);
        if (rc == SB_OK)
            rc = sb_draws_check(verifier, path->tree, node, rows->n_vocab, err);
        if (rc != SB_OK)
            return rc;
        struct sb_draw draw = SB_DRAW_BEGIN;
        sb_draw_next(path->tree, node, &draw);
        w = fmin(cap, w * p[draw.token] / (draw.q ? draw.q[draw.token] : 1));
        node = draw.child;
    }
}

static enum sb_status judge(const struct sb_verifier_ops *verifier, double cap,
                            const struct sb_tree *tree, const struct sb_rows *rows,
                            const struct sb_dice *dice, void *scratch, struct sb_verdict *verdict,
                            struct sb_error *err)
{
    double *residual = scratch;
    struct sb_path path = { .tree = tree,
                            .at = (struct sb_path_node *)(residual + rows->n_vocab),
                            .draft_row = drafted_row,
                            .self = &path };
    enum sb_status rc = follow(&path, verifier, rows, cap, err);
    return rc == SB_OK ? sb_path_verify(&path, rows, dice, residual, verdict, err) : rc;
}

static enum sb_status block_verify(const void *params, const struct sb_tree *tree,
                                   const struct sb_rows *rows, const struct sb_dice *dice,
                                   void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    return judge(&sb_verifier_block, 1, tree, rows, dice, scratch, verdict, err);
}

static enum sb_status hsd_verify(const void *params, const struct sb_tree *tree,
                                 const struct sb_rows *rows, const struct sb_dice *dice,
                                 void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    /* The cap only keeps products finite. */
    return judge(&sb_verifier_hsd_experimental, 1e100, tree, rows, dice, scratch, verdict, err);
}

#define CHAIN_KINDS                                                                      \
    (SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) | \
     SB_KIND_BIT(SB_DRAW_PATHS))

const struct sb_verifier_ops sb_verifier_block = {
    .name = "block",
    .summary = "keep the longest prefix of a chain that passes by its joint weight",
    .paper = "Sun et al. 2024, arXiv 2403.10444",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = CHAIN_KINDS,
    .chains_only = true,
    .bottom_up = true,
    .needs_q = true,
    .strength = 30,
    .scratch_size = block_scratch,
    .verify = block_verify,
};

const struct sb_verifier_ops sb_verifier_hsd_experimental = {
    .name = "hsd-experimental",
    .summary = "block verification with uncapped weights: our reading of public code (lossy)",
    .paper = "Hierarchical Speculative Decoding 2026, arXiv 2601.05724",
    .guarantee = SB_LOSSY,
    .kinds = CHAIN_KINDS,
    .chains_only = true,
    .bottom_up = true,
    .needs_q = true,
    .strength = 1,
    .scratch_size = block_scratch,
    .verify = hsd_verify,
};

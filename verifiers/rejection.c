/* Speculative sampling of one chain (methods A 3.3): accept a draft token t with min(1, p(t) / q(t)),
 * else draw from the normalised [p - q]+. A one-hot child has q(t) = 1.
 *
 * Two lossy forms: lenience l puts l q in place of q, which keeps every token's probability below
 * p / l; alpha and beta (the baseline of the cascades paper, arXiv 2405.19261) accept with
 * min(1, p / ((1 - alpha) q)) and draw from [p / beta - q]+. At temperature 0, where ratios of one-hot
 * rows say nothing, lenience accepts a token whose probability before S is at least l times the
 * largest; alpha and beta change nothing there. */
#include <inttypes.h>

#include "harness/decode/verifier.h"

struct rejection {
    double lenience, alpha, beta;
};

static const struct sb_param rejection_params[] = {
    { .name = "lenience",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct rejection, lenience),
      .fallback = "1",
      .min = 0.01,
      .max = 1,
      .meaning = "below 1: accept more, with no token above p / lenience (lossy)" },
    { .name = "alpha",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct rejection, alpha),
      .fallback = "0",
      .min = 0,
      .max = 0.99,
      .meaning = "above 0: accept with p / ((1 - alpha) q) (lossy)" },
    { .name = "beta",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct rejection, beta),
      .fallback = "1",
      .min = 0.01,
      .max = 100,
      .meaning = "other than 1: draw from [p / beta - q]+ after a rejection (lossy)" },
    { 0 },
};

static enum sb_guarantee rejection_guarantee(const void *params)
{
    const struct rejection *r = params;
    bool exact = r->lenience == 1 && r->alpha == 0 && r->beta == 1;
    return exact ? SB_DISTRIBUTION_EXACT : SB_LOSSY;
}

static enum sb_status rejection_check(const void *params, struct sb_error *err)
{
    const struct rejection *r = params;
    if (r->lenience < 1 && (r->alpha != 0 || r->beta != 1))
        return sb_fail(err, SB_EUSAGE,
                       "verifier rejection: lenience=%g goes with alpha=0 and beta=1 only",
                       r->lenience);
    if (r->beta < 1 - r->alpha)
        return sb_fail(err, SB_EUSAGE,
                       "verifier rejection: beta=%g: expected at least 1 - alpha = %g", r->beta,
                       1 - r->alpha);
    return SB_OK;
}

static size_t rejection_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double);
}

/* The one verified child of `node`, or -1; q(t) of its token in *q_t. */
static enum sb_status next_draft(const struct sb_tree *tree, int32_t node, int32_t *child,
                                 double *q_t, size_t n_vocab, struct sb_error *err)
{
    const struct sb_node *parent = &tree->node[node];
    *child = -1;
    for (int32_t i = node + 1; i < tree->n; i++) {
        if (tree->node[i].parent != node || tree->node[i].auxiliary)
            continue;
        if (*child >= 0 || parent->n_draws > 1)
            return sb_fail(err, SB_EINTERNAL,
                           "verifier rejection: node %" PRId32 " has more than one draw", node);
        *child = i;
    }
    if (*child < 0)
        return SB_OK;
    if (parent->kind == SB_DRAW_ONEHOT) {
        *q_t = 1;
        return SB_OK;
    }
    if (!parent->q || !sb_row_is_law(parent->q, n_vocab))
        return sb_fail(err, SB_EINTERNAL,
                       "verifier rejection: the drafter's row at node %" PRId32
                       " is no probability row",
                       node);
    *q_t = parent->q[tree->node[*child].token];
    if (!(*q_t > 0))
        return sb_fail(err, SB_EINTERNAL,
                       "verifier rejection: the drafter drew token %" PRId32 " with q = 0",
                       tree->node[*child].token);
    return SB_OK;
}

/* Does token t pass at temperature 0, where `best` is the arg max? Rows are one-hot there: what is not
 * the best has probability 0, and the best passes whatever q, alpha and beta. */
static bool passes_greedy(const struct rejection *r, const struct sb_rows *rows, int32_t node,
                          sb_token t, sb_token best)
{
    const float *logits = rows->logits && r->lenience < 1 ? rows->logits(rows->self, node) : NULL;
    if (!logits)
        return t == best;
    return (double)logits[t] - (double)logits[best] >= sb_log(r->lenience);
}

/* The walk at temperature 0 makes no rows: a rejection leaves the arg max. */
static enum sb_status verify_greedy(const struct rejection *r, const struct sb_tree *tree,
                                    const struct sb_rows *rows, struct sb_verdict *verdict,
                                    struct sb_error *err)
{
    for (int32_t node = 0, child;; node = child) {
        sb_token best;
        double q_t;
        enum sb_status rc = sb_rows_greedy(rows, node, &best, err);
        if (rc == SB_OK)
            rc = next_draft(tree, node, &child, &q_t, rows->n_vocab, err);
        if (rc != SB_OK)
            return rc;
        if (child < 0 || !passes_greedy(r, rows, node, tree->node[child].token, best)) {
            sb_verdict_close(verdict, tree, best);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
    }
}

/* Accept the token t, drawn with probability q_t, at random. */
static bool accepts(const struct rejection *r, const struct sb_dice *dice, const double *p,
                    sb_token t, double q_t)
{
    double ratio = p[t] / (r->lenience * (1 - r->alpha) * q_t);
    return dice->flip(dice->self, ratio < 1 ? ratio : 1);
}

static enum sb_status rejection_verify(const void *params, const struct sb_tree *tree,
                                       const struct sb_rows *rows, const struct sb_dice *dice,
                                       void *scratch, struct sb_verdict *verdict,
                                       struct sb_error *err)
{
    const struct rejection *r = params;
    double *residual = scratch;
    sb_verdict_begin(verdict, tree);
    if (rows->greedy)
        return verify_greedy(r, tree, rows, verdict, err);
    for (int32_t node = 0, child;; node = child) {
        const double *p;
        double q_t = 1;
        enum sb_status rc = sb_rows_get(rows, node, &p, err);
        if (rc == SB_OK)
            rc = next_draft(tree, node, &child, &q_t, rows->n_vocab, err);
        if (rc != SB_OK)
            return rc;
        sb_dice_seek(dice, (uint64_t)tree->node[node].depth + 1);
        const double *law = p;
        if (child >= 0) {
            sb_token t = tree->node[child].token;
            if (accepts(r, dice, p, t, q_t)) {
                sb_verdict_accept(verdict, tree, child);
                continue;
            }
            /* [p / beta - lenience q]+; if it is empty, p = q up to rounding, and p is the law. */
            if (sb_row_residual(residual, 1 / r->beta, p, r->lenience, tree->node[node].q, t,
                                rows->n_vocab) > 1e-12)
                law = residual;
        }
        size_t token = dice->pick(dice->self, law, rows->n_vocab);
        sb_verdict_close(verdict, tree, (sb_token)token);
        return SB_OK;
    }
}

const struct sb_verifier_ops sb_verifier_rejection = {
    .name = "rejection",
    .summary = "accept a chain's tokens with min(1, p / q), correct from the residual",
    .paper = "Leviathan et al. 2022, arXiv 2211.17192; Chen et al. 2023, arXiv 2302.01318",
    .params = rejection_params,
    .params_size = sizeof(struct rejection),
    .guarantee = SB_DISTRIBUTION_EXACT,
    .guarantee_with = rejection_guarantee,
    .check = rejection_check,
    .kinds = SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) |
             SB_KIND_BIT(SB_DRAW_PATHS),
    .chains_only = true,
    .needs_q = true,
    .strength = 20,
    .scratch_size = rejection_scratch,
    .verify = rejection_verify,
};

/* Speculative sampling of one chain (methods A 3.3): accept a draft token t with min(1, p(t) / q(t)),
 * else draw from the normalised [p - q]+. A one-hot child has q(t) = 1.
 *
 * Two lossy forms: lenience l puts l q in place of q, which keeps every token's probability below
 * p / l; alpha and beta (the baseline of the cascades paper, arXiv 2405.19261) accept with
 * min(1, p / ((1 - alpha) q)) and draw from [p / beta - q]+. At temperature 0, where ratios of one-hot
 * rows say nothing, lenience accepts a token whose probability before S is at least l times the
 * largest; alpha and beta change nothing there. */
#include "harness/decode/verifier.h"

extern const struct sb_verifier_ops sb_verifier_rejection;

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

/* Probability of accepting token t at `node`; p is the target's row there. */
static double acceptance(const struct rejection *r, const struct sb_rows *rows, int32_t node,
                         const double *p, sb_token t, double q_t)
{
    const float *logits =
        rows->greedy && rows->logits && r->lenience < 1 ? rows->logits(rows->self, node) : NULL;
    if (logits) { /* rows that reach this are free of NaN */
        double gap = (double)logits[t] - (double)logits[rows->argmax(rows->self, node)];
        return gap >= sb_log(r->lenience) ? 1 : 0;
    }
    double ratio = p[t] / (r->lenience * (1 - r->alpha) * q_t);
    return ratio < 1 ? ratio : 1;
}

static int32_t rejection_test(const struct sb_level *level, const double **law)
{
    const struct rejection *r = level->params;
    const struct sb_dice *dice = level->dice;
    const double *p = level->p;
    struct sb_draw draw = SB_DRAW_BEGIN;
    if (!sb_draw_next(level->tree, level->node, &draw))
        return -1;
    double q_t = draw.q ? draw.q[draw.token] : 1;
    if (dice->flip(dice->self, acceptance(r, level->rows, level->node, p, draw.token, q_t)))
        return draw.child;
    /* [p / beta - lenience q]+ */
    double sum = sb_residual(level->scratch, 1 / r->beta, p, draw.q, 1 / r->lenience, draw.token,
                             level->rows->n_vocab);
    if (sum > SB_EMPTY_RESIDUAL)
        *law = level->scratch;
    return -1;
}

static enum sb_status rejection_verify(const void *params, const struct sb_tree *tree,
                                       const struct sb_rows *rows, const struct sb_dice *dice,
                                       void *scratch, struct sb_verdict *verdict,
                                       struct sb_error *err)
{
    if (rows->greedy && ((const struct rejection *)params)->lenience == 1)
        return sb_greedy_verify(tree, rows, verdict, err);
    return sb_levels_verify(&sb_verifier_rejection, params, tree, rows, dice, scratch,
                            rejection_test, verdict, err);
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

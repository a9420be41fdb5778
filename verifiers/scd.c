/* Speculative contrastive decoding (methods A 3.18): sample pi = softmax(s), where
 * s = (1 + beta) log p - beta log q on the plausible tokens, those with p >= a max p, and nothing
 * elsewhere; the drafter is the amateur. Exact for pi, lossy for the target. The card's form is not
 * checked against the paper.
 *
 * bonus=contrast wants the drafter's row behind a fully accepted draft, which costs it a forward;
 * bonus=expert draws that token from p. So does the first token of a text, which has no draft.
 *
 * Departures. Rows are those after S: with softmax(logits / T) for p and q, softmax(s) is the
 * contrast of the logits at temperature T, as in the source; but "plausible" is judged at T, too.
 * Where the drafter's top-k or top-p left q(t) = 0 for a plausible token, the smallest q it kept
 * stands in, since its row before S is not at hand. At temperature 0 pi is made from both rows at
 * temperature 1, and its arg max taken. */
#include <math.h>
#include <string.h>

#include "kernels/prob.h"
#include "verifiers/recursive.h"

struct scd {
    double beta, a;
    const char *bonus;
};

static const struct sb_param scd_params[] = {
    { .name = "beta",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct scd, beta),
      .fallback = "0.5",
      .min = 0,
      .max = 10,
      .meaning = "strength of the contrast; 0: none" },
    { .name = "a",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct scd, a),
      .fallback = "0.1",
      .min = 0,
      .max = 1,
      .meaning = "tokens below this share of the largest p are never taken" },
    { .name = "bonus",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct scd, bonus),
      .fallback = "contrast",
      .choices = "contrast|expert",
      .meaning = "what the token after a fully accepted draft is drawn from" },
    { 0 },
};

static enum sb_draft_rows scd_rows(const void *params)
{
    const struct scd *s = params;
    return strcmp(s->bonus, "expert") == 0 ? SB_DRAFT_ROWS_PARENTS : SB_DRAFT_ROWS_ALL;
}

static double least_positive(const double *q, size_t n)
{
    double least = 1;
    for (size_t t = 0; t < n; t++)
        least = q[t] > 0 && q[t] < least ? q[t] : least;
    return least;
}

static void scd_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct scd *s = params;
    double top = -INFINITY, sum = 0, least_q = 0;
    if (!q) {
        memcpy(pi, p, n * sizeof *pi);
        return;
    }
    double bar = fmax(s->a * p[sb_prob_argmax(p, n)], 5e-324);
    memset(pi, 0, n * sizeof *pi);
    for (size_t t = sb_prob_next(p, 0, n, bar); t < n; t = sb_prob_next(p, t + 1, n, bar)) {
        if (!(q[t] > 0) && least_q == 0)
            least_q = least_positive(q, n);
        pi[t] = (1 + s->beta) * sb_log(p[t]) - s->beta * sb_log(q[t] > 0 ? q[t] : least_q);
        top = pi[t] > top ? pi[t] : top;
    }
    for (size_t t = sb_prob_next(p, 0, n, bar); t < n; t = sb_prob_next(p, t + 1, n, bar)) {
        pi[t] = sb_exp(pi[t] - top);
        sum += pi[t];
    }
    sb_prob_scale(pi, pi, n, 1 / sum);
}

extern const struct sb_verifier_ops sb_verifier_scd;

static enum sb_status scd_verify(const void *params, const struct sb_tree *tree,
                                 const struct sb_rows *rows, const struct sb_dice *dice,
                                 void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    return sb_law_verify(&sb_verifier_scd, params, tree, rows, dice, scratch, verdict, err);
}

const struct sb_verifier_ops sb_verifier_scd = {
    .name = "scd",
    .summary = "sample the contrast of target and drafter among the plausible tokens",
    .paper = "Yuan et al. 2023, arXiv 2311.08981",
    .params = scd_params,
    .params_size = sizeof(struct scd),
    .guarantee = SB_LOSSY,
    .kinds = SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) |
             SB_KIND_BIT(SB_DRAW_PATHS),
    .needs_q = true,
    .draft_rows = SB_DRAFT_ROWS_ALL,
    .draft_rows_with = scd_rows,
    .law = scd_law,
    .scratch_size = sb_law_scratch,
    .verify = scd_verify,
};

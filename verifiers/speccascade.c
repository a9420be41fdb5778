/* Speculative cascades (methods A 3.17): sample a mixture pi of drafter q and target p that defers to
 * the target only where a rule says that the drafter is not good enough; alpha is the price of
 * deferring. Exact for pi, lossy for the target.
 *
 * Rules for a whole row, pi = p if it defers, else q:
 *   chow  max q < 1 - alpha
 *   diff  max q < max p - alpha
 *   opt   max q < max p - alpha TV(p, q)
 * Rules for a token: D(t) = 1 defers it, pi(t) = (1 - D(t)) q(t) + p(t) sum of D q:
 *   token1  q(t) < max p - alpha
 *   token2  p(t) < max p - alpha
 *   token3  p(t) < (1 - alpha) max p
 * The form of each rule is not checked against the paper. At alpha = 1 none defers: pi = q. At
 * alpha = 0 chow always does, unless q is one-hot: pi = p; the others still compare both models.
 *
 * Where the drafter has no row pi = p: so the first token of a text, and what follows a leaf whose
 * row the drafter did not compute. Rows are those after S, as for every verifier; at temperature 0 pi
 * is made from both rows at temperature 1, and its arg max taken. */
#include <string.h>

#include "kernels/prob.h"
#include "verifiers/recursive.h"

struct cascade {
    double alpha;
};

static const struct sb_param cascade_params[] = {
    { .name = "alpha",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct cascade, alpha),
      .fallback = "0.5",
      .min = 0,
      .max = 1,
      .meaning = "price of deferring to the target; 1: the drafter alone" },
    { 0 },
};

static double max_of(const double *x, size_t n)
{
    return x[sb_prob_argmax(x, n)];
}

static double variation(const double *p, const double *q, size_t n)
{
    return (sb_prob_residual(NULL, 1, p, 1, q, n) + sb_prob_residual(NULL, 1, q, 1, p, n)) / 2;
}

static bool chow_defers(double alpha, const double *p, const double *q, size_t n)
{
    return max_of(q, n) < 1 - alpha;
}

static bool diff_defers(double alpha, const double *p, const double *q, size_t n)
{
    return max_of(q, n) < max_of(p, n) - alpha;
}

/* At alpha = 1 both sides agree wherever q is below p at the largest p alone: rounding must not decide. */
static bool opt_defers(double alpha, const double *p, const double *q, size_t n)
{
    return max_of(p, n) - max_of(q, n) > alpha * variation(p, q, n) + 1e-12;
}

static void choose_row(double *pi, const double *p, const double *q, size_t n, bool defers)
{
    memcpy(pi, defers || !q ? p : q, n * sizeof *pi);
}

/* Defers the tokens whose `figure` is below `bar`. */
static void mix_tokens(double *pi, const double *p, const double *q, size_t n, const double *figure,
                       double bar)
{
    double deferred = sb_prob_below(pi, q, figure, bar, n);
    sb_prob_blend(pi, 1, q, -1, pi, n);
    sb_prob_blend(pi, 1, pi, deferred, p, n);
}

static void chow_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct cascade *c = params;
    choose_row(pi, p, q, n, q && chow_defers(c->alpha, p, q, n));
}

static void diff_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct cascade *c = params;
    choose_row(pi, p, q, n, q && diff_defers(c->alpha, p, q, n));
}

static void opt_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct cascade *c = params;
    choose_row(pi, p, q, n, q && opt_defers(c->alpha, p, q, n));
}

static void token1_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct cascade *c = params;
    if (q)
        mix_tokens(pi, p, q, n, q, max_of(p, n) - c->alpha);
    else
        choose_row(pi, p, q, n, true);
}

static void token2_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct cascade *c = params;
    if (q)
        mix_tokens(pi, p, q, n, p, max_of(p, n) - c->alpha);
    else
        choose_row(pi, p, q, n, true);
}

static void token3_law(const void *params, double *pi, const double *p, const double *q, size_t n)
{
    const struct cascade *c = params;
    if (q)
        mix_tokens(pi, p, q, n, p, (1 - c->alpha) * max_of(p, n));
    else
        choose_row(pi, p, q, n, true);
}

/* One verifier per rule: they differ in their law and in what they are called. */
#define CASCADE(rule, what)                                                                      \
    extern const struct sb_verifier_ops sb_verifier_speccascade_##rule;                          \
    static enum sb_status rule##_verify(const void *params, const struct sb_tree *tree,          \
                                        const struct sb_rows *rows, const struct sb_dice *dice,  \
                                        void *scratch, struct sb_verdict *verdict,               \
                                        struct sb_error *err)                                    \
    {                                                                                            \
        return sb_law_verify(&sb_verifier_speccascade_##rule, params, tree, rows, dice, scratch, \
                             verdict, err);                                                      \
    }                                                                                            \
    const struct sb_verifier_ops sb_verifier_speccascade_##rule = {                              \
        .name = "speccascade-" #rule,                                                            \
        .summary = "sample a cascade: the target " what,                                         \
        .paper = "Narasimhan et al. 2024, arXiv 2405.19261",                                     \
        .params = cascade_params,                                                                \
        .params_size = sizeof(struct cascade),                                                   \
        .guarantee = SB_LOSSY,                                                                   \
        .kinds = SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_IID) |                        \
                 SB_KIND_BIT(SB_DRAW_WOR) | SB_KIND_BIT(SB_DRAW_PATHS),                          \
        .needs_q = true,                                                                         \
        .draft_rows = SB_DRAFT_ROWS_ALL,                                                         \
        .law = rule##_law,                                                                       \
        .scratch_size = sb_law_scratch,                                                          \
        .verify = rule##_verify,                                                                 \
    };

CASCADE(chow, "where max q < 1 - alpha, else the drafter")
CASCADE(diff, "where max q < max p - alpha, else the drafter")
CASCADE(opt, "where max q < max p - alpha TV(p, q), else the drafter")
CASCADE(token1, "for the share of tokens with q < max p - alpha")
CASCADE(token2, "for the share of tokens with p < max p - alpha")
CASCADE(token3, "for the share of tokens with p < (1 - alpha) max p")

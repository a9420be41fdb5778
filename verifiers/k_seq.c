/* SpecTr's sequential selection among k independent draws of one row q (methods A 3.6). All draws of a
 * node are tested in turn with min(1, p(t) / (rho q(t))); when none passes the token comes from
 * p - min(q, p / rho) * (1 - (1 - beta)^k) / beta, normalised, where beta(rho) = sum of min(q, p / rho)
 * is one draw's chance. That law has no negative entry when (1 - (1 - beta)^k) / beta, which is the sum
 * of (1 - beta)^j over j < k, is at most rho; the smallest such rho in [1, k] accepts the most. With
 * k = 1, rho is 1 and the rule is `rejection`.
 *
 * The paper's layout is k whole paths; a node here has the draws of the paths that arrive (kind
 * paths), and their number is its k. That number must not depend on the tokens drawn there. */
#include <math.h>

#include "harness/decode/verifier.h"
#include "kernels/prob.h"

extern const struct sb_verifier_ops sb_verifier_k_seq;

static size_t k_seq_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double);
}

/* (1 - (1 - beta)^k) / beta, without the division, which loses all digits for a small beta. */
static double tries(double beta, int32_t k)
{
    double sum = 0, power = 1;
    for (int32_t j = 0; j < k; j++, power *= 1 - beta)
        sum += power;
    return sum;
}

/* What is lawful is excess(rho) <= 0. beta, a draw's chance, is the sum of min(q, p / rho). */
static double excess(const double *p, const double *q, double rho, int32_t k, size_t n)
{
    return tries(sb_prob_overlap(1 / rho, p, 1, q, n), k) - rho;
}

/* The smallest lawful rho, from above: k itself is always lawful. False position, with the older end's
 * weight halved (Illinois), so that both ends move. */
static double smallest_rho(const double *p, const double *q, int32_t k, size_t n)
{
    double low = 1, high = k;
    if (k == 1)
        return 1;
    double at_low = excess(p, q, low, k, n), at_high = excess(p, q, high, k, n);
    if (at_low <= 0)
        return low;
    for (int side = 0; high - low > 1e-14 * high && at_high < 0;) {
        double rho = high - at_high * (high - low) / (at_high - at_low);
        if (!(rho > low && rho < high))
            break;
        double at = excess(p, q, rho, k, n);
        if (at <= 0) {
            high = rho;
            at_high = at;
            at_low = side < 0 ? at_low / 2 : at_low;
            side = -1;
        } else {
            low = rho;
            at_low = at;
            at_high = side > 0 ? at_high / 2 : at_high;
            side = 1;
        }
    }
    return high;
}

/* The law after k rejections in out[n], unnormalised: p - f min(q, p / rho) = f [p / rho - q]+ +
 * (1 - f / rho) p, where f = tries; at the smallest rho f is rho, and the second part is rounding.
 * Returns its sum; out holds it over f. */
static double law_of_rest(double *out, const double *p, const double *q, double rho, int32_t k,
                          size_t n)
{
    double f = k == 1 ? 1 : tries(sb_prob_overlap(1 / rho, p, 1, q, n), k), share = 1 - f / rho;
    double sum = f * sb_prob_residual(out, 1 / rho, p, 1, q, n) + share;
    if (share != 0)
        sb_prob_blend(out, 1, out, share / f, p, n);
    return sum;
}

static int32_t k_seq_test(const struct sb_level *level, const double **law)
{
    const struct sb_dice *dice = level->dice;
    const struct sb_node *node = &level->tree->node[level->node];
    const double *p = level->p, *q = node->q;
    size_t n = level->rows->n_vocab;
    if (node->n_draws == 0)
        return -1;
    double rho = smallest_rho(p, q, node->n_draws, n);
    for (struct sb_draw draw = SB_DRAW_BEGIN; sb_draw_next(level->tree, level->node, &draw);)
        if (dice->flip(dice->self, fmin(1, p[draw.token] / (rho * q[draw.token]))))
            return draw.child;
    if (law_of_rest(level->scratch, p, q, rho, node->n_draws, n) > SB_EMPTY_RESIDUAL)
        *law = level->scratch;
    return -1;
}

static enum sb_status k_seq_verify(const void *params, const struct sb_tree *tree,
                                   const struct sb_rows *rows, const struct sb_dice *dice,
                                   void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    return sb_levels_verify(&sb_verifier_k_seq, params, tree, rows, dice, scratch, k_seq_test,
                            verdict, err);
}

const struct sb_verifier_ops sb_verifier_k_seq = {
    .name = "k-seq",
    .summary =
        "test k independent draws in turn with min(1, p / (rho q)), rho as small as is lawful",
    .paper = "Sun et al. 2023 (SpecTr), arXiv 2310.15141",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_PATHS),
    .needs_q = true,
    .strength = 24,
    .scratch_size = k_seq_scratch,
    .verify = k_seq_verify,
};

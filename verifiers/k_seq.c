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

extern const struct sb_verifier_ops sb_verifier_k_seq;

static size_t k_seq_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double);
}

/* One draw's chance of being accepted, beta. */
static double chance(const double *p, const double *q, double rho, size_t n)
{
    double sum = 0, inverse = 1 / rho;
    for (size_t t = 0; t < n; t++)
        sum += fmin(q[t], p[t] * inverse);
    return sum;
}

/* (1 - (1 - beta)^k) / beta, without the division, which loses all digits for a small beta. */
static double tries(double beta, int32_t k)
{
    double sum = 0, power = 1;
    for (int32_t j = 0; j < k; j++, power *= 1 - beta)
        sum += power;
    return sum;
}

/* The smallest lawful rho, from above: k itself is always lawful. */
static double smallest_rho(const double *p, const double *q, int32_t k, size_t n)
{
    double low = 1, high = k;
    if (tries(chance(p, q, low, n), k) <= low)
        return low;
    while (high - low > 1e-14 * high) {
        double middle = low + (high - low) / 2;
        if (middle <= low || middle >= high)
            break;
        if (tries(chance(p, q, middle, n), k) <= middle)
            high = middle;
        else
            low = middle;
    }
    return high;
}

/* The law after k rejections in out[n], unnormalised; its sum, (1 - beta)^k up to rounding. */
static double law_of_rest(double *out, const double *p, const double *q, double rho, int32_t k,
                          size_t n)
{
    double factor = tries(chance(p, q, rho, n), k), inverse = 1 / rho, sum = 0;
    for (size_t t = 0; t < n; t++) {
        double rest = p[t] - fmin(q[t], p[t] * inverse) * factor;
        out[t] = rest > 0 ? rest : 0;
        sum += out[t];
    }
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

/* Kernels on probability rows: one double per token of a vocabulary, and the float logits that such
 * a row comes from. They serve the sampling transform, verifiers and drafters.
 *
 * The rule of kernels.h holds: the bits of a result depend on the inputs alone. Sums over a row have
 * one order, chunks of 16 lanes: the row is cut every SB_CHUNK elements counted from the first; lane
 * j of a chunk adds its elements j, j + 16, j + 32, ... from +0; lanes join pairwise (l[j] += l[j + 8]
 * for j < 8, then + 4, + 2, + 1); chunks are added in ascending order. For rows of nonnegative
 * elements the relative error is below (n / 256 + 20) * 2^-53: 2e-14 at n = 32,000.
 *
 * Nothing here allocates, uses threads or needs alignment. Rows of 0 elements are allowed where no
 * element has to be returned. */
#ifndef SB_PROB_H
#define SB_PROB_H

#include "harness/core/rng.h"
#include "kernels/kernels.h"

/* ---- logits ---------------------------------------------------------------------------------- */

/* The largest of x[n]: NaN if x holds one, -inf for n = 0. group: NULL, or [sb_logits_groups(n)]: the
 * largest of each group, where the elements j, j + 16, ... of a chunk of 256 are a group; -inf where
 * the last chunk has no element. */
float sb_logits_max(const float *x, size_t n, float *group);
size_t sb_logits_groups(size_t n);
/* sb_argmax, but n when x holds a NaN. */
size_t sb_logits_argmax(const float *x, size_t n);
/* How many of x[n] are at least `least`. */
size_t sb_logits_count(const float *x, size_t n, float least);
/* Those, in their order, into out[n], which may be x; what lies behind them in out is lost. Returns
 * their number. */
size_t sb_logits_take(float *out, const float *x, size_t n, float least);

/* ---- from logits to weights ------------------------------------------------------------------ */

/* The weight of a logit x at a temperature: exp((x - max) / temperature) where x >= least, else 0. */
struct sb_temper {
    float max, least;
    double rate; /* 16 / (ln 2 temperature) */
};
/* For logits of at most `max`, which is finite; temperature > 0. `least` is where weights fall below
 * exp(-700): they become 0, and those of -inf with them. A caller may raise it. */
struct sb_temper sb_temper_make(float max, double temperature);

/* prob[n] = weights of x[n]; returns their sum. prob NULL: only the sum. One weight has a relative
 * error below (53 + 3 |z|) 2^-53, z = (x - max) / temperature: 2^(k / 16) from a table times a
 * polynomial of degree 5. The weight of max is exactly 1. */
double sb_prob_exp(double *prob, const float *x, size_t n, const struct sb_temper *temper);
/* The sum of the weights w of x[n]; *dot = sum of w * (x - max) * rate ln 2 / 16. The entropy of the
 * normalised weights is log(sum) - *dot / sum. */
double sb_prob_moment(const float *x, size_t n, const struct sb_temper *temper, double *dot);

/* ---- rows ------------------------------------------------------------------------------------- */

double sb_prob_sum(const double *x, size_t n);
/* The sum, or NaN when an element is negative or NaN: whether a row is a law, in one pass. */
double sb_prob_check(const double *x, size_t n);
/* The sum of w[i] over x[i] >= least, and how many these are. */
double sb_prob_mass(const double *w, const float *x, size_t n, float least, size_t *count);
/* Keeps the pairs w[i], x[i] with x[i] >= least, in their order, at the front of w[n] and x[n]; what
 * lies behind them is lost. Returns their number. */
size_t sb_prob_take(double *w, float *x, size_t n, float least);
/* out[n] = factor * x[n]; out may be x. */
void sb_prob_scale(double *out, const double *x, size_t n, double factor);
/* prob[m] belongs to those of x[n] that are above `least`, and to the first `ties` (n or more: all) of
 * those equal to it, in their order; there are exactly m. Moves each to its index in prob[n]; 0 elsewhere. */
void sb_prob_spread(double *prob, size_t m, const float *x, size_t n, float least, size_t ties);
/* out[n] = a p + b q, each product and the sum rounded; out may be p or q. */
void sb_prob_blend(double *out, double a, const double *p, double b, const double *q, size_t n);
/* out[n] = x where by < bar, 0 elsewhere; returns the sum. out may be x or by. */
double sb_prob_below(double *out, const double *x, const double *by, double bar, size_t n);
/* out[n] = [a p - b q]+, each product rounded; returns the sum. out may be p, q, or NULL. */
double sb_prob_residual(double *out, double a, const double *p, double b, const double *q,
                        size_t n);
/* The same for q one-hot at t. p is scaled up to t, at t, behind t, and so are the sums. */
double sb_prob_residual_onehot(double *out, double a, const double *p, double b, size_t t,
                               size_t n);
/* The sum of min(a p, b q): what rejection accepts of q. */
double sb_prob_overlap(double a, const double *p, double b, const double *q, size_t n);
/* - sum of p log p over p >= 2^-1022, in nats. A logarithm is off by at most 2^-52 (1 + |log p|); that
 * of 1 is 0. */
double sb_prob_entropy(const double *p, size_t n);
/* Index of the largest of x[n], the smallest index on ties; NaN never wins; 0 if nothing does. */
size_t sb_prob_argmax(const double *x, size_t n);
/* The first index from `from` on with x[i] >= least; n: none. */
size_t sb_prob_next(const double *x, size_t from, size_t n, double least);

/* The index drawn by u in [0, 1) from weight[n], never one of weight 0 (0 if all are). With target =
 * u * sum: the first chunk of 256 whose sum, added to those before it, exceeds the target; in it, the
 * first index of positive weight whose own partial sum, from the chunks before on, does; where
 * rounding leaves none, the last chunk, or index, of positive weight. */
size_t sb_prob_pick(double u, const double *weight, size_t n);

/* ---- an exponential race ----------------------------------------------------------------------- */

/* Arg min over t of E(t) / weight[t] where weight[t] > 0, the smaller t on ties; 0 if none is
 * positive. E(t) = sb_race_time(noise, t) ~ Exp(1) depends on the token and the noise alone, not on n
 * or on weights, so races of the same noise share it (methods A 3.14).
 *
 * E(t) = -log(1 - (m + 1/2) / 2^64). The upper 16 bits of m come from the Philox block of the counter
 * (t / 64 * 8 + t % 8, stream, position): its word t / 8 % 4, the lower half of it where t / 32 is
 * even. The other 48 are words 1 and 0 of the block (2^31 + t, stream, position) without the last 16
 * bits. Exact: only what cannot win is left out, by E(t) > upper bits / 2^16; there the others are
 * never made. */
size_t sb_race(const struct sb_rng *noise, const double *weight, size_t n);
double sb_race_time(const struct sb_rng *noise, size_t token); /* at most 4 ulp off; token < 2^31 */

#endif

/* Statistics of paired speed measurements (methods C 7), and of counts against a known law (C 6.3). */
#ifndef SB_RESULTS_STATS_H
#define SB_RESULTS_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_interval {
    double estimate, low, high; /* 95 % */
};

/* One prompt (cluster): baseline and method times in ns, medians over repeats, and its stratum. */
struct sb_pair {
    double base, method;
    int task; /* from 0 */
};

#define SB_FEW_PROMPTS 10 /* below this an interval leans on normality; reports flag it */

/* Ratio of totals sum(base) / sum(method) with the paired interval over prompts of bootstrap.h, on the
 * log scale. n == 1: low = high = NaN. resamples 0: 10,000. Times must be above 0 and finite
 * (SB_EUSAGE). Equal seeds draw equal prompts, so intervals of several methods on the same prompts are
 * comparable. */
enum sb_status sb_ratio_of_totals(struct sb_interval *out, const struct sb_pair *pairs, size_t n,
                                  int resamples, uint64_t seed, struct sb_error *err);
/* Geometric mean of base / method, same resampling. */
enum sb_status sb_geometric_mean(struct sb_interval *out, const struct sb_pair *pairs, size_t n,
                                 int resamples, uint64_t seed, struct sb_error *err);
/* Both from one pass. */
enum sb_status sb_speedup(struct sb_interval *totals, struct sb_interval *geometric,
                          const struct sb_pair *pairs, size_t n, int resamples, uint64_t seed,
                          struct sb_error *err);
double sb_median(double *values, size_t n); /* sorts values; n >= 1 */

/* ---- laws and counts (stats_law.c) ---- */

/* P(X >= x) for a chi-square law of df > 0 degrees of freedom, not necessarily whole. It is the
 * regularised incomplete gamma function Q(df / 2, x / 2), relative error below 1e-11 down to 1e-300.
 * x <= 0: 1; x infinite: 0. */
double sb_chi_square_tail(double x, double df);
/* The x with P(X >= x) = tail, 0 < tail < 1. */
double sb_chi_square_point(double tail, double df);
/* P(X >= x) when the law is noncentral: the power of a test that rejects from x on. */
double sb_chi_square_power(double x, double df, double noncentrality);
/* The total variation that n draws show with this power in a test of this level over df + 1 cells of
 * equal probability: noncentrality 4 n e^2 (C 6.3). At most 1. */
double sb_detectable_variation(double n, double df, double level, double power);

/* Counts against laws, added up over independent tables: G = 2 sum O ln(O / E), divided by Williams'
 * correction (1976), which takes out the first-order error of the chi-square approximation. */
struct sb_fit {
    double g, df;
    int64_t n;
    double variation; /* mean over the draws of their table's 1/2 sum |O / n - p|; biased upwards */
    double
        variation_bias; /* of the above when the law is true: about 1/2 sum sqrt(2 p (1 - p) / pi n) */
    bool impossible;    /* something of probability 0 happened */
};
/* One table of k >= 1 cells; p sums to 1. A table of one cell adds no degree of freedom. */
void sb_fit_add(struct sb_fit *fit, const int64_t *count, const double *p, size_t k);
double sb_fit_p(const struct sb_fit *fit); /* of G; 1 without degrees of freedom */
/* Upper confidence bound of the total variation between the true law and the stated one, over these
 * cells: variation + sqrt(ln(1 / (1 - confidence)) / 2 n). The mean of `variation` is at least the true
 * figure (Jensen), and one draw moves it by at most 1 / n (McDiarmid 1989), so this holds for every n
 * and every law. */
double sb_fit_variation_upper(const struct sb_fit *fit, double confidence);

/* Holm's adjusted p-values (1979): reject where the result is below the level, and the chance of any
 * false rejection among the n tests stays below it. NaN: no test, stays NaN and is not counted. */
void sb_holm(double *adjusted, const double *p, size_t n);

#endif

/* Statistics of paired speed measurements (methods C 7). */
#ifndef SB_RESULTS_STATS_H
#define SB_RESULTS_STATS_H

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

/* Ratio of totals sum(base) / sum(method) with a paired interval over prompts (C 7.3), all on the log
 * scale: percentile bootstrap from 50 prompts on; BCa below (Efron 1987, acceleration by jackknife);
 * below 10 prompts a t interval on the jackknife's standard error, since resampling a handful is too
 * narrow. Resampling is stratified by task when every task has 10 prompts or more; smaller strata
 * would hide their own spread, so then all prompts are one stratum (wider, never narrower on average).
 * n == 1: low = high = NaN. resamples 0: 10,000. Times must be above 0 and finite (SB_EUSAGE). Equal
 * seeds draw equal prompts, so intervals of several methods on the same prompts are comparable. */
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

#endif

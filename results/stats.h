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
    int task;
};

/* Ratio of totals sum(base) / sum(method) with a paired bootstrap interval over prompts, stratified
 * by task; percentile on the log ratio, BCa below 50 prompts (C 7.3). n == 1: low = high = NaN. */
enum sb_status sb_ratio_of_totals(struct sb_interval *out, const struct sb_pair *pairs, size_t n,
                                  int resamples, uint64_t seed, struct sb_error *err);
/* Geometric mean of base / method, same resampling. */
enum sb_status sb_geometric_mean(struct sb_interval *out, const struct sb_pair *pairs, size_t n,
                                 int resamples, uint64_t seed, struct sb_error *err);
double sb_median(double *values, size_t n); /* sorts values; n >= 1 */

#endif

/* What a step costs, in plain steps: the time of a forward over M rows divided by that over one, as
 * `specbench bench` measures it, and the speedup that follows (Leviathan et al. 2022, arXiv 2211.17192). */
#ifndef SB_DRAFTERS_POLICY_COST_H
#define SB_DRAFTERS_POLICY_COST_H

#include <stdint.h>

#include "harness/core/error.h"

enum { SB_COST_POINTS = 32 };

/* c(M) through points, straight between them and beyond the last. No points: 1 everywhere. */
struct sb_cost_curve {
    int32_t n, rows[SB_COST_POINTS];
    double cost[SB_COST_POINTS];
};

/* "4:1.4;8:2.2": M from 1 on, rising, and c(M) > 0; c(1) = 1 need not be said. NULL: no points.
 * SB_EUSAGE names the owner ("policy tree-cost"). */
enum sb_status sb_cost_curve_parse(struct sb_cost_curve *out, const char *text, const char *owner,
                                   struct sb_error *err);
double sb_cost_of_rows(const struct sb_cost_curve *curve, int32_t rows);

/* Speedup of chains of `gamma` tokens, each accepted with probability alpha by itself, where a drafter's
 * forward costs c of the target's: (1 + alpha + ... + alpha^gamma) / (gamma c + c(gamma + 1)). */
double sb_chain_speedup(const struct sb_cost_curve *curve, double c, double alpha, int32_t gamma);

#endif

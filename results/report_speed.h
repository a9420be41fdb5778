/* Paired speed figures of every arm of an experiment, per task and overall; used by report.c. */
#ifndef SB_RESULTS_REPORT_SPEED_H
#define SB_RESULTS_REPORT_SPEED_H

#include <stdbool.h>

#include "results/internal.h"
#include "results/stats.h"

struct sb_speeds; /* one experiment's generations, reduced to medians over repeats */

struct sb_speed {
    struct sb_interval totals, geometric;
    double
        specbench; /* mean of questions' tokens per second, prefill included, over the baseline's */
    size_t n;      /* prompts (questions) both arms finished; 0: nothing to compare */
    bool per_token; /* token counts differ somewhere, so times are per token */
};

enum sb_status sb_speeds_load(struct sb_speeds **out, struct sb_store *store, int64_t experiment_id,
                              struct sb_error *err);
void sb_speeds_destroy(struct sb_speeds *speeds);
/* task NULL: all tasks. */
enum sb_status sb_speeds_get(struct sb_speed *out, const struct sb_speeds *speeds, int64_t arm_id,
                             const char *task, int resamples, uint64_t seed, struct sb_error *err);

#endif

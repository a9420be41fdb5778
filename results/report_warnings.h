/* What the times of an experiment are worth: is it complete, did the machine change while it ran, was
 * anything else running, which prompts stand out, how small a difference can be seen. */
#ifndef SB_RESULTS_REPORT_WARNINGS_H
#define SB_RESULTS_REPORT_WARNINGS_H

#include <stdbool.h>
#include <stdio.h>

#include "results/store.h"

struct sb_warning {
    const char *check;   /* "partial", "noise", "drift", "load", "outliers" */
    char arm[120];       /* "" when it is about the run */
    double value, limit; /* NaN: not known, no limit */
    bool warn;           /* else all is well, and the message says what was found */
    char message[300];
};

/* experiment_id 0: the newest. The caller owns *out (sb_free). */
enum sb_status sb_warnings_find(struct sb_warning **out, size_t *n, struct sb_store *store,
                                int64_t experiment_id, int resamples, uint64_t seed,
                                struct sb_error *err);

/* Those that warn as lines "specbench COMMAND: warning: message", but those on partial data, which
 * sb_report_notes words. */
enum sb_status sb_warnings_print(FILE *out, const char *command, struct sb_store *store,
                                 int64_t experiment_id, struct sb_error *err);

#endif

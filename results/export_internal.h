/* Shared by the export_*.c files: the chosen arms, and what each format is given. */
#ifndef SB_RESULTS_EXPORT_INTERNAL_H
#define SB_RESULTS_EXPORT_INTERNAL_H

#include <stdbool.h>

#include "results/export.h"
#include "results/internal.h"

struct sb_export_arm {
    int64_t id;
    char *label;
};

struct sb_export {
    struct sb_store *store;
    const struct sb_export_options *options;
    struct sb_export_result *result;
    int64_t experiment_id, baseline_id, repeats; /* baseline_id 0: none */
    struct sb_export_arm *arm;                   /* in order of their numbers */
    size_t n_arms, arm_cap;
};

enum sb_status sb_export_spec_bench(struct sb_export *x, struct sb_error *err);
enum sb_status sb_export_acceptance(struct sb_export *x, FILE *out, struct sb_error *err);

/* The text as valid UTF-8: what is none becomes U+FFFD. New memory; NULL when it runs out. */
char *sb_clean_text(const char *text);

#endif

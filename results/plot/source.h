/* What plots and pages are made of: the views of one experiment, each computed once, and its arms. */
#ifndef SB_RESULTS_PLOT_SOURCE_H
#define SB_RESULTS_PLOT_SOURCE_H

#include "results/report.h"

struct sb_arm_name {
    char *label;
    bool is_baseline; /* the first that is marked so */
};
struct sb_source; /* borrows the store */
/* options->view is not used. SB_EINPUT when the database holds no experiment. */
enum sb_status sb_source_create(struct sb_source **out, struct sb_store *store,
                                const struct sb_report_options *options, struct sb_error *err);
void sb_source_destroy(struct sb_source *source);

int64_t sb_source_experiment(const struct sb_source *source);
/* In the order of the experiment. */
size_t sb_source_arms(const struct sb_source *source, const struct sb_arm_name **arms);
/* The place of the arm with this label, -1 when there is none. */
int sb_source_arm(const struct sb_source *source, const char *label);

/* The view's rows, borrowed; *out is NULL when there is no such view, or nothing in it. */
enum sb_status sb_source_view(const struct sb_table **out, struct sb_source *source,
                              const char *view, struct sb_error *err);
/* The rows of any query whose ?1 is the experiment's id; the caller destroys *out. */
enum sb_status sb_source_query(struct sb_table **out, struct sb_source *source, const char *sql,
                               struct sb_error *err);

#endif

/* The views that need more than SQL; report.c lists them beside those that do not. Each adds its columns
 * and rows to a new table. */
#ifndef SB_RESULTS_REPORT_VIEWS_H
#define SB_RESULTS_REPORT_VIEWS_H

#include "results/internal.h"
#include "results/report.h"

typedef enum sb_status (*sb_view_fill)(struct sb_table *t, struct sb_store *store,
                                       int64_t experiment_id, const struct sb_report_options *o,
                                       struct sb_error *err);

/* Every speed figure of every arm, per task and over all. */
enum sb_status sb_view_speed(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                             const struct sb_report_options *o, struct sb_error *err);
/* Two arms beside each other: over all, per task, and the questions where they differ most. */
enum sb_status sb_view_compare(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                               const struct sb_report_options *o, struct sb_error *err);
enum sb_status sb_view_warnings(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                                const struct sb_report_options *o, struct sb_error *err);
enum sb_status sb_view_cost(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                            const struct sb_report_options *o, struct sb_error *err);

/* Columns from a list that ends at a NULL name. */
struct sb_view_column {
    const char *name;
    int decimals;
    bool optional;
};
void sb_view_columns(struct sb_table *t, const struct sb_view_column *columns);

#endif

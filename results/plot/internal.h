/* Shared by the plots: what each of them is, and rows of an arm. */
#ifndef SB_RESULTS_PLOT_INTERNAL_H
#define SB_RESULTS_PLOT_INTERNAL_H

#include "results/plot/plot.h"

/* A plot is drawn in two strokes: `measure` looks at the rows and sets the height they need (0 stays when
 * there is nothing to draw), `draw` writes the script. */
struct sb_plot_ops {
    enum sb_status (*measure)(struct sb_figure *figure, struct sb_source *source,
                              const struct sb_table *rows, struct sb_error *err);
    enum sb_status (*draw)(const struct sb_figure *figure, struct sb_source *source,
                           const struct sb_table *rows, struct sb_error *err);
};
extern const struct sb_plot_ops sb_plot_speedup, sb_plot_positions, sb_plot_breakdown, sb_plot_cost,
    sb_plot_histogram, sb_plot_ranks;

/* Columns of a view by name; SB_EINTERNAL when one is missing. `names` ends at NULL. */
enum sb_status sb_plot_columns(int *column, const struct sb_table *rows, const char *const *names,
                               struct sb_error *err);

/* A name cut to fit, written right-aligned at the left margin. */
enum sb_status sb_plot_row_name(const struct sb_figure *figure, double margin, double y,
                                const char *name, struct sb_error *err);

/* A round step that cuts `span` into at most `most` parts. */
double sb_plot_step(double span, int most);

/* The left margin for these arms' names: what the longest needs, at most a share of the width. */
double sb_plot_margin(const struct sb_figure *figure, const struct sb_table *rows, int arm_column);

#endif

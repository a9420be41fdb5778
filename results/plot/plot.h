/* Views as pictures, drawn by gnuplot: the list of plots and their three formats.
 *
 * The same rows give the same bytes, as far as gnuplot and its fonts are the same: nothing of the day, of
 * the user's settings or of file names goes in. */
#ifndef SB_RESULTS_PLOT_PLOT_H
#define SB_RESULTS_PLOT_PLOT_H

#include "results/plot/figure.h"
#include "results/plot/source.h"

struct sb_plot_info {
    const char *view; /* its name is that of the view it shows */
    const char *title, *summary;
};
extern const struct sb_plot_info sb_plots[]; /* ends at a NULL view */

struct sb_plot_options {
    const char *view; /* NULL: leaderboard */
    enum sb_plot_format format;
    int width, height; /* pixels of the result (a PDF has 96 to an inch); 0: what the rows need */
    bool narrow;       /* laid out for 360 pixels */
};

/* What a file's name asks for: .svg, .png or .pdf. */
enum sb_status sb_plot_format_of(enum sb_plot_format *out, const char *path, struct sb_error *err);
/* "900x600"; each side from 240 to 10,000. */
enum sb_status sb_plot_size(int *width, int *height, const char *text, struct sb_error *err);

/* The picture in *out (sb_free), *n bytes. SB_EUNSUPPORTED when the view has nothing to draw. */
enum sb_status sb_plot_draw(char **out, size_t *n, struct sb_source *source,
                            const struct sb_plot_options *options, struct sb_error *err);

#endif

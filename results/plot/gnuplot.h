/* One run of gnuplot, as a process of our own: no shell, no user's settings, no file names of others.
 *
 * The script goes in through an unnamed file, the picture comes back through another; whatever text a
 * script holds is quoted by sb_gnuplot_text. */
#ifndef SB_RESULTS_PLOT_GNUPLOT_H
#define SB_RESULTS_PLOT_GNUPLOT_H

#include <stdio.h>

#include "harness/core/error.h"

/* An empty script to be written to; the caller closes it (fclose). */
enum sb_status sb_gnuplot_begin(FILE **script, struct sb_error *err);

/* Text as a literal that gnuplot prints as it is. Control characters become blanks. */
void sb_gnuplot_text(FILE *script, const char *text);

/* Run it. On success *out holds what gnuplot wrote to its standard output, *n bytes and a NUL behind
 * them; the caller frees it (sb_free). SB_EINPUT when gnuplot is not installed. */
enum sb_status sb_gnuplot_run(char **out, size_t *n, FILE *script, struct sb_error *err);

#endif

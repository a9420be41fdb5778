/* Shared by the files that make a page. */
#ifndef SB_RESULTS_HTML_INTERNAL_H
#define SB_RESULTS_HTML_INTERNAL_H

#include <stdio.h>

#include "results/html/html.h"
#include "results/plot/plot.h"

/* Made from style.css and sort.js by embed.sh. */
extern const char sb_html_style[], sb_html_script[];

/* Text of any origin, between tags or in an attribute in double quotes. */
void sb_html_text(FILE *out, const char *text);

/* A view as a table that the script makes sortable. */
struct sb_html_table {
    const char *id, *caption;
    const struct sb_table *rows;
};
enum sb_status sb_html_table(FILE *out, const struct sb_html_table *table,
                             const struct sb_source *source, struct sb_error *err);

/* What the columns of a table mean, as a list: each term once in a page. `said` has a bit per term. */
void sb_html_terms(FILE *out, const struct sb_table *rows, unsigned long long *said);

/* A plot of ours, made fit for a page: sized by its container, ids of its own, colours by the style
 * sheet's variables, a title that is read out. *out is the caller's (sb_free). */
struct sb_svg_names {
    const char *id, *css_class, *title, *description;
};
enum sb_status sb_svg_inline(char **out, const char *svg, size_t n,
                             const struct sb_svg_names *names, struct sb_error *err);

#endif

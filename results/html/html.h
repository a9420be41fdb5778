/* A report as one page: HTML that is XML too, with its style, its script and its plots inside, so that it
 * can be mailed, kept and printed. Nothing is loaded from anywhere. */
#ifndef SB_RESULTS_HTML_HTML_H
#define SB_RESULTS_HTML_HTML_H

#include "results/report.h"

/* Write the page of an experiment to `path`, which is replaced when all is well and else left alone.
 * options->view is not used. */
enum sb_status sb_html_report(const char *path, struct sb_store *store,
                              const struct sb_report_options *options, struct sb_error *err);

#endif

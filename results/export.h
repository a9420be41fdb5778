/* Experiments in the forms of other tools. Docs: docs/cli.md, "Export". */
#ifndef SB_RESULTS_EXPORT_H
#define SB_RESULTS_EXPORT_H

#include <stdint.h>
#include <stdio.h>

#include "harness/core/error.h"
#include "results/store.h"

enum sb_export_format {
    SB_EXPORT_SPEC_BENCH, /* answer files of Spec-Bench, one per arm (and repeat) */
    SB_EXPORT_ACCEPTANCE, /* acceptance counters per arm, as serving engines name them; JSON */
    SB_EXPORT_STEPS_CSV,  /* every step */
    SB_EXPORT_STEPS_JSONL,
};
struct sb_export_info {
    const char *name, *summary;
    enum sb_export_format format;
};
extern const struct sb_export_info sb_export_formats[]; /* ends at a NULL name */
enum sb_status sb_export_format_parse(enum sb_export_format *out, const char *name,
                                      struct sb_error *err);

struct sb_export_options {
    enum sb_export_format format;
    const char *path; /* a file, or a folder (spec-bench, several files); NULL: standard output */
    int64_t experiment_id;  /* 0: the newest */
    const char *const *arm; /* labels; none: all */
    size_t n_arms;
    int64_t repeat; /* from 1; 0: all */
};

/* What was written; left_out: questions that a selected arm or the baseline did not finish. */
struct sb_export_result {
    size_t files, rows, left_out;
};
enum sb_status sb_export(struct sb_export_result *out, struct sb_store *store,
                         const struct sb_export_options *options, struct sb_error *err);

#endif

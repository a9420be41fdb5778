/* Reports: rows of a named view, printed in four formats from one list of columns. */
#ifndef SB_RESULTS_REPORT_H
#define SB_RESULTS_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "harness/core/error.h"
#include "results/store.h"

enum sb_format { SB_FORMAT_TABLE, SB_FORMAT_MD, SB_FORMAT_CSV, SB_FORMAT_JSON };
enum sb_status sb_format_parse(enum sb_format *out, const char *name, struct sb_error *err);

/* A table in memory, for everything that prints rows (list, report, bench, ...). Cells are text or
 * numbers; table and md round for people, csv and json keep full precision. */
enum sb_cell_type { SB_CELL_NULL, SB_CELL_TEXT, SB_CELL_INT, SB_CELL_REAL };
struct sb_table;
struct sb_table *sb_table_create(void); /* NULL out of memory; later failures surface in print */
void sb_table_destroy(struct sb_table *table);
void sb_table_column(struct sb_table *table, const char *name,
                     int decimals); /* for people; below 0: -decimals significant digits; -1: %g */
/* Leave the column just added out of table and md when all its cells are empty or 0 (flags, errors). */
void sb_table_optional(struct sb_table *table);
void sb_table_text(struct sb_table *table, const char *text); /* next cell; NULL: empty */
void sb_table_int(struct sb_table *table, int64_t value);
void sb_table_real(struct sb_table *table, double value); /* NaN: empty */
size_t sb_table_rows(const struct sb_table *table);
/* Reading it again. A failed allocation on the way in is said here, and by sb_table_print. */
enum sb_status sb_table_check(const struct sb_table *table, struct sb_error *err);
size_t sb_table_columns(const struct sb_table *table);
const char *sb_table_name(const struct sb_table *table, size_t column);
int sb_table_find(const struct sb_table *table, const char *name); /* -1: no such column */
bool sb_table_shown(const struct sb_table *table, size_t column);  /* to people; see _optional */
enum sb_cell_type sb_table_type(const struct sb_table *table, size_t row, size_t column);
const char *sb_table_cell(const struct sb_table *table, size_t row,
                          size_t column); /* "" if no text */
double sb_table_value(const struct sb_table *table, size_t row,
                      size_t column); /* NaN if no number */
/* As people see it: rounded, safe to print; "-" for none. The caller frees it; NULL out of memory. */
char *sb_table_people(const struct sb_table *table, size_t row, size_t column);
/* Text of unknown origin as one line of valid UTF-8 without control characters; the caller frees it. */
char *sb_printable(const char *text);
enum sb_status sb_table_print(const struct sb_table *table, FILE *out, enum sb_format format,
                              struct sb_error *err);

/* The views. "leaderboard": a row per arm over all prompts (task 'all'): MAT, draft efficiency, hit rate,
 * tokens/s, speedup with interval, geometric mean, equality with the baseline. "tasks": the same columns
 * per task, then over all prompts. "acceptance": leaderboard_base. "speed": every figure of speed, per task and
 * overall. "compare": two arms. "cost": predicted against measured speed. "warnings": checks of the times.
 * "positions", "ranks", "sources", "histogram", "breakdown", "latency", "runs", "coverage", "diagnosis": the SQL
 * views of these names. "drafting": hit rate, acceptance and the time of drafting, per task too. "certificate", "checks": the newest certificate, by verifier and by check. The leaderboard's `lossless`
 * is what the newest certificate in the same file, of the same build, says of an arm's verifier.
 *
 * Speedups pair an arm with the baseline (the first arm with is_baseline) on the same prompts: medians
 * over repeats, the turns of a question summed, only questions of which all turns ended well in both
 * arms. Where their token counts differ (sampling, lossy verifiers) the arm's time is scaled to the
 * baseline's count, and per_token is 1. few is 1 below 10 prompts: mind the interval's width. noise_floor
 * is how far from 1 the ratio of plain decoding to itself may lie (an A/A arm, else the baseline's own
 * repeats); note says "within noise" of a speedup nearer to 1 than that. */
struct sb_view_info {
    const char *name, *summary;
};
extern const struct sb_view_info sb_views[]; /* ends at a NULL name */
struct sb_report_options {
    const char *view;      /* NULL: leaderboard */
    int64_t experiment_id; /* 0: the newest */
    int resamples;         /* 0: 10,000 */
    uint64_t seed;
    const char *arms; /* compare: "A,B", labels; NULL: the two fastest */
    const char
        *on; /* cost: a file of `specbench bench --format json` from another machine, or NULL */
};
enum sb_status sb_report_table(struct sb_table **out, struct sb_store *store,
                               const struct sb_report_options *options, struct sb_error *err);

/* What a reader must know beside the figures, a line each: that an experiment is partial, that its arms have
 * unequal prompts; "" when there is nothing. experiment_id 0: the newest, below 0: all. */
enum { SB_NOTES_BYTES = 4096 };
enum sb_status sb_report_notes(char out[SB_NOTES_BYTES], struct sb_store *store,
                               int64_t experiment_id, struct sb_error *err);

/* Arms against the baseline of an experiment, for "outputs are equal": counts generations whose token
 * ids equal the baseline's for the same prompt and repeat, and names the first that differs. */
struct sb_equality {
    int64_t compared, equal;    /* generations; of lossy arms none */
    int64_t lossy;              /* those of lossy arms, which may differ */
    char first_difference[200]; /* "" when all are equal */
};
enum sb_status sb_report_equality(struct sb_equality *out, struct sb_store *store,
                                  int64_t experiment_id, struct sb_error *err);

/* What the newest certificate in the file, of the build `commit`, says of a verifier with its default
 * parameters: "certified", "refuted", "lossy", "inconclusive"; "" when it says nothing. */
enum { SB_LOSSLESS_BYTES = 16 };
enum sb_status sb_report_lossless(char out[SB_LOSSLESS_BYTES], struct sb_store *store,
                                  const char *commit, const char *verifier, struct sb_error *err);

#endif

/* The gate: did drafts get worse? Two acceptance records are compared, arm by arm, on the same prompts
 * (methods C 8). MAT is tokens kept per step; a change is relative: MAT now / MAT of the baseline - 1. */
#ifndef SB_RESULTS_GATE_H
#define SB_RESULTS_GATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "harness/core/error.h"
#include "results/record.h"
#include "results/report.h"
#include "results/stats.h"

enum sb_gate_mode {
    SB_GATE_AUTO,          /* deterministic when both records would repeat, else statistical */
    SB_GATE_DETERMINISTIC, /* whole numbers, compared exactly */
    SB_GATE_STATISTICAL,   /* non-inferiority of paired log MAT */
};
enum sb_status sb_gate_mode_parse(enum sb_gate_mode *out, const char *name, struct sb_error *err);

#define SB_GATE_TASK_DROP 0.02 /* C 8.1: what a single task may lose */
#define SB_GATE_LEVEL     0.05 /* of the statistical tests, all arms together */
#define SB_GATE_POWER     0.8  /* at the smallest detectable drop */

struct sb_gate_options {
    enum sb_gate_mode mode;
    double max_drop;        /* of MAT, relative: 0.02 is 2 %. 0: any fall */
    double max_task_drop;   /* of MAT in any one task, deterministic mode; 0: SB_GATE_TASK_DROP */
    const char *const *arm; /* labels; none: every arm of the baseline */
    size_t n_arms;
    bool rows;          /* rows computed per token kept may not rise by more than max_drop */
    double min_speedup; /* above 0: measured speedup must not be below it (the only use of times) */
    struct sb_store *store; /* for min_speedup: the database of the record now */
};

enum sb_verdict {
    SB_SAME,    /* deterministic: every number equal */
    SB_BETTER,  /* MAT higher */
    SB_CHANGED, /* MAT equal, numbers not */
    SB_WORSE,
    SB_PASS, /* statistical */
    SB_REGRESSED,
    SB_INCONCLUSIVE,
};
const char *sb_verdict_name(enum sb_verdict verdict);

/* The outcome: what the exit code says. */
enum sb_gate_outcome { SB_GATE_HOLDS, SB_GATE_FAILS, SB_GATE_BLIND };

struct sb_gate_arm {
    const char *label, *method, *old_method; /* borrowed from the records */
    enum sb_verdict verdict;
    enum sb_gate_outcome outcome;
    char why[240];                        /* why it does not hold, or cannot tell; "" */
    size_t prompts;                       /* compared; statistical: those with a step in both */
    int64_t tokens[2], steps[2], rows[2]; /* [0] baseline, [1] now */
    double change, worst_task_change;
    const char *worst_task;
    /* Statistical: one-sided 95 % bounds of the change (mean of paired log MAT), the drop that would be
     * found with SB_GATE_POWER, and the p-value (Holm) of what the verdict claims. */
    double mean_change, low, high, detectable, p;
    struct sb_interval speedup; /* min_speedup; estimate 0: none */
};

struct sb_gate_move {
    const char *arm, *task;
    int64_t question_id, tokens[2], steps[2];
};

enum { SB_GATE_MOVES = 5 };
struct sb_gate {
    enum sb_gate_mode mode;
    enum sb_gate_outcome outcome;
    double max_drop, max_task_drop;
    bool rows, speed;
    struct sb_gate_arm *arm;
    size_t n_arms;
    struct sb_gate_move move[SB_GATE_MOVES]; /* furthest first */
    size_t n_moves, n_moved;                 /* n_moved: prompts that moved at all */
};

/* SB_EINPUT when the records cannot be compared, with what differs. The records must outlive the gate. */
enum sb_status sb_gate_run(struct sb_gate *out, const struct sb_record *now,
                           const struct sb_record *base, const struct sb_gate_options *options,
                           struct sb_error *err);
void sb_gate_finish(struct sb_gate *gate);

/* "the gate holds: 3 arms, all the same", one line without its end. */
void sb_gate_headline(const struct sb_gate *gate, char *text, size_t size);
/* table and md: headline, arms, prompts that moved most. csv: arms. json: one object. */
enum sb_status sb_gate_print(const struct sb_gate *gate, FILE *out, enum sb_format format,
                             struct sb_error *err);
/* JUnit XML as CI pages read it: a test case per arm. */
enum sb_status sb_gate_junit(const struct sb_gate *gate, const char *path, struct sb_error *err);

#endif

/* Times of an experiment by arm, question and repeat, and their pairing; shared by the files that make
 * figures of speed. */
#ifndef SB_RESULTS_SPEED_PAIRS_H
#define SB_RESULTS_SPEED_PAIRS_H

#include "results/report_speed.h"

enum { SB_MOST_REPEATS = 1024 }; /* an experiment has at most 1,000 */

struct sb_speed_cell {
    int64_t repeat;
    double decode_ns, all_ns;  /* all: prefill included */
    double tokens, all_tokens; /* the prefill's token is not among the first */
    double steps, step_tokens; /* 0 when they were not asked for */
};

struct sb_question {
    int task; /* index into the tasks, in order of their names */
    int64_t question_id;
};

struct sb_span {
    size_t first, n; /* cells */
};

/* Of the view `specbench`: its formula stands there alone. */
struct sb_specbench {
    int64_t arm_id;
    char *task; /* owned; NULL: over all */
    double speedup;
};

/* How far from 1 a ratio of equals gets, on the log scale, over n questions; NaN: not known. */
struct sb_noise {
    bool sought;
    double floor;
    size_t n;
};

struct sb_speeds {
    struct sb_speed_arm *arm;
    struct sb_question *question; /* by task, then id */
    struct sb_speed_cell *cell;   /* by question, arm, repeat */
    struct sb_span *at;           /* [n_questions, n_arms] */
    char **task;
    struct sb_noise noise; /* sought when asked for */
    struct sb_specbench *specbench;
    size_t n_arms, n_questions, n_cells, n_tasks, n_specbench;
    size_t arm_cap, question_cap, cell_cap, task_cap, at_cap, specbench_cap;
};

/* One repeat of a question in both arms; the method's times are scaled to the reference's tokens. */
struct sb_speed_pair {
    int64_t repeat;
    double base, method, base_all, method_all;
    double base_steps, base_tokens, method_steps, method_tokens;
};

struct sb_paired_question {
    const struct sb_question *of;
    struct sb_span pairs;
};

struct sb_pairing {
    struct sb_speed_pair *pair;
    struct sb_paired_question *question; /* [n] */
    int *stratum;                        /* [n] task */
    size_t n, n_pairs, most_repeats;
    bool per_token;
};

size_t sb_speeds_arm(const struct sb_speeds *s, int64_t arm_id); /* index; n_arms: none */
/* The view's figure; NaN: it has none. task NULL: over all. */
double sb_speeds_specbench(const struct sb_speeds *s, int64_t arm_id, const char *task);
/* Is question q of this task? NULL: any. */
bool sb_speeds_wanted(const struct sb_speeds *s, size_t q, const char *task);

/* Room for all pairs of two arms; the caller finishes it. */
enum sb_status sb_pairing_init(struct sb_pairing *p, const struct sb_speeds *s,
                               struct sb_error *err);
void sb_pairing_finish(struct sb_pairing *p);
/* Two arms by their indexes, in the repeats that both have; an index of n_arms pairs nothing. */
void sb_pairing_arms(struct sb_pairing *p, const struct sb_speeds *s, size_t base, size_t method,
                     const char *task);
/* An arm against itself: each of its repeats with an odd number and the one before. */
void sb_pairing_repeats(struct sb_pairing *p, const struct sb_speeds *s, size_t arm);

#endif

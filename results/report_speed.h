/* Paired speed figures of the arms of an experiment, per task and overall: the one place where stored
 * times become speedups. */
#ifndef SB_RESULTS_REPORT_SPEED_H
#define SB_RESULTS_REPORT_SPEED_H

#include <stdbool.h>

#include "results/internal.h"
#include "results/stats.h"

struct sb_speeds; /* one experiment's finished questions: times by arm, question and repeat */

/* An arm against a reference on the questions that both finished with all their turns, in the same
 * repeats; medians over repeats. Where token counts differ the method's time is scaled to the
 * reference's count. */
struct sb_speed {
    struct sb_interval totals;    /* sum of reference decode time / sum of the method's */
    struct sb_interval all;       /* the same, prefill included */
    struct sb_interval geometric; /* geometric mean over questions of the decode ratio */
    double task_mean; /* geometric mean of the tasks' ratios of totals, each weighing the same */
    double specbench; /* Spec-Bench's formula */
    size_t n;         /* questions; 0: nothing to compare, and all figures are NaN */
    bool per_token;   /* token counts differ somewhere */
    double noise;     /* log of the noise floor over so many questions; NaN: unknown */
    const char *note; /* "A/A", "within noise", "interval holds 1" or "" */
};

enum sb_status sb_speeds_load(struct sb_speeds **out, struct sb_store *store, int64_t experiment_id,
                              struct sb_error *err);
/* With other decode times: `decode_ns` is an SQL expression over the generation g, e.g. of a model of
 * costs; NULL: as measured. `with_steps` also counts steps, for sb_speeds_mat. */
enum sb_status sb_speeds_load_as(struct sb_speeds **out, struct sb_store *store,
                                 int64_t experiment_id, const char *decode_ns, bool with_steps,
                                 struct sb_error *err);
/* Spec-Bench's figures too, for sb_speeds_get; without them they are NaN. */
enum sb_status sb_speeds_load_specbench(struct sb_speeds *speeds, struct sb_store *store,
                                        int64_t experiment_id, struct sb_error *err);
void sb_speeds_destroy(struct sb_speeds *speeds);

/* The arms in their order, and what they are. */
struct sb_speed_arm {
    int64_t id;
    char *label;
    bool is_baseline; /* the first of them: speedups are against it */
    bool is_again;    /* runs the baseline once more: the A/A arm */
};
const struct sb_speed_arm *sb_speeds_arms(const struct sb_speeds *speeds, size_t *n);
const struct sb_speed_arm *sb_speeds_baseline(const struct sb_speeds *speeds); /* NULL: none */
size_t sb_speeds_tasks(const struct sb_speeds *speeds, char *const **names);

/* Against the baseline, noise and note included. task NULL: all tasks. */
enum sb_status sb_speeds_get(struct sb_speed *out, struct sb_speeds *speeds, int64_t arm_id,
                             const char *task, int resamples, uint64_t seed, struct sb_error *err);
/* Arm against arm: their ratio of speedups, with the same resamples (the baseline's times cancel). */
enum sb_status sb_speeds_compare(struct sb_speed *out, const struct sb_speeds *speeds,
                                 int64_t arm_id, int64_t reference_id, const char *task,
                                 int resamples, uint64_t seed, struct sb_error *err);

/* Tokens per step of two arms over the questions both finished: tokens / steps of each, and the interval
 * of the difference. Needs with_steps. */
struct sb_mat_difference {
    double mat, reference_mat;
    struct sb_interval difference;
};
enum sb_status sb_speeds_mat(struct sb_mat_difference *out, const struct sb_speeds *speeds,
                             int64_t arm_id, int64_t reference_id, const char *task, int resamples,
                             uint64_t seed, struct sb_error *err);

/* Each question of a pair of arms by itself, in order. The caller owns *out (sb_free). */
struct sb_speed_question {
    const char *task; /* borrowed */
    int64_t question_id;
    size_t repeats;
    double reference_ns, method_ns;        /* medians of decode time, scaled to equal tokens */
    double reference_steps, reference_mat; /* 0 and NaN without with_steps */
    double method_steps, method_mat;
};
enum sb_status sb_speeds_questions(struct sb_speed_question **out, size_t *n,
                                   const struct sb_speeds *speeds, int64_t arm_id,
                                   int64_t reference_id, const char *task, struct sb_error *err);

/* Decode and whole speed of an arm by itself: tokens per second over its finished questions. */
struct sb_speed_rate {
    double decode, all;
    size_t questions, repeats; /* finished ones; most of any question */
};
struct sb_speed_rate sb_speeds_rate(const struct sb_speeds *speeds, int64_t arm_id,
                                    const char *task);

#endif

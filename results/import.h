/* Answer files of Spec-Bench, of runs made elsewhere, into the tables of our own runs. An experiment of
 * origin 'import': an arm per file, a prompt per turn, a repeat per choice, a step per accepted length. What
 * such files do not say stays 0 in the rows and is NULL in views. Docs: docs/cli.md, "Import". */
#ifndef SB_RESULTS_IMPORT_H
#define SB_RESULTS_IMPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "results/store.h"

/* Answers in memory. */
struct sb_answer_turn {
    char *text;
    int64_t new_tokens, wall_ns;
    int32_t *length; /* [n_lengths] tokens per step, from the answer's list */
    size_t n_lengths;
};
struct sb_answer {
    int64_t question_id;
    int repeat; /* choice index, from 0 */
    char *category;
    double time; /* seconds since 1970; 0: not said */
    struct sb_answer_turn *turn;
    size_t n_turns;
};
struct sb_answers {
    char *name, *model_id; /* of the file; of its first line */
    struct sb_answer *item;
    size_t n, cap;
};

/* A file's text; SB_EFORMAT with file, line and field for anything that is no answer. Reading is bounded
 * by the size of the text. */
enum sb_status sb_answers_parse(struct sb_answers *out, const char *name, const char *text,
                                size_t size, struct sb_error *err);
enum sb_status sb_answers_load(struct sb_answers *out, const char *path, struct sb_error *err);
void sb_answers_finish(struct sb_answers *answers);

/* Do the files go together? No question twice in one, and none that is another in another file. */
enum sb_status sb_answers_check(const struct sb_answers *files, size_t n, struct sb_error *err);

struct sb_import_options {
    const char *name;   /* of the experiment; NULL: "import" */
    const char *target; /* name of the model that answered; NULL: "unknown" */
};
struct sb_import_result {
    int64_t experiment_id;
    size_t arms, answers, steps;
};
/* Files that sb_answers_check took; files[0] is the baseline when has_baseline. The same files again find their experiment and add nothing. */
enum sb_status sb_import(struct sb_import_result *out, struct sb_store *store,
                         const struct sb_answers *files, size_t n, bool has_baseline,
                         const struct sb_import_options *options, struct sb_error *err);

#endif

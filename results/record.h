/* Acceptance records: the whole numbers that a gate compares, and the set-up they belong to. They come
 * from an experiment in a results database or from a baseline file (JSON), which holds nothing else.
 *
 * A prompt is a question with all its turns and repeats. Docs: docs/cli.md, "Baselines". */
#ifndef SB_RESULTS_RECORD_H
#define SB_RESULTS_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "harness/core/error.h"
#include "results/store.h"

#define SB_BASELINE_VERSION 1

struct sb_setup {
    char *target, *target_hash, *tokenizer_hash, *dataset, *dataset_hash, *chat_template,
        *conversation, *arithmetic; /* NULL: unknown */
    int64_t max_new_tokens, top_k, ignore_eos, seed, repeats;
    double temperature, top_p;
};

struct sb_prompt_counts {
    char *task;
    int64_t question_id;
    int64_t tokens, steps, rows; /* kept by steps; forwards; tokens these forwards computed */
    int64_t *accepted; /* [n_accepted]; [k]: steps that accepted more than k draft tokens */
    size_t n_accepted;
};

struct sb_arm_record {
    char *label, *method; /* method: drafter, verifier and policy with their parameters */
    bool is_baseline;
    char *incomplete;                /* which generation is missing or failed; NULL: none */
    struct sb_prompt_counts *prompt; /* in order of task, then question */
    size_t n_prompts, prompt_cap;
};

struct sb_record {
    char *path;            /* for messages */
    int64_t experiment_id; /* in its database; 0: from a file */
    struct sb_setup setup;
    struct sb_arm_record *arm;
    size_t n_arms, arm_cap;
};

/* The newest experiment of a database when experiment_id is 0. */
enum sb_status sb_record_read_store(struct sb_record *out, struct sb_store *store,
                                    int64_t experiment_id, struct sb_error *err);
/* A baseline file's text; name for messages. SB_EFORMAT for anything else than a whole one. */
enum sb_status sb_record_parse(struct sb_record *out, const char *name, const char *text,
                               size_t size, struct sb_error *err);
/* A database or a baseline file, told apart by the first bytes. experiment_id as above. */
enum sb_status sb_record_open(struct sb_record *out, const char *path, int64_t experiment_id,
                              struct sb_error *err);
/* As a baseline file: one prompt a line, sorted, so that a diff shows what moved. An arm that is not
 * complete is refused. */
enum sb_status sb_record_write(const struct sb_record *record, FILE *file, struct sb_error *err);
void sb_record_finish(struct sb_record *record);

const struct sb_arm_record *sb_record_arm(const struct sb_record *record, const char *label);

/* Refuse records whose figures mean different things, naming the first field that differs. `exact`:
 * integers are to be compared, so seed, repeats and arithmetic must be equal too. */
enum sb_status sb_record_comparable(const struct sb_record *now, const struct sb_record *base,
                                    bool exact, struct sb_error *err);
/* Would whole numbers repeat: greedy, exact arithmetic, same seed and repeats? */
bool sb_record_reproducible(const struct sb_record *now, const struct sb_record *base);

#endif

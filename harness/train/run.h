/* A training run: texts, optimiser, checkpoint and the loop, for whatever is trained. */
#ifndef SB_TRAIN_RUN_H
#define SB_TRAIN_RUN_H

#include "harness/train/checkpoint.h"
#include "harness/train/recipe.h"
#include "harness/train/train.h"

struct sb_run;

/* What is trained. */
struct sb_trainee {
    void *self;
    struct sb_trainable *weights;
    /* The loss of run->batch on run->tape, which was reset: a scalar divided by `share`, or NULL out of
     * memory. */
    struct sb_var *(*loss)(void *self, struct sb_run *run, size_t share);
    /* Floating-point operations of a training token that attends to `seen` others. */
    double (*flops_per_token)(const void *self, double seen);
    /* Called before each checkpoint is written; may be NULL. */
    enum sb_status (*measure)(void *self, struct sb_run *run, struct sb_error *err);
};

/* Everything a run holds; zero is empty, sb_run_finish frees whatever is there. */
struct sb_run {
    const struct sb_recipe *recipe;
    const struct sb_train_options *options;
    const char *out;
    char *checkpoint_path;
    struct sb_corpus corpus;
    struct sb_tokenizer *tok;
    struct sb_marks marks;
    struct sb_data_stream stream;
    struct sb_batch batch;
    struct sb_tape *tape;
    struct sb_trainee trainee;
    struct sb_adamw opt;
    struct sb_train_state state;
    uint64_t began_ns, paused_ns; /* paused: spent on checkpoints and measuring */
    size_t began_step;
    double smooth;
};

/* Where a run writes to. */
const char *sb_run_out(const struct sb_recipe *recipe, const struct sb_train_options *options);
/* Tokenizer of directory `tokenizer`, texts, batches and a tape. n_vocab: tokens of the model, at least
 * as many as the tokenizer's; `field` is what to call it in a refusal. */
enum sb_status sb_run_open(struct sb_run *run, const struct sb_recipe *recipe,
                           const struct sb_train_options *options, const char *tokenizer,
                           size_t n_vocab, const char *field, struct sb_error *err);
/* The optimiser, and the checkpoint when the options ask to resume. teacher: hash of the models that
 * the training reads, or 0. */
enum sb_status sb_run_begin(struct sb_run *run, const struct sb_trainee *trainee, uint64_t teacher,
                            struct sb_error *err);
/* Train to the last step; stops as sb_train_recipe says. */
enum sb_status sb_run_loop(struct sb_run *run, struct sb_error *err);
/* loss.csv: the mean loss of every ten steps. */
enum sb_status sb_run_write_curve(const struct sb_run *run, struct sb_error *err);
void sb_run_finish(struct sb_run *run);

#endif

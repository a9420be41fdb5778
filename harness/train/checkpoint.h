/* A training run on disk: everything that the rest of the run depends on. */
#ifndef SB_TRAIN_CHECKPOINT_H
#define SB_TRAIN_CHECKPOINT_H

#include "harness/train/adamw.h"
#include "harness/train/data.h"

/* What must be equal for a checkpoint to continue a run. */
struct sb_train_identity {
    uint64_t recipe, corpus, tokenizer, teacher;
};

struct sb_train_state {
    struct sb_train_identity identity;
    struct sb_cursor cursor;
    struct sb_trainable *weights;
    struct sb_adamw *opt; /* its step is the run's */
    float *history;       /* [opt->options.steps] loss of every step so far */
};

/* Write to a temporary file, flush, and rename over `path`: a crash leaves the old one. */
enum sb_status sb_checkpoint_save(const struct sb_train_state *state, const char *path,
                                  struct sb_error *err);
/* Fill `state`, whose model and optimiser have the right sizes. A checkpoint that is damaged, of
 * another recipe, text or vocabulary is refused and nothing is changed. */
enum sb_status sb_checkpoint_load(struct sb_train_state *state, const char *path,
                                  struct sb_error *err);

#endif

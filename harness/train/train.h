/* `specbench train RECIPE.lua`: what a recipe says, done.
 *
 * A recipe is a Lua file that returns a table. kind = "tokenizer" trains a byte-level BPE vocabulary
 * on the texts; kind = "lm" trains a language model, from the texts alone or also from a teacher's
 * distributions; kind = "head" trains a draft head on a frozen target's hidden states; kind = "texts" lets a
 * model write what the others train on. Paths in it are relative to the current directory. docs: scripts/train/. */
#ifndef SB_TRAIN_TRAIN_H
#define SB_TRAIN_TRAIN_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_train_progress {
    const char *what;      /* "tiny" */
    size_t step, steps;    /* done, of */
    size_t tokens;         /* seen so far, all sessions together */
    double loss, smooth;   /* of this step; running mean over about 20 steps */
    double rate;           /* learning rate */
    double tokens_per_s;   /* since this session began */
    uint64_t remaining_ns; /* estimate */
    double gflops_per_s;   /* by sb_lm_flops_per_token */
    bool last;
    bool texts;       /* steps are texts that the target writes; there is no loss yet */
    const char *note; /* a line to show in place of the figures, or NULL */
};
typedef void sb_train_report(void *user, const struct sb_train_progress *progress);

/* Zero is default. */
struct sb_train_options {
    bool card;            /* train nothing: write the model card of what is there anew */
    bool resume;          /* continue from the checkpoint in the output directory */
    int threads;          /* < 1: the physical cores */
    const char *out;      /* instead of the recipe's `out` */
    const char *data_dir; /* instead of the recipe's data.dir */
    size_t max_steps; /* stop after this many steps of this session as if interrupted; 0: none */
    const volatile sig_atomic_t
        *stop;               /* set by a signal handler: save and return SB_EINTERRUPTED */
    sb_train_report *report; /* NULL: silent */
    void *report_user;
};

/* Train as the recipe at `path` says. SB_EINTERRUPTED leaves a checkpoint, and so does every failure
 * after the first one was written. */
enum sb_status sb_train_recipe(const char *path, const struct sb_train_options *options,
                               struct sb_error *err);

/* A report on stderr: a bar that is redrawn when it is a terminal, else a line now and then. `user`
 * points to a zeroed struct sb_train_screen. */
struct sb_train_screen {
    uint64_t drawn_ns;
    bool started, is_terminal;
};
void sb_train_report_stderr(void *user, const struct sb_train_progress *progress);

#endif

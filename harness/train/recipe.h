/* What a recipe file says. */
#ifndef SB_TRAIN_RECIPE_H
#define SB_TRAIN_RECIPE_H

#include "harness/train/adamw.h"
#include "harness/train/data.h"

struct sb_recipe_weight {
    char *task;
    double weight;
};

struct sb_recipe {
    char *kind; /* "lm" or "tokenizer" */
    char *name, *out;
    char *tokenizer; /* directory with tokenizer.json; kind "lm" */
    struct {
        char *dir;
        char **files;
        size_t n_files;
        struct sb_recipe_weight *weights;
        size_t n_weights;
        double held_out;
        char *loss_on; /* "all" or "answers" */
    } data;
    struct {
        size_t layers, width, heads, kv_heads, ff, vocab, context;
        double rope_base, norm_eps;
    } model;
    struct {
        size_t steps, batch_tokens, micro_tokens, seq_len, warmup, seed, checkpoint_every;
        double lr, min_lr_ratio, weight_decay, clip, beta1, beta2;
    } train;
    struct {
        char *teacher; /* model directory; NULL: none */
        double weight; /* of the divergence; the rest is cross-entropy */
    } distill;
    uint64_t hash; /* of everything that moves the result, for the checkpoint */
};

/* Run the file in a bare Lua state and check what it returns. Keys it does not know are refused with
 * those it does. */
enum sb_status sb_recipe_read(struct sb_recipe *recipe, const char *path, struct sb_error *err);
void sb_recipe_finish(struct sb_recipe *recipe);

#endif

/* What a recipe file says. */
#ifndef SB_TRAIN_RECIPE_H
#define SB_TRAIN_RECIPE_H

#include "harness/core/param.h"
#include "harness/train/adamw.h"
#include "harness/train/data.h"

enum { SB_MAX_TEMPERATURES = 8 };

struct sb_recipe_weight {
    char *task;
    double weight;
};

struct sb_recipe {
    char *kind; /* "lm", "head", "texts" or "tokenizer" */
    char *name, *out;
    char *tokenizer;       /* directory with tokenizer.json; kind "lm" */
    char *target;          /* model directory; kinds "head" and "texts" */
    char *arch;            /* of the head */
    char *summary, *notes; /* of the model card: its first lines; more below its table; or NULL */
    char **samples;        /* [n_samples] questions that the card shows answers to */
    size_t n_samples;
    char *init;          /* model directory whose weights an "lm" starts from; NULL: drawn ones */
    struct sb_spec head; /* its parameters */
    struct {
        char *dir;
        char **files;
        size_t n_files;
        struct sb_recipe_weight *weights;
        size_t n_weights;
        double held_out;
        char *loss_on; /* "all" or "answers" */
        struct {
            bool wanted;
            size_t prompts; /* per task, in file order */
            size_t max_new_tokens, seed;
            double temperature[SB_MAX_TEMPERATURES]; /* taken in turn, prompt by prompt */
            size_t n_temperatures;
            double top_p;
        } generate; /* the target answers the prompts, and that is trained on */
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
        char *loss;    /* "kl" or another name of sb_divergence_names */
        double beta;   /* of jsd */
    } distill;
    struct {
        char *by; /* "labels", or a name of sb_divergence_names; kind "head" */
        double weight, feature, decay, beta;
        size_t top_k;
    } loss;
    uint64_t hash; /* of everything that moves the result, for the checkpoint */
};

/* Run the file in a bare Lua state and check what it returns. Keys it does not know are refused with
 * those it does. */
enum sb_status sb_recipe_read(struct sb_recipe *recipe, const char *path, struct sb_error *err);
/* Of the settings of data.generate. */
uint64_t sb_recipe_generate_hash(const struct sb_recipe *recipe);
void sb_recipe_finish(struct sb_recipe *recipe);

#endif

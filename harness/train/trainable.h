/* Named weight matrices in one flat piece of memory: what the optimiser moves, checkpoints hold and
 * safetensors files are written from. A language model and a draft head have one each. */
#ifndef SB_TRAIN_TRAINABLE_H
#define SB_TRAIN_TRAINABLE_H

#include "harness/train/tape.h"

struct sb_trainable_tensor {
    char name[96]; /* in published checkpoints */
    struct sb_var *var;
    bool is_vector;             /* a norm or a bias: no weight decay, stored with one dimension */
    double init_mean, init_std; /* of the initial normal draws; std 0: the mean everywhere */
};

/* Zero is empty. First declare every tensor, then allocate. */
struct sb_trainable {
    struct sb_trainable_tensor *tensors; /* [n_tensors], in the order of storage */
    size_t n_tensors, cap_tensors, n_params;
    sb_real *x, *dx; /* [n_params] everything in one piece; dx NULL when frozen */
    bool failed;     /* memory ran out while declaring; sb_trainable_alloc reports */
};

/* A matrix [rows, cols] whose values `var` will point to; rows 1 is a vector. var stays where it is. */
void sb_trainable_add(struct sb_trainable *set, struct sb_var *var, size_t rows, size_t cols,
                      double mean, double std, const char *name_fmt, ...)
    __attribute__((format(printf, 7, 8)));
/* Zeroed memory for what was declared; frozen: without gradients. */
enum sb_status sb_trainable_alloc(struct sb_trainable *set, bool frozen, struct sb_error *err);
void sb_trainable_finish(struct sb_trainable *set);
/* Normal draws that depend on the seed, the tensor and the element alone. */
void sb_trainable_init(struct sb_trainable *set, uint64_t seed);
/* Start gradients anew. */
void sb_trainable_clear_grads(struct sb_trainable *set);

#endif

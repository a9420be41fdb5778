/* Declaring, allocating and starting weights. */
#include "harness/train/trainable.h"

#include <stdarg.h>
#include <stdio.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

void sb_trainable_add(struct sb_trainable *set, struct sb_var *var, size_t rows, size_t cols,
                      double mean, double std, const char *name_fmt, ...)
{
    if (set->failed || sb_grow((void **)&set->tensors, &set->cap_tensors, set->n_tensors + 1,
                               sizeof *set->tensors) != 0) {
        set->failed = true;
        return;
    }
    struct sb_trainable_tensor *tensor = &set->tensors[set->n_tensors++];
    *tensor = (struct sb_trainable_tensor){
        .var = var, .is_vector = rows == 1, .init_mean = mean, .init_std = std
    };
    va_list args;
    va_start(args, name_fmt);
    vsnprintf(tensor->name, sizeof tensor->name, name_fmt, args);
    va_end(args);
    *var = (struct sb_var){ .rows = rows, .cols = cols };
    set->n_params += rows * cols;
}

enum sb_status sb_trainable_alloc(struct sb_trainable *set, bool frozen, struct sb_error *err)
{
    if (!set->failed) {
        set->x = sb_alloc_aligned(set->n_params, sizeof *set->x);
        set->dx = frozen ? NULL : sb_alloc_aligned(set->n_params, sizeof *set->dx);
    }
    if (!set->x || (!frozen && !set->dx))
        return sb_fail(err, SB_ENOMEM, "model to train: out of memory for %zu MiB of weights",
                       set->n_params * sizeof *set->x >> 20);
    memset(set->x, 0, set->n_params * sizeof *set->x);
    size_t at = 0;
    for (size_t i = 0; i < set->n_tensors; i++) {
        struct sb_var *var = set->tensors[i].var;
        var->x = set->x + at;
        var->dx = frozen ? NULL : set->dx + at;
        at += var->rows * var->cols;
    }
    return SB_OK;
}

void sb_trainable_finish(struct sb_trainable *set)
{
    sb_free(set->x);
    sb_free(set->dx);
    sb_free(set->tensors);
    *set = (struct sb_trainable){ 0 };
}

void sb_trainable_init(struct sb_trainable *set, uint64_t seed)
{
    for (size_t t = 0; t < set->n_tensors; t++) {
        struct sb_trainable_tensor *tensor = &set->tensors[t];
        struct sb_rng rng = sb_rng_make(sb_rng_mix(seed, t), SB_STREAM_INIT);
        for (size_t i = 0; i < tensor->var->rows * tensor->var->cols; i++) {
            double draw = tensor->init_mean;
            if (tensor->init_std > 0) {
                sb_rng_seek(&rng, i);
                draw += tensor->init_std * sb_rng_normal(&rng);
            }
            tensor->var->x[i] = (sb_real)draw;
        }
    }
}

void sb_trainable_clear_grads(struct sb_trainable *set)
{
    for (size_t t = 0; t < set->n_tensors; t++)
        set->tensors[t].var->has_grad = false;
}

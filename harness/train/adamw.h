/* AdamW with warm-up and cosine decay (Loshchilov & Hutter 2019: weight decay apart from the
 * gradient), over a set of weights. */
#ifndef SB_TRAIN_ADAMW_H
#define SB_TRAIN_ADAMW_H

#include "harness/train/trainable.h"

struct sb_adamw_options {
    double lr, min_lr_ratio; /* the peak, and what is left of it at the last step */
    double beta1, beta2, eps;
    double weight_decay, clip; /* clip: greatest norm of the whole gradient; 0: no limit */
    size_t warmup, steps;
};

struct sb_adamw {
    struct sb_adamw_options options;
    sb_real *m, *v; /* [n_params] first and second moments, owned */
    size_t n_params, step;
};

enum sb_status sb_adamw_init(struct sb_adamw *opt, const struct sb_adamw_options *options,
                             size_t n_params, struct sb_error *err);
void sb_adamw_finish(struct sb_adamw *opt);
/* Learning rate of step 0, 1, ...: linear over `warmup` steps, then half a cosine. */
double sb_adamw_rate(const struct sb_adamw_options *options, size_t step);
/* One update from set->dx; returns the norm of the gradient before clipping. NaN or infinity there
 * leaves weights and moments as they were. A tensor that no loss reached has gradient 0. */
double sb_adamw_step(struct sb_adamw *opt, struct sb_trainable *set);

#endif

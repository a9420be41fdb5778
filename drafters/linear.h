/* Linear layers of draft heads: packed once, multiplied by a team of threads without allocating. The bits of
 * an output depend on its row alone, as kernels.h says. */
#ifndef SB_DRAFTERS_LINEAR_H
#define SB_DRAFTERS_LINEAR_H

#include "drafters/head_file.h"
#include "kernels/kernels.h"

struct sb_linear {      /* zeroed: none */
    struct sb_packed w; /* [n, k] */
    float *bias;        /* [n], owned; NULL: none */
};

enum sb_linear_bias { SB_BIAS_NONE, SB_BIAS_OPTIONAL, SB_BIAS_REQUIRED };

/* From `STEM.weight` [n, k] and `STEM.bias` [n] of a head; the stem is written as by printf. */
enum sb_status sb_linear_load(struct sb_linear *out, const struct sb_head_file *head, size_t n,
                              size_t k, enum sb_linear_bias bias, struct sb_error *err,
                              const char *stem, ...) __attribute__((format(printf, 7, 8)));
/* From tensors; bias may be NULL. f32: as in sb_tensor_pack. `name` is for messages. */
enum sb_status sb_linear_init(struct sb_linear *out, const struct sb_tensor *w,
                              const struct sb_tensor *bias, bool f32, const char *name,
                              struct sb_error *err);
void sb_linear_finish(struct sb_linear *linear);
static inline bool sb_linear_is(const struct sb_linear *linear)
{
    return linear->w.data != NULL;
}

/* y[m, n] = x[m, k] W^T + bias, or added to y. */
void sb_linear_apply(const struct sb_team *team, const struct sb_linear *linear, float *y,
                     size_t ldy, const float *x, size_t ldx, size_t m, bool add);
/* Multiply-adds of m rows, for sb_team_size. */
static inline size_t sb_linear_work(const struct sb_linear *linear, size_t m)
{
    return m * linear->w.n * linear->w.k;
}

/* x = silu(x) = x / (1 + exp(-x)), over m rows of n. */
void sb_silu(const struct sb_team *team, float *x, size_t ldx, size_t n, size_t m);
/* x = gelu(x) = x (1 + erf(x / sqrt 2)) / 2, over m rows of n. */
void sb_gelu(const struct sb_team *team, float *x, size_t ldx, size_t n, size_t m);
/* y += silu(x), over m rows of n; x is lost. */
void sb_silu_add(const struct sb_team *team, float *y, size_t ldy, float *x, size_t ldx, size_t n,
                 size_t m);
/* The residual block of methods B 2 (B2): x += silu(W x + b) over m rows. scratch[m, n]. */
void sb_residual_block(const struct sb_team *team, const struct sb_linear *linear, float *x,
                       size_t ldx, float *scratch, size_t m);

#endif

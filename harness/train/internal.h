/* Shared by the operations of the tape. */
#ifndef SB_TRAIN_INTERNAL_H
#define SB_TRAIN_INTERNAL_H

#include "harness/train/tape.h"

/* Elements or rows per block of a loop that reduces; part of what fixes the bits. */
enum { SB_ROW_BLOCK = 256, SB_LANES = 16 };

struct sb_op;
typedef void sb_backward_fn(struct sb_tape *tape, const struct sb_op *op);

/* One operation: who made `out` from `in`, and what it keeps for the way back. */
struct sb_op {
    sb_backward_fn *backward;
    struct sb_var *in[4];
    struct sb_var *out;
    const void *extra; /* operation's own record, in the arena */
};

/* A new variable of the arena; wants a gradient when any of the op's inputs does. */
struct sb_var *sb_tape_output(struct sb_tape *tape, const struct sb_op *op, size_t rows,
                              size_t cols);
/* Record an operation; false out of memory. */
bool sb_tape_record(struct sb_tape *tape, const struct sb_op *op);

/* bias->dx += the column sums of y->dx (rows.c). */
void sb_add_bias_grad(const struct sb_var *y, struct sb_var *bias);
/* log(sum(exp(x))) (divergence.c) */
sb_real sb_log_sum_exp(const sb_real *x, size_t n);

static inline bool wants_grad(const struct sb_var *var)
{
    return var && var->dx;
}

/* Announce a contribution to var's gradient: 0 when it is the first (overwrite), 1 to add to it. */
static inline sb_real claim_grad(struct sb_var *var)
{
    bool had = var->has_grad;
    var->has_grad = true;
    return had ? 1 : 0;
}

static inline size_t blocks_of(size_t n, size_t block)
{
    return (n + block - 1) / block;
}

/* Sum of 16 lanes in the one order used everywhere: halves onto halves. */
static inline sb_real join_lanes(sb_real lane[SB_LANES])
{
    for (size_t half = SB_LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

#endif

/* Losses: cross-entropy and KL divergence to a teacher, fused with log-softmax. */
#include "harness/train/internal.h"

#include <assert.h>

struct loss_record {
    const int32_t *target;  /* cross-entropy */
    const sb_real *teacher; /* KL: logits */
    const sb_real *weight;  /* per row, or NULL */
    sb_real *lse, *teacher_lse;
};

/* sum of p * (log p - log q) */
SB_CLONES static sb_real divergence(const sb_real *p, sb_real lse_p, const sb_real *q,
                                    sb_real lse_q, size_t n)
{
    sb_real lane[SB_LANES] = { 0 };
    size_t i = 0;
    for (; i + SB_LANES <= n; i += SB_LANES)
        for (size_t j = 0; j < SB_LANES; j++) {
            sb_real log_p = p[i + j] - lse_p;
            lane[j] += sb_real_exp(log_p) * (log_p - (q[i + j] - lse_q));
        }
    for (size_t j = 0; i + j < n; j++) {
        sb_real log_p = p[i + j] - lse_p;
        lane[j] += sb_real_exp(log_p) * (log_p - (q[i + j] - lse_q));
    }
    return join_lanes(lane);
}

/* dx (+)= scale * (softmax(x) - softmax(teacher)); teacher may be NULL. */
SB_CLONES static void softmax_difference(sb_real *dx, const sb_real *x, sb_real lse,
                                         const sb_real *teacher, sb_real teacher_lse, sb_real scale,
                                         sb_real keep, size_t n)
{
    if (keep == 0)
        memset(dx, 0, n * sizeof *dx);
    if (scale == 0)
        return;
    for (size_t j = 0; j < n; j++)
        dx[j] += scale * sb_real_exp(x[j] - lse);
    if (teacher)
        for (size_t j = 0; j < n; j++)
            dx[j] -= scale * sb_real_exp(teacher[j] - teacher_lse);
}

static sb_real row_weight(const struct loss_record *loss, size_t r)
{
    return loss->weight ? loss->weight[r] : 1;
}

static void loss_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    const struct loss_record *loss = op->extra;
    struct sb_var *logits = op->in[0];
    size_t n = logits->cols;
    sb_real keep = claim_grad(logits), seed = op->out->dx[0];
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < logits->rows; r++) {
        sb_real scale = seed * row_weight(loss, r), *dx = logits->dx + r * n;
        const sb_real *teacher = loss->teacher ? loss->teacher + r * n : NULL;
        softmax_difference(dx, logits->x + r * n, loss->lse[r], teacher,
                           teacher ? loss->teacher_lse[r] : 0, scale, keep, n);
        if (loss->target && scale != 0)
            dx[loss->target[r]] -= scale;
    }
}

static sb_real row_loss(const struct loss_record *loss, const struct sb_var *logits, size_t r)
{
    size_t n = logits->cols;
    const sb_real *x = logits->x + r * n;
    if (row_weight(loss, r) == 0)
        return 0;
    loss->lse[r] = sb_log_sum_exp(x, n);
    if (loss->target) {
        assert(loss->target[r] >= 0 && (size_t)loss->target[r] < n);
        return loss->lse[r] - x[loss->target[r]];
    }
    loss->teacher_lse[r] = sb_log_sum_exp(loss->teacher + r * n, n);
    return divergence(loss->teacher + r * n, loss->teacher_lse[r], x, loss->lse[r], n);
}

static struct sb_var *add_loss(struct sb_tape *tape, struct sb_var *logits, const int32_t *target,
                               const sb_real *teacher, const sb_real *weight)
{
    if (!logits || (!target && !teacher))
        return NULL;
    size_t m = logits->rows;
    struct loss_record *loss = sb_tape_alloc(tape, 1, sizeof *loss);
    sb_real *lse = sb_tape_alloc(tape, m, sizeof *lse);
    sb_real *teacher_lse = sb_tape_alloc(tape, m, sizeof *lse);
    sb_real *rows = sb_tape_alloc(tape, m, sizeof *rows);
    struct sb_op op = { .backward = loss_backward, .in = { logits }, .extra = loss };
    op.out = sb_tape_output(tape, &op, 1, 1);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    *loss = (struct loss_record){ target, teacher, weight, lse, teacher_lse };
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r++)
        rows[r] = row_loss(loss, logits, r);
    double sum = 0;
    for (size_t r = 0; r < m; r++)
        sum += (double)row_weight(loss, r) * (double)rows[r];
    op.out->x[0] = (sb_real)sum;
    return op.out;
}

struct sb_var *sb_tape_cross_entropy(struct sb_tape *tape, struct sb_var *logits,
                                     const int32_t *target, const sb_real *weight)
{
    return add_loss(tape, logits, target, NULL, weight);
}

struct sb_var *sb_tape_kl(struct sb_tape *tape, struct sb_var *logits, const sb_real *teacher,
                          const sb_real *weight)
{
    return add_loss(tape, logits, NULL, teacher, weight);
}

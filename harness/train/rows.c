/* Rearranging matrices: rows by index, columns side by side, rows on top of each other; weighted
 * sums; biases. */
#include "harness/train/internal.h"

#include <assert.h>

/* dx[rows, cols] (+)= dy, whose rows are `stride` apart. */
static void add_block(sb_real *dx, size_t rows, size_t cols, const sb_real *dy, size_t stride,
                      sb_real keep)
{
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < cols; j++) {
            sb_real g = dy[r * stride + j];
            dx[r * cols + j] = keep != 0 ? dx[r * cols + j] + g : g;
        }
}

static void copy_block(sb_real *y, size_t stride, const struct sb_var *x)
{
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < x->rows; r++)
        memcpy(y + r * stride, x->x + r * x->cols, x->cols * sizeof *y);
}

/* ---- columns side by side -------------------------------------------------------------------- */

static void concat_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    const sb_real *dy = op->out->dx;
    for (size_t i = 0; i < 2; dy += op->in[i]->cols, i++)
        if (wants_grad(op->in[i])) {
            sb_real keep = claim_grad(op->in[i]);
            add_block(op->in[i]->dx, op->in[i]->rows, op->in[i]->cols, dy, op->out->cols, keep);
        }
}

struct sb_var *sb_tape_concat(struct sb_tape *tape, struct sb_var *a, struct sb_var *b)
{
    if (!a || !b)
        return NULL;
    assert(a->rows == b->rows);
    struct sb_op op = { .backward = concat_backward, .in = { a, b } };
    op.out = sb_tape_output(tape, &op, a->rows, a->cols + b->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    copy_block(op.out->x, op.out->cols, a);
    copy_block(op.out->x + a->cols, op.out->cols, b);
    return op.out;
}

/* ---- rows on top of each other --------------------------------------------------------------- */

static void stack_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    const sb_real *dy = op->out->dx;
    for (size_t i = 0; i < 2; dy += op->in[i]->rows * op->in[i]->cols, i++)
        if (wants_grad(op->in[i])) {
            sb_real keep = claim_grad(op->in[i]);
            add_block(op->in[i]->dx, op->in[i]->rows, op->in[i]->cols, dy, op->in[i]->cols, keep);
        }
}

struct sb_var *sb_tape_stack(struct sb_tape *tape, struct sb_var *a, struct sb_var *b)
{
    if (!a || !b)
        return NULL;
    assert(a->cols == b->cols);
    struct sb_op op = { .backward = stack_backward, .in = { a, b } };
    op.out = sb_tape_output(tape, &op, a->rows + b->rows, a->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    copy_block(op.out->x, a->cols, a);
    copy_block(op.out->x + a->rows * a->cols, b->cols, b);
    return op.out;
}

/* ---- columns cut out ------------------------------------------------------------------------- */

static void slice_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    struct sb_var *x = op->in[0];
    const size_t *from = op->extra;
    size_t n = op->out->cols;
    if (claim_grad(x) == 0)
        memset(x->dx, 0, x->rows * x->cols * sizeof *x->dx);
    for (size_t r = 0; r < x->rows; r++)
        for (size_t j = 0; j < n; j++)
            x->dx[r * x->cols + *from + j] += op->out->dx[r * n + j];
}

struct sb_var *sb_tape_slice(struct sb_tape *tape, struct sb_var *x, size_t from, size_t n)
{
    if (!x)
        return NULL;
    assert(from + n <= x->cols);
    size_t *kept = sb_tape_alloc(tape, 1, sizeof *kept);
    struct sb_op op = { .backward = slice_backward, .in = { x }, .extra = kept };
    op.out = sb_tape_output(tape, &op, x->rows, n);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    *kept = from;
    for (size_t r = 0; r < x->rows; r++)
        memcpy(op.out->x + r * n, x->x + r * x->cols + from, n * sizeof *x->x);
    return op.out;
}

/* ---- rows by index --------------------------------------------------------------------------- */

static void gather_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    struct sb_var *x = op->in[0];
    const int32_t *at = op->extra;
    size_t d = x->cols;
    if (claim_grad(x) == 0)
        memset(x->dx, 0, x->rows * d * sizeof *x->dx);
    for (size_t r = 0; r < op->out->rows; r++)
        for (size_t j = 0; at[r] >= 0 && j < d; j++)
            x->dx[(size_t)at[r] * d + j] += op->out->dx[r * d + j];
}

struct sb_var *sb_tape_gather(struct sb_tape *tape, struct sb_var *x, const int32_t *at, size_t n)
{
    if (!x)
        return NULL;
    size_t d = x->cols;
    struct sb_op op = { .backward = gather_backward, .in = { x }, .extra = at };
    op.out = sb_tape_output(tape, &op, n, d);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < n; r++) {
        assert(at[r] < (int32_t)x->rows);
        if (at[r] >= 0)
            memcpy(op.out->x + r * d, x->x + (size_t)at[r] * d, d * sizeof *x->x);
        else
            memset(op.out->x + r * d, 0, d * sizeof *x->x);
    }
    return op.out;
}

/* ---- weighted sums and biases ---------------------------------------------------------------- */

struct mix {
    sb_real a, b;
};

static void mix_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    const struct mix *mix = op->extra;
    const sb_real factor[2] = { mix->a, mix->b };
    size_t n = op->out->rows * op->out->cols;
    for (size_t i = 0; i < 2; i++) {
        struct sb_var *in = op->in[i];
        if (!wants_grad(in))
            continue;
        sb_real keep = claim_grad(in);
        const sb_real *dy = op->out->dx;
#pragma omp parallel for schedule(static)
        for (size_t j = 0; j < n; j++) {
            sb_real g = factor[i] * dy[j];
            in->dx[j] = keep != 0 ? in->dx[j] + g : g;
        }
    }
}

struct sb_var *sb_tape_mix(struct sb_tape *tape, struct sb_var *x, sb_real a, struct sb_var *y,
                           sb_real b)
{
    if (!x || !y)
        return NULL;
    assert(x->rows == y->rows && x->cols == y->cols);
    struct mix *mix = sb_tape_alloc(tape, 1, sizeof *mix);
    struct sb_op op = { .backward = mix_backward, .in = { x, y }, .extra = mix };
    op.out = sb_tape_output(tape, &op, x->rows, x->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    *mix = (struct mix){ a, b };
    size_t n = x->rows * x->cols;
    sb_real *out = op.out->x;
#pragma omp parallel for schedule(static)
    for (size_t j = 0; j < n; j++)
        out[j] = a * x->x[j] + b * y->x[j];
    return op.out;
}

void sb_add_bias_grad(const struct sb_var *y, struct sb_var *bias)
{
    size_t n = y->cols;
    if (claim_grad(bias) == 0)
        memset(bias->dx, 0, n * sizeof *bias->dx);
    for (size_t r = 0; r < y->rows; r++)
        for (size_t j = 0; j < n; j++)
            bias->dx[j] += y->dx[r * n + j];
}

static void bias_backward(struct sb_tape *tape, const struct sb_op *op)
{
    (void)tape;
    struct sb_var *x = op->in[0];
    if (wants_grad(x)) {
        sb_real keep = claim_grad(x);
        add_block(x->dx, x->rows, x->cols, op->out->dx, x->cols, keep);
    }
    if (wants_grad(op->in[1]))
        sb_add_bias_grad(op->out, op->in[1]);
}

struct sb_var *sb_tape_add_bias(struct sb_tape *tape, struct sb_var *x, struct sb_var *bias)
{
    if (!x || !bias)
        return NULL;
    assert(bias->rows == 1 && bias->cols == x->cols);
    struct sb_op op = { .backward = bias_backward, .in = { x, bias } };
    op.out = sb_tape_output(tape, &op, x->rows, x->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    for (size_t r = 0; r < x->rows; r++)
        for (size_t j = 0; j < x->cols; j++)
            op.out->x[r * x->cols + j] = x->x[r * x->cols + j] + bias->x[j];
    return op.out;
}

/* Functions of one element: SiLU, and GELU in its exact form x * Phi(x). */
#include "harness/train/internal.h"

struct activation {
    void (*forward)(sb_real *y, const sb_real *x, size_t n);
    void (*slope)(sb_real *slope, const sb_real *x, size_t n);
};

SB_CLONES static void silu(sb_real *y, const sb_real *x, size_t n)
{
    for (size_t j = 0; j < n; j++)
        y[j] = x[j] / (1 + sb_real_exp(-x[j]));
}

SB_CLONES static void silu_slope(sb_real *slope, const sb_real *x, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        sb_real s = 1 / (1 + sb_real_exp(-x[j]));
        slope[j] = s + x[j] * s * (1 - s);
    }
}

static sb_real normal_cdf(sb_real x)
{
    return (sb_real)(0.5 * (1 + erf((double)x * 0.70710678118654752440)));
}

static void gelu(sb_real *y, const sb_real *x, size_t n)
{
    for (size_t j = 0; j < n; j++)
        y[j] = x[j] * normal_cdf(x[j]);
}

static void gelu_slope(sb_real *slope, const sb_real *x, size_t n)
{
    const sb_real density = (sb_real)0.39894228040143267794; /* 1 / sqrt(2 pi) */
    for (size_t j = 0; j < n; j++)
        slope[j] = normal_cdf(x[j]) + x[j] * density * sb_real_exp(x[j] * x[j] * (sb_real)-0.5);
}

static const struct activation silu_record = { silu, silu_slope };
static const struct activation gelu_record = { gelu, gelu_slope };

static void activation_backward(struct sb_tape *tape, const struct sb_op *op)
{
    const struct activation *f = op->extra;
    struct sb_var *x = op->in[0];
    size_t n = x->cols, m = x->rows;
    sb_real *slope = sb_tape_alloc(tape, m * n, sizeof *slope);
    if (!slope)
        return;
    sb_real keep = claim_grad(x);
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < m; r++) {
        f->slope(slope + r * n, x->x + r * n, n);
        for (size_t j = r * n; j < (r + 1) * n; j++) {
            sb_real g = op->out->dx[j] * slope[j];
            x->dx[j] = keep != 0 ? x->dx[j] + g : g;
        }
    }
}

static struct sb_var *activate(struct sb_tape *tape, struct sb_var *x, const struct activation *f)
{
    if (!x)
        return NULL;
    struct sb_op op = { .backward = activation_backward, .in = { x }, .extra = f };
    op.out = sb_tape_output(tape, &op, x->rows, x->cols);
    if (!op.out || !sb_tape_record(tape, &op))
        return NULL;
    size_t n = x->cols;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < x->rows; r++)
        f->forward(op.out->x + r * n, x->x + r * n, n);
    return op.out;
}

struct sb_var *sb_tape_silu(struct sb_tape *tape, struct sb_var *x)
{
    return activate(tape, x, &silu_record);
}

struct sb_var *sb_tape_gelu(struct sb_tape *tape, struct sb_var *x)
{
    return activate(tape, x, &gelu_record);
}

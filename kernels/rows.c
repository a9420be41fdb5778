/* Row operations: rows, or columns of elementwise ones, are parts of a team's loop. */
#include <math.h>

#include "kernels/internal.h"

/* Multiply-adds in the time of an element. */
enum { NORM_WORK = 4, SWIGLU_WORK = 16 };

struct norm_loop {
    float *y;
    size_t ldy;
    const float *x;
    size_t ldx;
    const float *weight;
    size_t d;
    float eps;
};

static void norm_rows(const void *arg, size_t first, size_t last, size_t member)
{
    const struct norm_loop *l = arg;
    const struct sb_kernel_table *kernels = sb_kernels();
    for (size_t r = first; r < last; r++)
        kernels->rmsnorm(l->y + r * l->ldy, l->x + r * l->ldx, l->weight, l->d, l->eps);
}

void sb_rmsnorm(const struct sb_team *team, float *y, size_t ldy, const float *x, size_t ldx,
                const float *weight, size_t d, size_t m, float eps)
{
    const struct norm_loop loop = { y, ldy, x, ldx, weight, d, eps };
    sb_team_for(team, m, NORM_WORK * m * d, norm_rows, &loop);
}

enum { COLUMNS = 64 };

struct swiglu_loop {
    float *gate;
    size_t ldg;
    const float *up;
    size_t ldu, n, m;
};

static void swiglu_columns(const void *arg, size_t first, size_t last, size_t member)
{
    const struct swiglu_loop *l = arg;
    const struct sb_kernel_table *kernels = sb_kernels();
    size_t from = first * COLUMNS, to = last * COLUMNS < l->n ? last * COLUMNS : l->n;
    for (size_t r = 0; r < l->m; r++)
        kernels->swiglu(l->gate + r * l->ldg + from, l->up + r * l->ldu + from, to - from);
}

void sb_swiglu(const struct sb_team *team, float *gate, size_t ldg, const float *up, size_t ldu,
               size_t n, size_t m)
{
    const struct swiglu_loop loop = { gate, ldg, up, ldu, n, m };
    sb_team_for(team, (n + COLUMNS - 1) / COLUMNS, SWIGLU_WORK * m * n, swiglu_columns, &loop);
}

void sb_add(float *y, const float *x, size_t n)
{
    sb_kernels()->add(y, x, n);
}

static float log_sum(float max, float scale, float sum)
{
    return (float)((double)max * (double)scale + sb_log((double)sum));
}

float sb_softmax(float *prob, const float *x, size_t n, float scale)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    float max = kernels->largest(x, n);
    float sum = kernels->sum_exp(prob, x, n, scale, max);
    kernels->divide(prob, prob, n, sum);
    return log_sum(max, scale, sum);
}

float sb_logsumexp(const float *x, size_t n)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    float max = kernels->largest(x, n);
    return log_sum(max, 1.0f, kernels->sum_exp(NULL, x, n, 1.0f, max));
}

size_t sb_argmax(const float *x, size_t n)
{
    return sb_kernels()->argmax(x, n);
}

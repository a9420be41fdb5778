/* Row operations: rows are shared out over threads, a row is never split. */
#include <math.h>

#include "kernels/internal.h"

void sb_rmsnorm(float *y, size_t ldy, const float *x, size_t ldx, const float *weight, size_t d,
                size_t m, float eps)
{
    const struct sb_kernel_table *kernels = sb_kernels();
#pragma omp parallel for schedule(static) if (m > 1 && sb_worth_threads(m * d))
    for (size_t r = 0; r < m; r++)
        kernels->rmsnorm(y + r * ldy, x + r * ldx, weight, d, eps);
}

void sb_swiglu(float *gate, size_t ldg, const float *up, size_t ldu, size_t n, size_t m)
{
    const struct sb_kernel_table *kernels = sb_kernels();
#pragma omp parallel for schedule(static) if (m > 1 && sb_worth_threads(m * n * 4))
    for (size_t r = 0; r < m; r++)
        kernels->swiglu(gate + r * ldg, up + r * ldu, n);
}

void sb_add(float *y, const float *x, size_t n)
{
    sb_kernels()->add(y, x, n);
}

static float log_sum(float max, float sum)
{
    return (float)((double)max + sb_log((double)sum));
}

float sb_softmax(float *prob, const float *x, size_t n, float scale)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    float max = kernels->max_scaled(x, n, scale);
    float sum = kernels->sum_exp(prob, x, n, scale, max);
    kernels->divide(prob, n, sum);
    return log_sum(max, sum);
}

float sb_logsumexp(const float *x, size_t n)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    float max = kernels->max_scaled(x, n, 1.0f);
    return log_sum(max, kernels->sum_exp(NULL, x, n, 1.0f, max));
}

size_t sb_argmax(const float *x, size_t n)
{
    return sb_kernels()->argmax(x, n);
}

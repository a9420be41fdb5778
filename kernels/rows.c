/* Row operations: rows, or columns of elementwise ones, are shared out over the team. */
#include <math.h>

#include "kernels/internal.h"

void sb_rmsnorm(const struct sb_team *team, float *y, size_t ldy, const float *x, size_t ldx,
                const float *weight, size_t d, size_t m, float eps)
{
    const struct sb_kernel_table *kernels = sb_kernels();
    struct sb_share share = sb_team_share(team, m);
    for (size_t r = share.first; r < share.last; r++)
        kernels->rmsnorm(y + r * ldy, x + r * ldx, weight, d, eps);
}

void sb_swiglu(const struct sb_team *team, float *gate, size_t ldg, const float *up, size_t ldu,
               size_t n, size_t m)
{
    enum { COLUMNS = 64 };
    const struct sb_kernel_table *kernels = sb_kernels();
    struct sb_share share = sb_team_share(team, (n + COLUMNS - 1) / COLUMNS);
    size_t first = share.first * COLUMNS,
           last = share.last * COLUMNS < n ? share.last * COLUMNS : n;
    for (size_t r = 0; r < m && first < last; r++)
        kernels->swiglu(gate + r * ldg + first, up + r * ldu + first, last - first);
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

#include "results/specbench_formula.h"

#include <math.h>

static double mean_rate(const struct sb_specbench_answer *answer, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += answer[i].tokens / answer[i].time;
    return n ? sum / (double)n : NAN;
}

double sb_specbench_speedup(const struct sb_specbench_answer *method, size_t n_method,
                            const struct sb_specbench_answer *base, size_t n_base)
{
    return mean_rate(method, n_method) / mean_rate(base, n_base);
}

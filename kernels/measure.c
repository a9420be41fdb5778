/* The two rates a forward is held against: reading memory, multiplying and adding. */
#include <omp.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "kernels/internal.h"

enum { PASSES = 5, BUFFER_FLOATS = 64 << 20, BLOCK_FLOATS = 1 << 16, SPINS = 1 << 18 };

double sb_measure_read_rate(void)
{
    const struct sb_kernel_table *table = sb_kernels();
    float *buffer = sb_alloc_aligned(BUFFER_FLOATS, sizeof *buffer);
    double best = 0, sum = 0;
    if (!buffer)
        return 0;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < BUFFER_FLOATS; i++) /* by the threads that will read it */
        buffer[i] = 1;
    for (int pass = 0; pass < PASSES; pass++) {
        uint64_t start = sb_now_ns();
#pragma omp parallel for schedule(static) reduction(+ : sum)
        for (size_t i = 0; i < BUFFER_FLOATS; i += BLOCK_FLOATS)
            sum += (double)table->stream(buffer + i, BLOCK_FLOATS);
        double rate = BUFFER_FLOATS * sizeof *buffer * 1e9 / (double)(sb_now_ns() - start);
        best = rate > best ? rate : best;
    }
    sb_free(buffer);
    return sum > 0 ? best : 0;
}

double sb_measure_fma_rate(void)
{
    const struct sb_kernel_table *table = sb_kernels();
    double best = 0;
    for (int pass = 0; pass < PASSES; pass++) {
        double operations = 0;
        uint64_t start = sb_now_ns();
#pragma omp parallel reduction(+ : operations)
        {
            float sink[16];
            operations += 2.0 * (double)table->spin(sb_cpu_active() ? SPINS : SPINS / 64, sink);
        }
        double rate = operations * 1e9 / (double)(sb_now_ns() - start);
        best = rate > best ? rate : best;
    }
    return best;
}

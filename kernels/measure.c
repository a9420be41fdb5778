/* The two rates a forward is held against: reading memory, multiplying and adding. */
#include <stdatomic.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/threads.h"
#include "kernels/internal.h"

enum { BUFFER_FLOATS = 64 << 20, BLOCK_FLOATS = 1 << 16 }; /* far beyond any cache */
enum { SPINS = 1 << 14, SPIN_PARTS = 128 };                /* some milliseconds */

struct sb_meter {
    float *buffer;
};

/* A loop, and where its parts leave what they did, so that none of it can be left out. */
struct meter_loop {
    const float *buffer;
    atomic_size_t *operations;
    _Atomic float *sink;
};

struct sb_meter *sb_meter_create(void)
{
    struct sb_meter *meter = sb_alloc_zero(1, sizeof *meter);
    if (!meter)
        return NULL;
    meter->buffer = sb_alloc_aligned(BUFFER_FLOATS, sizeof *meter->buffer);
    if (!meter->buffer) {
        sb_free(meter);
        return NULL;
    }
    for (size_t i = 0; i < BUFFER_FLOATS; i++) /* pages that nobody wrote to share one */
        meter->buffer[i] = 1;
    return meter;
}

void sb_meter_destroy(struct sb_meter *meter)
{
    if (!meter)
        return;
    sb_free(meter->buffer);
    sb_free(meter);
}

static double seconds_of(size_t n, void (*part)(const void *, size_t, size_t, size_t),
                         const struct meter_loop *loop)
{
    const struct sb_team *team = sb_team_begin((size_t)sb_threads_get());
    uint64_t start = sb_now_ns();
    sb_team_for(team, n, BUFFER_FLOATS, part, loop);
    double seconds = (double)(sb_now_ns() - start) * 1e-9;
    sb_team_end(team);
    return seconds;
}

static void read_blocks(const void *arg, size_t first, size_t last, size_t member)
{
    const struct meter_loop *loop = arg;
    float sum =
        sb_kernels()->stream(loop->buffer + first * BLOCK_FLOATS, (last - first) * BLOCK_FLOATS);
    atomic_store_explicit(loop->sink, sum, memory_order_relaxed);
}

double sb_meter_read_rate(const struct sb_meter *meter)
{
    _Atomic float sink = 0;
    const struct meter_loop loop = { .buffer = meter->buffer, .sink = &sink };
    return BUFFER_FLOATS * sizeof *meter->buffer /
           seconds_of(BUFFER_FLOATS / BLOCK_FLOATS, read_blocks, &loop);
}

static void spin_parts(const void *arg, size_t first, size_t last, size_t member)
{
    const struct meter_loop *loop = arg;
    size_t spins = (sb_cpu_active() ? SPINS : SPINS / 64) * (last - first);
    float sink[16];
    atomic_fetch_add_explicit(loop->operations, 2 * sb_kernels()->spin(spins, sink),
                              memory_order_relaxed);
    atomic_store_explicit(loop->sink, sink[0], memory_order_relaxed);
}

double sb_meter_fma_rate(void)
{
    _Atomic float sink = 0;
    atomic_size_t operations = 0;
    const struct meter_loop loop = { .operations = &operations, .sink = &sink };
    double seconds = seconds_of(SPIN_PARTS, spin_parts, &loop);
    return (double)operations / seconds;
}

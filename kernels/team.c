#include "kernels/team.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>

/* Looks at the barrier before the processor is offered to others: some 50 us. An idle machine never
 * gets there; on a busy one the thread waited for may need this very core. */
enum { SPINS = 4000 };

static inline void pause_thread(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void sb_team_wait(const struct sb_team *team)
{
    if (!team || team->count < 2)
        return;
    struct sb_barrier *b = team->barrier;
    size_t round = atomic_load_explicit(&b->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) + 1 == team->count) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->round, round + 1, memory_order_release);
        return;
    }
    for (int spins = 0; atomic_load_explicit(&b->round, memory_order_acquire) == round; spins++) {
        if (spins < SPINS) {
            pause_thread();
        } else {
            sched_yield();
            spins = SPINS;
        }
    }
}

void sb_team_run(size_t n, void (*work)(const struct sb_team *team, void *arg), void *arg)
{
    struct sb_barrier barrier = { 0 };
    if (n < 2) {
        work(NULL, arg);
        return;
    }
#pragma omp parallel num_threads((int)n)
    {
        const struct sb_team team = { .index = (size_t)omp_get_thread_num(),
                                      .count = (size_t)omp_get_num_threads(),
                                      .barrier = &barrier };
        work(&team, arg);
    }
}

size_t sb_team_size(size_t multiply_adds)
{
    bool worth = multiply_adds > 512 * 1024 && !omp_in_parallel();
    return worth ? (size_t)omp_get_max_threads() : 1;
}

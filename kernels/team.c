#define _GNU_SOURCE
#include "kernels/team.h"

#include <omp.h>
#include <sched.h>
#include <stdbool.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Looks at the barrier before a thread sleeps: some 40 us, more than shares of work differ by on an idle
 * machine. */
enum { SPINS = 2000 };

static inline void pause_thread(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Sleep while *word is `value`; may return early. */
static void sleep_while(atomic_uint *word, unsigned value)
{
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
    sched_yield();
#endif
}

static void wake_all(atomic_uint *word)
{
#ifdef __linux__
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
#endif
}

void sb_team_wait(const struct sb_team *team)
{
    if (!team || team->count < 2)
        return;
    struct sb_barrier *b = team->barrier;
    unsigned round = atomic_load_explicit(&b->round, memory_order_acquire);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) + 1 == team->count) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        /* Either the sleeper sees the new round, or this sees the sleeper. */
        atomic_store(&b->round, round + 1);
        if (atomic_load(&b->sleepers) > 0)
            wake_all(&b->round);
        return;
    }
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(&b->round, memory_order_acquire) != round)
            return;
        pause_thread();
    }
    atomic_fetch_add(&b->sleepers, 1);
    while (atomic_load(&b->round) == round)
        sleep_while(&b->round, round);
    atomic_fetch_sub(&b->sleepers, 1);
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

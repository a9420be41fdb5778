/* A pool of threads that sleep between teams, and the barrier inside one. OpenMP's own threads spin for
 * milliseconds before they sleep, which on a busy machine takes the processor from the very thread that
 * is waited for. */
#define _GNU_SOURCE
#include "kernels/team.h"

#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Looks at a word before a thread sleeps: some 40 us, more than shares of work differ by on an idle
 * machine, and than the time between two forwards of a decoding loop. */
enum { SPINS = 2000, MOST_THREADS = 256, JOB_STEP = 512 };

/* Some 200 us of one core's work. Below, a team gains little, and on a busy machine each wait of its
 * threads for each other may cost a scheduler's slice. */
enum { WORTH_A_TEAM = 6 * 1000 * 1000 };

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

/* Until *word is no longer `value`. */
static void wait_for_change(atomic_uint *word, atomic_uint *sleepers, unsigned value)
{
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value)
            return;
        pause_thread();
    }
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == value)
        sleep_while(word, value);
    atomic_fetch_sub(sleepers, 1);
}

/* Either a sleeper sees the new value, or this sees the sleeper. */
static void change(atomic_uint *word, atomic_uint *sleepers, unsigned value)
{
    atomic_store(word, value);
#ifdef __linux__
    if (atomic_load(sleepers) > 0)
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, MOST_THREADS, NULL, NULL, 0);
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
        change(&b->round, &b->sleepers, round + 1);
        return;
    }
    wait_for_change(&b->round, &b->sleepers, round);
}

/* ---- the pool --------------------------------------------------------------------------------- */

static struct {
    pthread_mutex_t lock; /* held by the thread whose team is running */
    size_t n_workers;
    struct sb_barrier barrier;
    /* What the team at hand does; stays until all of its threads are done. */
    void (*work)(const struct sb_team *team, void *arg);
    void *arg;
    /* Its size, plus JOB_STEP times a running number: a worker reads both at once, since one that is
     * not in this team may look when the next is already being made. */
    _Alignas(64) atomic_uint job, sleepers;
} pool = { .lock = PTHREAD_MUTEX_INITIALIZER };

static _Thread_local bool in_team;

static void *worker(void *index)
{
    unsigned job = 0;
    in_team = true;
    for (;;) {
        wait_for_change(&pool.job, &pool.sleepers, job);
        job = atomic_load(&pool.job);
        const struct sb_team team = { (size_t)index, job % JOB_STEP, &pool.barrier };
        if (team.index < team.count) {
            pool.work(&team, pool.arg);
            sb_team_wait(&team);
        }
    }
    return NULL;
}

/* A child has the pool's variables and none of its threads. */
static void forget_workers(void)
{
    pool.n_workers = 0;
    atomic_store(&pool.job, 0);
    atomic_store(&pool.sleepers, 0);
    pthread_mutex_init(&pool.lock, NULL);
}

/* Make the pool large enough; returns how many threads a team can have. */
static size_t grow_pool(size_t n)
{
    static bool registered;
    if (!registered)
        registered = pthread_atfork(NULL, NULL, forget_workers) == 0;
    while (pool.n_workers + 1 < n && pool.n_workers + 1 < MOST_THREADS) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(pool.n_workers + 1)) != 0)
            break;
        pthread_detach(thread);
        pool.n_workers++;
    }
    return n < pool.n_workers + 1 ? n : pool.n_workers + 1;
}

void sb_team_run(size_t n, void (*work)(const struct sb_team *team, void *arg), void *arg)
{
    /* Another thread's team has the pool: this one works alone. */
    if (n < 2 || in_team || pthread_mutex_trylock(&pool.lock) != 0) {
        work(NULL, arg);
        return;
    }
    const struct sb_team team = { 0, grow_pool(n), &pool.barrier };
    in_team = true;
    pool.work = work;
    pool.arg = arg;
    if (team.count > 1)
        change(&pool.job, &pool.sleepers,
               (atomic_load(&pool.job) / JOB_STEP + 1) * JOB_STEP + (unsigned)team.count);
    work(&team, arg);
    sb_team_wait(&team);
    in_team = false;
    pthread_mutex_unlock(&pool.lock);
}

size_t sb_team_size(size_t multiply_adds)
{
    bool worth = multiply_adds >= WORTH_A_TEAM && !in_team && !omp_in_parallel();
    return worth ? (size_t)omp_get_max_threads() : 1;
}

/* A pool of threads that sleep between teams, and the loops they share. OpenMP's own threads spin for
 * milliseconds before they sleep, which on a busy machine takes the processor from the very thread that
 * is waited for.
 *
 * A loop is published as one word: its number, its members, the parts of each. A member's claim word says
 * of which loop its parts are being taken, and how many are. Who takes a part, one's own or another's,
 * advances that word by compare-and-swap with the number of the loop it means. A word of an earlier loop
 * means that no part is taken; nobody resets it.
 *
 * Why a late thread does no harm: a loop ends when all its parts are done, so the claim words of its
 * members then stand at the last part, or belong to later loops; they never go back. Which members, and
 * how many parts, is in the published word itself. So a claim for an ended loop finds nothing, whenever
 * it comes, and a claim that succeeds is for a loop that waits for it: only then is the rest of the
 * description read, which the caller cannot change before that part is done. */
#define _GNU_SOURCE
#include "kernels/team.h"

#include <limits.h>
#include <omp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/internal.h"

/* Looks at a word before a thread sleeps: some 40 us, more than parts differ by on an idle machine, and
 * than the time between two forwards of a decoding loop. */
enum { SPINS = 2000 };

/* Some 200 us of one core's work. Below, a team gains little. */
enum { WORTH_A_TEAM = 6 * 1000 * 1000 };

/* A member is worth calling for more than a loop costs, a few tenths of a microsecond. Its range is halved
 * again and again, down to parts of four times that: few parts, so that each reads memory in one go, and small
 * ones at the end, which whoever is done first can take over. */
enum { WORTH_A_MEMBER = 30 * 1000, WORTH_A_PART = 4 * WORTH_A_MEMBER, PARTS_EACH = 8 };

/* Loop: number, parts of a member, members. Claim: number, parts taken. At a million loops a second
 * their numbers last for nine years. */
enum { COUNT_BITS = 8, EACH_BITS = 8, LOW_BITS = COUNT_BITS + EACH_BITS };
_Static_assert(PARTS_EACH < 1 << EACH_BITS && SB_TEAM_MOST < 1 << COUNT_BITS,
               "parts of a member, and members, fit a word");

struct claim {
    _Alignas(64) atomic_uint_least64_t word;
};

static struct {
    atomic_bool taken; /* by the thread whose team it is */
    size_t n_workers;
    struct sb_team team;
    atomic_uint wanted; /* threads of the last team: others sleep until this changes */
    /* What the open loop does; read by those who hold a part of it. */
    _Alignas(64) atomic_uint_least64_t loop;
    void (*part)(const void *arg, size_t first, size_t last, size_t member);
    const void *arg;
    size_t n;
    /* Set by who is about to sleep, cleared by who wakes it. */
    _Alignas(64) atomic_uint workers_asleep;
    _Alignas(64) atomic_size_t done; /* parts of the open loop that workers did */
    atomic_uint caller_asleep;
    struct claim claim[SB_TEAM_MOST];
} pool;

static _Thread_local bool in_team;

/* ---- waiting ------------------------------------------------------------------------------------ */

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
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
#endif
}

/* After a change that sleepers wait for: either they see it before they sleep, or this sees their flag. */
static void wake_sleepers(atomic_uint *asleep)
{
    if (atomic_load(asleep) && atomic_exchange(asleep, 0))
        wake_all(asleep);
}

/* The word of a loop other than `last`. */
static uint64_t next_loop(uint64_t last)
{
    uint64_t word;
    for (int spins = 0; spins < SPINS; spins++) {
        word = atomic_load_explicit(&pool.loop, memory_order_acquire);
        if (word != last)
            return word;
        pause_thread();
    }
    for (;;) {
        atomic_store(&pool.workers_asleep, 1);
        word = atomic_load(&pool.loop);
        if (word != last)
            return word;
        sleep_while(&pool.workers_asleep, 1);
    }
}

/* Until workers have done n parts. */
static void wait_for_workers(size_t n)
{
    for (int spins = 0; spins < SPINS; spins++) {
        if (atomic_load_explicit(&pool.done, memory_order_acquire) == n)
            return;
        pause_thread();
    }
    for (;;) {
        atomic_store(&pool.caller_asleep, 1);
        if (atomic_load(&pool.done) == n)
            break;
        sleep_while(&pool.caller_asleep, 1);
    }
    atomic_store_explicit(&pool.caller_asleep, 0, memory_order_relaxed);
}

/* ---- parts -------------------------------------------------------------------------------------- */

/* The next of the `each` parts of a member in loop `number`; `each` when all are taken. */
static size_t claim_part(struct claim *claim, uint64_t number, size_t each)
{
    uint64_t word = atomic_load_explicit(&claim->word, memory_order_relaxed);
    for (;;) {
        uint64_t of = word >> LOW_BITS;
        size_t taken = of == number ? word % (1 << LOW_BITS) : 0;
        if (of > number || taken >= each)
            return each;
        if (atomic_compare_exchange_weak_explicit(&claim->word, &word,
                                                  number << LOW_BITS | (taken + 1),
                                                  memory_order_relaxed, memory_order_relaxed))
            return taken;
    }
}

/* Where part i of a member's range begins: each is half of what is left, the last one the rest. */
static size_t cut_at(size_t of, size_t count, size_t i, size_t each)
{
    size_t first = pool.n * of / count, last = pool.n * (of + 1) / count;
    return i < each ? last - ((last - first) >> i) : last;
}

/* Take parts, one's own and then the others', until none is left; returns how many. */
static size_t take_parts(uint64_t word, size_t member)
{
    const size_t count = word % (1 << COUNT_BITS), each = (word >> COUNT_BITS) % (1 << EACH_BITS);
    size_t n_taken = 0;
    for (size_t i = 0; i < count; i++) {
        size_t of = member + i < count ? member + i : member + i - count, p;
        while ((p = claim_part(&pool.claim[of], word >> LOW_BITS, each)) < each) {
            pool.part(pool.arg, cut_at(of, count, p, each), cut_at(of, count, p + 1, each), member);
            n_taken++;
        }
    }
    return n_taken;
}

void sb_team_for(const struct sb_team *team, size_t n, size_t work,
                 void (*part)(const void *arg, size_t first, size_t last, size_t member),
                 const void *arg)
{
    size_t count = team ? sb_least(team->count, sb_least(work / WORTH_A_MEMBER, n)) : 1;
    if (count < 2) {
        if (n > 0)
            part(arg, 0, n, 0);
        return;
    }
    size_t worth = sb_least(work / WORTH_A_PART, n) / count, each = 1;
    while (each < PARTS_EACH && worth >> each > 0)
        each++;
    uint64_t last = atomic_load_explicit(&pool.loop, memory_order_relaxed) >> LOW_BITS;
    uint64_t word = (last + 1) << LOW_BITS | each << COUNT_BITS | count;
    pool.part = part;
    pool.arg = arg;
    pool.n = n;
    atomic_store_explicit(&pool.done, 0, memory_order_relaxed);
    atomic_store(&pool.loop, word);
    wake_sleepers(&pool.workers_asleep);
    wait_for_workers(count * each - take_parts(word, 0));
}

/* ---- the pool ----------------------------------------------------------------------------------- */

static void *worker(void *index)
{
    const size_t member = (size_t)index;
    uint64_t word = 0;
    in_team = true;
    for (;;) {
        for (unsigned n; (n = atomic_load(&pool.wanted)) <= member;)
            sleep_while(&pool.wanted, n);
        word = next_loop(word);
        size_t done = member < word % (1 << COUNT_BITS) ? take_parts(word, member) : 0;
        if (done > 0) {
            atomic_fetch_add(&pool.done, done);
            wake_sleepers(&pool.caller_asleep);
        }
    }
    return NULL;
}

/* A child has the pool's variables and none of its threads. */
static void forget_workers(void)
{
    pool.n_workers = 0;
    atomic_store(&pool.workers_asleep, 0);
    atomic_store(&pool.taken, in_team);
}

/* Make the pool large enough; returns how many threads a team can have. */
static size_t grow_pool(size_t n)
{
    static bool registered;
    if (!registered)
        registered = pthread_atfork(NULL, NULL, forget_workers) == 0;
    while (pool.n_workers + 1 < n && pool.n_workers + 1 < SB_TEAM_MOST) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, worker, (void *)(pool.n_workers + 1)) != 0)
            break;
        pthread_detach(thread);
        pool.n_workers++;
    }
    return n < pool.n_workers + 1 ? n : pool.n_workers + 1;
}

const struct sb_team *sb_team_begin(size_t n)
{
    if (n < 2 || in_team || atomic_exchange(&pool.taken, true))
        return NULL;
    pool.team.count = grow_pool(n);
    in_team = true;
    if (atomic_load(&pool.wanted) != pool.team.count) {
        atomic_store(&pool.wanted, (unsigned)pool.team.count);
        wake_all(&pool.wanted);
    }
    return &pool.team;
}

void sb_team_end(const struct sb_team *team)
{
    if (!team)
        return;
    in_team = false;
    atomic_store(&pool.taken, false);
}

size_t sb_team_size(size_t multiply_adds)
{
    bool worth = multiply_adds >= WORTH_A_TEAM && !in_team && !omp_in_parallel();
    return worth ? (size_t)omp_get_max_threads() : 1;
}

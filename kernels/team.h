/* A team of threads that works through many kernels together, from start to end of a forward.
 *
 * Kernels never make threads: each takes the team it is called with and does its own share, and the
 * caller puts a wait between a kernel that writes and one that reads. Waiting threads spin, so a forward
 * makes no system call on an idle machine. On a busy one they soon sleep, which leaves the processor to
 * the thread they wait for. A NULL team is the calling thread alone. */
#ifndef SB_KERNELS_TEAM_H
#define SB_KERNELS_TEAM_H

#include <stdatomic.h>
#include <stddef.h>

struct sb_barrier {
    _Alignas(64) atomic_uint arrived;
    _Alignas(64) atomic_uint round, sleepers;
};

struct sb_team { /* as one of its threads sees it */
    size_t index, count;
    struct sb_barrier *barrier;
};

/* Run work(team, arg) on each of n threads (or as many as the system gives), the caller among them;
 * returns when all are done. Threads are made on first use and kept. */
void sb_team_run(size_t n, void (*work)(const struct sb_team *team, void *arg), void *arg);

/* Threads worth gathering for this many multiply-adds: one for little work and inside another team; else
 * all that sb_threads_set allows. */
size_t sb_team_size(size_t multiply_adds);

/* Until every thread of the team is here. What they wrote before is then visible to all. */
void sb_team_wait(const struct sb_team *team);

/* The caller's share of 0..n-1: first..last-1, in ascending order by thread. */
struct sb_share {
    size_t first, last;
};
static inline struct sb_share sb_team_share(const struct sb_team *team, size_t n)
{
    if (!team)
        return (struct sb_share){ 0, n };
    return (struct sb_share){ n * team->index / team->count, n * (team->index + 1) / team->count };
}

#endif

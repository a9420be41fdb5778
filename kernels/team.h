/* A team of threads for the kernels of a forward, and loops whose parts any of its threads may take.
 *
 * One thread, the caller, runs the pass. Each kernel offers a loop, in parts; the caller takes parts
 * itself, and so do other threads as they are free. So a thread that the system does not run is waited
 * for only when it has begun a part. Threads without work spin for a moment, then sleep: on an idle
 * machine a forward makes no system call, on a busy one they leave the processor to whom has work.
 *
 * A NULL team is the calling thread alone. */
#ifndef SB_KERNELS_TEAM_H
#define SB_KERNELS_TEAM_H

#include <stddef.h>

enum { SB_TEAM_MOST = 255 };

struct sb_team {
    size_t count; /* members, at most SB_TEAM_MOST; the caller is member 0 */
};

/* Members worth gathering for this many multiply-adds: one for little work and inside another team; else
 * all that sb_threads_set allows. */
size_t sb_team_size(size_t multiply_adds);

/* A team of n threads (or as many as the system gives), the caller among them, until sb_team_end by the
 * same thread. NULL when n < 2, inside another team's work, and while another thread has the pool.
 * Threads are made on first use and kept; a child process makes its own. */
const struct sb_team *sb_team_begin(size_t n);
void sb_team_end(const struct sb_team *team); /* accepts NULL */

/* Call part(arg, first, last, member) for ranges that make up 0..n-1, each once; `member` tells calls that
 * run at the same time apart. Returns when all are done, with what they wrote. `work` is what the loop
 * takes, in multiply-adds: little is done in one part by the caller. Members begin with ranges of their
 * own, the same at every call of one size, so what they read may still be in their caches. */
void sb_team_for(const struct sb_team *team, size_t n, size_t work,
                 void (*part)(const void *arg, size_t first, size_t last, size_t member),
                 const void *arg);

#endif

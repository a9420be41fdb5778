#include "harness/certify/each.h"

#include <stdatomic.h>
#include <stdint.h>

#include "harness/core/threads.h"
#include "kernels/team.h"

struct crew {
    void (*job)(void *self, size_t i);
    void *self;
    size_t n;
    atomic_size_t *next;
};

/* One for each thread: jobs differ in length. */
static void work(const void *arg, size_t first, size_t last, size_t member)
{
    const struct crew *crew = arg;
    for (size_t i; (i = atomic_fetch_add(crew->next, 1)) < crew->n;)
        crew->job(crew->self, i);
}

void sb_each(void (*job)(void *self, size_t i), void *self, size_t n)
{
    atomic_size_t next = 0;
    const struct crew crew = { job, self, n, &next };
    size_t threads = (size_t)sb_threads_get();
    const struct sb_team *team = sb_team_begin(threads < n ? threads : n);
    sb_team_for(team, team ? team->count : 1, SIZE_MAX, work, &crew);
    sb_team_end(team);
}

#include "harness/certify/each.h"

#include <stdatomic.h>

#include "harness/core/threads.h"
#include "kernels/team.h"

struct crew {
    void (*job)(void *self, size_t i);
    void *self;
    size_t n;
    atomic_size_t next;
};

static void work(const struct sb_team *team, void *arg)
{
    struct crew *crew = arg;
    for (size_t i; (i = atomic_fetch_add(&crew->next, 1)) < crew->n;)
        crew->job(crew->self, i);
}

void sb_each(void (*job)(void *self, size_t i), void *self, size_t n)
{
    struct crew crew = { .job = job, .self = self, .n = n };
    size_t threads = (size_t)sb_threads_get();
    sb_team_run(threads < n ? threads : n, work, &crew);
}

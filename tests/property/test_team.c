/* Loops of a team: every element is done once, whoever runs, and a team is one caller's at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/core/rng.h"
#include "kernels/team.h"

enum {
    MOST = 3000,
    MEMBERS = 9,
    MUCH = 1 << 30
}; /* work enough for as many parts as there may be */

/* Plain memory on purpose: only the team keeps its threads apart. */
struct loop {
    unsigned char times[MOST];
    size_t busy[MEMBERS][8]; /* scratch of each member, a cache line apart */
    size_t n, members;
    atomic_bool broken;
};

static void mark(const void *arg, size_t first, size_t last, size_t member)
{
    struct loop *loop = *(struct loop *const *)arg;
    if (member >= loop->members || first >= last || last > loop->n) {
        atomic_store(&loop->broken, true);
        return;
    }
    if (loop->busy[member][0]++ != 0)
        atomic_store(&loop->broken, true);
    for (size_t i = first; i < last; i++)
        loop->times[i]++;
    loop->busy[member][0]--;
}

static bool all_once(const struct sb_team *team, struct loop *loop, size_t n, size_t work)
{
    memset(loop->times, 0, n);
    loop->n = n;
    loop->members = team ? team->count : 1;
    sb_team_for(team, n, work, mark, &loop);
    for (size_t i = 0; i < n; i++)
        if (loop->times[i] != 1)
            return false;
    return !atomic_load(&loop->broken);
}

static void many_loops(size_t threads, int loops, uint64_t seed)
{
    static struct loop loop;
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    const struct sb_team *team = sb_team_begin(threads);
    assert_true((team ? team->count : 1) <= threads);
    for (int i = 0; i < loops; i++) {
        size_t most = i % 4 == 0 ? MOST : 40, n = (size_t)(sb_rng_uniform(&rng) * (double)most);
        size_t work = i % 3 == 0 ? (size_t)(sb_rng_uniform(&rng) * 1e6) : MUCH;
        assert_true(all_once(team, &loop, n, work));
        if (i % 100 == 0)
            usleep(200); /* long enough for workers to sleep */
    }
    sb_team_end(team);
}

/* ---- other work on the machine ---- */

static atomic_bool hogs_end;

static void *hog(void *arg)
{
    volatile unsigned long n = 0;
    while (!atomic_load(&hogs_end))
        n++;
    return NULL;
}

static void every_element_is_done_once_beside_other_work(void **state)
{
    (void)state;
    enum { HOGS = 4 };
    pthread_t thread[HOGS];
    atomic_store(&hogs_end, false);
    for (size_t i = 0; i < HOGS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, hog, NULL), 0);
    for (size_t threads = 1; threads <= MEMBERS; threads++)
        many_loops(threads, 2000, threads);
    atomic_store(&hogs_end, true);
    for (size_t i = 0; i < HOGS; i++)
        pthread_join(thread[i], NULL);
}

static void every_element_is_done_once(void **state)
{
    (void)state;
    many_loops(2, 50000, 100);
    for (size_t threads = 1; threads <= MEMBERS; threads++)
        many_loops(threads, 1000, 200 + threads);
    many_loops(2, 5000, 300); /* fewer again: the others stay out */
}

static void little_work_is_one_part(void **state)
{
    (void)state;
    static struct loop loop;
    const struct sb_team *team = sb_team_begin(4);
    assert_non_null(team);
    assert_true(all_once(team, &loop, MOST, 0));
    assert_true(all_once(team, &loop, 0, MUCH));
    assert_true(all_once(team, &loop, 1, MUCH));
    sb_team_end(team);
    assert_true(all_once(NULL, &loop, MOST, MUCH));
}

/* ---- one team at a time ---- */

static void nest(const void *arg, size_t first, size_t last, size_t member)
{
    struct loop *own = calloc(1, sizeof *own);
    const struct sb_team *team = sb_team_begin(4);
    if (team || sb_team_size(MUCH) != 1 || !own || !all_once(team, own, 100, MUCH))
        atomic_store(*(atomic_bool *const *)arg, true);
    sb_team_end(team);
    free(own);
}

static void a_part_works_alone(void **state)
{
    (void)state;
    atomic_bool broken = false, *arg = &broken;
    const struct sb_team *team = sb_team_begin(3);
    assert_non_null(team);
    for (int i = 0; i < 200; i++)
        sb_team_for(team, 12, MUCH, nest, &arg);
    sb_team_end(team);
    assert_false(atomic_load(&broken));
}

struct caller {
    pthread_t thread;
    size_t n_alone;
    bool broken;
};

static void *call(void *arg)
{
    struct caller *caller = arg;
    struct loop *loop = calloc(1, sizeof *loop);
    for (int i = 0; i < 2000 && loop; i++) {
        const struct sb_team *team = sb_team_begin(3);
        caller->n_alone += !team;
        caller->broken = caller->broken || !all_once(team, loop, 50, MUCH);
        sb_team_end(team);
    }
    free(loop);
    return NULL;
}

static void callers_do_not_share_a_team(void **state)
{
    (void)state;
    struct caller caller[3] = { 0 };
    const struct sb_team *team = sb_team_begin(2);
    assert_non_null(team);
    assert_int_equal(pthread_create(&caller[0].thread, NULL, call, &caller[0]), 0);
    pthread_join(caller[0].thread, NULL);
    assert_int_equal(caller[0].n_alone, 2000);
    sb_team_end(team);
    for (size_t i = 1; i < 3; i++)
        assert_int_equal(pthread_create(&caller[i].thread, NULL, call, &caller[i]), 0);
    for (size_t i = 1; i < 3; i++)
        pthread_join(caller[i].thread, NULL);
    for (size_t i = 0; i < 3; i++)
        assert_false(caller[i].broken);
}

/* ---- processes ---- */

/* What a child of this process finds: no worker of its parent's, and its own when it asks. */
static void fork_and_work(const struct sb_team *team)
{
    static struct loop loop;
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(60); /* rather than wait for ever */
        bool good = !team || all_once(team, &loop, 100, MUCH);
        sb_team_end(team);
        team = sb_team_begin(3);
        for (int i = 0; i < 100; i++)
            good = good && team && all_once(team, &loop, 100, MUCH);
        sb_team_end(team);
        _exit(good ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static atomic_bool other_ran, forked;

static void wait_for_fork(const void *arg, size_t first, size_t last, size_t member)
{
    (void)arg, (void)last, (void)member;
    if (first > 0)
        atomic_store(&other_ran, true);
    while (first == 0 && !atomic_load(&forked))
        usleep(100);
}

static void *open_loop(void *arg)
{
    const struct sb_team *team = sb_team_begin(2);
    *(bool *)arg = team != NULL;
    if (team)
        sb_team_for(team, 2, MUCH, wait_for_fork, NULL);
    else
        atomic_store(&other_ran, true);
    sb_team_end(team);
    return NULL;
}

/* A loop of another thread is open, and half of it done: the child has nothing of it to wait for. */
static void a_child_of_an_open_loop(void **state)
{
    (void)state;
    pthread_t thread;
    bool had_team = false;
    assert_int_equal(pthread_create(&thread, NULL, open_loop, &had_team), 0);
    while (!atomic_load(&other_ran))
        usleep(100);
    usleep(2000);
    fork_and_work(NULL);
    atomic_store(&forked, true);
    pthread_join(thread, NULL);
    assert_true(had_team);
    many_loops(3, 10, 600);
}

static void a_child_makes_its_own_threads(void **state)
{
    (void)state;
    many_loops(3, 10, 400);
    fork_and_work(NULL);
    const struct sb_team *team = sb_team_begin(3);
    assert_non_null(team);
    fork_and_work(team);
    sb_team_end(team);
    many_loops(3, 10, 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_element_is_done_once),
        cmocka_unit_test(every_element_is_done_once_beside_other_work),
        cmocka_unit_test(little_work_is_one_part),
        cmocka_unit_test(a_part_works_alone),
        cmocka_unit_test(callers_do_not_share_a_team),
        cmocka_unit_test(a_child_makes_its_own_threads),
        cmocka_unit_test(a_child_of_an_open_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

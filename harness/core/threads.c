#define _GNU_SOURCE
#include "harness/core/threads.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <omp.h>

/* The hardware threads that share `cpu`'s core, as Linux writes them ("0,4" or "0-1"). */
static int read_siblings(int cpu, char *text, int size)
{
    char path[96];
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
    FILE *f = fopen(path, "r");
    if (!f)
        return -1;
    int ok = fgets(text, size, f) ? 0 : -1;
    fclose(f);
    return ok;
}

int sb_threads_physical(void)
{
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return 1;
    int cores = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        char mine[64], theirs[64];
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        int is_first = 1; /* among the allowed hardware threads of its core */
        if (read_siblings(cpu, mine, sizeof mine) == 0)
            for (int other = 0; other < cpu && is_first; other++)
                if (CPU_ISSET(other, &allowed) &&
                    read_siblings(other, theirs, sizeof theirs) == 0 && strcmp(mine, theirs) == 0)
                    is_first = 0;
        cores += is_first;
    }
    return cores > 0 ? cores : 1;
}

void sb_threads_set(int n)
{
    omp_set_num_threads(n < 1 ? sb_threads_physical() : n);
}

int sb_threads_get(void)
{
    return omp_get_max_threads();
}

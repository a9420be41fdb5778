#include "harness/experiment/host.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cblas.h>

#include "commit.h" /* SB_COMMIT, made by the build */
#include "harness/core/threads.h"
#include "kernels/kernels.h"

static void read_cpu_name(char *name, size_t size)
{
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(name, size, "unknown");
    while (f && fgets(line, sizeof line, f)) {
        char *value = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!value)
            continue;
        value += strspn(value, ": \t");
        value[strcspn(value, "\n")] = '\0';
        snprintf(name, size, "%s", value);
        break;
    }
    if (f)
        fclose(f);
}

void sb_host_describe(struct sb_host *host)
{
    struct utsname uts;
    *host = (struct sb_host){ 0 };
    if (gethostname(host->hostname, sizeof host->hostname - 1) != 0)
        snprintf(host->hostname, sizeof host->hostname, "unknown");
    read_cpu_name(host->cpu, sizeof host->cpu);
    if (uname(&uts) == 0)
        snprintf(host->os, sizeof host->os, "%s %s %s", uts.sysname, uts.release, uts.machine);
    snprintf(host->compiler, sizeof host->compiler, "%s", __VERSION__);
    snprintf(host->blas, sizeof host->blas, "%s (%s)", openblas_get_config(),
             openblas_get_corename());
    host->row = (struct sb_host_row){
        .hostname = host->hostname,
        .cpu = host->cpu,
        .isa = sb_cpu_name(sb_cpu_active()),
        .os = host->os,
        .compiler = host->compiler,
        .build_flags = SB_BUILD_FLAGS,
        .specbench_version = SB_VERSION,
        .commit = SB_COMMIT,
        .blas = host->blas,
        .threads = sb_threads_get(),
        .physical_cores = sb_threads_physical(),
        .memory_bytes = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE),
    };
}

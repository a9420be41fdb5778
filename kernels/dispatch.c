/* Which variant runs: the best this machine has, unless SB_CPU or sb_cpu_select asks for another. */
#ifdef SB_HAVE_X86_VARIANTS
#include <cpuid.h>
#endif
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/internal.h"

static const char *const names[SB_CPU_COUNT] = { "generic", "avx2", "avx512" };

static const struct sb_kernel_table *const tables[SB_CPU_COUNT] = {
    [SB_CPU_GENERIC] = &sb_kernels_generic,
#ifdef SB_HAVE_X86_VARIANTS
    [SB_CPU_AVX2] = &sb_kernels_avx2,
    [SB_CPU_AVX512] = &sb_kernels_avx512,
#endif
};

/* Index into tables, or -1 before the first use. Two threads that race here store the same value. */
static atomic_int active = -1;

const char *sb_cpu_name(enum sb_cpu cpu)
{
    return (unsigned)cpu < SB_CPU_COUNT ? names[cpu] : "unknown";
}

#ifdef SB_HAVE_X86_VARIANTS
/* Asked by hand: not every compiler's __builtin_cpu_supports knows the name. AVX itself, and with
 * it the system's support for the registers, is implied by avx2 below. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

bool sb_cpu_supported(enum sb_cpu cpu)
{
    if (cpu == SB_CPU_GENERIC)
        return true;
#ifdef SB_HAVE_X86_VARIANTS
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    if (cpu == SB_CPU_AVX2)
        return avx2;
    if (cpu == SB_CPU_AVX512)
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#endif
    return false;
}

static enum sb_cpu best(void)
{
    int cpu = SB_CPU_COUNT - 1;
    while (!sb_cpu_supported((enum sb_cpu)cpu))
        cpu--;
    return (enum sb_cpu)cpu;
}

int sb_cpu_select(const char *name, const char **why)
{
    const char *reason = NULL;
    enum sb_cpu cpu = best();
    if (name != NULL && *name != '\0') {
        int i = 0;
        while (i < SB_CPU_COUNT && strcmp(name, names[i]) != 0)
            i++;
        if (i == SB_CPU_COUNT)
            reason = "SB_CPU names no variant; there are generic, avx2 and avx512";
        else if (!sb_cpu_supported((enum sb_cpu)i))
            reason = "SB_CPU asks for a variant that this machine cannot run";
        else
            cpu = (enum sb_cpu)i;
    }
    atomic_store(&active, (int)cpu);
    if (why != NULL)
        *why = reason;
    return reason ? -1 : 0;
}

enum sb_cpu sb_cpu_active(void)
{
    if (atomic_load(&active) < 0)
        sb_cpu_select(getenv("SB_CPU"), NULL);
    return (enum sb_cpu)atomic_load(&active);
}

const struct sb_kernel_table *sb_kernels(void)
{
    return tables[sb_cpu_active()];
}

/* Products of bfloat16 with bfloat16 through avx512_bf16: an arithmetic of its own (sb_matmul_fast). */
#include <string.h>

#include "kernels/internal.h"

bool sb_fast_supported(void)
{
#ifdef SB_HAVE_X86_VARIANTS
    __builtin_cpu_init();
    return sb_cpu_active() == SB_CPU_AVX512 && __builtin_cpu_supports("avx512bf16");
#else
    return false;
#endif
}

struct pair_loop {
    uint32_t *pairs;
    size_t ldp;
    const float *x;
    size_t ldx, k, m;
};

/* Words are pairs of neighbours, the earlier one low: rows of bfloat16, as this processor stores them. */
enum { COLUMNS = 64 };

static void round_columns(const void *arg, size_t first, size_t last, size_t member)
{
    const struct pair_loop *l = arg;
    const size_t begin = first * COLUMNS, end = sb_least(last * COLUMNS, l->k);
    for (size_t r = 0; r < l->m; r++) {
        uint16_t *to = (uint16_t *)(l->pairs + r * l->ldp);
        sb_kernels()->round_bf16(to + begin, l->x + r * l->ldx + begin, end - begin);
        if (end % 2 != 0) /* the last word's other half */
            memset(to + end, 0, sizeof *to);
    }
}

void sb_round_pairs(const struct sb_team *team, uint32_t *pairs, size_t ldp, const float *x,
                    size_t ldx, size_t k, size_t m)
{
    const struct pair_loop loop = { pairs, ldp, x, ldx, k, m };
    /* An element takes about a multiply-add's time. */
    sb_team_for(team, (k + COLUMNS - 1) / COLUMNS, m * k, round_columns, &loop);
}

void sb_matmul_fast(const struct sb_team *team, float *y, size_t ldy, const struct sb_packed *w,
                    const uint32_t *pairs, size_t ldp, size_t m, const float *bias, bool add)
{
#ifdef SB_HAVE_X86_VARIANTS
    const struct sb_product job = {
        .type = SB_BF16_DOT,
        .w = w->data,
        .panel_stride = sb_packed_stride(w),
        .n = w->n,
        .k = w->k / 2 + w->k % 2,
        .m = m,
        .x = (const float *)pairs, /* broadcast 32 bits at a time, never computed with as floats */
        .ldx = ldp,
        .y = y,
        .ldy = ldy,
        .bias = bias,
        .add = add,
        .gated = w->gated,
    };
    sb_product_run(team, &job, &w->next, NULL, 0, sb_product_avx512_bf16);
#endif
}

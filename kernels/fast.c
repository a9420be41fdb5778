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

static uint32_t pair_of(const float *x, size_t n)
{
    return sb_f32_to_bf16(x[0]) | (n > 1 ? (uint32_t)sb_f32_to_bf16(x[1]) << 16 : 0);
}

struct pair_loop {
    uint32_t *pairs;
    size_t ldp;
    const float *x;
    size_t ldx, k, m;
};

static void round_words(const void *arg, size_t first, size_t last, size_t member)
{
    const struct pair_loop *l = arg;
    for (size_t r = 0; r < l->m; r++)
        for (size_t i = first; i < last; i++)
            l->pairs[r * l->ldp + i] = pair_of(l->x + r * l->ldx + 2 * i, l->k - 2 * i);
}

void sb_round_pairs(const struct sb_team *team, uint32_t *pairs, size_t ldp, const float *x,
                    size_t ldx, size_t k, size_t m)
{
    enum { WORK = 16 }; /* multiply-adds in the time of an element */
    const struct pair_loop loop = { pairs, ldp, x, ldx, k, m };
    sb_team_for(team, k / 2 + k % 2, WORK * m * k, round_words, &loop);
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

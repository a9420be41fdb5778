/* Rotary position embedding (Su et al. 2021): tables of angles, and their application. */
#include "harness/core/alloc.h"
#include "kernels/internal.h"

int sb_rope_init(struct sb_rope *rope, size_t n_positions, size_t n_dims,
                 enum sb_rope_layout layout, double base, double scale_linear, const float *factors)
{
    size_t pairs = n_dims / 2;
    double log_base = sb_log(base);
    *rope = (struct sb_rope){ .n_positions = n_positions, .n_dims = n_dims, .layout = layout };
    if (pairs != 0 && n_positions > SIZE_MAX / pairs)
        return -1;
    rope->cos = sb_alloc_array(n_positions * pairs, sizeof *rope->cos);
    rope->sin = sb_alloc_array(n_positions * pairs, sizeof *rope->sin);
    if (rope->cos == NULL || rope->sin == NULL) {
        sb_rope_finish(rope);
        return -1;
    }
    for (size_t i = 0; i < pairs; i++) {
        double step = scale_linear * sb_exp(-2.0 * (double)i / (double)n_dims * log_base);
        if (factors)
            step /= (double)factors[i];
        for (size_t p = 0; p < n_positions; p++) {
            double s, c;
            sb_sincos((double)p * step, &s, &c);
            rope->cos[p * pairs + i] = (float)c;
            rope->sin[p * pairs + i] = (float)s;
        }
    }
    return 0;
}

void sb_rope_finish(struct sb_rope *rope)
{
    if (rope == NULL)
        return;
    sb_free(rope->cos);
    sb_free(rope->sin);
    *rope = (struct sb_rope){ 0 };
}

struct rope_loop {
    const struct sb_rope *rope;
    float *x;
    size_t ldx, head_dim;
    const int32_t *pos;
    size_t m;
};

static void rotate_heads(const void *arg, size_t first, size_t last, size_t member)
{
    const struct rope_loop *l = arg;
    const struct sb_kernel_table *kernels = sb_kernels();
    const struct sb_rope *rope = l->rope;
    size_t pairs = rope->n_dims / 2;
    for (size_t i = first; i < last; i++) {
        size_t row = i % l->m, angles = (size_t)l->pos[row] * pairs;
        kernels->rope(l->x + row * l->ldx + i / l->m * l->head_dim, rope->cos + angles,
                      rope->sin + angles, pairs, rope->layout);
    }
}

void sb_rope_apply(const struct sb_team *team, const struct sb_rope *rope, float *x, size_t ldx,
                   size_t n_heads, size_t head_dim, const int32_t *pos, size_t m)
{
    enum { WORK = 4 }; /* multiply-adds in the time of an element */
    const struct rope_loop loop = { rope, x, ldx, head_dim, pos, m };
    sb_team_for(team, m * n_heads, WORK * m * n_heads * head_dim, rotate_heads, &loop);
}

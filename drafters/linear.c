#include "drafters/linear.h"

#include <stdarg.h>
#include <stdio.h>

#include "harness/core/alloc.h"

void sb_linear_finish(struct sb_linear *linear)
{
    sb_packed_finish(&linear->w);
    sb_free(linear->bias);
    *linear = (struct sb_linear){ 0 };
}

enum sb_status sb_linear_init(struct sb_linear *out, const struct sb_tensor *w,
                              const struct sb_tensor *bias, bool f32, const char *name,
                              struct sb_error *err)
{
    struct sb_linear l = { 0 };
    if (bias) {
        l.bias = sb_alloc_array(bias->k, sizeof *l.bias);
        if (l.bias)
            sb_dequantize_row(l.bias, bias->type, bias->data, bias->k);
    }
    if ((bias && !l.bias) || sb_tensor_pack(&l.w, NULL, w, f32) != 0) {
        sb_free(l.bias);
        return sb_fail(err, SB_ENOMEM, "%s: no memory for %zu x %zu weights", name, w->n, w->k);
    }
    *out = l;
    return SB_OK;
}

enum sb_status sb_linear_load(struct sb_linear *out, const struct sb_head_file *head, size_t n,
                              size_t k, enum sb_linear_bias bias, struct sb_error *err,
                              const char *stem, ...)
{
    char name[SB_HEAD_NAME];
    va_list args;
    va_start(args, stem);
    vsnprintf(name, sizeof name, stem, args);
    va_end(args);
    struct sb_tensor w, b;
    enum sb_status rc = sb_head_matrix(head, &w, n, k, err, "%s.weight", name);
    bool biased = bias == SB_BIAS_REQUIRED ||
                  (bias == SB_BIAS_OPTIONAL && sb_head_find(head, "%s.bias", name));
    if (rc == SB_OK && biased)
        rc = sb_head_vector(head, &b, n, err, "%s.bias", name);
    return rc == SB_OK
               ? sb_linear_init(out, &w, biased ? &b : NULL, head->f32_weights, head->path, err)
               : rc;
}

void sb_linear_apply(const struct sb_team *team, const struct sb_linear *linear, float *y,
                     size_t ldy, const float *x, size_t ldx, size_t m, bool add)
{
    const struct sb_matmul_options options = { .bias = linear->bias, .add = add };
    sb_matmul(team, y, ldy, &linear->w, x, ldx, m, &options);
}

/* Columns that stay together, and multiply-adds in the time of an element. */
enum { COLUMNS = 64, SILU_WORK = 16, GELU_WORK = 128 };
static const float ones[COLUMNS] = { [0 ... COLUMNS - 1] = 1 };

struct columns {
    float *x, *y;
    size_t ldx, ldy, n, m;
};

static size_t columns_at(size_t first, size_t n)
{
    return n - first < COLUMNS ? n - first : COLUMNS;
}

/* silu(x) is the gate of a SwiGLU whose other factor is one, so its bits are that kernel's. */
static void silu_columns(const void *arg, size_t first, size_t last, size_t member)
{
    const struct columns *l = arg;
    for (size_t c = first * COLUMNS; c < last * COLUMNS; c += COLUMNS) {
        size_t n = columns_at(c, l->n);
        sb_swiglu(NULL, l->x + c, l->ldx, ones, 0, n, l->m);
        for (size_t r = 0; r < l->m && l->y; r++)
            sb_add(l->y + r * l->ldy + c, l->x + r * l->ldx + c, n);
    }
}

static void gelu_columns(const void *arg, size_t first, size_t last, size_t member)
{
    const struct columns *l = arg;
    for (size_t r = 0; r < l->m; r++)
        for (size_t c = first; c < last; c++) {
            float *v = &l->x[r * l->ldx + c];
            *v = 0.5f * *v * (1.0f + sb_erff(*v * 0x1.6a09e6p-1f));
        }
}

void sb_silu(const struct sb_team *team, float *x, size_t ldx, size_t n, size_t m)
{
    sb_silu_add(team, NULL, 0, x, ldx, n, m);
}

void sb_gelu(const struct sb_team *team, float *x, size_t ldx, size_t n, size_t m)
{
    const struct columns loop = { .x = x, .ldx = ldx, .n = n, .m = m };
    sb_team_for(team, n, GELU_WORK * m * n, gelu_columns, &loop);
}

void sb_silu_add(const struct sb_team *team, float *y, size_t ldy, float *x, size_t ldx, size_t n,
                 size_t m)
{
    const struct columns loop = { x, y, ldx, ldy, n, m };
    sb_team_for(team, (n + COLUMNS - 1) / COLUMNS, SILU_WORK * m * n, silu_columns, &loop);
}

void sb_residual_block(const struct sb_team *team, const struct sb_linear *linear, float *x,
                       size_t ldx, float *scratch, size_t m)
{
    size_t n = linear->w.n;
    sb_linear_apply(team, linear, scratch, n, x, ldx, m, false);
    sb_silu_add(team, x, ldx, scratch, n, n, m);
}

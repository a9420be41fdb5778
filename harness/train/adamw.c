/* The optimiser. */
#include "harness/train/adamw.h"

#include "harness/core/alloc.h"

enum { BLOCK = 8192 };

enum sb_status sb_adamw_init(struct sb_adamw *opt, const struct sb_adamw_options *options,
                             size_t n_params, struct sb_error *err)
{
    sb_real *m = sb_alloc_zero(n_params, sizeof *m), *v = sb_alloc_zero(n_params, sizeof *v);
    if (!m || !v) {
        sb_free(m);
        sb_free(v);
        return sb_fail(err, SB_ENOMEM, "optimiser state of %zu weights: out of memory", n_params);
    }
    *opt = (struct sb_adamw){ .options = *options, .m = m, .v = v, .n_params = n_params };
    return SB_OK;
}

void sb_adamw_finish(struct sb_adamw *opt)
{
    sb_free(opt->m);
    sb_free(opt->v);
    *opt = (struct sb_adamw){ 0 };
}

double sb_adamw_rate(const struct sb_adamw_options *o, size_t step)
{
    if (step < o->warmup)
        return o->lr * (double)(step + 1) / (double)o->warmup;
    double span = o->steps > o->warmup ? (double)(o->steps - o->warmup) : 1;
    double done = fmin((double)(step - o->warmup) / span, 1);
    double floor_rate = o->lr * o->min_lr_ratio;
    return floor_rate + (o->lr - floor_rate) * 0.5 * (1 + cos(done * 3.14159265358979323846));
}

SB_CLONES static double block_square(const sb_real *g, size_t n)
{
    double lane[16] = { 0 };
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++)
            lane[j] += (double)g[i + j] * (double)g[i + j];
    for (size_t j = 0; i + j < n; j++)
        lane[j] += (double)g[i + j] * (double)g[i + j];
    double sum = 0;
    for (size_t j = 0; j < 16; j++)
        sum += lane[j];
    return sum;
}

static double gradient_norm(const struct sb_trainable *set)
{
    double sum = 0;
    for (size_t t = 0; t < set->n_tensors; t++) {
        const struct sb_var *var = set->tensors[t].var;
        size_t n = var->rows * var->cols;
        if (!var->has_grad)
            memset(var->dx, 0, n * sizeof *var->dx);
        for (size_t i = 0; i < n; i += BLOCK)
            sum += block_square(var->dx + i, n - i < BLOCK ? n - i : BLOCK);
    }
    return sqrt(sum);
}

/* Everything one element's update needs, the same for a whole tensor. */
struct update {
    sb_real beta1, beta2, correct1, correct2, eps, rate, decay, scale;
};

SB_CLONES static void update_block(const struct update *u, sb_real *x, const sb_real *g, sb_real *m,
                                   sb_real *v, size_t n)
{
    struct update k = *u;
    for (size_t i = 0; i < n; i++) {
        sb_real grad = g[i] * k.scale;
        m[i] = k.beta1 * m[i] + (1 - k.beta1) * grad;
        v[i] = k.beta2 * v[i] + (1 - k.beta2) * grad * grad;
        sb_real move = m[i] * k.correct1 / ((sb_real)sqrt(v[i] * k.correct2) + k.eps);
        x[i] -= k.rate * (move + k.decay * x[i]);
    }
}

double sb_adamw_step(struct sb_adamw *opt, struct sb_trainable *set)
{
    const struct sb_adamw_options *o = &opt->options;
    double norm = gradient_norm(set);
    if (!isfinite(norm))
        return norm;
    double t = (double)opt->step + 1;
    struct update u = {
        .beta1 = (sb_real)o->beta1,
        .beta2 = (sb_real)o->beta2,
        .correct1 = (sb_real)(1 / (1 - pow(o->beta1, t))),
        .correct2 = (sb_real)(1 / (1 - pow(o->beta2, t))),
        .eps = (sb_real)o->eps,
        .rate = (sb_real)sb_adamw_rate(o, opt->step),
        .scale = (sb_real)(o->clip > 0 && norm > o->clip ? o->clip / norm : 1),
    };
    size_t at = 0;
    for (size_t i = 0; i < set->n_tensors; i++) {
        const struct sb_var *var = set->tensors[i].var;
        size_t n = var->rows * var->cols;
        struct update mine = u;
        mine.decay = set->tensors[i].is_vector ? 0 : (sb_real)o->weight_decay;
#pragma omp parallel for schedule(static)
        for (size_t b = 0; b < n; b += BLOCK)
            update_block(&mine, var->x + b, var->dx + b, opt->m + at + b, opt->v + at + b,
                         n - b < BLOCK ? n - b : BLOCK);
        at += n;
    }
    opt->step++;
    return norm;
}

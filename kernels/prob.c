/* Probability rows: what the variants share, and the calls into the active one. */
#include "kernels/prob.h"

#include <float.h>
#include <math.h>

#include "kernels/prob_internal.h"

static const struct sb_prob_table *const tables[SB_CPU_COUNT] = {
    [SB_CPU_GENERIC] = &sb_prob_generic,
#ifdef SB_HAVE_X86_VARIANTS
    [SB_CPU_AVX2] = &sb_prob_avx2,
    [SB_CPU_AVX512] = &sb_prob_avx512,
#endif
};

const struct sb_prob_table *sb_probs(void)
{
    return tables[sb_cpu_active()];
}

const uint64_t sb_power_16th[16] = {
    0x3ff0000000000000, 0x3fefb5586cf9890f, 0x3fef72b83c7d517b, 0x3fef387a6e756238,
    0x3fef06fe0a31b715, 0x3feedea64c123422, 0x3feebfdad5362a27, 0x3feeab07dd485429,
    0x3feea09e667f3bcd, 0x3feea11473eb0187, 0x3feeace5422aa0db, 0x3feec49182a3f090,
    0x3feee89f995ad3ad, 0x3fef199bdd85529c, 0x3fef5818dcfba487, 0x3fefa4afa2a490da,
};

const double sb_log_inverse[16] = {
    0x1.5555555555555p+0, 0x1.47ae147ae147bp+0, 0x1.3b13b13b13b14p+0,
    0x1.2f684bda12f68p+0, 0x1.2492492492492p+0, 0x1.1a7b9611a7b96p+0,
    0x1.1111111111111p+0, 0x1.0842108421084p+0, 1,
    0x1.e1e1e1e1e1e1ep-1, 0x1.c71c71c71c71cp-1, 0x1.af286bca1af28p-1,
    0x1.999999999999ap-1, 0x1.8618618618618p-1, 0x1.745d1745d1746p-1,
    0x1.642c8590b2164p-1,
};

const double sb_log_16th[16] = {
    -0x1.269621134db91p-2, -0x1.f991c6cb3b37ap-3, -0x1.a93ed3c8ad9e5p-3,
    -0x1.5bf406b543db0p-3, -0x1.1178e8227e47ap-3, -0x1.9335e5d594988p-4,
    -0x1.08598b59e3a06p-4, -0x1.0415d89e74440p-5, 0,
    0x1.f0a30c01162a8p-5,  0x1.e27076e2af2eap-4,  0x1.5ff3070a793d6p-3,
    0x1.c8ff7c79a9a20p-3,  0x1.1675cababa60fp-2,  0x1.4618bc21c5ec2p-2,
    0x1.739d7f6bbd007p-2,
};

/* ---- logits ---- */

size_t sb_logits_groups(size_t n)
{
    return (n + SB_CHUNK - 1) / SB_CHUNK * 16;
}

float sb_logits_max(const float *x, size_t n, float *group)
{
    return sb_probs()->max(x, n, group);
}

size_t sb_logits_argmax(const float *x, size_t n)
{
    const struct sb_prob_table *kernels = sb_probs();
    return kernels->find_float(x, n, kernels->max(x, n, NULL)); /* nothing equals NaN */
}

size_t sb_logits_count(const float *x, size_t n, float least)
{
    return sb_probs()->count(x, n, least);
}

size_t sb_logits_take(float *out, const float *x, size_t n, float least)
{
    return sb_probs()->take(out, x, n, least);
}

/* ---- from logits to weights ---- */

/* Rates are bounded, so that 0 times one is 0, and -inf times one is -inf. */
struct sb_temper sb_temper_make(float max, double temperature)
{
    double rate = 0x1.71547652b82fep+4 / temperature, least = (double)max - 700 * temperature;
    float border = least > -(double)FLT_MAX ? (float)least : -FLT_MAX;
    if ((double)border < least)
        border = nextafterf(border, INFINITY);
    rate = rate < 1e300 ? rate : 1e300;
    return (struct sb_temper){ max, border, rate > 1e-300 ? rate : 1e-300 };
}

double sb_prob_exp(double *prob, const float *x, size_t n, const struct sb_temper *temper)
{
    return sb_probs()->exp(prob, x, n, temper);
}

double sb_prob_moment(const float *x, size_t n, const struct sb_temper *temper, double *dot)
{
    return sb_probs()->moment(x, n, temper, dot);
}

/* ---- rows ---- */

double sb_prob_sum(const double *x, size_t n)
{
    return sb_probs()->sum(x, n, NULL);
}

double sb_prob_check(const double *x, size_t n)
{
    return sb_probs()->check(x, n);
}

double sb_prob_mass(const double *w, const float *x, size_t n, float least, size_t *count)
{
    return sb_probs()->mass(w, x, n, least, count);
}

size_t sb_prob_take(double *w, float *x, size_t n, float least)
{
    return sb_probs()->take_pairs(w, x, n, least);
}

void sb_prob_scale(double *out, const double *x, size_t n, double factor)
{
    sb_probs()->scale(out, x, n, factor);
}

void sb_prob_spread(double *prob, size_t m, const float *x, size_t n, float least, size_t ties)
{
    size_t behind = n; /* where equals of least are no longer meant */
    if (ties < n) {
        for (behind = 0; behind < n && (x[behind] != least || ties-- > 0); behind++)
            ;
        m = sb_probs()->spread(prob, x, behind, n, nextafterf(least, INFINITY), m);
    }
    sb_probs()->spread(prob, x, 0, behind, least, m);
}

void sb_prob_blend(double *out, double a, const double *p, double b, const double *q, size_t n)
{
    sb_probs()->blend(out, a, p, b, q, n);
}

double sb_prob_below(double *out, const double *x, const double *by, double bar, size_t n)
{
    return sb_probs()->below(out, x, by, bar, n);
}

double sb_prob_residual(double *out, double a, const double *p, double b, const double *q, size_t n)
{
    return sb_probs()->residual(out, a, p, b, q, n);
}

/* One row serves as p and q: what is subtracted is 0 times it. */
double sb_prob_residual_onehot(double *out, double a, const double *p, double b, size_t t, size_t n)
{
    double at = a * p[t] - b;
    double sum = sb_probs()->residual(out, a, p, 0, p, t);
    sum += sb_probs()->residual(out ? out + t + 1 : NULL, a, p + t + 1, 0, p + t + 1, n - t - 1);
    at = at > 0 ? at : 0;
    if (out)
        out[t] = at;
    return sum + at;
}

double sb_prob_overlap(double a, const double *p, double b, const double *q, size_t n)
{
    return sb_probs()->overlap(a, p, b, q, n);
}

double sb_prob_entropy(const double *p, size_t n)
{
    return sb_probs()->entropy(p, n);
}

size_t sb_prob_argmax(const double *x, size_t n)
{
    const struct sb_prob_table *kernels = sb_probs();
    size_t at = kernels->next(x, 0, n, kernels->largest(x, n));
    return at < n ? at : 0;
}

size_t sb_prob_next(const double *x, size_t from, size_t n, double least)
{
    return from < n ? sb_probs()->next(x, from, n, least) : n;
}

/* The last index of positive weight before which the partial sums do not exceed the target. */
static size_t pick_in_chunk(double target, double sum, const double *weight, size_t n)
{
    size_t last = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(weight[i] > 0))
            continue;
        sum += weight[i];
        last = i;
        if (target < sum)
            break;
    }
    return last;
}

size_t sb_prob_pick(double u, const double *weight, size_t n)
{
    enum {
        KEPT = 1024
    }; /* sums of chunks; further ones are made again when the pick comes there */
    const struct sb_prob_table *kernels = sb_probs();
    double kept[KEPT];
    size_t head = n < KEPT * SB_CHUNK ? n : KEPT * SB_CHUNK,
           n_chunks = (n + SB_CHUNK - 1) / SB_CHUNK;
    double total = kernels->sum(weight, head, kept);
    for (size_t c = KEPT; c < n_chunks; c++) {
        size_t first = c * SB_CHUNK, end = n - first < SB_CHUNK ? n : first + SB_CHUNK;
        total += kernels->sum(weight + first, end - first, NULL);
    }
    double target = u * total, before = 0, last_before = 0;
    size_t chosen = 0;
    for (size_t c = 0; c < n_chunks; c++) {
        size_t first = c * SB_CHUNK, end = n - first < SB_CHUNK ? n : first + SB_CHUNK;
        double part = c < KEPT ? kept[c] : kernels->sum(weight + first, end - first, NULL);
        if (!(part > 0))
            continue;
        chosen = first;
        last_before = before;
        before += part;
        if (target < before)
            break;
    }
    size_t left = n - chosen < SB_CHUNK ? n - chosen : SB_CHUNK;
    return chosen + pick_in_chunk(target, last_before, weight + chosen, left);
}

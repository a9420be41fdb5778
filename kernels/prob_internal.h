/* What the variants of the probability kernels share: tables, and jobs beside those of internal.h. */
#ifndef SB_PROB_INTERNAL_H
#define SB_PROB_INTERNAL_H

#include "kernels/prob.h"

/* Bits of 2^(j / 16) minus j << 48: adding n << 48 for n = 16 k + j gives 2^(n / 16). */
extern const uint64_t sb_power_16th[16];
/* Of each sixteenth of [47/64, 47/32), by bits: about one over its middle, and minus the logarithm of
 * that; 1 and 0 around 1, so that the logarithm of 1 is 0. The bits of 47/64. */
extern const double sb_log_inverse[16], sb_log_16th[16];
#define SB_LOG_FIRST 0x3fe7800000000000u

/* The race of sb_race: what is fixed, and the best so far. */
struct sb_race {
    uint32_t key[2], stream, position[2];
    size_t winner;
    double time, bound; /* bound: tokens whose upper bits are at least bound * weight have lost */
};
/* Let a token of positive weight run; keeps the better one. */
void sb_race_run(struct sb_race *race, size_t token, double weight);

/* One variant's probability kernels; each is described at the public function that calls it. */
struct sb_prob_table {
    float (*max)(const float *x, size_t n, float *group);
    size_t (*find_float)(const float *x, size_t n, float value); /* the first one; n: none */
    size_t (*count)(const float *x, size_t n, float least);
    size_t (*take)(float *out, const float *x, size_t n, float least);
    size_t (*take_pairs)(double *w, float *x, size_t n, float least);
    double (*exp)(double *prob, const float *x, size_t n, const struct sb_temper *temper);
    double (*moment)(const float *x, size_t n, const struct sb_temper *temper, double *dot);
    double (*mass)(const double *w, const float *x, size_t n, float least, size_t *count);
    double (*sum)(const double *x, size_t n, double *chunk); /* chunk: NULL, or each one's sum */
    double (*check)(const double *x, size_t n);
    double (*largest)(const double *x, size_t n);
    size_t (*next)(const double *x, size_t from, size_t n, double least);
    void (*scale)(double *out, const double *x, size_t n, double factor);
    /* sb_prob_spread to x[from .. to); returns how many of prob[0 .. m) are left for what is before. */
    size_t (*spread)(double *prob, const float *x, size_t from, size_t to, float least, size_t m);
    void (*blend)(double *out, double a, const double *p, double b, const double *q, size_t n);
    double (*below)(double *out, const double *x, const double *by, double bar, size_t n);
    double (*residual)(double *out, double a, const double *p, double b, const double *q, size_t n);
    double (*overlap)(double a, const double *p, double b, const double *q, size_t n);
    double (*entropy)(const double *p, size_t n);
    void (*race)(struct sb_race *race, const double *weight, size_t n);
};

extern const struct sb_prob_table sb_prob_generic;
extern const struct sb_prob_table sb_prob_avx2, sb_prob_avx512; /* x86-64 builds only */

/* The table of the active variant. */
const struct sb_prob_table *sb_probs(void);

#endif

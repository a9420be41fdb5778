/* Cluster bootstrap in two stages (methods C 7.3): prompts are drawn with replacement, then the repeats
 * within each drawn prompt. One engine for every figure that is a function of sums over prompts. */
#ifndef SB_RESULTS_BOOTSTRAP_H
#define SB_RESULTS_BOOTSTRAP_H

#include "results/stats.h"

enum { SB_SUMS = 8 };
struct sb_sums {
    double v[SB_SUMS]; /* what they mean is the caller's; unused ones are 0 */
};

/* The prompts (clusters) of a comparison. */
struct sb_clusters {
    size_t n;
    const int *stratum; /* [n], such as the task of each */
    size_t repeats;     /* most of any prompt; 0 or 1: none to draw */
    /* What prompt i adds to the sums. `word`: random words that choose its repeats (sb_draw_repeat);
     * NULL: each of its repeats once. */
    void (*row)(struct sb_sums *out, const void *self, size_t i, const uint32_t *word);
    const void *self;
};
enum { SB_REPEAT_WORDS = 32 };

/* The k-th repeat of n drawn with replacement; without words, k itself. There are as many words as
 * repeats; beyond SB_REPEAT_WORDS they come round again, mixed with k. */
static inline size_t sb_draw_repeat(const uint32_t *word, size_t k, size_t n)
{
    if (!word)
        return k;
    uint32_t w = word[k % SB_REPEAT_WORDS] ^ (uint32_t)(k / SB_REPEAT_WORDS) * 0x9E3779B9u;
    return (size_t)((uint64_t)w * n >> 32);
}

/* A figure as a function of the sums, on a scale on which its errors are roughly symmetric (log). */
typedef double (*sb_estimator)(const struct sb_sums *sums);

/* out[e]: estimator e over all prompts and its 95 % interval, on the estimator's own scale: percentiles
 * from 50 prompts on; below, BCa (Efron 1987, acceleration by jackknife over prompts); below 10 a t
 * interval on the jackknife's standard error, which for a mean is the usual one; n == 1: low = high =
 * NaN. Strata are drawn from separately when each has 10 prompts or more; smaller ones would hide their
 * own spread, so then all prompts are one. Drawing repeats adds their spread once more to what the
 * prompts' figures show of it already: intervals are a little wide, never narrow.
 *
 * resamples 0: 10,000. A resample's value is a pure function of (seed, stratum, resample), so threads
 * change nothing, and figures of equally many prompts in equal strata see the same draws. SB_EUSAGE
 * without prompts. */
enum sb_status sb_bootstrap(struct sb_interval *out, const sb_estimator *estimator,
                            size_t n_estimators, const struct sb_clusters *clusters, int resamples,
                            uint64_t seed, struct sb_error *err);

/* Estimators over the sums that all speed figures share. */
enum {
    SB_SUM_BASE,     /* decode time of the reference */
    SB_SUM_METHOD,   /* and of the method */
    SB_SUM_BASE_ALL, /* prefill included */
    SB_SUM_METHOD_ALL,
    SB_SUM_LOG_RATIO, /* of the prompt's decode times */
    SB_SUM_PROMPTS,   /* 1 */
};
double sb_log_totals(const struct sb_sums *s);     /* log of sum base / sum method */
double sb_log_totals_all(const struct sb_sums *s); /* the same, prefill included */
double sb_log_mean(const struct sb_sums *s);       /* log of the geometric mean of ratios */
/* exp of all three figures. */
struct sb_interval sb_interval_exp(struct sb_interval x);

#endif

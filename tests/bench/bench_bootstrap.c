/* How long the intervals of a leaderboard take: 480 prompts in 6 tasks, 20 arms, 10,000 resamples, with
 * one repeat and with five. */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "harness/core/rng.h"
#include "harness/core/threads.h"
#include "results/bootstrap.h"

enum { PROMPTS = 480, TASKS = 6, ARMS = 20, REPEATS = 5, RESAMPLES = 10000 };

struct arm {
    double base[PROMPTS][REPEATS], method[PROMPTS][REPEATS];
    size_t repeats;
};

static void row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    const struct arm *a = self;
    double base[REPEATS], method[REPEATS];
    for (size_t k = 0; k < a->repeats; k++) {
        size_t at = sb_draw_repeat(word, k, a->repeats);
        base[k] = a->base[i][at];
        method[k] = a->method[i][at];
    }
    out->v[SB_SUM_BASE] = out->v[SB_SUM_BASE_ALL] = sb_median(base, a->repeats);
    out->v[SB_SUM_METHOD] = out->v[SB_SUM_METHOD_ALL] = sb_median(method, a->repeats);
    out->v[SB_SUM_LOG_RATIO] = log(out->v[SB_SUM_BASE] / out->v[SB_SUM_METHOD]);
    out->v[SB_SUM_PROMPTS] = 1;
}

static void fill(struct arm *a, uint64_t seed, size_t repeats)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    a->repeats = repeats;
    for (size_t i = 0; i < PROMPTS; i++)
        for (size_t k = 0; k < REPEATS; k++) {
            a->base[i][k] = 1e8 * exp(0.5 * sb_rng_normal(&rng));
            a->method[i][k] = a->base[i][k] / 1.5 * exp(0.1 * sb_rng_normal(&rng));
        }
}

int main(void)
{
    static struct arm arm;
    static int task[PROMPTS];
    static const sb_estimator estimators[] = { sb_log_totals, sb_log_totals_all, sb_log_mean };
    for (int i = 0; i < PROMPTS; i++)
        task[i] = i % TASKS;
    for (size_t repeats = 1; repeats <= REPEATS; repeats += REPEATS - 1) {
        double width = 0;
        clock_t start = clock();
        for (uint64_t a = 0; a < ARMS; a++) {
            struct sb_interval x[3];
            fill(&arm, a, repeats);
            const struct sb_clusters clusters = {
                .n = PROMPTS, .stratum = task, .repeats = repeats, .row = row, .self = &arm
            };
            if (sb_bootstrap(x, estimators, 3, &clusters, RESAMPLES, 0, NULL) != SB_OK)
                return 1;
            width += (x[0].high - x[0].low) / ARMS;
        }
        printf(
            "%d prompts x %zu repeats x %d arms, %d resamples, 3 figures: %.3f processor seconds in %d threads "
            "(mean width %.4f)\n",
            PROMPTS, repeats, ARMS, RESAMPLES, (double)(clock() - start) / CLOCKS_PER_SEC,
            sb_threads_get(), width);
    }
    return 0;
}

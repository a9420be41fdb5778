/* The draft length of the largest expected speedup (methods C 3.1, A 5.1), if every token is accepted with
 * one probability alpha: that of the last `window` tokens a verifier decided on, with one acceptance
 * and one rejection put in beforehand (a Beta(1, 1) prior). c and the curve are given, not timed: lengths
 * must not differ from one run to the next.
 *
 * Where no draft pays, one token every 16 steps keeps alpha up to date. Solved before every step, which
 * the card does every 16: it costs about a microsecond. */
#include <string.h>

#include "drafters/policy/cost.h"
#include "harness/decode/policy.h"

enum { MOST = 64, MOST_TRIALS = 1000, PROBE_STEPS = 16 };

struct optimal_gamma_params {
    double c;
    const char *curve, *scope;
    int64_t most, window;
};

static const struct sb_param optimal_gamma_params[] = {
    { .name = "c",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct optimal_gamma_params, c),
      .fallback = "0.1",
      .min = 0,
      .max = 100,
      .meaning = "time of a drafter's forward over that of a plain step" },
    { .name = "curve",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct optimal_gamma_params, curve),
      .meaning = "time of M rows over that of one, as 4:1.4;8:2.2; absent: 1 for all M" },
    { .name = "max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct optimal_gamma_params, most),
      .fallback = "64",
      .min = 1,
      .max = MOST,
      .meaning = "longest draft" },
    { .name = "window",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct optimal_gamma_params, window),
      .fallback = "200",
      .min = 1,
      .max = MOST_TRIALS,
      .meaning = "tokens that alpha is estimated from" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct optimal_gamma_params, scope),
      .fallback = "prompt",
      .choices = SB_POLICY_SCOPES,
      .meaning = "estimate within a prompt, or over all" },
    { 0 },
};

struct optimal_gamma {
    struct sb_cost_curve curve;
    struct trials {
        bool kept[MOST_TRIALS]; /* a ring */
        int32_t n, next, n_kept;
        int32_t idle; /* steps without a draft */
    } trials;
};

static enum sb_status gamma_open(void *st, const void *params, struct sb_error *err)
{
    return sb_cost_curve_parse(&((struct optimal_gamma *)st)->curve,
                               ((const struct optimal_gamma_params *)params)->curve,
                               "policy optimal-gamma", err);
}

static void gamma_begin(void *st, const void *params)
{
    if (strcmp(((const struct optimal_gamma_params *)params)->scope, "prompt") == 0)
        ((struct optimal_gamma *)st)->trials = (struct trials){ 0 };
}

static int32_t gamma_longest(const void *params, int32_t wanted)
{
    return (int32_t)((const struct optimal_gamma_params *)params)->most;
}

static int32_t gamma_plan(void *st, const void *params, int32_t wanted)
{
    struct optimal_gamma *g = st;
    const struct optimal_gamma_params *p = params;
    double alpha = (1.0 + g->trials.n_kept) / (2.0 + g->trials.n), best = 0;
    int32_t gamma = 0;
    for (int32_t k = 0; k <= p->most; k++) {
        double speedup = sb_chain_speedup(&g->curve, p->c, alpha, k);
        if (speedup > best) {
            best = speedup;
            gamma = k;
        }
    }
    return gamma > 0 ? gamma : g->trials.idle >= PROBE_STEPS - 1;
}

static void add_trial(struct trials *t, int32_t window, bool kept)
{
    if (t->n == window)
        t->n_kept -= t->kept[t->next];
    else
        t->n++;
    t->kept[t->next] = kept;
    t->n_kept += kept;
    t->next = (t->next + 1) % window;
}

static void gamma_learn(void *st, const void *params, const struct sb_policy_step *step)
{
    struct trials *t = &((struct optimal_gamma *)st)->trials;
    int32_t window = (int32_t)((const struct optimal_gamma_params *)params)->window;
    t->idle = step->leaf && step->accepted == 0 ? t->idle + 1 : 0;
    for (int32_t i = 0; i < step->accepted; i++)
        add_trial(t, window, true);
    if (!step->leaf)
        add_trial(t, window, false);
}

const struct sb_policy_ops sb_policy_optimal_gamma = {
    .name = "optimal-gamma",
    .summary = "the length of the largest expected speedup at the running acceptance",
    .paper = "Leviathan et al. 2022, arXiv 2211.17192",
    .params = optimal_gamma_params,
    .params_size = sizeof(struct optimal_gamma_params),
    .state_size = sizeof(struct optimal_gamma),
    .open = gamma_open,
    .begin = gamma_begin,
    .plan = gamma_plan,
    .longest = gamma_longest,
    .learn = gamma_learn,
};

/* Two tokens more after a draft that was accepted whole, one less after a miss (methods C 3.2, A 5.2).
 * Steps without a draft change nothing.
 *
 * Differs from the source: the length has an upper bound, and by default every prompt begins anew
 * (transformers call that heuristic_transient). */
#include <string.h>

#include "harness/decode/policy.h"

struct heuristic_params {
    int64_t start, most;
    const char *scope;
};

static const struct sb_param heuristic_params[] = {
    { .name = "start",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct heuristic_params, start),
      .fallback = "5",
      .min = 1,
      .max = 1000,
      .meaning = "length of the first draft" },
    { .name = "max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct heuristic_params, most),
      .fallback = "64",
      .min = 1,
      .max = 1000,
      .meaning = "longest draft" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct heuristic_params, scope),
      .fallback = "prompt",
      .choices = SB_POLICY_SCOPES,
      .meaning = "keep the length within a prompt, or over all" },
    { 0 },
};

struct heuristic {
    int32_t k; /* 0: not begun */
};

static int32_t heuristic_longest(const void *params, int32_t wanted)
{
    return (int32_t)((const struct heuristic_params *)params)->most;
}

static int32_t heuristic_plan(void *st, const void *params, int32_t wanted)
{
    struct heuristic *h = st;
    const struct heuristic_params *p = params;
    if (h->k == 0)
        h->k = (int32_t)(p->start < p->most ? p->start : p->most);
    return h->k;
}

static void heuristic_begin(void *st, const void *params)
{
    if (strcmp(((const struct heuristic_params *)params)->scope, "prompt") == 0)
        *(struct heuristic *)st = (struct heuristic){ 0 };
}

static void heuristic_learn(void *st, const void *params, const struct sb_policy_step *step)
{
    struct heuristic *h = st;
    int32_t most = heuristic_longest(params, 0), k = heuristic_plan(st, params, 0);
    if (!step->leaf)
        h->k = k > 1 ? k - 1 : 1;
    else if (step->accepted > 0)
        h->k = k + 2 < most ? k + 2 : most;
}

const struct sb_policy_ops sb_policy_heuristic = {
    .name = "heuristic",
    .summary = "two tokens more after a full acceptance, one less after a miss",
    .paper = "Gante 2023, huggingface.co/blog/assisted-generation",
    .params = heuristic_params,
    .params_size = sizeof(struct heuristic_params),
    .state_size = sizeof(struct heuristic),
    .begin = heuristic_begin,
    .plan = heuristic_plan,
    .longest = heuristic_longest,
    .learn = heuristic_learn,
};

/* Drafts of one length (methods A 5.1). */
#include "harness/decode/policy.h"

struct constant {
    int64_t k;
};

static const struct sb_param constant_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct constant, k),
      .fallback = "0",
      .min = 0,
      .max = 1000,
      .meaning = "draft length; 0: the drafter's own setting" },
    { 0 },
};

static int32_t constant_length(const void *params, int32_t wanted)
{
    const struct constant *c = params;
    return c->k > 0 ? (int32_t)c->k : wanted;
}

static int32_t constant_plan(void *st, const void *params, int32_t wanted)
{
    return constant_length(params, wanted);
}

const struct sb_policy_ops sb_policy_constant = {
    .name = "constant",
    .summary = "drafts of one length",
    .paper = "Leviathan et al. 2022, arXiv 2211.17192",
    .params = constant_params,
    .params_size = sizeof(struct constant),
    .plan = constant_plan,
    .longest = constant_length,
};

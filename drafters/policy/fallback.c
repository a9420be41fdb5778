/* Big-Little decoding's fallback (methods A 5.12 and 3.16): draft no token from a row whose largest
 * probability is below fb, and hand over to the target; at the root that is a plain step. The verifier
 * bild is its other half. The length is the drafter's own setting. Where a drafter has no row (a top
 * probability of 0) it drafts on.
 *
 * The row is at temperature 1 in greedy drafting, as in the source, else after S. */
#include "harness/decode/policy.h"

struct fallback {
    double fb;
};

static const struct sb_param fallback_params[] = {
    { .name = "fb",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct fallback, fb),
      .fallback = "0.6",
      .min = 0,
      .max = 1,
      .meaning = "stop before a token whose row's largest probability is below this" },
    { 0 },
};

static int32_t fallback_plan(void *st, const void *params, int32_t wanted)
{
    return wanted;
}

static enum sb_policy_verdict fallback_before_children(void *st, const void *params,
                                                       const struct sb_policy_node *node)
{
    const struct fallback *f = params;
    return node->top_prob > 0 && node->top_prob < f->fb ? SB_POLICY_STOP : SB_POLICY_GO_ON;
}

const struct sb_policy_ops sb_policy_fallback = {
    .name = "fallback",
    .summary = "stop before a token the drafter is not sure of",
    .paper = "Kim et al. 2023, arXiv 2302.07863",
    .params = fallback_params,
    .params_size = sizeof(struct fallback),
    .plan = fallback_plan,
    .before_children = fallback_before_children,
};

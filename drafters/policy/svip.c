/* Stop after a token whose row was too uncertain: sqrt(ratio * H) > h with H its entropy in nats (methods
 * C 3.5). The row is at temperature 1 in greedy drafting, as in the source, else after S. Where a drafter
 * has no row it drafts on. */
#include <math.h>

#include "harness/decode/policy.h"

struct svip_params {
    double ratio, h;
    int64_t k;
};

static const struct sb_param svip_params[] = {
    { .name = "ratio",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct svip_params, ratio),
      .fallback = "0.15",
      .min = 0,
      .max = 10,
      .meaning = "what stands for cross entropy over entropy" },
    { .name = "h",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct svip_params, h),
      .fallback = "0.3",
      .min = 0,
      .max = 10,
      .meaning = "stop above this" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct svip_params, k),
      .fallback = "40",
      .min = 0,
      .max = 1000,
      .meaning = "longest draft; 0: the drafter's own setting" },
    { 0 },
};

static int32_t svip_longest(const void *params, int32_t wanted)
{
    const struct svip_params *p = params;
    return p->k > 0 ? (int32_t)p->k : wanted;
}

static int32_t svip_plan(void *st, const void *params, int32_t wanted)
{
    return svip_longest(params, wanted);
}

static enum sb_policy_verdict svip_after_node(void *st, const void *params,
                                              const struct sb_policy_node *node)
{
    const struct svip_params *p = params;
    return sqrt(p->ratio * node->entropy) > p->h ? SB_POLICY_STOP : SB_POLICY_GO_ON;
}

const struct sb_policy_ops sb_policy_svip = {
    .name = "svip",
    .summary = "stop after a token whose row was too uncertain",
    .paper = "Zhang et al. 2024, arXiv 2411.18462",
    .params = svip_params,
    .params_size = sizeof(struct svip_params),
    .plan = svip_plan,
    .longest = svip_longest,
    .after_node = svip_after_node,
};

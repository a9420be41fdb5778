/* EAGLE-3: features from three layers of the target, a head with a vocabulary of its own, trained on what it
 * predicts itself; the dynamic tree of EAGLE-2 (methods B 5.3). Of a token outside the draft vocabulary it
 * says nothing.
 *
 * Differs from the source: as eagle2 does. */
#include "drafters/eagle_dynamic.h"

static const struct sb_param eagle3_params[] = { SB_EAGLE_DYNAMIC_PARAMS("7") };

static enum sb_status eagle3_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    return sb_eagle_dynamic_open(st, SB_EAGLE_3, "eagle3", env, err);
}

const struct sb_drafter_ops sb_drafter_eagle3 = {
    .name = "eagle3",
    .summary = "a head on three layers' hidden states, trained on its own drafts; dynamic tree",
    .paper = "Li et al. 2025, arXiv 2503.01840",
    .params = eagle3_params,
    .params_size = sizeof(struct sb_eagle_dynamic_params),
    .state_size = sizeof(struct sb_eagle_dynamic),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = sb_eagle_dynamic_branches,
    .open = eagle3_open,
    .begin = sb_eagle_dynamic_begin,
    .propose = sb_eagle_dynamic_propose,
    .close = sb_eagle_dynamic_close,
    .max_nodes = sb_eagle_dynamic_max_nodes,
};

/* EAGLE-2: the head of eagle, and a tree made for each step of what the head is confident in (methods B
 * 5.2). The pool, its order and its ties are the authors'. At any temperature confidence is that of the
 * raw logits, and children are chosen, not drawn: one-hot for the verifier.
 *
 * Differs from the source: no node is expanded whose children could not be among the best (the draft is the
 * same), nor one that ends the generation; `total` counts the root everywhere, while the authors' code once
 * counts it and once does not. */
#include "drafters/eagle_dynamic.h"

static const struct sb_param eagle2_params[] = { SB_EAGLE_DYNAMIC_PARAMS("5") };

static enum sb_status eagle2_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    return sb_eagle_dynamic_open(st, SB_EAGLE_1, "eagle2", env, err);
}

const struct sb_drafter_ops sb_drafter_eagle2 = {
    .name = "eagle2",
    .summary = "EAGLE's head, and a tree of what it is confident in",
    .paper = "Li et al. 2024, arXiv 2406.16858",
    .params = eagle2_params,
    .params_size = sizeof(struct sb_eagle_dynamic_params),
    .state_size = sizeof(struct sb_eagle_dynamic),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = sb_eagle_dynamic_branches,
    .open = eagle2_open,
    .begin = sb_eagle_dynamic_begin,
    .propose = sb_eagle_dynamic_propose,
    .close = sb_eagle_dynamic_close,
    .max_nodes = sb_eagle_dynamic_max_nodes,
};

/* Hydra (methods B 4.4): heads over the target's last hidden state that also see the draft tokens above the
 * one they guess, so that siblings have children of their own. Arithmetic: hydra_heads.h; layouts:
 * docs/formats.md. The policy's length is the depth here. */
#include "drafters/hydra_heads.h"

static enum sb_status hydra_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    const struct sb_hydra_params *p = env->params;
    const struct sb_head_request request = { "hydra", p->head, NULL, env->target, env };
    struct sb_head_file file = { 0 };
    enum sb_status rc = sb_head_open(&file, &request, err);
    if (rc == SB_OK)
        rc = sb_hydra_open(st, &file, "mlp", env, err);
    sb_head_close(&file);
    return rc;
}

static void hydra_close(void *st)
{
    sb_hydra_close(st);
}

static enum sb_status hydra_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    return sb_hydra_begin(st, err);
}

static enum sb_status hydra_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    struct sb_hydra_heads *h = st;
    if (ctx->n >= 2)
        sb_hydra_draft(h, ctx->taps[h->tap] + (ctx->n - 2) * h->d, ctx->policy, tree);
    return SB_OK;
}

const struct sb_drafter_ops sb_drafter_hydra = {
    .name = "hydra",
    .summary = "heads that see the draft so far fill a static tree",
    .paper = "Ankner et al. 2024, arXiv 2402.05109",
    .params = sb_hydra_params,
    .params_size = sizeof(struct sb_hydra_params),
    .state_size = sizeof(struct sb_hydra_heads),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = sb_hydra_branches,
    .open = hydra_open,
    .begin = hydra_begin,
    .propose = hydra_propose,
    .observe = sb_hydra_observe,
    .close = hydra_close,
    .max_nodes = sb_hydra_max_nodes,
};

/* Hydra++ (methods B 4.4): the heads of hydra, whose state is what a decoder layer with a KV cache of its own,
 * the prefix layer, makes of the hidden states of all committed text: row i is the target's state at position
 * i, and stands there. Its rows come from committed text only, so nothing is ever taken back. */
#include "drafters/draft_body.h"
#include "drafters/hydra_heads.h"

enum { CATCH_UP_ROWS = 64 };

struct hydra_pp {
    struct sb_hydra_heads heads; /* first */
    struct sb_head_file file;    /* the layer's tensors lie in it */
    struct sb_draft_body prefix;
};

/* The layer has the target's shape, as the authors make it, unless config.json says otherwise. */
static enum sb_status open_prefix(struct hydra_pp *h, const struct sb_drafter_env *env,
                                  struct sb_error *err)
{
    struct sb_draft_body_options options = {
        .head = &h->file,
        .stem = "prefix_embeding_layer.layers.",
        .final_norm = "prefix_embeding_layer.norm.weight",
        .max_context = env->max_context,
        .max_rows = CATCH_UP_ROWS,
    };
    struct sb_config like = *sb_model_config(env->target);
    like.n_layers = 1;
    like.rope_layout = SB_ROPE_HALF; /* of all such files, whatever the target was stored as */
    enum sb_status rc = sb_draft_body_config(&options.config, &h->file, &like, err);
    if (rc == SB_OK && options.config.d_model != like.d_model)
        rc = sb_fail(err, SB_EFORMAT,
                     "%s: config.json: 'hidden_size' is %zu; expected the target's width, %zu",
                     h->file.path, options.config.d_model, like.d_model);
    return rc == SB_OK ? sb_draft_body_open(&h->prefix, &options, err) : rc;
}

static enum sb_status hydra_pp_open(void *st, const struct sb_drafter_env *env,
                                    struct sb_error *err)
{
    struct hydra_pp *h = st;
    const struct sb_hydra_params *p = env->params;
    const struct sb_head_request request = { "hydra-pp", p->head, NULL, env->target, env };
    enum sb_status rc = sb_head_open(&h->file, &request, err);
    if (rc == SB_OK)
        rc = sb_hydra_open(&h->heads, &h->file, "prefix-mlp", env, err);
    return rc == SB_OK ? open_prefix(h, env, err) : rc;
}

static void hydra_pp_close(void *st)
{
    struct hydra_pp *h = st;
    sb_draft_body_close(&h->prefix);
    sb_hydra_close(&h->heads);
    sb_head_close(&h->file);
}

/* Rows of the committed text that the layer lacks, the root's left out: its state is still to come. */
static enum sb_status catch_up(struct hydra_pp *h, const struct sb_context *ctx,
                               struct sb_error *err)
{
    const float *rows = ctx->taps[h->heads.tap];
    enum sb_status rc = SB_OK;
    while (rc == SB_OK && sb_draft_body_length(&h->prefix) < ctx->n - 1) {
        size_t from = sb_draft_body_length(&h->prefix), left = ctx->n - 1 - from;
        rc = sb_draft_body_append(&h->prefix, rows + from * h->heads.d,
                                  left < CATCH_UP_ROWS ? left : CATCH_UP_ROWS, false, err);
    }
    return rc;
}

static enum sb_status hydra_pp_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct hydra_pp *h = st;
    sb_draft_body_rewind(&h->prefix, 0);
    enum sb_status rc = sb_hydra_begin(&h->heads, err);
    return rc == SB_OK ? catch_up(h, ctx, err) : rc;
}

static enum sb_status hydra_pp_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                       struct sb_error *err)
{
    struct hydra_pp *h = st;
    enum sb_status rc = catch_up(h, ctx, err);
    if (rc == SB_OK && ctx->n >= 2)
        sb_hydra_draft(&h->heads, sb_draft_body_final(&h->prefix, SB_PARENT_PREFIX), ctx->policy,
                       tree);
    return rc;
}

const struct sb_drafter_ops sb_drafter_hydra_pp = {
    .name = "hydra-pp",
    .summary = "hydra's heads over a decoder layer that reads all of the text",
    .paper = "Ankner et al. 2024, arXiv 2402.05109",
    .params = sb_hydra_params,
    .params_size = sizeof(struct sb_hydra_params),
    .state_size = sizeof(struct hydra_pp),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = sb_hydra_branches,
    .open = hydra_pp_open,
    .begin = hydra_pp_begin,
    .propose = hydra_pp_propose,
    .observe = sb_hydra_observe,
    .close = hydra_pp_close,
    .max_nodes = sb_hydra_max_nodes,
};

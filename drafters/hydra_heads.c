#include "drafters/hydra_heads.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/draw.h"

const struct sb_param sb_hydra_params[] = {
    SB_HEAD_PARAM(struct sb_hydra_params),
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct sb_hydra_params, tree),
      .fallback = "mc_sim_7b_63",
      .meaning = SB_TREE_MEANING },
    SB_NODES_PARAM(struct sb_hydra_params),
    { .name = "heads",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct sb_hydra_params, heads),
      .fallback = "0",
      .min = 0,
      .max = SB_HYDRA_HEADS,
      .meaning = "how many of the file's heads to use; 0: all" },
    { 0 },
};

bool sb_hydra_branches(const void *params)
{
    const struct sb_hydra_params *p = params;
    return !p || sb_tree_learner_branches(p->tree, p->nodes);
}

int32_t sb_hydra_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct sb_hydra_params *p = params;
    return sb_tree_learner_nodes(p->tree, p->nodes);
}

/* ---- opening ---- */

/* Where dropout stood while training, modules are numbered 1, 3, 5, ...; else 0, 1, 2, ... */
struct layout {
    bool dropout;
};

static void block_stem(char stem[64], const struct layout *layout, size_t head, size_t block)
{
    snprintf(stem, 64, "hydra_mlp.%zu.%zu", head, layout->dropout ? 2 * block + 1 : block);
}

static void out_stem(char stem[64], const struct layout *layout, size_t head)
{
    snprintf(stem, 64, layout->dropout ? "hydra_lm_head.%zu.1" : "hydra_lm_head.%zu", head);
}

static enum sb_status find_layout(struct sb_hydra_heads *h, struct layout *layout,
                                  struct sb_head_file *file, const char *arch, struct sb_error *err)
{
    const char *said = sb_head_config_text(file, "hydra_head_arch");
    const char *family = sb_head_family(file);
    file->prefix = sb_head_count(file, "hydra_head.hydra_mlp.") > 0 ? "hydra_head." : "";
    h->n_heads = sb_head_count(file, "hydra_mlp.");
    if (h->n_heads == 0 || !family || strcmp(family, file->drafter) != 0)
        return sb_head_refuse(file,
                              strcmp(arch, "mlp") == 0
                                  ? "hydra_mlp.*, and no prefix_embeding_layer.*"
                                  : "hydra_mlp.* and prefix_embeding_layer.*",
                              err);
    if (said && strcmp(said, arch) != 0)
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: config.json: 'hydra_head_arch' is '%.40s'; drafter %s runs '%s'",
                       file->path, said, file->drafter, arch);
    size_t n = sb_head_count(file, "hydra_mlp.0.");
    layout->dropout = n > 1 && !sb_head_find(file, "hydra_mlp.0.0.linear.weight") &&
                      !sb_head_find(file, "hydra_mlp.0.0.linear.bias");
    h->n_blocks = layout->dropout ? n / 2 : n;
    if (h->n_heads > SB_HYDRA_HEADS || h->n_blocks < 1 || h->n_blocks > SB_HYDRA_BLOCKS)
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: has %zu heads of %zu blocks; expected at most %d of 1 to %d",
                       file->path, h->n_heads, h->n_blocks, SB_HYDRA_HEADS, SB_HYDRA_BLOCKS);
    return SB_OK;
}

static enum sb_status load_head(struct sb_hydra_heads *h, size_t head, const struct layout *layout,
                                const struct sb_head_file *file, struct sb_error *err)
{
    char stem[64];
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < h->n_blocks && rc == SB_OK; i++) {
        block_stem(stem, layout, head, i);
        if (i == 0)
            rc = sb_linear_load(&h->residual[head], file, h->d, (head + 2) * h->d, SB_BIAS_REQUIRED,
                                err, "%s.res_connection", stem);
        if (rc == SB_OK)
            rc = sb_linear_load(&h->block[head][i], file, h->d, i ? h->d : (head + 2) * h->d,
                                SB_BIAS_REQUIRED, err, "%s.linear", stem);
    }
    if (rc != SB_OK || sb_head_count(file, "hydra_lm_head.") == 0)
        return rc;
    out_stem(stem, layout, head);
    return sb_linear_load(&h->out[head], file, h->n_vocab, h->d, SB_BIAS_OPTIONAL, err, "%s", stem);
}

/* hidden_state_offset 0 is the state behind the final norm, k the one that enters layer L - k. */
static enum sb_status want_tap(struct sb_hydra_heads *h, const struct sb_head_file *file,
                               const struct sb_drafter_env *env, struct sb_error *err)
{
    size_t offset = 0, n_layers = sb_model_config(env->target)->n_layers;
    enum sb_status rc = sb_head_config_size(file, "hidden_state_offset", &offset, 0, n_layers, err);
    if (rc != SB_OK)
        return rc;
    return sb_tap_want(env->taps, offset ? SB_TAP_IN : SB_TAP_FINAL, offset ? n_layers - offset : 0,
                       &h->tap, err);
}

static enum sb_status read_config(struct sb_hydra_heads *h, const struct sb_head_file *file,
                                  struct sb_error *err)
{
    bool grounded = true;
    enum sb_status rc = sb_head_config_flag(file, "grounded_heads", &grounded, err);
    if (rc == SB_OK && !grounded)
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: config.json: 'grounded_heads' is false: its heads do not see draft "
                       "tokens; drafter %s runs those that do",
                       file->path, file->drafter);
    return rc;
}

static enum sb_status allocate(struct sb_hydra_heads *h, const char *drafter, struct sb_error *err)
{
    size_t n_nodes = (size_t)h->shape.n, width = h->d * (h->n_heads + 1);
    if (h->learner.depth > 0) { /* a tree of as many nodes may have any shape */
        n_nodes = (size_t)h->learner.nodes + 1;
        h->most_rows = n_nodes;
    }
    for (int32_t level = 0; level < h->shape.depth; level++) {
        size_t rows = 0;
        for (int32_t i = h->shape.level[level]; i < h->shape.level[level + 1]; i++)
            rows += h->shape.node[i].n_children > 0;
        h->most_rows = rows > h->most_rows ? rows : h->most_rows;
    }
    h->u = sb_alloc_array(h->most_rows * width, sizeof *h->u);
    h->above = sb_alloc_array(h->most_rows * width, sizeof *h->above);
    h->z = sb_alloc_array(h->most_rows * h->d, sizeof *h->z);
    h->scratch = sb_alloc_array(h->most_rows * h->d, sizeof *h->scratch);
    h->logits = sb_alloc_array(h->most_rows * h->n_vocab, sizeof *h->logits);
    h->at = sb_alloc_array(n_nodes, sizeof *h->at);
    h->row = sb_alloc_array(n_nodes, sizeof *h->row);
    h->best = sb_alloc_array(n_nodes * SB_LEARN_RANKS, sizeof *h->best);
    h->n_best = sb_alloc_zero(n_nodes, sizeof *h->n_best);
    if (!h->u || !h->above || !h->z || !h->scratch || !h->logits || !h->at || !h->row || !h->best ||
        !h->n_best)
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory", drafter);
    return SB_OK;
}

enum sb_status sb_hydra_open(struct sb_hydra_heads *h, struct sb_head_file *file, const char *arch,
                             const struct sb_drafter_env *env, struct sb_error *err)
{
    const struct sb_hydra_params *p = env->params;
    struct layout layout = { 0 };
    size_t kept = (size_t)p->heads;
    h->target = env->target;
    h->d = sb_model_config(env->target)->d_model;
    h->n_vocab = env->n_vocab;
    enum sb_status rc = find_layout(h, &layout, file, arch, err);
    if (rc == SB_OK)
        rc = read_config(h, file, err);
    if (rc == SB_OK)
        rc = want_tap(h, file, env, err);
    if (rc == SB_OK && kept > h->n_heads)
        rc = sb_fail(err, SB_EUSAGE, "drafter %s: heads=%zu: %s has %zu", file->drafter, kept,
                     file->path, h->n_heads);
    for (size_t i = 0; i < h->n_heads && rc == SB_OK; i++)
        rc = load_head(h, i, &layout, file, err);
    h->n_heads = kept ? kept : h->n_heads;
    if (rc == SB_OK)
        rc = sb_tree_learner_open(&h->learner, &h->shape, p->tree, p->nodes, (int32_t)h->n_heads,
                                  file->drafter, err);
    if (rc == SB_OK)
        rc = sb_static_tree_uses(env, p->tree, err);
    return rc == SB_OK ? allocate(h, file->drafter, err) : rc;
}

void sb_hydra_close(struct sb_hydra_heads *h)
{
    for (size_t i = 0; i < SB_HYDRA_HEADS; i++) {
        sb_linear_finish(&h->residual[i]);
        for (size_t k = 0; k < SB_HYDRA_BLOCKS; k++)
            sb_linear_finish(&h->block[i][k]);
        sb_linear_finish(&h->out[i]);
    }
    sb_static_tree_finish(&h->shape);
    sb_free(h->u);
    sb_free(h->above);
    sb_free(h->z);
    sb_free(h->scratch);
    sb_free(h->logits);
    sb_free(h->at);
    sb_free(h->row);
    sb_free(h->best);
    sb_free(h->n_best);
    *h = (struct sb_hydra_heads){ 0 };
}

/* ---- drafting ---- */

/* One head over m rows of u. */
static void run_head(const struct sb_team *team, const struct sb_hydra_heads *h, size_t head,
                     size_t m)
{
    size_t d = h->d, width = (head + 2) * d;
    const struct sb_linear *block = h->block[head], *out = &h->out[head];
    sb_linear_apply(team, &h->residual[head], h->z, d, h->u, width, m, false);
    sb_linear_apply(team, &block[0], h->scratch, d, h->u, width, m, false);
    sb_silu_add(team, h->z, d, h->scratch, d, d, m);
    for (size_t i = 1; i < h->n_blocks; i++)
        sb_residual_block(team, &block[i], h->z, d, h->scratch, m);
    if (sb_linear_is(out))
        sb_linear_apply(team, out, h->logits, h->n_vocab, h->z, d, m, false);
}

static void run_level(const struct sb_hydra_heads *h, size_t head, size_t m)
{
    size_t work = sb_linear_work(&h->residual[head], m) + sb_linear_work(&h->out[head], m);
    for (size_t i = 0; i < h->n_blocks; i++)
        work += sb_linear_work(&h->block[head][i], m);
    const struct sb_team *team = sb_team_begin(sb_team_size(work));
    run_head(team, h, head, m);
    sb_team_end(team);
    if (!sb_linear_is(&h->out[head]))
        sb_model_lm_head(h->target, h->logits, h->z, m);
}

/* Inputs of a level's nodes that are in the draft and have children: the parent's, and one more embedding.
 * The root's is the state and its embedding. Returns how many rows there are. */
static size_t gather(struct sb_hydra_heads *h, const float *state, const struct sb_tree *tree,
                     int32_t level)
{
    size_t m = 0, d = h->d, before = (size_t)(level + 1) * d, width = before + d;
    for (int32_t i = h->shape.level[level]; i < h->shape.level[level + 1]; i++) {
        if (h->at[i] < 0 || h->shape.node[i].n_children == 0)
            continue;
        const float *from =
            level == 0 ? state : h->above + (size_t)h->row[h->shape.node[i].parent] * before;
        float *u = h->u + m * width;
        memcpy(u, from, before * sizeof *u);
        sb_model_embed(h->target, u + before, &tree->node[h->at[i]].token, 1);
        h->row[i] = (int32_t)m++;
    }
    return m;
}

static void add_children(struct sb_hydra_heads *h, struct sb_tree *tree, int32_t node)
{
    const struct sb_static_node *shape = &h->shape.node[node];
    const float *logits = h->logits + (size_t)h->row[node] * h->n_vocab;
    sb_token best[SB_STATIC_RANKS];
    size_t width = sb_tree_learner_width(&h->learner, shape->width);
    int32_t n = (int32_t)sb_top_logits(best, width, logits, h->n_vocab, -INFINITY);
    if (h->learner.depth > 0) {
        h->n_best[node] = n < SB_LEARN_RANKS ? n : SB_LEARN_RANKS;
        memcpy(h->best + node * SB_LEARN_RANKS, best, (size_t)h->n_best[node] * sizeof *best);
    }
    for (int32_t c = shape->first_child; c < shape->first_child + shape->n_children; c++) {
        int32_t rank = h->shape.node[c].rank;
        h->at[c] = rank < n ? sb_tree_add(tree, h->at[node], best[rank], shape->depth + 1) : -1;
    }
}

void sb_hydra_draft(struct sb_hydra_heads *h, const float *state, const struct sb_policy *policy,
                    struct sb_tree *tree)
{
    int32_t depth = sb_policy_plan(policy, h->shape.depth);
    depth = depth < h->shape.depth ? depth : h->shape.depth;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    memset(h->at, 0xff, (size_t)h->shape.n * sizeof *h->at);
    memset(h->n_best, 0, (size_t)h->shape.n * sizeof *h->n_best);
    h->at[0] = 0;
    for (int32_t level = 0; level < depth; level++) {
        size_t m = gather(h, state, tree, level);
        if (m == 0)
            return;
        run_level(h, (size_t)level, m);
        for (int32_t i = h->shape.level[level]; i < h->shape.level[level + 1]; i++)
            if (h->at[i] >= 0 && h->shape.node[i].n_children > 0)
                add_children(h, tree, i);
        float *inputs = h->u;
        h->u = h->above;
        h->above = inputs;
    }
}

/* ---- learning ---- */

enum sb_status sb_hydra_begin(struct sb_hydra_heads *h, struct sb_error *err)
{
    return sb_tree_learner_update(&h->learner, &h->shape, err);
}

/* The node of the shape that became this node of the draft, below `parent`; -1: none. */
static int32_t child_at(const struct sb_hydra_heads *h, int32_t parent, int32_t node)
{
    const struct sb_static_node *shape = &h->shape.node[parent];
    for (int32_t c = shape->first_child; c < shape->first_child + shape->n_children; c++)
        if (h->at[c] == node)
            return c;
    return -1;
}

enum sb_status sb_hydra_observe(void *st, const struct sb_context *ctx,
                                const struct sb_outcome *outcome, struct sb_error *err)
{
    struct sb_hydra_heads *h = st;
    int32_t node = 0;
    for (int32_t j = 0; j < h->learner.depth && node >= 0 && h->n_best[node] > 0; j++) {
        sb_token token = sb_tree_learner_token(outcome, j);
        if (token < 0)
            break;
        sb_tree_learner_see(&h->learner, j + 1, token, h->best + node * SB_LEARN_RANKS,
                            h->n_best[node]);
        node = j + 1 < outcome->n_path ? child_at(h, node, outcome->path[j + 1]) : -1;
    }
    return SB_OK;
}

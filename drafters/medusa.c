/* Medusa heads (methods B 4.3): head i, a few residual blocks and a linear layer over the target's last hidden
 * state, guesses the token of depth i + 1 without knowing those before it. The best tokens of each head
 * fill a static tree: a child of rank r at depth j is the r-th of head j - 1, whatever its parent.
 *
 * Heads are counted by their tensors, for published configs say fewer. Where a file has no output layers
 * (`I.N.weight`, `lm_heads.I.weight`), the heads share the target's, as in vLLM's `original_lm_head`.
 * The policy's length is the depth here. Layouts: docs/formats.md. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "drafters/head_file.h"
#include "drafters/linear.h"
#include "drafters/tree_learner.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "harness/decode/draw.h"

enum { MOST_HEADS = SB_STATIC_DEPTH, MOST_BLOCKS = 16 };

struct medusa_params {
    const char *head, *tree;
    int64_t nodes, heads;
};

static const struct sb_param medusa_params[] = {
    SB_HEAD_PARAM(struct medusa_params),
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct medusa_params, tree),
      .fallback = "mc_sim_7b_63",
      .meaning = SB_TREE_MEANING },
    SB_NODES_PARAM(struct medusa_params),
    { .name = "heads",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct medusa_params, heads),
      .fallback = "0",
      .min = 0,
      .max = MOST_HEADS,
      .meaning = "how many of the file's heads to use; 0: all" },
    { 0 },
};

struct medusa {
    struct sb_static_tree shape; /* no deeper than there are heads */
    struct sb_tree_learner learner;
    size_t n_heads, n_blocks;
    struct sb_linear block[MOST_HEADS][MOST_BLOCKS]; /* [d, d] */
    struct sb_linear out[MOST_HEADS];                /* [n_draft, d] */
    size_t n_out;  /* n_heads, 1: shared by all, 0: the target's */
    sb_token *map; /* [n_draft] the target's ids; NULL: the same */
    size_t d, n_draft, tap;
    const struct sb_model *target;
    float *x, *scratch; /* [n_heads, d] */
    float *logits;      /* [n_heads, n_draft] */
    sb_token best[MOST_HEADS * SB_STATIC_RANKS];
    int32_t n_best[MOST_HEADS]; /* 0: not drafted in this step */
};

/* ---- opening ---- */

/* Two layouts: the authors', whose output layer is the block behind the last, and vLLM's. */
static void block_stem(char stem[64], bool vllm, size_t head, size_t block)
{
    snprintf(stem, 64, vllm ? "blocks.%zu.layers.%zu" : "%zu.%zu.linear", head, block);
}

static void out_stem(char stem[64], bool vllm, size_t head, size_t n_blocks)
{
    if (vllm)
        snprintf(stem, 64, "lm_heads.%zu", head);
    else
        snprintf(stem, 64, "%zu.%zu", head, n_blocks);
}

static bool has_block(const struct sb_head_file *file, bool vllm, size_t head, size_t block)
{
    char stem[64];
    block_stem(stem, vllm, head, block);
    return sb_head_find(file, "%s.weight", stem);
}

/* Which layout it is; sets the prefix. */
static enum sb_status find_layout(struct sb_head_file *file, bool *vllm, struct sb_error *err)
{
    static const char *const prefixes[] = { "", "medusa_head.", "medusa_heads." };
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
        file->prefix = prefixes[i];
        for (size_t head = 0; head < MOST_HEADS; head++)
            for (int form = 0; form < 2; form++)
                if (has_block(file, form == 1, head, 0)) {
                    *vllm = form == 1;
                    return SB_OK;
                }
    }
    return sb_head_refuse(file, "0.0.linear.weight and blocks.0.layers.0.weight", err);
}

static enum sb_status count_parts(struct medusa *m, const struct sb_head_file *file, bool vllm,
                                  struct sb_error *err)
{
    size_t n = sb_head_count(file, vllm ? "blocks." : "");
    if (n > MOST_HEADS)
        return sb_fail(err, SB_EUNSUPPORTED, "%s: has %zu heads; expected at most %d", file->path,
                       n, MOST_HEADS);
    m->n_heads = n;
    for (size_t head = 0; head < n; head++)
        for (size_t block = 0; block < MOST_BLOCKS; block++)
            if (block >= m->n_blocks && has_block(file, vllm, head, block))
                m->n_blocks = block + 1;
    return SB_OK;
}

static enum sb_status load_blocks(struct medusa *m, const struct sb_head_file *file, bool vllm,
                                  struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t head = 0; head < m->n_heads; head++)
        for (size_t block = 0; block < m->n_blocks && rc == SB_OK; block++) {
            char stem[64];
            block_stem(stem, vllm, head, block);
            rc = sb_linear_load(&m->block[head][block], file, m->d, m->d,
                                vllm ? SB_BIAS_OPTIONAL : SB_BIAS_REQUIRED, err, "%s", stem);
        }
    return rc;
}

/* Output layers, as wide as the first of them says: one for each head, one for all, or none. `n_kept` heads
 * are used. */
static enum sb_status load_outputs(struct medusa *m, struct sb_head_file *file, bool vllm,
                                   size_t n_vocab, size_t n_kept, struct sb_error *err)
{
    char stem[64];
    size_t own = 0;
    enum sb_status rc = SB_OK;
    m->n_draft = n_vocab;
    for (size_t head = m->n_heads; head-- > 0;) {
        out_stem(stem, vllm, head, m->n_blocks);
        if (sb_head_find(file, "%s.weight", stem)) {
            m->n_draft = sb_head_rows(file, "%s.weight", stem);
            own++;
        }
    }
    bool shared = own == 0 && vllm && sb_head_find(file, "lm_head.weight");
    bool first_alone = own == 1 && vllm; /* `original_lm_head` may be stored as lm_heads.0 */
    m->n_out = shared || first_alone ? 1 : own > 0 ? n_kept : 0;
    if (shared)
        m->n_draft = sb_head_rows(file, "lm_head.weight");
    for (size_t head = 0; head < m->n_out && rc == SB_OK; head++) {
        out_stem(stem, vllm, head, m->n_blocks);
        rc = sb_linear_load(&m->out[head], file, m->n_draft, m->d, SB_BIAS_NONE, err, "%s",
                            shared ? "lm_head" : stem);
    }
    if (rc == SB_OK && m->n_draft != n_vocab)
        rc = sb_head_vocabulary(file, &m->map, m->n_draft, n_vocab, err);
    return rc;
}

static enum sb_status load(struct medusa *m, struct sb_head_file *file, size_t n_vocab,
                           size_t n_kept, struct sb_error *err)
{
    bool vllm = false;
    enum sb_status rc = find_layout(file, &vllm, err);
    if (rc != SB_OK)
        return rc;
    rc = count_parts(m, file, vllm, err);
    if (rc != SB_OK)
        return rc;
    if (n_kept > m->n_heads)
        return sb_fail(err, SB_EUSAGE, "drafter medusa: heads=%zu: %s has %zu", n_kept, file->path,
                       m->n_heads);
    n_kept = n_kept ? n_kept : m->n_heads;
    rc = load_blocks(m, file, vllm, err);
    if (rc == SB_OK)
        rc = load_outputs(m, file, vllm, n_vocab, n_kept, err);
    m->n_heads = n_kept;
    return rc;
}

static enum sb_status medusa_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct medusa *m = st;
    const struct medusa_params *p = env->params;
    struct sb_head_file file = { 0 };
    const struct sb_head_request request = { "medusa", p->head, NULL, env->target, env };
    m->target = env->target;
    enum sb_status rc = sb_head_open(&file, &request, err);
    if (rc == SB_OK)
        rc = sb_tap_want(env->taps, SB_TAP_FINAL, 0, &m->tap, err);
    m->d = rc == SB_OK ? sb_model_config(env->target)->d_model : 0;
    if (rc == SB_OK)
        rc = load(m, &file, env->n_vocab, (size_t)p->heads, err);
    if (rc == SB_OK)
        rc = sb_tree_learner_open(&m->learner, &m->shape, p->tree, p->nodes, (int32_t)m->n_heads,
                                  "medusa", err);
    if (rc == SB_OK)
        rc = sb_static_tree_uses(env, p->tree, err);
    sb_head_close(&file);
    if (rc != SB_OK)
        return rc;
    m->x = sb_alloc_array(m->n_heads * m->d, sizeof *m->x);
    m->scratch = sb_alloc_array(m->n_heads * m->d, sizeof *m->scratch);
    m->logits = sb_alloc_array(m->n_heads * m->n_draft, sizeof *m->logits);
    return m->x && m->scratch && m->logits ? SB_OK
                                           : sb_fail(err, SB_ENOMEM, "drafter medusa: no memory");
}

static void medusa_close(void *st)
{
    struct medusa *m = st;
    for (size_t head = 0; head < MOST_HEADS; head++) {
        for (size_t block = 0; block < MOST_BLOCKS; block++)
            sb_linear_finish(&m->block[head][block]);
        sb_linear_finish(&m->out[head]);
    }
    sb_static_tree_finish(&m->shape);
    sb_free(m->map);
    sb_free(m->x);
    sb_free(m->scratch);
    sb_free(m->logits);
    *m = (struct medusa){ 0 };
}

/* ---- drafting ---- */

/* Heads side by side: x[head], the hidden state at first, through its blocks, then its logits where it has an output. */
static void run_heads(const struct sb_team *team, const struct medusa *m, size_t n)
{
    size_t d = m->d;
    for (size_t block = 0; block < m->n_blocks; block++) {
        for (size_t i = 0; i < n; i++)
            sb_linear_apply(team, &m->block[i][block], m->scratch + i * d, d, m->x + i * d, d, 1,
                            false);
        sb_silu_add(team, m->x, d, m->scratch, d, d, n);
    }
    if (m->n_out == 1)
        sb_linear_apply(team, &m->out[0], m->logits, m->n_draft, m->x, d, n, false);
    for (size_t i = 0; i < n && m->n_out > 1; i++)
        sb_linear_apply(team, &m->out[i], m->logits + i * m->n_draft, m->n_draft, m->x + i * d, d,
                        1, false);
}

static void find_best(struct medusa *m, size_t n_heads)
{
    for (size_t i = 0; i < n_heads; i++) {
        sb_token *best = m->best + i * SB_STATIC_RANKS;
        size_t width = sb_tree_learner_width(&m->learner, m->shape.width[i]);
        size_t n = sb_top_logits(best, width, m->logits + i * m->n_draft, m->n_draft, -INFINITY);
        for (size_t r = 0; r < n && m->map; r++)
            best[r] = m->map[best[r]];
        m->n_best[i] = (int32_t)n;
    }
}

static enum sb_status medusa_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                     struct sb_error *err)
{
    struct medusa *m = st;
    int32_t depth = sb_policy_plan(ctx->policy, m->shape.depth);
    depth = depth < m->shape.depth ? depth : m->shape.depth;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    memset(m->n_best, 0, sizeof m->n_best);
    if (ctx->n < 2 || depth < 1)
        return SB_OK;
    size_t n = (size_t)depth;
    const float *newest = ctx->taps[m->tap] + (ctx->n - 2) * m->d;
    size_t work = n * m->d * (m->n_blocks * m->d + (m->n_out ? m->n_draft : 0));
    for (size_t i = 0; i < n; i++)
        memcpy(m->x + i * m->d, newest, m->d * sizeof *m->x);
    const struct sb_team *team = sb_team_begin(sb_team_size(work));
    run_heads(team, m, n);
    sb_team_end(team);
    if (m->n_out == 0)
        sb_model_lm_head(m->target, m->logits, m->x, n);
    find_best(m, n);
    sb_static_tree_fill(&m->shape, tree, m->best, SB_STATIC_RANKS, m->n_best, depth);
    return SB_OK;
}

/* ---- learning ---- */

static enum sb_status medusa_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct medusa *m = st;
    return sb_tree_learner_update(&m->learner, &m->shape, err);
}

static enum sb_status medusa_observe(void *st, const struct sb_context *ctx,
                                     const struct sb_outcome *outcome, struct sb_error *err)
{
    struct medusa *m = st;
    for (int32_t j = 0; j < m->learner.depth && m->n_best[j] > 0; j++) {
        sb_token token = sb_tree_learner_token(outcome, j);
        if (token < 0)
            break;
        sb_tree_learner_see(&m->learner, j + 1, token, m->best + j * SB_STATIC_RANKS, m->n_best[j]);
    }
    return SB_OK;
}

/* ---- what the table says ---- */

static bool medusa_branches(const void *params)
{
    const struct medusa_params *p = params;
    return !p || sb_tree_learner_branches(p->tree, p->nodes);
}

static int32_t medusa_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct medusa_params *p = params;
    return sb_tree_learner_nodes(p->tree, p->nodes);
}

const struct sb_drafter_ops sb_drafter_medusa = {
    .name = "medusa",
    .summary = "independent heads over the target's last hidden state fill a static tree",
    .paper = "Cai et al. 2024, arXiv 2401.10774",
    .params = medusa_params,
    .params_size = sizeof(struct medusa_params),
    .state_size = sizeof(struct medusa),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = medusa_branches,
    .open = medusa_open,
    .begin = medusa_begin,
    .propose = medusa_propose,
    .observe = medusa_observe,
    .close = medusa_close,
    .max_nodes = medusa_max_nodes,
};

/* redrafter: a recurrent head and a beam search (methods B 4.5; Cheng et al. 2024;
 * apple/ml-recurrent-drafter).
 *
 * With h the target's last hidden state (after the final norm), fixed for all depths, g_0 the root and g_j
 * the draft: s_0 = 0, s_j = silu(W e(g_{j-1}) + U s_{j-1} + b), e the target's embedding; u = [h ; s_j],
 * through input_proj if there is one, then the residual blocks x + silu(A x + a), then the output layer.
 * Without `rnn` in the config, s_j = s_{j-1} + e(g_{j-1}).
 *
 * Each beam is continued by its `top` likeliest tokens, with probabilities among those alone; the best of
 * all go on. The beams are merged where they begin alike, which is the authors' packing. Their acceptance
 * at a temperature is not exact; here the drafts are chosen ones, and verifiers treat them so.
 *
 * Tensors: rnn_w.weight [d, d], rnn_u.weight [d, d], rnn_u.bias [d], input_proj.weight [x, 2 d] and .bias
 * (optional, then x = 2 d without it), lm_head.j.linear.weight [x, x] and .bias, lm_head.N.weight [V, x]. */
#include <math.h>
#include <string.h>

#include "drafters/head_file.h"
#include "drafters/linear.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "harness/decode/draw.h"

enum { MOST_BLOCKS = 16, MOST_BEAMS = 64, MOST_TOP = 64, MOST_DEPTH = 32 };

struct redrafter_params {
    const char *head;
    int64_t k, beams, top;
};

static const struct sb_param redrafter_params[] = {
    SB_HEAD_PARAM(struct redrafter_params),
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct redrafter_params, k),
      .fallback = "4",
      .min = 1,
      .max = MOST_DEPTH,
      .meaning = "draft tokens of a beam" },
    { .name = "beams",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct redrafter_params, beams),
      .fallback = "10",
      .min = 1,
      .max = MOST_BEAMS,
      .meaning = "width of the beam search; 1: a chain" },
    { .name = "top",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct redrafter_params, top),
      .fallback = "50",
      .min = 1,
      .max = MOST_TOP,
      .meaning = "likeliest tokens that continue a beam" },
    { 0 },
};

struct beam {
    sb_token token[MOST_DEPTH];
    double log_p;
    int32_t from; /* the beam of the depth before that it continues */
};

struct redrafter {
    struct sb_head_file file;
    const struct sb_model *target;
    struct sb_linear rnn_w, rnn_u, input_proj, block[MOST_BLOCKS], output;
    bool recurrent;
    size_t n_blocks, tap, d, exit_width, n_vocab;
    int32_t k, n_beams, top;
    struct beam beam[2][MOST_BEAMS]; /* of this depth and the next */
    int32_t n[2];
    /* [n_beams, ...]: states now and next, what the blocks work on, logits */
    float *state, *next, *embedded, *joined, *x, *scratch, *logits;
};

/* ---- loading ---- */

static enum sb_status load_blocks(struct redrafter *r, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    while (rc == SB_OK && r->n_blocks < MOST_BLOCKS &&
           sb_head_find(&r->file, "lm_head.%zu.linear.weight", r->n_blocks)) {
        rc = sb_linear_load(&r->block[r->n_blocks], &r->file, r->exit_width, r->exit_width,
                            SB_BIAS_REQUIRED, err, "lm_head.%zu.linear", r->n_blocks);
        r->n_blocks++;
    }
    size_t said = r->n_blocks;
    if (rc == SB_OK)
        rc = sb_head_config_size(&r->file, "num_draft_layers", &said, 0, MOST_BLOCKS, err);
    if (rc == SB_OK && said != r->n_blocks)
        return sb_fail(err, SB_EFORMAT,
                       "%s: config.json says num_draft_layers=%zu; the tensors make %zu",
                       r->file.path, said, r->n_blocks);
    return rc == SB_OK ? sb_linear_load(&r->output, &r->file, r->n_vocab, r->exit_width,
                                        SB_BIAS_NONE, err, "lm_head.%zu", r->n_blocks)
                       : rc;
}

static enum sb_status load(struct redrafter *r, struct sb_error *err)
{
    r->recurrent = true;
    enum sb_status rc = sb_head_config_flag(&r->file, "rnn", &r->recurrent, err);
    if (rc != SB_OK)
        return rc;
    if (r->recurrent && !sb_head_find(&r->file, "rnn_u.weight"))
        return sb_head_refuse(&r->file, "rnn_u.weight, rnn_w.weight, lm_head.0.linear.weight", err);
    if (r->recurrent) {
        rc = sb_linear_load(&r->rnn_w, &r->file, r->d, r->d, SB_BIAS_NONE, err, "rnn_w");
        if (rc == SB_OK)
            rc = sb_linear_load(&r->rnn_u, &r->file, r->d, r->d, SB_BIAS_REQUIRED, err, "rnn_u");
    }
    r->exit_width = 2 * r->d;
    if (rc == SB_OK && sb_head_find(&r->file, "input_proj.weight")) {
        r->exit_width = sb_head_rows(&r->file, "input_proj.weight");
        rc = r->exit_width > SB_MAX_WIDTH
                 ? sb_fail(err, SB_EFORMAT, "%s: tensor 'input_proj.weight': %zu rows; at most %d",
                           r->file.path, r->exit_width, SB_MAX_WIDTH)
                 : sb_linear_load(&r->input_proj, &r->file, r->exit_width, 2 * r->d,
                                  SB_BIAS_OPTIONAL, err, "input_proj");
    }
    return rc == SB_OK ? load_blocks(r, err) : rc;
}

static enum sb_status allocate(struct redrafter *r, struct sb_error *err)
{
    size_t rows = (size_t)r->n_beams;
    r->state = sb_alloc_aligned(rows * r->d, sizeof(float));
    r->next = sb_alloc_aligned(rows * r->d, sizeof(float));
    r->embedded = sb_alloc_aligned(rows * r->d, sizeof(float));
    r->joined = sb_alloc_aligned(rows * 2 * r->d, sizeof(float));
    r->x = sb_alloc_aligned(rows * r->exit_width, sizeof(float));
    r->scratch = sb_alloc_aligned(rows * r->exit_width, sizeof(float));
    r->logits = sb_alloc_aligned(rows * r->n_vocab, sizeof(float));
    return r->state && r->next && r->embedded && r->joined && r->x && r->scratch && r->logits
               ? SB_OK
               : sb_fail(err, SB_ENOMEM, "drafter redrafter: out of memory for %zu beams", rows);
}

static enum sb_status redrafter_open(void *st, const struct sb_drafter_env *env,
                                     struct sb_error *err)
{
    struct redrafter *r = st;
    const struct redrafter_params *p = env->params;
    r->target = env->target;
    r->n_vocab = env->n_vocab;
    r->k = (int32_t)p->k;
    r->n_beams = (int32_t)p->beams;
    r->top = (int32_t)p->top;
    const struct sb_head_request request = {
        .drafter = "redrafter", .name = p->head, .target = env->target, .env = env
    };
    enum sb_status rc = sb_head_open(&r->file, &request, err);
    if (rc == SB_OK)
        rc = sb_tap_want(env->taps, SB_TAP_FINAL, 0, &r->tap, err);
    if (rc != SB_OK)
        return rc;
    r->d = env->taps->d_model;
    rc = load(r, err);
    return rc == SB_OK ? allocate(r, err) : rc;
}

static void redrafter_close(void *st)
{
    struct redrafter *r = st;
    sb_linear_finish(&r->rnn_w);
    sb_linear_finish(&r->rnn_u);
    sb_linear_finish(&r->input_proj);
    sb_linear_finish(&r->output);
    for (size_t i = 0; i < MOST_BLOCKS; i++)
        sb_linear_finish(&r->block[i]);
    sb_free(r->state);
    sb_free(r->next);
    sb_free(r->embedded);
    sb_free(r->joined);
    sb_free(r->x);
    sb_free(r->scratch);
    sb_free(r->logits);
    sb_head_close(&r->file);
    *r = (struct redrafter){ 0 };
}

/* ---- the network ---- */

static void advance_states(const struct sb_team *team, const struct redrafter *r, size_t rows)
{
    if (!r->recurrent) {
        for (size_t i = 0; i < rows * r->d; i++)
            r->next[i] = r->state[i] + r->embedded[i];
        return;
    }
    sb_linear_apply(team, &r->rnn_u, r->next, r->d, r->state, r->d, rows, false);
    sb_linear_apply(team, &r->rnn_w, r->next, r->d, r->embedded, r->d, rows, true);
    sb_silu(team, r->next, r->d, r->d, rows);
}

/* Logits of every beam, from its token's embedding and its state, and from h[d]. */
static void score(const struct sb_team *team, const struct redrafter *r, const float *h,
                  size_t rows)
{
    size_t d = r->d;
    advance_states(team, r, rows);
    float *joined = sb_linear_is(&r->input_proj) ? r->joined : r->x;
    for (size_t i = 0; i < rows; i++) {
        memcpy(joined + i * 2 * d, h, d * sizeof(float));
        memcpy(joined + i * 2 * d + d, r->next + i * d, d * sizeof(float));
    }
    if (joined != r->x)
        sb_linear_apply(team, &r->input_proj, r->x, r->exit_width, joined, 2 * d, rows, false);
    for (size_t i = 0; i < r->n_blocks; i++)
        sb_residual_block(team, &r->block[i], r->x, r->exit_width, r->scratch, rows);
    sb_linear_apply(team, &r->output, r->logits, r->n_vocab, r->x, r->exit_width, rows, false);
}

static size_t work_of(const struct redrafter *r, size_t rows)
{
    size_t blocks = r->n_blocks * r->exit_width * r->exit_width;
    return rows * (r->n_vocab * r->exit_width + blocks + 2 * r->d * r->d);
}

/* ---- the beam search ---- */

/* Put a beam into the list of the best, larger log_p first, the earlier one on ties. */
static void offer(struct beam *list, int32_t *n, int32_t most, const struct beam *from,
                  int32_t from_index, int32_t depth, sb_token token, double log_p)
{
    if (*n == most && !(log_p > list[most - 1].log_p))
        return;
    int32_t at = *n < most ? (*n)++ : most - 1;
    for (; at > 0 && log_p > list[at - 1].log_p; at--)
        list[at] = list[at - 1];
    list[at] = *from;
    list[at].token[depth] = token;
    list[at].log_p = log_p;
    list[at].from = from_index;
}

static void continue_beam(struct redrafter *r, int32_t index, int32_t depth, struct beam *next,
                          int32_t *n_next)
{
    const struct beam *beam = &r->beam[depth & 1][index];
    const float *logits = r->logits + (size_t)index * r->n_vocab;
    int32_t id[MOST_TOP];
    float kept[MOST_TOP];
    size_t n = sb_top_logits(id, (size_t)r->top, logits, r->n_vocab, -INFINITY);
    for (size_t i = 0; i < n; i++)
        kept[i] = logits[id[i]];
    if (n == 0)
        return;
    float sum = sb_logsumexp(kept, n);
    for (size_t i = 0; i < n; i++)
        offer(next, n_next, r->n_beams, beam, index, depth, id[i],
              beam->log_p + (double)(kept[i] - sum));
}

static void search_depth(struct redrafter *r, const float *h, sb_token root, int32_t depth)
{
    const struct beam *beam = r->beam[depth & 1];
    size_t rows = (size_t)r->n[depth & 1];
    for (size_t i = 0; i < rows; i++)
        sb_model_embed(r->target, r->embedded + i * r->d, depth ? &beam[i].token[depth - 1] : &root,
                       1);
    const struct sb_team *team = sb_team_begin(sb_team_size(work_of(r, rows)));
    score(team, r, h, rows);
    sb_team_end(team);
    struct beam *next = r->beam[(depth + 1) & 1];
    int32_t n = 0;
    for (size_t i = 0; i < rows; i++)
        continue_beam(r, (int32_t)i, depth, next, &n);
    r->n[(depth + 1) & 1] = n;
    for (int32_t i = 0; i < n; i++)
        memcpy(r->state + (size_t)i * r->d, r->next + (size_t)next[i].from * r->d,
               r->d * sizeof(float));
}

static enum sb_status redrafter_propose(void *st, const struct sb_context *ctx,
                                        struct sb_tree *tree, struct sb_error *err)
{
    struct redrafter *r = st;
    int32_t depth = sb_policy_plan(ctx->policy, r->k);
    depth = depth < MOST_DEPTH ? depth : MOST_DEPTH;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    if (depth < 1 || ctx->n < 2)
        return SB_OK;
    const float *h = ctx->taps[r->tap] + (ctx->n - 2) * r->d;
    r->beam[0][0] = (struct beam){ .log_p = 0 };
    r->n[0] = 1;
    memset(r->state, 0, r->d * sizeof(float));
    for (int32_t i = 0; i < depth; i++)
        search_depth(r, h, ctx->tokens[ctx->n - 1], i);
    const struct beam *best = r->beam[depth & 1];
    for (int32_t b = 0; b < r->n[depth & 1]; b++)
        for (int32_t i = 0, node = 0; i < depth && node >= 0; i++)
            node = sb_tree_add(tree, node, best[b].token[i], b);
    return SB_OK;
}

static bool redrafter_branches(const void *params)
{
    const struct redrafter_params *p = params;
    return !p || p->beams > 1;
}

static int32_t redrafter_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct redrafter_params *p = params;
    int32_t longest = sb_policy_longest(policy, (int32_t)p->k);
    return (int32_t)p->beams * (longest < MOST_DEPTH ? longest : MOST_DEPTH);
}

const struct sb_drafter_ops sb_drafter_redrafter = {
    .name = "redrafter",
    .summary = "a recurrent head searched with beams, merged into a tree",
    .paper = "Cheng et al. 2024, arXiv 2403.09919",
    .params = redrafter_params,
    .params_size = sizeof(struct redrafter_params),
    .state_size = sizeof(struct redrafter),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = redrafter_branches,
    .open = redrafter_open,
    .propose = redrafter_propose,
    .close = redrafter_close,
    .max_nodes = redrafter_max_nodes,
};

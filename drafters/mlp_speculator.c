/* mlp-speculator: a small recurrent head, one matrix and one embedding per depth (methods B 4.6; Wertheimer et
 * al. 2024; foundation-model-stack/fms-extras, the form vLLM loads).
 *
 * With h the target's last hidden state (after the final norm) and y_0 the root, for i = 0 .. n-1:
 *   z = P_i s_i + r E_i(y_i),   s_0 = h,   s_{i+1} = gelu(LN_i(z)),   logits = H_i s_{i+1}
 *   LN(z) = z / sqrt(mean z^2 + 1e-6) * g + b,   r = w_e / w_s,   w_s = 2^(-1 / 2n),
 *   w_e = sqrt((1 - w_s^2) m / 2); P_i z and r E keep the published ratio, and LN takes the scale out.
 * The first row, of depth 1, is made from the root and h[n - 2], the newest state there is.
 *
 * Draft: all products of the likeliest tokens per depth, the best `candidates` paths of them, their common
 * beginnings merged. Tensors: `speculator.` (or nothing) + emb.i.weight [V, m], proj.i.weight [m, d] and
 * [m, m], head.i.weight [V, m], ln.i.weight and .bias [m]; of tied ones the first may stand for all. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/head_file.h"
#include "drafters/linear.h"
#include "drafters/shape.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "harness/decode/draw.h"

enum { MOST_DEPTH = SB_SHAPE_LEVELS };

struct mlp_params {
    const char *head, *tree;
    int64_t candidates;
};

static const struct sb_param mlp_params[] = {
    SB_HEAD_PARAM(struct mlp_params),
    { .name = "tree",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct mlp_params, tree),
      .meaning =
          "tokens tried per depth, such as 5x4x3; default: as the head's config says, else that" },
    { .name = "candidates",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct mlp_params, candidates),
      .fallback = "5",
      .min = 1,
      .max = 64,
      .meaning = "best paths to keep of their product; 1: a chain" },
    { 0 },
};

/* One depth of the network; tied parts are the same pointers. */
struct stage {
    const struct sb_linear *proj, *head;
    struct sb_tensor embedding; /* [V, m] in the file */
    const float *norm, *shift;  /* [m] */
};

/* A token that may be drafted. */
struct candidate {
    int32_t above; /* of the level before; 0 for the first level */
    sb_token token;
    float log_p; /* of the path down to here */
};

struct mlp {
    struct sb_head_file file;
    struct sb_shape shape;
    size_t tap, d, m, n_vocab, n_stages;
    int32_t candidates;
    float ratio; /* w_e / w_s */
    bool tied, scale_input;
    struct stage stage[MOST_DEPTH];
    struct sb_linear linear[2 * MOST_DEPTH];
    float *vector[2 * MOST_DEPTH]; /* norms and shifts, owned */
    size_t n_linear, n_vectors;
    size_t most_rows;                /* of a level that has children */
    float *state, *next;             /* [most_rows, max(m, d)] */
    float *ones, *embedded, *logits; /* [d], [m], [most_rows, V] */
    struct candidate *level[MOST_DEPTH];
    int32_t n_level[MOST_DEPTH];
    int32_t *order; /* of the last level, best first */
};

/* ---- loading ---- */

static bool has(const struct mlp *mlp, const char *part, size_t i)
{
    return sb_head_find(&mlp->file, "%s.%zu.weight", part, i) != NULL;
}

/* Which depth's tensor serves depth i: its own, or where weights are tied the first one's, and of proj the
 * second's, since the first has another shape. */
static size_t stored_at(const struct mlp *mlp, const char *part, size_t i)
{
    size_t shared = strcmp(part, "proj") == 0 && i > 0 ? 1 : 0;
    return mlp->tied ? shared : i;
}

static enum sb_status load_linear(struct mlp *mlp, const struct sb_linear **out, const char *part,
                                  size_t i, size_t n, size_t k, struct sb_error *err)
{
    struct sb_linear *linear = &mlp->linear[mlp->n_linear];
    enum sb_status rc =
        sb_linear_load(linear, &mlp->file, n, k, SB_BIAS_NONE, err, "%s.%zu", part, i);
    if (rc != SB_OK)
        return rc;
    mlp->n_linear++;
    *out = linear;
    return SB_OK;
}

static enum sb_status load_vector(struct mlp *mlp, const float **out, const char *part, size_t i,
                                  struct sb_error *err)
{
    enum sb_status rc =
        sb_head_floats(&mlp->file, &mlp->vector[mlp->n_vectors], mlp->m, err, "ln.%zu.%s", i, part);
    if (rc == SB_OK)
        *out = mlp->vector[mlp->n_vectors++];
    return rc;
}

static enum sb_status load_stage(struct mlp *mlp, size_t i, struct sb_error *err)
{
    struct stage *stage = &mlp->stage[i];
    size_t proj = stored_at(mlp, "proj", i), head = stored_at(mlp, "head", i),
           norm = stored_at(mlp, "ln", i);
    enum sb_status rc = sb_head_matrix(&mlp->file, &stage->embedding, mlp->n_vocab, mlp->m, err,
                                       "emb.%zu.weight", stored_at(mlp, "emb", i));
    if (proj < i)
        stage->proj = mlp->stage[proj].proj;
    else if (rc == SB_OK)
        rc = load_linear(mlp, &stage->proj, "proj", i, mlp->m, i ? mlp->m : mlp->d, err);
    if (head < i)
        stage->head = mlp->stage[head].head;
    else if (rc == SB_OK)
        rc = load_linear(mlp, &stage->head, "head", i, mlp->n_vocab, mlp->m, err);
    if (norm < i) {
        stage->norm = mlp->stage[norm].norm;
        stage->shift = mlp->stage[norm].shift;
    } else if (rc == SB_OK) {
        rc = load_vector(mlp, &stage->norm, "weight", i, err);
        if (rc == SB_OK)
            rc = load_vector(mlp, &stage->shift, "bias", i, err);
    }
    return rc;
}

/* How many depths: as the config says, else as there are heads. */
static enum sb_status count_stages(struct mlp *mlp, struct sb_error *err)
{
    size_t n = 0;
    while (n < MOST_DEPTH && has(mlp, "head", n))
        n++;
    mlp->n_stages = n;
    return sb_head_config_size(&mlp->file, "n_predict", &mlp->n_stages, 1, MOST_DEPTH, err);
}

/* top_k_tokens_per_head of the config, or 5x4x3x1... */
static enum sb_status default_shape(struct mlp *mlp, struct sb_error *err)
{
    static const int32_t usual[] = { 5, 4, 3 };
    const json_t *list =
        mlp->file.config ? json_object_get(mlp->file.config, "top_k_tokens_per_head") : NULL;
    char text[8 * MOST_DEPTH] = "";
    for (size_t i = 0, used = 0; i < mlp->n_stages; i++) {
        json_int_t width = list ? json_integer_value(json_array_get(list, i)) : 0;
        if (!list)
            width = i < 3 ? usual[i] : 1;
        if (width < 1 || width > SB_SHAPE_WIDTH)
            return sb_fail(err, SB_EFORMAT,
                           "%s: config.json: top_k_tokens_per_head[%zu]: expected 1 to %d",
                           mlp->file.path, i, SB_SHAPE_WIDTH);
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%" PRId64, i ? "x" : "",
                                 (int64_t)width);
    }
    return sb_shape_parse(&mlp->shape, text, "mlp-speculator", err);
}

static enum sb_status choose_shape(struct mlp *mlp, const struct mlp_params *params,
                                   struct sb_error *err)
{
    enum sb_status rc = params->tree
                            ? sb_shape_parse(&mlp->shape, params->tree, "mlp-speculator", err)
                            : default_shape(mlp, err);
    if (rc == SB_OK && (size_t)mlp->shape.n_levels > mlp->n_stages)
        return sb_fail(err, SB_EUSAGE,
                       "drafter mlp-speculator: tree=%s: %s drafts at most %zu tokens deep",
                       params->tree, mlp->file.path, mlp->n_stages);
    return rc;
}

static enum sb_status load(struct mlp *mlp, struct sb_error *err)
{
    if (sb_head_find(&mlp->file, "speculator.proj.0.weight"))
        mlp->file.prefix = "speculator.";
    mlp->m = sb_head_rows(&mlp->file, "proj.0.weight");
    if (mlp->m == 0 || mlp->m > SB_MAX_WIDTH)
        return sb_head_refuse(&mlp->file, "emb.0.weight, proj.0.weight, head.0.weight, ln.0.weight",
                              err);
    enum sb_status rc = count_stages(mlp, err);
    if (rc == SB_OK)
        rc = sb_head_config_flag(&mlp->file, "tie_weights", &mlp->tied, err);
    if (rc == SB_OK)
        rc = sb_head_config_flag(&mlp->file, "scale_input", &mlp->scale_input, err);
    for (size_t i = 0; rc == SB_OK && i < mlp->n_stages; i++)
        rc = load_stage(mlp, i, err);
    double share = pow(2, -1 / (2.0 * (double)mlp->n_stages));
    mlp->ratio = (float)(sqrt((1 - share * share) * (double)mlp->m / 2) / share);
    return rc;
}

static enum sb_status allocate(struct mlp *mlp, struct sb_error *err)
{
    size_t rows = 1, widest = mlp->m > mlp->d ? mlp->m : mlp->d;
    bool ok = true;
    mlp->most_rows = 1;
    for (int32_t i = 0; i < mlp->shape.n_levels; i++) {
        mlp->most_rows = rows;
        rows *= (size_t)mlp->shape.width[i];
        mlp->level[i] = sb_alloc_array(rows, sizeof *mlp->level[i]);
        ok = ok && mlp->level[i];
    }
    mlp->order = sb_alloc_array(rows, sizeof *mlp->order);
    mlp->state = sb_alloc_aligned(mlp->most_rows * widest, sizeof *mlp->state);
    mlp->next = sb_alloc_aligned(mlp->most_rows * widest, sizeof *mlp->next);
    mlp->ones = sb_alloc_array(mlp->d, sizeof *mlp->ones);
    mlp->embedded = sb_alloc_array(mlp->m, sizeof *mlp->embedded);
    mlp->logits = sb_alloc_aligned(mlp->most_rows * mlp->n_vocab, sizeof *mlp->logits);
    for (size_t i = 0; mlp->ones && i < mlp->d; i++)
        mlp->ones[i] = 1;
    return ok && mlp->order && mlp->state && mlp->next && mlp->ones && mlp->embedded && mlp->logits
               ? SB_OK
               : sb_fail(err, SB_ENOMEM, "drafter mlp-speculator: out of memory");
}

static enum sb_status mlp_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct mlp *mlp = st;
    const struct mlp_params *params = env->params;
    mlp->n_vocab = env->n_vocab;
    mlp->candidates = (int32_t)params->candidates;
    const struct sb_head_request request = {
        .drafter = "mlp-speculator", .name = params->head, .target = env->target, .env = env
    };
    enum sb_status rc = sb_head_open(&mlp->file, &request, err);
    if (rc == SB_OK)
        rc = sb_tap_want(env->taps, SB_TAP_FINAL, 0, &mlp->tap, err);
    if (rc != SB_OK)
        return rc;
    mlp->d = env->taps->d_model;
    rc = load(mlp, err);
    if (rc == SB_OK)
        rc = choose_shape(mlp, params, err);
    return rc == SB_OK ? allocate(mlp, err) : rc;
}

static void mlp_close(void *st)
{
    struct mlp *mlp = st;
    for (size_t i = 0; i < mlp->n_linear; i++)
        sb_linear_finish(&mlp->linear[i]);
    for (size_t i = 0; i < mlp->n_vectors; i++)
        sb_free(mlp->vector[i]);
    for (size_t i = 0; i < MOST_DEPTH; i++)
        sb_free(mlp->level[i]);
    sb_free(mlp->order);
    sb_free(mlp->state);
    sb_free(mlp->next);
    sb_free(mlp->ones);
    sb_free(mlp->embedded);
    sb_free(mlp->logits);
    sb_head_close(&mlp->file);
    *mlp = (struct mlp){ 0 };
}

/* ---- drafting ---- */

/* One depth for all rows of a level. */
struct job {
    struct mlp *mlp;
    const struct stage *stage;
    const float *x; /* [rows, k] states in */
    float *y;       /* [rows, m] states out */
    size_t k, rows;
};

static void project(const struct job *job)
{
    const struct sb_linear *proj = job->stage->proj;
    const struct sb_team *team = sb_team_begin(sb_team_size(sb_linear_work(proj, job->rows)));
    sb_linear_apply(team, proj, job->y, job->mlp->m, job->x, job->k, job->rows, false);
    sb_team_end(team);
}

/* z = P s + r E(y), in place. */
static void add_token(const struct mlp *mlp, const struct stage *stage, float *z, sb_token token)
{
    const struct sb_tensor *e = &stage->embedding;
    sb_dequantize_row(mlp->embedded, e->type,
                      (const char *)e->data + (size_t)token * sb_dtype_row_bytes(e->type, e->k),
                      e->k);
    for (size_t i = 0; i < mlp->m; i++)
        z[i] += mlp->ratio * mlp->embedded[i];
}

static void activate_and_score(const struct job *job)
{
    const struct mlp *mlp = job->mlp;
    const struct sb_linear *head = job->stage->head;
    const struct sb_team *team = sb_team_begin(sb_team_size(sb_linear_work(head, job->rows)));
    size_t m = mlp->m;
    sb_rmsnorm(team, job->y, m, job->y, m, job->stage->norm, m, job->rows, 1e-6f);
    for (size_t r = 0; r < job->rows; r++)
        sb_add(job->y + r * m, job->stage->shift, m);
    sb_gelu(team, job->y, m, m, job->rows);
    sb_linear_apply(team, head, mlp->logits, mlp->n_vocab, job->y, m, job->rows, false);
    sb_team_end(team);
}

/* The likeliest tokens of each row, as the next level. */
static void spread(struct mlp *mlp, int32_t depth, size_t rows)
{
    int32_t ids[SB_SHAPE_WIDTH], n = 0;
    for (size_t r = 0; r < rows; r++) {
        const float *logits = mlp->logits + r * mlp->n_vocab;
        float above = depth ? mlp->level[depth - 1][r].log_p : 0,
              sum = sb_logsumexp(logits, mlp->n_vocab);
        size_t found =
            sb_top_logits(ids, (size_t)mlp->shape.width[depth], logits, mlp->n_vocab, -INFINITY);
        for (size_t i = 0; i < found; i++)
            mlp->level[depth][n++] =
                (struct candidate){ (int32_t)r, ids[i], above + (logits[ids[i]] - sum) };
    }
    mlp->n_level[depth] = n;
}

static void run_depth(struct mlp *mlp, int32_t depth, sb_token root)
{
    size_t rows = depth ? (size_t)mlp->n_level[depth - 1] : 1;
    struct job job = { .mlp = mlp,
                       .stage = &mlp->stage[depth],
                       .x = mlp->state,
                       .y = mlp->next,
                       .k = depth ? mlp->m : mlp->d,
                       .rows = rows };
    project(&job);
    for (size_t r = 0; r < rows; r++)
        add_token(mlp, job.stage, mlp->next + r * mlp->m,
                  depth ? mlp->level[depth - 1][r].token : root);
    activate_and_score(&job);
    spread(mlp, depth, rows);
}

/* Each new token goes on from the state of the row it was chosen in. */
static void hand_down(struct mlp *mlp, int32_t depth)
{
    for (int32_t i = 0; i < mlp->n_level[depth]; i++)
        memcpy(mlp->state + (size_t)i * mlp->m,
               mlp->next + (size_t)mlp->level[depth][i].above * mlp->m, mlp->m * sizeof(float));
}

static void first_state(struct mlp *mlp, const float *h)
{
    memcpy(mlp->state, h, mlp->d * sizeof *h);
    if (!mlp->scale_input)
        return;
    sb_rmsnorm(NULL, mlp->state, mlp->d, mlp->state, mlp->d, mlp->ones, mlp->d, 1, 1e-6f);
    for (size_t i = 0; i < mlp->d; i++)
        mlp->state[i] *= 0x1.6a09e6p-1f;
}

/* ---- the tree ---- */

/* The best `n` of the last level, best first, earlier ones on ties. */
static int32_t best_paths(struct mlp *mlp, int32_t last, int32_t n)
{
    const struct candidate *leaf = mlp->level[last];
    int32_t kept = 0;
    for (int32_t i = 0; i < mlp->n_level[last]; i++) {
        int32_t at = kept < n ? kept++ : n;
        for (; at > 0 && leaf[i].log_p > leaf[mlp->order[at - 1]].log_p; at--)
            if (at < n)
                mlp->order[at] = mlp->order[at - 1];
        if (at < n)
            mlp->order[at] = i;
    }
    return kept;
}

static void add_path(const struct mlp *mlp, struct sb_tree *tree, int32_t last, int32_t leaf)
{
    sb_token token[MOST_DEPTH];
    for (int32_t depth = last, at = leaf; depth >= 0; at = mlp->level[depth--][at].above)
        token[depth] = mlp->level[depth][at].token;
    for (int32_t depth = 0, node = 0; depth <= last && node >= 0; depth++)
        node = sb_tree_add(tree, node, token[depth], depth);
}

static enum sb_status mlp_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                  struct sb_error *err)
{
    struct mlp *mlp = st;
    int32_t depth = sb_policy_plan(ctx->policy, mlp->shape.n_levels);
    depth = depth < mlp->shape.n_levels ? depth : mlp->shape.n_levels;
    depth = depth < tree->max_depth ? depth : tree->max_depth;
    if (depth < 1 || ctx->n < 2)
        return SB_OK;
    first_state(mlp, ctx->taps[mlp->tap] + (ctx->n - 2) * mlp->d);
    for (int32_t i = 0; i < depth; i++) {
        run_depth(mlp, i, ctx->tokens[ctx->n - 1]);
        if (i + 1 < depth)
            hand_down(mlp, i);
    }
    int32_t n = best_paths(mlp, depth - 1, mlp->candidates);
    for (int32_t i = 0; i < n; i++)
        add_path(mlp, tree, depth - 1, mlp->order[i]);
    return SB_OK;
}

static bool mlp_branches(const void *params)
{
    const struct mlp_params *p = params;
    return !p || p->candidates > 1;
}

static int32_t mlp_max_nodes(const void *params, const struct sb_policy *policy)
{
    return (int32_t)((const struct mlp_params *)params)->candidates *
           sb_policy_longest(policy, MOST_DEPTH);
}

const struct sb_drafter_ops sb_drafter_mlp_speculator = {
    .name = "mlp-speculator",
    .summary = "a recurrent head on the target's last state, the best paths of its products",
    .paper = "Wertheimer et al. 2024, arXiv 2404.19124",
    .params = mlp_params,
    .params_size = sizeof(struct mlp_params),
    .state_size = sizeof(struct mlp),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = mlp_branches,
    .open = mlp_open,
    .propose = mlp_propose,
    .close = mlp_close,
    .max_nodes = mlp_max_nodes,
};

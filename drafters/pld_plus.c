/* pld-plus: of all places where the last token stood before, copy from the one whose hidden state is most
 * like the present one (methods C 1.2; Somasundaram et al. 2024).
 *
 * The root has not been through the target yet, so the states compared are those of the token before it and
 * of the token before each candidate. Departure: ranking by attention is not offered, since attention
 * maps never leave the kernels here. The middle layer is our default; the paper sweeps layers. */
#include <math.h>
#include <stddef.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

struct pld_plus_params {
    int64_t k, layer, cand_max;
};

static const struct sb_param pld_plus_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct pld_plus_params, k),
      .fallback = "10",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { .name = "layer",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct pld_plus_params, layer),
      .fallback = "-1",
      .min = -1,
      .max = SB_MAX_LAYERS - 1,
      .meaning = "compare the states entering this layer of the target; -1: the middle one" },
    { .name = "cand_max",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct pld_plus_params, cand_max),
      .fallback = "256",
      .min = 1,
      .max = SB_MAX_CONTEXT,
      .meaning = "newest occurrences to compare" },
    { 0 },
};

struct pld_plus {
    struct pld_plus_params params;
    size_t tap, d;
    int32_t *last;     /* [n_vocab] newest indexed position of a token, or -1 */
    int32_t *previous; /* [max_context] the one before a position, of the same token, or -1 */
    float *norm;       /* [max_context] of the states seen so far */
    size_t n_vocab, max_context, indexed, normed;
};

static enum sb_status pld_plus_open(void *st, const struct sb_drafter_env *env,
                                    struct sb_error *err)
{
    struct pld_plus *pld = st;
    pld->params = *(const struct pld_plus_params *)env->params;
    size_t layer = pld->params.layer >= 0 ? (size_t)pld->params.layer
                   : env->taps            ? env->taps->n_layers / 2
                                          : 0;
    enum sb_status rc = sb_tap_want(env->taps, SB_TAP_IN, layer, &pld->tap, err);
    if (rc != SB_OK)
        return sb_fail_context(err, rc, "drafter pld-plus");
    pld->d = env->taps->d_model;
    pld->n_vocab = env->n_vocab;
    pld->max_context = env->max_context;
    pld->last = sb_alloc_array(env->n_vocab, sizeof *pld->last);
    pld->previous = sb_alloc_array(env->max_context, sizeof *pld->previous);
    pld->norm = sb_alloc_array(env->max_context, sizeof *pld->norm);
    if (!pld->last || !pld->previous || !pld->norm)
        return sb_fail(err, SB_ENOMEM, "drafter pld-plus: no memory for an index of %zu tokens",
                       env->max_context);
    return SB_OK;
}

static void pld_plus_close(void *st)
{
    struct pld_plus *pld = st;
    sb_free(pld->last);
    sb_free(pld->previous);
    sb_free(pld->norm);
    *pld = (struct pld_plus){ 0 };
}

static enum sb_status pld_plus_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct pld_plus *pld = st;
    for (size_t i = 0; i < pld->n_vocab; i++)
        pld->last[i] = -1;
    pld->indexed = pld->normed = 0;
    return SB_OK;
}

/* In 16 lanes that compilers make vectors of: the same bits on every machine. */
static float dot(const float *a, const float *b, size_t n)
{
    float lane[16] = { 0 }, sum = 0;
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (size_t l = 0; l < 16; l++)
            lane[l] += a[i + l] * b[i + l];
    for (size_t l = 0; i < n; i++, l++)
        lane[l] += a[i] * b[i];
    for (size_t l = 0; l < 16; l++)
        sum += lane[l];
    return sum;
}

/* Everything but the root. */
static void learn(struct pld_plus *pld, const struct sb_context *ctx)
{
    const float *state = ctx->taps[pld->tap];
    for (; pld->normed + 1 < ctx->n; pld->normed++) {
        const float *row = state + pld->normed * pld->d;
        pld->norm[pld->normed] = sqrtf(dot(row, row, pld->d));
    }
    for (; pld->indexed + 1 < ctx->n; pld->indexed++) {
        int32_t *last = &pld->last[ctx->tokens[pld->indexed]];
        pld->previous[pld->indexed] = *last;
        *last = (int32_t)pld->indexed;
    }
}

/* How alike the states before an occurrence at j and before the root are: their cosine; -1 where there is
 * none. */
static float likeness(const struct pld_plus *pld, const struct sb_context *ctx, size_t j)
{
    const float *state = ctx->taps[pld->tap];
    size_t before = ctx->n - 2;
    float scale = j > 0 ? pld->norm[j - 1] * pld->norm[before] : 0;
    return scale > 0 ? dot(state + (j - 1) * pld->d, state + before * pld->d, pld->d) / scale : -1;
}

static enum sb_status pld_plus_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                       struct sb_error *err)
{
    struct pld_plus *pld = st;
    if (ctx->n < 2 || ctx->n > pld->max_context)
        return SB_OK;
    learn(pld, ctx);
    int32_t best = -1;
    float best_likeness = -INFINITY;
    int64_t left = pld->params.cand_max;
    for (int32_t j = pld->last[ctx->tokens[ctx->n - 1]]; j >= 0 && left-- > 0;
         j = pld->previous[j]) {
        float alike = likeness(pld, ctx, (size_t)j);
        if (alike > best_likeness) { /* equal ones: the newest stays */
            best_likeness = alike;
            best = j;
        }
    }
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)pld->params.k);
    size_t from = (size_t)best + 1;
    for (int32_t i = 0, node = 0; best >= 0 && i < k && node >= 0 && from + (size_t)i < ctx->n; i++)
        node = sb_tree_add(tree, node, ctx->tokens[from + (size_t)i], 0);
    return SB_OK;
}

static int32_t pld_plus_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct pld_plus_params *)params)->k);
}

const struct sb_drafter_ops sb_drafter_pld_plus = {
    .name = "pld-plus",
    .summary = "copy what followed the last token where the target's hidden state was most alike",
    .paper = "Somasundaram et al. 2024, arXiv 2412.01447",
    .params = pld_plus_params,
    .params_size = sizeof(struct pld_plus_params),
    .state_size = sizeof(struct pld_plus),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .open = pld_plus_open,
    .begin = pld_plus_begin,
    .propose = pld_plus_propose,
    .close = pld_plus_close,
    .max_nodes = pld_plus_max_nodes,
};

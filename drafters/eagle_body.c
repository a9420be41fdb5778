#include "drafters/eagle_body.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/draw.h"
#include "kernels/kernels.h"

enum { CATCH_UP_ROWS = 64 };

/* ---- opening ---- */

static enum sb_status want_taps(struct sb_eagle_body *e, const struct sb_drafter_env *env,
                                enum sb_tap_kind kind, const size_t *layer, size_t n,
                                struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    e->n_taps = n;
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        bool last = kind == SB_TAP_IN && layer[i] == env->taps->n_layers;
        rc = sb_tap_want(env->taps, last ? SB_TAP_LAST : kind, layer[i], &e->tap[i], err);
    }
    return rc == SB_OK ? SB_OK : sb_fail_context(err, rc, "drafter %s", e->drafter);
}

/* Layers whose input EAGLE-3 reads, where L is what leaves the last: as config.json lists them, else low,
 * middle and high. */
static enum sb_status list_layers(const struct sb_eagle_body *e, size_t *layer, size_t *n,
                                  struct sb_error *err)
{
    size_t n_layers = sb_model_config(e->target)->n_layers;
    const json_t *list = json_object_get(json_object_get(e->head.config, "eagle_config"),
                                         "eagle_aux_hidden_state_layer_ids");
    if (!list)
        list = json_object_get(e->head.config, "eagle_aux_hidden_state_layer_ids");
    if (!list && n_layers < 5)
        return sb_fail(
            err, SB_EUSAGE,
            "%s: reads layers 2, L/2 and L-3 of a target of L layers; this one has %zu, and "
            "config.json has no eagle_aux_hidden_state_layer_ids",
            e->head.path, n_layers);
    if (!list) {
        const size_t usual[] = { 2, n_layers / 2, n_layers - 3 };
        memcpy(layer, usual, sizeof usual);
        *n = 3;
        return SB_OK;
    }
    *n = json_array_size(list);
    for (size_t i = 0; i < *n && i < SB_MAX_TAPS; i++) {
        const json_t *id = json_array_get(list, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            (size_t)json_integer_value(id) > n_layers)
            return sb_fail(
                err, SB_EFORMAT,
                "%s: config.json: eagle_aux_hidden_state_layer_ids: entry %zu is no layer "
                "of a target of %zu",
                e->head.path, i, n_layers);
        layer[i] = (size_t)json_integer_value(id);
    }
    if (*n < 1 || *n > SB_MAX_TAPS)
        return sb_fail(err, SB_EFORMAT,
                       "%s: config.json: eagle_aux_hidden_state_layer_ids: expected 1 to %d layers",
                       e->head.path, SB_MAX_TAPS);
    return SB_OK;
}

/* A head's own copy of the embedding goes before the target's, which it usually equals. */
static enum sb_status find_embedding(struct sb_eagle_body *e, struct sb_error *err)
{
    const struct sb_config *target = sb_model_config(e->target);
    if (sb_head_find(&e->head, "embed_tokens.weight") || e->d != target->d_model)
        return sb_head_matrix(&e->head, &e->embedding, e->n_vocab, e->d, err,
                              "embed_tokens.weight");
    e->embedding = sb_model_weights(e->target)->embedding;
    return SB_OK;
}

static enum sb_status open_eagle_1(struct sb_eagle_body *e, const struct sb_drafter_env *env,
                                   struct sb_draft_body_options *o, struct sb_error *err)
{
    const size_t none = 0;
    if (!sb_head_find(&e->head, "fc.weight") ||
        sb_head_find(&e->head, "%s%s", "midlayer.", "hidden_norm.weight"))
        return sb_head_refuse(&e->head, "fc.weight and layers.0.*, an EAGLE head", err);
    if (e->d != e->d_target)
        return sb_fail(err, SB_EFORMAT,
                       "%s: config.json: hidden_size is %zu; the target's is %zu, and EAGLE's "
                       "features are its hidden states",
                       e->head.path, e->d, e->d_target);
    o->config.input = SB_INPUT_BARE;
    o->config.qkv_bias = sb_head_find(&e->head, "layers.0.self_attn.q_proj.bias") != NULL;
    o->stem = "layers.";
    enum sb_status rc = want_taps(e, env, SB_TAP_FINAL, &none, 1, err);
    if (rc == SB_OK)
        rc = sb_linear_load(&e->fc, &e->head, e->d, 2 * e->d, SB_BIAS_OPTIONAL, err, "fc");
    return rc;
}

/* What newer files switch on and is not computed here. */
static enum sb_status refuse_variants(const struct sb_eagle_body *e, struct sb_error *err)
{
    static const char *const flags[] = { "norm_before_fc", "fc_norm", "norm_output" };
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < sizeof flags / sizeof *flags && rc == SB_OK; i++) {
        bool on = false;
        rc = sb_head_config_flag(&e->head, flags[i], &on, err);
        if (rc == SB_OK && on)
            rc = sb_fail(err, SB_EUNSUPPORTED,
                         "%s: config.json sets %s, a variant of EAGLE-3 that "
                         "is not computed",
                         e->head.path, flags[i]);
    }
    return rc;
}

static enum sb_status open_eagle_3(struct sb_eagle_body *e, const struct sb_drafter_env *env,
                                   struct sb_draft_body_options *o, struct sb_error *err)
{
    size_t layer[SB_MAX_TAPS];
    bool normed = false, alias = !sb_head_find(&e->head, "midlayer.hidden_norm.weight");
    if (!sb_head_find(&e->head, "fc.weight") ||
        (alias && !sb_head_find(&e->head, "layers.0.hidden_norm.weight")))
        return sb_head_refuse(
            &e->head, "fc.weight and midlayer.* (or layers.0.*) with hidden_norm, an EAGLE-3 head",
            err);
    enum sb_status rc = refuse_variants(e, err);
    if (rc == SB_OK)
        rc = sb_head_config_flag(&e->head, "norm_before_residual", &normed, err);
    if (rc == SB_OK)
        rc = list_layers(e, layer, &e->n_taps, err);
    if (rc == SB_OK)
        rc = want_taps(e, env, SB_TAP_IN, layer, e->n_taps, err);
    if (rc == SB_OK)
        rc = sb_linear_load(&e->fc, &e->head, e->d, e->n_taps * e->d_target, SB_BIAS_OPTIONAL, err,
                            "fc");
    if (rc != SB_OK)
        return rc;
    e->pairs = true;
    e->own_head = sb_head_find(&e->head, "lm_head.weight") || e->d != e->d_target;
    if (e->own_head)
        e->n_draft = sb_head_rows(&e->head, "lm_head.weight");
    if (e->n_draft == 0)
        e->n_draft = e->n_vocab; /* the missing tensor is reported when it is read */
    o->config.input = normed ? SB_INPUT_PAIR_NORMED : SB_INPUT_PAIR;
    o->config.n_vocab = e->n_draft;
    o->config.qkv_bias = sb_head_find(&e->head, "%sself_attn.q_proj.bias",
                                      alias ? "layers.0." : "midlayer.") != NULL;
    o->first = alias ? NULL : "midlayer.";
    o->stem = "layers.";
    o->final_norm = "norm.weight";
    o->lm_head = e->own_head ? "lm_head.weight" : NULL;
    return sb_head_vocabulary(&e->head, &e->map, e->n_draft, e->n_vocab, err);
}

static enum sb_status allocate(struct sb_eagle_body *e, size_t rows, struct sb_error *err)
{
    e->joined = sb_alloc_aligned(rows * e->fc.w.k, sizeof *e->joined);
    e->input = sb_alloc_aligned(rows * e->body.d_input, sizeof *e->input);
    if (!e->own_head)
        e->logits = sb_alloc_aligned(rows * e->n_vocab, sizeof *e->logits);
    if (!e->joined || !e->input || (!e->own_head && !e->logits))
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory for drafts of %zu rows", e->drafter,
                       rows);
    return SB_OK;
}

enum sb_status sb_eagle_body_open(struct sb_eagle_body *e, enum sb_eagle_kind kind,
                                  const struct sb_drafter_env *env, const char *drafter,
                                  const char *name, size_t n_scratch, struct sb_error *err)
{
    enum sb_status rc = sb_head_need_target(drafter, env->target, err);
    if (rc != SB_OK)
        return rc;
    const struct sb_config *target = sb_model_config(env->target);
    const struct sb_head_request request = { .drafter = drafter,
                                             .name = name,
                                             .family = kind == SB_EAGLE_1 ? "eagle" : "eagle3",
                                             .target = env->target,
                                             .env = env };
    struct sb_config like = *target;
    like.n_layers = 1;
    like.rope_base = 10000; /* whatever the target's is: methods B 13.4 */
    like.rope_scale_linear = 1;
    like.rope_layout = SB_ROPE_HALF;
    like.qkv_bias = false;
    e->drafter = drafter;
    e->target = env->target;
    e->d_target = target->d_model;
    e->n_vocab = e->n_draft = env->n_vocab;
    rc = sb_head_open(&e->head, &request, err);
    struct sb_draft_body_options o = { .head = &e->head,
                                       .max_context = env->max_context,
                                       .max_rows =
                                           n_scratch > CATCH_UP_ROWS ? n_scratch : CATCH_UP_ROWS };
    if (rc == SB_OK)
        rc = sb_draft_body_config(&o.config, &e->head, &like, err);
    e->d = o.config.d_model;
    if (rc == SB_OK)
        rc = kind == SB_EAGLE_1 ? open_eagle_1(e, env, &o, err) : open_eagle_3(e, env, &o, err);
    if (rc == SB_OK)
        rc = find_embedding(e, err);
    if (rc == SB_OK)
        rc = sb_draft_body_open(&e->body, &o, err);
    return rc == SB_OK ? allocate(e, o.max_rows, err) : rc;
}

void sb_eagle_body_close(struct sb_eagle_body *e)
{
    sb_draft_body_close(&e->body);
    sb_linear_finish(&e->fc);
    sb_head_close(&e->head);
    sb_free(e->map);
    sb_free(e->joined);
    sb_free(e->input);
    sb_free(e->logits);
    *e = (struct sb_eagle_body){ 0 };
}

/* ---- rows ---- */

static void embed(const struct sb_eagle_body *e, float *y, sb_token token)
{
    const struct sb_tensor *t = &e->embedding;
    size_t row_bytes = sb_dtype_row_bytes(t->type, t->k);
    sb_dequantize_row(y, t->type, (const unsigned char *)t->data + (size_t)token * row_bytes, t->k);
}

/* y[n, ldy] = fc of the first n rows of e->joined. */
static void fuse(struct sb_eagle_body *e, float *y, size_t ldy, size_t n)
{
    const struct sb_team *team = sb_team_begin(sb_team_size(sb_linear_work(&e->fc, n)));
    sb_linear_apply(team, &e->fc, y, ldy, e->joined, e->fc.w.k, n, false);
    sb_team_end(team);
}

/* Rows of EAGLE-1 from embeddings and features that stand in e->joined; of EAGLE-3 they stand in e->input. */
static void finish_input(struct sb_eagle_body *e, size_t n)
{
    if (!e->pairs)
        fuse(e, e->input, e->d, n);
}

/* Where row i's embedding and feature go. */
static float *embedding_of(struct sb_eagle_body *e, size_t i)
{
    return (e->pairs ? e->input : e->joined) + i * 2 * e->d;
}

static float *feature_of(struct sb_eagle_body *e, size_t i)
{
    return embedding_of(e, i) + e->d;
}

/* Stable rows from..from+n-1. */
static void make_stable(struct sb_eagle_body *e, const struct sb_context *ctx, size_t from,
                        size_t n)
{
    size_t d = e->d_target;
    for (size_t i = 0; i < n; i++) {
        embed(e, embedding_of(e, i), ctx->tokens[from + i + 1]);
        for (size_t t = 0; t < e->n_taps; t++)
            memcpy(e->pairs ? e->joined + (i * e->n_taps + t) * d : feature_of(e, i),
                   ctx->taps[e->tap[t]] + (from + i) * d, d * sizeof(float));
    }
    if (e->pairs)
        fuse(e, feature_of(e, 0), 2 * e->d, n);
    finish_input(e, n);
}

/* Stable rows up to row `n` of the committed text; with `logits` for the newest. */
static enum sb_status catch_up(struct sb_eagle_body *e, const struct sb_context *ctx, size_t n,
                               bool logits, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t from; rc == SB_OK && (from = sb_draft_body_length(&e->body)) < n;) {
        size_t m = n - from < e->body.max_rows ? n - from : e->body.max_rows;
        make_stable(e, ctx, from, m);
        rc = sb_draft_body_append(&e->body, e->input, m, logits && e->own_head && from + m == n,
                                  err);
    }
    if (rc == SB_OK && logits && !e->own_head)
        sb_model_lm_head(e->target, e->logits, sb_draft_body_final(&e->body, SB_PARENT_PREFIX), 1);
    return rc;
}

enum sb_status sb_eagle_body_begin(struct sb_eagle_body *e, const struct sb_context *ctx,
                                   struct sb_error *err)
{
    sb_draft_body_rewind(&e->body, 0);
    return ctx->n > 2 ? catch_up(e, ctx, ctx->n - 2, false, err) : SB_OK;
}

enum sb_status sb_eagle_body_start(struct sb_eagle_body *e, const struct sb_context *ctx,
                                   bool *ready, struct sb_error *err)
{
    *ready = ctx->n > 1;
    if (!*ready)
        return SB_OK;
    size_t n = ctx->n - 1;
    /* The root's row is computed anew: its logits are needed. */
    sb_draft_body_rewind(&e->body, n - 1);
    return catch_up(e, ctx, n, true, err);
}

enum sb_status sb_eagle_body_grow(struct sb_eagle_body *e, const sb_token *token,
                                  const int32_t *above, size_t n, int32_t *first,
                                  struct sb_error *err)
{
    size_t d = e->d, from = e->body.n_scratch;
    for (size_t i = 0; i < n; i++) {
        embed(e, embedding_of(e, i), token[i]);
        memcpy(feature_of(e, i), sb_draft_body_last(&e->body, above[i]), d * sizeof(float));
    }
    finish_input(e, n);
    enum sb_status rc = sb_draft_body_grow(&e->body, e->input, above, n, e->own_head, err);
    if (rc != SB_OK)
        return rc;
    *first = (int32_t)from;
    if (!e->own_head)
        sb_model_lm_head(e->target, e->logits + from * e->n_vocab,
                         sb_draft_body_final(&e->body, *first), n);
    return SB_OK;
}

const float *sb_eagle_body_logits(const struct sb_eagle_body *e, int32_t row)
{
    if (e->own_head)
        return sb_draft_body_logits(&e->body, row);
    return e->logits + (row == SB_PARENT_PREFIX ? 0 : (size_t)row) * e->n_vocab;
}

enum sb_status sb_eagle_body_best(const struct sb_eagle_body *e, int32_t row, int32_t k,
                                  sb_token *token, float *log_prob, int32_t *n,
                                  struct sb_error *err)
{
    const float *logits = sb_eagle_body_logits(e, row);
    float sum = sb_logsumexp(logits, e->n_draft);
    if (!isfinite(sum))
        return sb_fail(err, SB_EFORMAT, "drafter %s: head %s: its logits hold NaN or infinity",
                       e->drafter, e->head.path);
    *n = (int32_t)sb_top_logits(token, (size_t)k, logits, e->n_draft, -INFINITY);
    for (int32_t i = 0; i < *n; i++) {
        log_prob[i] = logits[token[i]] - sum;
        token[i] = sb_eagle_body_token(e, token[i]);
    }
    return SB_OK;
}

/* A model from a file's weights, and the parts of its forward on their own. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/internal.h"
#include "harness/model/loaders.h"

/* Norm weights and biases, one after the other, as float32. */
static enum sb_status read_vectors(float **out, const struct sb_tensor *const *t, size_t n,
                                   struct sb_error *err)
{
    size_t total = 0, used = 0;
    for (size_t i = 0; i < n; i++)
        total += t[i]->k;
    float *values = sb_alloc_aligned(total, sizeof *values);
    if (!values)
        return sb_fail(err, SB_ENOMEM, "out of memory for a vector of %zu", total);
    for (size_t i = 0; i < n; i++) {
        sb_dequantize_row(values + used, t[i]->type, t[i]->data, t[i]->k);
        used += t[i]->k;
    }
    *out = values;
    return SB_OK;
}

static enum sb_status read_layer_vectors(const struct sb_model *model, struct sb_layer *layer,
                                         const struct sb_layer_weights *w, struct sb_error *err)
{
    const struct sb_tensor *bias[] = { &w->bq, &w->bk, &w->bv }, *attn_norm = &w->attn_norm,
                           *ffn_norm = &w->ffn_norm, *pair_norm = &w->pair_norm;
    enum sb_status rc = read_vectors(&layer->ffn_norm, &ffn_norm, 1, err);
    if (rc == SB_OK && attn_norm->data)
        rc = read_vectors(&layer->attn_norm, &attn_norm, 1, err);
    if (rc == SB_OK && pair_norm->data)
        rc = read_vectors(&layer->pair_norm, &pair_norm, 1, err);
    if (rc == SB_OK && model->weights->config.qkv_bias)
        rc = read_vectors(&layer->qkv.bias, bias, 3, err);
    return rc;
}

/* What loaders check as they read. Norm and head of a body may be absent, not of another shape. */
static enum sb_status check_body(struct sb_weights *w, struct sb_error *err)
{
    const struct sb_config *c = &w->config;
    const struct sb_tensor *norm = &w->final_norm, *head = &w->lm_head;
    enum sb_status rc = SB_OK;
    if (norm->data)
        rc = sb_tensor_check(norm, 1, c->d_model, true, "norm.weight", "draft body", err);
    if (rc == SB_OK && head->data)
        rc = sb_tensor_check(head, c->n_vocab, c->d_model, false, "lm_head.weight", "draft body",
                             err);
    for (size_t i = 0; i < c->n_layers && rc == SB_OK; i++) {
        struct sb_wanted_tensor t[SB_LAYER_TENSORS];
        size_t n = sb_wanted_tensors(t, w, i);
        for (size_t k = 0; k < n && rc == SB_OK; k++)
            rc = sb_tensor_check(t[k].out, t[k].n, t[k].k, t[k].vector, t[k].hf, "draft body", err);
    }
    return rc;
}

static void finish_matrix(struct sb_matrix *w)
{
    for (size_t i = 0; i < w->n_parts; i++)
        sb_packed_finish(&w->part[i]);
    sb_free(w->bias);
}

static void finish_layer(struct sb_layer *layer)
{
    finish_matrix(&layer->qkv);
    finish_matrix(&layer->wo);
    finish_matrix(&layer->gate_up);
    finish_matrix(&layer->w_down);
    sb_free(layer->attn_norm);
    sb_free(layer->ffn_norm);
    sb_free(layer->pair_norm);
}

/* Everything that was packed; the weights stay. */
static void release(struct sb_model *model)
{
    if (!model)
        return;
    for (size_t i = 0; model->layer && i < model->n_layers; i++)
        finish_layer(&model->layer[i]);
    finish_matrix(&model->head);
    sb_free(model->memory);
    sb_free(model->final_norm);
    sb_free(model->layer);
    sb_free(model);
}

static enum sb_status make(struct sb_model **out, struct sb_weights *weights,
                           const struct sb_arithmetic *arithmetic, struct sb_error *err)
{
    const struct sb_config *c = &weights->config;
    enum sb_status rc = SB_OK;
    struct sb_model *model = sb_alloc_zero(1, sizeof *model);
    if (model)
        model->layer = sb_alloc_zero(c->n_layers, sizeof *model->layer);
    if (!model || !model->layer)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu layers", c->n_layers);
    if (rc == SB_OK) {
        const struct sb_tensor *norm = &weights->final_norm;
        model->weights = weights;
        model->arithmetic = *arithmetic;
        model->n_layers = c->n_layers;
        model->q_width = c->n_heads * c->head_dim;
        model->kv_width = c->n_kv_heads * c->head_dim;
        rc = norm->data ? read_vectors(&model->final_norm, &norm, 1, err) : SB_OK;
    }
    for (size_t i = 0; rc == SB_OK && i < c->n_layers; i++)
        rc = read_layer_vectors(model, &model->layer[i], &weights->layers[i], err);
    if (rc == SB_OK)
        rc = sb_model_pack(model, err);
    if (rc == SB_OK) {
        *out = model;
        return SB_OK;
    }
    release(model);
    return rc;
}

enum sb_status sb_model_from_weights(struct sb_model **out, struct sb_weights *weights,
                                     struct sb_error *err)
{
    static const struct sb_arithmetic exact;
    enum sb_status rc = strcmp(weights->format, "body") == 0 ? check_body(weights, err) : SB_OK;
    return rc == SB_OK ? make(out, weights, &exact, err) : rc;
}

enum sb_status sb_model_set_arithmetic(struct sb_model *model,
                                       const struct sb_arithmetic *arithmetic, struct sb_error *err)
{
    if (arithmetic->f32_weights != model->arithmetic.f32_weights) {
        struct sb_model *other;
        enum sb_status rc = make(&other, model->weights, arithmetic, err);
        if (rc != SB_OK)
            return rc;
        struct sb_model old = *model;
        *model = *other;
        *other = old;
        release(other);
    }
    model->arithmetic = *arithmetic;
    return SB_OK;
}

enum sb_status sb_model_load(struct sb_model **out, const char *path, struct sb_error *err)
{
    struct sb_weights *weights;
    enum sb_status rc = sb_weights_open(&weights, path, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_model_from_weights(out, weights, err);
    if (rc != SB_OK)
        sb_weights_close(weights);
    return rc == SB_OK ? SB_OK : sb_fail_context(err, rc, "%s", path);
}

void sb_model_destroy(struct sb_model *model)
{
    if (!model)
        return;
    struct sb_weights *weights = model->weights;
    release(model);
    sb_weights_close(weights);
}

/* ---- parts -------------------------------------------------------------------------------------- */

const struct sb_config *sb_model_config(const struct sb_model *model)
{
    return &model->weights->config;
}

const struct sb_weights *sb_model_weights(const struct sb_model *model)
{
    return model->weights;
}

bool sb_model_has_head(const struct sb_model *model)
{
    return model->head.n_parts > 0;
}

size_t sb_model_packed_bytes(const struct sb_model *model)
{
    return model->packed_bytes;
}

const struct sb_arithmetic *sb_model_arithmetic(const struct sb_model *model)
{
    return &model->arithmetic;
}

void sb_model_embed(const struct sb_model *model, float *y, const sb_token *tokens, size_t m)
{
    const struct sb_tensor *e = &model->weights->embedding;
    size_t row_bytes = sb_dtype_row_bytes(e->type, e->k);
    for (size_t i = 0; i < m; i++)
        sb_dequantize_row(y + i * e->k, e->type,
                          (const unsigned char *)e->data + (size_t)tokens[i] * row_bytes, e->k);
}

void sb_model_final_norm(const struct sb_model *model, float *y, const float *x, size_t m)
{
    size_t d = model->weights->config.d_model;
    if (!model->final_norm)
        memmove(y, x, m * d * sizeof *y);
    else
        sb_rmsnorm(NULL, y, d, x, d, model->final_norm, d, m, model->weights->config.norm_eps);
}

void sb_model_lm_head(const struct sb_model *model, float *logits, const float *normed, size_t m)
{
    const struct sb_packed *head = &model->head.part[0];
    const struct sb_team *team = sb_team_begin(sb_team_size(m * head->n * head->k));
    sb_matmul(team, logits, head->n, head, normed, head->k, m, NULL);
    sb_team_end(team);
}

void sb_model_lm_head_rows(const struct sb_model *model, float *logits, const float *normed,
                           size_t m, const int32_t *ids, size_t n_ids)
{
    const struct sb_packed *head = &model->head.part[0];
    const struct sb_team *team = sb_team_begin(sb_team_size(m * n_ids * head->k));
    sb_matmul_rows(team, logits, n_ids, head, ids, n_ids, normed, head->k, m);
    sb_team_end(team);
}

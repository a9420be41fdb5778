/* From loaded weights to the training model. */
#include "harness/train/teacher.h"

#include <assert.h>

#include "harness/core/alloc.h"
#include "harness/model/weights.h"

enum { MOST_POSITIONS = 32768 }; /* angles are tables */

static enum sb_status check_teacher(const struct sb_weights *w, const char *path,
                                    struct sb_error *err)
{
    const struct sb_config *c = &w->config;
    const char *problem = strcmp(c->arch, "llama") != 0            ? "is not a llama model"
                          : !c->tied_embeddings                    ? "has an LM head of its own"
                          : c->qkv_bias                            ? "has biases on q, k and v"
                          : c->rope_layout != SB_ROPE_HALF         ? "has interleaved rotary pairs"
                          : c->rope_scale_linear != 1              ? "scales its positions"
                          : w->rope_factors                        ? "scales its rotary frequencies"
                          : c->head_dim * c->n_heads != c->d_model ? "has heads of another width"
                                                                   : NULL;
    return problem ? sb_fail(err, SB_EUNSUPPORTED, "teacher %s: %s, which training does not read",
                             path, problem)
                   : SB_OK;
}

static bool copy_tensor(struct sb_var *var, const struct sb_tensor *tensor, float *row)
{
    if (tensor->n != var->rows || tensor->k != var->cols)
        return false;
    size_t bytes = sb_dtype_row_bytes(tensor->type, tensor->k);
    for (size_t r = 0; r < var->rows; r++) {
        sb_dequantize_row(row, tensor->type, (const unsigned char *)tensor->data + r * bytes,
                          tensor->k);
        for (size_t j = 0; j < var->cols; j++)
            var->x[r * var->cols + j] = row[j];
    }
    return true;
}

static bool copy_all(struct sb_lm *lm, const struct sb_weights *w, float *row)
{
    bool ok = copy_tensor(&lm->embedding, &w->embedding, row) &&
              copy_tensor(&lm->final_norm, &w->final_norm, row);
    for (size_t i = 0; ok && i < lm->shape.n_layers; i++) {
        struct sb_lm_layer *to = &lm->layers[i];
        const struct sb_layer_weights *from = &w->layers[i];
        ok = copy_tensor(&to->attn_norm, &from->attn_norm, row) &&
             copy_tensor(&to->wq, &from->wq, row) && copy_tensor(&to->wk, &from->wk, row) &&
             copy_tensor(&to->wv, &from->wv, row) && copy_tensor(&to->wo, &from->wo, row) &&
             copy_tensor(&to->ffn_norm, &from->ffn_norm, row) &&
             copy_tensor(&to->w_gate, &from->w_gate, row) &&
             copy_tensor(&to->w_up, &from->w_up, row) &&
             copy_tensor(&to->w_down, &from->w_down, row);
    }
    return ok;
}

static enum sb_status build(struct sb_lm **out, const struct sb_weights *w, const char *path,
                            size_t max_context, struct sb_error *err)
{
    const struct sb_config *c = &w->config;
    if (max_context == 0)
        max_context = c->max_context < MOST_POSITIONS ? c->max_context : MOST_POSITIONS;
    struct sb_lm_shape shape = {
        .n_layers = c->n_layers,
        .d_model = c->d_model,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .d_ff = c->d_ff,
        .n_vocab = c->n_vocab,
        .max_context = max_context,
        .rope_base = c->rope_base,
        .norm_eps = c->norm_eps,
    };
    struct sb_lm *lm;
    enum sb_status status = sb_lm_create(&lm, &shape, true, err);
    if (status != SB_OK)
        return status;
    float *row = sb_alloc_array(c->d_model > c->d_ff ? c->d_model : c->d_ff, sizeof *row);
    if (!row)
        status = sb_fail(err, SB_ENOMEM, "teacher %s: out of memory", path);
    else if (!copy_all(lm, w, row))
        status = sb_fail(err, SB_EFORMAT, "teacher %s: a tensor has another shape than its config",
                         path);
    sb_free(row);
    if (status == SB_OK)
        *out = lm;
    else
        sb_lm_destroy(lm);
    return status;
}

enum sb_status sb_teacher_load(struct sb_lm **out, uint64_t *hash, const char *path,
                               size_t max_context, struct sb_error *err)
{
    struct sb_weights *weights;
    enum sb_status status = sb_weights_open(&weights, path, err);
    if (status != SB_OK)
        return status;
    status = check_teacher(weights, path, err);
    if (status == SB_OK)
        status = build(out, weights, path, max_context, err);
    if (status == SB_OK)
        *hash = weights->content_hash;
    sb_weights_close(weights);
    return status;
}

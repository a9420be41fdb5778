/* The language model on the tape. */
#include "harness/train/lm.h"

#include <stdio.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

enum { TENSORS_PER_LAYER = 9 };

static enum sb_status check_shape(const struct sb_lm_shape *s, struct sb_error *err)
{
    if (!s->n_layers || !s->d_model || !s->n_heads || !s->n_kv_heads || !s->d_ff || !s->n_vocab ||
        !s->max_context)
        return sb_fail(
            err, SB_EUSAGE,
            "model: layers, width, heads, kv_heads, ff, vocab and context must be at least 1");
    if (s->n_heads % s->n_kv_heads != 0)
        return sb_fail(err, SB_EUSAGE, "model: heads is %zu, which kv_heads = %zu does not divide",
                       s->n_heads, s->n_kv_heads);
    if (s->d_model % (2 * s->n_heads) != 0)
        return sb_fail(
            err, SB_EUSAGE,
            "model: width is %zu; with heads = %zu it must be a multiple of %zu, so that "
            "a head has an even width",
            s->d_model, s->n_heads, 2 * s->n_heads);
    /* Far above what can be trained here, and small enough that no product below overflows. */
    if (s->n_layers > 512 || s->d_model > 65536 || s->d_ff > 262144 || s->n_vocab > 1048576 ||
        s->max_context > 1048576)
        return sb_fail(err, SB_EUSAGE, "model: sizes are too large to train here");
    return SB_OK;
}

/* Where the next tensor goes while the layout is drawn up. */
struct layout {
    struct sb_lm *lm;
    size_t n_tensors, at;
};

static void lay_out(struct layout *to, struct sb_var *var, size_t rows, size_t cols, double std,
                    const char *name)
{
    struct sb_lm_tensor *tensor = &to->lm->tensors[to->n_tensors++];
    tensor->var = var;
    tensor->is_vector = rows == 1;
    tensor->init_std = std;
    snprintf(tensor->name, sizeof tensor->name, "%s", name);
    *var = (struct sb_var){ .rows = rows, .cols = cols };
    if (to->lm->x)
        var->x = to->lm->x + to->at;
    if (to->lm->dx)
        var->dx = to->lm->dx + to->at;
    to->at += rows * cols;
}

static void lay_out_layer(struct layout *to, struct sb_lm_layer *layer, size_t index)
{
    const struct sb_lm_shape *s = &to->lm->shape;
    size_t d = s->d_model, kv = d / s->n_heads * s->n_kv_heads, ff = s->d_ff;
    /* Projections into the residual stream start smaller the more of them there are. */
    double in = 0.5 / sqrt((double)d), depth = 1 / sqrt(2.0 * (double)s->n_layers);
    const struct {
        struct sb_var *var;
        size_t rows, cols;
        double std;
        const char *name;
    } rows[TENSORS_PER_LAYER] = {
        { &layer->attn_norm, 1, d, 0, "input_layernorm" },
        { &layer->wq, d, d, in, "self_attn.q_proj" },
        { &layer->wk, kv, d, in, "self_attn.k_proj" },
        { &layer->wv, kv, d, in, "self_attn.v_proj" },
        { &layer->wo, d, d, in * depth, "self_attn.o_proj" },
        { &layer->ffn_norm, 1, d, 0, "post_attention_layernorm" },
        { &layer->w_gate, ff, d, in, "mlp.gate_proj" },
        { &layer->w_up, ff, d, in, "mlp.up_proj" },
        { &layer->w_down, d, ff, 0.5 / sqrt((double)ff) * depth, "mlp.down_proj" },
    };
    for (size_t i = 0; i < TENSORS_PER_LAYER; i++) {
        char name[64];
        snprintf(name, sizeof name, "model.layers.%zu.%s.weight", index, rows[i].name);
        lay_out(to, rows[i].var, rows[i].rows, rows[i].cols, rows[i].std, name);
    }
}

static size_t lay_out_all(struct sb_lm *lm)
{
    struct layout to = { .lm = lm };
    const struct sb_lm_shape *s = &lm->shape;
    lay_out(&to, &lm->embedding, s->n_vocab, s->d_model, 0.04, "model.embed_tokens.weight");
    for (size_t i = 0; i < s->n_layers; i++)
        lay_out_layer(&to, &lm->layers[i], i);
    lay_out(&to, &lm->final_norm, 1, s->d_model, 0, "model.norm.weight");
    lm->n_tensors = to.n_tensors;
    return to.at;
}

enum sb_status sb_lm_create(struct sb_lm **out, const struct sb_lm_shape *shape, bool frozen,
                            struct sb_error *err)
{
    enum sb_status status = check_shape(shape, err);
    if (status != SB_OK)
        return status;
    struct sb_lm *lm = sb_alloc_zero(1, sizeof *lm);
    if (!lm)
        return sb_fail(err, SB_ENOMEM, "model to train: out of memory");
    lm->shape = *shape;
    lm->layers = sb_alloc_zero(shape->n_layers, sizeof *lm->layers);
    lm->tensors = sb_alloc_zero(shape->n_layers * TENSORS_PER_LAYER + 2, sizeof *lm->tensors);
    if (lm->layers && lm->tensors) {
        lm->n_params = lay_out_all(lm);
        lm->x = sb_alloc_aligned(lm->n_params, sizeof *lm->x);
        lm->dx = frozen ? NULL : sb_alloc_aligned(lm->n_params, sizeof *lm->dx);
    }
    if (!lm->x || (!frozen && !lm->dx)) {
        size_t mib = lm->n_params * sizeof *lm->x >> 20;
        sb_lm_destroy(lm);
        return sb_fail(err, SB_ENOMEM, "model to train: out of memory for %zu MiB of weights", mib);
    }
    lay_out_all(lm);
    memset(lm->x, 0, lm->n_params * sizeof *lm->x);
    status = sb_angles_init(&lm->angles, shape->max_context, shape->d_model / shape->n_heads,
                            shape->rope_base, err);
    if (status != SB_OK) {
        sb_lm_destroy(lm);
        return status;
    }
    *out = lm;
    return SB_OK;
}

void sb_lm_destroy(struct sb_lm *lm)
{
    if (!lm)
        return;
    sb_angles_finish(&lm->angles);
    sb_free(lm->x);
    sb_free(lm->dx);
    sb_free(lm->tensors);
    sb_free(lm->layers);
    sb_free(lm);
}

void sb_lm_init_weights(struct sb_lm *lm, uint64_t seed)
{
    for (size_t t = 0; t < lm->n_tensors; t++) {
        struct sb_lm_tensor *tensor = &lm->tensors[t];
        struct sb_rng rng = sb_rng_make(sb_rng_mix(seed, t), SB_STREAM_INIT);
        for (size_t i = 0; i < tensor->var->rows * tensor->var->cols; i++) {
            sb_rng_seek(&rng, i);
            double draw = tensor->init_std > 0 ? tensor->init_std * sb_rng_normal(&rng) : 1;
            tensor->var->x[i] = (sb_real)draw;
        }
    }
}

void sb_lm_clear_grads(struct sb_lm *lm)
{
    for (size_t t = 0; t < lm->n_tensors; t++)
        lm->tensors[t].var->has_grad = false;
}

static struct sb_var *layer_forward(struct sb_lm *lm, struct sb_lm_layer *layer,
                                    struct sb_tape *tape, struct sb_var *x,
                                    const struct sb_lm_batch *batch)
{
    const struct sb_lm_shape *s = &lm->shape;
    sb_real eps = (sb_real)s->norm_eps;
    struct sb_var *h = sb_tape_rmsnorm(tape, x, &layer->attn_norm, eps);
    struct sb_var *q = sb_tape_linear(tape, h, &layer->wq, NULL);
    struct sb_var *k = sb_tape_linear(tape, h, &layer->wk, NULL);
    struct sb_var *v = sb_tape_linear(tape, h, &layer->wv, NULL);
    q = sb_tape_rope(tape, q, &lm->angles, batch->pos);
    k = sb_tape_rope(tape, k, &lm->angles, batch->pos);
    h = sb_tape_attention(tape, q, k, v, s->n_heads, s->n_kv_heads, &batch->segments);
    x = sb_tape_add(tape, x, sb_tape_linear(tape, h, &layer->wo, NULL));
    h = sb_tape_rmsnorm(tape, x, &layer->ffn_norm, eps);
    struct sb_var *gate = sb_tape_linear(tape, h, &layer->w_gate, NULL);
    struct sb_var *up = sb_tape_linear(tape, h, &layer->w_up, NULL);
    h = sb_tape_swiglu(tape, gate, up);
    return sb_tape_add(tape, x, sb_tape_linear(tape, h, &layer->w_down, NULL));
}

struct sb_var *sb_lm_forward(struct sb_lm *lm, struct sb_tape *tape,
                             const struct sb_lm_batch *batch)
{
    struct sb_var *x = sb_tape_embed(tape, &lm->embedding, batch->ids, batch->m);
    for (size_t i = 0; i < lm->shape.n_layers; i++)
        x = layer_forward(lm, &lm->layers[i], tape, x, batch);
    x = sb_tape_rmsnorm(tape, x, &lm->final_norm, (sb_real)lm->shape.norm_eps);
    return sb_tape_linear(tape, x, &lm->embedding, NULL);
}

double sb_lm_flops_per_token(const struct sb_lm_shape *s, double seen)
{
    double d = (double)s->d_model, kv = d / (double)s->n_heads * (double)s->n_kv_heads;
    double layer = 2 * d * d + 2 * d * kv + 3 * d * (double)s->d_ff;
    double products = (double)s->n_layers * layer + d * (double)s->n_vocab;
    return 6 * products + 12 * (double)s->n_layers * d * seen;
}

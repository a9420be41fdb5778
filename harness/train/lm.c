/* The language model on the tape. */
#include "harness/train/lm.h"

#include "harness/core/alloc.h"

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

static void declare_layer(struct sb_lm *lm, struct sb_lm_layer *layer, size_t index)
{
    const struct sb_lm_shape *s = &lm->shape;
    size_t d = s->d_model, kv = d / s->n_heads * s->n_kv_heads, ff = s->d_ff;
    /* Projections into the residual stream start smaller the more of them there are. */
    double in = 0.5 / sqrt((double)d), depth = 1 / sqrt(2.0 * (double)s->n_layers);
    const struct {
        struct sb_var *var;
        size_t rows, cols;
        double std;
        const char *name;
    } rows[] = {
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
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        sb_trainable_add(&lm->weights, rows[i].var, rows[i].rows, rows[i].cols,
                         rows[i].std > 0 ? 0 : 1, rows[i].std, "model.layers.%zu.%s.weight", index,
                         rows[i].name);
}

static void declare_weights(struct sb_lm *lm)
{
    const struct sb_lm_shape *s = &lm->shape;
    sb_trainable_add(&lm->weights, &lm->embedding, s->n_vocab, s->d_model, 0, 0.04,
                     "model.embed_tokens.weight");
    for (size_t i = 0; i < s->n_layers; i++)
        declare_layer(lm, &lm->layers[i], i);
    sb_trainable_add(&lm->weights, &lm->final_norm, 1, s->d_model, 1, 0, "model.norm.weight");
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
    if (lm->layers)
        declare_weights(lm);
    else
        lm->weights.failed = true;
    status = sb_trainable_alloc(&lm->weights, frozen, err);
    if (status == SB_OK)
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
    sb_trainable_finish(&lm->weights);
    sb_free(lm->layers);
    sb_free(lm);
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

struct sb_var *sb_lm_forward_states(struct sb_lm *lm, struct sb_tape *tape,
                                    const struct sb_lm_batch *batch, struct sb_lm_states *states)
{
    size_t n_layers = lm->shape.n_layers;
    struct sb_var **in = sb_tape_alloc(tape, n_layers + 1, sizeof(struct sb_var *));
    struct sb_var *x = sb_tape_embed(tape, &lm->embedding, batch->ids, batch->m);
    if (!in || !x)
        return NULL;
    in[0] = x;
    for (size_t i = 0; i < n_layers; i++)
        in[i + 1] = x = layer_forward(lm, &lm->layers[i], tape, x, batch);
    x = sb_tape_rmsnorm(tape, x, &lm->final_norm, (sb_real)lm->shape.norm_eps);
    *states = (struct sb_lm_states){ in, x };
    return sb_tape_linear(tape, x, &lm->embedding, NULL);
}

struct sb_var *sb_lm_forward(struct sb_lm *lm, struct sb_tape *tape,
                             const struct sb_lm_batch *batch)
{
    struct sb_lm_states states;
    return sb_lm_forward_states(lm, tape, batch, &states);
}

double sb_lm_flops_per_token(const struct sb_lm_shape *s, double seen)
{
    double d = (double)s->d_model, kv = d / (double)s->n_heads * (double)s->n_kv_heads;
    double layer = 2 * d * d + 2 * d * kv + 3 * d * (double)s->d_ff;
    double products = (double)s->n_layers * layer + d * (double)s->n_vocab;
    return 6 * products + 12 * (double)s->n_layers * d * seen;
}

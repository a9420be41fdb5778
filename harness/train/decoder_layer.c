/* The layer of hydra-pp, eagle and eagle3. */
#include "harness/train/decoder_layer.h"

void sb_decoder_layer_declare(struct sb_decoder_layer *layer, struct sb_head *head,
                              const char *prefix, size_t in_width, bool norm)
{
    const struct sb_lm_shape *s = &head->target->shape;
    size_t d = s->d_model, kv = d / s->n_heads * s->n_kv_heads, ff = s->d_ff;
    double in = 0.5 / sqrt((double)in_width), std = 0.5 / sqrt((double)d);
    double small = 0.1; /* what is added to the residual: a fresh layer changes little */
    const struct {
        struct sb_var *var;
        size_t rows, cols;
        double mean, std;
        const char *name;
    } rows[] = {
        { &layer->attn_norm, 1, d, 1, 0, "input_layernorm" },
        { &layer->wq, d, in_width, 0, in, "self_attn.q_proj" },
        { &layer->wk, kv, in_width, 0, in, "self_attn.k_proj" },
        { &layer->wv, kv, in_width, 0, in, "self_attn.v_proj" },
        { &layer->wo, d, d, 0, std * small, "self_attn.o_proj" },
        { &layer->ffn_norm, 1, d, 1, 0, "post_attention_layernorm" },
        { &layer->w_gate, ff, d, 0, std, "mlp.gate_proj" },
        { &layer->w_up, ff, d, 0, std, "mlp.up_proj" },
        { &layer->w_down, d, ff, 0, small * 0.5 / sqrt((double)ff), "mlp.down_proj" },
    };
    for (size_t i = norm ? 0 : 1; i < sizeof rows / sizeof *rows; i++)
        sb_trainable_add(&head->weights, rows[i].var, rows[i].rows, rows[i].cols, rows[i].mean,
                         rows[i].std, "%s.%s.weight", prefix, rows[i].name);
}

bool sb_pass_make(struct sb_pass *pass, const struct sb_head_input *in, size_t s)
{
    const struct sb_lm_batch *rows = &in->texts->rows;
    pass->token = sb_tape_alloc(in->tape, rows->m, sizeof *pass->token);
    pass->pos = sb_tape_alloc(in->tape, rows->m, sizeof *pass->pos);
    if (!pass->token || !pass->pos)
        return false;
    for (size_t i = 0; i < rows->segments.n; i++)
        for (size_t r = rows->segments.start[i], end = rows->segments.start[i + 1]; r < end; r++) {
            pass->token[r] = r + s < end ? in->texts->next[r + s] : 0;
            pass->pos[r] = rows->pos[r] + (int32_t)s;
        }
    return true;
}

struct sb_var *sb_decoder_layer_forward(struct sb_decoder_layer *layer, const struct sb_head *head,
                                        const struct sb_head_input *in, struct sb_var *residual,
                                        struct sb_var *x, const int32_t *pos,
                                        struct sb_decoder_memory *memory)
{
    struct sb_tape *tape = in->tape;
    const struct sb_lm_shape *s = &head->target->shape;
    const struct sb_angles *angles = &head->target->angles;
    struct sb_var *q = sb_tape_rope(tape, sb_tape_linear(tape, x, &layer->wq, NULL), angles, pos);
    struct sb_var *k = sb_tape_rope(tape, sb_tape_linear(tape, x, &layer->wk, NULL), angles, pos);
    struct sb_var *v = sb_tape_linear(tape, x, &layer->wv, NULL);
    memory->k = memory->passes > 0 ? sb_tape_stack(tape, memory->k, k) : k;
    memory->v = memory->passes > 0 ? sb_tape_stack(tape, memory->v, v) : v;
    memory->passes++;
    struct sb_var *a = sb_tape_attention(tape, q, memory->k, memory->v, s->n_heads, s->n_kv_heads,
                                         &in->texts->rows.segments);
    residual = sb_tape_add(tape, residual, sb_tape_linear(tape, a, &layer->wo, NULL));
    struct sb_var *h = sb_tape_rmsnorm(tape, residual, &layer->ffn_norm, (sb_real)s->norm_eps);
    h = sb_tape_swiglu(tape, sb_tape_linear(tape, h, &layer->w_gate, NULL),
                       sb_tape_linear(tape, h, &layer->w_up, NULL));
    return sb_tape_add(tape, residual, sb_tape_linear(tape, h, &layer->w_down, NULL));
}

double sb_decoder_layer_products(const struct sb_head *head, double in_width)
{
    const struct sb_lm_shape *s = &head->target->shape;
    double d = (double)s->d_model, kv = d / (double)s->n_heads * (double)s->n_kv_heads;
    return in_width * (d + 2 * kv) + d * d + 3 * d * (double)s->d_ff;
}

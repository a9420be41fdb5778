/* One llama decoder layer of a draft head on the tape (methods B1), for rows of packed texts. */
#ifndef SB_TRAIN_DECODER_LAYER_H
#define SB_TRAIN_DECODER_LAYER_H

#include "harness/train/head.h"

/* Shaped as the target's layers, but for the width of what attention reads. */
struct sb_decoder_layer {
    struct sb_var attn_norm, wq, wk, wv, wo, ffn_norm, w_gate, w_up, w_down;
};

/* Tensors PREFIX.self_attn.q_proj.weight and so on; in_width: columns of wq, wk, wv. attn_norm is named
 * PREFIX.input_layernorm.weight and left out without `norm`. */
void sb_decoder_layer_declare(struct sb_decoder_layer *layer, struct sb_head *head,
                              const char *prefix, size_t in_width, bool norm);
/* Keys and values of the passes so far over one set of rows; pass s sees its texts in pass 0 and its own row
 * in later ones (methods B 5.3). */
struct sb_decoder_memory {
    struct sb_var *k, *v; /* [passes * m, kv width] */
    size_t passes;
};
/* Rows of pass s over the whole batch: each is given the token s places further on, at the position s
 * further on. Behind the end of a text the token is 0; nothing counts there. */
struct sb_pass {
    int32_t *token, *pos; /* [m], on the tape */
};
bool sb_pass_make(struct sb_pass *pass, const struct sb_head_input *in, size_t s);
/* residual + attention(x), then + MLP. x [m, in_width] is what attention reads, pos its positions. */
struct sb_var *sb_decoder_layer_forward(struct sb_decoder_layer *layer, const struct sb_head *head,
                                        const struct sb_head_input *in, struct sb_var *residual,
                                        struct sb_var *x, const int32_t *pos,
                                        struct sb_decoder_memory *memory);
/* Multiplications of one row, forward. */
double sb_decoder_layer_products(const struct sb_head *head, double in_width);

#endif

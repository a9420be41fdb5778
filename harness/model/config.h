/* What a model is, whatever file it came from. */
#ifndef SB_MODEL_CONFIG_H
#define SB_MODEL_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/kernels.h"

typedef int32_t sb_token;

/* Sizes above these are refused before anything is allocated. */
enum {
    SB_MAX_LAYERS = 512,
    SB_MAX_WIDTH = 1 << 17,
    SB_MAX_VOCAB = 1 << 20,
    SB_MAX_CONTEXT = 1 << 20,
    SB_MAX_EOS = 8,
};

/* What layer 0's attention reads, and what its residual stream carries (methods B 2, B1). */
enum sb_input {
    SB_INPUT_PLAIN, /* norm(x) of the residual stream x, as every layer does */
    SB_INPUT_BARE,  /* x itself: EAGLE-1 has no norm there */
    SB_INPUT_PAIR, /* rows are [e ; h], 2 d_model wide: it reads [norm(e) ; norm'(h)], so that its wq, wk
                         and wv have 2 d_model columns; the residual stream is h: EAGLE-3 */
    SB_INPUT_PAIR_NORMED, /* the same, and the residual stream is norm'(h) */
};

struct sb_config {
    char arch[16]; /* "llama" or "qwen2" */
    size_t n_layers, d_model, n_heads, n_kv_heads, head_dim, d_ff, n_vocab;
    size_t max_context; /* positions the model was made for */
    float norm_eps;
    double rope_base;
    double rope_scale_linear;        /* multiplies positions; 1 when there is no linear scaling */
    enum sb_rope_layout rope_layout; /* of the q and k rows as loaded */
    bool tied_embeddings;            /* the LM head is the embedding matrix */
    bool qkv_bias;
    enum sb_input input;           /* other than plain in draft bodies only */
    sb_token bos, eos[SB_MAX_EOS]; /* -1: none; from the model file, not the tokenizer */
    size_t n_eos;
};

/* Floats of a row that enters layer 0. */
static inline size_t sb_config_d_input(const struct sb_config *c)
{
    return c->input >= SB_INPUT_PAIR ? 2 * c->d_model : c->d_model;
}

#endif

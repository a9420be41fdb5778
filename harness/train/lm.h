/* A trainable llama-architecture language model on the tape: rotary attention with grouped-query
 * heads, RMSNorm, SwiGLU, tied embeddings. */
#ifndef SB_TRAIN_LM_H
#define SB_TRAIN_LM_H

#include "harness/train/trainable.h"

struct sb_lm_shape {
    size_t n_layers, d_model, n_heads, n_kv_heads, d_ff, n_vocab;
    size_t max_context;
    double rope_base, norm_eps;
};

struct sb_lm_layer {
    struct sb_var attn_norm, wq, wk, wv, wo, ffn_norm, w_gate, w_up, w_down;
};

struct sb_lm {
    struct sb_lm_shape shape;
    struct sb_var embedding, final_norm;
    struct sb_lm_layer *layers;
    struct sb_trainable weights; /* all of the above, named as in Hugging Face checkpoints */
    struct sb_angles angles;
};

/* Tokens of a step: ids[m] at pos[m], documents by segments. */
struct sb_lm_batch {
    const int32_t *ids, *pos;
    size_t m;
    struct sb_segments segments;
};

/* Weights are zero; frozen: without gradients. SB_EUSAGE when the sizes do not fit each other. */
enum sb_status sb_lm_create(struct sb_lm **out, const struct sb_lm_shape *shape, bool frozen,
                            struct sb_error *err);
void sb_lm_destroy(struct sb_lm *lm);
/* Hidden states of a forward, [m, d_model] each; they live as long as the tape's step. */
struct sb_lm_states {
    struct sb_var **in;   /* [n_layers + 1] entering layer k; the last one leaves the last layer */
    struct sb_var *final; /* after the final norm: what the LM head multiplies */
};

/* Logits [m, n_vocab]; positions are below max_context. */
struct sb_var *sb_lm_forward(struct sb_lm *lm, struct sb_tape *tape,
                             const struct sb_lm_batch *batch);
/* The same, and what it passed through; states are unset when it returns NULL. */
struct sb_var *sb_lm_forward_states(struct sb_lm *lm, struct sb_tape *tape,
                                    const struct sb_lm_batch *batch, struct sb_lm_states *states);
/* Floating-point operations of one training token that attends to `seen` others: forward, and both
 * gradients of every product. */
double sb_lm_flops_per_token(const struct sb_lm_shape *shape, double seen);

#endif

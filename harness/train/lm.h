/* A trainable llama-architecture language model on the tape: rotary attention with grouped-query
 * heads, RMSNorm, SwiGLU, tied embeddings. */
#ifndef SB_TRAIN_LM_H
#define SB_TRAIN_LM_H

#include "harness/train/tape.h"

struct sb_lm_shape {
    size_t n_layers, d_model, n_heads, n_kv_heads, d_ff, n_vocab;
    size_t max_context;
    double rope_base, norm_eps;
};

/* One named weight matrix, under its name in Hugging Face checkpoints. */
struct sb_lm_tensor {
    char name[64];
    struct sb_var *var;
    bool is_vector;  /* a norm: no weight decay, stored with one dimension */
    double init_std; /* of the initial normal draws; 0: all ones */
};

struct sb_lm_layer {
    struct sb_var attn_norm, wq, wk, wv, wo, ffn_norm, w_gate, w_up, w_down;
};

struct sb_lm {
    struct sb_lm_shape shape;
    struct sb_var embedding, final_norm;
    struct sb_lm_layer *layers;
    struct sb_lm_tensor *tensors; /* [n_tensors], in the order of storage */
    size_t n_tensors, n_params;
    sb_real *x, *dx; /* [n_params] everything in one piece; dx NULL when frozen */
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
/* Normal draws that depend on the seed, the tensor and the element alone. */
void sb_lm_init_weights(struct sb_lm *lm, uint64_t seed);
/* Start gradients anew. */
void sb_lm_clear_grads(struct sb_lm *lm);
/* Logits [m, n_vocab]; positions are below max_context. */
struct sb_var *sb_lm_forward(struct sb_lm *lm, struct sb_tape *tape,
                             const struct sb_lm_batch *batch);
/* Floating-point operations of one training token that attends to `seen` others: forward, and both
 * gradients of every product. */
double sb_lm_flops_per_token(const struct sb_lm_shape *shape, double seen);

#endif

/* What the forward's files share: a packed model, and a sequence with its buffers. */
#ifndef SB_MODEL_INTERNAL_H
#define SB_MODEL_INTERNAL_H

#include "harness/model/model.h"

/* Matrices that read the same input, as one product where their types agree: wq, wk, wv in one
 * output row [q | k | v], or gate and up. */
struct sb_group {
    struct sb_packed part[3];
    size_t n_parts;
};

struct sb_layer {
    struct sb_group qkv, gate_up;
    struct sb_packed wo, w_down;
    float *attn_norm, *ffn_norm; /* [d_model] */
    float *qkv_bias;             /* [q + k + v], or NULL */
};

struct sb_model {
    struct sb_weights *weights;
    struct sb_layer *layer; /* [n_layers] */
    size_t n_layers;
    struct sb_packed head;
    float *final_norm;
    size_t packed_bytes, n_weights; /* of all matrices */
    enum sb_dtype kv_type;          /* of sequences made from now on */
    size_t q_width, kv_width;       /* n_heads * head_dim, n_kv_heads * head_dim */
};

struct sb_seq {
    struct sb_model *model;
    size_t capacity, max_rows, length;
    struct sb_kv_layer *kv; /* [n_layers] */
    void *kv_memory;        /* all of them, 64-byte aligned */
    struct sb_rope rope;    /* positions 0..capacity-1 */

    /* The batch of the last forward, which commit or truncate settles. */
    size_t n_rows;
    size_t n_layers_done; /* layers 0..n-1 of it are computed */
    bool tainted;         /* computed with sublayers passed over: not to be committed */
    int32_t *parent, *depth, *position; /* [max_rows] */
    int32_t *logits_row;                /* [max_rows] row of `logits`, or -1 */

    /* Scratch, made at creation. */
    float *x, *normed, *qkv, *attended, *ff; /* [max_rows, ...] */
    float *logits;                           /* [max_rows, n_vocab] */
    int32_t *list_memory;                    /* ancestors of every row */
    const int32_t **list;
    int32_t *n_list;
    void *attention_scratch;
};

size_t sb_group_outputs(const struct sb_group *group);
void sb_group_product(const struct sb_team *team, float *y, size_t ldy,
                      const struct sb_group *group, const float *x, size_t ldx, size_t m,
                      const float *bias);

#endif

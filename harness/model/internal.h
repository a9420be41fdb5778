/* What the forward's files share: a packed model, and a sequence with its buffers. */
#ifndef SB_MODEL_INTERNAL_H
#define SB_MODEL_INTERNAL_H

#include "harness/model/model.h"

/* Matrices that read the same input, under each other: wq, wk and wv give one output row [q | k | v]. Packed as one
 * where their types agree; gate and up then are a gated pair. */
struct sb_matrix {
    struct sb_packed part[3];
    const struct sb_tensor *source[3]; /* borrowed from the weights */
    size_t n_parts, n_sources;
    bool gates;  /* sources are gate and up */
    float *bias; /* [all outputs], owned, or NULL */
};

struct sb_layer {
    struct sb_matrix qkv, wo, gate_up, w_down;
    float *attn_norm, *ffn_norm; /* [d_model]; layer 0 of a bare input has no attn_norm */
    float *pair_norm;            /* [d_model] of a paired input's h, or NULL */
};

struct sb_model {
    struct sb_weights *weights;
    struct sb_layer *layer; /* [n_layers] */
    size_t n_layers;
    struct sb_matrix head; /* no parts: none, and so no logits */
    float *final_norm;     /* or NULL */
    void *memory;          /* all packed matrices, in the order in which a forward reads them */
    size_t packed_bytes, n_weights; /* of all matrices */
    struct sb_arithmetic arithmetic;
    size_t q_width, kv_width; /* n_heads * head_dim, n_kv_heads * head_dim */
};

struct sb_seq {
    struct sb_model *model;
    size_t capacity, max_rows, length;
    struct sb_kv_layer *kv; /* [n_layers] */
    void *kv_memory;        /* all of them, 64-byte aligned */
    struct sb_rope rope;    /* positions 0..capacity-1 */

    /* The batch of the last forward, which commit or truncate settles; rows that it kept come first. */
    size_t n_rows;
    size_t n_layers_done;    /* layers 0..n-1 of it are computed */
    bool tainted;            /* computed with sublayers passed over: not to be committed */
    int32_t *parent, *depth; /* [max_rows] of the whole batch */
    int32_t *position;       /* [max_rows] of the rows computed together */
    int32_t *logits_row;     /* [max_rows] row of `logits`, or -1 */
    size_t first_logits;     /* rows of `logits` that kept rows have */

    /* Scratch, made at creation. What products read has rows sb_row_stride apart. */
    size_t ld_normed, ld_attended, ld_ff, ld_pair;
    float *x, *qkv, *attended, *ff; /* [max_rows, ...] of the rows computed together */
    float *normed; /* [n_normed >= max_rows, ...]: of few rows, each thread's own */
    size_t n_normed;
    float *pair;          /* [max_rows, 2 d_model] of a paired input, or NULL */
    float *logits;        /* [max_rows, n_vocab] */
    int32_t *list_memory; /* ancestors of every row */
    const int32_t **list;
    int32_t *n_list;
    void *attention_scratch;
    uint32_t *pairs;     /* [max_rows, ...] rounded inputs of fast products, or NULL */
    float *blas_block;   /* weights as floats for OpenBLAS, or NULL */
    bool prefilling;     /* this pass is part of a prompt */
    struct sb_soon soon; /* what the next attention of this pass reads */
};

/* Pack the matrices of model->weights for model->arithmetic. What it made before it failed (SB_ENOMEM) is the
 * model's as well. */
enum sb_status sb_model_pack(struct sb_model *model, struct sb_error *err);

enum { SB_BLAS_ROWS = 512 };

size_t sb_matrix_outputs(const struct sb_matrix *w);
size_t sb_matrix_inputs(const struct sb_matrix *w);

/* Does a pass of m rows go through OpenBLAS? It must then be run by one thread. */
bool sb_pass_uses_blas(const struct sb_seq *seq, size_t m);

/* Rows that a product reads, or whose norms it reads. */
struct sb_operand {
    const float *x;
    size_t ld;
    const float *norm; /* [inputs] weights of an RMSNorm, or NULL */
};

/* y[m, outputs] = x[m, inputs] W^T + bias, or added to y; in a sequence with scratch for it (arithmetic
 * fast, or `blas` for this pass) by other means. Of gate and up, silu(gate) * up, where y has room for both. */
void sb_matrix_product(const struct sb_team *team, struct sb_seq *seq, float *y, size_t ldy,
                       const struct sb_matrix *w, struct sb_operand input, size_t m, bool add);
/* sb_matmul_spare of all its parts. */
size_t sb_matrix_spare(const struct sb_team *team, const struct sb_matrix *w, size_t m);

#endif

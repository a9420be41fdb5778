/* A reverse-mode tape over row-major matrices.
 *
 * An operation computes its output at once and records how to go back; sb_tape_backward walks the
 * record in reverse and adds into the gradients of everything that wants one. Values live in the
 * tape's arena until sb_tape_reset, which keeps the memory for the next step of the same shape.
 *
 * Results depend neither on the number of threads nor on timing: work is cut into blocks by the
 * shapes alone, a block is reduced by one thread, and blocks are joined in ascending order.
 *
 * Errors stick: when memory runs out every later operation returns NULL, operations accept NULL
 * inputs, and sb_tape_backward reports. Shapes are the caller's duty (asserted). One thread drives a
 * tape; operations use all OpenMP threads inside. */
#ifndef SB_TRAIN_TAPE_H
#define SB_TRAIN_TAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/train/real.h"

/* A matrix [rows, cols] and its gradient. dx == NULL: a constant, no gradient enters it. */
struct sb_var {
    sb_real *x, *dx;
    size_t rows, cols;
    bool has_grad; /* dx holds something; when false the next contribution overwrites it */
};

struct sb_tape;

enum sb_status sb_tape_create(struct sb_tape **out, struct sb_error *err);
void sb_tape_destroy(struct sb_tape *tape);
/* Forget operations and values; arena memory stays allocated. */
void sb_tape_reset(struct sb_tape *tape);
/* Arena bytes held. */
size_t sb_tape_bytes(const struct sb_tape *tape);
/* Go back from the scalar `loss` with d loss = 1. Gradients of variables outside the tape (weights)
 * accumulate while their has_grad is set; clear it to start anew. */
enum sb_status sb_tape_backward(struct sb_tape *tape, struct sb_var *loss, struct sb_error *err);

/* Scratch in the arena, 64-byte aligned, uninitialised, valid until reset; NULL out of memory. */
void *sb_tape_alloc(struct sb_tape *tape, size_t n, size_t size_bytes);
/* A constant over the caller's x, which must outlive the step. */
struct sb_var *sb_tape_constant(struct sb_tape *tape, sb_real *x, size_t rows, size_t cols);

/* x[m, k] w[n, k]^T + bias[1, n] (or NULL) -> [m, n]. A constant w costs no product for its
 * gradient: that is how frozen layers are passed through. */
struct sb_var *sb_tape_linear(struct sb_tape *tape, struct sb_var *x, struct sb_var *w,
                              struct sb_var *bias);
/* Rows ids[n] of table[v, d] -> [n, d]. ids outlive the step. */
struct sb_var *sb_tape_embed(struct sb_tape *tape, struct sb_var *table, const int32_t *ids,
                             size_t n);
/* x / sqrt(mean(x^2) + eps) * weight[1, d], by rows. */
struct sb_var *sb_tape_rmsnorm(struct sb_tape *tape, struct sb_var *x, struct sb_var *weight,
                               sb_real eps);
struct sb_var *sb_tape_add(struct sb_tape *tape, struct sb_var *a, struct sb_var *b);
/* a * x + b * y of two matrices of one shape; scalars too. */
struct sb_var *sb_tape_mix(struct sb_tape *tape, struct sb_var *x, sb_real a, struct sb_var *y,
                           sb_real b);
/* x + bias[1, d] in every row. */
struct sb_var *sb_tape_add_bias(struct sb_tape *tape, struct sb_var *x, struct sb_var *bias);
/* [a ; b]: columns of b behind those of a. */
struct sb_var *sb_tape_concat(struct sb_tape *tape, struct sb_var *a, struct sb_var *b);
/* Rows of b below those of a. */
struct sb_var *sb_tape_stack(struct sb_tape *tape, struct sb_var *a, struct sb_var *b);
/* Columns from .. from + n - 1. */
struct sb_var *sb_tape_slice(struct sb_tape *tape, struct sb_var *x, size_t from, size_t n);
/* Rows at[n] of x -> [n, d]; -1 gives zeros. `at` outlives the step. */
struct sb_var *sb_tape_gather(struct sb_tape *tape, struct sb_var *x, const int32_t *at, size_t n);
struct sb_var *sb_tape_silu(struct sb_tape *tape, struct sb_var *x);
struct sb_var *sb_tape_gelu(struct sb_tape *tape, struct sb_var *x); /* x * Phi(x) */
/* silu(gate) * up, elementwise. */
struct sb_var *sb_tape_swiglu(struct sb_tape *tape, struct sb_var *gate, struct sb_var *up);

/* Angles of rotary embedding: cos, sin [n_positions, head_dim / 2]; the tape does not own it. */
struct sb_angles {
    sb_real *cos, *sin;
    size_t n_positions, head_dim;
};
enum sb_status sb_angles_init(struct sb_angles *angles, size_t n_positions, size_t head_dim,
                              double base, struct sb_error *err);
void sb_angles_finish(struct sb_angles *angles);
/* Rotate the pairs (i, i + head_dim / 2) of every head of row r by position pos[r]. */
struct sb_var *sb_tape_rope(struct sb_tape *tape, struct sb_var *x, const struct sb_angles *angles,
                            const int32_t *pos);

/* Documents packed in one batch: segment s is rows start[s] .. start[s + 1] - 1. Rows never see
 * another segment. start has n + 1 entries and outlives the step. */
struct sb_segments {
    const size_t *start;
    size_t n;
};
/* Causal attention inside each segment: q[m, n_heads * d], k and v[m, n_kv_heads * d] ->
 * [m, n_heads * d]; head h reads KV head h / (n_heads / n_kv_heads); scores scaled by 1/sqrt(d).
 * k and v may have p * m rows, those of p passes stacked: row r sees rows up to itself in the first, and row
 * r alone in every later one (methods B 5.3). */
struct sb_var *sb_tape_attention(struct sb_tape *tape, struct sb_var *q, struct sb_var *k,
                                 struct sb_var *v, size_t n_heads, size_t n_kv_heads,
                                 const struct sb_segments *segments);

/* Losses are scalars [1, 1]: the sum over rows of weight[r] * (loss of row r). weight (NULL: all
 * one) carries both the mask and the division by the number of rows that count. */

/* -log softmax(logits)[target[r]]; rows of weight 0 may have any target. */
struct sb_var *sb_tape_cross_entropy(struct sb_tape *tape, struct sb_var *logits,
                                     const int32_t *target, const sb_real *weight);
/* KL(softmax(teacher) || softmax(logits)); teacher[m, v] are logits and get no gradient. */
struct sb_var *sb_tape_kl(struct sb_tape *tape, struct sb_var *logits, const sb_real *teacher,
                          const sb_real *weight);
/* Rows to learn from: row r of the loss goes with row[r] of logits (row NULL: r itself). They get no
 * gradient and outlive the step. */
struct sb_teacher {
    const sb_real *logits;
    const int32_t *row;
};
/* Losses of a student's row q by a teacher's row p. */
enum sb_divergence_kind {
    SB_SOFT_CE,    /* -sum p log q */
    SB_KL,         /* KL(p || q) */
    SB_REVERSE_KL, /* KL(q || p) */
    SB_JSD,        /* beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q */
    SB_TVD,        /* sum of max(q - p, 0) */
    SB_TOPK_CE,    /* -sum p log q over the top_k likeliest of p (ties included) */
    SB_LK_ALPHA,   /* -log sum min(p, q) */
};
enum { SB_MAX_TOP_K = 64 };
extern const char sb_divergence_names[]; /* "soft-ce|kl|..." in the order above */
bool sb_divergence_find(const char *name, enum sb_divergence_kind *kind);
struct sb_divergence {
    enum sb_divergence_kind kind;
    double beta;
    size_t top_k;
};
struct sb_var *sb_tape_divergence(struct sb_tape *tape, struct sb_var *logits,
                                  const struct sb_divergence *by, const struct sb_teacher *teacher,
                                  const sb_real *weight);
/* Mean over columns of e^2 / 2 where |e| < 1, else |e| - 1/2, with e = x - target. */
struct sb_var *sb_tape_smooth_l1(struct sb_tape *tape, struct sb_var *x,
                                 const struct sb_teacher *target, const sb_real *weight);

#endif

/* The transformer forward: rows in, logits and hidden states out.
 *
 * Target, draft and middle models are one type (methods A 1.1). A forward computes M rows against
 * a sequence's committed prefix; row m has the same bits whatever M is, and the same bits as that
 * token run alone. Threads: one sb_seq is used by one thread at a time; an sb_model is read-only
 * after loading and may be shared. */
#ifndef SB_MODEL_MODEL_H
#define SB_MODEL_MODEL_H

#include "harness/core/error.h"
#include "harness/model/arithmetic.h"
#include "harness/model/config.h"
#include "harness/model/weights.h"

struct sb_model;
struct sb_seq;

/* Load and pack. `path` as in sb_weights_open. The caller owns *out (sb_model_destroy). */
enum sb_status sb_model_load(struct sb_model **out, const char *path, struct sb_error *err);
/* Pack from weights in memory; takes ownership of `weights` on success. */
enum sb_status sb_model_from_weights(struct sb_model **out, struct sb_weights *weights,
                                     struct sb_error *err);
/* Pack a matrix as models do; f32: F16 and BF16 as float32. `memory` and result as in sb_packed_init. */
int sb_tensor_pack(struct sb_packed *out, void *memory, const struct sb_tensor *t, bool f32);
/* Is there a head, so that rows can have logits? Draft bodies may lack it. */
bool sb_model_has_head(const struct sb_model *model);
void sb_model_destroy(struct sb_model *model);

const struct sb_config *sb_model_config(const struct sb_model *model);
const struct sb_weights *sb_model_weights(const struct sb_model *model);
size_t sb_model_packed_bytes(const struct sb_model *model);

/* For sequences created from now on; set it before the first. Default: exact. Packs again where the width
 * of the weights changes, and can fail only then (SB_ENOMEM; the model is as it was). */
enum sb_status sb_model_set_arithmetic(struct sb_model *model,
                                       const struct sb_arithmetic *arithmetic,
                                       struct sb_error *err);
const struct sb_arithmetic *sb_model_arithmetic(const struct sb_model *model);

/* Parts of the forward on their own, with the same bits as inside an exact one. Shapes: x, y [m, d_model],
 * logits [m, n_vocab] or [m, n_ids]. */
void sb_model_embed(const struct sb_model *model, float *y, const sb_token *tokens, size_t m);
void sb_model_final_norm(const struct sb_model *model, float *y, const float *x, size_t m);
void sb_model_lm_head(const struct sb_model *model, float *logits, const float *normed, size_t m);
void sb_model_lm_head_rows(const struct sb_model *model, float *logits, const float *normed,
                           size_t m, const int32_t *ids, size_t n_ids);

/* A sequence: committed rows 0..length-1 in the KV cache, then the rows of the last forward, which
 * commit or truncate settles. `capacity` counts positions, rows of a batch included; memory is
 * allocated here and nowhere later. */
enum sb_status sb_seq_create(struct sb_seq **out, struct sb_model *model, size_t capacity,
                             size_t max_rows, struct sb_error *err);
void sb_seq_destroy(struct sb_seq *seq);
size_t sb_seq_length(const struct sb_seq *seq);
size_t sb_seq_capacity(const struct sb_seq *seq);
struct sb_model *sb_seq_model(const struct sb_seq *seq);

enum {
    SB_PARENT_PREFIX = -1, /* parent of a row that follows the committed prefix directly */
    SB_MAX_ROWS = 1024,    /* of a batch */
    SB_MAX_TAPS = 16,      /* of a prefill */
};

struct sb_row {
    sb_token token; /* ignored when embedding is set */
    int32_t parent; /* an earlier row of this batch, or SB_PARENT_PREFIX */
    bool want_logits;
    const float *embedding; /* [sb_config_d_input] instead of a token, or NULL; a model without an
                                 embedding takes nothing else */
};

enum sb_tap_kind {
    SB_TAP_IN,    /* residual stream entering layer `layer` */
    SB_TAP_OUT,   /* residual stream leaving layer `layer` */
    SB_TAP_LAST,  /* leaving the last layer, before the final norm */
    SB_TAP_FINAL, /* after the final norm, if there is one: what the LM head multiplies */
};

struct sb_tap {
    enum sb_tap_kind kind;
    size_t layer;
    float *dst; /* [n_rows, d_model], the caller's */
};

/* Zero is default: all layers, everything visible by parent links, no taps. */
struct sb_forward_options {
    const struct sb_tap *taps;
    size_t n_taps;
    const uint64_t *visible;  /* bitset [n_rows, ceil(n_rows / 64)]: batch rows a row sees; replaces
                                   the parent links for visibility (positions stay parent-made); a
                                   row must see itself, and only rows up to itself */
    const int32_t *positions; /* [n_rows] absolute, replacing prefix length + depth */
    size_t first_layer;       /* resume here, with hidden rows given in `hidden` */
    size_t stop_layer;        /* leave before this layer (0: run all); then no logits */
    const float *hidden;      /* [n_rows, d_model]: residual stream entering first_layer */
    const uint8_t *skip_attn; /* [n_layers] nonzero: attention sublayer passed over; or NULL */
    const uint8_t *skip_mlp;  /* [n_layers] */
    /* The first rows of the last forward's batch that stay, with their logits: the new rows come behind
     * them (row i is batch row n_kept + i) and may have them as parents. So a tree grows level by level,
     * each row computed once. Taps, positions and skip flags are of the new rows. Not together with
     * visible, first_layer or stop_layer, nor after a commit or a truncation. */
    size_t n_kept;
};

/* Compute n_rows rows after the committed prefix; with those kept, 1..max_rows. Rows of an earlier
 * forward that were neither committed nor kept are dropped. Fails with SB_EUSAGE when the batch would
 * pass the capacity, a token is outside the vocabulary, or a parent is not an earlier row. */
enum sb_status sb_forward(struct sb_seq *seq, const struct sb_row *rows, size_t n_rows,
                          const struct sb_forward_options *options, struct sb_error *err);

/* Logits [n_vocab] of batch row `row` of the last forward; NULL when it did not ask. Borrowed until
 * the next forward. */
const float *sb_seq_logits(const struct sb_seq *seq, size_t row);

/* Keep the batch rows path[0] < path[1] < ... (a chain of parent links from the prefix on), drop
 * the rest; length grows by n. Refuses rows that were computed with sublayers passed over. */
enum sb_status sb_seq_commit(struct sb_seq *seq, const int32_t *path, size_t n,
                             struct sb_error *err);
void sb_seq_truncate(struct sb_seq *seq,
                     size_t length); /* length <= current; drops batch rows too */
/* A copy with the same committed rows, capacity and batch width. */
enum sb_status sb_seq_fork(struct sb_seq **out, const struct sb_seq *seq, struct sb_error *err);

/* Append `n` tokens as a chain and commit them, in batches; the logits of the last one are then
 * sb_seq_logits(seq, *last_row). taps (may be NULL) get all n rows. */
enum sb_status sb_seq_prefill(struct sb_seq *seq, const sb_token *tokens, size_t n,
                              const struct sb_tap *taps, size_t n_taps, size_t *last_row,
                              struct sb_error *err);

#endif

/* Draft heads: small modules on a frozen target's hidden states, trained to guess what it says next.
 *
 * Positions (methods B 0). A head stands at row t of a text: it has the hidden state at t, which made the
 * target choose x[t+1]. At depth j, from 0, it is given the true tokens x[t+1] .. x[t+1+j] and learns
 * x[t+2+j], or the target's row at t+1+j. In decoding x[t+1] is the root and depth j the node at j + 1.
 *
 * One file per architecture (head_<arch>.c) says which tensors there are and how logits come about; rows,
 * losses and the loop are shared. */
#ifndef SB_TRAIN_HEAD_H
#define SB_TRAIN_HEAD_H

#include "harness/core/param.h"
#include "harness/train/lm.h"

struct json_t;
struct sb_head;

enum { SB_HEAD_DEPTH = 16 };

/* A batch of texts, as in data.h. */
struct sb_head_texts {
    struct sb_lm_batch rows;
    const int32_t *next;   /* [m] the token after each row's */
    const sb_real *counts; /* [m] not 0: the next token has a loss */
};

/* The rows of a batch that a head learns at: those with a loss at some depth. Everything lives on the
 * tape. What lies behind the end of a row's text has weight 0, token 0 and row 0. */
struct sb_head_rows {
    size_t n, depth;
    int32_t *at;                     /* [n] row of the batch */
    int32_t *token[SB_HEAD_DEPTH];   /* [n] what is given at depth j: x[t+1+j] */
    int32_t *label[SB_HEAD_DEPTH];   /* [n] x[t+2+j] */
    int32_t *teacher[SB_HEAD_DEPTH]; /* [n] row of the batch where the target says it: t+1+j */
    sb_real *weight[SB_HEAD_DEPTH];  /* [n] 1 or 0 */
    size_t counts[SB_HEAD_DEPTH];    /* sum of the weights */
};
/* false: out of memory. */
bool sb_head_rows_make(struct sb_head_rows *rows, struct sb_tape *tape,
                       const struct sb_head_texts *texts, size_t depth);

/* What a head's forward sees. The target's matrices are constants. */
struct sb_head_input {
    struct sb_tape *tape;
    const struct sb_head_texts *texts;
    const struct sb_head_rows *rows;
    const struct sb_lm_states *states;
};
/* What it gives for every depth of the rows. */
struct sb_head_output {
    struct sb_var *logits[SB_HEAD_DEPTH]; /* [rows.n, n_vocab] */
    struct sb_var
        *feature[SB_HEAD_DEPTH]; /* [rows.n, d_model] guesses of the target's final state at
                                              t+1+j; NULL: the architecture guesses none */
};

struct sb_head_ops {
    const char *arch;    /* as in a recipe, and as the drafter is called */
    const char *summary; /* one line */
    const struct sb_param *params;
    size_t params_size;
    size_t parts_size; /* of the architecture's own struct, zeroed */
    /* Name the tensors in head->weights, and say head->depth and head->reach. */
    enum sb_status (*declare)(struct sb_head *head, struct sb_error *err);
    /* Weights that start as something else than draws; may be NULL. */
    void (*start)(struct sb_head *head);
    /* Out of memory leaves NULL in the output. */
    void (*forward)(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out);
    /* Products of a training row, each a multiplication and an addition: all passes, backward included. */
    double (*products)(const struct sb_head *head);
    struct json_t *(*config)(const struct sb_head *head); /* config.json; the caller's */
    void (*close)(struct sb_head *head); /* frees what `parts` holds; may be NULL */
};

struct sb_head {
    const struct sb_head_ops *ops;
    void *params, *parts; /* of the architecture, owned */
    struct sb_lm *target; /* frozen, borrowed */
    struct sb_trainable weights;
    size_t depth; /* depths with a loss */
    size_t reach; /* depths to measure; at least depth */
    /* The tokens it can say, when those are fewer than the target's; else n_draft is 0. `declare` says how
     * many and which output layer has a row for each; sb_head_set_vocabulary says which. */
    size_t n_draft;
    struct sb_var *draft_rows; /* [n_draft, d_model] */
    int32_t *draft_ids;        /* [n_draft] ascending, owned */
};

extern const struct sb_head_ops *const sb_head_archs[]; /* ends at NULL */
const struct sb_head_ops *sb_head_arch_find(const char *arch);

/* spec: the parameters of the architecture; its strings outlive the head. Weights start by the seed. */
enum sb_status sb_head_create(struct sb_head **out, const struct sb_head_ops *ops,
                              const struct sb_spec *spec, struct sb_lm *target, uint64_t seed,
                              struct sb_error *err);
void sb_head_destroy(struct sb_head *head);

/* ids[head->n_draft], ascending: the target's ids of the draft vocabulary. Its output layer becomes the
 * target's rows of them. */
enum sb_status sb_head_set_vocabulary(struct sb_head *head, const int32_t *ids,
                                      struct sb_error *err);
/* Rows where the target's likeliest token (labels: the text's) is not among those have no loss, as in
 * EAGLE-3's code; labels become draft ids. logits: the target's, [m, n_vocab]. Nothing without a draft
 * vocabulary. */
void sb_head_rows_limit(struct sb_head_rows *rows, const struct sb_head *head,
                        const sb_real *logits, bool labels);

/* Weights of the loss. */
struct sb_head_loss {
    bool labels; /* cross-entropy on the text's own tokens, else `by` against the target's rows */
    struct sb_divergence by;
    double weight;  /* of that */
    double feature; /* of the smooth L1 between guessed and true hidden states */
    double decay;   /* a depth counts decay times the one before */
};
/* A depth's logits over the target's vocabulary, [n, n_vocab]: what a head cannot say is -INFINITY. NULL when
 * logits are, or out of memory. */
const sb_real *sb_head_full_rows(const struct sb_head *head, struct sb_tape *tape,
                                 const struct sb_var *logits);

/* The loss of all depths as a scalar, divided by `share`: at each depth the mean over its rows. logits:
 * the target's, [m, n_vocab]; a draft vocabulary learns the softmax of its own columns. NULL out of memory. */
struct sb_var *sb_head_loss(const struct sb_head *head, const struct sb_head_input *in,
                            const struct sb_head_output *out, const sb_real *logits,
                            const struct sb_head_loss *loss, size_t share);

/* ---- pieces that architectures share -------------------------------------------------------------- */

/* y + silu(W x + b): with x = y a residual block (methods B2). */
struct sb_var *sb_head_block(struct sb_tape *tape, struct sb_var *y, struct sb_var *x,
                             struct sb_var *w, struct sb_var *b);
/* Copy the target's LM head. */
void sb_head_copy_lm_head(const struct sb_head *head, struct sb_var *to);
/* The architecture part of a llama config for a layer of the target's shape. */
struct json_t *sb_head_llama_config(const struct sb_head *head, const char *architecture);

#endif

/* A draft body with its own KV cache (methods B 2, B1; 5.0): stable rows, made of hidden states of the
 * target for committed text, then the scratch rows of a step's draft. Nothing below allocates but open.
 *
 * Stable row i stands at position i. A scratch row stands one behind its parent, sees all stable rows, its
 * ancestors and itself; each is computed once, however many levels a draft has. Threads: one at a time. */
#ifndef SB_DRAFTERS_DRAFT_BODY_H
#define SB_DRAFTERS_DRAFT_BODY_H

#include "drafters/head_file.h"

struct sb_draft_body {
    struct sb_model *model; /* owned; its tensors are borrowed from the head file */
    struct sb_seq *seq;
    size_t d, d_input;            /* floats of what leaves a row, and of a row */
    size_t max_rows;              /* stable rows of one call; scratch rows of one step */
    size_t n_scratch, n_appended; /* rows of this step; stable rows of the last call */
    struct sb_row *row;           /* [max_rows] */
    int32_t *chain;               /* [max_rows] 0, 1, 2, ... */
    float *last, *final; /* [max_rows, d] what leaves the batch's rows, before and after the norm */
    float *newest, *normed; /* [d] the same of the newest stable row */
};

struct sb_draft_body_options {
    const struct sb_head_file *head;
    struct sb_config config; /* sb_draft_body_config; max_context is set here */
    /* Layer i has the tensors STEM i ".self_attn.q_proj.weight", ...; layer 0 may have a name of its own
     * instead ("midlayer."). */
    const char *stem, *first;
    const char *final_norm, *lm_head; /* names, or NULL: none */
    size_t max_context, max_rows;
};

/* The body's shape: `like`, but for what the head's config.json says of it (hidden_size, num_hidden_layers,
 * num_attention_heads, num_key_value_heads, head_dim, intermediate_size, rms_norm_eps, rope_theta). Refuses
 * a hidden_act other than silu. */
enum sb_status sb_draft_body_config(struct sb_config *out, const struct sb_head_file *head,
                                    const struct sb_config *like, struct sb_error *err);

/* rope_scaling comes from config.json. The head file outlives the body. */
enum sb_status sb_draft_body_open(struct sb_draft_body *b,
                                  const struct sb_draft_body_options *options,
                                  struct sb_error *err);
void sb_draft_body_close(struct sb_draft_body *b); /* accepts zeroed */

size_t sb_draft_body_length(const struct sb_draft_body *b); /* stable rows */
/* Keep the first `length` stable rows at most; scratch rows go. */
void sb_draft_body_rewind(struct sb_draft_body *b, size_t length);
/* n more stable rows [n, d_input], n <= max_rows; scratch rows go. With `logits` the newest has them. */
enum sb_status sb_draft_body_append(struct sb_draft_body *b, const float *rows, size_t n,
                                    bool logits, struct sb_error *err);
/* n scratch rows, each below a scratch row or SB_PARENT_PREFIX, the newest stable row. They are numbered
 * from b->n_scratch on; all have logits, with `logits`. */
enum sb_status sb_draft_body_grow(struct sb_draft_body *b, const float *rows, const int32_t *parent,
                                  size_t n, bool logits, struct sb_error *err);

/* What leaves a scratch row, or SB_PARENT_PREFIX: before the final norm, after it, and its logits. The
 * newest stable row's logits go with the first scratch rows. Borrowed until the next call. */
const float *sb_draft_body_last(const struct sb_draft_body *b, int32_t row);
const float *sb_draft_body_final(const struct sb_draft_body *b, int32_t row);
const float *sb_draft_body_logits(const struct sb_draft_body *b, int32_t row);

#endif

/* What the EAGLE family shares (methods B 5.0): rows that pair a feature with the token after it.
 *
 * Row i = (feature f_i, token x[i + 1]) stands at rotary position i, sees rows 0..i, and tells of x[i + 2]. With
 * x[0..n] committed (x[n] the root) rows 0..n-1 are stable: f_i is made of the target's hidden states at
 * position i. x[0] is never embedded. A child c of a node v is the row (what leaves v's row, c), one position
 * behind v's; the root's children come from row n-1. Each step drops the rows of guessed features, then
 * appends those of the tokens accepted since, in one batch.
 *
 * One row, e = embedding of the token, everything float32 (what a training forward has to compute):
 *
 *   EAGLE-1   f = tap `final` of the target at position i, or g of the row above
 *             z = fc [e ; f] (+ bias)                                fc [d, 2 d]
 *             r = z + Wo attention(Wq z, Wk z, Wv z)                 no norm before it; RoPE on q and k
 *             g = r + MLP(RMSNorm_post(r))                           further layers have both norms
 *             logits = the target's LM head times g, no norm between
 *
 *   EAGLE-3   f = fc [in:low ; in:mid ; in:high] of the target at position i, or g of the row above (no fc)
 *             a = [RMSNorm_input(e) ; RMSNorm_hidden(f)]             Wq, Wk, Wv have 2 d columns
 *             r = f + Wo attention(Wq a, Wk a, Wv a)                 config norm_before_residual: RMSNorm_hidden(f) + ...
 *             g = r + MLP(RMSNorm_post(r))
 *             logits = lm_head RMSNorm_norm(g), over the draft vocabulary
 *
 * RoPE is in the half layout (pairs i, i + head_dim / 2), attention scores are divided by sqrt(head_dim). Rows
 * have the same bits in whatever batches they are computed. */
#ifndef SB_DRAFTERS_EAGLE_BODY_H
#define SB_DRAFTERS_EAGLE_BODY_H

#include "drafters/draft_body.h"
#include "drafters/linear.h"
#include "harness/decode/drafter.h"

struct sb_eagle_body {
    const char *drafter;
    const struct sb_model *target;
    struct sb_head_file head;
    struct sb_draft_body body;
    struct sb_linear fc;
    struct sb_tensor embedding;      /* [n_vocab, d]: the head's own, or the target's */
    size_t n_taps, tap[SB_MAX_TAPS]; /* into sb_context.taps */
    size_t d, d_target, n_vocab;
    size_t n_draft; /* draft vocabulary: logits of a row */
    sb_token *map;  /* [n_draft] the target's ids, or NULL: the same */
    bool pairs;     /* EAGLE-3: rows are [e ; f] */
    bool own_head;  /* logits come with the body's rows, not from the target's LM head */
    float *joined;  /* [rows, inputs of fc] */
    float *input;   /* [rows, d_input] of the body */
    float *logits;  /* [rows, n_vocab] from the target's head; NULL with an own one */
};

enum sb_eagle_kind { SB_EAGLE_1, SB_EAGLE_3 };

/* Open `name` (NULL: the bundled one of that family) for drafts of at most n_scratch rows in a step. */
enum sb_status sb_eagle_body_open(struct sb_eagle_body *eagle, enum sb_eagle_kind kind,
                                  const struct sb_drafter_env *env, const char *drafter,
                                  const char *name, size_t n_scratch, struct sb_error *err);
void sb_eagle_body_close(struct sb_eagle_body *eagle); /* accepts zeroed */

/* A new prompt: its stable rows, but for the newest. */
enum sb_status sb_eagle_body_begin(struct sb_eagle_body *eagle, const struct sb_context *ctx,
                                   struct sb_error *err);
/* Begin a step: bring the stable rows up to the root's, drop scratch rows. *ready is false where no hidden
 * state is there yet, and so no row. Row SB_PARENT_PREFIX, the root's, has logits. */
enum sb_status sb_eagle_body_start(struct sb_eagle_body *eagle, const struct sb_context *ctx,
                                   bool *ready, struct sb_error *err);
/* n scratch rows: token[i] below row above[i], whose feature it takes. They are numbered on from *first and
 * have logits. */
enum sb_status sb_eagle_body_grow(struct sb_eagle_body *eagle, const sb_token *token,
                                  const int32_t *above, size_t n, int32_t *first,
                                  struct sb_error *err);
/* Logits [n_draft] of a row of the last start or grow; borrowed until the next. */
const float *sb_eagle_body_logits(const struct sb_eagle_body *eagle, int32_t row);
static inline sb_token sb_eagle_body_token(const struct sb_eagle_body *eagle, int32_t id)
{
    return eagle->map ? eagle->map[id] : id;
}

/* The at most k best tokens of a row, likeliest first, the smaller draft id on ties, and their
 * log-probabilities. SB_EFORMAT for logits of NaN or infinity. */
enum sb_status sb_eagle_body_best(const struct sb_eagle_body *eagle, int32_t row, int32_t k,
                                  sb_token *token, float *log_prob, int32_t *n,
                                  struct sb_error *err);

#endif

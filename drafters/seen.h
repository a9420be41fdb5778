/* What a drafter has learnt from last, so that a text is learnt once: the next turn of a conversation
 * has the earlier turns in its prompt, and prompts of a run may begin alike. */
#ifndef SB_DRAFTERS_SEEN_H
#define SB_DRAFTERS_SEEN_H

#include "harness/decode/drafter.h"

struct sb_seen {
    sb_token *text; /* [cap] */
    size_t n, cap;
};

enum sb_status sb_seen_init(struct sb_seen *seen, size_t max_context, struct sb_error *err);
void sb_seen_finish(struct sb_seen *seen); /* accepts a zeroed one */

/* At begin: keep what ctx has in common with the text before, or nothing. ctx->tokens[seen->n] is then
 * the first token to learn. */
void sb_seen_begin(struct sb_seen *seen, const struct sb_context *ctx, bool forget);
/* All of ctx is learnt now. */
void sb_seen_all(struct sb_seen *seen, const struct sb_context *ctx);

#endif

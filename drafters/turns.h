/* Conversations, as a drafter that learns can tell them: the harness calls begin for every turn, with
 * all earlier turns in its prompt. A request whose prompt is longer than the last one's and begins
 * with it is the next turn of that conversation; any other starts a new one (the same prompt once
 * more, too). */
#ifndef SB_DRAFTERS_TURNS_H
#define SB_DRAFTERS_TURNS_H

#include "harness/decode/drafter.h"

/* For parameter tables; the meaning is the drafter's to add. */
#define SB_SCOPES "prompt|conversation|run"
enum sb_scope { SB_SCOPE_PROMPT, SB_SCOPE_CONVERSATION, SB_SCOPE_RUN };
enum sb_scope sb_scope_of(const char *name); /* one of SB_SCOPES */

struct sb_turns {
    sb_token *text; /* [cap] what was seen last */
    size_t n, n_prompt, cap;
};

enum sb_status sb_turns_init(struct sb_turns *turns, size_t max_context, struct sb_error *err);
void sb_turns_finish(struct sb_turns *turns);

/* At begin. Returns how many leading tokens of ctx were seen in the turn before; 0: a conversation
 * begins. What was seen beyond them was spelt differently, and is forgotten here. */
size_t sb_turns_begin(struct sb_turns *turns, const struct sb_context *ctx);
/* Take over the text behind what was seen, x[n..): to be called after it was learnt from. */
void sb_turns_see(struct sb_turns *turns, const struct sb_context *ctx);

#endif

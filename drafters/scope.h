/* How long a drafter remembers what it learned: scope=prompt|conversation|run (methods C 0).
 *
 * The harness says at begin which conversation a prompt belongs to. Where it does not know (a text alone,
 * without a data set), this is read from the text: chat templates write a turn behind the turns before
 * it, so a prompt that begins with the whole of the prompt before it, and goes on, is the next turn. */
#ifndef SB_DRAFTERS_SCOPE_H
#define SB_DRAFTERS_SCOPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/decode/drafter.h"

#define SB_SCOPE_CHOICES "prompt|conversation|run"
#define SB_SCOPE_MEANING "what it learned is kept for this prompt, the conversation, or the run"

enum sb_scope_reach { SB_SCOPE_PROMPT, SB_SCOPE_CONVERSATION, SB_SCOPE_RUN };

struct sb_scope {
    enum sb_scope_reach reach;
    sb_token *prompt; /* [cap] the one before; conversation only */
    size_t n, cap;
    uint64_t conversation; /* that it belonged to; 0: not known */
};

/* `choice` is one of SB_SCOPE_CHOICES; `drafter` is named when memory runs out. */
enum sb_status sb_scope_init(struct sb_scope *scope, const char *choice, size_t max_context,
                             const char *drafter, struct sb_error *err);
void sb_scope_finish(struct sb_scope *scope);
/* Is all that was learned to be forgotten for this prompt? Call it once per begin. */
bool sb_scope_forgets(struct sb_scope *scope, const struct sb_context *ctx);

#endif

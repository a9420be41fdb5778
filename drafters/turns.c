#include "drafters/turns.h"

#include <string.h>

#include "harness/core/alloc.h"

enum sb_scope sb_scope_of(const char *name)
{
    return strcmp(name, "prompt") == 0 ? SB_SCOPE_PROMPT
           : strcmp(name, "run") == 0  ? SB_SCOPE_RUN
                                       : SB_SCOPE_CONVERSATION;
}

enum sb_status sb_turns_init(struct sb_turns *turns, size_t max_context, struct sb_error *err)
{
    *turns = (struct sb_turns){ .cap = max_context };
    turns->text = sb_alloc_array(max_context, sizeof *turns->text);
    return turns->text ? SB_OK
                       : sb_fail(err, SB_ENOMEM, "no memory for a text of %zu tokens", max_context);
}

void sb_turns_finish(struct sb_turns *turns)
{
    sb_free(turns->text);
    *turns = (struct sb_turns){ 0 };
}

size_t sb_turns_begin(struct sb_turns *turns, const struct sb_context *ctx)
{
    size_t common = 0;
    while (common < turns->n && common < ctx->n && turns->text[common] == ctx->tokens[common])
        common++;
    bool goes_on =
        turns->n_prompt > 0 && ctx->n_prompt > turns->n_prompt && common >= turns->n_prompt;
    turns->n = goes_on ? common : 0;
    turns->n_prompt = ctx->n_prompt;
    return turns->n;
}

void sb_turns_see(struct sb_turns *turns, const struct sb_context *ctx)
{
    size_t n = ctx->n < turns->cap ? ctx->n : turns->cap;
    if (n > turns->n)
        memcpy(turns->text + turns->n, ctx->tokens + turns->n,
               (n - turns->n) * sizeof *turns->text);
    turns->n = n > turns->n ? n : turns->n;
}

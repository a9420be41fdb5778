#include "drafters/scope.h"

#include <string.h>

#include "harness/core/alloc.h"

enum sb_status sb_scope_init(struct sb_scope *scope, const char *choice, size_t max_context,
                             const char *drafter, struct sb_error *err)
{
    *scope =
        (struct sb_scope){ .reach = strcmp(choice, "prompt") == 0         ? SB_SCOPE_PROMPT
                                    : strcmp(choice, "conversation") == 0 ? SB_SCOPE_CONVERSATION
                                                                          : SB_SCOPE_RUN };
    if (scope->reach != SB_SCOPE_CONVERSATION)
        return SB_OK;
    scope->prompt = sb_alloc_array(max_context, sizeof *scope->prompt);
    if (!scope->prompt)
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory for a prompt of %zu tokens", drafter,
                       max_context);
    scope->cap = max_context;
    return SB_OK;
}

void sb_scope_finish(struct sb_scope *scope)
{
    sb_free(scope->prompt);
    *scope = (struct sb_scope){ 0 };
}

bool sb_scope_forgets(struct sb_scope *scope, const struct sb_context *ctx)
{
    if (scope->reach != SB_SCOPE_CONVERSATION)
        return scope->reach == SB_SCOPE_PROMPT;
    size_t n = ctx->n_prompt < scope->cap ? ctx->n_prompt : scope->cap;
    bool known = ctx->conversation != 0 && scope->conversation != 0;
    bool goes_on = scope->n > 0 && n > scope->n &&
                   memcmp(scope->prompt, ctx->tokens, scope->n * sizeof *scope->prompt) == 0;
    memcpy(scope->prompt, ctx->tokens, n * sizeof *scope->prompt);
    goes_on = known ? scope->conversation == ctx->conversation : goes_on;
    scope->conversation = ctx->conversation;
    scope->n = n;
    return !goes_on;
}

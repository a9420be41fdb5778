#include "drafters/seen.h"

#include <string.h>

#include "harness/core/alloc.h"

enum sb_status sb_seen_init(struct sb_seen *seen, size_t max_context, struct sb_error *err)
{
    *seen = (struct sb_seen){ .cap = max_context };
    seen->text = sb_alloc_array(max_context, sizeof *seen->text);
    return seen->text ? SB_OK
                      : sb_fail(err, SB_ENOMEM, "no memory for a text of %zu tokens", max_context);
}

void sb_seen_finish(struct sb_seen *seen)
{
    sb_free(seen->text);
    *seen = (struct sb_seen){ 0 };
}

void sb_seen_begin(struct sb_seen *seen, const struct sb_context *ctx, bool forget)
{
    size_t common = 0;
    while (!forget && common < seen->n && common < ctx->n &&
           seen->text[common] == ctx->tokens[common])
        common++;
    seen->n = common;
}

void sb_seen_all(struct sb_seen *seen, const struct sb_context *ctx)
{
    size_t n = ctx->n < seen->cap ? ctx->n : seen->cap;
    if (n <= seen->n)
        return;
    memcpy(seen->text + seen->n, ctx->tokens + seen->n, (n - seen->n) * sizeof *seen->text);
    seen->n = n;
}

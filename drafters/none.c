/* No draft at all: every step is a plain one. The baseline that others are measured against. */
#include "harness/decode/drafter.h"

static enum sb_status none_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                   struct sb_error *err)
{
    return SB_OK;
}

const struct sb_drafter_ops sb_drafter_none = {
    .name = "none",
    .summary = "plain decoding, one token per step",
    .paper = "",
    .propose = none_propose,
};

/* Hidden states of the target that a drafter asked for, kept for every committed position (methods B 1). */
#ifndef SB_DECODE_TAPS_H
#define SB_DECODE_TAPS_H

#include "harness/core/error.h"
#include "harness/model/model.h"

/* What a drafter wants, filled while it opens. */
struct sb_tap_plan {
    struct sb_tap want[SB_MAX_TAPS]; /* kind and layer; dst is the session's */
    size_t n;
    size_t n_layers, d_model; /* of the target */
};

/* Ask for a kind (and a layer, for IN and OUT); asking twice is asking once. *index is where it stands in
 * sb_context.taps. SB_EUSAGE when the target has no such layer, for more than SB_MAX_TAPS, and without a
 * plan: there is no target then (a replay). */
enum sb_status sb_tap_want(struct sb_tap_plan *plan, enum sb_tap_kind kind, size_t layer,
                           size_t *index, struct sb_error *err);

/* The session's side: room for what the plan says. */
struct sb_taps {
    struct sb_tap_plan plan;
    float *row[SB_MAX_TAPS];   /* [max_context, d_model] by position, owned */
    float *batch[SB_MAX_TAPS]; /* [max_rows, d_model] of the last forward, owned */
};
enum sb_status sb_taps_allocate(struct sb_taps *taps, size_t max_context, size_t max_rows,
                                struct sb_error *err);
void sb_taps_finish(struct sb_taps *taps);
/* For a prefill from position 0: tap[plan.n] writes where the rows stay. */
void sb_taps_prefill(const struct sb_taps *taps, struct sb_tap tap[SB_MAX_TAPS]);
/* For a forward whose rows are a draft: tap[plan.n] writes to the batch. */
void sb_taps_forward(const struct sb_taps *taps, struct sb_tap tap[SB_MAX_TAPS]);
/* Keep batch rows path[n] as positions from, from + 1, ... */
void sb_taps_commit(struct sb_taps *taps, size_t from, const int32_t *path, size_t n);

#endif

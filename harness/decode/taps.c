#include "harness/decode/taps.h"

#include <string.h>

#include "harness/core/alloc.h"

enum sb_status sb_tap_want(struct sb_tap_plan *plan, enum sb_tap_kind kind, size_t layer,
                           size_t *index, struct sb_error *err)
{
    if (!plan)
        return sb_fail(err, SB_EUSAGE,
                       "hidden states come with a target, which a recording does not have");
    bool layered = kind == SB_TAP_IN || kind == SB_TAP_OUT;
    if (layered && layer >= plan->n_layers)
        return sb_fail(err, SB_EUSAGE, "hidden states of layer %zu: the target has layers 0 to %zu",
                       layer, plan->n_layers - 1);
    size_t at = 0;
    while (at < plan->n &&
           !(plan->want[at].kind == kind && (!layered || plan->want[at].layer == layer)))
        at++;
    if (at == SB_MAX_TAPS)
        return sb_fail(err, SB_EUSAGE, "more than %d hidden states of the target", SB_MAX_TAPS);
    if (at == plan->n)
        plan->want[plan->n++] = (struct sb_tap){ .kind = kind, .layer = layered ? layer : 0 };
    *index = at;
    return SB_OK;
}

enum sb_status sb_taps_allocate(struct sb_taps *taps, size_t max_context, size_t max_rows,
                                struct sb_error *err)
{
    size_t d_model = taps->plan.d_model;
    for (size_t i = 0; i < taps->plan.n; i++) {
        taps->row[i] = sb_alloc_array(max_context * d_model, sizeof(float));
        taps->batch[i] = sb_alloc_array(max_rows * d_model, sizeof(float));
        if (!taps->row[i] || !taps->batch[i])
            return sb_fail(err, SB_ENOMEM, "out of memory for the hidden states of %zu positions",
                           max_context);
    }
    return SB_OK;
}

void sb_taps_finish(struct sb_taps *taps)
{
    for (size_t i = 0; i < SB_MAX_TAPS; i++) {
        sb_free(taps->row[i]);
        sb_free(taps->batch[i]);
    }
    *taps = (struct sb_taps){ 0 };
}

static void point(const struct sb_taps *taps, struct sb_tap *tap, float *const *dst)
{
    for (size_t i = 0; i < taps->plan.n; i++) {
        tap[i] = taps->plan.want[i];
        tap[i].dst = dst[i];
    }
}

void sb_taps_prefill(const struct sb_taps *taps, struct sb_tap tap[SB_MAX_TAPS])
{
    point(taps, tap, taps->row);
}

void sb_taps_forward(const struct sb_taps *taps, struct sb_tap tap[SB_MAX_TAPS])
{
    point(taps, tap, taps->batch);
}

void sb_taps_commit(struct sb_taps *taps, size_t from, const int32_t *path, size_t n)
{
    size_t d = taps->plan.d_model;
    for (size_t t = 0; t < taps->plan.n; t++)
        for (size_t i = 0; i < n; i++)
            memcpy(taps->row[t] + (from + i) * d, taps->batch[t] + (size_t)path[i] * d,
                   d * sizeof(float));
}

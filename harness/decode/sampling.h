/* The sampling transform S (methods A 2.3): temperature, then top-k, then top-p, then softmax; and
 * the draws that decoding makes, behind an interface that a certifier can enumerate. */
#ifndef SB_DECODE_SAMPLING_H
#define SB_DECODE_SAMPLING_H

#include <stdbool.h>
#include <stddef.h>

#include "harness/core/rng.h"
#include "harness/model/config.h"

struct sb_sampling {
    double temperature; /* 0: greedy, a one-hot row at the arg max (smallest id on ties) */
    size_t top_k;       /* 0: off */
    double top_p;       /* 0 or 1: off */
};

/* prob[n] = S(logits[n]). Rows sum to 1 within 1e-12. scratch: sb_sampling_scratch_bytes(n), aligned to
 * 4, or NULL without top-k and top-p. Ties at the border of top-k and top-p go to the smaller id.
 * Logits that hold NaN or +inf, or nothing above -inf, give a row of NaN, which verifiers refuse; what
 * is less likely than exp(-700) of the likeliest becomes 0. The bits are the same on every machine. */
void sb_sampling_apply(double *prob, const struct sb_sampling *s, const float *logits, size_t n,
                       void *scratch);
size_t sb_sampling_scratch_bytes(size_t n);

/* Where random choices come from. The RNG makes them in a run; the certifier enumerates them. */
struct sb_dice {
    bool (*flip)(void *self, double probability);               /* true with that probability */
    size_t (*pick)(void *self, const double *weight, size_t n); /* index by weight (sum > 0) */
    void *self;
    /* Choices from here on belong to the token `offset` positions after the dice's own; NULL: the
     * source does not care. A token's draw thus depends on where it stands, not on the step that
     * made it: text sampled by naive-sample is the same for every drafter at one seed.
     * Each choice takes the next number of its position, and a seek starts over at the first: two
     * choices of one step that must be independent have no seek to the same position between them. */
    void (*seek)(void *self, uint64_t offset);
    /* Uniform in [0,1), for rules of continuous noise; NULL in a source that enumerates. */
    double (*uniform)(void *self);
    /* The winner of an exponential race: arg min over t of E(t) / weight[t], weight > 0 somewhere,
     * where E(t) ~ Exp(1) belongs to the token t and the position, the same for drafter and verifier
     * of one request (methods A 3.14). With the winners' weights set to 0, further calls give the
     * order of a draw without replacement. sb_rng_dice: sb_race, at the position that was sought. NULL:
     * this source shares no noise. */
    size_t (*race)(void *self, const double *weight, size_t n);
};
static inline void sb_dice_seek(const struct sb_dice *dice, uint64_t offset)
{
    if (dice->seek)
        dice->seek(dice->self, offset);
}

struct sb_rng_dice {
    struct sb_rng flips, picks, noise;
    uint64_t position;
};
/* Dice over two streams, both at `position`. One stream may serve both: flips then use the upper
 * half of its draws. */
struct sb_dice sb_rng_dice_at(struct sb_rng_dice *self, uint64_t position);
struct sb_rng_dice sb_rng_dice_make(uint64_t key, enum sb_stream flips, enum sb_stream picks);
/* Flips and picks come from another key from now on; the noise, which is shared, stays. For draws that
 * must not come up again at a position they had before (sb_verifier_ops.bottom_up). */
void sb_rng_dice_rekey(struct sb_rng_dice *self, uint64_t key);

/* Index drawn by u in [0,1) from weight[n], in the order of sb_prob_pick; never one of weight 0. */
size_t sb_pick_by(double u, const double *weight, size_t n);

#endif

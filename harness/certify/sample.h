/* The second proof: whole sessions on a real model, against the target's own rows (methods C 6.3).
 *
 * A pair of drafter and verifier makes many short generations. Two tests look at them:
 *
 * - first: the joint law of the first SB_LAW_TOKENS tokens, a G test against the exact law.
 * - drift: every token, given all before it. With p the target's row there and q the drafter's, both
 *   functions of the text before, let A be the tokens with q > p, what an unlawful coupling moves
 *   probability to or from. Then 1[x in A] - p(A), and p(x) - sum p^2, have mean 0 if x follows p,
 *   whatever was drafted, accepted, kept in caches: their sums are martingales, and the quadratic form
 *   of both over their conditional covariance follows a chi-square law of 2 degrees. The first sum per
 *   drafted token estimates the total variation per token, as far as it runs along the drafts.
 *
 * The rows are computed again by plain forwards over the finished text. */
#ifndef SB_CERTIFY_SAMPLE_H
#define SB_CERTIFY_SAMPLE_H

#include "harness/certify/law.h"
#include "harness/decode/session.h"
#include "results/stats.h"

/* A prompt under a sampling transform, and what its first tokens should do. */
struct sb_sample_block {
    const sb_token *prompt;
    size_t n_prompt;
    struct sb_sampling sampling;
    struct sb_law law;
};

struct sb_sample_request {
    struct sb_session_options
        session; /* target, plug-ins, loader; sampling comes from the blocks */
    const sb_token *eos;
    size_t n_eos;
    const struct sb_sample_block *block;
    size_t n_blocks;
    int64_t draws;  /* generations for each block */
    int32_t length; /* tokens of a generation, at most SB_SAMPLE_LENGTH */
    uint64_t seed;
    const volatile int *stop; /* nonzero: SB_EINTERRUPTED */
    void (*tick)(void *self); /* after each block; may be NULL */
    void *self;
};
enum { SB_SAMPLE_LENGTH = 32 };

struct sb_sampled {
    int64_t generations, tokens, steps, drafted, accepted;
    struct sb_fit fit;    /* of the first tokens */
    double first_p;       /* of the G test */
    int64_t drift_tokens; /* tokens at which there was a draft */
    double drift;         /* excess of tokens with q > p among them; NaN for none */
    double drift_upper;   /* 95 % upper bound of its absolute value */
    double drift_p;
};

/* Deterministic: neither threads nor instruction sets change a figure. Fails as sb_session_create and
 * sb_session_generate do. */
enum sb_status sb_sample_run(struct sb_sampled *out, const struct sb_sample_request *request,
                             struct sb_error *err);

#endif

/* The first proof: a verifier against every random choice there is, on hundreds of small tables. */
#ifndef SB_CERTIFY_EXACT_H
#define SB_CERTIFY_EXACT_H

#include "harness/certify/drawing.h"
#include "harness/decode/verifier.h"

#define SB_EXACT_TOLERANCE 1e-12

struct sb_exact_options {
    int64_t tables; /* random tables, shared out over shapes and flavours */
    uint64_t seed;
};

struct sb_exact {
    int64_t tables, runs;            /* runs: outcomes of all choices that were enumerated */
    double max_error;                /* of any sequence's probability on any table */
    double variation, variation_max; /* total variation over tables: mean, largest */
    double toy_accepted; /* expected accepted draft tokens on the toy of methods A 3, one level */
    int golden, golden_missed; /* published figures compared, and not met (A 3.21, A 9) */
    bool failed;      /* the verifier refused lawful input, or its runs do not add up to 1 */
    bool unsupported; /* its choices cannot be enumerated; the figures are of what could be */
    char note[512];   /* what failed, or why not; "" otherwise */
};

/* Enumerate `verifier` with `params` (its struct) on trees of this kind: chains of up to three levels, and
 * trees where the verifier takes them. `coupled`: chains drawn by races of shared noise (WOR). Runs on all threads; the result does not depend on their number. Only running out of
 * memory is an error. */
enum sb_status sb_exact_run(struct sb_exact *out, const struct sb_verifier_ops *verifier,
                            const void *params, enum sb_draw_kind kind, bool coupled,
                            const struct sb_exact_options *options, struct sb_error *err);
/* The same for one drawing rule alone, as it claims to be: for planted rules. */
enum sb_status sb_exact_run_drawing(struct sb_exact *out, const struct sb_verifier_ops *verifier,
                                    const void *params, const struct sb_drawing *drawing,
                                    const struct sb_exact_options *options, struct sb_error *err);

#endif

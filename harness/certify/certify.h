/* A certificate: is every verifier what it declares, and would we have noticed if it were not?
 *
 * Three parts. exact: every verifier on every kind of draw it takes, by enumeration on small tables.
 * sample: whole sessions, on toy models for every verifier and kind, on a real model for the drafters.
 * greedy: equality with plain decoding. Rules planted to be wrong go through the first two and must be
 * caught, else the certificate is refused.
 *
 * Everything that decides a verdict is chosen before anything is sampled: prompts, settings, numbers of
 * generations, cells. One level holds for all tests of a certificate together (Holm). A check that fails
 * is run exactly once more, with a new seed and four times the generations: only if that fails too, at
 * the level, is the guarantee refuted; if it does not, the check is inconclusive. */
#ifndef SB_CERTIFY_CERTIFY_H
#define SB_CERTIFY_CERTIFY_H

#include "harness/core/error.h"
#include "harness/decode/verifier.h"
#include "harness/experiment/models.h"
#include "results/store.h"

#define SB_CERTIFY_LEVEL .001

struct sb_certify_options {
    bool all; /* every pair under every setting; else a part of them in a minute */
    const char *const
        *drafter; /* [n_drafters] "name:k=v"; none: the registry's, as far as they run */
    const char *const *verifier; /* [n_verifiers]; none: the registry's */
    size_t n_drafters, n_verifiers;
    const struct sb_verifier_ops *subject; /* a verifier that stands in no registry: it alone is
                                              certified, with its default parameters; or NULL */
    const char *model;                     /* NULL: tiny */
    int64_t tables, draws; /* tables per verifier and kind, generations per prompt; 0: by size */
    uint64_t seed;
    bool quiet;
    const volatile int *stop;
    struct sb_store *store; /* where the checks go as they are finished; NULL: nowhere */
};

/* One row of the result; `row` borrows its texts from the buffers, and from the program. */
struct sb_check {
    struct sb_check_row row;
    char verifier_params[128], drafter[192], policy[96], kind[32], target[128], setting[192],
        note[512];
};

struct sb_certificate {
    struct sb_check *check; /* [n] */
    size_t n, cap;
    char skipped[4096]; /* drafters of the registry that cannot run here, and why; "" for none */
    int64_t refuted;    /* checks that failed */
    int64_t missed;     /* planted rules that went through */
    int64_t inconclusive;
    int64_t tests;       /* p-values that the level is shared by */
    const char *verdict; /* "holds", "refuted", "refused"; NULL when it was interrupted */
};
void sb_certificate_finish(struct sb_certificate *certificate);

/* SB_OK also for guarantees that are refuted: the verdict says it. SB_EINTERRUPTED leaves the finished
 * checks in *out and in the store, without verdicts. *out is the caller's in every case. */
enum sb_status sb_certify_run(struct sb_certificate *out, const struct sb_certify_options *options,
                              struct sb_models *models, struct sb_error *err);

#endif

/* Shared by the files of this folder: what a certificate is going to check. */
#ifndef SB_CERTIFY_INTERNAL_H
#define SB_CERTIFY_INTERNAL_H

#include "harness/certify/arena.h"
#include "harness/certify/certify.h"
#include "harness/certify/greedy.h"
#include "harness/certify/planted.h"

/* A plug-in with its parameters filled in. */
struct sb_chosen_drafter {
    const struct sb_drafter_ops *ops;
    struct sb_spec spec;
    void *params;
    bool by_name; /* the user asked for it */
};
struct sb_chosen_verifier {
    const struct sb_verifier_ops *ops;
    struct sb_spec spec;
    void *params;
    enum sb_guarantee guarantee;
    bool by_name;
};

enum sb_job_kind { SB_JOB_EXACT, SB_JOB_SAMPLE, SB_JOB_GREEDY };

struct sb_job {
    enum sb_job_kind kind;
    const struct sb_planted *planted;          /* its rule and drawing; NULL: a registered rule */
    const struct sb_chosen_verifier *verifier; /* NULL: planted, or the pair's default */
    const struct sb_chosen_drafter *drafter;   /* NULL: the probe, with `drawing` */
    const struct sb_policy_ops *policy;        /* greedy; NULL: the drafter's */
    struct sb_drawing drawing;                 /* exact: its kind; sample by the probe */
    bool toy;                                  /* sample: on the toy arena */
    size_t blocks;                             /* sample: index of its block set */
};

/* Prompts under settings, with their laws. */
struct sb_block_set {
    struct sb_sample_block *block;
    size_t n;
    int64_t draws; /* of each block */
    char text[192];
};

struct sb_certify_plan {
    struct sb_arena toy, real;
    struct sb_greedy_set greedy;
    struct sb_chosen_drafter *drafter;
    struct sb_chosen_verifier *verifier;
    size_t n_drafters, n_verifiers, cap_drafters, cap_verifiers;
    struct sb_block_set *set;
    size_t n_sets, cap_sets;
    struct sb_job *job;
    size_t n_jobs, cap_jobs;
    int64_t tables;
    int32_t toy_length, real_length; /* tokens of a sampled generation */
    char skipped[4096];
};

/* Decide on everything: plug-ins, pairs, prompts, sizes. Unknown names, unlawful pairs that were asked
 * for by both names, and drafters asked for that cannot open are errors. The caller owns *out. */
enum sb_status sb_certify_plan_make(struct sb_certify_plan *out,
                                    const struct sb_certify_options *options,
                                    struct sb_models *models, struct sb_error *err);
void sb_certify_plan_finish(struct sb_certify_plan *plan);

#endif

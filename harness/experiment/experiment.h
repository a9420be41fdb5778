/* Running an experiment: warm-up, interleaved arms, one stored generation after another, resume. */
#ifndef SB_EXPERIMENT_EXPERIMENT_H
#define SB_EXPERIMENT_EXPERIMENT_H

#include <stdbool.h>

#include "harness/core/error.h"
#include "harness/experiment/models.h"
#include "harness/experiment/plan.h"
#include "results/store.h"

struct sb_run_options {
    const char *script;       /* path of the Lua script, recorded; or NULL */
    bool resume;              /* go on with the newest unfinished run of the same experiment */
    bool dry_run;             /* check everything, run nothing, write nothing */
    bool quiet;               /* no progress */
    const volatile int *stop; /* nonzero: finish the step at hand, keep finished prompts, stop */
};

struct sb_run_result {
    int64_t experiment_id;
    int64_t planned, done, resumed, errors; /* generations; resumed: found in the database */
};

/* Run a completed plan into `store` (NULL on a dry run). Every finished generation is committed before
 * the next begins. SB_EINTERRUPTED when stopped: what is finished is kept and result is filled. */
enum sb_status sb_experiment_run(const struct sb_plan *plan, struct sb_models *models,
                                 struct sb_store *store, const struct sb_run_options *options,
                                 struct sb_run_result *result, struct sb_error *err);

#endif

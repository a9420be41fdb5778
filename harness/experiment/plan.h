/* What an experiment is: one target, one prompt set, some arms. The command line and Lua scripts both
 * fill a plan through the same table of settings. */
#ifndef SB_EXPERIMENT_PLAN_H
#define SB_EXPERIMENT_PLAN_H

#include "harness/core/error.h"
#include "harness/core/param.h"
#include "harness/decode/sampling.h"
#include "harness/model/arithmetic.h"

struct sb_settings {
    const char *name, *target, *dataset, *tasks, *chat_template, *answers;
    struct sb_arithmetic_texts arithmetic;
    int64_t take, seed, repeats, max_new_tokens, max_context, top_k;
    double temperature, top_p;
    bool ignore_eos, baseline, diagnose, aa, cost_curve;
};

/* name, target, dataset, tasks, take, seed, ...: Lua field, and CLI flag with '-' for '_'. */
extern const struct sb_param sb_settings_table[];

struct sb_arm_plan {
    char *label;
    struct sb_spec drafter, verifier, policy; /* verifier, policy: no name means the default */
};

struct sb_plan {
    struct sb_spec assignments; /* owns the strings that settings borrow */
    struct sb_settings settings;
    struct sb_arm_plan *arm;
    size_t n_arms, cap;
};

enum sb_status sb_plan_init(struct sb_plan *plan, struct sb_error *err);
void sb_plan_finish(struct sb_plan *plan);
enum sb_status sb_plan_set(struct sb_plan *plan, const char *key, const char *value,
                           struct sb_error *err);

/* Add an arm; takes over the three specs (finished on failure too). label NULL: made from the drafter's
 * text. An arm with the label of an earlier one is SB_EUSAGE. */
enum sb_status sb_plan_add(struct sb_plan *plan, struct sb_spec drafter, struct sb_spec verifier,
                           struct sb_spec policy, const char *label, struct sb_error *err);

/* Check and complete: settings from their texts, the plain-decoding baseline put first when it is
 * missing and wanted (*added tells), the A/A arm last when it is wanted. Call once, before running. */
enum sb_status sb_plan_complete(struct sb_plan *plan, bool *added, struct sb_error *err);

struct sb_sampling sb_plan_sampling(const struct sb_plan *plan);

#endif

#include "harness/experiment/plan.h"

#include <stddef.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

#define AT(member) .offset = offsetof(struct sb_settings, member)
const struct sb_param sb_settings_table[] = {
    { .name = "name",
      .type = SB_PARAM_STRING,
      AT(name),
      .fallback = "run",
      .meaning = "name of the experiment in the database" },
    { .name = "target",
      .type = SB_PARAM_STRING,
      AT(target),
      .required = true,
      .meaning = "target model: a bundled name, a GGUF file or an HF directory" },
    { .name = "dataset",
      .type = SB_PARAM_STRING,
      AT(dataset),
      .fallback = "mini",
      .meaning = "prompt set: mini, spec-bench:FILE or jsonl:FILE" },
    { .name = "tasks",
      .type = SB_PARAM_STRING,
      AT(tasks),
      .meaning = "only these tasks, separated by commas" },
    { .name = "take",
      .type = SB_PARAM_INT,
      AT(take),
      .fallback = "0",
      .min = 0,
      .max = 1e9,
      .meaning = "first N questions of each task; 0: all" },
    { .name = "seed",
      .type = SB_PARAM_INT,
      AT(seed),
      .fallback = "0",
      .min = 0,
      .max = 9e15,
      .meaning = "seed of every random choice" },
    { .name = "repeats",
      .type = SB_PARAM_INT,
      AT(repeats),
      .fallback = "1",
      .min = 1,
      .max = 1000,
      .meaning = "times every prompt is run with every arm" },
    { .name = "max_new_tokens",
      .type = SB_PARAM_INT,
      AT(max_new_tokens),
      .fallback = "128",
      .min = 1,
      .max = 1048576,
      .meaning = "longest answer, in tokens" },
    { .name = "max_context",
      .type = SB_PARAM_INT,
      AT(max_context),
      .fallback = "0",
      .min = 0,
      .max = 1048576,
      .meaning = "positions of the KV cache; 0: the model's own, at most 4096" },
    { .name = "temperature",
      .type = SB_PARAM_NUMBER,
      AT(temperature),
      .fallback = "0",
      .min = 0,
      .max = 100,
      .meaning = "sampling temperature; 0: greedy" },
    { .name = "top_k",
      .type = SB_PARAM_INT,
      AT(top_k),
      .fallback = "0",
      .min = 0,
      .max = 1048576,
      .meaning = "sample among the K most likely tokens; 0: all" },
    { .name = "top_p",
      .type = SB_PARAM_NUMBER,
      AT(top_p),
      .fallback = "1",
      .min = 0,
      .max = 1,
      .meaning = "sample among the most likely tokens of this total probability; 1: all" },
    { .name = "ignore_eos",
      .type = SB_PARAM_BOOL,
      AT(ignore_eos),
      .fallback = "false",
      .meaning = "go on after an end token" },
    { .name = "template",
      .type = SB_PARAM_STRING,
      AT(chat_template),
      .meaning = "chat template by name; default: recognised from the model" },
    { .name = "answers",
      .type = SB_PARAM_CHOICE,
      AT(answers),
      .fallback = "baseline",
      .choices = "baseline|own",
      .meaning = "whose earlier answers a later turn follows: the baseline's or the arm's own" },
    { .name = "kv_type",
      .type = SB_PARAM_CHOICE,
      AT(arithmetic.kv_type),
      .fallback = "f32",
      .choices = "f32|f16|bf16",
      .meaning = "what keys and values are kept as" },
    { .name = "math",
      .type = SB_PARAM_CHOICE,
      AT(arithmetic.math),
      .fallback = "exact",
      .choices = "exact|fast",
      .meaning = "fast: BF16 products by avx512_bf16, with other bits" },
    { .name = "prefill",
      .type = SB_PARAM_CHOICE,
      AT(arithmetic.prefill),
      .fallback = "exact",
      .choices = "exact|openblas",
      .meaning = "openblas: prompts through its sgemm, to compare with" },
    { .name = "weights",
      .type = SB_PARAM_CHOICE,
      AT(arithmetic.weights),
      .fallback = "stored",
      .choices = "stored|f32",
      .meaning =
          "f32: F16 and BF16 weights of all models widened in memory; the same bits at the cost "
          "of float32" },
    { .name = "baseline",
      .type = SB_PARAM_BOOL,
      AT(baseline),
      .fallback = "true",
      .meaning = "add plain decoding as the first arm when it is missing" },
    { .name = "aa",
      .type = SB_PARAM_BOOL,
      AT(aa),
      .fallback = "false",
      .meaning = "run the baseline as one more arm: how far it is from itself is the noise floor" },
    { .name = "cost_curve",
      .type = SB_PARAM_BOOL,
      AT(cost_curve),
      .fallback = "true",
      .meaning = "measure the target's cost curve c(M) first, unless the database has it" },
    { .name = "diagnose",
      .type = SB_PARAM_BOOL,
      AT(diagnose),
      .fallback = "false",
      .meaning =
          "record what any verifier could have accepted of each draft; needs a temperature" },
    { 0 },
};
#undef AT

enum sb_status sb_plan_init(struct sb_plan *plan, struct sb_error *err)
{
    *plan = (struct sb_plan){ 0 };
    return sb_spec_init(&plan->assignments, "experiment", err);
}

static void finish_arm(struct sb_arm_plan *arm)
{
    sb_free(arm->label);
    sb_spec_finish(&arm->drafter);
    sb_spec_finish(&arm->verifier);
    sb_spec_finish(&arm->policy);
}

void sb_plan_finish(struct sb_plan *plan)
{
    if (!plan)
        return;
    for (size_t i = 0; i < plan->n_arms; i++)
        finish_arm(&plan->arm[i]);
    sb_free(plan->arm);
    sb_spec_finish(&plan->assignments);
    *plan = (struct sb_plan){ 0 };
}

enum sb_status sb_plan_set(struct sb_plan *plan, const char *key, const char *value,
                           struct sb_error *err)
{
    return sb_spec_set(&plan->assignments, key, value, err);
}

/* "pld", "pld:k=10": what tells the arm from the others; a verifier or policy joins with '+'. */
static char *default_label(const struct sb_arm_plan *arm)
{
    char *label = sb_spec_text(&arm->drafter);
    const struct sb_spec *more[] = { &arm->verifier, &arm->policy };
    for (size_t i = 0; i < 2 && label; i++) {
        if (!more[i]->name)
            continue;
        char *text = sb_spec_text(more[i]);
        char *longer = text ? sb_strf("%s+%s", label, text) : NULL;
        sb_free(text);
        sb_free(label);
        label = longer;
    }
    return label;
}

enum sb_status sb_plan_add(struct sb_plan *plan, struct sb_spec drafter, struct sb_spec verifier,
                           struct sb_spec policy, const char *label, struct sb_error *err)
{
    struct sb_arm_plan arm = { .drafter = drafter, .verifier = verifier, .policy = policy };
    arm.label = label ? sb_strdup(label) : default_label(&arm);
    enum sb_status rc = SB_OK;
    if (!arm.label)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for an arm");
    for (size_t i = 0; i < plan->n_arms && rc == SB_OK; i++)
        if (strcmp(plan->arm[i].label, arm.label) == 0)
            rc = sb_fail(err, SB_EUSAGE, "two arms are called '%s'; give one a label of its own",
                         arm.label);
    if (rc == SB_OK && sb_grow((void **)&plan->arm, &plan->cap, plan->n_arms + 1, sizeof arm) != 0)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for arm '%s'", arm.label);
    if (rc == SB_OK)
        plan->arm[plan->n_arms++] = arm;
    else
        finish_arm(&arm);
    return rc;
}

static bool is_baseline(const struct sb_arm_plan *arm)
{
    return strcmp(arm->drafter.name, "none") == 0;
}

/* Plain decoding as the first arm. */
static enum sb_status add_baseline(struct sb_plan *plan, struct sb_error *err)
{
    struct sb_spec none;
    enum sb_status rc = sb_spec_init(&none, "none", err);
    if (rc == SB_OK)
        rc = sb_plan_add(plan, none, (struct sb_spec){ 0 }, (struct sb_spec){ 0 }, NULL, err);
    if (rc != SB_OK)
        return rc;
    struct sb_arm_plan last = plan->arm[plan->n_arms - 1];
    memmove(plan->arm + 1, plan->arm, (plan->n_arms - 1) * sizeof last);
    plan->arm[0] = last;
    return SB_OK;
}

static enum sb_status copy_spec(struct sb_spec *out, const struct sb_spec *spec,
                                struct sb_error *err)
{
    *out = (struct sb_spec){ 0 };
    if (!spec->name)
        return SB_OK;
    char *text = sb_spec_text(spec);
    enum sb_status rc =
        text ? sb_spec_parse(out, text, err) : sb_fail(err, SB_ENOMEM, "out of memory");
    sb_free(text);
    return rc;
}

/* The baseline once more, as the last arm. */
static enum sb_status add_again(struct sb_plan *plan, struct sb_error *err)
{
    size_t i = 0;
    struct sb_spec drafter = { 0 }, verifier = { 0 }, policy = { 0 };
    while (i < plan->n_arms && !is_baseline(&plan->arm[i]))
        i++;
    if (i == plan->n_arms)
        return sb_fail(err, SB_EUSAGE, "aa runs the baseline twice, but no arm is a baseline");
    enum sb_status rc = copy_spec(&drafter, &plan->arm[i].drafter, err);
    if (rc == SB_OK)
        rc = copy_spec(&verifier, &plan->arm[i].verifier, err);
    if (rc == SB_OK)
        rc = copy_spec(&policy, &plan->arm[i].policy, err);
    if (rc == SB_OK)
        return sb_plan_add(plan, drafter, verifier, policy, "none (A/A)", err);
    sb_spec_finish(&drafter);
    sb_spec_finish(&verifier);
    sb_spec_finish(&policy);
    return rc;
}

enum sb_status sb_plan_complete(struct sb_plan *plan, bool *added, struct sb_error *err)
{
    *added = false;
    enum sb_status rc =
        sb_params_apply(&plan->settings, sb_settings_table, &plan->assignments, "experiment", err);
    if (rc == SB_OK && plan->settings.diagnose && plan->settings.temperature <= 0)
        return sb_fail(err, SB_EUSAGE,
                       "diagnose=true: expected a temperature above 0; greedy rules "
                       "accept what there is to accept");
    bool has_baseline = false;
    for (size_t i = 0; i < plan->n_arms; i++)
        has_baseline = has_baseline || is_baseline(&plan->arm[i]);
    if (rc == SB_OK && !has_baseline && plan->settings.baseline) {
        rc = add_baseline(plan, err);
        *added = rc == SB_OK;
    }
    if (rc == SB_OK && plan->n_arms == 0)
        return sb_fail(err, SB_EUSAGE, "the experiment has no arms; add --drafter NAME");
    if (rc == SB_OK && plan->settings.aa)
        rc = add_again(plan, err);
    return rc;
}

struct sb_sampling sb_plan_sampling(const struct sb_plan *plan)
{
    return (struct sb_sampling){ .temperature = plan->settings.temperature,
                                 .top_k = (size_t)plan->settings.top_k,
                                 .top_p = plan->settings.top_p };
}

#include "drafters/parts.h"

#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"

static void finish(struct sb_part *part)
{
    sb_spec_finish(&part->spec);
    sb_free(part->params);
    sb_free(part->state);
    *part = (struct sb_part){ 0 };
}

/* Find the drafter and fill its parameters, without opening it. */
static enum sb_status name_part(struct sb_part *part, const char *text, struct sb_error *err)
{
    char owner[80];
    enum sb_status rc = sb_spec_parse(&part->spec, text, err);
    if (rc != SB_OK)
        return rc;
    part->ops = sb_drafter_find(part->spec.name);
    if (!part->ops)
        return sb_fail(err, SB_EUSAGE, "no drafter is named '%s'; see specbench list drafters",
                       part->spec.name);
    part->params = sb_alloc_zero(1, part->ops->params_size + 1);
    if (!part->params)
        return sb_fail(err, SB_ENOMEM, "no memory for the parameters of %s", part->spec.name);
    snprintf(owner, sizeof owner, "drafter %s", part->spec.name);
    return sb_params_apply(part->params, part->ops->params, &part->spec, owner, err);
}

static unsigned part_kinds(const struct sb_part *part, const struct sb_sampling *sampling)
{
    const struct sb_drafter_ops *ops = part->ops;
    if (ops->kinds)
        return ops->kinds(part->params, sampling);
    return sampling->temperature > 0 && ops->kinds_sampling ? ops->kinds_sampling
                                                            : ops->kinds_greedy;
}

static int32_t part_nodes(const struct sb_part *part, const struct sb_policy *policy)
{
    return part->ops->max_nodes ? part->ops->max_nodes(part->params, policy) : 0;
}

static bool part_branches(const struct sb_part *part)
{
    return part->ops->makes_trees && (!part->ops->branches || part->ops->branches(part->params));
}

enum sb_status sb_part_open(struct sb_part *part, const char *text,
                            const struct sb_drafter_env *env, struct sb_error *err)
{
    struct sb_drafter_env own = *env;
    enum sb_status rc = name_part(part, text, err);
    if (rc != SB_OK)
        return rc;
    own.params = part->params;
    own.draft_rows = SB_DRAFT_ROWS_NONE;
    part->most = part_nodes(part, env->policy);
    part->draws = part_kinds(part, &env->sampling) & ~SB_KIND_BIT(SB_DRAW_ONEHOT);
    part->rows = sb_drafter_target_rows(part->ops, part->params);
    part->state = sb_alloc_zero(1, part->ops->state_size + 1);
    if (!part->state)
        return sb_fail(err, SB_ENOMEM, "no memory for %s", part->ops->name);
    return part->ops->open ? part->ops->open(part->state, &own, err) : SB_OK;
}

void sb_part_close(struct sb_part *part)
{
    if (part->state && part->ops->close)
        part->ops->close(part->state);
    finish(part);
}

static const char *text_of(const struct sb_parts_params *params, size_t i)
{
    return i == 0 ? params->a : params->b;
}

enum sb_status sb_parts_open(struct sb_parts *parts, const char *drafter,
                             const struct sb_drafter_env *env, struct sb_error *err)
{
    for (size_t i = 0; i < 2; i++) {
        struct sb_part *part = &parts->part[i];
        enum sb_status rc = sb_part_open(part, text_of(env->params, i), env, err);
        if (rc == SB_OK && part->rows == SB_TARGET_ROWS_OWN)
            rc = sb_fail(err, SB_EUSAGE,
                         "%s reads the target's rows at its own nodes, so it works alone only",
                         part->ops->name);
        if (rc == SB_OK && part->ops->mix)
            rc = sb_fail(err, SB_EUSAGE, "%s changes the target's law, so it works alone only",
                         part->ops->name);
        if (rc != SB_OK)
            return sb_fail_context(err, rc, "drafter %s: %c", drafter, "ab"[i]);
    }
    return SB_OK;
}

void sb_parts_close(struct sb_parts *parts)
{
    for (size_t i = 0; i < 2; i++)
        sb_part_close(&parts->part[i]);
}

enum sb_status sb_parts_begin(struct sb_parts *parts, const struct sb_context *ctx,
                              struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < 2 && rc == SB_OK; i++)
        if (parts->part[i].ops->begin)
            rc = parts->part[i].ops->begin(parts->part[i].state, ctx, err);
    return rc;
}

enum sb_status sb_part_propose(struct sb_part *part, const struct sb_context *ctx,
                               struct sb_tree *tree, struct sb_error *err)
{
    return part->ops->propose(part->state, ctx, tree, err);
}

enum sb_status sb_part_observe(struct sb_part *part, const struct sb_context *ctx,
                               const struct sb_outcome *outcome, struct sb_error *err)
{
    return part->ops->observe ? part->ops->observe(part->state, ctx, outcome, err) : SB_OK;
}

void sb_parts_cancel(struct sb_parts *parts)
{
    for (size_t i = 0; i < 2; i++)
        if (parts->part[i].ops->cancel)
            parts->part[i].ops->cancel(parts->part[i].state);
}

/* ---- before anything is open ---- */

unsigned sb_parts_kinds(const struct sb_parts_params *params,
                        const struct sb_parts_params *fallback, const struct sb_sampling *sampling)
{
    unsigned kinds = SB_KIND_BIT(SB_DRAW_ONEHOT);
    for (size_t i = 0; i < 2; i++) {
        struct sb_part part = { 0 };
        if (name_part(&part, text_of(params ? params : fallback, i), NULL) == SB_OK)
            kinds |= part_kinds(&part, sampling);
        finish(&part);
    }
    return kinds;
}

bool sb_parts_branch(const struct sb_parts_params *params, const struct sb_parts_params *fallback)
{
    bool branch = false;
    for (size_t i = 0; i < 2; i++) {
        struct sb_part part = { 0 };
        if (name_part(&part, text_of(params ? params : fallback, i), NULL) == SB_OK)
            branch = branch || part_branches(&part);
        finish(&part);
    }
    return branch;
}

enum sb_target_rows sb_parts_target_rows(const struct sb_parts_params *params,
                                         const struct sb_parts_params *fallback)
{
    enum sb_target_rows rows = SB_TARGET_ROWS_NONE;
    for (size_t i = 0; i < 2; i++) {
        struct sb_part part = { 0 };
        if (name_part(&part, text_of(params ? params : fallback, i), NULL) == SB_OK &&
            sb_drafter_target_rows(part.ops, part.params) != SB_TARGET_ROWS_NONE)
            rows = SB_TARGET_ROWS_ANY;
        finish(&part);
    }
    return rows;
}

bool sb_parts_keep_run(const struct sb_parts_params *params)
{
    bool keeps = false;
    for (size_t i = 0; i < 2; i++) {
        struct sb_part part = { 0 };
        if (name_part(&part, text_of(params, i), NULL) == SB_OK)
            keeps = keeps || sb_drafter_keeps_run(part.ops, part.params);
        finish(&part);
    }
    return keeps;
}

void sb_parts_nodes(const struct sb_parts_params *params, const struct sb_policy *policy,
                    int32_t most[2])
{
    for (size_t i = 0; i < 2; i++) {
        struct sb_part part = { 0 };
        most[i] =
            name_part(&part, text_of(params, i), NULL) == SB_OK ? part_nodes(&part, policy) : 0;
        finish(&part);
    }
}

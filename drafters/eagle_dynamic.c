#include "drafters/eagle_dynamic.h"

#include <stdio.h>

#include "harness/core/alloc.h"

enum sb_status sb_eagle_dynamic_open(struct sb_eagle_dynamic *ed, enum sb_eagle_kind kind,
                                     const char *drafter, const struct sb_drafter_env *env,
                                     struct sb_error *err)
{
    const struct sb_eagle_dynamic_params *p = env->params;
    char owner[40];
    snprintf(owner, sizeof owner, "drafter %s", drafter);
    ed->depth = (int32_t)p->depth + 1;
    ed->levels = sb_policy_longest(env->policy, ed->depth);
    ed->levels = ed->levels < SB_DYNAMIC_DEPTH ? ed->levels : SB_DYNAMIC_DEPTH;
    ed->levels = ed->levels > 1 ? ed->levels : 1;
    ed->topk = (int32_t)p->topk;
    ed->total = (int32_t)p->total;
    size_t k = (size_t)ed->topk;
    enum sb_status rc = sb_dynamic_tree_open(&ed->dt, ed->topk, ed->levels, ed->total - 1, err);
    if (rc == SB_OK)
        rc = sb_cost_curve_parse(&ed->dt.curve, p->curve, owner, err);
    if (rc != SB_OK)
        return rc;
    ed->token = sb_alloc_array(k, sizeof *ed->token);
    ed->log_prob = sb_alloc_array(k, sizeof *ed->log_prob);
    ed->above = sb_alloc_array(k, sizeof *ed->above);
    if (!ed->token || !ed->log_prob || !ed->above)
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory for %zu tokens", drafter, k);
    return sb_eagle_body_open(&ed->eagle, kind, env, drafter, p->head, k * (size_t)(ed->levels - 1),
                              err);
}

void sb_eagle_dynamic_close(void *st)
{
    struct sb_eagle_dynamic *ed = st;
    sb_eagle_body_close(&ed->eagle);
    sb_dynamic_tree_close(&ed->dt);
    sb_free(ed->token);
    sb_free(ed->log_prob);
    sb_free(ed->above);
    *ed = (struct sb_eagle_dynamic){ 0 };
}

enum sb_status sb_eagle_dynamic_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct sb_eagle_dynamic *ed = st;
    return sb_eagle_body_begin(&ed->eagle, ctx, err);
}

/* The best tokens below a candidate (-1: the root) whose row is there, into the pool. */
static enum sb_status add_children(struct sb_eagle_dynamic *ed, int32_t candidate,
                                   struct sb_error *err)
{
    int32_t n, row = candidate < 0 ? SB_PARENT_PREFIX : ed->dt.pool[candidate].row;
    enum sb_status rc =
        sb_eagle_body_best(&ed->eagle, row, ed->topk, ed->token, ed->log_prob, &n, err);
    if (rc == SB_OK)
        sb_dynamic_tree_add(&ed->dt, candidate, ed->token, ed->log_prob, n);
    return rc;
}

/* A row for each node of the frontier, and their children into the pool. */
static enum sb_status expand(struct sb_eagle_dynamic *ed, struct sb_error *err)
{
    struct sb_dynamic_tree *dt = &ed->dt;
    int32_t n = dt->n_frontier, first = 0;
    for (int32_t i = 0; i < n; i++) {
        const struct sb_candidate *c = &dt->pool[dt->frontier[i]];
        ed->token[i] = c->token;
        ed->above[i] = c->parent < 0 ? SB_PARENT_PREFIX : dt->pool[c->parent].row;
    }
    enum sb_status rc =
        sb_eagle_body_grow(&ed->eagle, ed->token, ed->above, (size_t)n, &first, err);
    for (int32_t i = 0; i < n && rc == SB_OK; i++) {
        dt->pool[dt->frontier[i]].row = first + i;
        rc = add_children(ed, dt->frontier[i], err);
    }
    return rc;
}

enum sb_status sb_eagle_dynamic_propose(void *st, const struct sb_context *ctx,
                                        struct sb_tree *tree, struct sb_error *err)
{
    struct sb_eagle_dynamic *ed = st;
    int32_t levels = sb_policy_plan(ctx->policy, ed->depth);
    levels = levels < ed->levels ? levels : ed->levels;
    levels = levels < tree->max_depth ? levels : tree->max_depth;
    bool ready;
    if (levels < 1 || tree->cap < 2)
        return SB_OK;
    enum sb_status rc = sb_eagle_body_start(&ed->eagle, ctx, &ready, err);
    if (rc != SB_OK || !ready)
        return rc;
    sb_dynamic_tree_start(&ed->dt, tree->cap - 1);
    rc = add_children(ed, -1, err);
    for (int32_t i = 1; i < levels && rc == SB_OK; i++) {
        if (sb_dynamic_tree_frontier(&ed->dt, tree, ctx->policy) == 0)
            break;
        rc = expand(ed, err);
    }
    if (rc == SB_OK)
        sb_dynamic_tree_choose(&ed->dt, tree);
    return rc;
}

int32_t sb_eagle_dynamic_max_nodes(const void *params, const struct sb_policy *policy)
{
    (void)policy;
    return (int32_t)((const struct sb_eagle_dynamic_params *)params)->total - 1;
}

bool sb_eagle_dynamic_branches(const void *params)
{
    const struct sb_eagle_dynamic_params *p = params;
    return !p || p->topk > 1;
}

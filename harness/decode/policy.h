/* Draft-length and tree-shape policies (methods A 1.5, C 3). Registry: drafters/policy/registry.c. */
#ifndef SB_DECODE_POLICY_H
#define SB_DECODE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/core/param.h"

enum sb_policy_verdict { SB_POLICY_GO_ON, SB_POLICY_STOP };

/* What a policy knows of a node. Zero where the drafter has no such figure. */
struct sb_policy_node {
    int32_t depth, n_nodes; /* of the node; drafted so far */
    /* Of the row that the node came from, or, before drafting, that its children would come from. */
    double top_prob, entropy;
    double path_prob; /* product of the drafter's probabilities from the root to the node */
};

struct sb_policy_ops {
    const char *name, *summary, *paper;
    const struct sb_param *params;
    size_t params_size, state_size;
    /* Longest draft for the coming step; `wanted` is the drafter's own setting. */
    int32_t (*plan)(void *st, const void *params, int32_t wanted);
    int32_t (*longest)(const void *params, int32_t wanted); /* bound of plan; NULL: wanted */
    /* Both optional. A node whose row the drafter has: STOP drafts no token from it. Asked before any
     * is drawn, so no draw is thrown away for what it was. */
    enum sb_policy_verdict (*before_children)(void *st, const void *params,
                                              const struct sb_policy_node *node);
    /* A node just drafted: STOP drafts nothing below it. */
    enum sb_policy_verdict (*after_node)(void *st, const void *params,
                                         const struct sb_policy_node *node);
    void (*learn)(void *st, const void *params, int32_t drafted, int32_t accepted); /* optional */
};

extern const struct sb_policy_ops *const sb_policies[];
const struct sb_policy_ops *sb_policy_find(const char *name);

/* A policy with its parameters and state, as handed to drafters. */
struct sb_policy {
    const struct sb_policy_ops *ops;
    const void *params;
    void *state;
};
static inline int32_t sb_policy_plan(const struct sb_policy *p, int32_t wanted)
{
    return p->ops->plan ? p->ops->plan(p->state, p->params, wanted) : wanted;
}
/* The longest draft that sb_policy_plan(p, wanted) can ever ask for; sizes buffers at open. */
static inline int32_t sb_policy_longest(const struct sb_policy *p, int32_t wanted)
{
    return p->ops->longest ? p->ops->longest(p->params, wanted) : wanted;
}
static inline bool sb_policy_refuses(const struct sb_policy *p, const struct sb_policy_node *node)
{
    return p->ops->before_children &&
           p->ops->before_children(p->state, p->params, node) == SB_POLICY_STOP;
}
static inline bool sb_policy_stops(const struct sb_policy *p, const struct sb_policy_node *node)
{
    return p->ops->after_node && p->ops->after_node(p->state, p->params, node) == SB_POLICY_STOP;
}

#endif

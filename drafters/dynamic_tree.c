#include "drafters/dynamic_tree.h"

#include <string.h>

#include "harness/core/alloc.h"
#include "kernels/kernels.h"

enum sb_status sb_dynamic_tree_open(struct sb_dynamic_tree *dt, int32_t top_k, int32_t levels,
                                    int32_t most, struct sb_error *err)
{
    dt->top_k = top_k;
    dt->cap_best = most;
    dt->cap = top_k + (levels - 1) * top_k * top_k;
    dt->pool = sb_alloc_array((size_t)dt->cap, sizeof *dt->pool);
    dt->frontier = sb_alloc_array((size_t)top_k, sizeof *dt->frontier);
    dt->best = sb_alloc_array((size_t)most, sizeof *dt->best);
    if (!dt->pool || !dt->frontier || !dt->best)
        return sb_fail(err, SB_ENOMEM, "no memory for a dynamic tree of %d candidates", dt->cap);
    return SB_OK;
}

void sb_dynamic_tree_close(struct sb_dynamic_tree *dt)
{
    sb_free(dt->pool);
    sb_free(dt->frontier);
    sb_free(dt->best);
    *dt = (struct sb_dynamic_tree){ 0 };
}

void sb_dynamic_tree_start(struct sb_dynamic_tree *dt, int32_t most)
{
    dt->n = dt->level = dt->n_frontier = dt->n_best = 0;
    dt->most_best = most < dt->cap_best ? most : dt->cap_best;
    dt->sum = 0;
}

/* Keep candidate i among the at most `cap` best, which are in order; ties to those before it. Returns which
 * one fell out: i itself, another, or -1. */
static int32_t keep_best(const struct sb_dynamic_tree *dt, int32_t *best, int32_t *n, int32_t cap,
                         int32_t i)
{
    float score = dt->pool[i].score;
    int32_t at = *n, out = -1;
    if (*n == cap) {
        if (cap == 0 || !(score > dt->pool[best[cap - 1]].score))
            return i;
        out = best[at = cap - 1];
    } else {
        ++*n;
    }
    for (; at > 0 && score > dt->pool[best[at - 1]].score; at--)
        best[at] = best[at - 1];
    best[at] = i;
    return out;
}

void sb_dynamic_tree_add(struct sb_dynamic_tree *dt, int32_t parent, const sb_token *token,
                         const float *log_prob, int32_t n)
{
    const struct sb_candidate *above = parent < 0 ? NULL : &dt->pool[parent];
    for (int32_t i = 0; i < n && dt->n < dt->cap; i++) {
        dt->pool[dt->n] = (struct sb_candidate){
            .token = token[i],
            .parent = parent,
            .depth = above ? above->depth + 1 : 1,
            .row = -1,
            .log_prob = log_prob[i],
            .score = (above ? above->score : 0) + log_prob[i],
            .row_top = log_prob[0],
            .chosen = true,
        };
        int32_t out = keep_best(dt, dt->best, &dt->n_best, dt->most_best, dt->n++);
        if (out >= 0)
            dt->pool[out].chosen = false;
    }
}

/* How many of the best are worth their rows; the others are no longer chosen. */
static void weigh(struct sb_dynamic_tree *dt)
{
    double tokens = 1, most = 1 / sb_cost_of_rows(&dt->curve, 1);
    int32_t n = 0;
    for (int32_t i = 0; i < dt->n_best; i++) {
        tokens += sb_exp((double)dt->pool[dt->best[i]].score);
        double rate = tokens / sb_cost_of_rows(&dt->curve, i + 2);
        if (rate > most) {
            most = rate;
            n = i + 1;
        }
    }
    for (int32_t i = 0; i < dt->n_best; i++)
        dt->pool[dt->best[i]].chosen = i < n;
}

static struct sb_policy_node seen(const struct sb_dynamic_tree *dt, int32_t i)
{
    const struct sb_candidate *c = &dt->pool[i];
    return (struct sb_policy_node){ .depth = c->depth,
                                    .n_nodes = dt->n,
                                    .top_prob = sb_exp((double)c->row_top),
                                    .prob = sb_exp((double)c->log_prob),
                                    .path_prob = sb_exp((double)c->score),
                                    .n_seen = dt->n,
                                    .sum_seen = dt->sum };
}

int32_t sb_dynamic_tree_frontier(struct sb_dynamic_tree *dt, const struct sb_tree *tree,
                                 const struct sb_policy *policy)
{
    bool asks = policy->ops->after_node;
    dt->n_frontier = 0;
    if (dt->curve.n > 0)
        weigh(dt);
    for (int32_t i = dt->level; i < dt->n && asks; i++)
        dt->sum += sb_exp((double)dt->pool[i].score);
    for (int32_t i = dt->level; i < dt->n; i++) {
        if (!dt->pool[i].chosen || sb_tree_ends(tree, dt->pool[i].token))
            continue;
        if (asks) {
            const struct sb_policy_node node = seen(dt, i);
            if (sb_policy_stops(policy, &node))
                continue;
        }
        keep_best(dt, dt->frontier, &dt->n_frontier, dt->top_k, i);
    }
    dt->level = dt->n;
    return dt->n_frontier;
}

void sb_dynamic_tree_choose(struct sb_dynamic_tree *dt, struct sb_tree *tree)
{
    if (dt->curve.n > 0)
        weigh(dt);
    for (int32_t i = 0; i < dt->n; i++) {
        struct sb_candidate *c = &dt->pool[i];
        if (!c->chosen)
            continue;
        /* The row is of no more use: the candidate's node takes its place. */
        c->row = sb_tree_add(tree, c->parent < 0 ? 0 : dt->pool[c->parent].row, c->token, c->depth);
    }
}

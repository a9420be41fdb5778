#include "harness/experiment/diagnosis.h"

#include <math.h>

#include "harness/core/alloc.h"
#include "verifiers/ot_bound.h"

static double overlap(const double *p, const double *q, size_t n)
{
    double sum = 0;
    for (size_t v = 0; v < n; v++)
        sum += p[v] < q[v] ? p[v] : q[v];
    return sum;
}

/* Children that were chosen: the first of them is what a one-hot row stands for. False: none is to be
 * verified. */
static bool judge_chosen(struct sb_diagnosis *d, const struct sb_tree *tree, int32_t node,
                         const double *p)
{
    double all = 0, first = -1;
    for (int32_t i = node + 1; i < tree->n; i++) {
        if (tree->node[i].parent != node || tree->node[i].auxiliary)
            continue;
        all += p[tree->node[i].token];
        if (tree->node[i].rank == 0)
            first = p[tree->node[i].token];
    }
    if (first < 0)
        return false;
    d->overlap += first;
    d->ot_bound += all;
    return true;
}

/* Children drawn from one row. */
static bool judge_drawn(struct sb_diagnosis *d, const struct sb_node *node, const double *p,
                        size_t n, void **scratch, size_t *scratch_bytes)
{
    bool independent = node->kind == SB_DRAW_IID || node->kind == SB_DRAW_PATHS;
    enum sb_draw_kind kind = independent ? SB_DRAW_IID : node->kind;
    size_t bytes = sb_ot_bound_scratch_bytes(n, node->n_draws);
    if (sb_grow(scratch, scratch_bytes, bytes, 1) != 0)
        return false;
    d->overlap += overlap(p, node->q, n);
    d->ot_bound += sb_ot_bound(p, node->q, n, kind, node->n_draws, *scratch);
    return true;
}

bool sb_diagnose(struct sb_diagnosis *out, const struct sb_step *step, void **scratch,
                 size_t *scratch_bytes)
{
    struct sb_diagnosis d = { 0 };
    const struct sb_tree *tree = step->tree;
    for (int32_t i = 0; i < step->n_path; i++) {
        int32_t at = step->path[i];
        const struct sb_node *node = &tree->node[at];
        if (node->kind == SB_DRAW_NONE)
            continue;
        const double *p = step->rows->row(step->rows->self, at);
        if (!node->q && node->kind != SB_DRAW_ONEHOT) { /* rows of their own */
            d.overlap = d.ot_bound = NAN;
            d.judged++;
        } else if (!node->q) {
            d.judged += judge_chosen(&d, tree, at, p);
        } else if (judge_drawn(&d, node, p, step->rows->n_vocab, scratch, scratch_bytes)) {
            d.judged++;
        } else {
            return false;
        }
    }
    *out = d;
    return true;
}

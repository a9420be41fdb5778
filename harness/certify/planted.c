#include "harness/certify/planted.h"

#include <stddef.h>
#include <string.h>

static const struct sb_param control_params[] = {
    { .name = "more",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct sb_control, more),
      .fallback = "0",
      .min = 0,
      .max = 1,
      .meaning = "added to every acceptance probability above 0" },
    { .name = "redraw",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct sb_control, redraw),
      .fallback = "false",
      .meaning = "correct from p, not from the residual" },
    { 0 },
};

static size_t control_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return 2 * n_vocab * sizeof(double);
}

/* x = [x - y]+ over its sum; false, and x unchanged, when nothing is left. */
static bool subtract(double *x, const double *y, size_t n)
{
    double sum = 0;
    for (size_t t = 0; t < n; t++)
        sum += x[t] > y[t] ? x[t] - y[t] : 0;
    for (size_t t = 0; t < n && sum > 1e-12; t++)
        x[t] = x[t] > y[t] ? (x[t] - y[t]) / sum : 0;
    return sum > 1e-12;
}

static void take_out(double *q, sb_token token, size_t n)
{
    double sum = 0;
    q[token] = 0;
    for (size_t t = 0; t < n; t++)
        sum += q[t];
    for (size_t t = 0; t < n && sum > 0; t++)
        q[t] /= sum;
}

/* The child that is accepted under `node`, or -1 with the correction's law in p[n]. */
static int32_t try_children(const struct sb_control *control, const struct sb_tree *tree,
                            int32_t node, const struct sb_dice *dice, double *p, double *q,
                            size_t n)
{
    const struct sb_node *parent = &tree->node[node];
    for (int32_t d = 0; d < parent->n_draws; d++) {
        int32_t child = tree->draw[parent->first_draw + d];
        sb_token t = tree->node[child].token;
        double accept = q[t] > 0 ? p[t] / q[t] : 0;
        accept +=
            accept > 0 ? control->more : 0; /* never what p rules out: that is caught at once */
        if (dice->flip(dice->self, accept < 1 ? accept : 1))
            return child;
        if (!control->redraw)
            subtract(p, q, n);
        if (parent->kind == SB_DRAW_WOR)
            take_out(q, t, n);
    }
    return -1;
}

static enum sb_status control_verify(const void *params, const struct sb_tree *tree,
                                     const struct sb_rows *rows, const struct sb_dice *dice,
                                     void *scratch, struct sb_verdict *verdict,
                                     struct sb_error *err)
{
    size_t n = rows->n_vocab;
    double *p = scratch, *q = p + n;
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0, child;; node = child) {
        const double *row;
        enum sb_status rc = sb_rows_get(rows, node, &row, err);
        if (rc != SB_OK)
            return rc;
        memcpy(p, row, n * sizeof *p);
        if (tree->node[node].q)
            memcpy(q, tree->node[node].q, n * sizeof *q);
        sb_dice_seek(dice, (uint64_t)tree->node[node].depth + 1);
        child = try_children(params, tree, node, dice, p, q, n);
        if (child < 0) {
            sb_verdict_close(verdict, tree, (sb_token)dice->pick(dice->self, p, n));
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
    }
}

const struct sb_verifier_ops sb_control_verifier = {
    .name = "control",
    .summary = "recursive rejection, which certify spoils on purpose",
    .paper = "Jeon et al. 2024, arXiv 2402.14160",
    .params = control_params,
    .params_size = sizeof(struct sb_control),
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) | SB_KIND_BIT(SB_DRAW_PATHS),
    .needs_q = true,
    .scratch_size = control_scratch,
    .verify = control_verify,
};

const struct sb_planted sb_planted[] = {
    { .name = "control",
      .summary = "recursive rejection as it should be",
      .drawing = { .kind = SB_DRAW_IID, .depth = 3, .width = 1 },
      .params = "control" },
    { .name = "redraw",
      .summary = "after a rejection draws from p itself",
      .drawing = { .kind = SB_DRAW_IID, .depth = 3, .width = 1 },
      .rule = { .redraw = true },
      .params = "control:redraw=true" },
    { .name = "accept-more",
      .summary = "adds 0.05 to every acceptance probability above 0",
      .drawing = { .kind = SB_DRAW_IID, .depth = 3, .width = 1 },
      .rule = { .more = .05 },
      .params = "control:more=0.05",
      .faint = true },
    { .name = "top-as-drawn",
      .summary = "takes the two most likely tokens for drawn ones",
      .drawing = { .kind = SB_DRAW_WOR, .depth = 2, .width = 2, .wrong = SB_DRAWN_TOP },
      .params = "control" },
    { .name = "drop-unlikely",
      .summary = "drops a drawn token because its own q is small",
      .drawing = { .kind = SB_DRAW_IID, .depth = 3, .width = 1, .wrong = SB_DRAWN_DROPPED },
      .params = "control" },
    { 0 },
};

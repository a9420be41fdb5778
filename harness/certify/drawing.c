#include "harness/certify/drawing.h"

#include <math.h>

#include "harness/decode/draw.h"

bool sb_drawing_goes_on(const struct sb_drawing *d, const struct sb_tree *tree, int32_t node)
{
    return tree->node[node].depth < d->depth && !tree->node[node].auxiliary;
}

static void add(struct sb_tree *tree, int32_t node, sb_token token, enum sb_draw_kind kind,
                const double *q)
{
    float log_q = q[token] < 1 ? (float)log(q[token]) : 0;
    sb_tree_draw(tree, node, token, kind, q, log_q, 0);
}

/* The likeliest tokens: chosen, as they are; or passed off as drawn. */
static void take_top(const struct sb_drawing *d, struct sb_tree *tree, int32_t node,
                     const double *q, size_t n_vocab)
{
    int32_t top[SB_DRAW_WIDTH];
    double floor = d->wrong == SB_DRAWN_TOP ? 0 : -1; /* drawn tokens have q above 0 */
    size_t n = sb_top_weights(top, (size_t)d->width, q, n_vocab, floor);
    for (size_t i = 0; i < n; i++) {
        if (d->wrong == SB_DRAWN_TOP)
            add(tree, node, top[i], d->kind, q);
        else
            sb_tree_add(tree, node, top[i], 0);
    }
}

static void draw_each(const struct sb_drawing *d, struct sb_tree *tree, int32_t node,
                      const double *const q[SB_DRAWING_ROWS], size_t n_vocab,
                      const struct sb_dice *dice)
{
    for (int32_t i = 0; i < d->width; i++) {
        const double *row = d->kind == SB_DRAW_MIX ? q[i % SB_DRAWING_ROWS] : q[0];
        sb_token token = (sb_token)dice->pick(dice->self, row, n_vocab);
        int32_t top;
        sb_top_weights(&top, 1, row, n_vocab, -1);
        if (d->wrong == SB_DRAWN_DROPPED && row[token] < row[top] / 2)
            continue;
        add(tree, node, token, d->kind, row);
    }
}

void sb_drawing_children(const struct sb_drawing *d, struct sb_tree *tree, int32_t node,
                         const double *const q[SB_DRAWING_ROWS], size_t n_vocab,
                         const struct sb_dice *dice, double *scratch)
{
    static const enum sb_draw_rule rules[SB_DRAW_KINDS] = { [SB_DRAW_IID] = SB_RULE_IID,
                                                            [SB_DRAW_WOR] = SB_RULE_WOR,
                                                            [SB_DRAW_PATHS] = SB_RULE_PATHS,
                                                            [SB_DRAW_HUB] = SB_RULE_HUB,
                                                            [SB_DRAW_TOPK1] = SB_RULE_TOPK1 };
    if (d->wrong == SB_DRAWN_TOP || d->kind == SB_DRAW_ONEHOT)
        take_top(d, tree, node, q[0], n_vocab);
    else if (d->wrong == SB_DRAWN_DROPPED || d->kind == SB_DRAW_MIX)
        draw_each(d, tree, node, q, n_vocab, dice);
    else
        sb_draw_children(tree, node, d->coupled ? SB_RULE_COUPLED : rules[d->kind], q[0], n_vocab,
                         d->width, dice, scratch, 0);
}

#include "harness/certify/drawing.h"

#include <math.h>
#include <string.h>

bool sb_drawing_goes_on(const struct sb_drawing *d, const struct sb_tree *tree, int32_t node)
{
    const struct sb_node *n = &tree->node[node];
    return n->depth < d->depth && !n->auxiliary && !(d->raced && n->rank > 0);
}

/* What the rules below work on. left: the row, with -1 at tokens that are taken. */
struct draft {
    struct sb_tree *tree;
    int32_t node;
    const double *q;
    size_t n;
    const struct sb_dice *dice;
    double *left;
};

static bool add(struct draft *f, size_t token, enum sb_draw_kind kind, const double *q)
{
    float log_q = q[token] < 1 ? (float)log(q[token]) : 0;
    f->left[token] = -1;
    return sb_tree_draw(f->tree, f->node, (sb_token)token, kind, q, log_q, 0) >= 0;
}

/* Most likely token that is not taken, smallest id on ties; n: all are. */
static size_t best(const struct draft *f)
{
    size_t token = f->n;
    for (size_t t = 0; t < f->n; t++)
        if (f->left[t] >= 0 && (token == f->n || f->left[t] > f->left[token]))
            token = t;
    return token;
}

static double mass_left(const struct draft *f)
{
    double sum = 0;
    for (size_t t = 0; t < f->n; t++)
        sum += f->left[t] > 0 ? f->left[t] : 0;
    return sum;
}

/* One of the tokens that are not taken, by their weight; false: they have none. */
static bool pick_left(struct draft *f, enum sb_draw_kind kind)
{
    if (!(mass_left(f) > 0))
        return false;
    for (size_t t = 0; t < f->n; t++)
        f->left[t] = f->left[t] > 0 ? f->left[t] : 0;
    return add(f, f->dice->pick(f->dice->self, f->left, f->n), kind, f->q);
}

static void draw_onehot(struct draft *f, int32_t width, bool raced)
{
    for (int32_t i = 0; i < width; i++) {
        bool race = raced && i == 0 && f->dice->race;
        size_t token = race ? f->dice->race(f->dice->self, f->q, f->n) : best(f);
        if (token == f->n || sb_tree_add(f->tree, f->node, (sb_token)token, 0) < 0)
            return;
        f->left[token] = -1;
    }
}

static void draw_independently(struct draft *f, const struct sb_drawing *d, int32_t n,
                               const double *const *q)
{
    for (int32_t i = 0; i < n; i++) {
        const double *row = d->kind == SB_DRAW_MIX ? q[i % SB_DRAWING_ROWS] : f->q;
        size_t token = f->dice->pick(f->dice->self, row, f->n);
        if (d->wrong == SB_DRAWN_DROPPED) {
            double top = 0;
            for (size_t t = 0; t < f->n; t++)
                top = row[t] > top ? row[t] : top;
            if (row[token] < top / 2)
                continue;
        }
        if (!add(f, token, d->kind, row))
            return;
    }
}

/* Paths that arrive at a node: draws of it from its parent. */
static int32_t arrivals(const struct sb_tree *tree, int32_t node, int32_t at_root)
{
    if (node == 0)
        return at_root;
    const struct sb_node *parent = &tree->node[tree->node[node].parent];
    int32_t n = 0;
    for (int32_t i = 0; i < parent->n_draws; i++)
        n += tree->draw[parent->first_draw + i] == node;
    return n;
}

/* SpecHub's pair (A 3.7): x from q, beside the arg max a; when x is a, another one, after it. */
static void draw_hub(struct draft *f)
{
    size_t hub = best(f), token = f->dice->pick(f->dice->self, f->q, f->n);
    if (!add(f, token, SB_DRAW_HUB, f->q))
        return;
    if (token != hub)
        add(f, hub, SB_DRAW_HUB, f->q);
    else
        pick_left(f, SB_DRAW_HUB);
}

static void draw_top(struct draft *f, int32_t n, enum sb_draw_kind kind)
{
    for (int32_t i = 0; i < n; i++) {
        size_t token = best(f);
        if (token == f->n || !(f->left[token] > 0) || !add(f, token, kind, f->q))
            return;
    }
}

void sb_drawing_children(const struct sb_drawing *d, struct sb_tree *tree, int32_t node,
                         const double *const q[SB_DRAWING_ROWS], size_t n_vocab,
                         const struct sb_dice *dice, double *scratch)
{
    struct draft f = { tree, node, q[0], n_vocab, dice, scratch };
    memcpy(scratch, q[0], n_vocab * sizeof *scratch);
    if (d->wrong == SB_DRAWN_TOP) {
        draw_top(&f, d->width, d->kind);
        return;
    }
    switch (d->kind) {
    case SB_DRAW_ONEHOT:
        draw_onehot(&f, d->width, d->raced);
        break;
    case SB_DRAW_IID:
    case SB_DRAW_MIX:
        draw_independently(&f, d, d->width, q);
        break;
    case SB_DRAW_PATHS:
        draw_independently(&f, d, arrivals(tree, node, d->width), q);
        break;
    case SB_DRAW_WOR:
        for (int32_t i = 0; i < d->width && pick_left(&f, SB_DRAW_WOR); i++)
            ;
        break;
    case SB_DRAW_HUB:
        draw_hub(&f);
        break;
    case SB_DRAW_TOPK1:
        draw_top(&f, d->width - 1, SB_DRAW_TOPK1);
        pick_left(&f, SB_DRAW_TOPK1);
        break;
    default:
        break;
    }
}

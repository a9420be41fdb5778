#include "tests/property/enumerate.h"

#include <math.h>
#include <string.h>

struct enum_result enum_run(const struct sb_enum_case *c)
{
    struct sb_enum_result r = { 0 };
    enum sb_status rc = sb_enum_run(&r, c, NULL);
    struct enum_result out = { .max_error = r.max_error,
                               .variation = r.variation,
                               .accepted = r.accepted,
                               .first_accept = r.first_accept,
                               .total = r.total,
                               .runs = r.runs,
                               .status = rc };
    memcpy(out.first, r.first, sizeof out.first);
    return out;
}

struct enum_decoded enum_decode(const struct sb_enum_case *c, uint64_t key, sb_token *x,
                                size_t length)
{
    struct enum_decoded out = { .status = SB_OK };
    struct sb_rng_dice draft = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    struct sb_rng_dice verify = sb_rng_dice_make(key, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
    struct sb_enum_bench *bench;
    out.status = sb_enum_bench_create(&bench, c, NULL);
    if (out.status != SB_OK)
        return out;
    for (size_t n = 0; n < length;) {
        const struct sb_tree *tree;
        const struct sb_verdict *verdict;
        int32_t left = (int32_t)(length - n - 1);
        if (c->verifier->bottom_up)
            sb_rng_dice_rekey(&draft, sb_rng_mix(key, n));
        struct sb_dice draft_dice = sb_rng_dice_at(&draft, n);
        struct sb_dice verify_dice = sb_rng_dice_at(&verify, n);
        out.status = sb_enum_bench_step(bench, x, n, c->depth < left ? c->depth : left, &draft_dice,
                                        &verify_dice, &tree, &verdict, NULL);
        if (out.status != SB_OK)
            break;
        for (int32_t i = 1; i < verdict->n_path; i++)
            x[n++] = tree->node[verdict->path[i]].token;
        x[n++] = verdict->final_token;
        out.accepted += verdict->n_path - 1;
        out.first_accepted = out.steps++ == 0 ? verdict->n_path - 1 : out.first_accepted;
    }
    sb_enum_bench_destroy(bench);
    return out;
}

static float log_of(double q)
{
    return q < 1 ? (float)log(q) : 0;
}

/* Level by level: `children` adds those of one node, whose row of c->draft is q. */
static void grow(const struct sb_enum_case *c, const struct sb_dice *dice, struct sb_tree *tree,
                 void (*children)(const struct sb_enum_case *, const struct sb_dice *,
                                  struct sb_tree *, int32_t, const double *))
{
    int32_t level = -1;
    for (int32_t node = 0; node < tree->n; node++) {
        sb_token x[SB_ENUM_DEPTH + 2];
        if (tree->node[node].depth >= c->depth)
            return;
        if (tree->node[node].depth > level)
            sb_dice_seek(dice, (uint64_t)++level + 1);
        children(c, dice, tree, node, sb_enum_row(c->draft, x, sb_enum_context(c, tree, node, x)));
    }
}

static void draw(const struct sb_dice *dice, struct sb_tree *tree, int32_t node,
                 enum sb_draw_kind kind, const double *q, size_t n)
{
    size_t t = dice->pick(dice->self, q, n);
    sb_tree_draw(tree, node, (sb_token)t, kind, q, log_of(q[t]), 0);
}

static void iid_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    for (int32_t i = 0; i < c->width; i++)
        draw(dice, tree, node, SB_DRAW_IID, q, c->draft->n_vocab);
}

static void wor_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    double left[SB_ENUM_VOCAB], sum = 1;
    memcpy(left, q, c->draft->n_vocab * sizeof *q);
    for (int32_t i = 0; i < c->width && sum > 0; i++) {
        size_t t = dice->pick(dice->self, left, c->draft->n_vocab);
        sb_tree_draw(tree, node, (sb_token)t, SB_DRAW_WOR, q, log_of(q[t]), 0);
        left[t] = 0;
        sum = 0;
        for (size_t j = 0; j < c->draft->n_vocab; j++)
            sum += left[j];
    }
}

static void top_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    for (int32_t i = 0; i < c->width; i++) {
        int32_t best = -1;
        for (size_t t = 0; t < c->draft->n_vocab; t++)
            if (sb_tree_child(tree, node, (sb_token)t) < 0 && (best < 0 || q[t] > q[best]))
                best = (int32_t)t;
        sb_tree_add(tree, node, best, 0);
    }
}

static void path_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                          struct sb_tree *tree, int32_t node, const double *q)
{
    const struct sb_node *parent = node > 0 ? &tree->node[tree->node[node].parent] : NULL;
    int32_t arrivals = parent ? 0 : c->width;
    for (int32_t d = 0; parent && d < parent->n_draws; d++)
        arrivals += tree->draw[parent->first_draw + d] == node;
    if (tree->node[node].depth == 1 && tree->node[node].token == 0)
        return;
    for (int32_t i = 0; i < arrivals; i++)
        draw(dice, tree, node, SB_DRAW_PATHS, q, c->draft->n_vocab);
}

static void mix_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    sb_token x[SB_ENUM_DEPTH + 2];
    const double *row[] = { q, sb_enum_row(c->second, x, sb_enum_context(c, tree, node, x)) };
    for (int32_t i = 0; i < c->width; i++)
        draw(dice, tree, node, SB_DRAW_MIX, row[i % 2], c->draft->n_vocab);
}

static void race_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                          struct sb_tree *tree, int32_t node, const double *q)
{
    sb_tree_add(tree, node, (sb_token)dice->race(dice->self, q, c->draft->n_vocab), 0);
}

static size_t most_likely(const double *q, size_t n)
{
    size_t best = 0;
    for (size_t t = 1; t < n; t++)
        best = q[t] > q[best] ? t : best;
    return best;
}

/* left[n] = q without token t; returns its sum. */
static double leave_out(double *left, const double *q, size_t t, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        left[i] = i == t ? 0 : q[i];
        sum += left[i];
    }
    return sum;
}

static void hub_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                         struct sb_tree *tree, int32_t node, const double *q)
{
    double left[SB_ENUM_VOCAB];
    size_t n = c->draft->n_vocab, hub = most_likely(q, n), x = dice->pick(dice->self, q, n);
    sb_tree_draw(tree, node, (sb_token)x, SB_DRAW_HUB, q, log_of(q[x]), 0);
    if (x == hub && !(leave_out(left, q, hub, n) > 0))
        return;
    size_t other = x == hub ? dice->pick(dice->self, left, n) : hub;
    sb_tree_draw(tree, node, (sb_token)other, SB_DRAW_HUB, q, log_of(q[other]), 0);
}

static void topk1_children(const struct sb_enum_case *c, const struct sb_dice *dice,
                           struct sb_tree *tree, int32_t node, const double *q)
{
    double left[SB_ENUM_VOCAB];
    size_t n = c->draft->n_vocab;
    memcpy(left, q, n * sizeof *q);
    for (int32_t i = 1; i < c->width; i++) {
        size_t top = most_likely(left, n);
        double mass = left[top];
        if (!(leave_out(left, left, top, n) > 0)) {
            left[top] = mass; /* the last of q's support is the sampled one */
            break;
        }
        sb_tree_draw(tree, node, (sb_token)top, SB_DRAW_TOPK1, q, log_of(q[top]), 0);
    }
    size_t y = dice->pick(dice->self, left, n);
    sb_tree_draw(tree, node, (sb_token)y, SB_DRAW_TOPK1, q, log_of(q[y]), 0);
}

void enum_propose_iid(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree)
{
    grow(c, dice, tree, iid_children);
}

void enum_propose_wor(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree)
{
    grow(c, dice, tree, wor_children);
}

void enum_propose_top(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree)
{
    grow(c, dice, tree, top_children);
}

void enum_propose_paths(const struct sb_enum_case *c, const struct sb_dice *dice,
                        struct sb_tree *tree)
{
    grow(c, dice, tree, path_children);
}

void enum_propose_mix(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree)
{
    grow(c, dice, tree, mix_children);
}

void enum_propose_race(const struct sb_enum_case *c, const struct sb_dice *dice,
                       struct sb_tree *tree)
{
    grow(c, dice, tree, race_children);
}

void enum_propose_hub(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree)
{
    grow(c, dice, tree, hub_children);
}

void enum_propose_topk1(const struct sb_enum_case *c, const struct sb_dice *dice,
                        struct sb_tree *tree)
{
    grow(c, dice, tree, topk1_children);
}

/* Multi-path block verification by path selection (methods A 3.12): our construction in the spirit of
 * arXiv 2602.16961, whose own rule may differ. The draft is K i.i.d. paths (kind paths). Every prefix has a
 * total order of tokens, by increasing p / q, equal ones by id; the largest of the K paths in the
 * lexicographic order is selected, and block verification judges it. What it is judged against is not
 * q but the law of a selected path, which is known token by token: with F(l, m) = (l + m)^K - l^K, the
 * chance that the largest path falls into the m of mass that has l below it, and (l, m) of the prefix
 * so far, token t has probability F(l + m q(smaller tokens), m q(t)) / F(l, m).
 *
 * F is taken as m times the sum of (l + m)^j l^(K-1-j), and l + m is scaled to 1 at each step: nothing
 * cancels and nothing underflows. Only rows on the selected path are asked for. Whether a path stops
 * early may depend on its own tokens, not on other paths. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "harness/decode/verifier.h"

extern const struct sb_verifier_ops sb_verifier_gbv;

/* A prefix among all paths: the mass of smaller ones, and its own; together 1 after scaling. */
struct place {
    double below, mass;
};

struct ranked {
    double key; /* p / q */
    size_t token;
};

struct gbv {
    struct sb_path path;
    const struct sb_rows *rows;
    int32_t k;
    struct place *place;   /* [max_nodes] of path.at[i] */
    struct ranked *ranked; /* [n_vocab] */
    struct ranked *room; /* [n_vocab] for sorting: the residual and the row, not yet in use then */
    double *row;         /* [n_vocab] a row of the selected path's law */
};

static size_t gbv_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * (2 * sizeof(double) + sizeof(struct ranked)) +
           (size_t)max_nodes * (sizeof(struct sb_path_node) + sizeof(struct place));
}

static bool smaller(struct ranked a, struct ranked b)
{
    return a.key < b.key || (a.key == b.key && a.token < b.token);
}

static struct ranked rank_of(const double *p, const double *q, size_t token)
{
    return (struct ranked){ p[token] / q[token], token };
}

/* F(l, m) / m. */
static double slope(double below, double mass, int32_t k)
{
    double sum = 0, power = 1; /* Horner's scheme in (l + m), with powers of l */
    for (int32_t j = 0; j < k; j++, power *= below)
        sum = sum * (below + mass) + power;
    return sum;
}

/* The place of a token of probability q_t that has `smaller_q` before it, unscaled. */
static struct place place_of(struct place prefix, double smaller_q, double q_t)
{
    return (struct place){ prefix.below + prefix.mass * smaller_q, prefix.mass * q_t };
}

/* The probability of that token in the selected path's law. */
static double selected(struct place prefix, struct place token, double q_t, int32_t k)
{
    return q_t * slope(token.below, token.mass, k) / slope(prefix.below, prefix.mass, k);
}

static size_t digit_of(double key, int shift, size_t digits)
{
    uint64_t bits;
    memcpy(&bits, &key, sizeof bits);
    return bits >> shift & (digits - 1);
}

/* Stable, so that equal keys stay in the order of tokens: by digits of the key's bits, whose order is
 * that of numbers that are not negative. Comparing 32,000 took 16 ms. */
static void sort(struct ranked *item, struct ranked *room, size_t n)
{
    enum { DIGIT = 11, DIGITS = 1 << DIGIT, PASSES = 6 };
    for (int pass = 0; pass < PASSES; pass++) {
        size_t place[DIGITS] = { 0 }, sum = 0;
        for (size_t i = 0; i < n; i++)
            place[digit_of(item[i].key, pass * DIGIT, DIGITS)]++;
        for (size_t d = 0; d < DIGITS; d++) {
            size_t count = place[d];
            place[d] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            room[place[digit_of(item[i].key, pass * DIGIT, DIGITS)]++] = item[i];
        struct ranked *other = item;
        item = room;
        room = other;
    }
}

/* The selected path's law behind path.at[i]. */
static const double *selected_row(void *self, int32_t i)
{
    struct gbv *g = self;
    int32_t node = g->path.at[i].node;
    const double *q = g->path.tree->node[node].q, *p = g->rows->row(g->rows->self, node);
    size_t n = 0;
    double smaller_q = 0;
    for (size_t t = 0; t < g->rows->n_vocab; t++)
        if (q[t] > 0)
            g->ranked[n++] = rank_of(p, q, t);
    sort(g->ranked, g->room, n);
    memset(g->row, 0, g->rows->n_vocab * sizeof *g->row); /* room ends here */
    for (size_t r = 0; r < n; r++) {
        size_t t = g->ranked[r].token;
        g->row[t] = selected(g->place[i], place_of(g->place[i], smaller_q, q[t]), q[t], g->k);
        smaller_q += q[t];
    }
    return g->row;
}

/* The largest draw under `node`; a node that m paths reach has m draws. */
static enum sb_status select_draw(const struct gbv *g, int32_t node, int32_t arrivals,
                                  const double *p, struct sb_draw *largest, int32_t *followers,
                                  struct sb_error *err)
{
    const struct sb_tree *tree = g->path.tree;
    enum sb_status rc = sb_draws_check(&sb_verifier_gbv, tree, node, g->rows->n_vocab, err);
    if (rc != SB_OK)
        return rc;
    if (tree->node[node].n_draws != arrivals)
        return sb_fail(err, SB_EINTERNAL,
                       "verifier gbv: %" PRId32 " paths reach node %" PRId32 ", %" PRId32 " go on",
                       arrivals, node, tree->node[node].n_draws);
    *followers = 0;
    for (struct sb_draw draw = SB_DRAW_BEGIN; sb_draw_next(tree, node, &draw);) {
        if (*followers == 0 || smaller(rank_of(p, largest->q, (size_t)largest->token),
                                       rank_of(p, draw.q, (size_t)draw.token))) {
            *largest = draw;
            *followers = 0;
        }
        *followers += draw.child == largest->child;
    }
    return SB_OK;
}

/* Append the largest draw to the path, with its place and its weight. */
static void step_down(struct gbv *g, const double *p, const struct sb_draw *draw)
{
    size_t x = (size_t)draw->token;
    int32_t i = g->path.n - 1;
    struct ranked mine = rank_of(p, draw->q, x);
    double smaller_q = 0;
    for (size_t t = 0; t < g->rows->n_vocab; t++)
        if (draw->q[t] > 0 && smaller(rank_of(p, draw->q, t), mine))
            smaller_q += draw->q[t];
    struct place at = place_of(g->place[i], smaller_q, draw->q[x]);
    double q_x = selected(g->place[i], at, draw->q[x], g->k);
    /* q_x = 0: every path drew an almost impossible token, and the chance of that underflows. */
    double w = q_x > 0 ? fmin(1, g->path.at[i].weight * p[x] / q_x) : 0;
    double all = at.below + at.mass;
    g->path.at[i + 1] = (struct sb_path_node){ draw->child, w };
    g->place[i + 1] = (struct place){ at.below / all, at.mass / all };
    g->path.n++;
}

static enum sb_status select_path(struct gbv *g, struct sb_error *err)
{
    int32_t arrivals = g->k;
    for (;;) {
        struct sb_path_node last = g->path.at[g->path.n - 1];
        if (!(last.weight > 0) || g->path.tree->node[last.node].kind == SB_DRAW_NONE)
            return SB_OK;
        const double *p;
        struct sb_draw draw = SB_DRAW_BEGIN;
        enum sb_status rc = sb_rows_get(g->rows, last.node, &p, err);
        if (rc == SB_OK)
            rc = select_draw(g, last.node, arrivals, p, &draw, &arrivals, err);
        if (rc != SB_OK)
            return rc;
        step_down(g, p, &draw);
    }
}

static enum sb_status gbv_verify(const void *params, const struct sb_tree *tree,
                                 const struct sb_rows *rows, const struct sb_dice *dice,
                                 void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    double *residual = scratch;
    struct gbv g = { .rows = rows, .k = tree->node[0].n_draws };
    g.room = scratch;
    g.row = residual + rows->n_vocab;
    g.ranked = (struct ranked *)(g.row + rows->n_vocab);
    g.path = (struct sb_path){ .tree = tree,
                               .at = (struct sb_path_node *)(g.ranked + rows->n_vocab),
                               .n = 1,
                               .draft_row = selected_row,
                               .self = &g };
    g.place = (struct place *)(g.path.at + tree->n);
    g.path.at[0] = (struct sb_path_node){ 0, 1 };
    g.place[0] = (struct place){ 0, 1 };
    enum sb_status rc = select_path(&g, err);
    return rc == SB_OK ? sb_path_verify(&g.path, rows, dice, residual, verdict, err) : rc;
}

const struct sb_verifier_ops sb_verifier_gbv = {
    .name = "gbv",
    .summary = "block verification of the largest of K paths, by the law of the largest "
               "(experimental)",
    .paper = "in the spirit of arXiv 2602.16961 (greedy multi-path block verification)",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_PATHS),
    .bottom_up = true,
    .needs_q = true,
    .strength = 15,
    .scratch_size = gbv_scratch,
    .verify = gbv_verify,
};

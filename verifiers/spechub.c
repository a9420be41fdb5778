/* SpecHub (methods A 3.7): verify a pair of draws one of which is the hub a = arg max q (smallest id
 * on ties). Drawn x ~ q: if x is not a the pair is (x, a), of mass q(x); else x' ~ q without a follows,
 * and the pair is (a, x'), of mass q(a) q(x') / (1 - q(a)). For x other than a
 *   A1(x) = min(q(x), p(x)), the share of (x, a) that accepts x, and e1(x) = q(x) - A1(x) what is left;
 *   A2(x) = min(mass(a, x), p(x) - A1(x)) and e2(x) likewise for (a, x).
 * a takes what it needs of the leftovers: g2 = min(sum e2, p(a)), then g1 = min(sum e1, p(a) - g2),
 * in equal shares of each. What nobody took is drawn from p - A1 - A2, p(a) - g1 - g2.
 *
 * Whether a pair was drawn must not depend on its tokens. A node with one draw alone is lawful all
 * the same: the first of a pair follows q, which is plain rejection. */
#include <inttypes.h>

#include "verifiers/recursive.h"

struct hub {
    const double *p, *q;
    size_t n;
    sb_token a;
    double rest;   /* 1 - q(a), summed over the others */
    double s1, s2; /* the share of what (x, a) and (a, x) left that goes to a: g1 / E1, g2 / E2 */
};

static size_t spechub_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return n_vocab * sizeof(double);
}

/* What pairs with x accept x with: A1 and A2. */
static double first_share(const struct hub *h, size_t x)
{
    return h->q[x] < h->p[x] ? h->q[x] : h->p[x];
}

static double second_mass(const struct hub *h, size_t x)
{
    return h->q[x] > 0 ? h->q[h->a] * h->q[x] / h->rest : 0;
}

static double second_share(const struct hub *h, size_t x)
{
    double mass = second_mass(h, x), room = h->p[x] - first_share(h, x);
    return mass < room ? mass : room;
}

/* Fill the tables of a node; residual[n] is what no pair is accepted for, unnormalised. Returns its
 * sum. */
static double prepare(struct hub *h, double *residual)
{
    double left1 = 0, left2 = 0, sum = 0;
    h->a = 0;
    h->rest = 0;
    for (size_t x = 1; x < h->n; x++)
        h->a = h->q[x] > h->q[h->a] ? (sb_token)x : h->a;
    for (size_t x = 0; x < h->n; x++)
        h->rest += x == (size_t)h->a ? 0 : h->q[x];
    for (size_t x = 0; x < h->n; x++) {
        if (x == (size_t)h->a)
            continue;
        double a1 = first_share(h, x), a2 = second_share(h, x);
        left1 += h->q[x] - a1;
        left2 += second_mass(h, x) - a2;
        residual[x] = h->p[x] - a1 - a2;
        sum += residual[x] = residual[x] > 0 ? residual[x] : 0;
    }
    double need = h->p[h->a];
    double g2 = left2 < need ? left2 : need;
    double g1 = left1 < need - g2 ? left1 : need - g2;
    h->s1 = left1 > 0 ? g1 / left1 : 0;
    h->s2 = left2 > 0 ? g2 / left2 : 0;
    residual[h->a] = need - g2 - g1 > 0 ? need - g2 - g1 : 0;
    return sum + residual[h->a];
}

/* One choice of three: the pair's other token, the hub, neither. */
static int32_t try_pair(const struct hub *h, const struct sb_site *site, int32_t first,
                        int32_t second)
{
    const struct sb_node *node = site->tree->node;
    bool hub_first = node[first].token == h->a;
    int32_t other = hub_first ? second : first, hub = hub_first ? first : second;
    size_t x = (size_t)node[other].token;
    double mass = hub_first ? second_mass(h, x) : h->q[x];
    double take = hub_first ? second_share(h, x) : first_share(h, x);
    double share = hub_first ? h->s2 : h->s1;
    const double weight[] = { take, (mass - take) * share, (mass - take) * (1 - share) };
    size_t choice = site->dice->pick(site->dice->self, weight, 3);
    return choice == 0 ? other : choice == 1 ? hub : -1;
}

/* The draws of a node: *child is the accepted one, or -1, and then law is what to draw from. */
static enum sb_status try_node(const struct sb_site *site, const double *p, double *scratch,
                               const double **law, int32_t *child, struct sb_error *err)
{
    const struct sb_node *parent = &site->tree->node[site->node];
    struct hub h = { .p = p, .n = site->n_vocab };
    double *residual = scratch;
    *child = -1;
    *law = p;
    enum sb_status rc = sb_draws_check(site->verifier, site->tree, site->node, h.n, err);
    if (rc != SB_OK || parent->kind == SB_DRAW_NONE)
        return rc;
    h.q = parent->q;
    if (parent->n_draws == 1) {
        struct sb_rest rest = sb_rest_begin(p, h.n);
        *child = sb_rest_try(&rest, site->tree, site->node, 0, site->dice, residual);
        *law = rest.p;
        return SB_OK;
    }
    double sum = prepare(&h, residual);
    const int32_t *draw = site->tree->draw + parent->first_draw;
    bool with_hub = site->tree->node[draw[0]].token == h.a ||
                    site->tree->node[draw[parent->n_draws - 1]].token == h.a;
    if (parent->n_draws != 2 || draw[0] == draw[1] || !with_hub)
        return sb_fail(err, SB_EINTERNAL,
                       "verifier spechub: node %" PRId32
                       " was not drawn as a pair with the arg max",
                       site->node);
    *child = try_pair(&h, site, draw[0], draw[1]);
    if (sum > SB_EMPTY_RESIDUAL) /* less: every pair is accepted, up to rounding */
        *law = residual;
    return SB_OK;
}

extern const struct sb_verifier_ops sb_verifier_spechub;

static enum sb_status spechub_verify(const void *params, const struct sb_tree *tree,
                                     const struct sb_rows *rows, const struct sb_dice *dice,
                                     void *scratch, struct sb_verdict *verdict,
                                     struct sb_error *err)
{
    struct sb_site site = { &sb_verifier_spechub, tree, dice, rows->n_vocab, 0 };
    sb_verdict_begin(verdict, tree);
    for (;;) {
        const double *p, *law;
        int32_t child = -1;
        enum sb_status rc = sb_rows_get(rows, site.node, &p, err);
        sb_dice_seek(dice, (uint64_t)tree->node[site.node].depth + 1);
        if (rc == SB_OK)
            rc = try_node(&site, p, scratch, &law, &child, err);
        if (rc != SB_OK)
            return rc;
        if (child < 0) {
            sb_verdict_close(verdict, tree, (sb_token)dice->pick(dice->self, law, rows->n_vocab));
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        site.node = child;
    }
}

const struct sb_verifier_ops sb_verifier_spechub = {
    .name = "spechub",
    .summary = "pairs of draws around the drafter's arg max, coupled through it",
    .paper = "Sun et al. 2024, arXiv 2411.05289",
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_HUB),
    .needs_q = true,
    .strength = 50,
    .scratch_size = spechub_scratch,
    .verify = spechub_verify,
};

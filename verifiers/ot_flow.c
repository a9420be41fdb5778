/* Optimal transport by maximum flow (methods A 3.9; SpecTr, arXiv 2310.15141): couple the first two
 * draws of a node with its next token so that their product accepts as often as any rule can.
 *
 * Pairs are sources of their mass, tokens sinks of p. A pair {i, j} may flow to i or to j; the part of
 * it that reaches a token is the part of its draws that accept it, the rest is drawn from what is left
 * of p. Any feasible flow is exact, a maximum one attains the bound (verifiers/ot_bound.h).
 *
 * The m tokens of largest q are explicit. A pair of one of them, i, and a token that is not, goes to i
 * first, like {i, i}: such mass cannot go elsewhere among the explicit ones. Pairs of two explicit
 * tokens begin at the one of larger p / q, and a maximum flow (Dinic) over a graph of m tokens moves
 * mass along pairs from tokens with more than p to tokens with less. A token that still has more keeps
 * the share p / load of all that reaches it. What explicit tokens refused, and pairs outside them,
 * may then accept the first draw, then the second, if that is outside: any share of mass up to p.
 * With m at or above the number of tokens of q > 0 this is the optimum, below it less.
 *
 * Departures from the card, which knows pairs only and drops pairs outside the m: the second stage
 * above; one draw is plain rejection; draws after the second are tried by recursive rejection against
 * what is left of p, which is exact and not optimal. Whether a second draw was made must not depend on
 * the token of the first; that of later ones may depend on what came before them. */
#include <inttypes.h>
#include <string.h>

#include "verifiers/recursive.h"

struct ot_flow {
    int64_t m;
};

static const struct sb_param ot_flow_params[] = {
    { .name = "m",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct ot_flow, m),
      .fallback = "64",
      .min = 1,
      .max = 512,
      .meaning = "tokens that take part in the flow one by one" },
    { 0 },
};

/* Mass below this does not move: a flow need not be maximal to the last bit. */
#define TINY 1e-15

struct flow {
    const double *p, *q;
    size_t n, m;                   /* tokens; explicit ones */
    bool repeats;                  /* iid */
    int32_t *id;                   /* [m] the explicit tokens, by falling q, then by id */
    double *give;                  /* [m, m]: of the pair {i, j}, what flows to i */
    double *load;                  /* [m] what flows to i */
    int32_t *level, *next, *queue; /* [m] for Dinic */
    double top_rest;               /* the sum of q without id[0] */
    /* Over tokens that are not explicit: sums of q, of first(t), and of first(t) of draws whose first
     * token was refused; over explicit ones: sums of q and first(i) times the share refused. */
    double q_out, first_out, passed_out, q_left, first_left;
};

static size_t ot_flow_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    const struct ot_flow *o = params;
    size_t m = (size_t)o->m < n_vocab ? (size_t)o->m : n_vocab;
    return (2 * n_vocab + m * m + m) * sizeof(double) + 4 * m * sizeof(int32_t);
}

/* ---- masses ---- */

/* The mass of pairs whose first token is a and second token b is first(a) q(b). */
static double first(const struct flow *f, size_t t)
{
    if (f->repeats || !(f->q[t] > 0))
        return f->q[t];
    return f->q[t] / (t == (size_t)f->id[0] ? f->top_rest : 1 - f->q[t]);
}

static bool before(const double *q, size_t a, size_t b)
{
    return q[a] > q[b] || (q[a] == q[b] && a < b);
}

static bool is_outside(const struct flow *f, size_t t)
{
    return f->q[t] > 0 && before(f->q, (size_t)f->id[f->m - 1], t);
}

static size_t place_of(const struct flow *f, size_t t)
{
    size_t i = 0;
    while (i < f->m && (size_t)f->id[i] != t)
        i++;
    return i; /* m: not explicit */
}

/* The tokens of largest q, at most `most` of those with q > 0. */
static void choose_explicit(struct flow *f, size_t most)
{
    f->m = 0;
    for (size_t t = 0; t < f->n; t++) {
        if (!(f->q[t] > 0) || (f->m == most && !before(f->q, t, (size_t)f->id[most - 1])))
            continue;
        size_t at = f->m < most ? f->m++ : most - 1;
        for (; at > 0 && before(f->q, t, (size_t)f->id[at - 1]); at--)
            f->id[at] = f->id[at - 1];
        f->id[at] = (int32_t)t;
    }
    f->top_rest = 0;
    for (size_t t = 0; t < f->n; t++)
        f->top_rest += t == (size_t)f->id[0] ? 0 : f->q[t];
    f->q_out = f->first_out = 0;
    for (size_t t = 0; t < f->n; t++) {
        f->q_out += is_outside(f, t) ? f->q[t] : 0;
        f->first_out += is_outside(f, t) ? first(f, t) : 0;
    }
}

/* Every pair at the token of larger p / q. */
static void fill_pairs(struct flow *f)
{
    for (size_t i = 0; i < f->m; i++) {
        double q = f->q[f->id[i]];
        double own = first(f, (size_t)f->id[i]) * f->q_out + q * f->first_out;
        f->load[i] = own + (f->repeats ? q * q : 0);
        f->give[i * f->m + i] = 0;
    }
    for (size_t i = 0; i < f->m; i++) {
        for (size_t j = i + 1; j < f->m; j++) {
            size_t a = (size_t)f->id[i], b = (size_t)f->id[j];
            double mass = first(f, a) * f->q[b] + first(f, b) * f->q[a];
            bool to_i = f->p[a] * f->q[b] > f->p[b] * f->q[a];
            f->give[i * f->m + j] = to_i ? mass : 0;
            f->give[j * f->m + i] = to_i ? 0 : mass;
            f->load[to_i ? i : j] += mass;
        }
    }
}

/* ---- maximum flow from tokens with too much to tokens with too little ---- */

static double room(const struct flow *f, size_t i)
{
    return f->p[f->id[i]] - f->load[i];
}

/* Distances from the overloaded tokens along pairs that can move; is one with room within reach? */
static bool find_levels(struct flow *f)
{
    size_t n = 0;
    bool reached = false;
    for (size_t i = 0; i < f->m; i++) {
        f->next[i] = 0;
        f->level[i] = room(f, i) < -TINY ? 0 : -1;
        if (f->level[i] == 0)
            f->queue[n++] = (int32_t)i;
    }
    for (size_t at = 0; at < n; at++) {
        size_t i = (size_t)f->queue[at];
        reached = reached || room(f, i) > TINY;
        for (size_t j = 0; j < f->m; j++)
            if (f->level[j] < 0 && f->give[i * f->m + j] > TINY) {
                f->level[j] = f->level[i] + 1;
                f->queue[n++] = (int32_t)j;
            }
    }
    return reached;
}

/* Move up to `want` from token i on to tokens with room; returns how much went. */
static double push(struct flow *f, size_t i, double want)
{
    double here = room(f, i), gone = 0;
    if (here > TINY) {
        gone = want < here ? want : here;
        f->load[i] += gone;
    }
    for (; f->next[i] < (int32_t)f->m && gone < want; f->next[i]++) {
        size_t j = (size_t)f->next[i];
        double *pair = &f->give[i * f->m + j], left = want - gone;
        if (f->level[j] != f->level[i] + 1 || !(*pair > TINY))
            continue;
        double moved = push(f, j, *pair < left ? *pair : left);
        *pair -= moved;
        f->give[j * f->m + i] += moved;
        gone += moved;
        if (!(gone < want))
            break; /* this pair may have more */
    }
    return gone;
}

static void maximise(struct flow *f)
{
    double moved = 1;
    while (moved > TINY && find_levels(f)) {
        moved = 0;
        for (size_t i = 0; i < f->m; i++) {
            if (f->level[i] != 0)
                continue;
            double gone = push(f, i, -room(f, i));
            f->load[i] -= gone;
            moved += gone;
        }
    }
}

/* ---- what the flow says about a pair ---- */

/* Of what flows to explicit token i, the share accepted: p(i) at most. */
static double share(const struct flow *f, size_t i)
{
    double p = f->p[f->id[i]];
    return f->load[i] > p ? p / f->load[i] : 1;
}

/* The mass of pairs that begin with t, which is not explicit, and that no explicit token took. */
static double first_mass(const struct flow *f, size_t t)
{
    double mass = first(f, t) * (f->q_left + f->q_out - (f->repeats ? 0 : f->q[t]));
    return mass > 0 ? mass : 0;
}

/* The share of them that accepts t. */
static double first_share(const struct flow *f, size_t t)
{
    double mass = first_mass(f, t);
    return mass > f->p[t] ? f->p[t] / mass : 1;
}

/* The same for pairs that end with t, after their first token was refused. */
static double second_mass(const struct flow *f, size_t t)
{
    double self = f->repeats ? 0 : first(f, t) * (1 - first_share(f, t));
    double mass = f->q[t] * (f->first_left + f->passed_out - self);
    return mass > 0 ? mass : 0;
}

static double second_share(const struct flow *f, size_t t)
{
    double mass = second_mass(f, t), left = f->p[t] - first_share(f, t) * first_mass(f, t);
    left = left > 0 ? left : 0;
    return mass > left ? left / mass : 1;
}

static void sum_refused(struct flow *f)
{
    f->q_left = f->first_left = f->passed_out = 0;
    for (size_t i = 0; i < f->m; i++) {
        double refused = 1 - share(f, i);
        f->q_left += f->q[f->id[i]] * refused;
        f->first_left += first(f, (size_t)f->id[i]) * refused;
    }
    for (size_t t = 0; t < f->n; t++)
        if (is_outside(f, t))
            f->passed_out += first(f, t) * (1 - first_share(f, t));
}

/* law[n] = what no pair is accepted for, normalised; p where that is nothing but rounding. */
static void residual(const struct flow *f, double *law)
{
    double sum = 0;
    memcpy(law, f->p, f->n * sizeof *law);
    for (size_t i = 0; i < f->m; i++)
        law[f->id[i]] -= share(f, i) * f->load[i];
    for (size_t t = 0; t < f->n; t++) {
        if (is_outside(f, t))
            law[t] -= first_share(f, t) * first_mass(f, t) + second_share(f, t) * second_mass(f, t);
        law[t] = law[t] > 0 ? law[t] : 0;
        sum += law[t];
    }
    for (size_t t = 0; t < f->n; t++)
        law[t] = sum > SB_EMPTY_RESIDUAL ? law[t] / sum : f->p[t];
}

/* weight[3]: accept the first token of the pair, the second, neither. */
static void weigh(const struct flow *f, size_t a, size_t b, double *weight)
{
    size_t i = place_of(f, a), j = place_of(f, b);
    if (i < f->m && j < f->m && i != j) {
        double to_a = f->give[i * f->m + j], to_b = f->give[j * f->m + i];
        weight[0] = to_a * share(f, i);
        weight[1] = to_b * share(f, j);
        weight[2] = to_a * (1 - share(f, i)) + to_b * (1 - share(f, j));
        return;
    }
    /* An explicit token goes first, wherever it stands; the same token twice is only one chance. */
    double take_a = i < f->m ? share(f, i) : first_share(f, a);
    double take_b = j < f->m ? share(f, j) : second_share(f, b);
    if (i < f->m && i == j)
        take_b = 0;
    bool b_first = j < f->m && i == f->m;
    weight[0] = b_first ? (1 - take_b) * take_a : take_a;
    weight[1] = b_first ? take_b : (1 - take_a) * take_b;
    weight[2] = (1 - take_a) * (1 - take_b);
}

/* ---- the walk ---- */

struct memory {
    double *law, *rest; /* [n_vocab] what the pair leaves, and what further draws leave of it */
    struct flow flow;
};

static struct memory lay_out(void *scratch, size_t n, size_t m)
{
    struct memory memory = { .law = scratch };
    memory.rest = memory.law + n;
    memory.flow.give = memory.rest + n;
    memory.flow.load = memory.flow.give + m * m;
    memory.flow.id = (int32_t *)(memory.flow.load + m);
    memory.flow.level = memory.flow.id + m;
    memory.flow.next = memory.flow.level + m;
    memory.flow.queue = memory.flow.next + m;
    return memory;
}

/* The first two draws of a node: *child is the accepted one, or -1, and memory's law is what
 * recursive rejection goes on with. */
static enum sb_status try_pair(const struct sb_site *site, const double *p, const double *q,
                               size_t most, struct memory *memory, int32_t *child,
                               struct sb_error *err)
{
    const struct sb_node *parent = &site->tree->node[site->node];
    const int32_t *draw = site->tree->draw + parent->first_draw;
    sb_token a = site->tree->node[draw[0]].token, b = site->tree->node[draw[1]].token;
    struct flow *f = &memory->flow;
    f->p = p;
    f->q = q;
    f->n = site->n_vocab;
    f->repeats = parent->kind != SB_DRAW_WOR;
    if (a == b && !f->repeats)
        return sb_fail(err, SB_EINTERNAL,
                       "verifier ot-flow: token %" PRId32 " was drawn twice without replacement",
                       a);
    choose_explicit(f, most);
    fill_pairs(f);
    maximise(f);
    sum_refused(f);
    double weight[3];
    weigh(f, (size_t)a, (size_t)b, weight);
    size_t choice = site->dice->pick(site->dice->self, weight, 3);
    *child = choice < 2 ? draw[choice] : -1;
    if (*child < 0)
        residual(f, memory->law);
    return SB_OK;
}

/* All draws of a node; *child: the accepted one, or -1, and then the law is what to draw from. */
static enum sb_status try_node(const struct sb_site *site, const double *p, size_t most,
                               struct memory *memory, const double **law, int32_t *child,
                               struct sb_error *err)
{
    const struct sb_node *parent = &site->tree->node[site->node];
    size_t n = site->n_vocab;
    *child = -1;
    *law = p;
    enum sb_status rc = sb_draws_check(site->verifier, site->tree, site->node, n, err);
    if (rc != SB_OK || parent->kind == SB_DRAW_NONE)
        return rc;
    if (parent->n_draws > 1) {
        rc = try_pair(site, p, parent->q, most, memory, child, err);
        *law = memory->law;
    }
    if (rc == SB_OK && *child < 0) {
        struct sb_rest rest = sb_rest_begin(*law, n);
        *child = sb_rest_try(&rest, site->tree, site->node, parent->n_draws > 1 ? 2 : 0, site->dice,
                             memory->rest);
        *law = rest.p;
    }
    return rc;
}

extern const struct sb_verifier_ops sb_verifier_ot_flow;

static enum sb_status ot_flow_verify(const void *params, const struct sb_tree *tree,
                                     const struct sb_rows *rows, const struct sb_dice *dice,
                                     void *scratch, struct sb_verdict *verdict,
                                     struct sb_error *err)
{
    const struct ot_flow *o = params;
    struct sb_site site = { &sb_verifier_ot_flow, tree, dice, rows->n_vocab, 0 };
    size_t most = (size_t)o->m < rows->n_vocab ? (size_t)o->m : rows->n_vocab;
    struct memory memory = lay_out(scratch, rows->n_vocab, most);
    sb_verdict_begin(verdict, tree);
    for (;;) {
        const double *p, *law;
        int32_t child = -1;
        enum sb_status rc = sb_rows_get(rows, site.node, &p, err);
        sb_dice_seek(dice, (uint64_t)tree->node[site.node].depth + 1);
        if (rc == SB_OK)
            rc = try_node(&site, p, most, &memory, &law, &child, err);
        if (rc != SB_OK)
            return rc;
        if (child < 0) {
            size_t token = dice->pick(dice->self, law, rows->n_vocab);
            sb_verdict_close(verdict, tree, (sb_token)token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        site.node = child;
    }
}

const struct sb_verifier_ops sb_verifier_ot_flow = {
    .name = "ot-flow",
    .summary = "the first two draws of a node by maximum flow: the best acceptance there is",
    .paper = "Sun et al. 2023, arXiv 2310.15141",
    .params = ot_flow_params,
    .params_size = sizeof(struct ot_flow),
    .guarantee = SB_DISTRIBUTION_EXACT,
    .kinds = SB_KIND_BIT(SB_DRAW_IID) | SB_KIND_BIT(SB_DRAW_WOR) | SB_KIND_BIT(SB_DRAW_PATHS),
    .needs_q = true,
    .strength = 8,
    .scratch_size = ot_flow_scratch,
    .verify = ot_flow_verify,
};

/* Recursive speculative decoding by stochastic beam search (methods A 4.8; the search is Kool et al.
 * 2019, arXiv 1903.06059): level by level, the W prefixes that come first when prefixes are drawn
 * without replacement by a small model's probability pi of the whole prefix. A beam's children are
 * draws from its row without replacement, in that order; how many it gets, chance decides.
 *
 * The sources perturb log-probabilities with Gumbel noise conditioned on the parent's. That is a race:
 * prefix x arrives at a time ~ Exp(pi(x)), a parent together with its first child. Only the order of
 * arrivals matters, and a race has no memory, so the order is drawn here, and no times:
 *
 *   the first beam arrives, with a child drawn from its row;
 *   next comes either the next beam, likewise with a child, by the probability of all prefixes that
 *   have not arrived; or another child of a beam b that has, by pi(b) (1 - q_b(its children)).
 *
 * The law is the same (tests/property/test_draw.c compares them); it takes two choices per node instead
 * of noise for every token, and a certifier can enumerate them.
 *
 * At temperature 0 the search is the deterministic one: the W likeliest prefixes of each level at
 * temperature 1. A prefix that ends (end of text, a policy) stays in the beam as it is. */
#include <inttypes.h>
#include <math.h>

#include "drafters/lm_tree.h"
#include "drafters/shape.h"
#include "harness/core/alloc.h"
#include "kernels/kernels.h"

struct rsd_s_params {
    const char *model;
    int64_t width, k;
};

static const struct sb_param rsd_s_params[] = {
    { .name = "model",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct rsd_s_params, model),
      .required = true,
      .meaning = "path of the draft model, or the name of a bundled one" },
    { .name = "width",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rsd_s_params, width),
      .fallback = "3",
      .min = 1,
      .max = SB_DRAW_WIDTH,
      .meaning = "beams, and so nodes per level" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct rsd_s_params, k),
      .fallback = "4",
      .min = 1,
      .max = 256,
      .meaning = "draft length: levels" },
    { 0 },
};

/* A prefix of the newest level, and what has been drawn below it. */
struct beam {
    int32_t node;
    bool open;       /* goes on: its row is there */
    double log_prob; /* of the prefix */
    struct sb_urn urn;
    double left; /* in the urn */
};

/* A prefix of the next level. */
struct arrival {
    int32_t parent; /* a beam */
    sb_token token; /* -1: the parent itself, which has ended */
    double log_prob;
};

struct rsd_s {
    struct sb_lm_tree lt; /* first */
    int32_t width, k;
    struct beam beam[SB_DRAW_WIDTH]; /* in order of arrival */
    struct arrival arrival[SB_DRAW_WIDTH];
    int32_t n_beams, n_arrivals;
    char *urn_memory; /* [width] of sb_urn_bytes */
};

/* ---- a level above temperature 0 ---- */

static void draw_child(struct rsd_s *rsd, int32_t b, const struct sb_dice *dice)
{
    struct beam *beam = &rsd->beam[b];
    struct arrival child = { .parent = b, .token = -1, .log_prob = beam->log_prob };
    if (beam->open) {
        child.token = sb_urn_draw(&beam->urn, dice);
        child.log_prob += sb_log(beam->urn.q[child.token]);
        sb_urn_take(&beam->urn, child.token);
        beam->left = sb_urn_left(&beam->urn);
    }
    rsd->arrival[rsd->n_arrivals++] = child;
}

/* Probability of all prefixes of the level but the first n beams. */
static double not_arrived(const struct rsd_s *rsd, int32_t n)
{
    double others = 1, coming = 0;
    for (int32_t i = 0; i < rsd->n_beams; i++) {
        double prob = sb_exp(rsd->beam[i].log_prob);
        others -= prob;
        coming += i >= n ? prob : 0;
    }
    return (others > 0 ? others : 0) + coming;
}

/* Which beam has the next child, of those that have arrived or the one after them; -1: none has. */
static int32_t next_parent(const struct rsd_s *rsd, int32_t arrived, const struct sb_dice *dice)
{
    double weight[SB_DRAW_WIDTH + 1], total = 0, scale = -INFINITY;
    bool more = arrived < rsd->n_beams;
    if (arrived == 0)
        return 0;
    /* Against beams to come, pi counts as it is; among those that are there, relatively: deep down it
     * may be too small for a double. */
    for (int32_t b = 0; b < arrived; b++)
        if (rsd->beam[b].left > 0 && rsd->beam[b].log_prob > scale)
            scale = rsd->beam[b].log_prob;
    for (int32_t b = 0; b < arrived; b++) {
        const struct beam *beam = &rsd->beam[b];
        double log_weight = more ? beam->log_prob : beam->log_prob - scale;
        weight[b] = beam->left > 0 ? sb_exp(log_weight) * beam->left : 0;
        total += weight[b];
    }
    weight[arrived] = more ? not_arrived(rsd, arrived) : 0;
    if (!(total + weight[arrived] > 0))
        return more ? arrived : -1;
    return (int32_t)dice->pick(dice->self, weight, (size_t)arrived + 1);
}

static void draw_arrivals(struct rsd_s *rsd, const struct sb_dice *dice)
{
    int32_t arrived = 0;
    rsd->n_arrivals = 0;
    while (rsd->n_arrivals < rsd->width) {
        int32_t b = next_parent(rsd, arrived, dice);
        if (b < 0)
            break;
        draw_child(rsd, b, dice);
        arrived += b == arrived;
    }
}

/* ---- a level at temperature 0 ---- */

static void insert_arrival(struct rsd_s *rsd, const struct arrival *candidate)
{
    int32_t at = rsd->n_arrivals < rsd->width ? rsd->n_arrivals++ : rsd->width;
    for (; at > 0 && candidate->log_prob > rsd->arrival[at - 1].log_prob; at--)
        if (at < rsd->width)
            rsd->arrival[at] = rsd->arrival[at - 1];
    if (at < rsd->width)
        rsd->arrival[at] = *candidate;
}

/* The likeliest; on ties the earlier beam, then the smaller id. */
static void choose_arrivals(struct rsd_s *rsd)
{
    size_t n = rsd->lt.feeder.n_shared;
    rsd->n_arrivals = 0;
    for (int32_t b = 0; b < rsd->n_beams; b++) {
        const struct beam *beam = &rsd->beam[b];
        struct arrival candidate = { .parent = b, .token = -1, .log_prob = beam->log_prob };
        if (!beam->open) {
            insert_arrival(rsd, &candidate);
            continue;
        }
        const float *logits = sb_lm_tree_logits(&rsd->lt, beam->node);
        int32_t top[SB_DRAW_WIDTH];
        size_t found = sb_top_logits(top, (size_t)rsd->width, logits, n, -INFINITY);
        double log_sum = (double)sb_logsumexp(logits, n);
        for (size_t i = 0; i < found; i++) {
            candidate.token = top[i];
            candidate.log_prob = beam->log_prob + ((double)logits[top[i]] - log_sum);
            insert_arrival(rsd, &candidate);
        }
    }
}

/* ---- levels ---- */

/* The level before is the beam; its open nodes have their rows. */
static void open_beams(struct rsd_s *rsd, const int32_t *node, int32_t n)
{
    if (node[0] == 0) {
        rsd->beam[0] = (struct beam){ 0 };
        rsd->n_beams = 1;
    }
    for (int32_t b = 0; b < rsd->n_beams; b++) {
        struct beam *beam = &rsd->beam[b];
        beam->left = 0;
        beam->open = false;
        for (int32_t i = 0; i < n; i++)
            beam->open = beam->open || node[i] == beam->node;
        if (beam->open && !rsd->lt.greedy)
            sb_urn_fill(&beam->urn, sb_lm_tree_row(&rsd->lt, beam->node), rsd->lt.feeder.n_shared,
                        rsd->urn_memory + (size_t)b * sb_urn_bytes(rsd->lt.feeder.n_shared));
    }
}

/* Attach the arrivals parent by parent, each one's in order; they become the beam. */
static void attach(struct rsd_s *rsd, struct sb_tree *tree)
{
    int32_t node[SB_DRAW_WIDTH];
    for (int32_t b = 0; b < rsd->n_beams; b++) {
        for (int32_t i = 0; i < rsd->n_arrivals; i++) {
            const struct arrival *a = &rsd->arrival[i];
            const double *q = rsd->beam[b].urn.q;
            if (a->parent != b)
                continue;
            if (a->token < 0)
                node[i] = -1;
            else if (rsd->lt.greedy)
                node[i] = sb_tree_add(tree, rsd->beam[b].node, a->token, 0);
            else
                node[i] = sb_tree_draw(tree, rsd->beam[b].node, a->token, SB_DRAW_WOR, q,
                                       (float)sb_log(q[a->token]), 0);
        }
    }
    for (int32_t i = 0; i < rsd->n_arrivals; i++) {
        rsd->beam[i].node = node[i];
        rsd->beam[i].log_prob = rsd->arrival[i].log_prob;
    }
    rsd->n_beams = rsd->n_arrivals;
}

static void draw_level(void *self, const struct sb_context *ctx, struct sb_tree *tree,
                       const int32_t *node, int32_t n)
{
    struct rsd_s *rsd = self;
    open_beams(rsd, node, n);
    if (rsd->lt.greedy)
        choose_arrivals(rsd);
    else
        draw_arrivals(rsd, &ctx->dice);
    attach(rsd, tree);
}

/* ---- the drafter ---- */

static int32_t most_nodes(const void *self, int32_t depth)
{
    return ((const struct rsd_s *)self)->width * depth;
}

static bool rsd_s_branches(const void *params)
{
    return !params || ((const struct rsd_s_params *)params)->width > 1;
}

static int32_t rsd_s_max_nodes(const void *params, const struct sb_policy *policy)
{
    const struct rsd_s_params *p = params;
    int64_t n = p->width * sb_policy_longest(policy, (int32_t)p->k);
    return n <= SB_SHAPE_NODES ? (int32_t)n : 0; /* open reports what is wrong */
}

static enum sb_status rsd_s_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct rsd_s *rsd = st;
    const struct rsd_s_params *p = env->params;
    int32_t depth = sb_policy_longest(env->policy, (int32_t)p->k);
    rsd->width = (int32_t)p->width;
    rsd->k = (int32_t)p->k;
    if (most_nodes(rsd, depth) > SB_SHAPE_NODES)
        return sb_fail(err, SB_EUSAGE,
                       "drafter rsd-s: width=%" PRId32 " and %" PRId32
                       " levels: expected at most %d nodes in all",
                       rsd->width, depth, SB_SHAPE_NODES);
    const struct sb_lm_tree_options options = {
        .drafter = "rsd-s", .model = p->model, .depth = depth, .most_nodes = most_nodes, .self = rsd
    };
    enum sb_status rc = sb_lm_tree_open(&rsd->lt, env, &options, err);
    if (rc != SB_OK)
        return rc;
    rsd->urn_memory = sb_alloc_array((size_t)rsd->width, sb_urn_bytes(rsd->lt.feeder.n_shared));
    return rsd->urn_memory ? SB_OK : sb_fail(err, SB_ENOMEM, "drafter rsd-s: no memory for beams");
}

static enum sb_status rsd_s_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                    struct sb_error *err)
{
    struct rsd_s *rsd = st;
    return sb_lm_tree_grow(&rsd->lt, ctx, tree, sb_policy_plan(ctx->policy, rsd->k), draw_level,
                           rsd, err);
}

static void rsd_s_close(void *st)
{
    struct rsd_s *rsd = st;
    sb_free(rsd->urn_memory);
    rsd->urn_memory = NULL;
    sb_lm_tree_close(&rsd->lt);
}

const struct sb_drafter_ops sb_drafter_rsd_s = {
    .name = "rsd-s",
    .summary = "a small model's stochastic beam search: prefixes without replacement",
    .paper = "Jeon et al. 2024, arXiv 2402.14160",
    .params = rsd_s_params,
    .params_size = sizeof(struct rsd_s_params),
    .state_size = sizeof(struct rsd_s),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .kinds_sampling = SB_KIND_BIT(SB_DRAW_WOR),
    .draft_rows = SB_DRAFT_ROWS_ALL,
    .makes_trees = true,
    .branches = rsd_s_branches,
    .open = rsd_s_open,
    .begin = sb_lm_tree_begin,
    .propose = rsd_s_propose,
    .observe = sb_lm_tree_observe,
    .close = rsd_s_close,
    .max_nodes = rsd_s_max_nodes,
};

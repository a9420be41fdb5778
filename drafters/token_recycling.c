/* Token Recycling (methods C 1.8): for every token, the likeliest tokens behind it as the target last
 * said, whether its row was accepted or not. A draft fills a fixed tree from that table: a child of
 * rank r is the r-th likeliest behind its parent.
 *
 * Where a step computed several rows of one token, the last in tree order is kept (the original leaves
 * it to chance). A token without a row gets no children (the original drafts token 0). Rows of the
 * prompt are not learned from, as in the original. Fewer than 80 nodes are those of least depth + sum
 * of ranks; the paper has only the 80.
 *
 * Memory: n_vocab * width * 4 bytes, at open; nothing grows. The policy's length is the depth here. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "drafters/scope.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "harness/decode/draw.h"

enum { MOST_NODES = 80, MOST_WIDTH = 8, DEPTH = 6 };

/* The authors' tree: children of each node, level by level, in the order the levels come out. */
static const uint8_t n_children[] = {
    8,                                                                         /* the root */
    8, 4, 3, 2, 1, 1, 1, 1,                                                    /* depth 1 */
    8, 3, 2, 1, 1, 1, 1, 1, 2, 1, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0,             /* 2 */
    5, 2, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 1, 0, 0, /* 3 */
    3, 1, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0,                               /* 4 */
    2, 0, 0, 1, 0, 0, 0, 0,                                                    /* 5 */
};

struct token_recycling_params {
    int64_t width, nodes;
    const char *scope;
};

static const struct sb_param token_recycling_params[] = {
    { .name = "width",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct token_recycling_params, width),
      .fallback = "8",
      .min = 1,
      .max = MOST_WIDTH,
      .meaning = "candidates kept per token; the tree has no child beyond them" },
    { .name = "nodes",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct token_recycling_params, nodes),
      .fallback = "80",
      .min = 1,
      .max = MOST_NODES,
      .meaning = "size of the tree, the root left out" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct token_recycling_params, scope),
      .fallback = "run",
      .choices = SB_SCOPE_CHOICES,
      .meaning = SB_SCOPE_MEANING },
    { 0 },
};

/* A place of the tree; place 0 is the root. */
struct place {
    int8_t parent, rank, depth;
    int16_t cost; /* depth + sum of ranks on the way: what is left out first */
};

struct token_recycling {
    struct sb_scope scope;
    struct place place[MOST_NODES + 1];
    int32_t n_places;
    size_t width, n_vocab;
    sb_token *behind; /* [n_vocab, width] likeliest first, -1: none */
};

static int32_t full_tree(struct place *place)
{
    int32_t n = 1;
    place[0] = (struct place){ .parent = -1 };
    for (int32_t i = 0; i < (int32_t)sizeof n_children; i++)
        for (int32_t r = 0; r < n_children[i]; r++)
            place[n++] = (struct place){ (int8_t)i, (int8_t)r, (int8_t)(place[i].depth + 1),
                                         (int16_t)(place[i].cost + 1 + r) };
    return n;
}

/* Keep the cheapest `nodes` places of ranks below `width`, earlier ones on ties. Costs grow downwards,
 * so what is kept has its parents. */
static int32_t cut_tree(struct place *place, int32_t n, int32_t width, int32_t nodes)
{
    int8_t now[MOST_NODES + 1] = { 0 }; /* where a place went, 0: left out */
    int32_t taken = 0;
    for (int32_t cost = 1; taken < nodes && cost <= DEPTH * MOST_WIDTH; cost++)
        for (int32_t i = 1; i < n && taken < nodes; i++)
            if (place[i].cost == cost && place[i].rank < width &&
                (place[i].parent == 0 || now[place[i].parent])) {
                now[i] = 1;
                taken++;
            }
    int32_t kept = 1;
    for (int32_t i = 1; i < n; i++)
        if (now[i]) {
            now[i] = (int8_t)kept;
            place[kept] = place[i];
            place[kept].parent = place[i].parent == 0 ? 0 : now[place[i].parent];
            kept++;
        }
    return kept;
}

static void forget(struct token_recycling *tr)
{
    memset(tr->behind, 0xff, tr->n_vocab * tr->width * sizeof *tr->behind);
}

static enum sb_status token_recycling_open(void *st, const struct sb_drafter_env *env,
                                           struct sb_error *err)
{
    struct token_recycling *tr = st;
    const struct token_recycling_params *params = env->params;
    tr->width = (size_t)params->width;
    tr->n_vocab = env->n_vocab;
    tr->n_places =
        cut_tree(tr->place, full_tree(tr->place), (int32_t)params->width, (int32_t)params->nodes);
    enum sb_status rc =
        sb_scope_init(&tr->scope, params->scope, env->max_context, "token-recycling", err);
    if (rc != SB_OK)
        return rc;
    if (env->n_vocab <= SIZE_MAX / MOST_WIDTH)
        tr->behind = sb_alloc_array(env->n_vocab * tr->width, sizeof *tr->behind);
    if (!tr->behind)
        return sb_fail(err, SB_ENOMEM,
                       "drafter token-recycling: no memory for %zu candidates of %zu tokens",
                       tr->width, env->n_vocab);
    forget(tr);
    return SB_OK;
}

static void token_recycling_close(void *st)
{
    struct token_recycling *tr = st;
    sb_scope_finish(&tr->scope);
    sb_free(tr->behind);
    tr->behind = NULL;
}

static enum sb_status token_recycling_begin(void *st, const struct sb_context *ctx,
                                            struct sb_error *err)
{
    struct token_recycling *tr = st;
    if (sb_scope_forgets(&tr->scope, ctx))
        forget(tr);
    return SB_OK;
}

static enum sb_status token_recycling_propose(void *st, const struct sb_context *ctx,
                                              struct sb_tree *tree, struct sb_error *err)
{
    const struct token_recycling *tr = st;
    int32_t depth = sb_policy_plan(ctx->policy, DEPTH);
    int32_t node[MOST_NODES + 1] = { 0 }; /* of each place, -1: none */
    for (int32_t i = 1; i < tr->n_places && tr->place[i].depth <= depth; i++) {
        const struct place *place = &tr->place[i];
        int32_t parent = node[place->parent];
        sb_token token =
            parent < 0
                ? -1
                : tr->behind[(size_t)tree->node[parent].token * tr->width + (size_t)place->rank];
        node[i] = token < 0 ? -1 : sb_tree_add(tree, parent, token, place->rank);
    }
    return SB_OK;
}

static enum sb_status token_recycling_observe(void *st, const struct sb_context *ctx,
                                              const struct sb_outcome *outcome,
                                              struct sb_error *err)
{
    struct token_recycling *tr = st;
    for (int32_t i = 0; i < outcome->tree->n; i++) {
        const float *logits = sb_seq_logits(outcome->target, (size_t)i);
        sb_token *behind = tr->behind + (size_t)outcome->tree->node[i].token * tr->width;
        size_t n = logits ? sb_top_logits(behind, tr->width, logits, tr->n_vocab, -INFINITY) : 0;
        for (; logits && n < tr->width; n++)
            behind[n] = -1;
    }
    return SB_OK;
}

static bool token_recycling_branches(const void *params)
{
    const struct token_recycling_params *p = params;
    return !p || (p->width > 1 && p->nodes > 1);
}

static int32_t token_recycling_max_nodes(const void *params, const struct sb_policy *policy)
{
    return (int32_t)((const struct token_recycling_params *)params)->nodes;
}

const struct sb_drafter_ops sb_drafter_token_recycling = {
    .name = "token-recycling",
    .summary = "a fixed tree filled with what the target last said behind each token",
    .paper = "Luo et al. 2024, arXiv 2408.08696",
    .params = token_recycling_params,
    .params_size = sizeof(struct token_recycling_params),
    .state_size = sizeof(struct token_recycling),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .target_rows = SB_TARGET_ROWS_ANY,
    .makes_trees = true,
    .branches = token_recycling_branches,
    .open = token_recycling_open,
    .begin = token_recycling_begin,
    .propose = token_recycling_propose,
    .observe = token_recycling_observe,
    .close = token_recycling_close,
    .max_nodes = token_recycling_max_nodes,
};

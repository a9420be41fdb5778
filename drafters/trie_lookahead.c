/* Lookahead with a trie (methods C 1.7): every token of prompt and output, with the branch of tokens
 * behind it, goes into a trie that counts; a draft is the best counted part of what is below the last
 * tokens of the text. Counts of the prompt go with the prompt, counts of outputs stay.
 *
 * Prompt branches are there at begin; a branch of the output when all its tokens are, and what is left
 * when the next prompt comes. Branches end behind an end token, and none begins at one.
 *
 * select=best is what the original is meant to do: half the draft for the best by output counts, the
 * rest by prompt counts, outputs on ties. select=dfs is what its code does where all fits: depth first
 * until full. Equal counts: the older node. Differs from the original: one bound for the whole trie
 * instead of one per first token, kept at begin: nodes of prompts alone go first, then output counts
 * are halved and those below 1 dropped until it holds; no stop words, no chains in place of the tree.
 *
 * Per token one branch of insertions, a step into a hash each. A draft looks through the children of
 * the nodes it takes. Memory at open: about 45 bytes for each of keep + max_context * (branch + 1)
 * nodes (no `keep` with scope=prompt); nothing grows. */
#include <inttypes.h>
#include <string.h>

#include "drafters/scope.h"
#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"

enum { MOST_DRAFT = 256, MOST_BRANCH = 64 };
#define OUTPUT_WEIGHT 1e-4 /* of an output count beside a prompt count */

struct trie_lookahead_params {
    int64_t k, branch, query, keep;
    const char *select, *scope;
};

static const struct sb_param trie_lookahead_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct trie_lookahead_params, k),
      .fallback = "63",
      .min = 1,
      .max = MOST_DRAFT,
      .meaning = "largest draft" },
    { .name = "branch",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct trie_lookahead_params, branch),
      .fallback = "12",
      .min = 1,
      .max = MOST_BRANCH,
      .meaning = "tokens kept behind each token" },
    { .name = "query",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct trie_lookahead_params, query),
      .fallback = "2",
      .min = 1,
      .max = MOST_BRANCH,
      .meaning = "most tokens to look up; fewer are tried when less than `branch` nodes follow" },
    { .name = "select",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct trie_lookahead_params, select),
      .fallback = "best",
      .choices = "best|dfs",
      .meaning = "which nodes where there are too many" },
    { .name = "keep",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct trie_lookahead_params, keep),
      .fallback = "131072",
      .min = 1,
      .max = 1 << 26,
      .meaning = "nodes that outlive a prompt" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct trie_lookahead_params, scope),
      .fallback = "run",
      .choices = SB_SCOPE_CHOICES,
      .meaning = "outputs are kept for this prompt, the conversation, or the run" },
    { 0 },
};

struct trie_node {
    int32_t parent; /* has a smaller index */
    sb_token token;
    int32_t child, next; /* newest child; older sibling; -1: none */
    int32_t n_output, n_prompt;
    uint32_t request; /* that n_prompt belongs to */
};

struct trie_lookahead {
    struct trie_lookahead_params params;
    struct sb_scope scope;
    const sb_token *eos;
    size_t n_eos, max_context;
    bool dfs;
    size_t keep, n, cap, n_slots;
    struct trie_node *node; /* [cap]; 0 is the root */
    int32_t *moved;         /* [cap] while it is squeezed */
    int32_t *slot;          /* [n_slots] hash of (parent, token) to a node, -1: empty */
    uint32_t request;
    size_t n_inserted;              /* output tokens whose branches are in */
    sb_token tail[MOST_BRANCH + 1]; /* those behind them */
    size_t n_tail;
};

/* ---- the trie ---- */

static size_t find_slot(const struct trie_lookahead *tl, int32_t parent, sb_token token)
{
    uint64_t key = ((uint64_t)(uint32_t)parent << 32 | (uint32_t)token) * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(key >> 32 ^ key >> 15) & (tl->n_slots - 1);
    while (tl->slot[i] >= 0 &&
           (tl->node[tl->slot[i]].parent != parent || tl->node[tl->slot[i]].token != token))
        i = (i + 1) & (tl->n_slots - 1);
    return i;
}

static int32_t prompt_count(const struct trie_lookahead *tl, int32_t node)
{
    return tl->node[node].request == tl->request ? tl->node[node].n_prompt : 0;
}

static bool counts(const struct trie_lookahead *tl, int32_t node)
{
    return tl->node[node].n_output > 0 || prompt_count(tl, node) > 0;
}

static double weight_of(const struct trie_lookahead *tl, int32_t node)
{
    return (1 - OUTPUT_WEIGHT) * prompt_count(tl, node) + OUTPUT_WEIGHT * tl->node[node].n_output;
}

static void clear(struct trie_lookahead *tl)
{
    memset(tl->slot, 0xff, tl->n_slots * sizeof *tl->slot);
    tl->node[0] = (struct trie_node){ .parent = -1, .token = -1, .child = -1, .next = -1 };
    tl->n = 1;
}

static void link_node(struct trie_lookahead *tl, int32_t i)
{
    struct trie_node *node = &tl->node[i], *parent = &tl->node[node->parent];
    node->child = -1;
    node->next = parent->child;
    parent->child = i;
    tl->slot[find_slot(tl, node->parent, node->token)] = i;
}

static bool is_end(const struct trie_lookahead *tl, sb_token token)
{
    bool end = false;
    for (size_t i = 0; i < tl->n_eos; i++)
        end = end || tl->eos[i] == token;
    return end;
}

/* x[0] and the branch behind it, of n tokens in all. */
static void insert(struct trie_lookahead *tl, const sb_token *x, size_t n, bool output)
{
    int32_t at = 0;
    if (n > (size_t)tl->params.branch + 1)
        n = (size_t)tl->params.branch + 1;
    for (size_t i = 0; i < n && !(i == 0 ? is_end(tl, x[0]) : is_end(tl, x[i - 1])); i++) {
        int32_t next = tl->slot[find_slot(tl, at, x[i])];
        if (next < 0) {
            next = (int32_t)tl->n++;
            tl->node[next] = (struct trie_node){ .parent = at, .token = x[i] };
            link_node(tl, next);
        }
        struct trie_node *node = &tl->node[next];
        node->n_prompt = prompt_count(tl, next) + !output;
        node->request = tl->request;
        node->n_output += output;
        at = next;
    }
}

/* Keep the nodes whose output count, shifted right, is above 0. Counts do not grow downwards, so what
 * is kept has its parents. */
static void squeeze(struct trie_lookahead *tl, int shift)
{
    size_t old_n = tl->n;
    clear(tl);
    tl->moved[0] = 0;
    for (size_t i = 1; i < old_n; i++) {
        struct trie_node node = tl->node[i];
        node.n_output >>= shift;
        if (node.n_output == 0)
            continue;
        node.parent = tl->moved[node.parent];
        tl->moved[i] = (int32_t)tl->n;
        tl->node[tl->n] = node;
        link_node(tl, (int32_t)tl->n++);
    }
}

/* ---- learning ---- */

static enum sb_status trie_lookahead_open(void *st, const struct sb_drafter_env *env,
                                          struct sb_error *err)
{
    struct trie_lookahead *tl = st;
    tl->params = *(const struct trie_lookahead_params *)env->params;
    tl->dfs = strcmp(tl->params.select, "dfs") == 0;
    tl->eos = env->eos;
    tl->n_eos = env->n_eos;
    tl->max_context = env->max_context;
    enum sb_status rc =
        sb_scope_init(&tl->scope, tl->params.scope, env->max_context, "trie-lookahead", err);
    if (rc != SB_OK)
        return rc;
    tl->keep = tl->scope.reach == SB_SCOPE_PROMPT ? 0 : (size_t)tl->params.keep;
    if (env->max_context < INT32_MAX / 8 / (MOST_BRANCH + 1)) {
        tl->cap = 1 + tl->keep + env->max_context * ((size_t)tl->params.branch + 1);
        for (tl->n_slots = 16; tl->n_slots < 2 * tl->cap;)
            tl->n_slots *= 2;
        tl->node = sb_alloc_array(tl->cap, sizeof *tl->node);
        tl->moved = sb_alloc_array(tl->cap, sizeof *tl->moved);
        tl->slot = sb_alloc_array(tl->n_slots, sizeof *tl->slot);
    }
    if (!tl->node || !tl->moved || !tl->slot)
        return sb_fail(err, SB_ENOMEM,
                       "drafter trie-lookahead: no memory for branches of %zu tokens and %zu nodes",
                       env->max_context, tl->keep);
    clear(tl);
    return SB_OK;
}

static void trie_lookahead_close(void *st)
{
    struct trie_lookahead *tl = st;
    sb_scope_finish(&tl->scope);
    sb_free(tl->node);
    sb_free(tl->moved);
    sb_free(tl->slot);
    tl->node = NULL;
    tl->moved = NULL;
    tl->slot = NULL;
}

/* Take in the branches of the output that are complete by now. */
static void read_on(struct trie_lookahead *tl, const struct sb_context *ctx)
{
    size_t length = (size_t)tl->params.branch + 1, from = ctx->n_prompt + tl->n_inserted;
    if (ctx->n > tl->max_context || ctx->n < from)
        return;
    for (; ctx->n - from >= length; from++, tl->n_inserted++)
        insert(tl, ctx->tokens + from, length, true);
    tl->n_tail = ctx->n - from;
    memcpy(tl->tail, ctx->tokens + from, tl->n_tail * sizeof *tl->tail);
}

static enum sb_status trie_lookahead_begin(void *st, const struct sb_context *ctx,
                                           struct sb_error *err)
{
    struct trie_lookahead *tl = st;
    for (size_t i = 0; i + 1 < tl->n_tail; i++)
        insert(tl, tl->tail + i, tl->n_tail - i, true);
    if (sb_scope_forgets(&tl->scope, ctx))
        clear(tl);
    for (int shift = 0; tl->n > tl->keep + 1; shift = 1)
        squeeze(tl, shift);
    tl->n_inserted = tl->n_tail = 0;
    tl->request++;
    if (ctx->n > tl->max_context)
        return SB_OK;
    for (size_t i = 0; i + 1 < ctx->n_prompt; i++)
        insert(tl, ctx->tokens + i, ctx->n_prompt - i, false);
    read_on(tl, ctx);
    return SB_OK;
}

static enum sb_status trie_lookahead_observe(void *st, const struct sb_context *ctx,
                                             const struct sb_outcome *outcome, struct sb_error *err)
{
    read_on(st, ctx);
    return SB_OK;
}

/* ---- drafting ---- */

/* How many nodes count below `at`, up to `most`. */
static int32_t count_below(const struct trie_lookahead *tl, int32_t at, int32_t most)
{
    int32_t found = 0;
    for (int32_t c = tl->node[at].child; c >= 0 && found < most; c = tl->node[c].next)
        if (counts(tl, c))
            found += 1 + count_below(tl, c, most - found - 1);
    return found;
}

/* The node to draft below, 0: none. */
static int32_t look_up(const struct trie_lookahead *tl, const struct sb_context *ctx)
{
    int32_t last = 0, enough = (int32_t)tl->params.branch;
    size_t longest = (size_t)tl->params.query < ctx->n ? (size_t)tl->params.query : ctx->n;
    for (size_t q = longest; q >= 1; q--) {
        int32_t at = 0;
        for (size_t i = ctx->n - q; i < ctx->n && at >= 0; i++) {
            at = tl->slot[find_slot(tl, at, ctx->tokens[i])];
            at = at >= 0 && counts(tl, at) ? at : -1;
        }
        int32_t below = at < 0 ? 0 : count_below(tl, at, enough);
        last = below > 0 ? at : last;
        if (below >= enough)
            break;
    }
    return last;
}

struct ranked {
    int32_t node;
    double weight;
};

static bool ahead(const struct ranked *a, const struct ranked *b)
{
    return a->weight != b->weight ? a->weight > b->weight : a->node < b->node;
}

/* The best nodes that may come next, best first. As many as can still be taken are enough: nothing
 * below a node is ahead of it. */
struct frontier {
    int32_t n, most;
    struct ranked item[MOST_DRAFT];
};

static void open_children(struct frontier *f, const struct trie_lookahead *tl, int32_t at,
                          bool outputs)
{
    for (int32_t c = tl->node[at].child; c >= 0; c = tl->node[c].next) {
        struct ranked r = { c, outputs ? tl->node[c].n_output : weight_of(tl, c) };
        if (!(r.weight > 0) || (f->n == f->most && !ahead(&r, &f->item[f->n - 1])))
            continue;
        int32_t i = f->n < f->most ? f->n++ : f->n - 1;
        for (; i > 0 && ahead(&r, &f->item[i - 1]); i--)
            f->item[i] = f->item[i - 1];
        f->item[i] = r;
    }
}

/* Nodes taken for a draft, in the order they were. */
struct taken {
    int32_t n;
    int32_t node[MOST_DRAFT];
};

static bool has(const struct taken *t, int32_t node)
{
    bool found = false;
    for (int32_t i = 0; i < t->n; i++)
        found = found || t->node[i] == node;
    return found;
}

/* Take the best nodes below `at` until there are `most`. */
static void take_best(struct taken *t, const struct trie_lookahead *tl, int32_t at, int32_t most,
                      bool outputs)
{
    struct frontier f = { .n = 0, .most = most };
    for (open_children(&f, tl, at, outputs); f.n > 0 && t->n < most;) {
        int32_t node = f.item[0].node;
        memmove(f.item, f.item + 1, (size_t)--f.n * sizeof *f.item);
        if (outputs || !has(t, node))
            t->node[t->n++] = node;
        open_children(&f, tl, node, outputs);
    }
}

/* The best child of `at` behind `before` (NULL: of all) among those taken (NULL: all); -1: none. */
static struct ranked next_child(const struct trie_lookahead *tl, int32_t at,
                                const struct ranked *before, const struct taken *taken)
{
    struct ranked best = { -1, 0 };
    int32_t c = tl->node[at].child;
    for (int32_t i = 0; taken ? i < taken->n : c >= 0; i++) {
        int32_t node = taken ? taken->node[i] : c;
        struct ranked r = { node, weight_of(tl, node) };
        bool comes = tl->node[node].parent == at && r.weight > 0 && (!before || ahead(before, &r));
        if (comes && (best.node < 0 || ahead(&r, &best)))
            best = r;
        c = taken ? c : tl->node[c].next;
    }
    return best;
}

/* Depth first, the better child first, at most `most` nodes in the tree. */
static void emit(const struct trie_lookahead *tl, int32_t at, const struct taken *taken,
                 struct sb_tree *tree, int32_t node, int32_t most)
{
    struct ranked r = next_child(tl, at, NULL, taken);
    for (; r.node >= 0 && tree->n <= most; r = next_child(tl, at, &r, taken)) {
        int32_t child = sb_tree_add(tree, node, tl->node[r.node].token, tl->node[r.node].n_output);
        if (child < 0)
            break;
        emit(tl, r.node, taken, tree, child, most);
    }
}

static enum sb_status trie_lookahead_propose(void *st, const struct sb_context *ctx,
                                             struct sb_tree *tree, struct sb_error *err)
{
    struct trie_lookahead *tl = st;
    struct taken taken = { .n = 0 };
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)tl->params.k);
    k = k < MOST_DRAFT ? k : MOST_DRAFT;
    k = k < tree->cap - 1 ? k : tree->cap - 1;
    if (k < 1 || tree->max_depth < 1)
        return SB_OK;
    read_on(tl, ctx);
    int32_t at = look_up(tl, ctx);
    if (at == 0)
        return SB_OK;
    if (!tl->dfs) {
        take_best(&taken, tl, at, (k + 1) / 2, true);
        take_best(&taken, tl, at, k, false);
    }
    emit(tl, at, tl->dfs ? NULL : &taken, tree, 0, k);
    return SB_OK;
}

static bool trie_lookahead_branches(const void *params)
{
    return !params || ((const struct trie_lookahead_params *)params)->k > 1;
}

static int32_t trie_lookahead_max_nodes(const void *params, const struct sb_policy *policy)
{
    int32_t k =
        sb_policy_longest(policy, (int32_t)((const struct trie_lookahead_params *)params)->k);
    return k < MOST_DRAFT ? k : MOST_DRAFT;
}

const struct sb_drafter_ops sb_drafter_trie_lookahead = {
    .name = "trie-lookahead",
    .summary = "the best counted branches of a trie of prompt and outputs",
    .paper = "Zhao et al. 2023, arXiv 2312.12728",
    .params = trie_lookahead_params,
    .params_size = sizeof(struct trie_lookahead_params),
    .state_size = sizeof(struct trie_lookahead),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .makes_trees = true,
    .branches = trie_lookahead_branches,
    .open = trie_lookahead_open,
    .begin = trie_lookahead_begin,
    .propose = trie_lookahead_propose,
    .observe = trie_lookahead_observe,
    .close = trie_lookahead_close,
    .max_nodes = trie_lookahead_max_nodes,
};

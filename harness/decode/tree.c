#include "harness/decode/tree.h"

#include <inttypes.h>
#include <math.h>

#include "harness/core/alloc.h"

const char *sb_draw_kind_name(enum sb_draw_kind kind)
{
    static const char *const names[] = { "none",  "onehot", "iid",    "wor",
                                         "paths", "hub",    "topk+1", "mixture" };
    return (unsigned)kind < sizeof names / sizeof *names ? names[kind] : "unknown";
}

enum sb_status sb_tree_create(struct sb_tree *tree, int32_t cap, struct sb_error *err)
{
    if (cap < 1)
        return sb_fail(err, SB_EINTERNAL, "draft tree: capacity %" PRId32 ", expected at least 1",
                       cap);
    struct sb_node *node = sb_alloc_array((size_t)cap, sizeof *node);
    int32_t *draw = sb_alloc_array((size_t)cap, sizeof *draw);
    const double **draw_q = sb_alloc_array((size_t)cap, sizeof *draw_q);
    if (!node || !draw || !draw_q) {
        sb_free(node);
        sb_free(draw);
        sb_free(draw_q);
        return sb_fail(err, SB_ENOMEM, "draft tree: no memory for %" PRId32 " nodes", cap);
    }
    *tree = (struct sb_tree){ .node = node, .draw = draw, .draw_q = draw_q, .cap = cap };
    sb_tree_reset(tree, 0, 0);
    return SB_OK;
}

void sb_tree_finish(struct sb_tree *tree)
{
    if (!tree)
        return;
    sb_free(tree->node);
    sb_free(tree->draw);
    sb_free(tree->draw_q);
    *tree = (struct sb_tree){ 0 };
}

void sb_tree_reset(struct sb_tree *tree, sb_token root, int32_t max_depth)
{
    tree->node[0] = (struct sb_node){ .token = root, .parent = -1 };
    tree->n = 1;
    tree->n_draws = 0;
    tree->n_auxiliary = 0;
    tree->trusted = false;
    tree->max_depth = max_depth;
}

bool sb_tree_ends(const struct sb_tree *tree, sb_token token)
{
    for (size_t i = 0; i < tree->n_eos; i++)
        if (tree->eos[i] == token)
            return true;
    return false;
}

int32_t sb_tree_child(const struct sb_tree *tree, int32_t parent, sb_token token)
{
    for (int32_t i = parent + 1; i < tree->n; i++)
        if (tree->node[i].parent == parent && tree->node[i].token == token &&
            !tree->node[i].auxiliary)
            return i;
    return -1;
}

static int32_t count_children(const struct sb_tree *tree, int32_t parent, bool auxiliary)
{
    int32_t n = 0;
    for (int32_t i = parent + 1; i < tree->n; i++)
        n += tree->node[i].parent == parent && tree->node[i].auxiliary == auxiliary;
    return n;
}

/* May a verified child of this kind be added (or drawn again) under `parent`? */
static bool takes_child(const struct sb_tree *tree, int32_t parent, enum sb_draw_kind kind)
{
    if (parent < 0 || parent >= tree->n)
        return false;
    const struct sb_node *p = &tree->node[parent];
    return !p->auxiliary && p->depth < tree->max_depth &&
           (p->kind == SB_DRAW_NONE || p->kind == kind) &&
           !(parent > 0 && sb_tree_ends(tree, p->token));
}

static int32_t append(struct sb_tree *tree, int32_t parent, sb_token token, int32_t source,
                      bool auxiliary)
{
    int32_t index = tree->n;
    tree->node[index] = (struct sb_node){
        .token = token,
        .parent = parent,
        .depth = tree->node[parent].depth + 1,
        .rank = count_children(tree, parent, auxiliary),
        .source = source,
        .auxiliary = auxiliary,
    };
    tree->n++;
    tree->n_auxiliary += auxiliary;
    return index;
}

int32_t sb_tree_add(struct sb_tree *tree, int32_t parent, sb_token token, int32_t source)
{
    if (!takes_child(tree, parent, SB_DRAW_ONEHOT))
        return -1;
    int32_t there = sb_tree_child(tree, parent, token);
    if (there >= 0)
        return there;
    if (tree->n >= tree->cap)
        return -1;
    tree->node[parent].kind = SB_DRAW_ONEHOT;
    return append(tree, parent, token, source, false);
}

/* May one token be drawn twice under a node? */
static bool repeats(enum sb_draw_kind kind)
{
    return kind == SB_DRAW_IID || kind == SB_DRAW_PATHS || kind == SB_DRAW_MIX;
}

int32_t sb_tree_draw(struct sb_tree *tree, int32_t parent, sb_token token, enum sb_draw_kind kind,
                     const double *q, float log_q, int32_t source)
{
    if (kind < SB_DRAW_IID || kind >= SB_DRAW_KINDS || !q || !takes_child(tree, parent, kind) ||
        tree->n_draws >= tree->cap || tree->n >= tree->cap)
        return -1; /* a full tree refuses every draw: taking only known tokens would bias the law */
    struct sb_node *p = &tree->node[parent];
    /* The draws of a parent are one run of tree->draw: another parent's draws end it. */
    const double *row = kind == SB_DRAW_MIX ? NULL : q;
    if (p->n_draws > 0 && (p->first_draw + p->n_draws != tree->n_draws || p->q != row))
        return -1;
    int32_t child = sb_tree_child(tree, parent, token);
    if (child >= 0 && !repeats(kind))
        return -1;
    if (child < 0) {
        child = append(tree, parent, token, source, false);
        tree->node[child].log_q = log_q;
    }
    if (p->n_draws == 0)
        p->first_draw = tree->n_draws;
    p->kind = kind;
    p->q = row;
    p->n_draws++;
    tree->draw_q[tree->n_draws] = q;
    tree->draw[tree->n_draws++] = child;
    return child;
}

bool sb_tree_has_room(const struct sb_tree *tree, int32_t parent, enum sb_draw_kind kind, int32_t n)
{
    return takes_child(tree, parent, kind) && tree->node[parent].kind == SB_DRAW_NONE &&
           n <= tree->cap - tree->n && n <= tree->cap - tree->n_draws;
}

int32_t sb_tree_add_auxiliary(struct sb_tree *tree, int32_t parent, sb_token token, int32_t source)
{
    if (parent < 0 || parent >= tree->n || tree->n >= tree->cap)
        return -1;
    return append(tree, parent, token, source, true);
}

int32_t sb_tree_drafted(const struct sb_tree *tree)
{
    return tree->n - 1 - tree->n_auxiliary;
}

int32_t sb_tree_depth(const struct sb_tree *tree)
{
    int32_t depth = 0;
    for (int32_t i = 1; i < tree->n; i++)
        if (!tree->node[i].auxiliary && tree->node[i].depth > depth)
            depth = tree->node[i].depth;
    return depth;
}

bool sb_tree_is_chain(const struct sb_tree *tree)
{
    for (int32_t i = 1; i < tree->n; i++)
        if (!tree->node[i].auxiliary && tree->node[i].rank > 0)
            return false;
    for (int32_t i = 0; i < tree->n; i++)
        if (tree->node[i].n_draws > 1)
            return false;
    return true;
}

unsigned sb_tree_kinds(const struct sb_tree *tree)
{
    unsigned kinds = 0;
    for (int32_t i = 0; i < tree->n; i++)
        if (tree->node[i].kind != SB_DRAW_NONE)
            kinds |= SB_KIND_BIT(tree->node[i].kind);
    return kinds;
}

static enum sb_status broken(struct sb_error *err, int32_t node, const char *what)
{
    return sb_fail(err, SB_EINTERNAL, "draft tree: node %" PRId32 ": %s", node, what);
}

static enum sb_status check_node(const struct sb_tree *tree, int32_t i, size_t n_vocab,
                                 struct sb_error *err)
{
    const struct sb_node *node = &tree->node[i];
    if (node->token < 0 || (size_t)node->token >= n_vocab)
        return broken(err, i, "token outside the vocabulary");
    if (i == 0)
        return node->parent == -1 && node->depth == 0 && !node->auxiliary
                   ? SB_OK
                   : broken(err, i, "the root has a parent, a depth, or is auxiliary");
    if (node->parent < 0 || node->parent >= i)
        return broken(err, i, "its parent does not precede it");
    const struct sb_node *parent = &tree->node[node->parent];
    if (node->unread && !node->auxiliary)
        return broken(err, i, "verified, and nobody may read its row");
    if (node->depth != parent->depth + 1)
        return broken(err, i, "its depth is not its parent's plus one");
    if (node->auxiliary)
        return SB_OK;
    if (parent->auxiliary)
        return broken(err, i, "verified under an auxiliary node");
    if (node->depth > tree->max_depth)
        return broken(err, i, "deeper than the token budget");
    if (parent->kind == SB_DRAW_NONE)
        return broken(err, i, "its parent does not say how it was drawn");
    if (node->parent > 0 && sb_tree_ends(tree, parent->token))
        return broken(err, i, "follows an end-of-generation token");
    if (!(node->log_q <= 0))
        return broken(err, i, "its log q is above 0 or NaN");
    int32_t rank = 0;
    for (int32_t j = node->parent + 1; j < i; j++) {
        if (tree->node[j].parent != node->parent || tree->node[j].auxiliary)
            continue;
        if (tree->node[j].token == node->token)
            return broken(err, i, "a sibling has the same token");
        rank++;
    }
    return rank == node->rank ? SB_OK : broken(err, i, "its rank is not its place among siblings");
}

static enum sb_status check_row(const double *q, size_t n_vocab, int32_t i, struct sb_error *err)
{
    double sum = 0;
    for (size_t t = 0; t < n_vocab; t++) {
        if (!(q[t] >= 0))
            return broken(err, i, "its q row holds a negative number or NaN");
        sum += q[t];
    }
    return fabs(sum - 1) <= 1e-6 ? SB_OK : broken(err, i, "its q row does not sum to 1");
}

/* The draws of node i: children of i, each child at least once, and q > 0 at every one. */
static enum sb_status check_draws(const struct sb_tree *tree, int32_t i, size_t n_vocab,
                                  struct sb_error *err)
{
    const struct sb_node *node = &tree->node[i];
    int32_t n_children = count_children(tree, i, false);
    if ((n_children == 0) != (node->kind == SB_DRAW_NONE))
        return broken(err, i, "its kind does not fit its number of children");
    if (node->kind == SB_DRAW_NONE || node->kind == SB_DRAW_ONEHOT)
        return node->n_draws == 0 && !node->q ? SB_OK : broken(err, i, "draws without a law");
    if (!node->q != (node->kind == SB_DRAW_MIX) || node->first_draw < 0 ||
        node->n_draws < n_children || node->n_draws > tree->n_draws - node->first_draw)
        return broken(err, i, "its draws are incomplete");
    if (!repeats(node->kind) && node->n_draws != n_children)
        return broken(err, i, "a repeated draw without replacement");
    int32_t next_rank = 0;
    for (int32_t d = 0; d < node->n_draws; d++) {
        int32_t c = tree->draw[node->first_draw + d];
        if (c <= i || c >= tree->n || tree->node[c].parent != i || tree->node[c].auxiliary)
            return broken(err, i, "one of its draws is not its child");
        const double *q = tree->draw_q[node->first_draw + d];
        if (node->q && q != node->q)
            return broken(err, i, "one of its draws is from another row");
        if (!(q[tree->node[c].token] > 0))
            return broken(err, i, "q is 0 at a drawn token");
        if (tree->node[c].rank > next_rank)
            return broken(err, i, "its children are not ranked in draw order");
        next_rank += tree->node[c].rank == next_rank;
        enum sb_status rc = node->q ? SB_OK : check_row(q, n_vocab, i, err);
        if (rc != SB_OK)
            return rc;
    }
    if (next_rank != n_children)
        return broken(err, i, "a child was never drawn");
    return node->q ? check_row(node->q, n_vocab, i, err) : SB_OK;
}

enum sb_status sb_tree_check(const struct sb_tree *tree, size_t n_vocab, struct sb_error *err)
{
    if (tree->n < 1 || tree->n > tree->cap || tree->n_draws < 0 || tree->n_draws > tree->cap)
        return sb_fail(err, SB_EINTERNAL,
                       "draft tree: %" PRId32 " nodes and %" PRId32 " draws in %" PRId32, tree->n,
                       tree->n_draws, tree->cap);
    int32_t n_auxiliary = 0;
    enum sb_status rc = SB_OK;
    for (int32_t i = 0; i < tree->n && rc == SB_OK; i++) {
        rc = check_node(tree, i, n_vocab, err);
        n_auxiliary += tree->node[i].auxiliary;
    }
    for (int32_t i = 0; i < tree->n && rc == SB_OK; i++)
        rc = check_draws(tree, i, n_vocab, err);
    if (rc == SB_OK && n_auxiliary != tree->n_auxiliary)
        rc = sb_fail(err, SB_EINTERNAL,
                     "draft tree: counts %" PRId32 " auxiliary nodes, has %" PRId32,
                     tree->n_auxiliary, n_auxiliary);
    return rc;
}

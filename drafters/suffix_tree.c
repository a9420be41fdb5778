#include "drafters/suffix_tree.h"

#include <assert.h>
#include <string.h>

#include "harness/core/alloc.h"

enum { MOST_TOKENS = INT32_MAX / 8 };

/* ---- children by parent and first token ---- */

static size_t home(const struct sb_suffix_tree *t, int32_t parent, sb_token token)
{
    uint64_t key = ((uint64_t)(uint32_t)parent << 32 | (uint32_t)token) * 0x9e3779b97f4a7c15u;
    return (size_t)(key >> 32 ^ key >> 15) & (t->n_slots - 1);
}

static sb_token first_token(const struct sb_suffix_tree *t, int32_t node)
{
    return t->text[t->node[node].start];
}

/* The slot of a child: its own, or the empty one where it would go. */
static size_t find_slot(const struct sb_suffix_tree *t, int32_t parent, sb_token token)
{
    size_t i = home(t, parent, token);
    while (t->slot[i] >= 0 &&
           (t->node[t->slot[i]].parent != parent || first_token(t, t->slot[i]) != token))
        i = (i + 1) & (t->n_slots - 1);
    return i;
}

/* Take a child out of the hash, while its parent and first token are still what they were. Those
 * behind it that would no longer be found move up. */
static void drop_slot(struct sb_suffix_tree *t, size_t hole)
{
    size_t mask = t->n_slots - 1;
    for (size_t i = (hole + 1) & mask; t->slot[i] >= 0; i = (i + 1) & mask) {
        int32_t node = t->slot[i];
        size_t from = home(t, t->node[node].parent, first_token(t, node));
        if (((i - from) & mask) >= ((i - hole) & mask)) {
            t->slot[hole] = node;
            hole = i;
        }
    }
    t->slot[hole] = -1;
}

int32_t sb_suffix_tree_child(const struct sb_suffix_tree *t, int32_t node, sb_token token)
{
    return t->slot[find_slot(t, node, token)];
}

/* ---- memory ---- */

static void fill_slots(struct sb_suffix_tree *t, int32_t node)
{
    for (int32_t c = t->node[node].child; c >= 0; c = t->node[c].next)
        t->slot[find_slot(t, node, first_token(t, c))] = c;
}

static bool grow_slots(struct sb_suffix_tree *t, size_t cap)
{
    size_t n_slots = 16;
    while (n_slots < 4 * cap) /* at most half full */
        n_slots *= 2;
    int32_t *slot = sb_alloc_array(n_slots, sizeof *slot);
    if (!slot)
        return false;
    sb_free(t->slot);
    t->slot = slot;
    t->n_slots = n_slots;
    memset(slot, 0xff, n_slots * sizeof *slot);
    for (int32_t i = 0; i < t->n_nodes; i++)
        if (t->node[i].count > 0 || i == 0) /* freed ones have 0 */
            fill_slots(t, i);
    return true;
}

enum sb_status sb_suffix_tree_reserve(struct sb_suffix_tree *t, size_t n, int32_t depth,
                                      struct sb_error *err)
{
    if (n <= t->cap && t->slot)
        return SB_OK;
    size_t cap = n > 2 * t->cap ? n : 2 * t->cap;
    if (cap > MOST_TOKENS)
        return sb_fail(err, SB_ENOMEM, "a suffix tree of %zu tokens: expected at most %d", cap,
                       MOST_TOKENS);
    /* What did grow stays: it serves the next attempt. */
    if (!t->active)
        t->active = sb_alloc_array((size_t)depth, sizeof *t->active);
    sb_token *text = sb_realloc_array(t->text, cap, sizeof *text);
    t->text = text ? text : t->text;
    struct sb_suffix_node *node = sb_realloc_array(t->node, 2 * cap + 1, sizeof *node);
    t->node = node ? node : t->node;
    if (!t->active || !text || !node || !grow_slots(t, cap))
        return sb_fail(err, SB_ENOMEM, "no memory for a suffix tree of %zu tokens", cap);
    if (t->n_nodes == 0) {
        t->depth = depth;
        sb_suffix_tree_clear(t);
    }
    t->cap = cap;
    return SB_OK;
}

void sb_suffix_tree_finish(struct sb_suffix_tree *t)
{
    sb_free(t->text);
    sb_free(t->node);
    sb_free(t->slot);
    sb_free(t->active);
    *t = (struct sb_suffix_tree){ 0 };
}

void sb_suffix_tree_clear(struct sb_suffix_tree *t)
{
    memset(t->slot, 0xff, t->n_slots * sizeof *t->slot);
    t->n = 0;
    t->n_nodes = 1;
    t->free = -1;
    t->node[0] =
        (struct sb_suffix_node){ .parent = -1, .child = -1, .next = -1, .prev = -1, .best = -1 };
    sb_suffix_tree_cut(t);
}

void sb_suffix_tree_cut(struct sb_suffix_tree *t)
{
    t->n_active = 0;
    t->newest = 0;
}

/* ---- growing ---- */

/* Is child a ahead of child b (-1: none)? */
static bool ahead(const struct sb_suffix_tree *t, int32_t a, int32_t b)
{
    if (b < 0 || t->node[a].count != t->node[b].count)
        return b < 0 || t->node[a].count > t->node[b].count;
    return first_token(t, a) < first_token(t, b);
}

static void count_up(struct sb_suffix_tree *t, int32_t node)
{
    struct sb_suffix_node *parent = &t->node[t->node[node].parent];
    t->node[node].count++;
    if (ahead(t, node, parent->best))
        parent->best = node;
}

static int32_t take_node(struct sb_suffix_tree *t)
{
    int32_t node = t->free;
    if (node < 0)
        return t->n_nodes++;
    t->free = t->node[node].next;
    return node;
}

/* A first occurrence: a leaf of the token just written. */
static int32_t add_leaf(struct sb_suffix_tree *t, int32_t parent)
{
    int32_t leaf = take_node(t), newest = t->node[parent].child;
    t->node[leaf] = (struct sb_suffix_node){ .parent = parent,
                                             .start = (int32_t)t->n - 1,
                                             .len = 1,
                                             .child = -1,
                                             .next = newest,
                                             .prev = -1,
                                             .best = -1 };
    if (newest >= 0)
        t->node[newest].prev = leaf;
    t->node[parent].child = leaf;
    t->slot[find_slot(t, parent, first_token(t, leaf))] = leaf;
    count_up(t, leaf);
    return leaf;
}

/* `heir` takes the place of `node` among the children of node's parent; their first tokens agree. */
static void replace(struct sb_suffix_tree *t, int32_t node, int32_t heir)
{
    const struct sb_suffix_node *old = &t->node[node];
    struct sb_suffix_node *parent = &t->node[old->parent];
    t->slot[find_slot(t, old->parent, first_token(t, node))] = heir;
    t->node[heir].parent = old->parent;
    t->node[heir].next = old->next;
    t->node[heir].prev = old->prev;
    if (old->next >= 0)
        t->node[old->next].prev = heir;
    if (old->prev >= 0)
        t->node[old->prev].next = heir;
    else
        parent->child = heir;
    if (parent->best == node)
        parent->best = heir;
}

/* Step onto the first token of `child`, which others passed, too: split it off. */
static int32_t split(struct sb_suffix_tree *t, int32_t child)
{
    int32_t upper = take_node(t);
    t->node[upper] = t->node[child];
    t->node[upper].len = 1;
    replace(t, child, upper);
    struct sb_suffix_node *lower = &t->node[child];
    lower->parent = upper;
    lower->start++;
    lower->len--;
    lower->next = lower->prev = -1;
    t->node[upper].child = t->node[upper].best = child;
    t->slot[find_slot(t, upper, first_token(t, child))] = child;
    count_up(t, upper);
    return upper;
}

/* All who ended or passed at `node` go on to `child`, its only one: its first token joins the node. */
static int32_t shift(struct sb_suffix_tree *t, int32_t node, int32_t child)
{
    struct sb_suffix_node *v = &t->node[node], *w = &t->node[child];
    drop_slot(t, find_slot(t, node, first_token(t, child)));
    if (w->len > 1) {
        v->len++;
        w->start++;
        w->len--;
        t->slot[find_slot(t, node, first_token(t, child))] = child;
        return node;
    }
    /* Nothing of the child is left: it becomes the node, and keeps its own children. */
    w->start = v->start;
    w->len = v->len + 1;
    replace(t, node, child);
    w->count = v->count;
    v->count = 0;
    v->next = t->free;
    t->free = node;
    return child;
}

/* Where a suffix ends that ended at `node` and goes on with the token just written. */
static int32_t advance(struct sb_suffix_tree *t, int32_t node)
{
    sb_token token = t->text[t->n - 1];
    struct sb_suffix_node *v = &t->node[node];
    int32_t child = sb_suffix_tree_child(t, node, token);
    if (child < 0 && node != 0 && v->count == 1) {
        v->len++; /* it is the only one here, so its edge lies at the end of the text */
        return node;
    }
    if (child < 0)
        return add_leaf(t, node);
    if (node != 0 && t->node[child].count == v->count - 1)
        return shift(t, node, child);
    if (t->node[child].len > 1)
        return split(t, child);
    count_up(t, child);
    return child;
}

void sb_suffix_tree_append(struct sb_suffix_tree *t, sb_token token)
{
    assert(t->n < t->cap);
    t->text[t->n++] = token;
    /* Longest first; the one of full depth stays where it is. A new one begins at the root. */
    int32_t n = t->n_active < t->depth ? t->n_active : t->depth - 1;
    for (int32_t l = n; l > 0; l--) {
        int32_t *end = &t->active[(t->newest + l - 1) % t->depth];
        *end = advance(t, *end);
    }
    t->newest = (t->newest + t->depth - 1) % t->depth;
    t->active[t->newest] = advance(t, 0);
    t->n_active = n + 1;
}

/* ---- reading ---- */

int32_t sb_suffix_tree_end(const struct sb_suffix_tree *t, int32_t l)
{
    assert(l >= 1 && l <= t->n_active);
    return t->active[(t->newest + l - 1) % t->depth];
}

bool sb_suffix_tree_find(const struct sb_suffix_tree *t, const sb_token *x, size_t n,
                         struct sb_suffix_place *place)
{
    int32_t node = 0, offset = 0;
    for (size_t i = 0; i < n; i++) {
        if (offset == t->node[node].len) {
            node = sb_suffix_tree_child(t, node, x[i]);
            offset = 0;
            if (node < 0)
                return false;
        } else if (t->text[t->node[node].start + offset] != x[i]) {
            return false;
        }
        offset++;
    }
    *place = (struct sb_suffix_place){ node, offset };
    return true;
}

const char *sb_suffix_tree_check(const struct sb_suffix_tree *t)
{
    int32_t living = 0, in_hash = 0;
    for (int32_t i = 0; i < t->n_nodes; i++) {
        const struct sb_suffix_node *v = &t->node[i];
        if (i > 0 && v->count == 0)
            continue;
        int32_t sum = 0, best = -1, before = -1;
        living++;
        for (int32_t c = v->child; c >= 0; before = c, c = t->node[c].next) {
            const struct sb_suffix_node *w = &t->node[c];
            sum += w->count;
            best = ahead(t, c, best) ? c : best;
            if (w->parent != i || w->prev != before || w->len < 1 || w->count < 1)
                return "a child's links";
            if (sb_suffix_tree_child(t, i, first_token(t, c)) != c)
                return "a child is not in the hash";
            if (i > 0 && w->count == v->count)
                return "an only child of equal count";
        }
        if (best != v->best)
            return "the best child";
        if (i > 0 && sum > v->count)
            return "children outnumber their parent";
    }
    for (size_t s = 0; s < t->n_slots; s++)
        in_hash += t->slot[s] >= 0;
    if (in_hash != living - 1)
        return "the hash";
    return (size_t)living > 2 * t->n + 1 ? "too many nodes" : NULL;
}

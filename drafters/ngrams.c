#include "drafters/ngrams.h"

#include <string.h>

#include "harness/core/alloc.h"

static size_t slot_of(int32_t node, sb_token token, size_t n_slots)
{
    uint64_t key = (uint64_t)(uint32_t)node << 32 | (uint32_t)token;
    key = (key ^ key >> 29) * 0x9E3779B97F4A7C15u;
    return (size_t)(key >> 32 ^ key >> 7) & (n_slots - 1);
}

/* Where the child of (node, token) is or belongs. */
static int32_t *child_slot(const struct sb_ngrams *t, int32_t node, sb_token token)
{
    size_t at = slot_of(node, token, t->n_node_slots);
    for (;; at = (at + 1) & (t->n_node_slots - 1)) {
        int32_t index = t->node_slot[at];
        if (index < 0 || (t->node[index].parent == node && t->node[index].token == token))
            return &t->node_slot[at];
    }
}

static int32_t *next_slot(const struct sb_ngrams *t, int32_t node, sb_token token)
{
    size_t at = slot_of(node, token, t->n_next_slots);
    for (;; at = (at + 1) & (t->n_next_slots - 1)) {
        int32_t index = t->next_slot[at];
        if (index < 0 || (t->next[index].node == node && t->next[index].token == token))
            return &t->next_slot[at];
    }
}

/* ---- room ---- */

static enum sb_status out_of_memory(struct sb_error *err, size_t nodes, size_t nexts)
{
    return sb_fail(err, SB_ENOMEM, "no memory for %zu n-grams and %zu successors", nodes, nexts);
}

/* Grow one array with its slots to `cap` elements; slots are left for the caller to fill. */
static bool make_room(void **array, size_t *cap, int32_t **slot, size_t *n_slots, size_t need,
                      size_t size)
{
    size_t slots = 16;
    while (slots < 2 * need)
        slots *= 2;
    void *grown = sb_realloc_array(*array, need, size);
    if (grown)
        *array = grown;
    int32_t *made = grown ? sb_alloc_array(slots, sizeof *made) : NULL;
    if (!made)
        return false;
    sb_free(*slot);
    *slot = made;
    *cap = need;
    *n_slots = slots;
    memset(made, 0xff, slots * sizeof *made);
    return true;
}

static void add_root(struct sb_ngrams *t)
{
    t->node[0] =
        (struct sb_ngram_node){ .parent = -1, .token = -1, .best = -1, .first = -1, .last = -1 };
    t->n_nodes = 1;
}

enum sb_status sb_ngrams_reserve(struct sb_ngrams *t, size_t nodes, size_t nexts,
                                 struct sb_error *err)
{
    if (nodes > INT32_MAX / 2 || nexts > INT32_MAX / 2)
        return out_of_memory(err, nodes, nexts);
    nodes += t->n_nodes ? t->n_nodes : 1;
    nexts += t->n_nexts;
    if (nodes > INT32_MAX / 2 || nexts > INT32_MAX / 2)
        return out_of_memory(err, nodes, nexts);
    if (nodes > t->cap_nodes) { /* half as much again, so that growing bit by bit is linear */
        size_t more = t->cap_nodes + t->cap_nodes / 2;
        if (!make_room((void **)&t->node, &t->cap_nodes, &t->node_slot, &t->n_node_slots,
                       nodes > more ? nodes : more, sizeof *t->node))
            return out_of_memory(err, nodes, nexts);
        if (t->n_nodes == 0)
            add_root(t);
        for (size_t i = 1; i < t->n_nodes; i++)
            *child_slot(t, t->node[i].parent, t->node[i].token) = (int32_t)i;
    }
    if (nexts > t->cap_nexts) {
        size_t more = t->cap_nexts + t->cap_nexts / 2;
        if (!make_room((void **)&t->next, &t->cap_nexts, &t->next_slot, &t->n_next_slots,
                       nexts > more ? nexts : more, sizeof *t->next))
            return out_of_memory(err, nodes, nexts);
        for (size_t i = 0; i < t->n_nexts; i++)
            *next_slot(t, t->next[i].node, t->next[i].token) = (int32_t)i;
    }
    return SB_OK;
}

void sb_ngrams_clear(struct sb_ngrams *t)
{
    if (t->n_nodes > 1)
        memset(t->node_slot, 0xff, t->n_node_slots * sizeof *t->node_slot);
    if (t->n_nexts > 0)
        memset(t->next_slot, 0xff, t->n_next_slots * sizeof *t->next_slot);
    if (t->cap_nodes)
        add_root(t);
    t->n_nexts = 0;
}

void sb_ngrams_finish(struct sb_ngrams *t)
{
    sb_free(t->node);
    sb_free(t->next);
    sb_free(t->node_slot);
    sb_free(t->next_slot);
    *t = (struct sb_ngrams){ .tie = t->tie };
}

/* ---- counting ---- */

static int32_t child_made(struct sb_ngrams *t, int32_t parent, sb_token token)
{
    int32_t *slot = child_slot(t, parent, token);
    if (*slot < 0) {
        if (t->n_nodes == t->cap_nodes)
            return -1;
        *slot = (int32_t)t->n_nodes++;
        t->node[*slot] = (struct sb_ngram_node){
            .parent = parent, .token = token, .best = -1, .first = -1, .last = -1
        };
    }
    return *slot;
}

static int32_t next_made(struct sb_ngrams *t, int32_t at, sb_token token)
{
    int32_t *slot = next_slot(t, at, token);
    if (*slot >= 0)
        return *slot;
    if (t->n_nexts == t->cap_nexts)
        return -1;
    struct sb_ngram_node *node = &t->node[at];
    *slot = (int32_t)t->n_nexts++;
    t->next[*slot] = (struct sb_ngram_next){ .node = at, .token = token, .link = -1 };
    if (node->last >= 0)
        t->next[node->last].link = *slot;
    else
        node->first = *slot;
    node->last = *slot;
    node->n_next++;
    return *slot;
}

/* Ties need one comparison: a successor passes the best count only through being equal to it. */
static bool is_better(const struct sb_ngrams *t, int32_t index, int32_t best)
{
    const struct sb_ngram_next *a = &t->next[index], *b = &t->next[best];
    if (a->count != b->count)
        return a->count > b->count;
    return t->tie == SB_NGRAM_LATEST ? index > best : a->token < b->token;
}

static bool count_at(struct sb_ngrams *t, int32_t at, sb_token token, int64_t count)
{
    int32_t index = next_made(t, at, token);
    if (index < 0)
        return false;
    struct sb_ngram_node *node = &t->node[at];
    struct sb_ngram_next *next = &t->next[index];
    int64_t room = SB_NGRAM_COUNT_MAX - next->count, more = count < room ? count : room;
    next->count += (int32_t)more;
    node->total += more;
    if (node->best < 0 || is_better(t, index, node->best))
        node->best = index;
    return true;
}

bool sb_ngrams_add(struct sb_ngrams *t, const sb_token *context, size_t order, sb_token token,
                   int32_t count)
{
    int32_t at = t->cap_nodes && t->cap_nexts ? 0 : -1;
    for (size_t i = order; i-- > 0 && at >= 0;)
        at = child_made(t, at, context[i]);
    return at >= 0 && count_at(t, at, token, count);
}

void sb_ngrams_count(struct sb_ngrams *t, const sb_token *x, size_t at, size_t lowest,
                     size_t highest)
{
    int32_t node = t->cap_nodes && t->cap_nexts ? 0 : -1;
    for (size_t order = 1; order <= highest && order <= at && node >= 0; order++) {
        node = child_made(t, node, x[at - order]);
        if (node >= 0 && order >= lowest && !count_at(t, node, x[at], 1))
            return;
    }
}

/* ---- looking up ---- */

size_t sb_ngrams_walk(const struct sb_ngrams *t, const sb_token *x, size_t n, size_t highest,
                      int32_t *node)
{
    size_t order = 0;
    node[0] = 0;
    while (order < highest && order < n && t->n_nodes > 1) {
        int32_t child = *child_slot(t, node[order], x[n - 1 - order]);
        if (child < 0)
            break;
        node[++order] = child;
    }
    return order;
}

int32_t sb_ngrams_find(const struct sb_ngrams *t, int32_t node, sb_token token)
{
    return t->n_nexts ? *next_slot(t, node, token) : -1;
}

void sb_ngrams_merge(struct sb_ngrams *into, const struct sb_ngrams *from, int32_t weight)
{
    sb_token context[64];
    for (size_t i = 1; i < from->n_nodes; i++) {
        size_t order = 0; /* the walk up the trie goes from the oldest token to the newest */
        for (int32_t at = (int32_t)i; at > 0 && order < 64; at = from->node[at].parent)
            context[order++] = from->node[at].token;
        for (int32_t j = from->node[i].first; j >= 0; j = from->next[j].link) {
            int64_t count = (int64_t)from->next[j].count * weight;
            if (count > SB_NGRAM_COUNT_MAX)
                count = SB_NGRAM_COUNT_MAX;
            sb_ngrams_add(into, context, order, from->next[j].token, (int32_t)count);
        }
    }
}

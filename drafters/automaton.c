/* Blumer et al. 1985, "The smallest automaton recognizing the subwords of a text". */
#include "drafters/automaton.h"

#include <assert.h>
#include <string.h>

#include "harness/core/alloc.h"

enum { MOST_TOKENS = INT32_MAX / 8 }; /* edges and slots stay within int32_t */

static size_t home(const struct sb_automaton *a, int32_t state, sb_token token)
{
    uint64_t key = ((uint64_t)(uint32_t)state << 32 | (uint32_t)token) * 0x9e3779b97f4a7c15u;
    return (size_t)(key >> 32 ^ key >> 15) & (a->n_slots - 1);
}

/* The slot of an edge: its own, or the empty one where it would go. */
static int32_t *find_slot(const struct sb_automaton *a, int32_t state, sb_token token)
{
    size_t i = home(a, state, token);
    while (a->slot[i] >= 0 &&
           (a->edge[a->slot[i]].from != state || a->edge[a->slot[i]].token != token))
        i = (i + 1) & (a->n_slots - 1);
    return &a->slot[i];
}

static enum sb_status grow_slots(struct sb_automaton *a, size_t cap)
{
    size_t n_slots = 16;
    while (n_slots < 6 * cap) /* at most half full */
        n_slots *= 2;
    int32_t *slot = sb_alloc_array(n_slots, sizeof *slot);
    if (!slot)
        return SB_ENOMEM;
    sb_free(a->slot);
    a->slot = slot;
    a->n_slots = n_slots;
    memset(slot, 0xff, n_slots * sizeof *slot);
    for (int32_t e = 0; e < a->n_edges; e++)
        *find_slot(a, a->edge[e].from, a->edge[e].token) = e;
    return SB_OK;
}

enum sb_status sb_automaton_reserve(struct sb_automaton *a, size_t n, struct sb_error *err)
{
    if (n <= a->cap && a->slot)
        return SB_OK;
    size_t cap = n > 2 * a->cap ? n : 2 * a->cap;
    if (cap > MOST_TOKENS)
        return sb_fail(err, SB_ENOMEM, "a suffix automaton of %zu tokens: expected at most %d", cap,
                       MOST_TOKENS);
    /* What did grow stays: it serves the next attempt. */
    sb_token *text = sb_realloc_array(a->text, cap, sizeof *text);
    a->text = text ? text : a->text;
    struct sb_automaton_state *state = sb_realloc_array(a->state, 2 * cap + 1, sizeof *state);
    a->state = state ? state : a->state;
    struct sb_automaton_edge *edge = sb_realloc_array(a->edge, 3 * cap, sizeof *edge);
    a->edge = edge ? edge : a->edge;
    if (!text || !state || !edge || grow_slots(a, cap) != SB_OK)
        return sb_fail(err, SB_ENOMEM, "no memory for a suffix automaton of %zu tokens", cap);
    a->cap = cap;
    if (a->n_states == 0)
        sb_automaton_clear(a);
    return SB_OK;
}

void sb_automaton_finish(struct sb_automaton *a)
{
    sb_free(a->text);
    sb_free(a->state);
    sb_free(a->edge);
    sb_free(a->slot);
    *a = (struct sb_automaton){ 0 };
}

void sb_automaton_clear(struct sb_automaton *a)
{
    memset(a->slot, 0xff, a->n_slots * sizeof *a->slot);
    a->n = 0;
    a->n_edges = 0;
    a->n_states = 1;
    a->last = 0;
    a->state[0] = (struct sb_automaton_state){ .link = -1, .edge = -1 };
}

int32_t sb_automaton_next(const struct sb_automaton *a, int32_t state, sb_token token)
{
    int32_t e = *find_slot(a, state, token);
    return e < 0 ? -1 : a->edge[e].to;
}

static void add_edge(struct sb_automaton *a, int32_t from, sb_token token, int32_t to)
{
    int32_t e = a->n_edges++;
    a->edge[e] = (struct sb_automaton_edge){ from, to, token, a->state[from].edge };
    a->state[from].edge = e;
    *find_slot(a, from, token) = e;
}

static int32_t add_state(struct sb_automaton *a, int32_t len, int32_t link, int32_t end)
{
    a->state[a->n_states] = (struct sb_automaton_state){ len, link, end, -1 };
    return a->n_states++;
}

/* q is also reached by a string longer than p's and the token: split off the short ones. */
static int32_t split(struct sb_automaton *a, int32_t p, sb_token token, int32_t q)
{
    int32_t clone = add_state(a, a->state[p].len + 1, a->state[q].link, a->state[q].end);
    for (int32_t e = a->state[q].edge; e >= 0; e = a->edge[e].next)
        add_edge(a, clone, a->edge[e].token, a->edge[e].to);
    for (; p >= 0; p = a->state[p].link, a->walks++) {
        int32_t e = *find_slot(a, p, token);
        if (e < 0 || a->edge[e].to != q)
            break;
        a->edge[e].to = clone;
    }
    a->state[q].link = clone;
    return clone;
}

void sb_automaton_append(struct sb_automaton *a, sb_token token)
{
    assert(a->n < a->cap);
    a->text[a->n++] = token;
    int32_t p = a->last, q = -1;
    int32_t newest = a->last = add_state(a, (int32_t)a->n, 0, (int32_t)a->n);
    for (; p >= 0 && (q = sb_automaton_next(a, p, token)) < 0; p = a->state[p].link, a->walks++)
        add_edge(a, p, token, newest);
    if (p >= 0)
        a->state[newest].link = a->state[q].len == a->state[p].len + 1 ? q : split(a, p, token, q);
}

struct sb_automaton_match sb_automaton_read(struct sb_automaton *a, struct sb_automaton_match match,
                                            sb_token token)
{
    int32_t next;
    while ((next = sb_automaton_next(a, match.state, token)) < 0 && match.state != 0) {
        match.state = a->state[match.state].link;
        match.len = a->state[match.state].len;
        a->walks++;
    }
    return next < 0 ? (struct sb_automaton_match){ 0, 0 }
                    : (struct sb_automaton_match){ next, match.len + 1 };
}

/* Suffix automaton over tokens, grown token by token (methods C 1.9): the smallest machine that reads
 * every substring of its text. Amortised constant work per token, at most 2n states and 3n edges;
 * about 130 bytes per token of capacity. */
#ifndef SB_DRAFTERS_AUTOMATON_H
#define SB_DRAFTERS_AUTOMATON_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/config.h"

struct sb_automaton_state {
    int32_t len;  /* of the longest string that leads here */
    int32_t link; /* the state of its longest suffix that occurs elsewhere, too; -1 at state 0 */
    int32_t end;  /* tokens up to and including its first occurrence; 0 at state 0 */
    int32_t edge; /* first of its edges, -1: none */
};

struct sb_automaton_edge {
    int32_t from, to;
    sb_token token;
    int32_t next; /* of the same state, -1: none */
};

struct sb_automaton {
    sb_token *text;                   /* [cap] */
    struct sb_automaton_state *state; /* [2 cap + 1] */
    struct sb_automaton_edge *edge;   /* [3 cap] */
    int32_t *slot;                    /* [n_slots] hash of (from, token) to an edge, -1: empty */
    size_t n, cap, n_slots;
    int32_t n_states, n_edges, last;
    uint64_t walks; /* links followed so far; tests bound them */
};

/* The longest suffix of what was read that occurs in the text: its state and length. Zero: none. */
struct sb_automaton_match {
    int32_t state, len;
};

/* Room for n tokens in all; at least doubles. On failure the automaton stays as it was. */
enum sb_status sb_automaton_reserve(struct sb_automaton *a, size_t n, struct sb_error *err);
void sb_automaton_finish(struct sb_automaton *a); /* accepts a zeroed one */
void sb_automaton_clear(struct sb_automaton *a);  /* the empty text; keeps the memory */
void sb_automaton_append(struct sb_automaton *a, sb_token token); /* needs room */

int32_t sb_automaton_next(const struct sb_automaton *a, int32_t state,
                          sb_token token); /* -1: no such edge */
/* Read one more token. To match against earlier text, read a token before it is appended. */
struct sb_automaton_match sb_automaton_read(struct sb_automaton *a, struct sb_automaton_match match,
                                            sb_token token);

#endif

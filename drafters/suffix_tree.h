/* Suffix tree over tokens with counts, of bounded depth, grown token by token (methods C 1.10): how
 * often did every string of up to `depth` tokens occur, and what followed it?
 *
 * A node stands for the strings that end on its edge, all of which occurred equally often. Each of the
 * last `depth` suffixes has an active node, where it ends; a token moves every active node one on, in
 * constant expected time: O(depth) per token. At most 2n + 1 nodes and about 100 bytes per token of
 * capacity. Nothing is ever taken out: who must forget builds a new tree of what stays. */
#ifndef SB_DRAFTERS_SUFFIX_TREE_H
#define SB_DRAFTERS_SUFFIX_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/config.h"

struct sb_suffix_node {
    int32_t parent;     /* -1: the root */
    int32_t start, len; /* its edge is text[start .. start + len), len > 0 but for the root */
    int32_t count;      /* suffixes that end on its edge's last token or run through it */
    int32_t child;      /* the newest child, -1: none */
    int32_t next, prev; /* siblings, -1: none */
    int32_t best;       /* child of largest count, the smaller first token on ties; -1: none */
};

struct sb_suffix_tree {
    sb_token *text;              /* [cap] all sequences, one after the other */
    struct sb_suffix_node *node; /* [2 cap + 1]; 0 is the root */
    int32_t *slot;               /* [n_slots] hash of (parent, first token) to a node, -1: empty */
    int32_t *active;             /* [depth] ring: of the suffixes that can still grow */
    size_t n, cap, n_slots;
    int32_t n_nodes, free; /* freed nodes are linked by next, -1: none */
    int32_t depth;
    int32_t n_active; /* suffix of length l, 1 <= l <= n_active, ends at sb_suffix_tree_end(t, l) */
    int32_t newest;   /* ring position of the shortest */
};

/* A place in the tree: behind the first `offset` tokens of the edge of `node`. */
struct sb_suffix_place {
    int32_t node, offset;
};

/* Room for n tokens in all; at least doubles. The first call sets the depth, which stays. */
enum sb_status sb_suffix_tree_reserve(struct sb_suffix_tree *t, size_t n, int32_t depth,
                                      struct sb_error *err);
void sb_suffix_tree_finish(struct sb_suffix_tree *t); /* accepts a zeroed one */
void sb_suffix_tree_clear(struct sb_suffix_tree *t);  /* the empty text; keeps the memory */
void sb_suffix_tree_append(struct sb_suffix_tree *t, sb_token token); /* needs room */
/* The next token begins another sequence: no string runs across. */
void sb_suffix_tree_cut(struct sb_suffix_tree *t);

int32_t sb_suffix_tree_child(const struct sb_suffix_tree *t, int32_t node,
                             sb_token token); /* -1: none */
/* Where the last l tokens of the sequence end: always at the end of a node's edge. */
int32_t sb_suffix_tree_end(const struct sb_suffix_tree *t, int32_t l);
/* Where x[0..n) ends; false: it never occurred, or is longer than the depth. */
bool sb_suffix_tree_find(const struct sb_suffix_tree *t, const sb_token *x, size_t n,
                         struct sb_suffix_place *place);
/* Every invariant, by walking it all; for tests. NULL: sound, or what is broken. */
const char *sb_suffix_tree_check(const struct sb_suffix_tree *t);

#endif

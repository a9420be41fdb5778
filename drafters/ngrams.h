/* Counted n-grams: which tokens followed a context, and how often. Shared by drafters that count.
 *
 * Contexts form a trie read from the newest token back: node 0 is the empty context, a child adds the
 * token before it. One walk thus finds a context of every order. Nodes and successors lie in two
 * arrays, each with a hash of (node, token), so a look-up costs one probe and compares exactly. Each
 * node knows its best successor; counting keeps it up to date.
 *
 * Memory: 32 bytes per node, 16 per successor, and two to four 4-byte slots for each. */
#ifndef SB_DRAFTERS_NGRAMS_H
#define SB_DRAFTERS_NGRAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/config.h"

/* Counts stop here, so that 100 times the product of two of them fits 64 bits. */
#define SB_NGRAM_COUNT_MAX (1 << 28)
enum { SB_NGRAM_FILE_ORDER = 4 }; /* tokens of a context in a file */

struct sb_ngram_node {
    int64_t total; /* of its successors' counts */
    int32_t parent;
    sb_token token;
    int32_t best;        /* index of the successor with the highest count; -1: none */
    int32_t first, last; /* successors, linked in the order they were first seen; -1: none */
    int32_t n_next;
};

struct sb_ngram_next {
    int32_t node;
    sb_token token;
    int32_t count;
    int32_t link; /* the node's next successor; -1: the last */
};

/* Which of the successors with the highest count is the best one. */
enum sb_ngram_tie {
    SB_NGRAM_SMALLEST, /* the smallest id */
    SB_NGRAM_LATEST,   /* the one first seen latest */
};

struct sb_ngrams {
    struct sb_ngram_node *node;
    struct sb_ngram_next *next;
    int32_t *node_slot, *next_slot; /* index, or -1 */
    size_t n_nodes, cap_nodes, n_node_slots;
    size_t n_nexts, cap_nexts, n_next_slots;
    enum sb_ngram_tie tie; /* set before the first count */
};

/* Make room for so many more nodes and successors; zeroed is an empty table. SB_ENOMEM also where an
 * index would pass 31 bits. Counting never allocates: without room it does nothing. */
enum sb_status sb_ngrams_reserve(struct sb_ngrams *t, size_t nodes, size_t nexts,
                                 struct sb_error *err);
void sb_ngrams_clear(struct sb_ngrams *t); /* forget the counts, keep the room */
void sb_ngrams_finish(struct sb_ngrams *t);

/* Count `token` after context[order], oldest first, `count` times. False: no room. */
bool sb_ngrams_add(struct sb_ngrams *t, const sb_token *context, size_t order, sb_token token,
                   int32_t count);
/* Count x[at] after its last `lowest` to `highest` tokens, as many as there are. */
void sb_ngrams_count(struct sb_ngrams *t, const sb_token *x, size_t at, size_t lowest,
                     size_t highest);
/* Find the contexts that end x[0..n): node[1..result] are those of orders 1 to result <= highest.
 * A node may have no successors: it is there for longer contexts. */
size_t sb_ngrams_walk(const struct sb_ngrams *t, const sb_token *x, size_t n, size_t highest,
                      int32_t *node);
/* Index of `token` among the successors of `node`; -1: never seen there. */
int32_t sb_ngrams_find(const struct sb_ngrams *t, int32_t node, sb_token token);
/* Add `weight` times all counts of `from`. The room must be there (reserve n_nodes and n_nexts). */
void sb_ngrams_merge(struct sb_ngrams *into, const struct sb_ngrams *from, int32_t weight);

/* Files of llama.cpp's lookup examples: records of 4 int32 (the context, -1 behind it), one int32 m > 0,
 * and m pairs of int32 token and count > 0; little-endian, no header. Adds to what is there. Records of
 * one context add up. SB_EFORMAT names the byte where a record is malformed, or has ids outside
 * 0..n_vocab-1, or an order outside lowest..highest. An empty file is refused. */
enum sb_status sb_ngrams_load(struct sb_ngrams *t, const char *path, size_t n_vocab, size_t lowest,
                              size_t highest, struct sb_error *err);
/* The same from memory; `name` is for messages. */
enum sb_status sb_ngrams_parse(struct sb_ngrams *t, const char *name, const uint8_t *bytes,
                               size_t size, size_t n_vocab, size_t lowest, size_t highest,
                               struct sb_error *err);
/* Contexts of more than SB_NGRAM_FILE_ORDER tokens are left out. */
enum sb_status sb_ngrams_save(const struct sb_ngrams *t, const char *path, struct sb_error *err);

#endif

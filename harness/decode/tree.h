/* The draft tree (methods A 1.3): what a drafter proposes and a verifier walks.
 *
 * Node 0 is the root: the last committed token, whose KV row is not there yet. Parents precede
 * children. A chain is a tree with one child each; the root alone is "no draft", a plain step.
 * Auxiliary nodes are computed and shown to observe, never verified. */
#ifndef SB_DECODE_TREE_H
#define SB_DECODE_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/config.h"

/* How the children of a node were drawn; this decides which verifiers are lawful. */
enum sb_draw_kind {
    SB_DRAW_NONE,   /* no children */
    SB_DRAW_ONEHOT, /* chosen deterministically */
    SB_DRAW_IID,    /* drawn independently from q; duplicates possible */
    SB_DRAW_WOR,    /* drawn from q without replacement, in draw order */
    SB_DRAW_PATHS, /* iid, one draw per path that arrives: the tree is the union of K i.i.d. paths */
    SB_DRAW_HUB, /* a pair, one of it the arg max of q (methods A 3.7); one draw if q is one-hot */
    SB_DRAW_TOPK1, /* the most likely tokens of q in order, then one drawn from the rest (A 3.8) */
    SB_DRAW_MIX,   /* drawn independently, each draw from a row of its own (A 3.5) */
    SB_DRAW_KINDS, /* how many there are */
};
#define SB_KIND_BIT(kind) (1u << (kind))
#define SB_KINDS_ALL      (SB_KIND_BIT(SB_DRAW_KINDS) - SB_KIND_BIT(SB_DRAW_ONEHOT))
const char *sb_draw_kind_name(enum sb_draw_kind kind); /* "none", "onehot", "iid", ... */

struct sb_node {
    sb_token token;
    int32_t parent; /* -1 for the root */
    int32_t depth;  /* 0 for the root */
    int32_t rank;   /* among its siblings, in draw order */
    int32_t source; /* the drafter's own tag: which n-gram order, which sub-drafter, ... */
    float log_q;    /* log probability the drafter gave it; 0 (probability 1) for one-hot choices */
    bool auxiliary;
    bool unread; /* auxiliary, and nobody looks at the target's row there: none is computed */
    /* About this node's children: */
    enum sb_draw_kind kind;
    const double *q; /* [n_vocab] the row they were drawn from, after S, as used. NULL: one-hot, or
                             drawn from rows of their own (MIX). Drafter-owned, valid until its next
                             propose */
    /* The drafter's row here before anything was drawn, where the verifier asked for it (enum
     * sb_draft_rows): q itself when sampling, at temperature 1 when greedy. Like q otherwise. */
    const double *draft_row;
    int32_t first_draw, n_draws; /* into tree->draw: the ordered draws, duplicates included; none
                                    for one-hot children, whose order is their rank */
};

struct sb_tree {
    struct sb_node *node;  /* [cap], node[0] is the root */
    int32_t *draw;         /* [cap] node index of each draw; draws of one parent are contiguous */
    const double **draw_q; /* [cap] the row of each draw */
    int32_t n, cap;        /* nodes, root included */
    int32_t n_draws;
    int32_t n_auxiliary;
    /* Were all rows that the drafter gives in this draft made by S? They are laws then, or NaN from the
     * first entry on, and verifiers look at that only. A reset takes it back. */
    bool trusted;
    int32_t max_depth;   /* deepest verified node allowed: the token budget */
    const sb_token *eos; /* [n_eos] tokens that end a generation; borrowed, kept by a reset */
    size_t n_eos;
};

enum sb_status sb_tree_create(struct sb_tree *tree, int32_t cap, struct sb_error *err);
void sb_tree_finish(struct sb_tree *tree);
void sb_tree_reset(struct sb_tree *tree, sb_token root, int32_t max_depth);

/* Add a child chosen deterministically (one-hot). Returns its index, the existing child's index if
 * that token is there already, or -1 when the tree is full, the depth limit is reached, the parent is
 * an end-of-generation token, or its children are of another kind. */
int32_t sb_tree_add(struct sb_tree *tree, int32_t parent, sb_token token, int32_t source);

/* Record a draw of `token` from row q under `parent`: children of one parent must be added one after
 * the other, from one row unless the kind is MIX. Equal tokens of IID, PATHS and MIX share a node and
 * count as draws. Same return values as sb_tree_add, but a
 * full tree refuses every draw: whether a draw exists must not depend on its token. */
int32_t sb_tree_draw(struct sb_tree *tree, int32_t parent, sb_token token, enum sb_draw_kind kind,
                     const double *q, float log_q, int32_t source);

/* Can `parent` take a first set of n draws of that kind, whatever their tokens are? What may not fit as
 * a whole is not begun: how much of a set exists must not depend on its tokens. */
bool sb_tree_has_room(const struct sb_tree *tree, int32_t parent, enum sb_draw_kind kind,
                      int32_t n);

int32_t sb_tree_add_auxiliary(struct sb_tree *tree, int32_t parent, sb_token token, int32_t source);

bool sb_tree_ends(const struct sb_tree *tree, sb_token token); /* an end-of-generation token? */
int32_t sb_tree_child(const struct sb_tree *tree, int32_t parent, sb_token token); /* -1: none */
int32_t sb_tree_drafted(const struct sb_tree *tree); /* verified nodes without the root */
int32_t sb_tree_depth(const struct sb_tree *tree);   /* of the deepest verified node */
bool sb_tree_is_chain(const struct sb_tree *tree);   /* at most one child, drawn once, per node */
unsigned sb_tree_kinds(const struct sb_tree *tree);  /* SB_KIND_BITs of its internal nodes */

/* All invariants; SB_EINTERNAL names the first that is broken. Debug builds check every step. */
enum sb_status sb_tree_check(const struct sb_tree *tree, size_t n_vocab, struct sb_error *err);

#endif

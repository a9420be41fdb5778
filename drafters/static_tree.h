/* Static trees (methods B 2, B4): which ranks of a drafter's rows a draft is made of, fixed before the text is
 * seen. A node is a path of ranks: [0, 2] is the third best child of the best child of the root. */
#ifndef SB_DRAFTERS_STATIC_TREE_H
#define SB_DRAFTERS_STATIC_TREE_H

#include <jansson.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/decode/drafter.h"
#include "harness/decode/tree.h"

enum { SB_STATIC_NODES = 1000, SB_STATIC_DEPTH = 16, SB_STATIC_RANKS = 64 };

struct sb_static_node {
    int32_t parent, rank, depth;
    /* Children are contiguous, in order of rank: first_child .. first_child + n_children - 1. `width` is the
     * last one's rank + 1: how many of the best tokens have to be known here. */
    int32_t first_child, n_children, width;
};

/* Nodes by depth, then by path; node 0 is the root, which every path begins at. */
struct sb_static_tree {
    struct sb_static_node *node;        /* [n], owned */
    int32_t n;                          /* 2 .. SB_STATIC_NODES + 1 */
    int32_t depth;                      /* of the deepest */
    int32_t level[SB_STATIC_DEPTH + 2]; /* nodes of depth j: level[j] .. level[j + 1] - 1 */
    int32_t width[SB_STATIC_DEPTH];     /* [j]: widest node of depth j */
};

/* For a parameter's meaning. */
#define SB_STATIC_TREE_MEANING \
    "shape of the draft: a name (mc_sim_7b_63, eagle1_25), children per level (4x2x1), or @FILE.json"

/* A name, "4x2x1", or "@file.json". Such a file is a list of paths, [[0], [0, 0], [1]], each path's own
 * beginnings in it too; or {"accuracy": [[.6, .2], [.5, .3]], "nodes": 10}, the best tree of 10 nodes where
 * accuracy[j][r] is how often rank r is right at depth j + 1. SB_EUSAGE or SB_EFORMAT says what is allowed.
 * The caller owns *out (sb_static_tree_finish). */
enum sb_status sb_static_tree_open(struct sb_static_tree *out, const char *text,
                                   const char *drafter, struct sb_error *err);
enum sb_status sb_static_tree_from_json(struct sb_static_tree *out, const json_t *root,
                                        const char *name, struct sb_error *err);
/* The `nodes` paths of largest product of accuracy[depth, width] (methods B 2, B7), shorter paths first on
 * ties, then smaller ranks; ranks of accuracy 0 are left out. */
enum sb_status sb_static_tree_best(struct sb_static_tree *out, const double *accuracy,
                                   int32_t depth, int32_t width, int32_t nodes,
                                   struct sb_error *err);
void sb_static_tree_cut(struct sb_static_tree *tree, int32_t depth); /* leave out what is deeper */
void sb_static_tree_finish(struct sb_static_tree *tree);
/* Draft nodes of what sb_static_tree_open makes of `text`; 0 where it refuses. */
int32_t sb_static_tree_nodes(const char *text);
bool sb_static_tree_branches(const char *text); /* true where it refuses */

/* Fill by lists that do not depend on the parent (Medusa): rank r at depth j is best[(j - 1) * ld + r], of
 * n_best[j - 1] there. Nodes deeper than `depth` are left out. Sources are depths. */
void sb_static_tree_fill(const struct sb_static_tree *shape, struct sb_tree *tree,
                         const sb_token *best, size_t ld, const int32_t *n_best, int32_t depth);

/* Tell the harness of the file that `text` names, if it does. */
static inline enum sb_status sb_static_tree_uses(const struct sb_drafter_env *env, const char *text,
                                                 struct sb_error *err)
{
    return text[0] == '@' ? sb_drafter_uses(env, text + 1, err) : SB_OK;
}

#endif

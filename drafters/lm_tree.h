/* Draft trees grown from a language model level by level: what drafters of that family share. A
 * drafter says how the children of a level are drawn; this keeps the model fed, makes the rows q, stops
 * where a rule says so, and gives verifiers the rows they ask for.
 *
 * A drafter's state begins with a struct sb_lm_tree; then sb_lm_tree_begin, _observe and _close may
 * stand in its table as they are. */
#ifndef SB_DRAFTERS_LM_TREE_H
#define SB_DRAFTERS_LM_TREE_H

#include "drafters/lm_feeder.h"
#include "harness/decode/drafter.h"
#include "harness/decode/draw.h"

struct sb_lm_tree_options {
    const char *drafter, *model; /* the latter a path or a bundled name; both for messages too */
    double p_min; /* nothing below a token whose row's largest probability was below this; 0: off */
    int32_t depth; /* of the deepest draft */
    /* Most nodes of a draft that goes `depth` levels deep, the root left out. */
    int32_t (*most_nodes)(const void *self, int32_t depth);
    const void *self;
    /* Where a path ends may depend on its own tokens alone: policies get the most nodes of a draft as
     * deep, not the number there is. */
    bool paths_apart;
};

struct sb_lm_tree {
    struct sb_lm_tree_options options;
    struct sb_lm_feeder feeder;
    struct sb_sampling sampling; /* of the rows; temperature 1 in greedy drafting */
    bool greedy;
    enum sb_draft_rows gives; /* rows that the verifier asked for */
    size_t n_vocab;
    double *row; /* [n_rows, n_vocab] */
    int32_t n_rows, used_rows;
    const double **row_of;         /* [nodes] the row there; NULL: none was made */
    struct sb_lm_figures *figures; /* [nodes] */
    double *path_prob;             /* [nodes] */
    int32_t *level, *open;         /* [nodes] the newest level, and those of it to draw below */
    int32_t n_level, n_open;
    void *row_scratch, *draw_scratch;
};

enum sb_status sb_lm_tree_open(struct sb_lm_tree *lt, const struct sb_drafter_env *env,
                               const struct sb_lm_tree_options *options, struct sb_error *err);
enum sb_status sb_lm_tree_begin(void *st, const struct sb_context *ctx, struct sb_error *err);
enum sb_status sb_lm_tree_observe(void *st, const struct sb_context *ctx,
                                  const struct sb_outcome *outcome, struct sb_error *err);
void sb_lm_tree_close(void *st); /* the struct sb_lm_tree alone; accepts zeroed */

/* Give children to the n open nodes of one level, whose rows are at hand. */
typedef void sb_lm_level(void *self, const struct sb_context *ctx, struct sb_tree *tree,
                         const int32_t *node, int32_t n);

/* Grow the tree of a step: `depth` levels, or as many as there is room for, whatever their tokens, in
 * the budget, the tree and the model's positions. */
enum sb_status sb_lm_tree_grow(struct sb_lm_tree *lt, const struct sb_context *ctx,
                               struct sb_tree *tree, int32_t depth, sb_lm_level *level, void *self,
                               struct sb_error *err);

/* For an sb_lm_level. The children of a node: drawn by the rule, at temperature 0 the likeliest. */
void sb_lm_tree_children(struct sb_lm_tree *lt, const struct sb_context *ctx, struct sb_tree *tree,
                         int32_t node, enum sb_draw_rule rule, int32_t width);
/* q [n_vocab] of an open node; at temperature 0 NULL, or its row at temperature 1. */
const double *sb_lm_tree_row(const struct sb_lm_tree *lt, int32_t node);
/* Logits [feeder.n_shared or more] of an open node. */
const float *sb_lm_tree_logits(const struct sb_lm_tree *lt, int32_t node);

#endif

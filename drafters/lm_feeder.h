/* A language model that drafters read: a sequence of its own, kept in step with the committed text,
 * and draft trees fed to it in batches.
 *
 * Between steps the sequence holds a prefix of the committed text. A step feeds the rows it lacks, then
 * nodes of the tree. As long as each batch is one node, its row is committed at once (the spine); from
 * the first wider batch on, all nodes below the spine are one batch, recomputed with each addition,
 * since a sequence keeps only one path. Afterwards the accepted path stays. */
#ifndef SB_DRAFTERS_LM_FEEDER_H
#define SB_DRAFTERS_LM_FEEDER_H

#include "harness/decode/drafter.h"

struct sb_lm_feeder {
    struct sb_seq *seq;
    size_t n_shared; /* ids that the target and this model have: 0..n_shared-1 */
    size_t n_vocab;  /* of this model */
    size_t max_context;
    struct sb_row *row; /* [n_rows] */
    size_t n_rows;
    int32_t *batch;  /* [n_rows] node of each batch row; parents first */
    int32_t *row_of; /* [nodes] batch row of a fed node, or SB_PARENT_PREFIX on the spine */
    int32_t *spine;  /* [nodes] nodes whose rows are committed after the text */
    int32_t n_batch, n_spine;
    size_t root_row;
    size_t base; /* committed tokens when the draft began; 0: no draft */
};

/* Load `model` for a drafter of that name (both for messages), whose drafts have at most `most_nodes`
 * nodes, root left out. Refuses a vocabulary other than the target's, by llama.cpp's rule: sizes
 * within 128, the same BOS and EOS, equal texts from id 5 on. */
enum sb_status sb_lm_feeder_open(struct sb_lm_feeder *f, const struct sb_drafter_env *env,
                                 const char *drafter, const char *model, int32_t most_nodes,
                                 struct sb_error *err);
void sb_lm_feeder_close(struct sb_lm_feeder *f); /* accepts zeroed */

/* Read a new prompt, but for its last token. A text too long for the model is not read. */
enum sb_status sb_lm_feeder_begin(struct sb_lm_feeder *f, const struct sb_context *ctx,
                                  struct sb_error *err);
/* Begin a step's draft: read the text up to the root, whose logits are those of node 0. Only where
 * sb_lm_feeder_depth is not negative. */
enum sb_status sb_lm_feeder_start(struct sb_lm_feeder *f, const struct sb_context *ctx,
                                  struct sb_error *err);

/* How many levels of nodes the model has positions to feed below the root of this step, -1 when the
 * root is beyond them; and how many nodes. */
int32_t sb_lm_feeder_depth(const struct sb_lm_feeder *f, const struct sb_context *ctx);
int32_t sb_lm_feeder_room(const struct sb_lm_feeder *f, const struct sb_context *ctx);

/* Feed nodes of the tree, each below the root or a node fed earlier; their rows have logits. A node that
 * was fed alone is on the spine once another is: nothing can be fed beside it then (SB_EINTERNAL). */
enum sb_status sb_lm_feeder_feed(struct sb_lm_feeder *f, const struct sb_tree *tree,
                                 const int32_t *node, int32_t n, struct sb_error *err);
/* Logits [n_vocab] of the root or a node of the last feed; borrowed until the next. */
const float *sb_lm_feeder_logits(const struct sb_lm_feeder *f, int32_t node);

/* The step is over: keep the rows of the accepted path that were computed, drop the others. */
enum sb_status sb_lm_feeder_keep(struct sb_lm_feeder *f, const struct sb_outcome *outcome,
                                 struct sb_error *err);

#endif

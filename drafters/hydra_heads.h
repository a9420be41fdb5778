/* Sequentially dependent heads (methods B 4.4), which hydra and hydra-pp share: head i sees a state and the
 * embeddings of all draft tokens above the one it guesses, and so fills a static tree node by node.
 *
 * For a node of depth i on the path c_1 .. c_i, with x[n] the root, e the target's embedding, W, R of
 * d (i + 2) columns (everything float32; what a training forward has to compute):
 *
 *   u = [state ; e(x[n]) ; e(c_1) ; ... ; e(c_i)]
 *   z = R u + r + silu(W u + b)                the first block
 *   z = z + silu(W' z + b')                    each further block, d to d
 *   logits = L z + l                           the head's own, or the target's LM head
 *
 * The state is the target's last hidden state (hydra), or what a prefix layer makes of all of them
 * (hydra-pp). */
#ifndef SB_DRAFTERS_HYDRA_HEADS_H
#define SB_DRAFTERS_HYDRA_HEADS_H

#include "drafters/head_file.h"
#include "drafters/linear.h"
#include "drafters/tree_learner.h"

enum { SB_HYDRA_HEADS = SB_STATIC_DEPTH, SB_HYDRA_BLOCKS = 16 };

/* Parameters of both drafters. */
struct sb_hydra_params {
    const char *head, *tree;
    int64_t nodes, heads;
};
extern const struct sb_param sb_hydra_params[];
bool sb_hydra_branches(const void *params);
int32_t sb_hydra_max_nodes(const void *params, const struct sb_policy *policy);

struct sb_hydra_heads {
    const struct sb_model *target;
    struct sb_static_tree shape; /* no deeper than there are heads */
    struct sb_tree_learner learner;
    size_t d, n_vocab, n_heads, n_blocks, tap, most_rows;
    struct sb_linear residual[SB_HYDRA_HEADS];               /* R */
    struct sb_linear block[SB_HYDRA_HEADS][SB_HYDRA_BLOCKS]; /* W, W', ... */
    struct sb_linear out[SB_HYDRA_HEADS];                    /* L; none: the target's LM head */
    float *u, *above; /* [most_rows, d (n_heads + 1)] inputs of this level, and of the one above */
    float *z, *scratch; /* [most_rows, d] */
    float *logits;      /* [most_rows, n_vocab] */
    int32_t *at;        /* [shape.n] the draft's node of each node of the shape, -1: none */
    int32_t *row;       /* [shape.n] its row in u */
    sb_token *best;     /* [shape.n, SB_LEARN_RANKS] what its head said, when a tree is learned */
    int32_t *n_best;    /* [shape.n] 0: its head was not asked */
};

/* Read the heads of an open file and ask for their hidden state. `arch` is what config.json may say in
 * hydra_head_arch. */
enum sb_status sb_hydra_open(struct sb_hydra_heads *h, struct sb_head_file *file, const char *arch,
                             const struct sb_drafter_env *env, struct sb_error *err);
void sb_hydra_close(struct sb_hydra_heads *h); /* accepts zeroed */

enum sb_status sb_hydra_begin(struct sb_hydra_heads *h, struct sb_error *err); /* a new prompt */
/* Fill the tree from a state [d]. Allocates nothing. */
void sb_hydra_draft(struct sb_hydra_heads *h, const float *state, const struct sb_policy *policy,
                    struct sb_tree *tree);
/* The observe of both drafters: learn, with tree=auto. The heads are the state's first member. */
enum sb_status sb_hydra_observe(void *st, const struct sb_context *ctx,
                                const struct sb_outcome *outcome, struct sb_error *err);

#endif

/* What verifiers share that follow a law made from both models' rows. */
#ifndef SB_VERIFIERS_RECURSIVE_H
#define SB_VERIFIERS_RECURSIVE_H

#include "harness/decode/verifier.h"

/* A node under test, and who tests it. */
struct sb_site {
    const struct sb_verifier_ops *verifier; /* for messages */
    const struct sb_tree *tree;
    const struct sb_dice *dice; /* already at the node's position */
    size_t n_vocab;
    int32_t node;
};

/* Sample the law pi = T(p, q) of verifier->law along a chain or tree: recursive rejection with pi in the
 * place of p. At temperature 0, the arg max of pi (smallest id on ties), made from both rows at
 * temperature 1. The drafter's row is node.draft_row, or node.q without one; at leaves none is read
 * unless the verifier wants SB_DRAFT_ROWS_ALL. scratch: sb_law_scratch. */
size_t sb_law_scratch(const void *params, size_t n_vocab, int32_t max_nodes);
enum sb_status sb_law_verify(const struct sb_verifier_ops *verifier, const void *params,
                             const struct sb_tree *tree, const struct sb_rows *rows,
                             const struct sb_dice *dice, void *scratch, struct sb_verdict *verdict,
                             struct sb_error *err);

#endif

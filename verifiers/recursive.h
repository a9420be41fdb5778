/* Recursive rejection (methods A 3.4), shared by verifiers whose target is not the model's row: what
 * an optimal transport left over, or a law made from both models' rows. */
#ifndef SB_VERIFIERS_RECURSIVE_H
#define SB_VERIFIERS_RECURSIVE_H

#include "harness/decode/verifier.h"

/* A node under test, and who tests it. */
struct sb_site {
    const char *verifier; /* for messages */
    const struct sb_tree *tree;
    const struct sb_dice *dice; /* already at the node's position */
    size_t n_vocab;
    int32_t node;
};

/* Try the draws of a node from number `first` on, in draw order: accept token t with
 * min(1, law(t) / q(t)), else law becomes norm([law - q]+) and, unless tokens repeat, t leaves q.
 * law[n_vocab] is what the next token must follow given what was refused before, q[n_vocab] what the
 * next draw was made from; both change, and sum to 1. One-hot children count as draws in the order
 * of their rank, and q is not read.
 * *child: the accepted node, or -1, and then the final token is drawn from law. */
enum sb_status sb_recursive_try(const struct sb_site *site, int32_t first, double *law, double *q,
                                int32_t *child, struct sb_error *err);

/* pi[n] from the rows of both models; q NULL: the drafter has none at this node. */
typedef void sb_law(const void *params, double *pi, const double *p, const double *q, size_t n);

/* Sample a law pi = T(p, q) along a chain or tree: recursive rejection with pi in the place of p. At
 * temperature 0, the arg max of pi (smallest id on ties), made from both rows at temperature 1.
 * The drafter's row is node.draft_row, or node.q without one; at leaves none is read unless `wants`
 * is SB_DRAFT_ROWS_ALL. scratch: sb_law_scratch. */
struct sb_law_rule {
    const char *verifier;
    sb_law *law;
    enum sb_draft_rows wants;
};
size_t sb_law_scratch(const void *params, size_t n_vocab, int32_t max_nodes);
enum sb_status sb_law_verify(const struct sb_law_rule *rule, const void *params,
                             const struct sb_tree *tree, const struct sb_rows *rows,
                             const struct sb_dice *dice, void *scratch, struct sb_verdict *verdict,
                             struct sb_error *err);

#endif

/* The exact law of the first tokens after a prompt, cut into cells for a test of counts (C 6.3).
 *
 * The law is made of the target's own rows, by plain forwards. Cells are chosen from it alone, before
 * anything is sampled: each expects a stated number of draws or more. Likely prefixes are looked at
 * token by token, unlikely tokens share cells with those next to them in probability, and everything
 * below an unlikely prefix is one cell. */
#ifndef SB_CERTIFY_LAW_H
#define SB_CERTIFY_LAW_H

#include "harness/core/error.h"
#include "harness/decode/sampling.h"
#include "harness/model/model.h"

enum { SB_LAW_TOKENS = 3 }; /* how many tokens the law is of */

struct sb_law {
    size_t n_vocab, n_cells, n_nodes, cap_cells, cap_nodes;
    double *p;   /* [n_cells] sums to 1 */
    int32_t *of; /* [n_nodes, n_vocab] of a prefix and its next token: the cell; or, below -1, the
                         prefix one longer, as -2 - node; or SB_LAW_NEVER */
};
#define SB_LAW_NEVER (-1) /* a token of probability 0 */

struct sb_law_request {
    struct sb_model *target;
    const sb_token *prompt;
    size_t n_prompt;
    struct sb_sampling sampling;
    const sb_token *eos; /* end tokens: nothing follows them */
    size_t n_eos;
    double draws;    /* how many the law will be tested with */
    double expected; /* the least of any cell */
};
/* The caller owns *out (sb_law_finish). */
enum sb_status sb_law_make(struct sb_law *out, const struct sb_law_request *request,
                           struct sb_error *err);
void sb_law_finish(struct sb_law *law);

/* The cell of a text's first tokens; SB_LAW_NEVER when it cannot happen, and when it ends too early. */
int32_t sb_law_cell(const struct sb_law *law, const sb_token *tokens, size_t n);

#endif

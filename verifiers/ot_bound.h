/* How much a verifier leaves on the table: the best acceptance that any rule can reach at a node. */
#ifndef SB_VERIFIERS_OT_BOUND_H
#define SB_VERIFIERS_OT_BOUND_H

#include <stddef.h>

#include "harness/decode/tree.h"

/* The largest probability of accepting one of k tokens drawn from q[n], independently (SB_DRAW_IID) or
 * without replacement (SB_DRAW_WOR; all of q's support if that has fewer than k), over all rules that
 * emit p[n]: 1 + min over token sets H of p(H) - Pr(all draws lie in H) (methods A 3.9). NaN for
 * another kind, and for k < 1. Exact up to rounding, for k > 2 without replacement up to 1e-11.
 * scratch: sb_ot_bound_scratch_bytes(n, k). */
double sb_ot_bound(const double *p, const double *q, size_t n, enum sb_draw_kind kind, int32_t k,
                   void *scratch);
size_t sb_ot_bound_scratch_bytes(size_t n, int32_t k);

#endif

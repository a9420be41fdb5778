/* What any verifier could have made of a draft: a step seen from outside, for a run with diagnose=true. */
#ifndef SB_EXPERIMENT_DIAGNOSIS_H
#define SB_EXPERIMENT_DIAGNOSIS_H

#include "harness/decode/session.h"

struct sb_diagnosis {
    int32_t judged; /* nodes of the accepted path that have children to try */
    double
        overlap; /* sum over them of sum_v min(p(v), q(v)); q one-hot at the first child if chosen */
    double
        ot_bound; /* sum over them of the best acceptance of any exact rule (verifiers/ot_bound.h);
                        of chosen children all of their p. NaN where a kind has no known bound */
};

/* At a temperature above 0, while the step's rows stand. *scratch grows as needed, the caller's to free
 * (sb_free). False: out of memory. */
bool sb_diagnose(struct sb_diagnosis *out, const struct sb_step *step, void **scratch,
                 size_t *scratch_bytes);

#endif

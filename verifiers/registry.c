/* The list of verifiers: one line each, sorted by name; meson.build reads the file names from here. */
#include "harness/decode/verifier.h"

#include <stddef.h>
#include <string.h>

#define VERIFIERS(X)                             \
    X(bild) /* in threshold.c */                 \
    X(block)                                     \
    X(gbv)                                       \
    X(greedy)                                    \
    X(gumbel_coupled)                            \
    X(hsd_experimental) /* in block.c */         \
    X(k_seq)                                     \
    X(mss)                                       \
    X(naive_sample)                              \
    X(nest_relaxed) /* in threshold.c */         \
    X(ot_flow)                                   \
    X(rejection)                                 \
    X(rrs)                                       \
    X(scd)                                       \
    X(speccascade_chow)   /* in speccascade.c */ \
    X(speccascade_diff)   /* in speccascade.c */ \
    X(speccascade_opt)    /* in speccascade.c */ \
    X(speccascade_token1) /* in speccascade.c */ \
    X(speccascade_token2) /* in speccascade.c */ \
    X(speccascade_token3) /* in speccascade.c */ \
    X(spechub)                                   \
    X(top_beta) /* in threshold.c */             \
    X(topk_plus_one)                             \
    X(traversal)                                 \
    X(typical) /* in threshold.c */              \
    /* end */

#define X(id) extern const struct sb_verifier_ops sb_verifier_##id;
VERIFIERS(X)
#undef X

#define X(id) &sb_verifier_##id,
const struct sb_verifier_ops *const sb_verifiers[] = { VERIFIERS(X) NULL };
#undef X

const struct sb_verifier_ops *sb_verifier_find(const char *name)
{
    for (size_t i = 0; sb_verifiers[i]; i++)
        if (strcmp(sb_verifiers[i]->name, name) == 0)
            return sb_verifiers[i];
    return NULL;
}

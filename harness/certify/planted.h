/* Rules that are wrong on purpose. A certificate is worth what it would have refused: each of these
 * goes through the same checks as the registry's verifiers and must be caught (methods C 6.3, A 10). */
#ifndef SB_CERTIFY_PLANTED_H
#define SB_CERTIFY_PLANTED_H

#include "harness/certify/drawing.h"
#include "harness/decode/verifier.h"

/* Recursive rejection (A 3.4) for draws with and without replacement, written here so that the checks
 * lean on no verifier of the registry. Its parameters spoil it; without them it is exact. */
extern const struct sb_verifier_ops sb_control_verifier;
struct sb_control {
    double more; /* added to every acceptance probability above 0 */
    bool redraw; /* after a rejection, draw from p and not from the residual */
};

struct sb_planted {
    const char *name, *summary;
    struct sb_drawing drawing; /* as it claims to be drawn */
    struct sb_control rule;
    const char *params; /* the rule as text, "control:more=0.05" */
    bool faint;         /* shows in many generations only */
};
/* The first is not spoilt and must pass; the others must be caught. Ends at a NULL name. */
extern const struct sb_planted sb_planted[];

#endif

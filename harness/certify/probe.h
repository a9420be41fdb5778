/* A drafter of every kind of draw, for putting verifiers to the test on a real model: rows of a draft
 * model, children by the rules of drawing.h. It stands in no registry, keeps no row of its drafts and
 * computes each level's tree anew, so it is slow and has little that can go wrong. */
#ifndef SB_CERTIFY_PROBE_H
#define SB_CERTIFY_PROBE_H

#include "harness/certify/drawing.h"
#include "harness/decode/drafter.h"

extern const struct sb_drafter_ops sb_probe_drafter;

/* "probe:model=...,kind=iid,depth=3,..." in new memory (sb_free); NULL out of memory. */
char *sb_probe_text(const struct sb_drawing *drawing, const char *model, double heat);

#endif

/* How the certifier's own drafts are drawn: every kind of draw, by the rules that drafters use
 * (harness/decode/draw.h), and two rules that are not what they claim. Enumerated toys and the probe
 * drafter share them. */
#ifndef SB_CERTIFY_DRAWING_H
#define SB_CERTIFY_DRAWING_H

#include "harness/decode/sampling.h"
#include "harness/decode/tree.h"

/* Drawing rules that bias every lawful verifier (methods A 10, C 3). */
enum sb_misdraw {
    SB_DRAWN_RIGHT,
    SB_DRAWN_TOP,     /* the most likely tokens, passed off as drawn from the row */
    SB_DRAWN_DROPPED, /* drawn, then dropped when their own q is below half of the row's largest */
};

struct sb_drawing {
    enum sb_draw_kind kind;
    int32_t depth,
        width;    /* levels; children (PATHS: paths) per node; HUB: pairs whatever it says */
    bool coupled; /* WOR: by races of the noise that drafter and verifier may share */
    enum sb_misdraw wrong;
};

enum { SB_DRAWING_ROWS = 2 }; /* rows of a node: the second is used by MIX alone */

/* May this node get children? */
bool sb_drawing_goes_on(const struct sb_drawing *d, const struct sb_tree *tree, int32_t node);

/* Draw the children of `node` from q[0] and q[1], rows [n_vocab] that live as long as the tree.
 * scratch: [n_vocab], and sb_draw_scratch_bytes(n_vocab). Draws that the tree refuses are not made. */
void sb_drawing_children(const struct sb_drawing *d, struct sb_tree *tree, int32_t node,
                         const double *const q[SB_DRAWING_ROWS], size_t n_vocab,
                         const struct sb_dice *dice, double *scratch);

#endif

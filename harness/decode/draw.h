/* How a drafter draws the children of a node from its row q, in one place, and how it chooses them
 * from logits when it does not draw. The rules are those of enum sb_draw_kind; every random choice
 * goes through sb_dice, so that a certifier can enumerate it.
 *
 * Draws belong to the step that makes them, and are never keyed by the position of their token. A
 * verifier that goes from the leaves up has looked at draws that it threw away, and a next step that
 * saw the same numbers at those positions again would be biased. Coupled draws are the exception: their
 * noise belongs to positions, and drafters see none with such a verifier. */
#ifndef SB_DECODE_DRAW_H
#define SB_DECODE_DRAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/decode/sampling.h"
#include "harness/decode/tree.h"

/* Rules that a parameter `draw` may name, in the order of SB_DRAW_RULES. */
enum sb_draw_rule {
    SB_RULE_IID,   /* `width` draws from q */
    SB_RULE_WOR,   /* one after the other, each from q without those before; fewer where q has
                        fewer tokens above 0 */
    SB_RULE_PATHS, /* `width` draws at the root; below, as many as arrived at the node */
    SB_RULE_HUB,   /* x ~ q, then the arg max of q; if x is that itself, then another from the rest.
                        A pair whatever `width`, one draw where q is one-hot */
    SB_RULE_TOPK1, /* the width - 1 likeliest (fewer where q has fewer tokens above 0: one is always
                        left), then one drawn from the others */
    SB_RULE_COUPLED, /* as WOR, by races of the noise that drafter and verifier share, if any is there */
};
#define SB_DRAW_RULES "iid|wor|paths|hub|topk1|coupled"
enum sb_draw_rule sb_draw_rule_of(const char *name); /* one of SB_DRAW_RULES */
enum sb_draw_kind sb_draw_rule_kind(enum sb_draw_rule rule);

enum { SB_DRAW_WIDTH = 64 }; /* widest set */

/* Draw the children of `parent` from q[n_vocab], a law. Returns how many draws were made: none, and no
 * random choice either, where the tree cannot take `width` (HUB: 2) more whatever their tokens are.
 * q is borrowed until the tree is done with; ids from n_vocab on count as 0. width: 1..SB_DRAW_WIDTH.
 * scratch: sb_draw_scratch_bytes(n_vocab). */
int32_t sb_draw_children(struct sb_tree *tree, int32_t parent, enum sb_draw_rule rule,
                         const double *q, size_t n_vocab, int32_t width, const struct sb_dice *dice,
                         void *scratch, int32_t source);
size_t sb_draw_scratch_bytes(size_t n_vocab);

/* Add the `width` likeliest tokens of logits[n_vocab] to `parent`, likelier first, the smaller id on
 * ties; fewer where there is no room or nothing above -inf is left. Returns how many. */
int32_t sb_choose_children(struct sb_tree *tree, int32_t parent, const float *logits,
                           size_t n_vocab, int32_t width, int32_t source);

/* id[] = the at most k ids of largest x[n] above `floor`, larger first, the smaller id on ties; one
 * pass, nothing is sorted but these. Returns how many there are. */
size_t sb_top_logits(int32_t *id, size_t k, const float *x, size_t n, float floor);
size_t sb_top_weights(int32_t *id, size_t k, const double *x, size_t n, double floor);

/* A row to draw from without what was taken out of it. Filling it costs one pass over the row; a draw
 * reads the sums of the row's parts and one part. */
enum { SB_URN_PART = 256 };
struct sb_urn {
    const double *q; /* [n] borrowed, weights of any sum */
    size_t n, n_parts;
    double *part; /* [n_parts] sum of what is left in each SB_URN_PART ids */
    int32_t n_taken;
    sb_token taken[SB_DRAW_WIDTH];
};
size_t sb_urn_bytes(size_t n); /* of `memory`: aligned as double, in use as long as the urn */
void sb_urn_fill(struct sb_urn *urn, const double *q, size_t n, void *memory);
double sb_urn_left(const struct sb_urn *urn); /* sum of what is left; 0 exactly when it is empty */
/* A token by what is left of the weights; it stays in. The urn must not be empty. */
sb_token sb_urn_draw(const struct sb_urn *urn, const struct sb_dice *dice);
void sb_urn_take(struct sb_urn *urn, sb_token token); /* at most SB_DRAW_WIDTH times */

#endif

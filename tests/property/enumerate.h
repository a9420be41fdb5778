/* What tests add to the certifier's enumeration (harness/certify/enumerate.h): drafting rules written
 * apart from those they judge, and decoding with the dice of real runs. */
#ifndef SB_TESTS_ENUMERATE_H
#define SB_TESTS_ENUMERATE_H

#include "harness/certify/enumerate.h"

/* sb_enum_run, with its status beside the result. */
struct enum_result {
    double max_error, variation, accepted, first_accept, first[SB_ENUM_VOCAB], total;
    size_t runs;
    enum sb_status status;
};
struct enum_result enum_run(const struct sb_enum_case *c);

/* Decode x[length] with the RNG's dice, step after step as a session does: numbers keyed by position,
 * those of drafts by step where the verifier is bottom_up, drafts no longer than what is left. */
struct enum_decoded {
    int32_t steps, accepted, first_accepted; /* the last: of the first step */
    enum sb_status status;
};
struct enum_decoded enum_decode(const struct sb_enum_case *c, uint64_t key, sb_token *x,
                                size_t length);

/* Drafting rules over c->draft. Numbers for a level are drawn after one seek to its position. */
typedef void enum_propose(const struct sb_enum_case *c, const struct sb_dice *dice,
                          struct sb_tree *tree);
enum_propose enum_propose_iid;   /* c->width draws under each node */
enum_propose enum_propose_top;   /* the c->width most likely tokens */
enum_propose enum_propose_wor;   /* c->width draws without replacement */
enum_propose enum_propose_paths; /* c->width i.i.d. paths; a path ends behind token 0 of depth 1 */
enum_propose enum_propose_mix;   /* draws from c->draft and c->second in turn */
enum_propose enum_propose_race;  /* the winner under q of the race that the dice share */
enum_propose enum_propose_hub; /* pairs around the arg max (methods A 3.7); c->width is not read */
/* c->width - 1 most likely children, fewer where q has no more support, and a sampled one (A 3.8). */
enum_propose enum_propose_topk1;

#endif

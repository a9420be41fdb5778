/* Exact enumeration of a decoding step on tabular toys (methods A 2.6, C 6.2).
 *
 * Drafter and verifier make every random choice through sb_dice. The enumerating dice replay a
 * prefix of choices, take the first possible branch at each new one, and are advanced like an
 * odometer; the weights of all runs sum to 1. A run's tokens are continued by the target's own rows
 * to a fixed length, so that runs of different lengths add up to one law over sequences. */
#ifndef SB_TESTS_ENUMERATE_H
#define SB_TESTS_ENUMERATE_H

#include "harness/decode/verifier.h"

enum { ENUM_MAX_CHOICES = 64, ENUM_MAX_VOCAB = 5, ENUM_MAX_LENGTH = 4, ENUM_MAX_NODES = 64 };

struct enum_dice {
    struct {
        size_t taken, next; /* next: the branch to try after this one; SIZE_MAX: none */
    } choice[ENUM_MAX_CHOICES];
    size_t n, at;
    double weight; /* of the run so far */
    bool overflow; /* a run made more choices than there is room for */
};
struct sb_dice enum_dice_start(struct enum_dice *dice); /* begin a run: replay, then explore */
bool enum_dice_next(struct enum_dice *dice);            /* false: every run has been made */

/* Next-token rows for every prefix of up to ENUM_MAX_LENGTH tokens. */
struct enum_table {
    size_t n_vocab;
    double row[1 + 5 + 25 + 125 + 625][ENUM_MAX_VOCAB];
};
size_t enum_prefix(const struct enum_table *table, const sb_token *x, size_t n);
const double *enum_row(const struct enum_table *table, const sb_token *x, size_t n);

struct enum_case {
    const struct enum_table *target, *draft, *second; /* second: for mixtures */
    /* Grow the tree; tokens under the root follow the prefix. */
    void (*propose)(const struct enum_case *c, const struct sb_dice *dice, struct sb_tree *tree);
    const sb_token *prefix; /* [n_prefix]; enumeration starts from the empty one */
    size_t n_prefix;
    int32_t depth, width; /* of the draft, for propose */
    const struct sb_verifier_ops *verifier;
    const void *params;
};

/* The law a verifier answers for is the target's, or where it declares one (verifier->law) pi made
 * from both rows: at every node above the leaves, and at these if it asks for all rows there.
 * Proposers draw every node above c->depth, and rows are given as drafters would give them. */
struct enum_result {
    double max_error;             /* of any sequence's probability against that law */
    double variation;             /* total variation between the two laws */
    double accepted;              /* expected accepted draft tokens */
    double first_accept;          /* probability that the first position is accepted */
    double first[ENUM_MAX_VOCAB]; /* law of the first token */
    double total;                 /* weights of all runs: 1 */
    size_t runs;
    enum sb_status status; /* of the first run that failed */
};
struct enum_result enum_run(const struct enum_case *c);

/* One draft and one verdict after c->prefix with the given dice; the tree must hold ENUM_MAX_NODES. */
enum sb_status enum_step(const struct enum_case *c, const struct sb_dice *draft_dice,
                         const struct sb_dice *verify_dice, struct sb_tree *tree,
                         struct sb_verdict *verdict);
/* Decode x[length] with the RNG's dice, step after step as a session does: numbers keyed by position,
 * those of drafts by step where the verifier is bottom_up, drafts no longer than what is left. */
struct enum_decoded {
    int32_t steps, accepted, first_accepted; /* the last: of the first step */
    enum sb_status status;
};
struct enum_decoded enum_decode(const struct enum_case *c, uint64_t key, sb_token *x,
                                size_t length);

/* Drafting rules over c->draft. Numbers for a level are drawn after one seek to its position. */
typedef void enum_propose(const struct enum_case *c, const struct sb_dice *dice,
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

/* Exact enumeration of a decoding step on tabular toys (methods A 2.6, C 6.2).
 *
 * Drafter and verifier make every random choice through sb_dice. The enumerating dice replay a
 * prefix of choices, take the first possible branch at each new one, and are advanced like an
 * odometer; the weights of all runs sum to 1. A run's tokens are continued by the law that is claimed
 * to a fixed length, so that runs of different lengths add up to one law over sequences. */
#ifndef SB_CERTIFY_ENUMERATE_H
#define SB_CERTIFY_ENUMERATE_H

#include "harness/certify/drawing.h"
#include "harness/decode/verifier.h"

enum {
    SB_ENUM_VOCAB = 5,
    SB_ENUM_DEPTH = 3, /* of a draft */
    SB_ENUM_ROWS = 1 + 5 + 25 + 125,
    SB_ENUM_SEQUENCES = SB_ENUM_ROWS + 625,
    SB_ENUM_NODES = 64,
    SB_ENUM_CHOICES = 64, /* of one run */
    SB_ENUM_RACES = 8,
};

/* Dice that enumerate. Flips and picks branch by their weights. A race of shared noise branches by its
 * law given the race that was run at the same position before, if there was one: what the drafter's
 * winner says about the verifier's. A second earlier race there, or a uniform number, has no finite
 * set of outcomes: `trouble` says so, and the run means nothing. */
struct sb_enum_dice {
    struct {
        size_t taken, next; /* next: the branch to try after this one; SIZE_MAX: none */
    } choice[SB_ENUM_CHOICES];
    size_t n, at;
    double weight; /* of the run so far */
    struct {
        uint64_t offset;
        double weight[SB_ENUM_VOCAB];
        size_t winner;
    } race[SB_ENUM_RACES];
    size_t n_races;
    uint64_t offset;
    const char *trouble; /* NULL: none */
};
struct sb_dice
sb_enum_dice_start(struct sb_enum_dice *dice);     /* begin a run: replay, then explore */
bool sb_enum_dice_next(struct sb_enum_dice *dice); /* false: every run has been made */

/* P(i wins the race under q, j the one under p), one noise for both; i = j: the coupling's chance of
 * agreement (A 3.14). q[i] and p[j] above 0. */
double sb_race_joint(const double *q, const double *p, size_t n, size_t i, size_t j);

/* Next-token rows for every prefix of up to SB_ENUM_DEPTH tokens. */
struct sb_enum_table {
    size_t n_vocab;
    double row[SB_ENUM_ROWS][SB_ENUM_VOCAB];
};
/* Number of a prefix of up to SB_ENUM_DEPTH + 1 tokens: by length, then as base-V digits. */
size_t sb_enum_prefix(const struct sb_enum_table *table, const sb_token *x, size_t n);
const double *sb_enum_row(const struct sb_enum_table *table, const sb_token *x, size_t n);

struct sb_enum_case {
    const struct sb_enum_table *target, *draft, *second; /* second: another drafter, for mixtures */
    /* How the tree grows: `drawing`, with depth and width from here; or a rule of the caller's own.
     * Tokens under the root follow the prefix; every node above `depth` should be drawn below. */
    struct sb_drawing drawing;
    void (*propose)(const struct sb_enum_case *c, const struct sb_dice *dice, struct sb_tree *tree);
    const sb_token
        *prefix; /* [n_prefix] text before the step; enumeration starts from the empty one */
    size_t n_prefix;
    int32_t depth, width;
    const struct sb_verifier_ops *verifier;
    const void *params;
    bool greedy; /* temperature 0: the target's rows are one-hot at their arg max */
};

/* Tokens of the prefix, and on the way from the root (left out) to `node`: what its rows follow.
 * Returns how many. */
size_t sb_enum_context(const struct sb_enum_case *c, const struct sb_tree *tree, int32_t node,
                       sb_token *x);

/* One step after another on the same tables: buffers, and rows as a session would show them. */
struct sb_enum_bench;
enum sb_status sb_enum_bench_create(struct sb_enum_bench **out, const struct sb_enum_case *c,
                                    struct sb_error *err);
void sb_enum_bench_destroy(struct sb_enum_bench *bench);
/* Draft at most `depth` levels after prefix[0..n_prefix) and verify, with the given dice. *tree and
 * *verdict are borrowed until the next step. */
enum sb_status sb_enum_bench_step(struct sb_enum_bench *bench, const sb_token *prefix,
                                  size_t n_prefix, int32_t depth, const struct sb_dice *draft_dice,
                                  const struct sb_dice *verify_dice, const struct sb_tree **tree,
                                  const struct sb_verdict **verdict, struct sb_error *err);

struct sb_enum_result {
    double
        max_error; /* of any sequence's probability, against the law that is claimed: the target's
                         own, or the verifier's law of it */
    double variation;    /* total variation between the two, over sequences of depth + 1 tokens */
    double accepted;     /* expected accepted draft tokens */
    double first_accept; /* probability that the first position is accepted */
    double first[SB_ENUM_VOCAB]; /* law of the first token */
    double total;                /* weights of all runs: 1 */
    size_t runs;
};
/* SB_EUNSUPPORTED when a run cannot be enumerated; else what the verifier fails with. */
enum sb_status sb_enum_run(struct sb_enum_result *out, const struct sb_enum_case *c,
                           struct sb_error *err);

#endif

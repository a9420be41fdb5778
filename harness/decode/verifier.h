/* The verifier interface (methods A 1.6): target transform x coupling. */
#ifndef SB_DECODE_VERIFIER_H
#define SB_DECODE_VERIFIER_H

#include "harness/core/error.h"
#include "harness/core/param.h"
#include "harness/decode/drafter.h"
#include "harness/decode/sampling.h"
#include "harness/decode/tree.h"

enum sb_guarantee { SB_GREEDY_EXACT, SB_DISTRIBUTION_EXACT, SB_LOSSY };
const char *sb_guarantee_name(enum sb_guarantee guarantee); /* "greedy-exact", ... */

/* Target rows, transformed lazily: a verifier pays only for the rows it visits. */
struct sb_rows {
    const double *(*row)(void *self, int32_t node); /* S(p) at that node, [n_vocab]; borrowed */
    size_t (*argmax)(void *self, int32_t node); /* of the raw logits, smallest id on ties; n_vocab
                                                       when they hold NaN */
    /* The raw logits [n_vocab], for rules that look behind a one-hot row; NULL: there are none. */
    const float *(*logits)(void *self, int32_t node);
    /* The law [n_vocab] behind a one-hot row where a drafter mixes (sb_drafter_ops.mix), which has no
     * logits; argmax() is that row's, too. NULL: nothing is mixed, or rows are not one-hot. */
    const double *(*mixed)(void *self, int32_t node);
    bool greedy;  /* temperature 0: rows are one-hot */
    bool trusted; /* row() gives rows of S: laws, or NaN from the first entry on */
    void *self;
    size_t n_vocab;
};

enum sb_decision { SB_NOT_REACHED, SB_REJECTED, SB_ACCEPTED };

struct sb_verdict {
    int32_t *path; /* [cap] filled: accepted nodes, root first (path[0] = 0) */
    int32_t n_path;
    sb_token final_token;
    bool bonus;        /* the final token follows a fully accepted path; false: a correction */
    uint8_t *decision; /* [tree->n] enum sb_decision per node */
};

struct sb_verifier_ops {
    const char *name, *summary, *paper;
    const struct sb_param *params;
    size_t params_size;
    enum sb_guarantee guarantee;
    /* The guarantee under these parameters, when they change it (lenience < 1 is lossy); or NULL. */
    enum sb_guarantee (*guarantee_with)(const void *params);
    /* Refuses combinations of parameters that their ranges allow; or NULL. */
    enum sb_status (*check)(const void *params, struct sb_error *err);
    unsigned kinds; /* SB_KIND_BITs it accepts */
    bool chains_only;
    /* Does what it keeps depend on draws below, as in rules that go from the leaves to the root? Then
     * the draws that a step throws away say something about the text it made, and none of their
     * numbers may come back: the session gives every step's draft numbers of its own, and drafters see
     * no race of shared noise, which would come back at the same positions. Such a rule
     * takes all its flips after one seek to 1, where no other step flips, and seeks again for the
     * final token only. Others seek to depth + 1 at each node they judge, and may then trust that
     * every number they have used belongs to text that stands. */
    bool bottom_up;
    bool greedy_only;              /* never samples: for temperature 0 only */
    bool needs_q;                  /* reads q rows of non-one-hot kinds */
    enum sb_draft_rows draft_rows; /* what it wants of the drafter beyond them */
    /* What it wants under these parameters, when some need less; or NULL. */
    enum sb_draft_rows (*draft_rows_with)(const void *params);
    /* The law pi[n] that a lossy rule is exact for, from the target's row p and the drafter's row q
     * (NULL: the drafter has none there); NULL: there is no such law, or it is p itself. */
    void (*law)(const void *params, double *pi, const double *p, const double *q, size_t n);
    int strength; /* larger is preferred as the default among lawful exact ones */
    size_t (*scratch_size)(const void *params, size_t n_vocab, int32_t max_nodes);
    enum sb_status (*verify)(const void *params, const struct sb_tree *tree,
                             const struct sb_rows *rows, const struct sb_dice *dice, void *scratch,
                             struct sb_verdict *verdict, struct sb_error *err);
};

extern const struct sb_verifier_ops *const sb_verifiers[];
const struct sb_verifier_ops *sb_verifier_find(const char *name);
enum sb_guarantee sb_verifier_guarantee(const struct sb_verifier_ops *verifier, const void *params);
/* Of the two together: lossy where the drafter mixes. */
enum sb_guarantee sb_pair_guarantee(const struct sb_drafter_ops *drafter,
                                    const struct sb_verifier_ops *verifier,
                                    const void *verifier_params);
enum sb_draft_rows sb_verifier_draft_rows(const struct sb_verifier_ops *verifier,
                                          const void *params);

/* Pieces that verifiers share. A verdict starts at the root, takes accepted nodes one below the other,
 * and is closed by the final token; siblings of what was accepted, or of the final token, count as
 * rejected. */
void sb_verdict_begin(struct sb_verdict *verdict, const struct sb_tree *tree);
void sb_verdict_accept(struct sb_verdict *verdict, const struct sb_tree *tree, int32_t node);
void sb_verdict_close(struct sb_verdict *verdict, const struct sb_tree *tree, sb_token final_token);
/* The target's row at a node, checked: SB_EFORMAT when it is no probability row. */
enum sb_status sb_rows_get(const struct sb_rows *rows, int32_t node, const double **row,
                           struct sb_error *err);
/* The target's row at temperature 1 without top-k and top-p, for rules that look behind S: fills
 * prob[n_vocab]. Where there are no raw logits it is the mixed law, or the row of sb_rows_get. Fails like it. */
enum sb_status sb_rows_softmax(const struct sb_rows *rows, int32_t node, double *prob,
                               struct sb_error *err);
/* Is row[n] finite, nonnegative and of sum 1 within 1e-6? */
bool sb_row_is_law(const double *row, size_t n);
/* The same of a row that the tree's drafter gave, which may be known to be one (tree->trusted). */
bool sb_draft_row_is_law(const struct sb_tree *tree, const double *row, size_t n);
/* Accept all nodes from below the root down to `node`. */
void sb_verdict_accept_path(struct sb_verdict *verdict, const struct sb_tree *tree, int32_t node);

/* One draw under a node. Draws come in the order they were made, a token as often as it was drawn;
 * children that were chosen come by rank, each as if drawn from a row that is one-hot at its token. */
struct sb_draw {
    int32_t index; /* 0, 1, ... */
    int32_t child;
    sb_token token;
    const double *q; /* [n_vocab] the row it was drawn from; NULL: one-hot at token */
};
#define SB_DRAW_BEGIN \
    {                 \
        .index = -1   \
    }
/* Go on to the next draw under `node`; false: there is none. */
bool sb_draw_next(const struct sb_tree *tree, int32_t node, struct sb_draw *draw);
/* Are the draws under `node` of a kind and number that the verifier takes, from rows that are laws, with
 * q > 0 at each drawn token? SB_EINTERNAL: a drafter broke its word. */
enum sb_status sb_draws_check(const struct sb_verifier_ops *verifier, const struct sb_tree *tree,
                              int32_t node, size_t n_vocab, struct sb_error *err);

/* out[n] = [a p - q / mass]+, unnormalised; returns its sum. q NULL: one-hot at t. out may be p, or NULL
 * for the sum alone. */
double sb_residual(double *out, double a, const double *p, const double *q, double mass, sb_token t,
                   size_t n);
/* A residual that sums to this or less is rounding: p = q there, and p itself is the law. */
#define SB_EMPTY_RESIDUAL 1e-12

/* The rows of a node while its draws are tested one after the other (methods A 3.4, 3.5, 3.11). */
struct sb_rest {
    const double *p; /* [n] the law of the token if no further draw is accepted, times `sum` */
    double sum;
    double mass;          /* of q without the tokens drawn from it for good (WOR) */
    const double *target; /* p at the start */
    size_t n;
};
struct sb_rest sb_rest_begin(const double *target, size_t n);
/* p(t) / q(t) for the next draw, as things stand. */
double sb_rest_ratio(const struct sb_rest *rest, const struct sb_draw *draw);
/* That draw was rejected: p = norm([a p - q]+) in out[n], which may hold p already. Returns the
 * residual's sum; when it is SB_EMPTY_RESIDUAL or less, p is the target's row again. */
double sb_rest_reject(struct sb_rest *rest, double a, const struct sb_tree *tree, int32_t node,
                      const struct sb_draw *draw, double *out);

/* Recursive rejection (methods A 3.4): test the draws of a node from number `first` on, in order, accepting
 * t with min(1, p(t) / q(t)). Returns the accepted child, or -1, and then rest->p is the law of the token
 * to draw. out[n] as for sb_rest_reject, and not rest->target. */
int32_t sb_rest_try(struct sb_rest *rest, const struct sb_tree *tree, int32_t node, int32_t first,
                    const struct sb_dice *dice, double *out);

/* Walk down by the arg max: the rule `greedy`, and what every rule that keeps the target's law comes to
 * at temperature 0, where it needs no rows. */
enum sb_status sb_greedy_verify(const struct sb_tree *tree, const struct sb_rows *rows,
                                struct sb_verdict *verdict, struct sb_error *err);

/* A node on the way down, for rules that decide level by level. */
struct sb_level {
    const struct sb_tree *tree;
    int32_t node;
    const double *p; /* the target's row there, [rows->n_vocab] */
    const struct sb_rows *rows;
    const struct sb_dice *dice; /* at the position of the token to decide */
    const void *params;
    void *scratch;
};
/* Walk from the root down. At each node `test` returns the child it accepts, or -1 after it has put the
 * law of the final token, [n_vocab] and of positive sum, into *law, which is p at first. The draws
 * under the node have passed sb_draws_check. */
enum sb_status sb_levels_verify(const struct sb_verifier_ops *verifier, const void *params,
                                const struct sb_tree *tree, const struct sb_rows *rows,
                                const struct sb_dice *dice, void *scratch,
                                int32_t (*test)(const struct sb_level *level, const double **law),
                                struct sb_verdict *verdict, struct sb_error *err);

/* One path, judged from its end upwards: what the rules built on block verification (methods A 3.10)
 * share. They differ in the path, the rows q and the weights. */
struct sb_path {
    const struct sb_tree *tree;
    struct sb_path_node {
        int32_t node;
        double weight; /* joint weight w of the draft down to here; 1 at the root */
    } * at;            /* [n] from the root on, down to a leaf or the first weight of 0 */
    int32_t n;
    /* The row that at[i + 1] counts as drawn from, in a buffer until the next call; NULL: one-hot. */
    const double *(*draft_row)(void *self, int32_t i);
    void *self;
};
/* With S = sum of [w p - q]+, keep the path down to node i with probability min(1, S / (S + 1 - w)),
 * at the end with min(1, w), testing from the end up to the root, which stays; then draw the final
 * token from [w p - q]+, at the end from p. residual: [n_vocab] scratch. The target's rows of all
 * nodes but the last were checked on the way down. */
enum sb_status sb_path_verify(const struct sb_path *path, const struct sb_rows *rows,
                              const struct sb_dice *dice, double *residual,
                              struct sb_verdict *verdict, struct sb_error *err);

/* Walk down by drawing one token per node and looking it up among the children: naive-sample and
 * gumbel-coupled, which differ in where the token's draw comes from. */
enum sb_status sb_lookup_verify(const struct sb_tree *tree, const struct sb_rows *rows,
                                const struct sb_dice *dice,
                                size_t (*draw)(void *self, const double *weight, size_t n),
                                struct sb_verdict *verdict, struct sb_error *err);
/* At temperature 0: the token that has all of the target's row, without the row. SB_EFORMAT when the
 * logits hold NaN. */
enum sb_status sb_rows_greedy(const struct sb_rows *rows, int32_t node, sb_token *token,
                              struct sb_error *err);

/* Is the pair lawful at this temperature? SB_EUSAGE says why not and lists the lawful verifiers. */
enum sb_status sb_pair_check(const struct sb_drafter_ops *drafter,
                             const struct sb_verifier_ops *verifier,
                             const struct sb_sampling *sampling, struct sb_error *err);
/* The same for a drafter with parameters (NULL: its defaults), which may decide whether it branches. */
enum sb_status sb_pair_check_with(const struct sb_drafter_ops *drafter, const void *drafter_params,
                                  const struct sb_verifier_ops *verifier,
                                  const struct sb_sampling *sampling, struct sb_error *err);
const struct sb_verifier_ops *sb_verifier_default_with(const struct sb_drafter_ops *drafter,
                                                       const void *drafter_params,
                                                       const struct sb_sampling *sampling);
/* The strongest exact verifier that the drafter's trees allow: greedy at temperature 0; naive-sample
 * where all children are one-hot, since nothing accepts more there. */
const struct sb_verifier_ops *sb_verifier_default(const struct sb_drafter_ops *drafter,
                                                  const struct sb_sampling *sampling);

#endif

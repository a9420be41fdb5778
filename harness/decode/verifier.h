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
    bool needs_q;                  /* reads q rows of non-one-hot kinds */
    enum sb_draft_rows draft_rows; /* what it wants of the drafter beyond them */
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

/* Pieces that verifiers share. A verdict starts at the root, takes accepted nodes one below the other,
 * and is closed by the final token; siblings of what was accepted, or of the final token, count as
 * rejected. */
void sb_verdict_begin(struct sb_verdict *verdict, const struct sb_tree *tree);
void sb_verdict_accept(struct sb_verdict *verdict, const struct sb_tree *tree, int32_t node);
void sb_verdict_close(struct sb_verdict *verdict, const struct sb_tree *tree, sb_token final_token);
/* The target's row at a node, checked: SB_EFORMAT when it is no probability row. */
enum sb_status sb_rows_get(const struct sb_rows *rows, int32_t node, const double **row,
                           struct sb_error *err);
/* At temperature 0: the token that has all of the target's row, without the row. SB_EFORMAT when the
 * logits hold NaN. */
enum sb_status sb_rows_greedy(const struct sb_rows *rows, int32_t node, sb_token *token,
                              struct sb_error *err);
/* Is row[n] finite, nonnegative and of sum 1 within 1e-6? */
bool sb_row_is_law(const double *row, size_t n);
/* out[n] = [a p - b q]+, not normalised; returns its sum. q NULL: one-hot at t. out may be p, q, or NULL
 * for the sum alone. kernels/prob.h has more for rows: sb_prob_sum, _scale, _overlap, _entropy,
 * _argmax. */
double sb_row_residual(double *out, double a, const double *p, double b, const double *q,
                       sb_token t, size_t n);

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

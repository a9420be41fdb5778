/* What verifiers share: the verdict as it grows, checked rows, and which pairs are lawful. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/decode/verifier.h"
#include "kernels/prob.h"

void sb_verdict_begin(struct sb_verdict *verdict, const struct sb_tree *tree)
{
    memset(verdict->decision, SB_NOT_REACHED, (size_t)tree->n);
    verdict->decision[0] = SB_ACCEPTED;
    verdict->path[0] = 0;
    verdict->n_path = 1;
    verdict->final_token = -1;
    verdict->bonus = false;
}

/* Returns how many verified children `parent` has. */
static int32_t reject_children(struct sb_verdict *verdict, const struct sb_tree *tree,
                               int32_t parent)
{
    int32_t n = 0;
    for (int32_t i = parent + 1; i < tree->n; i++) {
        if (tree->node[i].parent != parent || tree->node[i].auxiliary)
            continue;
        verdict->decision[i] = SB_REJECTED;
        n++;
    }
    return n;
}

void sb_verdict_accept(struct sb_verdict *verdict, const struct sb_tree *tree, int32_t node)
{
    reject_children(verdict, tree, tree->node[node].parent);
    verdict->decision[node] = SB_ACCEPTED;
    verdict->path[verdict->n_path++] = node;
}

void sb_verdict_close(struct sb_verdict *verdict, const struct sb_tree *tree, sb_token final_token)
{
    int32_t last = verdict->path[verdict->n_path - 1];
    verdict->bonus = reject_children(verdict, tree, last) == 0;
    verdict->final_token = final_token;
}

bool sb_row_is_law(const double *row, size_t n)
{
    return fabs(sb_prob_check(row, n) - 1) <= 1e-6; /* false for NaN */
}

double sb_row_residual(double *out, double a, const double *p, double b, const double *q,
                       sb_token t, size_t n)
{
    return q ? sb_prob_residual(out, a, p, b, q, n)
             : sb_prob_residual_onehot(out, a, p, b, (size_t)t, n);
}

enum sb_status sb_rows_greedy(const struct sb_rows *rows, int32_t node, sb_token *token,
                              struct sb_error *err)
{
    size_t best = rows->argmax(rows->self, node);
    if (best >= rows->n_vocab)
        return sb_fail(err, SB_EFORMAT, "the target's logits at node %" PRId32 " hold NaN", node);
    *token = (sb_token)best;
    return SB_OK;
}

enum sb_status sb_rows_get(const struct sb_rows *rows, int32_t node, const double **row,
                           struct sb_error *err)
{
    const double *p = rows->row(rows->self, node);
    if (!p || (rows->trusted ? isnan(p[0]) : !sb_row_is_law(p, rows->n_vocab)))
        return sb_fail(err, SB_EFORMAT,
                       "the target's row at node %" PRId32
                       " is no probability row (its logits hold NaN or infinity)",
                       node);
    *row = p;
    return SB_OK;
}

const char *sb_guarantee_name(enum sb_guarantee guarantee)
{
    static const char *const names[] = { "greedy-exact", "distribution-exact", "lossy" };
    return (unsigned)guarantee < sizeof names / sizeof *names ? names[guarantee] : "unknown";
}

enum sb_guarantee sb_verifier_guarantee(const struct sb_verifier_ops *verifier, const void *params)
{
    return verifier->guarantee_with && params ? verifier->guarantee_with(params)
                                              : verifier->guarantee;
}

static unsigned kinds_of(const struct sb_drafter_ops *drafter, const void *params,
                         const struct sb_sampling *sampling)
{
    if (drafter->kinds)
        return drafter->kinds(params, sampling);
    return sampling->temperature > 0 && drafter->kinds_sampling ? drafter->kinds_sampling
                                                                : drafter->kinds_greedy;
}

static bool makes_trees(const struct sb_drafter_ops *drafter, const void *params)
{
    return drafter->makes_trees && (!drafter->branches || drafter->branches(params));
}

/* Why the pair is unlawful, as the end of a sentence about the verifier; NULL: it is lawful. */
static const char *objection(const struct sb_drafter_ops *drafter, const void *params,
                             const struct sb_verifier_ops *verifier,
                             const struct sb_sampling *sampling)
{
    if (sampling->temperature > 0 && verifier->guarantee == SB_GREEDY_EXACT)
        return "never samples, and the temperature is above 0";
    if (verifier->chains_only && makes_trees(drafter, params))
        return "takes chains only, and the drafter makes trees with these parameters";
    if (kinds_of(drafter, params, sampling) & ~verifier->kinds)
        return "would be biased by the way this drafter draws its tokens";
    if (drafter->draft_rows < verifier->draft_rows)
        return "needs the drafter's own rows, and it gives none";
    return NULL;
}

enum sb_status sb_pair_check_with(const struct sb_drafter_ops *drafter, const void *drafter_params,
                                  const struct sb_verifier_ops *verifier,
                                  const struct sb_sampling *sampling, struct sb_error *err)
{
    const char *why = objection(drafter, drafter_params, verifier, sampling);
    if (!why)
        return SB_OK;
    char lawful[256] = "";
    size_t used = 0;
    for (size_t i = 0; sb_verifiers[i] && used < sizeof lawful; i++)
        if (!objection(drafter, drafter_params, sb_verifiers[i], sampling))
            used += (size_t)snprintf(lawful + used, sizeof lawful - used, "%s%s", used ? ", " : "",
                                     sb_verifiers[i]->name);
    return sb_fail(err, SB_EUSAGE, "drafter %s with verifier %s: the verifier %s; lawful here: %s",
                   drafter->name, verifier->name, why, lawful);
}

enum sb_status sb_pair_check(const struct sb_drafter_ops *drafter,
                             const struct sb_verifier_ops *verifier,
                             const struct sb_sampling *sampling, struct sb_error *err)
{
    return sb_pair_check_with(drafter, NULL, verifier, sampling, err);
}

const struct sb_verifier_ops *sb_verifier_default_with(const struct sb_drafter_ops *drafter,
                                                       const void *drafter_params,
                                                       const struct sb_sampling *sampling)
{
    enum sb_guarantee wanted = sampling->temperature > 0 ? SB_DISTRIBUTION_EXACT : SB_GREEDY_EXACT;
    /* For children chosen deterministically no exact rule accepts more than their total p, which
     * is what sampling once and looking up does; and its text does not depend on the drafter. */
    bool onehot = (kinds_of(drafter, drafter_params, sampling) & ~SB_KIND_BIT(SB_DRAW_ONEHOT)) == 0;
    const struct sb_verifier_ops *best = NULL;
    for (size_t i = 0; sb_verifiers[i]; i++) {
        const struct sb_verifier_ops *v = sb_verifiers[i];
        if (v->guarantee != wanted || (onehot && v->needs_q) ||
            objection(drafter, drafter_params, v, sampling))
            continue;
        if (!best || v->strength > best->strength)
            best = v;
    }
    return best;
}

const struct sb_verifier_ops *sb_verifier_default(const struct sb_drafter_ops *drafter,
                                                  const struct sb_sampling *sampling)
{
    return sb_verifier_default_with(drafter, NULL, sampling);
}

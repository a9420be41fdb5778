/* What verifiers share: the verdict as it grows, checked rows and draws, residuals, walks that differ in
 * one step only, and which pairs are lawful. */
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

void sb_verdict_accept_path(struct sb_verdict *verdict, const struct sb_tree *tree, int32_t node)
{
    int32_t n = tree->node[node].depth + 1;
    for (int32_t i = n; i-- > 0; node = tree->node[node].parent)
        verdict->path[i] = node;
    while (verdict->n_path < n)
        sb_verdict_accept(verdict, tree, verdict->path[verdict->n_path]);
}

bool sb_row_is_law(const double *row, size_t n)
{
    return fabs(sb_prob_check(row, n) - 1) <= 1e-6; /* false for NaN */
}

bool sb_draft_row_is_law(const struct sb_tree *tree, const double *row, size_t n)
{
    return tree->trusted ? !isnan(row[0]) : sb_row_is_law(row, n);
}

static enum sb_status no_row(int32_t node, struct sb_error *err)
{
    return sb_fail(err, SB_EFORMAT,
                   "the target's row at node %" PRId32
                   " is no probability row (its logits hold NaN or infinity)",
                   node);
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
        return no_row(node, err);
    *row = p;
    return SB_OK;
}

enum sb_status sb_rows_softmax(const struct sb_rows *rows, int32_t node, double *prob,
                               struct sb_error *err)
{
    const float *logits = rows->logits ? rows->logits(rows->self, node) : NULL;
    if (logits) {
        sb_sampling_apply(prob, &(struct sb_sampling){ .temperature = 1 }, logits, rows->n_vocab,
                          NULL);
        return isnan(prob[0]) ? no_row(node, err) : SB_OK;
    }
    const double *p;
    enum sb_status rc = sb_rows_get(rows, node, &p, err);
    if (rc == SB_OK && rows->mixed)
        p = rows->mixed(rows->self, node);
    if (rc == SB_OK)
        memcpy(prob, p, rows->n_vocab * sizeof *prob);
    return rc;
}

/* ---- draws ---- */

bool sb_draw_next(const struct sb_tree *tree, int32_t node, struct sb_draw *draw)
{
    const struct sb_node *parent = &tree->node[node];
    if (parent->kind == SB_DRAW_ONEHOT) {
        int32_t child = draw->index < 0 ? node : draw->child;
        do
            child++;
        while (child < tree->n &&
               (tree->node[child].parent != node || tree->node[child].auxiliary));
        if (child >= tree->n)
            return false;
        *draw = (struct sb_draw){ draw->index + 1, child, tree->node[child].token, NULL };
        return true;
    }
    if (draw->index + 1 >= parent->n_draws)
        return false;
    int32_t at = parent->first_draw + ++draw->index;
    draw->child = tree->draw[at];
    draw->token = tree->node[draw->child].token;
    draw->q = tree->draw_q[at];
    return true;
}

enum sb_status sb_draws_check(const struct sb_verifier_ops *verifier, const struct sb_tree *tree,
                              int32_t node, size_t n_vocab, struct sb_error *err)
{
    const struct sb_node *parent = &tree->node[node];
    if (parent->kind == SB_DRAW_NONE)
        return SB_OK;
    if (!(verifier->kinds & SB_KIND_BIT(parent->kind)))
        return sb_fail(err, SB_EINTERNAL,
                       "verifier %s: node %" PRId32 " has draws of kind %s, which it does not take",
                       verifier->name, node, sb_draw_kind_name(parent->kind));
    const double *checked = NULL;
    for (struct sb_draw draw = SB_DRAW_BEGIN; sb_draw_next(tree, node, &draw);) {
        if (draw.index > 0 && verifier->chains_only)
            return sb_fail(err, SB_EINTERNAL,
                           "verifier %s: node %" PRId32 " has more than one draw", verifier->name,
                           node);
        if (parent->kind == SB_DRAW_ONEHOT)
            continue;
        if (!draw.q || (draw.q != checked && !sb_draft_row_is_law(tree, draw.q, n_vocab)))
            return sb_fail(err, SB_EINTERNAL,
                           "verifier %s: the drafter's row at node %" PRId32
                           " is no probability row",
                           verifier->name, node);
        checked = draw.q;
        if (!(draw.q[draw.token] > 0))
            return sb_fail(err, SB_EINTERNAL,
                           "verifier %s: the drafter drew token %" PRId32 " with q = 0",
                           verifier->name, draw.token);
    }
    return SB_OK;
}

double sb_residual(double *out, double a, const double *p, const double *q, double mass, sb_token t,
                   size_t n)
{
    if (!q)
        return sb_prob_residual_onehot(out, a, p, 1 / mass, (size_t)t, n);
    if (1 / mass < INFINITY)
        return sb_prob_residual(out, a, p, 1 / mass, q, n);
    double sum = 0; /* so small a mass has no inverse */
    for (size_t i = 0; i < n; i++) {
        double rest = a * p[i] - q[i] / mass;
        out[i] = rest > 0 ? rest : 0;
        sum += out[i];
    }
    return sum;
}

struct sb_rest sb_rest_begin(const double *target, size_t n)
{
    return (struct sb_rest){ .p = target, .sum = 1, .mass = 1, .target = target, .n = n };
}

double sb_rest_ratio(const struct sb_rest *rest, const struct sb_draw *draw)
{
    double p = rest->p[draw->token] / rest->sum;
    return draw->q ? p / (draw->q[draw->token] / rest->mass) : p;
}

/* The mass of q without the tokens of the first `n_drawn` draws, added up anew: what is left after a
 * likely token may be as small as numbers get. */
static double mass_left(const struct sb_tree *tree, const struct sb_node *parent, int32_t n_drawn,
                        const double *q, size_t n)
{
    double mass = 0;
    for (size_t from = 0, to; from < n; from = to + 1) {
        to = n;
        for (int32_t d = 0; d < n_drawn; d++) {
            size_t t = (size_t)tree->node[tree->draw[parent->first_draw + d]].token;
            to = t >= from && t < to ? t : to;
        }
        mass += sb_prob_sum(q + from, to - from);
    }
    return mass;
}

double sb_rest_reject(struct sb_rest *rest, double a, const struct sb_tree *tree, int32_t node,
                      const struct sb_draw *draw, double *out)
{
    const struct sb_node *parent = &tree->node[node];
    double sum =
        sb_residual(out, a / rest->sum, rest->p, draw->q, rest->mass, draw->token, rest->n);
    bool empty = sum <= SB_EMPTY_RESIDUAL;
    rest->p = empty ? rest->target : out;
    rest->sum = empty ? 1 : sum;
    /* The token itself needs no zero in q: p is 0 there from now on, since it was rejected. */
    if (parent->kind == SB_DRAW_WOR && draw->index + 1 < parent->n_draws)
        rest->mass = mass_left(tree, parent, draw->index + 1, draw->q, rest->n);
    return sum;
}

int32_t sb_rest_try(struct sb_rest *rest, const struct sb_tree *tree, int32_t node, int32_t first,
                    const struct sb_dice *dice, double *out)
{
    const struct sb_node *parent = &tree->node[node];
    if (first > 0 && parent->kind == SB_DRAW_WOR)
        rest->mass = mass_left(tree, parent, first, parent->q, rest->n);
    for (struct sb_draw draw = SB_DRAW_BEGIN; sb_draw_next(tree, node, &draw);) {
        if (draw.index < first)
            continue;
        if (dice->flip(dice->self, fmin(1, sb_rest_ratio(rest, &draw))))
            return draw.child;
        sb_rest_reject(rest, 1, tree, node, &draw, out);
    }
    return -1;
}

/* ---- walks ---- */

enum sb_status sb_greedy_verify(const struct sb_tree *tree, const struct sb_rows *rows,
                                struct sb_verdict *verdict, struct sb_error *err)
{
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0;;) {
        sb_token best;
        enum sb_status rc = sb_rows_greedy(rows, node, &best, err);
        if (rc != SB_OK)
            return rc;
        int32_t child = sb_tree_child(tree, node, best);
        if (child < 0) {
            sb_verdict_close(verdict, tree, best);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        node = child;
    }
}

enum sb_status sb_levels_verify(const struct sb_verifier_ops *verifier, const void *params,
                                const struct sb_tree *tree, const struct sb_rows *rows,
                                const struct sb_dice *dice, void *scratch,
                                int32_t (*test)(const struct sb_level *level, const double **law),
                                struct sb_verdict *verdict, struct sb_error *err)
{
    struct sb_level level = {
        .tree = tree, .rows = rows, .dice = dice, .params = params, .scratch = scratch
    };
    sb_verdict_begin(verdict, tree);
    for (;;) {
        enum sb_status rc = sb_rows_get(rows, level.node, &level.p, err);
        if (rc == SB_OK)
            rc = sb_draws_check(verifier, tree, level.node, rows->n_vocab, err);
        if (rc != SB_OK)
            return rc;
        const double *law = level.p;
        sb_dice_seek(dice, (uint64_t)tree->node[level.node].depth + 1);
        int32_t child = test(&level, &law);
        if (child < 0) {
            size_t token = dice->pick(dice->self, law, rows->n_vocab);
            sb_verdict_close(verdict, tree, (sb_token)token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        level.node = child;
    }
}

enum sb_status sb_path_verify(const struct sb_path *path, const struct sb_rows *rows,
                              const struct sb_dice *dice, double *residual,
                              struct sb_verdict *verdict, struct sb_error *err)
{
    const struct sb_tree *tree = path->tree;
    int32_t i = path->n - 1;
    const double *law;
    sb_verdict_begin(verdict, tree);
    sb_dice_seek(dice, 1);
    if (i == 0 || dice->flip(dice->self, fmin(1, path->at[i].weight))) {
        enum sb_status rc = sb_rows_get(rows, path->at[i].node, &law, err);
        if (rc != SB_OK)
            return rc;
    } else {
        for (bool kept = false; !kept;) {
            double w = path->at[--i].weight;
            const double *p = rows->row(rows->self, path->at[i].node);
            sb_token next = tree->node[path->at[i + 1].node].token;
            double sum =
                sb_residual(residual, w, p, path->draft_row(path->self, i), 1, next, rows->n_vocab);
            double all = sum + (1 - w);
            law = sum > SB_EMPTY_RESIDUAL ? residual : p;
            kept = i == 0 || dice->flip(dice->self, all > 0 ? fmin(1, sum / all) : 1);
        }
    }
    sb_verdict_accept_path(verdict, tree, path->at[i].node);
    sb_dice_seek(dice, (uint64_t)tree->node[path->at[i].node].depth + 1);
    sb_verdict_close(verdict, tree, (sb_token)dice->pick(dice->self, law, rows->n_vocab));
    return SB_OK;
}

enum sb_status sb_lookup_verify(const struct sb_tree *tree, const struct sb_rows *rows,
                                const struct sb_dice *dice,
                                size_t (*draw)(void *self, const double *weight, size_t n),
                                struct sb_verdict *verdict, struct sb_error *err)
{
    if (rows->greedy)
        return sb_greedy_verify(tree, rows, verdict, err);
    sb_verdict_begin(verdict, tree);
    for (int32_t node = 0;;) {
        const double *p;
        enum sb_status rc = sb_rows_get(rows, node, &p, err);
        if (rc != SB_OK)
            return rc;
        sb_dice_seek(dice, (uint64_t)tree->node[node].depth + 1);
        sb_token token = (sb_token)draw(dice->self, p, rows->n_vocab);
        int32_t child = sb_tree_child(tree, node, token);
        if (child < 0) {
            sb_verdict_close(verdict, tree, token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        node = child;
    }
}

/* ---- lawful pairs ---- */

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

enum sb_guarantee sb_pair_guarantee(const struct sb_drafter_ops *drafter,
                                    const struct sb_verifier_ops *verifier,
                                    const void *verifier_params)
{
    return drafter->mix ? SB_LOSSY : sb_verifier_guarantee(verifier, verifier_params);
}

enum sb_draft_rows sb_verifier_draft_rows(const struct sb_verifier_ops *verifier,
                                          const void *params)
{
    return verifier->draft_rows_with && params ? verifier->draft_rows_with(params)
                                               : verifier->draft_rows;
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
    if (sampling->temperature > 0 &&
        (verifier->guarantee == SB_GREEDY_EXACT || verifier->greedy_only))
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
    char lawful[320] = "";
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

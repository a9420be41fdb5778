#include "verifiers/recursive.h"

#include <inttypes.h>
#include <string.h>

static bool accepts(const struct sb_dice *dice, double law_t, double q_t)
{
    return dice->flip(dice->self, law_t < q_t ? law_t / q_t : 1);
}

/* A one-hot child is a draw from the row that has 1 at its token. */
static int32_t try_onehot(const struct sb_site *site, double *law)
{
    for (int32_t i = site->node + 1; i < site->tree->n; i++) {
        const struct sb_node *child = &site->tree->node[i];
        if (child->parent != site->node || child->auxiliary)
            continue;
        if (accepts(site->dice, law[child->token], 1))
            return i;
        sb_residual(law, NULL, child->token, site->n_vocab);
    }
    return -1;
}

enum sb_status sb_recursive_try(const struct sb_site *site, int32_t first, double *law, double *q,
                                int32_t *child, struct sb_error *err)
{
    const struct sb_node *parent = &site->tree->node[site->node];
    *child = -1;
    if (parent->kind == SB_DRAW_ONEHOT)
        *child = try_onehot(site, law);
    for (int32_t d = first; d < parent->n_draws && *child < 0; d++) {
        int32_t drawn = site->tree->draw[parent->first_draw + d];
        sb_token t = site->tree->node[drawn].token;
        if (!(q[t] > 0)) /* drawn twice without replacement, or from another row */
            return sb_fail(err, SB_EINTERNAL,
                           "verifier %s: the drafter drew token %" PRId32 " with q = 0",
                           site->verifier, t);
        if (accepts(site->dice, law[t], q[t])) {
            *child = drawn;
            break;
        }
        sb_residual(law, q, t, site->n_vocab);
        if (parent->kind == SB_DRAW_WOR)
            sb_without(q, t, site->n_vocab);
    }
    return SB_OK;
}

/* ---- laws made from both models' rows ---- */

size_t sb_law_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return 2 * n_vocab * sizeof(double);
}

/* The drafter's row at a node, or NULL. */
static enum sb_status draft_row(const struct sb_law_rule *rule, const struct sb_tree *tree,
                                int32_t node, size_t n_vocab, const double **row,
                                struct sb_error *err)
{
    const struct sb_node *n = &tree->node[node];
    bool leaf = n->kind == SB_DRAW_NONE;
    *row = leaf && rule->wants != SB_DRAFT_ROWS_ALL ? NULL : n->draft_row ? n->draft_row : n->q;
    if (!*row || sb_row_is_law(*row, n_vocab))
        return SB_OK;
    return sb_fail(err, SB_EINTERNAL,
                   "verifier %s: the drafter's row at node %" PRId32 " is no probability row",
                   rule->verifier, node);
}

static size_t largest(const double *x, size_t n)
{
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return best;
}

/* Temperature 0: the arg max of pi in *token; where there is no pi, the target's own. */
static enum sb_status most_likely(const struct sb_law_rule *rule, const void *params,
                                  const struct sb_rows *rows, int32_t node, const double *q,
                                  double *scratch, sb_token *token, struct sb_error *err)
{
    double *p = scratch, *pi = scratch + rows->n_vocab;
    enum sb_status rc = sb_rows_softmax(rows, node, p, err);
    if (rc != SB_OK)
        return rc;
    if (!q) {
        *token = (sb_token)rows->argmax(rows->self, node);
        return SB_OK;
    }
    rule->law(params, pi, p, q, rows->n_vocab);
    *token = (sb_token)largest(pi, rows->n_vocab);
    return SB_OK;
}

/* Above: try the node's draws against pi; *child, or -1 and the token drawn from what is left. */
static enum sb_status sample(const struct sb_law_rule *rule, const void *params,
                             const struct sb_site *site, const struct sb_rows *rows,
                             const double *q, double *scratch, int32_t *child, sb_token *token,
                             struct sb_error *err)
{
    size_t n = rows->n_vocab;
    const struct sb_node *parent = &site->tree->node[site->node];
    double *pi = scratch, *left = scratch + n;
    const double *p, *drawn_from;
    enum sb_status rc = sb_rows_get(rows, site->node, &p, err);
    if (rc == SB_OK && parent->n_draws > 0) {
        rc = sb_draws_row(site->tree, site->node, n, rule->verifier, &drawn_from, err);
        if (rc == SB_OK)
            memcpy(left, drawn_from, n * sizeof *left);
    }
    if (rc != SB_OK)
        return rc;
    rule->law(params, pi, p, q, n);
    sb_dice_seek(site->dice, (uint64_t)parent->depth + 1);
    rc = sb_recursive_try(site, 0, pi, left, child, err);
    if (rc == SB_OK && *child < 0)
        *token = (sb_token)site->dice->pick(site->dice->self, pi, n);
    return rc;
}

enum sb_status sb_law_verify(const struct sb_law_rule *rule, const void *params,
                             const struct sb_tree *tree, const struct sb_rows *rows,
                             const struct sb_dice *dice, void *scratch, struct sb_verdict *verdict,
                             struct sb_error *err)
{
    struct sb_site site = { rule->verifier, tree, dice, rows->n_vocab, 0 };
    sb_verdict_begin(verdict, tree);
    for (;;) {
        const double *q;
        sb_token token = -1;
        int32_t child = -1;
        enum sb_status rc = draft_row(rule, tree, site.node, rows->n_vocab, &q, err);
        if (rc == SB_OK && rows->greedy) {
            rc = most_likely(rule, params, rows, site.node, q, scratch, &token, err);
            child = rc == SB_OK ? sb_tree_child(tree, site.node, token) : -1;
        } else if (rc == SB_OK) {
            rc = sample(rule, params, &site, rows, q, scratch, &child, &token, err);
        }
        if (rc != SB_OK)
            return rc;
        if (child < 0) {
            sb_verdict_close(verdict, tree, token);
            return SB_OK;
        }
        sb_verdict_accept(verdict, tree, child);
        site.node = child;
    }
}

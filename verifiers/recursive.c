#include "verifiers/recursive.h"

#include <inttypes.h>

#include "kernels/prob.h"

size_t sb_law_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return 2 * n_vocab * sizeof(double);
}

/* The drafter's row at a node, or NULL. */
static enum sb_status draft_row(const struct sb_verifier_ops *verifier, enum sb_draft_rows wants,
                                const struct sb_tree *tree, int32_t node, size_t n_vocab,
                                const double **row, struct sb_error *err)
{
    const struct sb_node *n = &tree->node[node];
    bool leaf = n->kind == SB_DRAW_NONE;
    *row = leaf && wants != SB_DRAFT_ROWS_ALL ? NULL : n->draft_row ? n->draft_row : n->q;
    if (!*row || sb_draft_row_is_law(tree, *row, n_vocab))
        return SB_OK;
    return sb_fail(err, SB_EINTERNAL,
                   "verifier %s: the drafter's row at node %" PRId32 " is no probability row",
                   verifier->name, node);
}

/* Temperature 0: the arg max of pi in *token; where there is no pi, the target's own. */
static enum sb_status most_likely(const struct sb_verifier_ops *verifier, const void *params,
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
    verifier->law(params, pi, p, q, rows->n_vocab);
    *token = (sb_token)sb_prob_argmax(pi, rows->n_vocab);
    return SB_OK;
}

/* Above: try the node's draws against pi; *child, or -1 and the token drawn from what is left. */
static enum sb_status sample(const struct sb_verifier_ops *verifier, const void *params,
                             const struct sb_site *site, const struct sb_rows *rows,
                             const double *q, double *scratch, int32_t *child, sb_token *token,
                             struct sb_error *err)
{
    size_t n = rows->n_vocab;
    double *pi = scratch;
    const double *p;
    enum sb_status rc = sb_rows_get(rows, site->node, &p, err);
    if (rc == SB_OK)
        rc = sb_draws_check(verifier, site->tree, site->node, n, err);
    if (rc != SB_OK)
        return rc;
    verifier->law(params, pi, p, q, n);
    sb_dice_seek(site->dice, (uint64_t)site->tree->node[site->node].depth + 1);
    struct sb_rest rest = sb_rest_begin(pi, n);
    *child = sb_rest_try(&rest, site->tree, site->node, 0, site->dice, scratch + n);
    if (*child < 0)
        *token = (sb_token)site->dice->pick(site->dice->self, rest.p, n);
    return SB_OK;
}

enum sb_status sb_law_verify(const struct sb_verifier_ops *verifier, const void *params,
                             const struct sb_tree *tree, const struct sb_rows *rows,
                             const struct sb_dice *dice, void *scratch, struct sb_verdict *verdict,
                             struct sb_error *err)
{
    struct sb_site site = { verifier, tree, dice, rows->n_vocab, 0 };
    const enum sb_draft_rows wants = sb_verifier_draft_rows(verifier, params);
    sb_verdict_begin(verdict, tree);
    for (;;) {
        const double *q;
        sb_token token = -1;
        int32_t child = -1;
        enum sb_status rc = draft_row(verifier, wants, tree, site.node, rows->n_vocab, &q, err);
        if (rc == SB_OK && rows->greedy) {
            rc = most_likely(verifier, params, rows, site.node, q, scratch, &token, err);
            child = rc == SB_OK ? sb_tree_child(tree, site.node, token) : -1;
        } else if (rc == SB_OK) {
            rc = sample(verifier, params, &site, rows, q, scratch, &child, &token, err);
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

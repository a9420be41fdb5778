/* Draft on while it pays (methods C 3.12, our own): S = (1 + sum of the nodes' path probabilities) / cost is
 * the expected speedup of the draft at hand; a node is worth its cost if S grows by it. Costs: c(M) of
 * the target's forward over M rows, and c for each forward of a drafter that has rows.
 *
 * The best child of a node has the probability of its path times that of the row's likeliest token. The
 * row is paid for when it is known; before it is, the child can have no more than the node itself.
 * Whatever is drafted below a node that is not worth it would be worth less. A level of a tree is one
 * forward of the drafter, and each of its nodes is weighed as if it were for that node alone.
 *
 * A drafter without rows gets a length in advance: the best of 0 up to its own setting, if at each depth
 * as many tokens go on being accepted as were so far, with one acceptance and one rejection put in
 * beforehand.
 *
 * Probabilities are the drafter's, as they are: one that is too sure of itself drafts too much. Where
 * tokens are drawn, each path is weighed by itself (sb_policy_node.n_seen). */
#include <string.h>

#include "drafters/policy/cost.h"
#include "harness/decode/policy.h"

enum { MOST_DEPTH = 64 };

struct tree_cost_params {
    double c;
    const char *curve, *scope;
};

static const struct sb_param tree_cost_params[] = {
    { .name = "c",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct tree_cost_params, c),
      .fallback = "0.1",
      .min = 0,
      .max = 100,
      .meaning = "time of a drafter's forward over that of a plain step" },
    { .name = "curve",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct tree_cost_params, curve),
      .fallback = "4:1.4;8:2.2",
      .meaning = "time of M rows over that of one, from specbench bench; the default is tiny's" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct tree_cost_params, scope),
      .fallback = "prompt",
      .choices = SB_POLICY_SCOPES,
      .meaning = "of drafters without rows: learn within a prompt, or over all" },
    { 0 },
};

struct tree_cost {
    struct sb_cost_curve curve;
    struct record {
        int32_t tried[MOST_DEPTH], kept[MOST_DEPTH]; /* tokens at depth i + 1 */
        bool rows;                                   /* the drafter has shown some */
        int32_t steps;
    } record;
};

static enum sb_status tree_cost_open(void *st, const void *params, struct sb_error *err)
{
    return sb_cost_curve_parse(&((struct tree_cost *)st)->curve,
                               ((const struct tree_cost_params *)params)->curve, "policy tree-cost",
                               err);
}

static void tree_cost_begin(void *st, const void *params)
{
    if (strcmp(((const struct tree_cost_params *)params)->scope, "prompt") == 0)
        ((struct tree_cost *)st)->record = (struct record){ 0 };
}

static int32_t tree_cost_plan(void *st, const void *params, int32_t wanted)
{
    const struct tree_cost *t = st;
    const struct record *r = &t->record;
    double tokens = 1, prob = 1, best = 1;
    int32_t length = 0;
    if (r->rows || r->steps == 0)
        return wanted;
    for (int32_t i = 0; i < wanted && i < MOST_DEPTH; i++) {
        prob *= (1.0 + r->kept[i]) / (2.0 + r->tried[i]);
        tokens += prob;
        double speedup = tokens / sb_cost_of_rows(&t->curve, i + 2);
        if (speedup > best) {
            best = speedup;
            length = i + 1;
        }
    }
    return length > 0 ? length
                      : r->steps % 16 == 0; /* now and then, to keep the record up to date */
}

static void tree_cost_learn(void *st, const void *params, const struct sb_policy_step *step)
{
    struct record *r = &((struct tree_cost *)st)->record;
    r->steps++;
    for (int32_t i = 0; i < step->accepted + !step->leaf && i < MOST_DEPTH; i++) {
        r->tried[i]++;
        r->kept[i] += i < step->accepted;
    }
}

/* Is one more row of probability `prob` worth it, after `forwards` of the drafter and `more` to come? */
static bool pays(const struct tree_cost *t, double c, const struct sb_policy_node *node,
                 double prob, int32_t forwards, int32_t more)
{
    double now = forwards * c + sb_cost_of_rows(&t->curve, node->n_seen + 1);
    double then = (forwards + more) * c + sb_cost_of_rows(&t->curve, node->n_seen + 2);
    return (1 + node->sum_seen + prob) * now > (1 + node->sum_seen) * then;
}

static enum sb_policy_verdict tree_cost_before_children(void *st, const void *params,
                                                        const struct sb_policy_node *node)
{
    struct tree_cost *t = st;
    const struct tree_cost_params *p = params;
    if (!(node->top_prob > 0))
        return SB_POLICY_GO_ON;
    t->record.rows = true;
    return pays(t, p->c, node, node->path_prob * node->top_prob, node->depth + 1, 0)
               ? SB_POLICY_GO_ON
               : SB_POLICY_STOP;
}

static enum sb_policy_verdict tree_cost_after_node(void *st, const void *params,
                                                   const struct sb_policy_node *node)
{
    struct tree_cost *t = st;
    const struct tree_cost_params *p = params;
    if (!(node->top_prob > 0))
        return SB_POLICY_GO_ON;
    t->record.rows = true;
    return pays(t, p->c, node, node->path_prob, node->depth, 1) ? SB_POLICY_GO_ON : SB_POLICY_STOP;
}

const struct sb_policy_ops sb_policy_tree_cost = {
    .name = "tree-cost",
    .summary = "draft on while the expected tokens are worth the cost of their rows",
    .paper = "our own",
    .params = tree_cost_params,
    .params_size = sizeof(struct tree_cost_params),
    .state_size = sizeof(struct tree_cost),
    .open = tree_cost_open,
    .begin = tree_cost_begin,
    .plan = tree_cost_plan,
    .before_children = tree_cost_before_children,
    .after_node = tree_cost_after_node,
    .learn = tree_cost_learn,
};

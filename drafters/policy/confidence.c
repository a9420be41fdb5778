/* Stop after a token that the drafter gave less than a threshold (methods C 3.3, A 5.3); the token is
 * kept. of=path looks at the product along the path instead. Where a drafter has no probabilities it
 * drafts on.
 *
 * With adapt the threshold is the one that would have told accepted from rejected tokens best so far:
 * the least false positive rate + 3 false negative rate, the larger threshold on ties, once there are
 * more than 5 tokens and both kinds. Of a step, the accepted tokens count and the first rejected one;
 * later ones were never judged. It learns from chains only.
 *
 * Differs from the source: by default every prompt begins anew; probabilities are kept in 1024 bins,
 * each with the least that fell into it as its threshold. */
#include <string.h>

#include "harness/decode/policy.h"

enum { BINS = 1024, MOST_DEPTH = 1000, ENOUGH = 5, MISS_WEIGHT = 3 };

struct confidence_params {
    double threshold;
    int64_t k;
    const char *of, *scope;
    bool adapt;
};

static const struct sb_param confidence_params[] = {
    { .name = "threshold",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct confidence_params, threshold),
      .fallback = "0.4",
      .min = 0,
      .max = 1,
      .meaning = "stop after a token of less probability than this" },
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct confidence_params, k),
      .fallback = "20",
      .min = 0,
      .max = MOST_DEPTH,
      .meaning = "longest draft; 0: the drafter's own setting" },
    { .name = "of",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct confidence_params, of),
      .fallback = "token",
      .choices = "token|path",
      .meaning = "whose probability: the token's, or the product along its path" },
    { .name = "adapt",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct confidence_params, adapt),
      .fallback = "false",
      .meaning = "learn the threshold from what is accepted" },
    { .name = "scope",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct confidence_params, scope),
      .fallback = "prompt",
      .choices = SB_POLICY_SCOPES,
      .meaning = "with adapt: learn within a prompt, or over all" },
    { 0 },
};

struct confidence {
    struct pairs {
        double threshold; /* 0: as given; learned ones are above 0 */
        double least[BINS];
        int32_t kept[BINS], lost[BINS], n_kept, n_lost;
    } pairs;
    double prob[MOST_DEPTH + 1]; /* of the chain at hand, by depth */
    int32_t depth;               /* how many of them are there */
};

static int32_t confidence_longest(const void *params, int32_t wanted)
{
    const struct confidence_params *p = params;
    return p->k > 0 ? (int32_t)p->k : wanted;
}

static int32_t confidence_plan(void *st, const void *params, int32_t wanted)
{
    ((struct confidence *)st)->depth = 0;
    return confidence_longest(params, wanted);
}

static void confidence_begin(void *st, const void *params)
{
    if (strcmp(((const struct confidence_params *)params)->scope, "prompt") == 0)
        ((struct confidence *)st)->pairs = (struct pairs){ 0 };
}

static enum sb_policy_verdict confidence_after_node(void *st, const void *params,
                                                    const struct sb_policy_node *node)
{
    struct confidence *c = st;
    const struct confidence_params *p = params;
    double value = strcmp(p->of, "path") == 0 ? node->path_prob : node->prob;
    double threshold = c->pairs.threshold > 0 ? c->pairs.threshold : p->threshold;
    if (!(node->top_prob > 0))
        return SB_POLICY_GO_ON;
    if (p->adapt && node->depth == node->n_nodes && node->depth == c->depth + 1 &&
        node->depth <= MOST_DEPTH)
        c->prob[c->depth++] = value;
    return value < threshold ? SB_POLICY_STOP : SB_POLICY_GO_ON;
}

static void add_pair(struct pairs *pairs, double prob, bool kept)
{
    int32_t bin = (int32_t)(prob * BINS);
    bin = bin < BINS ? bin : BINS - 1;
    if (pairs->kept[bin] + pairs->lost[bin] == 0 || prob < pairs->least[bin])
        pairs->least[bin] = prob;
    *(kept ? &pairs->kept[bin] : &pairs->lost[bin]) += 1;
    *(kept ? &pairs->n_kept : &pairs->n_lost) += 1;
}

/* From the largest threshold down: what lies above it is foretold to be accepted. */
static void solve(struct pairs *pairs)
{
    double best = MISS_WEIGHT + 2;
    int32_t false_positive = 0, true_positive = 0;
    for (int32_t bin = BINS; bin-- > 0;) {
        if (pairs->kept[bin] + pairs->lost[bin] == 0)
            continue;
        false_positive += pairs->lost[bin];
        true_positive += pairs->kept[bin];
        double cost = (double)false_positive / pairs->n_lost +
                      MISS_WEIGHT * (1 - (double)true_positive / pairs->n_kept);
        if (cost < best) {
            best = cost;
            pairs->threshold = pairs->least[bin];
        }
    }
}

static void confidence_learn(void *st, const void *params, const struct sb_policy_step *step)
{
    struct confidence *c = st;
    if (!((const struct confidence_params *)params)->adapt)
        return;
    for (int32_t i = 0; i < step->accepted && i < c->depth; i++)
        add_pair(&c->pairs, c->prob[i], true);
    if (!step->leaf && step->accepted < c->depth)
        add_pair(&c->pairs, c->prob[step->accepted], false);
    if (c->pairs.n_kept + c->pairs.n_lost > ENOUGH && c->pairs.n_kept > 0 && c->pairs.n_lost > 0)
        solve(&c->pairs);
}

const struct sb_policy_ops sb_policy_confidence = {
    .name = "confidence",
    .summary = "stop after a token the drafter was not sure of",
    .paper = "Mamou et al. 2024, huggingface.co/blog/dynamic_speculation_lookahead",
    .params = confidence_params,
    .params_size = sizeof(struct confidence_params),
    .state_size = sizeof(struct confidence),
    .begin = confidence_begin,
    .plan = confidence_plan,
    .longest = confidence_longest,
    .after_node = confidence_after_node,
    .learn = confidence_learn,
};

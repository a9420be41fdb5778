/* Lossy rules that judge every draft token by itself, from the target's row before it: the longest
 * path all of whose tokens pass is accepted, ties go to the larger sum of log p, then to the older
 * node; the token after it is the target's own choice at its end.
 *
 * typical (Medusa's typical acceptance, methods A 3.15): t passes with
 * p(t) > min(epsilon, delta exp(-H)), H the entropy of p in nats, p after S. The last token is sampled
 * from p, also where no child passes. A token of p = 0 never passes; at temperature 0 this is exact
 * match.
 *
 * top-beta (SpecDec's verification, methods A 3.20): t passes if it is among the beta most likely
 * tokens (ties: smaller ids first) and ln max p - ln p(t) <= tau. beta = 1 is exact match. Temperature
 * 0; p is the row at temperature 1. The source's tasks are sequence to sequence, and its drafts are
 * chains. The defaults are not checked against the paper.
 *
 * bild (Big-Little decoding's rollback, methods A 3.16): t passes if it is the arg max or
 * -ln p(t) <= rb. rb = 0 is exact match. Temperature 0; p is the row at temperature 1. The policy
 * "fallback" is its other half. Departures: the source looks at the first token beyond rb only, and
 * keeps all that follow it if this one is the arg max; here every token is judged, without which
 * rb = 0 would not be exact. And after a rollback the small model goes on at once, where the code of
 * the source gives the large one a turn more.
 *
 * nest-relaxed (NEST's relaxed acceptance, methods C 1.12): t passes if p(t) > gamma / 2 max p. p is the row
 * after S, at temperature 0 the one at temperature 1; with the drafter nest it is the mixture. The last
 * token is sampled from p, at temperature 0 its arg max. At gamma = 2 nothing passes. */
#include <math.h>

#include "harness/decode/verifier.h"
#include "kernels/kernels.h"
#include "kernels/prob.h"

/* The target's row at a node, as a rule sees it. */
struct look {
    const double *p;
    size_t n;
    sb_token best; /* the arg max, for rules that do not sample */
    double bar;    /* of passes_bar */
};

struct rule {
    bool samples; /* judges p after S and samples; otherwise p at temperature 1 and its arg max */
    bool looks_behind; /* one that samples judges p at temperature 1 where S is one-hot */
    void (*prepare)(const void *params, struct look *look); /* or NULL */
    bool (*passes)(const void *params, const struct look *look, sb_token t);
};

static size_t threshold_scratch(const void *params, size_t n_vocab, int32_t max_nodes)
{
    return (n_vocab + (size_t)max_nodes) * sizeof(double);
}

static enum sb_status look_at(const struct rule *rule, const void *params,
                              const struct sb_rows *rows, int32_t node, double *row,
                              struct look *look, struct sb_error *err)
{
    enum sb_status rc;
    *look = (struct look){ .p = row, .n = rows->n_vocab };
    if (rule->samples && !(rule->looks_behind && rows->greedy))
        rc = sb_rows_get(rows, node, &look->p, err);
    else
        rc = sb_rows_softmax(rows, node, row, err);
    if (rc != SB_OK)
        return rc;
    if (!rule->samples)
        look->best = (sb_token)rows->argmax(rows->self, node);
    if (rule->prepare)
        rule->prepare(params, look);
    return SB_OK;
}

/* score[tree->n]: the sum of log p along a path whose tokens all pass, -inf for other nodes. */
static enum sb_status judge(const struct rule *rule, const void *params, const struct sb_tree *tree,
                            const struct sb_rows *rows, double *row, double *score,
                            struct sb_error *err)
{
    score[0] = 0;
    for (int32_t i = 1; i < tree->n; i++)
        score[i] = -INFINITY;
    for (int32_t node = 0; node < tree->n; node++) {
        struct look look;
        if (tree->node[node].kind == SB_DRAW_NONE || score[node] == -INFINITY)
            continue;
        enum sb_status rc = look_at(rule, params, rows, node, row, &look, err);
        if (rc != SB_OK)
            return rc;
        for (int32_t i = node + 1; i < tree->n; i++) {
            sb_token t = tree->node[i].token;
            if (tree->node[i].parent == node && !tree->node[i].auxiliary && look.p[t] > 0 &&
                rule->passes(params, &look, t))
                score[i] = score[node] + sb_log(look.p[t]);
        }
    }
    return SB_OK;
}

static int32_t longest(const struct sb_tree *tree, const double *score)
{
    int32_t best = 0;
    for (int32_t i = 1; i < tree->n; i++) {
        int32_t deeper = tree->node[i].depth - tree->node[best].depth;
        if (score[i] > -INFINITY && (deeper > 0 || (deeper == 0 && score[i] > score[best])))
            best = i;
    }
    return best;
}

static void accept_path(struct sb_verdict *verdict, const struct sb_tree *tree, int32_t last)
{
    int32_t depth = tree->node[last].depth;
    for (int32_t i = last; i > 0; i = tree->node[i].parent)
        verdict->path[tree->node[i].depth] = i;
    for (int32_t i = 1; i <= depth; i++)
        sb_verdict_accept(verdict, tree, verdict->path[i]);
}

static enum sb_status threshold_verify(const struct rule *rule, const void *params,
                                       const struct sb_tree *tree, const struct sb_rows *rows,
                                       const struct sb_dice *dice, void *scratch,
                                       struct sb_verdict *verdict, struct sb_error *err)
{
    double *row = scratch, *score = row + rows->n_vocab;
    const double *p;
    sb_verdict_begin(verdict, tree);
    enum sb_status rc = judge(rule, params, tree, rows, row, score, err);
    if (rc != SB_OK)
        return rc;
    int32_t last = longest(tree, score);
    accept_path(verdict, tree, last);
    sb_token token;
    rc = rows->greedy ? sb_rows_greedy(rows, last, &token, err) : sb_rows_get(rows, last, &p, err);
    if (rc != SB_OK)
        return rc;
    if (!rows->greedy) {
        sb_dice_seek(dice, (uint64_t)tree->node[last].depth + 1);
        token = (sb_token)(rule->samples ? dice->pick(dice->self, p, rows->n_vocab)
                                         : rows->argmax(rows->self, last));
    }
    sb_verdict_close(verdict, tree, token);
    return SB_OK;
}

/* ---- typical ---- */

struct typical {
    double epsilon, delta;
};

static const struct sb_param typical_params[] = {
    { .name = "epsilon",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct typical, epsilon),
      .fallback = "0.09",
      .min = 0,
      .max = 1,
      .meaning = "a token of more than this probability always passes; 0: all pass" },
    { .name = "delta",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct typical, delta),
      .fallback = "0.3",
      .min = 0,
      .max = 10,
      .meaning = "one of more than delta exp(-entropy) passes, too" },
    { 0 },
};

static void typical_prepare(const void *params, struct look *look)
{
    const struct typical *typical = params;
    double bar = typical->delta * sb_exp(-sb_prob_entropy(look->p, look->n));
    look->bar = bar < typical->epsilon ? bar : typical->epsilon;
}

static bool passes_bar(const void *params, const struct look *look, sb_token t)
{
    return look->p[t] > look->bar;
}

static enum sb_status typical_verify(const void *params, const struct sb_tree *tree,
                                     const struct sb_rows *rows, const struct sb_dice *dice,
                                     void *scratch, struct sb_verdict *verdict,
                                     struct sb_error *err)
{
    static const struct rule rule = { true, false, typical_prepare, passes_bar };
    return threshold_verify(&rule, params, tree, rows, dice, scratch, verdict, err);
}

const struct sb_verifier_ops sb_verifier_typical = {
    .name = "typical",
    .summary = "accept tokens likely enough for the entropy of the target's row",
    .paper = "Cai et al. 2024, arXiv 2401.10774",
    .params = typical_params,
    .params_size = sizeof(struct typical),
    .guarantee = SB_LOSSY,
    .kinds = SB_KINDS_ALL,
    .scratch_size = threshold_scratch,
    .verify = typical_verify,
};

/* ---- top-beta ---- */

struct top_beta {
    int64_t beta;
    double tau;
};

static const struct sb_param top_beta_params[] = {
    { .name = "beta",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct top_beta, beta),
      .fallback = "3",
      .min = 1,
      .max = 1000000,
      .meaning = "how many of the most likely tokens may pass; 1: exact" },
    { .name = "tau",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct top_beta, tau),
      .fallback = "1",
      .min = 0,
      .max = 1000,
      .meaning = "largest distance from the arg max, in nats" },
    { 0 },
};

static enum sb_guarantee top_beta_guarantee(const void *params)
{
    const struct top_beta *top = params;
    return top->beta == 1 ? SB_GREEDY_EXACT : SB_LOSSY;
}

/* Is t, which is not the arg max, among the beta most likely? Rounding may tie it with the arg max,
 * which still comes first. */
static bool among(const struct look *look, sb_token t, int64_t beta)
{
    int64_t before = 1;
    for (size_t s = 0; s < look->n && before < beta; s++)
        before += s != (size_t)look->best &&
                  (look->p[s] > look->p[t] || (look->p[s] == look->p[t] && s < (size_t)t));
    return before < beta;
}

static bool top_beta_passes(const void *params, const struct look *look, sb_token t)
{
    const struct top_beta *top = params;
    return t == look->best || (sb_log(look->p[look->best]) - sb_log(look->p[t]) <= top->tau &&
                               among(look, t, top->beta));
}

static enum sb_status top_beta_verify(const void *params, const struct sb_tree *tree,
                                      const struct sb_rows *rows, const struct sb_dice *dice,
                                      void *scratch, struct sb_verdict *verdict,
                                      struct sb_error *err)
{
    static const struct rule rule = { .passes = top_beta_passes };
    return threshold_verify(&rule, params, tree, rows, dice, scratch, verdict, err);
}

const struct sb_verifier_ops sb_verifier_top_beta = {
    .name = "top-beta",
    .summary = "accept tokens among the beta most likely and near the arg max",
    .paper = "Xia et al. 2022, arXiv 2203.16487",
    .params = top_beta_params,
    .params_size = sizeof(struct top_beta),
    .guarantee = SB_LOSSY,
    .guarantee_with = top_beta_guarantee,
    .kinds = SB_KINDS_ALL,
    .greedy_only = true,
    .scratch_size = threshold_scratch,
    .verify = top_beta_verify,
};

/* ---- bild ---- */

struct bild {
    double rb;
};

static const struct sb_param bild_params[] = {
    { .name = "rb",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct bild, rb),
      .fallback = "5",
      .min = 0,
      .max = 1000,
      .meaning = "roll back to a token whose loss under the target is above this; 0: exact" },
    { 0 },
};

static enum sb_guarantee bild_guarantee(const void *params)
{
    const struct bild *bild = params;
    return bild->rb == 0 ? SB_GREEDY_EXACT : SB_LOSSY;
}

static bool bild_passes(const void *params, const struct look *look, sb_token t)
{
    const struct bild *bild = params;
    return t == look->best || (bild->rb > 0 && -sb_log(look->p[t]) <= bild->rb);
}

static enum sb_status bild_verify(const void *params, const struct sb_tree *tree,
                                  const struct sb_rows *rows, const struct sb_dice *dice,
                                  void *scratch, struct sb_verdict *verdict, struct sb_error *err)
{
    static const struct rule rule = { .passes = bild_passes };
    return threshold_verify(&rule, params, tree, rows, dice, scratch, verdict, err);
}

const struct sb_verifier_ops sb_verifier_bild = {
    .name = "bild",
    .summary = "accept a chain up to the first token of a loss above rb",
    .paper = "Kim et al. 2023, arXiv 2302.07863",
    .params = bild_params,
    .params_size = sizeof(struct bild),
    .guarantee = SB_LOSSY,
    .guarantee_with = bild_guarantee,
    .kinds = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .chains_only = true,
    .greedy_only = true,
    .scratch_size = threshold_scratch,
    .verify = bild_verify,
};

/* ---- nest-relaxed ---- */

struct nest_relaxed {
    double gamma;
};

static const struct sb_param nest_relaxed_params[] = {
    { .name = "gamma",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct nest_relaxed, gamma),
      .fallback = "0.05",
      .min = 0,
      .max = 2,
      .meaning = "a token of more than gamma / 2 of the largest probability passes; 2: none does" },
    { 0 },
};

static void nest_relaxed_prepare(const void *params, struct look *look)
{
    const struct nest_relaxed *nest = params;
    look->bar = nest->gamma / 2 * look->p[sb_prob_argmax(look->p, look->n)];
}

static enum sb_status nest_relaxed_verify(const void *params, const struct sb_tree *tree,
                                          const struct sb_rows *rows, const struct sb_dice *dice,
                                          void *scratch, struct sb_verdict *verdict,
                                          struct sb_error *err)
{
    static const struct rule rule = { true, true, nest_relaxed_prepare, passes_bar };
    return threshold_verify(&rule, params, tree, rows, dice, scratch, verdict, err);
}

const struct sb_verifier_ops sb_verifier_nest_relaxed = {
    .name = "nest-relaxed",
    .summary = "accept tokens of more than a share of the largest probability",
    .paper = "Li et al. 2024, arXiv 2405.19325",
    .params = nest_relaxed_params,
    .params_size = sizeof(struct nest_relaxed),
    .guarantee = SB_LOSSY,
    .kinds = SB_KINDS_ALL,
    .scratch_size = threshold_scratch,
    .verify = nest_relaxed_verify,
};

/* drafters/nest: nearest neighbor speculative decoding (methods C 1.12). The passages that the data set names
 * for a prompt are run through the target once; a token of theirs is found by the state that enters the
 * target's last layer before it. Every row of the target becomes
 *   c p_lm + (1 - c) p_knn, c = sigmoid((d_min / d_max - alpha) / tau),
 * where d are squared distances to the nearest token_k states and p_knn = softmax(-d / sqrt(d_model)) by
 * token: the nearer the nearest beside the others, the more the passages count. Where c < beta for the
 * row that made the last token, and a passage has that token there, what follows in the passage is drafted;
 * a span that was wholly accepted goes on where it ended.
 *
 * The law of the text is another than the target's, by design: lossy with every verifier; the source's
 * own rule is the verifier nest-relaxed. Without passages nothing is mixed and nothing drafted.
 *
 * Differs from the source: no retriever, the data set names the passages, without a title; p_lm is the
 * run's sampling, and only at temperature 0 the softmax at `temperature` (the source's .7), so that top-k
 * and top-p are applied before mixing; the root is the verifier's choice, and a span is drafted only from
 * an entry that has it (the source puts its best entry's token in its place, unless p_mix is against it);
 * an entry is masked when something drafted behind it was accepted (the source: every first token).
 *
 * Nothing is learnt, so there is no scope. Memory: 4 d_model bytes for each token of the passages, and a
 * sequence of the target's. A row costs a pass over all of these states, and sorting their distances. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/drafter.h"
#include "kernels/prob.h"

enum { LANES = 16, BATCH_ROWS = 64 };

struct nest_params {
    int64_t passage_k, token_k, window;
    double alpha, beta, tau, temperature;
};

static const struct sb_param nest_params[] = {
    { .name = "alpha",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct nest_params, alpha),
      .fallback = "0.1",
      .min = -100,
      .max = 100,
      .meaning = "d_min / d_max at which target and passages count the same" },
    { .name = "beta",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct nest_params, beta),
      .fallback = "0.5",
      .min = 0,
      .max = 1,
      .meaning = "draft where the target's share c is below this; 0: never" },
    { .name = "passage_k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct nest_params, passage_k),
      .fallback = "10",
      .min = 0,
      .max = 100000,
      .meaning = "passages of a prompt that count, the first ones" },
    { .name = "tau",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct nest_params, tau),
      .fallback = "0.1",
      .min = 1e-6,
      .max = 1e6,
      .meaning = "how slowly the shares change with d_min / d_max" },
    { .name = "temperature",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct nest_params, temperature),
      .fallback = "0.7",
      .min = 1e-3,
      .max = 1000,
      .meaning = "of the target's share of the mixture where the run's is 0" },
    { .name = "token_k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct nest_params, token_k),
      .fallback = "1024",
      .min = 1,
      .max = 1 << 30,
      .meaning = "nearest tokens of the passages that are mixed in" },
    { .name = "window",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct nest_params, window),
      .fallback = "64",
      .min = 1,
      .max = 1000,
      .meaning = "draft length" },
    { 0 },
};

/* A token of a passage. Entries of one passage stand one behind the other. */
struct entry {
    sb_token value;
    int32_t last; /* the passage's last entry */
    bool used;
};

struct near {
    double distance;
    int32_t at; /* entry */
};

struct nest {
    struct nest_params params;
    bool greedy;
    struct sb_model *target;
    struct sb_seq *seq; /* for the passages; made when the first ones come */
    size_t max_context, d_model, n_vocab, tap;
    struct entry *entry;
    struct near *near;
    float *key; /* [n, d_model] the state before each entry's token */
    size_t n, cap_entry, cap_near, cap_key;
    double *share;      /* [n_vocab] p_knn */
    int32_t from, next; /* the entry that is the root; where a span goes on; -1: none */
};

static enum sb_status nest_open(void *st, const struct sb_drafter_env *env, struct sb_error *err)
{
    struct nest *nest = st;
    nest->params = *(const struct nest_params *)env->params;
    nest->greedy = env->sampling.temperature <= 0;
    nest->target = env->target;
    nest->max_context = env->max_context;
    nest->n_vocab = env->n_vocab;
    nest->from = nest->next = -1;
    enum sb_status rc =
        sb_tap_want(env->taps, SB_TAP_IN, env->taps ? env->taps->n_layers - 1 : 0, &nest->tap, err);
    if (rc != SB_OK)
        return sb_fail_context(err, rc, "drafter nest");
    nest->d_model = env->taps->d_model;
    nest->share = sb_alloc_array(env->n_vocab, sizeof *nest->share);
    return nest->share ? SB_OK : sb_fail(err, SB_ENOMEM, "drafter nest: no memory for a row");
}

static void nest_close(void *st)
{
    struct nest *nest = st;
    sb_seq_destroy(nest->seq);
    sb_free(nest->entry);
    sb_free(nest->near);
    sb_free(nest->key);
    sb_free(nest->share);
    *nest = (struct nest){ 0 };
}

/* ---- passages ---- */

static enum sb_status make_room(struct nest *nest, size_t need, struct sb_error *err)
{
    size_t row = nest->d_model * sizeof *nest->key;
    if (sb_grow((void **)&nest->entry, &nest->cap_entry, need, sizeof *nest->entry) != 0 ||
        sb_grow((void **)&nest->near, &nest->cap_near, need, sizeof *nest->near) != 0 ||
        sb_grow((void **)&nest->key, &nest->cap_key, need, row) != 0)
        return sb_fail(err, SB_ENOMEM, "drafter nest: no memory for %zu tokens of passages", need);
    if (nest->seq)
        return SB_OK;
    return sb_seq_create(&nest->seq, nest->target, nest->max_context,
                         nest->max_context < BATCH_ROWS ? nest->max_context : BATCH_ROWS, err);
}

/* Every token but the first has a state before it. */
static enum sb_status add_passage(struct nest *nest, const struct sb_document *passage,
                                  struct sb_error *err)
{
    size_t n = passage->n < nest->max_context ? passage->n : nest->max_context, last_row;
    if (n < 2)
        return SB_OK;
    enum sb_status rc = make_room(nest, nest->n + n, err);
    if (rc != SB_OK)
        return rc;
    const struct sb_tap tap = { .kind = SB_TAP_IN,
                                .layer = sb_model_config(nest->target)->n_layers - 1,
                                .dst = nest->key + nest->n * nest->d_model };
    sb_seq_truncate(nest->seq, 0);
    rc = sb_seq_prefill(nest->seq, passage->tokens, n, &tap, 1, &last_row, err);
    if (rc != SB_OK)
        return sb_fail_context(err, rc, "drafter nest: a passage of %zu tokens", n);
    int32_t last = (int32_t)(nest->n + n - 2);
    for (size_t i = 1; i < n; i++)
        nest->entry[nest->n++] = (struct entry){ .value = passage->tokens[i], .last = last };
    return SB_OK;
}

static enum sb_status nest_begin(void *st, const struct sb_context *ctx, struct sb_error *err)
{
    struct nest *nest = st;
    size_t most = (size_t)nest->params.passage_k;
    enum sb_status rc = SB_OK;
    nest->n = 0;
    nest->from = nest->next = -1;
    for (size_t i = 0; i < ctx->n_documents && i < most && rc == SB_OK; i++)
        rc = add_passage(nest, &ctx->documents[i], err);
    return rc;
}

/* ---- neighbours ---- */

/* Squared distance of x[n] and y[n] in one order: lane j adds the elements j, j + 16, ..., and lanes join
 * pairwise. */
static double distance(const float *x, const float *y, size_t n)
{
    double lane[LANES] = { 0 };
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) {
            double gap = (double)x[i + j] - (double)y[i + j];
            lane[j] += gap * gap;
        }
    for (; i < n; i++) {
        double gap = (double)x[i] - (double)y[i];
        lane[i % LANES] += gap * gap;
    }
    for (size_t half = LANES / 2; half > 0; half /= 2)
        for (size_t j = 0; j < half; j++)
            lane[j] += lane[j + half];
    return lane[0];
}

static int by_distance(const void *a, const void *b)
{
    const struct near *x = a, *y = b;
    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* The entries that are nearest to the state h[d_model], in nest->near, the nearest first. Returns how many;
 * *c: the target's share. */
static size_t look(struct nest *nest, const float *h, double *c)
{
    size_t n = 0, most = (size_t)nest->params.token_k;
    for (size_t i = 0; i < nest->n; i++)
        if (!nest->entry[i].used)
            nest->near[n++] =
                (struct near){ distance(h, nest->key + i * nest->d_model, nest->d_model),
                               (int32_t)i };
    if (n > 0) /* without passages there is no list */
        qsort(nest->near, n, sizeof *nest->near, by_distance);
    n = n < most ? n : most;
    double longest = n ? nest->near[n - 1].distance : 0;
    double ratio = longest > 0 ? nest->near[0].distance / longest : 1;
    *c = n ? 1 / (1 + sb_exp((nest->params.alpha - ratio) / nest->params.tau)) : 1;
    return n;
}

static void nest_mix(void *st, const struct sb_tree *tree, int32_t node, const float *const *taps,
                     const float *logits, double *row)
{
    struct nest *nest = st;
    double c, sum = 0, rate = 1 / sqrt((double)nest->d_model);
    size_t n = look(nest, taps[nest->tap], &c);
    if (n == 0)
        return;
    if (nest->greedy)
        sb_sampling_apply(row, &(struct sb_sampling){ .temperature = nest->params.temperature },
                          logits, nest->n_vocab, NULL);
    memset(nest->share, 0, nest->n_vocab * sizeof *nest->share);
    for (size_t i = 0; i < n; i++) {
        double weight = sb_exp((nest->near[0].distance - nest->near[i].distance) * rate);
        nest->share[nest->entry[nest->near[i].at].value] += weight;
        sum += weight;
    }
    sb_prob_blend(row, c, row, (1 - c) / sum, nest->share, nest->n_vocab);
}

/* ---- drafts ---- */

/* The entry that the root was, or -1. Those of one token share its p_mix, so the nearest is the best. */
static int32_t find_root(struct nest *nest, const struct sb_context *ctx)
{
    sb_token root = ctx->tokens[ctx->n - 1];
    double c;
    if (nest->next >= 0 && nest->entry[nest->next].value == root)
        return nest->next;
    size_t n = look(nest, ctx->taps[nest->tap] + (ctx->n - 2) * nest->d_model, &c);
    for (size_t i = 0; i < n && c < nest->params.beta; i++)
        if (nest->entry[nest->near[i].at].value == root)
            return nest->near[i].at;
    return -1;
}

static enum sb_status nest_propose(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                                   struct sb_error *err)
{
    struct nest *nest = st;
    int32_t k = sb_policy_plan(ctx->policy, (int32_t)nest->params.window), node = 0;
    nest->from = nest->n > 0 && ctx->n > 1 ? find_root(nest, ctx) : -1;
    if (nest->from < 0)
        return SB_OK;
    int32_t there = nest->entry[nest->from].last - nest->from;
    for (int32_t i = 1; i <= k && i <= there && node >= 0; i++)
        node = sb_tree_add(tree, node, nest->entry[nest->from + i].value, 0);
    return SB_OK;
}

static enum sb_status nest_observe(void *st, const struct sb_context *ctx,
                                   const struct sb_outcome *outcome, struct sb_error *err)
{
    struct nest *nest = st;
    nest->next = -1;
    if (nest->from < 0)
        return SB_OK;
    struct entry *from = &nest->entry[nest->from];
    int32_t next = nest->from + outcome->n_path;
    from->used = from->used || outcome->n_path > 1;
    if (outcome->n_path == outcome->tree->n && next <= from->last)
        nest->next = next;
    return SB_OK;
}

static int32_t nest_max_nodes(const void *params, const struct sb_policy *policy)
{
    return sb_policy_longest(policy, (int32_t)((const struct nest_params *)params)->window);
}

const struct sb_drafter_ops sb_drafter_nest = {
    .name = "nest",
    .summary = "mix the nearest tokens of the prompt's passages into the target's law, copy on",
    .paper = "Li et al. 2024, arXiv 2405.19325",
    .params = nest_params,
    .params_size = sizeof(struct nest_params),
    .state_size = sizeof(struct nest),
    .kinds_greedy = SB_KIND_BIT(SB_DRAW_ONEHOT),
    .open = nest_open,
    .begin = nest_begin,
    .propose = nest_propose,
    .observe = nest_observe,
    .mix = nest_mix,
    .close = nest_close,
    .max_nodes = nest_max_nodes,
};

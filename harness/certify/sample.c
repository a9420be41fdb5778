#include "harness/certify/sample.h"

#include <math.h>
#include <string.h>

#include "harness/certify/each.h"
#include "harness/core/alloc.h"
#include "harness/core/rng.h"

/* Generation i belongs to lane i % LANES, whatever runs it: drafters may learn from one generation to
 * the next, and figures must not depend on the number of threads. */
enum { LANES = 4, MIN_VARIANCE = 5, CONTEXT_SLACK = 16 };

/* Sums over tokens; a, b: the two martingales. */
struct drift {
    double sum_a, sum_b, var_a, var_b, cov;
    int64_t drafted; /* tokens at which there was a draft */
};

struct lane {
    const struct sb_sample_request *request;
    const struct sb_sample_block *block;
    struct sb_session *session;
    struct sb_seq *plain; /* the prompt, committed */
    size_t n_vocab;
    double *q; /* [length, n_vocab] the drafter's row before each token, where has_q */
    bool has_q[SB_SAMPLE_LENGTH];
    double *p; /* [n_vocab] */
    void *scratch;
    int64_t *count; /* [law.n_cells] */
    struct drift drift;
    int64_t generations, tokens, steps, drafted, accepted;
    bool impossible;
    enum sb_status status;
    struct sb_error err;
};

/* ---- what a step shows ---- */

/* The drafter's law at a node, as far as it has one: chosen tokens count as sure. */
static void copy_row(double *q, const struct sb_tree *tree, int32_t node, size_t n)
{
    const struct sb_node *parent = &tree->node[node];
    if (parent->q) {
        memcpy(q, parent->q, n * sizeof *q);
        return;
    }
    memset(q, 0, n * sizeof *q);
    for (int32_t i = node + 1; parent->kind == SB_DRAW_ONEHOT && i < tree->n; i++)
        if (tree->node[i].parent == node && !tree->node[i].auxiliary)
            q[tree->node[i].token] = 1;
    for (int32_t d = 0; parent->kind == SB_DRAW_MIX && d < parent->n_draws; d++)
        for (size_t t = 0; t < n; t++)
            q[t] += tree->draw_q[parent->first_draw + d][t] / parent->n_draws;
}

static void on_step(void *self, const struct sb_step *step)
{
    struct lane *lane = self;
    const struct sb_tree *tree = step->tree;
    size_t at = (size_t)step->context - lane->block->n_prompt; /* the step's first token */
    for (int32_t j = 0, node = 0; j < step->tokens; j++, at++) {
        lane->has_q[at] = tree->node[node].kind != SB_DRAW_NONE;
        if (lane->has_q[at])
            copy_row(lane->q + at * lane->n_vocab, tree, node, lane->n_vocab);
        int32_t child = node + 1;
        while (child < tree->n &&
               !(tree->node[child].parent == node && step->decision[child] == SB_ACCEPTED))
            child++;
        node = child < tree->n ? child : node;
    }
}

/* ---- judging a generation ---- */

static void judge_token(struct lane *lane, size_t at, sb_token token)
{
    struct drift *d = &lane->drift;
    const double *p = lane->p, *q = lane->q + at * lane->n_vocab;
    bool drafted = lane->has_q[at], in_a = drafted && q[token] > p[token];
    double p_a = 0, square = 0, cube = 0, square_a = 0;
    for (size_t t = 0; t < lane->n_vocab; t++) {
        double s = p[t] * p[t];
        square += s;
        cube += s * p[t];
        if (drafted && q[t] > p[t]) {
            p_a += p[t];
            square_a += s;
        }
    }
    lane->impossible = lane->impossible || !(p[token] > 0);
    d->sum_a += in_a - p_a;
    d->sum_b += p[token] - square;
    d->var_a += p_a * (1 - p_a);
    d->var_b += cube - square * square;
    d->cov += square_a - p_a * square;
    d->drafted += drafted;
}

/* The target's rows over the text, by one plain forward. The prefill's token belongs to no step. */
static enum sb_status judge(struct lane *lane, const struct sb_tokens *tokens)
{
    const struct sb_sample_block *block = lane->block;
    struct sb_row row[SB_SAMPLE_LENGTH];
    int32_t cell = sb_law_cell(&block->law, tokens->id, tokens->n);
    if (cell == SB_LAW_NEVER)
        lane->impossible = true;
    else
        lane->count[cell]++;
    lane->tokens += (int64_t)tokens->n;
    if (tokens->n < 2)
        return SB_OK;
    for (size_t i = 0; i + 1 < tokens->n; i++)
        row[i] = (struct sb_row){ .token = tokens->id[i],
                                  .parent = (int32_t)i - 1,
                                  .want_logits = true };
    enum sb_status rc = sb_forward(lane->plain, row, tokens->n - 1, NULL, &lane->err);
    for (size_t i = 1; i < tokens->n && rc == SB_OK; i++) {
        sb_sampling_apply(lane->p, &block->sampling, sb_seq_logits(lane->plain, i - 1),
                          lane->n_vocab, lane->scratch);
        judge_token(lane, i, tokens->id[i]);
    }
    return rc;
}

static void run_lane(void *self, size_t k)
{
    struct lane *lane = (struct lane *)self + k;
    const struct sb_sample_request *r = lane->request;
    const uint64_t key = sb_rng_mix(r->seed, (uint64_t)(lane->block - r->block));
    for (int64_t i = (int64_t)k; i < r->draws && lane->status == SB_OK; i += LANES) {
        if (r->stop && *r->stop) {
            lane->status = sb_fail(&lane->err, SB_EINTERRUPTED, "interrupted");
            return;
        }
        struct sb_generation out;
        const struct sb_request request = { .prompt = lane->block->prompt,
                                            .n_prompt = lane->block->n_prompt,
                                            .max_new_tokens = (size_t)r->length,
                                            .rng_key = sb_rng_mix(key, (uint64_t)i),
                                            .on_step = on_step,
                                            .self = lane };
        lane->status = sb_session_generate(lane->session, &request, &out, &lane->err);
        if (lane->status != SB_OK)
            return;
        lane->generations++;
        lane->steps += out.steps;
        lane->drafted += out.drafted;
        lane->accepted += out.accepted;
        lane->status = judge(lane, &out.tokens);
        sb_generation_finish(&out);
    }
}

/* ---- lanes ---- */

static void close_lane(struct lane *lane)
{
    sb_session_destroy(lane->session);
    sb_seq_destroy(lane->plain);
    sb_free(lane->q);
    sb_free(lane->p);
    sb_free(lane->scratch);
    sb_free(lane->count);
}

static enum sb_status open_lane(struct lane *lane, const struct sb_sample_request *r,
                                const struct sb_sample_block *block, struct sb_error *err)
{
    struct sb_session_options options = r->session;
    size_t length = (size_t)r->length, n_vocab = sb_model_config(options.target)->n_vocab, last;
    *lane = (struct lane){ .request = r, .block = block, .n_vocab = n_vocab };
    options.sampling = block->sampling;
    options.max_context = block->n_prompt + length + CONTEXT_SLACK;
    lane->q = sb_alloc_array(length * n_vocab, sizeof *lane->q);
    lane->p = sb_alloc_array(n_vocab, sizeof *lane->p);
    lane->scratch = sb_alloc(sb_sampling_scratch_bytes(n_vocab));
    lane->count = sb_alloc_zero(block->law.n_cells, sizeof *lane->count);
    if (!lane->q || !lane->p || !lane->scratch || !lane->count)
        return sb_fail(err, SB_ENOMEM, "out of memory for a session of the certificate");
    enum sb_status rc = sb_session_create(&lane->session, &options, err);
    if (rc == SB_OK)
        rc = sb_seq_create(&lane->plain, options.target, block->n_prompt + length, 64, err);
    if (rc == SB_OK)
        rc = sb_seq_prefill(lane->plain, block->prompt, block->n_prompt, NULL, 0, &last, err);
    return rc;
}

static void add_drift(struct drift *to, const struct drift *from)
{
    to->sum_a += from->sum_a;
    to->sum_b += from->sum_b;
    to->var_a += from->var_a;
    to->var_b += from->var_b;
    to->cov += from->cov;
    to->drafted += from->drafted;
}

static void add_lanes(struct sb_sampled *out, struct drift *drift, struct lane *lane)
{
    const struct sb_law *law = &lane->block->law;
    for (size_t k = 0; k < LANES; k++) {
        out->generations += lane[k].generations;
        out->tokens += lane[k].tokens;
        out->steps += lane[k].steps;
        out->drafted += lane[k].drafted;
        out->accepted += lane[k].accepted;
        out->fit.impossible = out->fit.impossible || lane[k].impossible;
        add_drift(drift, &lane[k].drift);
        for (size_t c = 0; k > 0 && c < law->n_cells; c++)
            lane[0].count[c] += lane[k].count[c];
    }
    sb_fit_add(&out->fit, lane[0].count, law->p, law->n_cells);
}

static enum sb_status run_block(struct sb_sampled *out, struct drift *drift,
                                const struct sb_sample_request *r, size_t block_no,
                                struct sb_error *err)
{
    struct lane lane[LANES] = { 0 };
    enum sb_status rc = SB_OK;
    for (size_t k = 0; k < LANES && rc == SB_OK; k++)
        rc = open_lane(&lane[k], r, &r->block[block_no], err);
    if (rc == SB_OK) {
        sb_each(run_lane, lane, LANES);
        for (size_t k = 0; k < LANES && rc == SB_OK; k++) {
            rc = lane[k].status;
            if (rc != SB_OK && err)
                *err = lane[k].err;
        }
    }
    if (rc == SB_OK)
        add_lanes(out, drift, lane);
    for (size_t k = 0; k < LANES; k++)
        close_lane(&lane[k]);
    return rc;
}

/* The quadratic form; a sum of little variance, or one that says the same as the other, is left out. */
static double drift_p(const struct drift *d)
{
    double det = d->var_a * d->var_b - d->cov * d->cov, form = 0, df = 0;
    bool a = d->var_a > MIN_VARIANCE, b = d->var_b > MIN_VARIANCE;
    if (a && b && det > 1e-6 * d->var_a * d->var_b) {
        form = (d->var_b * d->sum_a * d->sum_a - 2 * d->cov * d->sum_a * d->sum_b +
                d->var_a * d->sum_b * d->sum_b) /
               det;
        df = 2;
    } else if (a || b) {
        form = a ? d->sum_a * d->sum_a / d->var_a : d->sum_b * d->sum_b / d->var_b;
        df = 1;
    }
    return df > 0 ? sb_chi_square_tail(form, df) : 1;
}

enum sb_status sb_sample_run(struct sb_sampled *out, const struct sb_sample_request *request,
                             struct sb_error *err)
{
    struct sb_sampled result = { 0 };
    struct drift drift = { 0 };
    enum sb_status rc = SB_OK;
    for (size_t b = 0; b < request->n_blocks && rc == SB_OK; b++) {
        rc = run_block(&result, &drift, request, b, err);
        if (rc == SB_OK && request->tick)
            request->tick(request->self);
    }
    if (rc != SB_OK)
        return rc;
    double n = (double)drift.drafted;
    result.first_p = sb_fit_p(&result.fit);
    result.drift_tokens = drift.drafted;
    result.drift = n > 0 ? drift.sum_a / n : NAN;
    result.drift_upper = n > 0 ? fmin(1, (fabs(drift.sum_a) + 1.645 * sqrt(drift.var_a)) / n) : NAN;
    result.drift_p = result.fit.impossible ? 0 : drift_p(&drift);
    *out = result;
    return SB_OK;
}

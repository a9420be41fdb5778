/* Validation and its baselines. */
#include "harness/train/evaluate.h"

#include "harness/core/alloc.h"

enum { EVAL_ROWS = 2048 };
static const double bigram_lean = 50;

enum sb_status sb_counts_init(struct sb_counts *counts, size_t n_vocab, struct sb_error *err)
{
    *counts = (struct sb_counts){ .n_vocab = n_vocab };
    counts->single = sb_alloc_zero(n_vocab, sizeof *counts->single);
    counts->pair = n_vocab < 65536 ? sb_alloc_zero(n_vocab * n_vocab, sizeof *counts->pair) : NULL;
    if (counts->single && counts->pair)
        return SB_OK;
    sb_counts_finish(counts);
    return sb_fail(err, SB_ENOMEM, "bigram counts of %zu tokens: out of memory", n_vocab);
}

void sb_counts_finish(struct sb_counts *counts)
{
    sb_free(counts->single);
    sb_free(counts->pair);
    *counts = (struct sb_counts){ 0 };
}

void sb_counts_add(struct sb_counts *counts, const struct sb_batch *batch)
{
    for (size_t r = 0; r < batch->m; r++) {
        counts->single[batch->target[r]]++;
        counts->pair[(size_t)batch->ids[r] * counts->n_vocab + (size_t)batch->target[r]]++;
    }
    counts->total += batch->m;
}

static double unigram_p(const struct sb_counts *counts, int32_t next)
{
    return (counts->single[next] + 1.0) / ((double)counts->total + (double)counts->n_vocab);
}

double sb_counts_unigram(const struct sb_counts *counts, int32_t next)
{
    return -log(unigram_p(counts, next));
}

double sb_counts_bigram(const struct sb_counts *counts, int32_t previous, int32_t next, double lean)
{
    double pair = counts->pair[(size_t)previous * counts->n_vocab + (size_t)next];
    /* Every sighting of `previous` as a row's token is one of some pair, near enough its count as a
     * target: the difference is tokens at batch borders and <|bos|>. */
    double seen = counts->single[previous];
    seen = seen > pair ? seen : pair;
    return -log((pair + lean * unigram_p(counts, next)) / (seen + lean));
}

/* The rows gathered for one forward, and the score they go to. */
struct scoring {
    const struct sb_evaluation_input *in;
    struct sb_batch batch;
    struct sb_task_score *score;
    struct sb_row_match *match; /* [EVAL_ROWS] */
};

static double log_sum_exp(const sb_real *x, size_t n, size_t *top)
{
    *top = 0;
    for (size_t j = 1; j < n; j++)
        *top = x[j] > x[*top] ? j : *top;
    double sum = 0;
    for (size_t j = 0; j < n; j++)
        sum += (double)sb_real_exp(x[j] - x[*top]);
    return (double)x[*top] + log(sum);
}

struct sb_row_match sb_compare_rows(const sb_real *p, const sb_real *q, size_t n)
{
    size_t top_p, top_q;
    sb_real lse_p = (sb_real)log_sum_exp(p, n, &top_p), lse_q = (sb_real)log_sum_exp(q, n, &top_q);
    struct sb_row_match match = { 0 };
    for (size_t j = 0; j < n; j++) {
        sb_real a = p[j] - lse_p, b = q[j] - lse_q;
        match.overlap += (double)sb_real_exp(a < b ? a : b);
        match.rank += q[j] > q[top_p] || (q[j] == q[top_p] && j < top_p);
    }
    return match;
}

static enum sb_status compare_to_teacher(struct scoring *s, const struct sb_lm_batch *rows,
                                         const struct sb_var *logits, struct sb_error *err)
{
    sb_tape_reset(s->in->teacher_tape);
    const struct sb_var *taught = sb_lm_forward(s->in->teacher, s->in->teacher_tape, rows);
    if (!taught)
        return sb_fail(err, SB_ENOMEM, "validation: out of memory");
    size_t n = logits->cols;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows->m; r++)
        s->match[r] = sb_compare_rows(taught->x + r * n, logits->x + r * n, n);
    for (size_t r = 0; r < rows->m; r++) {
        s->score->overlap += s->match[r].overlap;
        s->score->agreement += s->match[r].rank == 0;
    }
    return SB_OK;
}

/* Add the loss of the gathered rows to the score, as sums. */
static enum sb_status flush_rows(struct scoring *s, struct sb_error *err)
{
    const struct sb_evaluation_input *in = s->in;
    struct sb_batch *b = &s->batch;
    if (b->m == 0)
        return SB_OK;
    sb_tape_reset(in->tape);
    struct sb_lm_batch rows = { b->ids, b->pos, b->m, { b->start, b->n_segments } };
    struct sb_var *logits = sb_lm_forward(in->lm, in->tape, &rows);
    struct sb_var *loss = sb_tape_cross_entropy(in->tape, logits, b->target, b->weight);
    if (!loss)
        return sb_fail(err, SB_ENOMEM, "validation: out of memory");
    s->score->loss += (double)loss->x[0];
    s->score->tokens += b->counts;
    for (size_t r = 0; in->counts && r < b->m; r++) {
        s->score->unigram += sb_counts_unigram(in->counts, b->target[r]);
        s->score->bigram += sb_counts_bigram(in->counts, b->ids[r], b->target[r], bigram_lean);
    }
    enum sb_status status = in->teacher ? compare_to_teacher(s, &rows, logits, err) : SB_OK;
    b->m = b->n_segments = b->counts = 0;
    return status;
}

static enum sb_status score_document(struct scoring *s, const struct sb_rendered *doc,
                                     struct sb_error *err)
{
    size_t rows = doc->tokens.n - 1;
    s->score->records++;
    for (size_t at = 0; at < rows;) {
        size_t n = rows - at < s->in->seq_len ? rows - at : s->in->seq_len;
        n = n < s->batch.capacity ? n : s->batch.capacity;
        if (n > s->batch.capacity - s->batch.m) {
            enum sb_status status = flush_rows(s, err);
            if (status != SB_OK)
                return status;
        }
        sb_batch_append(&s->batch, doc, at, n, false);
        at += n;
    }
    return SB_OK;
}

static enum sb_status score_task(struct scoring *s, size_t task, struct sb_error *err)
{
    const struct sb_evaluation_input *in = s->in;
    struct sb_rendered doc = { 0 };
    enum sb_status status = SB_OK;
    for (size_t i = 0; i < in->corpus->n_records && status == SB_OK; i++) {
        const struct sb_record *record = &in->corpus->records[i];
        if (!record->held_out || record->task != task || s->score->tokens >= in->max_tokens)
            continue;
        status = sb_record_render(&doc, in->corpus, record, in->tok, &in->marks, err);
        if (status == SB_OK)
            status = score_document(s, &doc, err);
    }
    sb_rendered_finish(&doc);
    return status == SB_OK ? flush_rows(s, err) : status;
}

static void divide(struct sb_task_score *score)
{
    double n = score->tokens ? (double)score->tokens : 1;
    score->loss /= n;
    score->unigram /= n;
    score->bigram /= n;
    score->agreement /= n;
    score->overlap /= n;
}

static void add_up(struct sb_evaluation *out)
{
    struct sb_task_score *all = &out->all;
    all->task = "all";
    for (size_t i = 0; i < out->n_tasks; i++) {
        struct sb_task_score *score = &out->tasks[i];
        all->records += score->records;
        all->tokens += score->tokens;
        all->loss += score->loss;
        all->unigram += score->unigram;
        all->bigram += score->bigram;
        all->agreement += score->agreement;
        all->overlap += score->overlap;
        divide(score);
    }
    divide(all);
}

enum sb_status sb_evaluate(struct sb_evaluation *out, const struct sb_evaluation_input *in,
                           struct sb_error *err)
{
    *out = (struct sb_evaluation){ .n_tasks = in->corpus->n_tasks };
    struct scoring s = { .in = in };
    s.match = sb_alloc_zero(EVAL_ROWS, sizeof *s.match);
    enum sb_status status = s.match ? sb_batch_init(&s.batch, EVAL_ROWS, err)
                                    : sb_fail(err, SB_ENOMEM, "validation: out of memory");
    for (size_t t = 0; t < out->n_tasks && status == SB_OK; t++) {
        s.score = &out->tasks[t];
        s.score->task = in->corpus->tasks[t];
        status = score_task(&s, t, err);
    }
    sb_batch_finish(&s.batch);
    sb_free(s.match);
    add_up(out);
    return status;
}

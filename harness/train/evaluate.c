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
    struct sb_lm *lm;
    struct sb_tape *tape;
    const struct sb_counts *counts;
    struct sb_batch batch;
    struct sb_task_score *score;
};

/* Add the loss of the gathered rows to the score, as sums. */
static enum sb_status flush_rows(struct scoring *s, struct sb_error *err)
{
    struct sb_batch *b = &s->batch;
    if (b->m == 0)
        return SB_OK;
    sb_tape_reset(s->tape);
    struct sb_lm_batch rows = { b->ids, b->pos, b->m, { b->start, b->n_segments } };
    struct sb_var *loss =
        sb_tape_cross_entropy(s->tape, sb_lm_forward(s->lm, s->tape, &rows), b->target, b->weight);
    if (!loss)
        return sb_fail(err, SB_ENOMEM, "validation: out of memory");
    s->score->loss += loss->x[0];
    s->score->tokens += b->counts;
    for (size_t r = 0; s->counts && r < b->m; r++) {
        s->score->unigram += sb_counts_unigram(s->counts, b->target[r]);
        s->score->bigram += sb_counts_bigram(s->counts, b->ids[r], b->target[r], bigram_lean);
    }
    b->m = b->n_segments = b->counts = 0;
    return SB_OK;
}

static enum sb_status score_document(struct scoring *s, const struct sb_rendered *doc,
                                     size_t seq_len, struct sb_error *err)
{
    size_t rows = doc->tokens.n - 1;
    s->score->records++;
    for (size_t at = 0; at < rows;) {
        size_t n = rows - at < seq_len ? rows - at : seq_len;
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

static void add_up(struct sb_evaluation *out)
{
    out->all.task = "all";
    for (size_t i = 0; i <= out->n_tasks; i++) {
        struct sb_task_score *score = i < out->n_tasks ? &out->tasks[i] : &out->all;
        if (i < out->n_tasks) {
            out->all.records += score->records;
            out->all.tokens += score->tokens;
            out->all.loss += score->loss;
            out->all.unigram += score->unigram;
            out->all.bigram += score->bigram;
        }
        double n = score->tokens ? (double)score->tokens : 1;
        score->loss /= n;
        score->unigram /= n;
        score->bigram /= n;
    }
}

enum sb_status sb_evaluate(struct sb_evaluation *out, struct sb_lm *lm, struct sb_tape *tape,
                           const struct sb_corpus *corpus, const struct sb_tokenizer *tok,
                           const struct sb_marks *marks, size_t seq_len, size_t max_tokens,
                           const struct sb_counts *counts, struct sb_error *err)
{
    *out = (struct sb_evaluation){ .n_tasks = corpus->n_tasks };
    struct scoring s = { .lm = lm, .tape = tape, .counts = counts };
    struct sb_rendered doc = { 0 };
    enum sb_status status = sb_batch_init(&s.batch, EVAL_ROWS, err);
    for (size_t t = 0; t < corpus->n_tasks && status == SB_OK; t++) {
        s.score = &out->tasks[t];
        s.score->task = corpus->tasks[t];
        for (size_t i = 0; i < corpus->n_records && status == SB_OK; i++) {
            const struct sb_record *record = &corpus->records[i];
            if (!record->held_out || record->task != t || s.score->tokens >= max_tokens)
                continue;
            status = sb_record_render(&doc, corpus, record, tok, marks, err);
            if (status == SB_OK)
                status = score_document(&s, &doc, seq_len, err);
        }
        if (status == SB_OK)
            status = flush_rows(&s, err);
    }
    sb_rendered_finish(&doc);
    sb_batch_finish(&s.batch);
    add_up(out);
    return status;
}

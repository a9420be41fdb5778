/* Held-out figures of a head. */
#include "harness/train/head_measure.h"

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/train/evaluate.h"

struct measuring {
    const struct sb_head_measure_input *in;
    struct sb_head_figures *out;
    struct sb_batch batch;
    struct sb_row_match *match; /* [batch_rows] of the depth in hand */
    bool *chained;              /* [batch_rows] all depths before were right */
    size_t rows;                /* the target saw so far */
};

double sb_head_tokens_per_step(const struct sb_head_figures *figures)
{
    double tokens = 1;
    for (size_t j = 0; j < figures->depth && figures->rows[j] > 0; j++)
        tokens += figures->chain[j] / figures->rows[j];
    return tokens;
}

static void add_depth(struct measuring *m, const struct sb_head_rows *rows, const sb_real *logits,
                      const sb_real *guess, size_t j)
{
    struct sb_head_figures *out = m->out;
    size_t n = m->in->head->target->shape.n_vocab;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < rows->n; r++)
        if (rows->weight[j][r] != 0)
            m->match[r] =
                sb_compare_rows(logits + (size_t)rows->teacher[j][r] * n, guess + r * n, n);
    for (size_t r = 0; r < rows->n; r++) {
        if (rows->weight[j][r] == 0)
            continue;
        const struct sb_row_match *match = &m->match[r];
        m->chained[r] = m->chained[r] && match->rank == 0;
        out->rows[j]++;
        out->overlap[j] += match->overlap;
        out->chain[j] += m->chained[r];
        if (match->rank < SB_HEAD_RANKS)
            out->rank[j][match->rank]++;
    }
}

static enum sb_status flush(struct measuring *m, struct sb_error *err)
{
    const struct sb_head_measure_input *in = m->in;
    struct sb_batch *b = &m->batch;
    if (b->m == 0)
        return SB_OK;
    const struct sb_head_texts texts = { { b->ids, b->pos, b->m, { b->start, b->n_segments } },
                                         b->target,
                                         b->weight };
    sb_tape_reset(in->target_tape);
    sb_tape_reset(in->tape);
    struct sb_lm_states states;
    struct sb_head_rows rows;
    const struct sb_var *logits =
        sb_lm_forward_states(in->head->target, in->target_tape, &texts.rows, &states);
    bool ok = logits && sb_head_rows_make(&rows, in->tape, &texts, m->out->depth);
    struct sb_head_output out = { 0 };
    if (ok)
        in->head->ops->forward(in->head,
                               &(struct sb_head_input){ in->tape, &texts, &rows, &states }, &out);
    for (size_t r = 0; ok && r < rows.n; r++)
        m->chained[r] = true;
    for (size_t j = 0; ok && j < m->out->depth; j++) {
        const sb_real *guess = sb_head_full_rows(in->head, in->tape, out.logits[j]);
        ok = guess != NULL;
        if (ok)
            add_depth(m, &rows, logits->x, guess, j);
    }
    m->rows += b->m;
    b->m = b->n_segments = b->counts = 0;
    return ok ? SB_OK : sb_fail(err, SB_ENOMEM, "held-out figures: out of memory");
}

static enum sb_status add_document(struct measuring *m, const struct sb_rendered *doc,
                                   struct sb_error *err)
{
    size_t rows = doc->tokens.n - 1, cap = m->batch.capacity;
    size_t most = m->in->seq_len < cap ? m->in->seq_len : cap;
    for (size_t at = 0, n; at < rows; at += n) {
        n = rows - at < most ? rows - at : most;
        if (n > cap - m->batch.m) {
            enum sb_status status = flush(m, err);
            if (status != SB_OK)
                return status;
        }
        sb_batch_append(&m->batch, doc, at, n, m->in->answers_only);
    }
    return SB_OK;
}

/* Records that were held out, shuffled, so that a part of them has all tasks in it. */
static size_t held_out_records(size_t *order, const struct sb_head_measure_input *in)
{
    size_t n = 0;
    for (size_t i = 0; i < in->corpus->n_records; i++)
        if (in->corpus->records[i].held_out)
            order[n++] = i;
    struct sb_rng rng = sb_rng_make(in->seed, SB_STREAM_ORDER);
    sb_rng_shuffle(&rng, order, n);
    return n;
}

static enum sb_status measure(struct measuring *m, size_t *order, struct sb_error *err)
{
    const struct sb_head_measure_input *in = m->in;
    enum sb_status status = SB_OK;
    struct sb_rendered doc = { 0 };
    size_t n = held_out_records(order, in);
    for (size_t i = 0; i < n && m->rows + m->batch.m < in->max_rows && status == SB_OK; i++) {
        status = sb_record_render(&doc, in->corpus, &in->corpus->records[order[i]], in->tok,
                                  &in->marks, err);
        if (status == SB_OK)
            status = add_document(m, &doc, err);
    }
    sb_rendered_finish(&doc);
    return status == SB_OK ? flush(m, err) : status;
}

enum sb_status sb_head_measure(struct sb_head_figures *out, const struct sb_head_measure_input *in,
                               struct sb_error *err)
{
    *out = (struct sb_head_figures){ .depth = in->head->reach };
    struct measuring m = { .in = in, .out = out };
    size_t *order = sb_alloc_array(in->corpus->n_records, sizeof *order);
    m.match = sb_alloc_array(in->batch_rows, sizeof *m.match);
    m.chained = sb_alloc_array(in->batch_rows, sizeof *m.chained);
    enum sb_status status = order && m.match && m.chained
                                ? sb_batch_init(&m.batch, in->batch_rows, err)
                                : sb_fail(err, SB_ENOMEM, "held-out figures: out of memory");
    if (status == SB_OK)
        status = measure(&m, order, err);
    sb_batch_finish(&m.batch);
    sb_free(order);
    sb_free(m.match);
    sb_free(m.chained);
    return status;
}

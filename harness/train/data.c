/* Batches: shuffling, packing, and continuing where a stream stood. */
#include "harness/train/data.h"

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

enum sb_status sb_batch_init(struct sb_batch *batch, size_t capacity, struct sb_error *err)
{
    *batch = (struct sb_batch){
        .ids = sb_alloc_zero(capacity, sizeof *batch->ids),
        .pos = sb_alloc_zero(capacity, sizeof *batch->pos),
        .target = sb_alloc_zero(capacity, sizeof *batch->target),
        .weight = sb_alloc_zero(capacity, sizeof *batch->weight),
        .start = sb_alloc_zero(capacity + 1, sizeof *batch->start),
        .capacity = capacity,
    };
    if (batch->ids && batch->pos && batch->target && batch->weight && batch->start)
        return SB_OK;
    sb_batch_finish(batch);
    return sb_fail(err, SB_ENOMEM, "training batch of %zu tokens: out of memory", capacity);
}

void sb_batch_finish(struct sb_batch *batch)
{
    sb_free(batch->ids);
    sb_free(batch->pos);
    sb_free(batch->target);
    sb_free(batch->weight);
    sb_free(batch->start);
    *batch = (struct sb_batch){ 0 };
}

void sb_batch_append(struct sb_batch *batch, const struct sb_rendered *doc, size_t from, size_t n,
                     bool answers_only)
{
    const sb_token *id = doc->tokens.id + from;
    for (size_t i = 0; i < n; i++) {
        size_t row = batch->m + i;
        bool counts = !answers_only || doc->answer[from + i + 1];
        batch->ids[row] = id[i];
        batch->target[row] = id[i + 1];
        batch->pos[row] = (int32_t)i;
        batch->weight[row] = counts;
        batch->counts += counts;
    }
    batch->m += n;
    batch->start[++batch->n_segments] = batch->m;
}

/* ---- stream ---------------------------------------------------------------------------------- */

/* Draw the order of an epoch. */
static enum sb_status begin_epoch(struct sb_data_stream *stream, uint64_t epoch,
                                  struct sb_error *err)
{
    const struct sb_corpus *corpus = stream->corpus;
    struct sb_rng rng = sb_rng_make(sb_rng_mix(stream->options.seed, epoch), SB_STREAM_DATA);
    stream->n_order = 0;
    for (size_t i = 0; i < corpus->n_records; i++) {
        if (corpus->records[i].held_out)
            continue;
        double weight = stream->options.weights[corpus->records[i].task];
        sb_rng_seek(&rng, i);
        size_t copies = (size_t)weight;
        copies += sb_rng_uniform(&rng) < weight - (double)copies;
        if (sb_grow((void **)&stream->order, &stream->cap_order, stream->n_order + copies,
                    sizeof *stream->order) != 0)
            return sb_fail(err, SB_ENOMEM, "order of training records: out of memory");
        while (copies-- > 0)
            stream->order[stream->n_order++] = i;
    }
    if (stream->n_order == 0)
        return sb_fail(err, SB_EUSAGE, "data: the weights leave no record to train on");
    sb_rng_seek(&rng, UINT64_MAX);
    sb_rng_shuffle(&rng, stream->order, stream->n_order);
    stream->cursor = (struct sb_cursor){ .epoch = epoch };
    return SB_OK;
}

static enum sb_status load_record(struct sb_data_stream *stream, uint64_t index,
                                  struct sb_error *err)
{
    const struct sb_record *record = &stream->corpus->records[stream->order[index]];
    return sb_record_render(&stream->doc, stream->corpus, record, stream->tok, &stream->marks, err);
}

enum sb_status sb_data_init(struct sb_data_stream *stream, const struct sb_corpus *corpus,
                            const struct sb_tokenizer *tok, const struct sb_marks *marks,
                            const struct sb_data_options *options, struct sb_error *err)
{
    *stream = (struct sb_data_stream){
        .corpus = corpus, .tok = tok, .marks = *marks, .options = *options
    };
    enum sb_status status = begin_epoch(stream, 0, err);
    if (status != SB_OK)
        sb_data_finish(stream);
    return status;
}

void sb_data_finish(struct sb_data_stream *stream)
{
    sb_free(stream->order);
    sb_rendered_finish(&stream->doc);
    *stream = (struct sb_data_stream){ 0 };
}

enum sb_status sb_data_seek(struct sb_data_stream *stream, const struct sb_cursor *cursor,
                            struct sb_error *err)
{
    enum sb_status status = begin_epoch(stream, cursor->epoch, err);
    if (status != SB_OK)
        return status;
    if (cursor->next > stream->n_order)
        return sb_fail(err, SB_EFORMAT, "checkpoint: record %llu of an epoch of %zu",
                       (unsigned long long)cursor->next, stream->n_order);
    if (cursor->next > 0)
        status = load_record(stream, cursor->next - 1, err);
    stream->cursor = *cursor;
    return status;
}

enum sb_status sb_data_next(struct sb_data_stream *stream, struct sb_batch *batch,
                            struct sb_error *err)
{
    struct sb_cursor *at = &stream->cursor;
    batch->m = batch->n_segments = batch->counts = 0;
    batch->start[0] = 0;
    while (batch->m < batch->capacity) {
        size_t rows = at->next > 0 && stream->doc.tokens.n > 0 ? stream->doc.tokens.n - 1 : 0;
        if (at->at >= rows) {
            enum sb_status status = SB_OK;
            if (at->next == stream->n_order)
                status = begin_epoch(stream, at->epoch + 1, err);
            if (status == SB_OK)
                status = load_record(stream, at->next, err);
            if (status != SB_OK)
                return status;
            at->next++;
            at->at = 0;
            continue;
        }
        size_t n = rows - at->at, room = batch->capacity - batch->m;
        n = n < stream->options.seq_len ? n : stream->options.seq_len;
        n = n < room ? n : room;
        sb_batch_append(batch, &stream->doc, at->at, n, stream->options.answers_only);
        at->at += n;
    }
    return SB_OK;
}

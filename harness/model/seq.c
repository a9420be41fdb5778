/* Sequences: the KV cache, and what settles the rows of a batch. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/internal.h"

enum { PREFILL_ROWS = 256 };

/* So that threads have room for norms of their own. */
enum { NORMED_ROWS = 256 };

/* ---- creation ------------------------------------------------------------------------------------ */

static enum sb_status create_kv(struct sb_seq *seq, struct sb_error *err)
{
    const struct sb_config *c = sb_model_config(seq->model);
    size_t bytes = sb_kv_bytes(seq->model->arithmetic.kv_type, seq->capacity, c->n_kv_heads,
                               c->head_dim),
           total;
    if (bytes == 0 || __builtin_mul_overflow(bytes, c->n_layers, &total))
        return sb_fail(err, SB_ENOMEM, "a KV cache of %zu positions is too large", seq->capacity);
    seq->kv = sb_alloc_zero(c->n_layers, sizeof *seq->kv);
    seq->kv_memory = sb_alloc_aligned(total, 1);
    if (!seq->kv || !seq->kv_memory)
        return sb_fail(err, SB_ENOMEM, "out of memory for a KV cache of %zu positions (%zu MB)",
                       seq->capacity, total >> 20);
    memset(seq->kv_memory, 0, total);
    unsigned char *at = seq->kv_memory;
    for (size_t i = 0; i < c->n_layers; i++, at += bytes)
        seq->kv[i] = (struct sb_kv_layer){ .type = seq->model->arithmetic.kv_type,
                                           .memory = at,
                                           .n_slots = seq->capacity,
                                           .n_kv_heads = c->n_kv_heads,
                                           .head_dim = c->head_dim };
    return SB_OK;
}

static enum sb_status create_scratch(struct sb_seq *seq, struct sb_error *err)
{
    const struct sb_model *model = seq->model;
    const struct sb_config *c = sb_model_config(model);
    size_t rows = seq->max_rows, qkv = model->q_width + 2 * model->kv_width;
    seq->parent = sb_alloc_array(rows, sizeof *seq->parent);
    seq->depth = sb_alloc_array(rows, sizeof *seq->depth);
    seq->position = sb_alloc_array(rows, sizeof *seq->position);
    seq->logits_row = sb_alloc_array(rows, sizeof *seq->logits_row);
    seq->x = sb_alloc_aligned(rows * c->d_model, sizeof(float));
    seq->ld_normed = sb_row_stride(c->d_model);
    seq->ld_attended = sb_row_stride(model->q_width);
    seq->ld_ff = sb_row_stride(2 * c->d_ff);
    seq->ld_pair = sb_row_stride(2 * c->d_model);
    seq->n_normed = rows > NORMED_ROWS ? rows : NORMED_ROWS;
    seq->normed = sb_alloc_aligned(seq->n_normed * seq->ld_normed, sizeof(float));
    seq->qkv = sb_alloc_aligned(rows * qkv, sizeof(float));
    seq->attended = sb_alloc_aligned(rows * seq->ld_attended, sizeof(float));
    seq->ff = sb_alloc_aligned(rows * seq->ld_ff, sizeof(float));
    /* Touched only as far as logits are asked for, so an unused part costs no memory. */
    seq->logits = sb_alloc_aligned(sb_model_has_head(model) ? rows * c->n_vocab : 0, sizeof(float));
    if (c->input >= SB_INPUT_PAIR)
        seq->pair = sb_alloc_aligned(rows * seq->ld_pair, sizeof(float));
    seq->list_memory = sb_alloc_array(rows * (rows + 1) / 2, sizeof *seq->list_memory);
    seq->list = sb_alloc_array(rows, sizeof *seq->list);
    seq->n_list = sb_alloc_array(rows, sizeof *seq->n_list);
    seq->attention_scratch = sb_alloc_aligned(
        sb_attention_scratch_bytes(rows, c->n_heads, c->n_kv_heads, c->head_dim), 1);
    if (!seq->parent || !seq->depth || !seq->position || !seq->logits_row || !seq->x ||
        !seq->normed || !seq->qkv || !seq->attended || !seq->ff || !seq->logits ||
        (c->input >= SB_INPUT_PAIR && !seq->pair) || !seq->list_memory || !seq->list ||
        !seq->n_list || !seq->attention_scratch)
        return sb_fail(err, SB_ENOMEM, "out of memory for batches of %zu rows", rows);
    return SB_OK;
}

/* What arithmetics other than the exact one need. */
static enum sb_status create_other(struct sb_seq *seq, struct sb_error *err)
{
    const struct sb_model *model = seq->model;
    const struct sb_config *c = sb_model_config(model);
    size_t d = sb_config_d_input(c), most = d > c->d_ff ? d : c->d_ff;
    most = most > model->q_width ? most : model->q_width;
    if (model->arithmetic.fast)
        seq->pairs =
            sb_alloc_aligned(seq->max_rows * sb_row_stride(most / 2 + 1), sizeof *seq->pairs);
    if (model->arithmetic.blas_prefill)
        seq->blas_block = sb_alloc_aligned(SB_BLAS_ROWS * most, sizeof *seq->blas_block);
    if ((model->arithmetic.fast && !seq->pairs) ||
        (model->arithmetic.blas_prefill && !seq->blas_block))
        return sb_fail(err, SB_ENOMEM, "out of memory for batches of %zu rows", seq->max_rows);
    return SB_OK;
}

enum sb_status sb_seq_create(struct sb_seq **out, struct sb_model *model, size_t capacity,
                             size_t max_rows, struct sb_error *err)
{
    const struct sb_config *c = sb_model_config(model);
    if (capacity < 1 || capacity > c->max_context)
        return sb_fail(err, SB_EUSAGE, "a context of %zu positions; this model has 1 to %zu",
                       capacity, c->max_context);
    if (max_rows < 1 || max_rows > SB_MAX_ROWS)
        return sb_fail(err, SB_EUSAGE, "batches of %zu rows; expected 1 to %d", max_rows,
                       SB_MAX_ROWS);
    struct sb_seq *seq = sb_alloc_zero(1, sizeof *seq);
    if (!seq)
        return sb_fail(err, SB_ENOMEM, "out of memory for a sequence");
    seq->model = model;
    seq->capacity = capacity;
    seq->max_rows = max_rows < capacity ? max_rows : capacity;
    enum sb_status rc = create_kv(seq, err);
    if (rc == SB_OK)
        rc = create_scratch(seq, err);
    if (rc == SB_OK)
        rc = create_other(seq, err);
    if (rc == SB_OK && sb_rope_init(&seq->rope, capacity, c->head_dim, c->rope_layout, c->rope_base,
                                    c->rope_scale_linear, sb_model_weights(model)->rope_factors))
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu rotary positions", capacity);
    if (rc == SB_OK)
        *out = seq;
    else
        sb_seq_destroy(seq);
    return rc;
}

void sb_seq_destroy(struct sb_seq *seq)
{
    if (!seq)
        return;
    sb_rope_finish(&seq->rope);
    sb_free(seq->kv);
    sb_free(seq->kv_memory);
    sb_free(seq->parent);
    sb_free(seq->depth);
    sb_free(seq->position);
    sb_free(seq->logits_row);
    sb_free(seq->x);
    sb_free(seq->normed);
    sb_free(seq->qkv);
    sb_free(seq->attended);
    sb_free(seq->ff);
    sb_free(seq->pair);
    sb_free(seq->logits);
    sb_free(seq->list_memory);
    sb_free(seq->list);
    sb_free(seq->n_list);
    sb_free(seq->attention_scratch);
    sb_free(seq->pairs);
    sb_free(seq->blas_block);
    sb_free(seq);
}

size_t sb_seq_length(const struct sb_seq *seq)
{
    return seq->length;
}

size_t sb_seq_capacity(const struct sb_seq *seq)
{
    return seq->capacity;
}

struct sb_model *sb_seq_model(const struct sb_seq *seq)
{
    return seq->model;
}

const float *sb_seq_logits(const struct sb_seq *seq, size_t row)
{
    if (row >= seq->n_rows || seq->logits_row[row] < 0)
        return NULL;
    return seq->logits + (size_t)seq->logits_row[row] * sb_model_config(seq->model)->n_vocab;
}

/* ---- settling a batch ------------------------------------------------------------------------------ */

static enum sb_status check_path(const struct sb_seq *seq, const int32_t *path, size_t n,
                                 struct sb_error *err)
{
    if (n > 0 && seq->tainted)
        return sb_fail(err, SB_EUSAGE,
                       "rows computed with sublayers passed over cannot be committed");
    if (n > 0 && seq->n_layers_done != seq->model->n_layers)
        return sb_fail(err, SB_EUSAGE, "rows computed up to layer %zu of %zu cannot be committed",
                       seq->n_layers_done, seq->model->n_layers);
    for (size_t i = 0; i < n; i++) {
        int32_t above = i ? path[i - 1] : SB_PARENT_PREFIX;
        if (path[i] < 0 || (size_t)path[i] >= seq->n_rows || seq->parent[path[i]] != above)
            return sb_fail(err, SB_EUSAGE,
                           "row %d does not follow row %d; only a chain of parent "
                           "links from the prefix on can be committed",
                           path[i], above);
    }
    return SB_OK;
}

enum sb_status sb_seq_commit(struct sb_seq *seq, const int32_t *path, size_t n,
                             struct sb_error *err)
{
    enum sb_status rc = check_path(seq, path, n, err);
    if (rc != SB_OK)
        return rc;
    /* Parents precede children, so slots only move down: ascending order overwrites nothing. */
    for (size_t layer = 0; layer < seq->model->n_layers; layer++)
        for (size_t i = 0; i < n; i++)
            if ((size_t)path[i] != i)
                sb_kv_move(&seq->kv[layer], seq->length + i, seq->length + (size_t)path[i]);
    seq->length += n;
    /* The logits stay readable until the next forward; the rows themselves are settled. */
    seq->n_layers_done = 0;
    return SB_OK;
}

void sb_seq_truncate(struct sb_seq *seq, size_t length)
{
    if (length < seq->length)
        seq->length = length;
    seq->n_rows = 0;
    seq->n_layers_done = 0;
}

enum sb_status sb_seq_fork(struct sb_seq **out, const struct sb_seq *seq, struct sb_error *err)
{
    struct sb_seq *copy;
    enum sb_status rc = sb_seq_create(&copy, seq->model, seq->capacity, seq->max_rows, err);
    if (rc != SB_OK)
        return rc;
    for (size_t i = 0; i < seq->model->n_layers; i++)
        sb_kv_copy(&copy->kv[i], &seq->kv[i], seq->length);
    copy->length = seq->length;
    *out = copy;
    return SB_OK;
}

/* One batch of a prefill: rows from..from+m-1 as a chain, committed. */
static enum sb_status prefill_batch(struct sb_seq *seq, const sb_token *tokens, size_t from,
                                    size_t m, bool last, const struct sb_tap *taps, size_t n_taps,
                                    struct sb_error *err)
{
    struct sb_row rows[PREFILL_ROWS];
    struct sb_tap moved[SB_MAX_TAPS];
    int32_t path[PREFILL_ROWS];
    for (size_t i = 0; i < m; i++) {
        rows[i] = (struct sb_row){ .token = tokens[from + i],
                                   .parent = (int32_t)i - 1,
                                   .want_logits = last && i + 1 == m };
        path[i] = (int32_t)i;
    }
    for (size_t i = 0; i < n_taps; i++) {
        moved[i] = taps[i];
        moved[i].dst += from * sb_model_config(seq->model)->d_model;
    }
    const struct sb_forward_options options = { .taps = moved, .n_taps = n_taps };
    seq->prefilling = true;
    enum sb_status rc = sb_forward(seq, rows, m, &options, err);
    seq->prefilling = false;
    return rc == SB_OK ? sb_seq_commit(seq, path, m, err) : rc;
}

enum sb_status sb_seq_prefill(struct sb_seq *seq, const sb_token *tokens, size_t n,
                              const struct sb_tap *taps, size_t n_taps, size_t *last_row,
                              struct sb_error *err)
{
    size_t batch = seq->max_rows < PREFILL_ROWS ? seq->max_rows : PREFILL_ROWS,
           length = seq->length;
    if (n < 1 || n_taps > SB_MAX_TAPS)
        return sb_fail(err, SB_EUSAGE, "a prefill of %zu tokens with %zu taps", n, n_taps);
    enum sb_status rc = SB_OK;
    for (size_t from = 0; from < n && rc == SB_OK; from += batch) {
        size_t m = n - from < batch ? n - from : batch;
        rc = prefill_batch(seq, tokens, from, m, from + m == n, taps, n_taps, err);
        if (last_row)
            *last_row = m - 1;
    }
    if (rc != SB_OK)
        sb_seq_truncate(seq, length);
    return rc;
}

#include "drafters/draft_body.h"

#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/loaders.h"

/* ---- opening ---- */

enum sb_status sb_draft_body_config(struct sb_config *out, const struct sb_head_file *head,
                                    const struct sb_config *like, struct sb_error *err)
{
    struct sb_config c = *like;
    double eps = (double)c.norm_eps;
    const char *act = sb_head_config_text(head, "hidden_act");
    const struct {
        const char *key;
        size_t *out, most;
    } sizes[] = {
        { "num_hidden_layers", &c.n_layers, SB_MAX_LAYERS },
        { "hidden_size", &c.d_model, SB_MAX_WIDTH },
        { "num_attention_heads", &c.n_heads, SB_MAX_WIDTH },
        { "intermediate_size", &c.d_ff, SB_MAX_WIDTH },
    };
    if (act && strcmp(act, "silu") != 0)
        return sb_fail(err, SB_EUNSUPPORTED, "%s: hidden_act '%s'; specbench computes silu",
                       head->path, act);
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && rc == SB_OK; i++)
        rc = sb_head_config_size(head, sizes[i].key, sizes[i].out, 1, sizes[i].most, err);
    if (rc != SB_OK)
        return rc;
    /* What a config that names heads leaves out follows from them, as in transformers. */
    if (c.n_heads != like->n_heads || c.d_model != like->d_model) {
        c.n_kv_heads = c.n_heads;
        c.head_dim = c.d_model / c.n_heads;
    }
    rc = sb_head_config_size(head, "num_key_value_heads", &c.n_kv_heads, 1, SB_MAX_WIDTH, err);
    if (rc == SB_OK)
        rc = sb_head_config_size(head, "head_dim", &c.head_dim, 1, SB_MAX_WIDTH, err);
    if (rc == SB_OK)
        rc = sb_head_config_number(head, "rms_norm_eps", &eps, 0, 1, err);
    if (rc == SB_OK)
        rc = sb_head_config_number(head, "rope_theta", &c.rope_base, 1, 1e12, err);
    c.norm_eps = (float)eps;
    if (rc == SB_OK)
        *out = c;
    return rc;
}

/* A layer's tensors by their names in the file. */
static enum sb_status read_layer(struct sb_weights *w, size_t layer,
                                 const struct sb_draft_body_options *o, struct sb_error *err)
{
    struct sb_wanted_tensor t[SB_LAYER_TENSORS];
    size_t n = sb_wanted_tensors(t, w, layer);
    char stem[SB_HEAD_NAME];
    if (layer == 0 && o->first)
        snprintf(stem, sizeof stem, "%s", o->first);
    else
        snprintf(stem, sizeof stem, "%s%zu.", o->stem, layer);
    if (sb_head_find(o->head, "%sself_attn.o_proj.bias", stem))
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: tensor '%sself_attn.o_proj.bias': only q, k and v may have biases",
                       o->head->path, stem);
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < n && rc == SB_OK; i++)
        rc = t[i].vector
                 ? sb_head_vector(o->head, t[i].out, t[i].k, err, "%s%s", stem, t[i].hf)
                 : sb_head_matrix(o->head, t[i].out, t[i].n, t[i].k, err, "%s%s", stem, t[i].hf);
    return rc;
}

static enum sb_status read_weights(struct sb_weights *w, const struct sb_draft_body_options *o,
                                   struct sb_error *err)
{
    const struct sb_config *c = &w->config;
    enum sb_status rc =
        o->head->config ? sb_hf_read_scaling(w, o->head->config, o->head->path, err) : SB_OK;
    for (size_t i = 0; i < c->n_layers && rc == SB_OK; i++)
        rc = read_layer(w, i, o, err);
    if (rc == SB_OK && o->final_norm)
        rc = sb_head_vector(o->head, &w->final_norm, c->d_model, err, "%s", o->final_norm);
    if (rc == SB_OK && o->lm_head)
        rc = sb_head_matrix(o->head, &w->lm_head, c->n_vocab, c->d_model, err, "%s", o->lm_head);
    return rc;
}

static enum sb_status make_model(struct sb_draft_body *b, const struct sb_draft_body_options *o,
                                 struct sb_error *err)
{
    struct sb_config config = o->config;
    struct sb_weights *w;
    /* Rotation goes on beyond the positions it was trained on. */
    config.max_context = o->max_context + o->max_rows;
    enum sb_status rc = sb_weights_body(&w, &config, o->head->path, err);
    if (rc != SB_OK)
        return rc;
    rc = read_weights(w, o, err);
    if (rc == SB_OK)
        rc = sb_model_from_weights(&b->model, w, err);
    if (rc != SB_OK) {
        sb_weights_close(w);
        return rc;
    }
    const struct sb_arithmetic like_target = { .f32_weights = o->head->f32_weights };
    return sb_model_set_arithmetic(b->model, &like_target, err);
}

enum sb_status sb_draft_body_open(struct sb_draft_body *b, const struct sb_draft_body_options *o,
                                  struct sb_error *err)
{
    if (o->max_rows < 1 || o->max_rows > SB_MAX_ROWS)
        return sb_fail(err, SB_EUSAGE, "drafter %s: %zu rows in a draft: expected at most %d",
                       o->head->drafter, o->max_rows, SB_MAX_ROWS);
    enum sb_status rc = make_model(b, o, err);
    if (rc != SB_OK)
        return rc;
    b->d = o->config.d_model;
    b->d_input = sb_config_d_input(&o->config);
    b->max_rows = o->max_rows;
    b->row = sb_alloc_array(b->max_rows, sizeof *b->row);
    b->chain = sb_alloc_array(b->max_rows, sizeof *b->chain);
    b->last = sb_alloc_aligned(b->max_rows * b->d, sizeof *b->last);
    b->final = sb_alloc_aligned(b->max_rows * b->d, sizeof *b->final);
    b->newest = sb_alloc_aligned(b->d, sizeof *b->newest);
    b->normed = sb_alloc_aligned(b->d, sizeof *b->normed);
    if (!b->row || !b->chain || !b->last || !b->final || !b->newest || !b->normed)
        return sb_fail(err, SB_ENOMEM, "drafter %s: no memory for drafts of %zu rows",
                       o->head->drafter, b->max_rows);
    for (size_t i = 0; i < b->max_rows; i++)
        b->chain[i] = (int32_t)i;
    return sb_seq_create(&b->seq, b->model, o->max_context + o->max_rows, b->max_rows, err);
}

void sb_draft_body_close(struct sb_draft_body *b)
{
    sb_seq_destroy(b->seq);
    sb_model_destroy(b->model);
    sb_free(b->row);
    sb_free(b->chain);
    sb_free(b->last);
    sb_free(b->final);
    sb_free(b->newest);
    sb_free(b->normed);
    *b = (struct sb_draft_body){ 0 };
}

/* ---- rows ---- */

size_t sb_draft_body_length(const struct sb_draft_body *b)
{
    return sb_seq_length(b->seq);
}

void sb_draft_body_rewind(struct sb_draft_body *b, size_t length)
{
    sb_seq_truncate(b->seq, length);
    b->n_scratch = 0;
}

/* Compute b->row[0..n) behind the `kept` rows of the batch. */
static enum sb_status forward(struct sb_draft_body *b, size_t n, size_t kept, struct sb_error *err)
{
    const struct sb_tap taps[] = {
        { .kind = SB_TAP_LAST, .dst = b->last + kept * b->d },
        { .kind = SB_TAP_FINAL, .dst = b->final + kept * b->d },
    };
    const struct sb_forward_options options = { .taps = taps, .n_taps = 2, .n_kept = kept };
    return sb_forward(b->seq, b->row, n, &options, err);
}

enum sb_status sb_draft_body_append(struct sb_draft_body *b, const float *rows, size_t n,
                                    bool logits, struct sb_error *err)
{
    b->n_scratch = 0;
    for (size_t i = 0; i < n; i++)
        b->row[i] = (struct sb_row){ .embedding = rows + i * b->d_input,
                                     .parent = (int32_t)i - 1,
                                     .want_logits = logits && i + 1 == n };
    enum sb_status rc = forward(b, n, 0, err);
    if (rc == SB_OK)
        rc = sb_seq_commit(b->seq, b->chain, n, err);
    if (rc != SB_OK)
        return rc;
    b->n_appended = n;
    memcpy(b->newest, b->last + (n - 1) * b->d, b->d * sizeof *b->newest);
    memcpy(b->normed, b->final + (n - 1) * b->d, b->d * sizeof *b->normed);
    return SB_OK;
}

enum sb_status sb_draft_body_grow(struct sb_draft_body *b, const float *rows, const int32_t *parent,
                                  size_t n, bool logits, struct sb_error *err)
{
    if (n > b->max_rows - b->n_scratch)
        return sb_fail(err, SB_EINTERNAL, "draft body: %zu rows of a draft; there is room for %zu",
                       b->n_scratch + n, b->max_rows);
    for (size_t i = 0; i < n; i++)
        b->row[i] = (struct sb_row){ .embedding = rows + i * b->d_input,
                                     .parent = parent[i],
                                     .want_logits = logits };
    enum sb_status rc = forward(b, n, b->n_scratch, err);
    if (rc == SB_OK)
        b->n_scratch += n;
    return rc;
}

const float *sb_draft_body_last(const struct sb_draft_body *b, int32_t row)
{
    return row == SB_PARENT_PREFIX ? b->newest : b->last + (size_t)row * b->d;
}

const float *sb_draft_body_final(const struct sb_draft_body *b, int32_t row)
{
    return row == SB_PARENT_PREFIX ? b->normed : b->final + (size_t)row * b->d;
}

const float *sb_draft_body_logits(const struct sb_draft_body *b, int32_t row)
{
    return sb_seq_logits(b->seq, row == SB_PARENT_PREFIX ? b->n_appended - 1 : (size_t)row);
}

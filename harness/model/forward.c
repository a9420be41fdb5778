/* One forward: M rows through the layers. */
#include <math.h>
#include <string.h>

#include "harness/model/internal.h"

/* ---- what the rows are and see ------------------------------------------------------------------- */

static enum sb_status check_rows(const struct sb_seq *seq, const struct sb_row *rows, size_t n,
                                 size_t n_kept, struct sb_error *err)
{
    bool embeds = sb_model_weights(seq->model)->embedding.data,
         head = sb_model_has_head(seq->model);
    size_t n_vocab = embeds ? sb_model_config(seq->model)->n_vocab : 0;
    if (n < 1 || n > seq->max_rows - n_kept)
        return sb_fail(err, SB_EUSAGE, "a batch of %zu rows; this sequence takes 1 to %zu",
                       n_kept + n, seq->max_rows);
    if (n_kept + n > seq->capacity - seq->length)
        return sb_fail(err, SB_EUSAGE, "%zu rows after %zu do not fit a context of %zu", n_kept + n,
                       seq->length, seq->capacity);
    for (size_t i = 0; i < n; i++) {
        if (!rows[i].embedding && (rows[i].token < 0 || (size_t)rows[i].token >= n_vocab))
            return sb_fail(err, SB_EUSAGE, "row %zu: token %d is outside the vocabulary of %zu", i,
                           rows[i].token, n_vocab);
        if (rows[i].parent < SB_PARENT_PREFIX || rows[i].parent >= (int64_t)(n_kept + i))
            return sb_fail(err, SB_EUSAGE, "row %zu: parent %d is not an earlier row, nor -1",
                           n_kept + i, rows[i].parent);
        if (rows[i].want_logits && !head)
            return sb_fail(err, SB_EUSAGE, "row %zu: this model has no head to give logits", i);
    }
    return SB_OK;
}

/* Rows to be kept must be there, whole and unsettled. */
static enum sb_status check_kept(const struct sb_seq *seq, const struct sb_forward_options *o,
                                 struct sb_error *err)
{
    if (o->n_kept == 0)
        return SB_OK;
    if (o->n_kept > seq->n_rows || seq->n_layers_done != seq->model->n_layers)
        return sb_fail(err, SB_EUSAGE, "%zu rows to be kept; there are %zu", o->n_kept,
                       seq->n_layers_done == seq->model->n_layers ? seq->n_rows : 0);
    if (o->visible || o->first_layer > 0 || o->stop_layer > 0)
        return sb_fail(err, SB_EUSAGE, "keeping rows goes with parent links and all layers only");
    return SB_OK;
}

static enum sb_status check_options(const struct sb_seq *seq, size_t n,
                                    const struct sb_forward_options *o, struct sb_error *err)
{
    size_t n_layers = seq->model->n_layers;
    if (o->first_layer > n_layers || o->stop_layer > n_layers ||
        (o->stop_layer && o->stop_layer < o->first_layer))
        return sb_fail(err, SB_EUSAGE, "layers %zu to %zu of a model of %zu", o->first_layer,
                       o->stop_layer, n_layers);
    if ((o->first_layer > 0) != (o->hidden != NULL))
        return sb_fail(err, SB_EUSAGE, "resuming at a layer and giving hidden rows go together");
    for (size_t i = 0; i < o->n_taps; i++)
        if (o->taps[i].kind <= SB_TAP_OUT && o->taps[i].layer >= n_layers)
            return sb_fail(err, SB_EUSAGE, "a tap at layer %zu of a model of %zu", o->taps[i].layer,
                           n_layers);
    for (size_t i = 0; o->positions && i < n; i++)
        if (o->positions[i] < 0 || (size_t)o->positions[i] >= seq->capacity)
            return sb_fail(err, SB_EUSAGE, "row %zu: position %d in a context of %zu", i,
                           o->positions[i], seq->capacity);
    for (size_t i = 0; o->visible && i < n; i++) {
        size_t words = (n + 63) / 64;
        const uint64_t *bits = o->visible + i * words;
        bool later = false;
        for (size_t j = i + 1; j < n; j++)
            later = later || (bits[j / 64] >> j % 64 & 1);
        if (later || !(bits[i / 64] >> i % 64 & 1))
            return sb_fail(err, SB_EUSAGE, "row %zu must see itself, and no later row", i);
    }
    return SB_OK;
}

/* The batch rows that each of the n new rows sees, ascending: its ancestors and itself, or the bits
 * given. */
static void list_visible(struct sb_seq *seq, size_t first, size_t n, const uint64_t *visible)
{
    int32_t *next = seq->list_memory;
    size_t words = (n + 63) / 64;
    for (size_t i = 0; i < n; i++) {
        int32_t count = 0;
        seq->list[i] = next;
        if (visible) {
            for (size_t j = 0; j <= i; j++)
                if (visible[i * words + j / 64] >> j % 64 & 1)
                    next[count++] = (int32_t)j;
        } else {
            count = seq->depth[first + i] + 1;
            for (int32_t j = (int32_t)(first + i), at = count; at-- > 0; j = seq->parent[j])
                next[at] = j;
        }
        seq->n_list[i] = count;
        next += count;
    }
}

static void place_rows(struct sb_seq *seq, const struct sb_row *rows, size_t n,
                       const struct sb_forward_options *o)
{
    size_t first = o->n_kept;
    int32_t n_logits = 0;
    for (size_t i = 0; i < first; i++)
        n_logits = seq->logits_row[i] >= n_logits ? seq->logits_row[i] + 1 : n_logits;
    seq->first_logits = (size_t)n_logits;
    for (size_t i = 0; i < n; i++) {
        int32_t parent = rows[i].parent, depth = parent < 0 ? 0 : seq->depth[parent] + 1;
        seq->parent[first + i] = parent;
        seq->depth[first + i] = depth;
        seq->position[i] = o->positions ? o->positions[i] : (int32_t)seq->length + depth;
        seq->logits_row[first + i] = rows[i].want_logits && !o->stop_layer ? n_logits++ : -1;
    }
    list_visible(seq, first, n, o->visible);
}

/* Rows [e ; h] become what layer 0's attention reads, and its residual stream. */
static void read_pairs(struct sb_seq *seq, const struct sb_row *rows, size_t n)
{
    const struct sb_config *c = sb_model_config(seq->model);
    const struct sb_layer *layer = &seq->model->layer[0];
    size_t d = c->d_model;
    for (size_t i = 0; i < n; i++) {
        const float *e = rows[i].embedding, *h = e + d;
        float *pair = seq->pair + i * seq->ld_pair;
        sb_rmsnorm(NULL, pair, d, e, d, layer->attn_norm, d, 1, c->norm_eps);
        sb_rmsnorm(NULL, pair + d, d, h, d, layer->pair_norm, d, 1, c->norm_eps);
        memcpy(seq->x + i * d, c->input == SB_INPUT_PAIR_NORMED ? pair + d : h, d * sizeof *seq->x);
    }
}

static void read_inputs(struct sb_seq *seq, const struct sb_row *rows, size_t n,
                        const struct sb_forward_options *o)
{
    size_t d = sb_model_config(seq->model)->d_model;
    if (o->hidden) {
        memcpy(seq->x, o->hidden, n * d * sizeof *seq->x);
        return;
    }
    if (seq->pair) {
        read_pairs(seq, rows, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (rows[i].embedding)
            memcpy(seq->x + i * d, rows[i].embedding, d * sizeof *seq->x);
        else
            sb_model_embed(seq->model, seq->x + i * d, &rows[i].token, 1);
    }
}

/* ---- the layers ---------------------------------------------------------------------------------------- */

static void tap(const struct sb_seq *seq, const struct sb_forward_options *o, enum sb_tap_kind kind,
                size_t layer, const float *values, size_t n)
{
    size_t d = sb_model_config(seq->model)->d_model;
    for (size_t i = 0; i < o->n_taps; i++)
        if (o->taps[i].kind == kind && (kind > SB_TAP_OUT || o->taps[i].layer == layer))
            memcpy(o->taps[i].dst, values, n * d * sizeof *values);
}

/* One pass, whose kernels share their work out over a team. */
struct pass {
    struct sb_seq *seq;
    const struct sb_team *team;
    size_t n_rows, first_layer, stop_layer;
    const struct sb_forward_options *o;
};

/* What the projections of a layer read: norm(x), but for what enum sb_input says of layer 0. */
static struct sb_operand attention_input(const struct sb_seq *seq, size_t index)
{
    if (index == 0 && seq->pair)
        return (struct sb_operand){ seq->pair, seq->ld_pair, NULL };
    return (struct sb_operand){ seq->x, sb_model_config(seq->model)->d_model,
                                seq->model->layer[index].attn_norm };
}

/* From here on products may ask for what the attention of layer `index` reads: the rest of the layer before it, and
 * its own projections. */
static void expect_attention(const struct pass *pass, size_t index)
{
    struct sb_seq *seq = pass->seq;
    const struct sb_config *c = sb_model_config(seq->model);
    const struct sb_team *team = pass->team;
    const size_t n = pass->n_rows;
    seq->soon = (struct sb_soon){ .kv = NULL };
    if (index >= pass->stop_layer || (pass->o->skip_attn && pass->o->skip_attn[index]))
        return;
    const struct sb_layer *layer = &seq->model->layer[index], *before = layer - 1;
    const size_t spare =
        sb_matrix_spare(team, &before->wo, n) + sb_matrix_spare(team, &before->gate_up, n) +
        sb_matrix_spare(team, &before->w_down, n) + sb_matrix_spare(team, &layer->qkv, n);
    seq->soon = sb_attention_soon(team, &seq->kv[index], seq->length, c->n_heads, n, spare);
}

/* x += Wo attention(rope(Wq norm(x)), rope(Wk norm(x)), Wv norm(x)) */
static void attention_sublayer(const struct pass *pass, size_t index)
{
    struct sb_seq *seq = pass->seq;
    const struct sb_team *team = pass->team;
    size_t n = pass->n_rows;
    const struct sb_model *model = seq->model;
    const struct sb_config *c = sb_model_config(model);
    const struct sb_layer *layer = &model->layer[index];
    const struct sb_kv_layer *kv = &seq->kv[index];
    size_t d = c->d_model, hd = c->head_dim, ld = model->q_width + 2 * model->kv_width;
    float *q = seq->qkv, *k = q + model->q_width, *v = k + model->kv_width;
    sb_matrix_product(team, seq, q, ld, &layer->qkv, attention_input(seq, index), n, false);
    /* Heads of k follow those of q. */
    sb_rope_apply(team, &seq->rope, q, ld, c->n_heads + c->n_kv_heads, hd, seq->position, n);
    sb_kv_write(team, kv, seq->length + pass->o->n_kept, k, v, ld, n);
    const struct sb_visible visible = { seq->length, seq->list, seq->n_list };
    sb_attention(team, seq->attended, seq->ld_attended, q, ld, c->n_heads, 1.0f / sqrtf((float)hd),
                 kv, &visible, n, seq->attention_scratch);
    expect_attention(pass, index + 1);
    const struct sb_operand attended = { seq->attended, seq->ld_attended, NULL };
    sb_matrix_product(team, seq, seq->x, d, &layer->wo, attended, n, true);
}

/* x += Wdown (silu(Wgate norm(x)) * Wup norm(x)) */
static void mlp_sublayer(const struct pass *pass, size_t index)
{
    struct sb_seq *seq = pass->seq;
    const struct sb_team *team = pass->team;
    const struct sb_layer *layer = &seq->model->layer[index];
    const size_t d = sb_model_config(seq->model)->d_model, n = pass->n_rows;
    const struct sb_operand x = { seq->x, d, layer->ffn_norm }, ff = { seq->ff, seq->ld_ff, NULL };
    sb_matrix_product(team, seq, seq->ff, seq->ld_ff, &layer->gate_up, x, n, false);
    sb_matrix_product(team, seq, seq->x, d, &layer->w_down, ff, n, true);
}

/* Final norm, and logits for the rows that want them. */
static void finish_rows(const struct pass *pass)
{
    struct sb_seq *seq = pass->seq;
    const struct sb_model *model = seq->model;
    const struct sb_forward_options *o = pass->o;
    const int32_t *logits_row = seq->logits_row + o->n_kept;
    size_t d = sb_model_config(model)->d_model, n_vocab = sb_model_config(model)->n_vocab;
    size_t wanted = 0, n = pass->n_rows, first = seq->first_logits;
    for (size_t i = 0; i < n; i++)
        wanted += logits_row[i] >= 0;
    tap(seq, o, SB_TAP_LAST, 0, seq->x, n);
    for (size_t i = 0; i < o->n_taps; i++)
        if (o->taps[i].kind == SB_TAP_FINAL)
            sb_model_final_norm(model, o->taps[i].dst, seq->x, n);
    for (size_t i = 0; i < n; i++)
        if (logits_row[i] >= 0)
            sb_model_final_norm(model,
                                seq->normed + ((size_t)logits_row[i] - first) * seq->ld_normed,
                                seq->x + i * d, 1);
    const struct sb_operand normed = { seq->normed, seq->ld_normed, NULL };
    if (wanted > 0)
        sb_matrix_product(pass->team, seq, seq->logits + first * n_vocab, n_vocab, &model->head,
                          normed, wanted, false);
}

static void run_pass(const struct pass *pass)
{
    const struct sb_forward_options *o = pass->o;
    struct sb_seq *seq = pass->seq;
    seq->soon = (struct sb_soon){ .kv = NULL };
    for (size_t i = pass->first_layer; i < pass->stop_layer; i++) {
        tap(seq, o, SB_TAP_IN, i, seq->x, pass->n_rows);
        if (!o->skip_attn || !o->skip_attn[i])
            attention_sublayer(pass, i);
        if (!o->skip_mlp || !o->skip_mlp[i])
            mlp_sublayer(pass, i);
        tap(seq, o, SB_TAP_OUT, i, seq->x, pass->n_rows);
    }
    if (!o->stop_layer)
        finish_rows(pass);
    else
        tap(seq, o, SB_TAP_IN, pass->stop_layer, seq->x, pass->n_rows); /* for a resumed pass */
}

enum sb_status sb_forward(struct sb_seq *seq, const struct sb_row *rows, size_t n_rows,
                          const struct sb_forward_options *options, struct sb_error *err)
{
    static const struct sb_forward_options defaults;
    const struct sb_forward_options *o = options ? options : &defaults;
    enum sb_status rc = check_kept(seq, o, err);
    if (rc == SB_OK)
        rc = check_rows(seq, rows, n_rows, o->n_kept, err);
    if (rc == SB_OK)
        rc = check_options(seq, n_rows, o, err);
    if (rc != SB_OK)
        return rc;
    size_t stop = o->stop_layer ? o->stop_layer : seq->model->n_layers;
    /* A resumed pass goes on where the last one of the same rows stopped; else its KV has a gap. */
    bool gap =
        o->first_layer > 0 && (seq->n_layers_done != o->first_layer || seq->n_rows != n_rows);
    seq->tainted = gap || ((o->first_layer > 0 || o->n_kept > 0) && seq->tainted);
    seq->n_rows = o->n_kept + n_rows;
    place_rows(seq, rows, n_rows, o);
    read_inputs(seq, rows, n_rows, o);
    for (size_t i = o->first_layer; i < stop; i++)
        seq->tainted =
            seq->tainted || (o->skip_attn && o->skip_attn[i]) || (o->skip_mlp && o->skip_mlp[i]);
    size_t threads =
        sb_pass_uses_blas(seq, n_rows) ? 1 : sb_team_size(n_rows * seq->model->n_weights);
    const struct pass pass = { seq, sb_team_begin(threads), n_rows, o->first_layer, stop, o };
    run_pass(&pass);
    sb_team_end(pass.team);
    seq->n_layers_done = stop;
    return SB_OK;
}

/* What all draft heads share: their rows, their losses, their making. */
#include "harness/train/head.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"

extern const struct sb_head_ops sb_head_eagle, sb_head_eagle3, sb_head_hydra, sb_head_hydra_pp,
    sb_head_medusa, sb_head_mlp_speculator, sb_head_redrafter;

const struct sb_head_ops *const sb_head_archs[] = {
    &sb_head_eagle,  &sb_head_eagle3,         &sb_head_hydra,     &sb_head_hydra_pp,
    &sb_head_medusa, &sb_head_mlp_speculator, &sb_head_redrafter, NULL,
};

const struct sb_head_ops *sb_head_arch_find(const char *arch)
{
    for (const struct sb_head_ops *const *ops = sb_head_archs; *ops; ops++)
        if (strcmp((*ops)->arch, arch) == 0)
            return *ops;
    return NULL;
}

/* ---- rows ------------------------------------------------------------------------------------ */

static bool alloc_rows(struct sb_head_rows *rows, struct sb_tape *tape, size_t n, size_t depth)
{
    *rows = (struct sb_head_rows){ .depth = depth };
    bool ok = (rows->at = sb_tape_alloc(tape, n, sizeof *rows->at)) != NULL;
    for (size_t j = 0; ok && j < depth; j++)
        ok = (rows->token[j] = sb_tape_alloc(tape, n, sizeof(int32_t))) &&
             (rows->label[j] = sb_tape_alloc(tape, n, sizeof(int32_t))) &&
             (rows->teacher[j] = sb_tape_alloc(tape, n, sizeof(int32_t))) &&
             (rows->weight[j] = sb_tape_alloc(tape, n, sizeof(sb_real)));
    return ok;
}

/* Append row t of a text that ends before row `end`, if some depth has a loss there. */
static void add_row(struct sb_head_rows *rows, const struct sb_head_texts *texts, size_t t,
                    size_t end)
{
    size_t n = rows->n;
    bool any = false;
    for (size_t j = 0; j < rows->depth; j++) {
        bool known = t + 1 + j < end, counts = known && texts->counts[t + 1 + j] != 0;
        rows->token[j][n] = t + j < end ? texts->next[t + j] : 0;
        rows->label[j][n] = known ? texts->next[t + 1 + j] : 0;
        rows->teacher[j][n] = known ? (int32_t)(t + 1 + j) : 0;
        rows->weight[j][n] = counts;
        any = any || counts;
    }
    if (!any)
        return; /* the next row overwrites it */
    rows->at[n] = (int32_t)t;
    for (size_t j = 0; j < rows->depth; j++)
        rows->counts[j] += rows->weight[j][n] != 0;
    rows->n++;
}

bool sb_head_rows_make(struct sb_head_rows *rows, struct sb_tape *tape,
                       const struct sb_head_texts *texts, size_t depth)
{
    if (!alloc_rows(rows, tape, texts->rows.m, depth))
        return false;
    const size_t *start = texts->rows.segments.start;
    for (size_t s = 0; s < texts->rows.segments.n; s++)
        for (size_t t = start[s]; t < start[s + 1]; t++)
            add_row(rows, texts, t, start[s + 1]);
    return true;
}

/* ---- making ---------------------------------------------------------------------------------- */

static enum sb_status build(struct sb_head *head, const struct sb_spec *spec, uint64_t seed,
                            struct sb_error *err)
{
    char owner[64];
    snprintf(owner, sizeof owner, "head %s", head->ops->arch);
    head->params = sb_alloc_zero(1, head->ops->params_size);
    head->parts = sb_alloc_zero(1, head->ops->parts_size);
    if (!head->params || !head->parts)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", owner);
    enum sb_status status = sb_params_apply(head->params, head->ops->params, spec, owner, err);
    if (status == SB_OK)
        status = head->ops->declare(head, err);
    if (status == SB_OK)
        status = sb_trainable_alloc(&head->weights, false, err);
    if (status != SB_OK)
        return status;
    sb_trainable_init(&head->weights, seed);
    if (head->ops->start)
        head->ops->start(head);
    return SB_OK;
}

enum sb_status sb_head_create(struct sb_head **out, const struct sb_head_ops *ops,
                              const struct sb_spec *spec, struct sb_lm *target, uint64_t seed,
                              struct sb_error *err)
{
    struct sb_head *head = sb_alloc_zero(1, sizeof *head);
    if (!head)
        return sb_fail(err, SB_ENOMEM, "head %s: out of memory", ops->arch);
    head->ops = ops;
    head->target = target;
    enum sb_status status = build(head, spec, seed, err);
    if (status == SB_OK)
        *out = head;
    else
        sb_head_destroy(head);
    return status;
}

void sb_head_destroy(struct sb_head *head)
{
    if (!head)
        return;
    if (head->ops->close && head->parts)
        head->ops->close(head);
    sb_trainable_finish(&head->weights);
    sb_free(head->draft_ids);
    sb_free(head->params);
    sb_free(head->parts);
    sb_free(head);
}

/* ---- a draft vocabulary ----------------------------------------------------------------------- */

enum sb_status sb_head_set_vocabulary(struct sb_head *head, const int32_t *ids,
                                      struct sb_error *err)
{
    size_t d = head->target->shape.d_model;
    int32_t *own = sb_alloc_array(head->n_draft, sizeof *own);
    if (!own)
        return sb_fail(err, SB_ENOMEM, "head %s: out of memory", head->ops->arch);
    for (size_t i = 0; i < head->n_draft; i++) {
        own[i] = ids[i];
        memcpy(head->draft_rows->x + i * d, head->target->embedding.x + (size_t)ids[i] * d,
               d * sizeof *head->draft_rows->x);
    }
    sb_free(head->draft_ids);
    head->draft_ids = own;
    return SB_OK;
}

/* The draft id of a token, or -1. */
static int32_t draft_id(const struct sb_head *head, int32_t token)
{
    size_t low = 0, high = head->n_draft;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (head->draft_ids[middle] < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low < head->n_draft && head->draft_ids[low] == token ? (int32_t)low : -1;
}

static int32_t likeliest(const sb_real *row, size_t n)
{
    size_t top = 0;
    for (size_t i = 1; i < n; i++)
        if (row[i] > row[top])
            top = i;
    return (int32_t)top;
}

void sb_head_rows_limit(struct sb_head_rows *rows, const struct sb_head *head,
                        const sb_real *logits, bool labels)
{
    size_t n_vocab = head->target->shape.n_vocab;
    for (size_t j = 0; head->draft_ids && j < rows->depth; j++)
        for (size_t r = 0; r < rows->n; r++) {
            int32_t said = draft_id(head, rows->label[j][r]);
            if (rows->weight[j][r] != 0 && !labels)
                said = draft_id(head,
                                likeliest(logits + (size_t)rows->teacher[j][r] * n_vocab, n_vocab));
            rows->label[j][r] = said < 0 ? 0 : said;
            if (said >= 0 || rows->weight[j][r] == 0)
                continue;
            rows->weight[j][r] = 0;
            rows->counts[j]--;
        }
}

/* The columns of the target's logits that the head has. */
static const sb_real *draft_columns(const struct sb_head *head, const struct sb_head_input *in,
                                    const sb_real *logits)
{
    size_t m = in->texts->rows.m, n = head->n_draft, n_vocab = head->target->shape.n_vocab;
    if (!head->draft_ids)
        return logits;
    sb_real *own = sb_tape_alloc(in->tape, m * n, sizeof *own);
    for (size_t r = 0; own && r < m; r++)
        for (size_t i = 0; i < n; i++)
            own[r * n + i] = logits[r * n_vocab + (size_t)head->draft_ids[i]];
    return own;
}

const sb_real *sb_head_full_rows(const struct sb_head *head, struct sb_tape *tape,
                                 const struct sb_var *logits)
{
    if (!logits || !head->draft_ids)
        return logits ? logits->x : NULL;
    size_t n = head->n_draft, n_vocab = head->target->shape.n_vocab;
    sb_real *full = sb_tape_alloc(tape, logits->rows * n_vocab, sizeof *full);
    for (size_t r = 0; full && r < logits->rows; r++) {
        for (size_t i = 0; i < n_vocab; i++)
            full[r * n_vocab + i] = -INFINITY;
        for (size_t i = 0; i < n; i++)
            full[r * n_vocab + (size_t)head->draft_ids[i]] = logits->x[r * n + i];
    }
    return full;
}

/* ---- losses ---------------------------------------------------------------------------------- */

/* Weights of depth j's rows that make a sum their mean, times `scale`. */
static sb_real *row_weights(const struct sb_head_input *in, size_t j, double scale)
{
    const struct sb_head_rows *rows = in->rows;
    sb_real *weight = sb_tape_alloc(in->tape, rows->n, sizeof *weight);
    for (size_t r = 0; weight && r < rows->n; r++)
        weight[r] = rows->weight[j][r] * (sb_real)(scale / (double)rows->counts[j]);
    return weight;
}

/* What depth j loses by its logits. */
static struct sb_var *logits_loss(const struct sb_head_input *in, const struct sb_head_output *out,
                                  const sb_real *logits, const struct sb_head_loss *loss, size_t j,
                                  double scale)
{
    sb_real *weight = row_weights(in, j, scale * loss->weight);
    if (!weight)
        return NULL;
    if (loss->labels)
        return sb_tape_cross_entropy(in->tape, out->logits[j], in->rows->label[j], weight);
    const struct sb_teacher row = { logits, in->rows->teacher[j] };
    return sb_tape_divergence(in->tape, out->logits[j], &loss->by, &row, weight);
}

/* And by its features. */
static struct sb_var *feature_loss(const struct sb_head_input *in, const struct sb_head_output *out,
                                   const struct sb_head_loss *loss, size_t j, double scale)
{
    sb_real *weight = row_weights(in, j, scale * loss->feature);
    const struct sb_teacher state = { in->states->final->x, in->rows->teacher[j] };
    return weight ? sb_tape_smooth_l1(in->tape, out->feature[j], &state, weight) : NULL;
}

struct sb_var *sb_head_loss(const struct sb_head *head, const struct sb_head_input *in,
                            const struct sb_head_output *out, const sb_real *logits,
                            const struct sb_head_loss *loss, size_t share)
{
    sb_real *zero = sb_tape_alloc(in->tape, 1, sizeof *zero);
    logits = zero ? draft_columns(head, in, logits) : NULL;
    if (!logits)
        return NULL;
    *zero = 0;
    struct sb_var *total = sb_tape_constant(in->tape, zero, 1, 1);
    double scale = 1 / (double)share;
    for (size_t j = 0; j < head->depth; j++, scale *= loss->decay) {
        if (in->rows->counts[j] == 0)
            continue;
        total = sb_tape_add(in->tape, total, logits_loss(in, out, logits, loss, j, scale));
        if (out->feature[j] && loss->feature > 0)
            total = sb_tape_add(in->tape, total, feature_loss(in, out, loss, j, scale));
    }
    return total;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

struct sb_var *sb_head_block(struct sb_tape *tape, struct sb_var *y, struct sb_var *x,
                             struct sb_var *w, struct sb_var *b)
{
    return sb_tape_add(tape, y, sb_tape_silu(tape, sb_tape_linear(tape, x, w, b)));
}

void sb_head_copy_lm_head(const struct sb_head *head, struct sb_var *to)
{
    const struct sb_var *from = &head->target->embedding;
    memcpy(to->x, from->x, from->rows * from->cols * sizeof *to->x);
}

struct json_t *sb_head_llama_config(const struct sb_head *head, const char *architecture)
{
    const struct sb_lm_shape *s = &head->target->shape;
    return json_pack(
        "{s:[s], s:s, s:s, s:I, s:I, s:i, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:s}", "architectures",
        architecture, "model_type", "llama", "hidden_act", "silu", "hidden_size",
        (json_int_t)s->d_model, "intermediate_size", (json_int_t)s->d_ff, "num_hidden_layers", 1,
        "num_attention_heads", (json_int_t)s->n_heads, "num_key_value_heads",
        (json_int_t)s->n_kv_heads, "head_dim", (json_int_t)(s->d_model / s->n_heads), "vocab_size",
        (json_int_t)s->n_vocab, "max_position_embeddings", (json_int_t)s->max_context,
        "rms_norm_eps", s->norm_eps, "rope_theta", s->rope_base, "torch_dtype", "bfloat16");
}

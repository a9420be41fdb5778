/* From a file's weights to packed matrices: in one stretch of memory, in the order in which a forward reads
 * them, so that large pages cover it and each matrix runs on into the next. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/internal.h"

static bool widens(const struct sb_tensor *t, bool f32)
{
    return f32 && (t->type == SB_F16 || t->type == SB_BF16);
}

int sb_tensor_pack(struct sb_packed *out, void *memory, const struct sb_tensor *t, bool f32)
{
    if (!widens(t, f32))
        return sb_packed_init(out, memory, t->type, t->n, t->k, t->data);
    size_t row_bytes = sb_dtype_row_bytes(t->type, t->k);
    float *floats = sb_alloc_array(t->n, t->k * sizeof *floats);
    for (size_t i = 0; floats && i < t->n; i++)
        sb_dequantize_row(floats + i * t->k, t->type,
                          (const unsigned char *)t->data + i * row_bytes, t->k);
    int failed = !floats || sb_packed_init(out, memory, SB_F32, t->n, t->k, floats) != 0;
    sb_free(floats);
    return failed;
}

/* ---- which matrices there are ---------------------------------------------------------------------- */

enum { PER_LAYER = 4 };

static size_t n_matrices(const struct sb_model *model)
{
    return PER_LAYER * model->n_layers + 1;
}

/* Matrix i in the order in which a forward reads them. */
static struct sb_matrix *matrix_at(struct sb_model *model, size_t i)
{
    if (i == PER_LAYER * model->n_layers)
        return &model->head;
    struct sb_layer *layer = &model->layer[i / PER_LAYER];
    struct sb_matrix *const in_order[PER_LAYER] = { &layer->qkv, &layer->wo, &layer->gate_up,
                                                    &layer->w_down };
    return in_order[i % PER_LAYER];
}

static void add_source(struct sb_matrix *w, const struct sb_tensor *t)
{
    if (t->data)
        w->source[w->n_sources++] = t;
}

static void name_sources(struct sb_model *model)
{
    const struct sb_weights *weights = model->weights;
    for (size_t i = 0; i < model->n_layers; i++) {
        const struct sb_layer_weights *from = &weights->layers[i];
        struct sb_layer *layer = &model->layer[i];
        add_source(&layer->qkv, &from->wq);
        add_source(&layer->qkv, &from->wk);
        add_source(&layer->qkv, &from->wv);
        add_source(&layer->wo, &from->wo);
        add_source(&layer->gate_up, &from->w_gate);
        add_source(&layer->gate_up, &from->w_up);
        add_source(&layer->w_down, &from->w_down);
    }
    add_source(&model->head,
               weights->config.tied_embeddings ? &weights->embedding : &weights->lm_head);
}

/* ---- packing --------------------------------------------------------------------------------------- */

/* Rows of several matrices under each other, so that one product serves them all; or one matrix. */
struct joined {
    struct sb_tensor rows;
    size_t n_sources;
};

/* What source i of a matrix is packed with: all others, where types agree. data is set for one source only. */
static struct joined join(const struct sb_matrix *w, size_t i)
{
    struct joined all = { *w->source[i], 1 };
    for (size_t s = 1; s < w->n_sources; s++)
        if (w->source[s]->type != w->source[0]->type)
            return all;
    all.n_sources = w->n_sources;
    for (size_t s = 1; s < w->n_sources; s++)
        all.rows.n += w->source[s]->n;
    return all;
}

static size_t packed_bytes(const struct sb_model *model, const struct sb_tensor *t)
{
    enum sb_dtype type = widens(t, model->arithmetic.f32_weights) ? SB_F32 : t->type;
    return sb_packed_size(type, t->n, t->k);
}

static void count_weights(struct sb_model *model)
{
    for (size_t m = 0; m < n_matrices(model); m++) {
        const struct sb_matrix *w = matrix_at(model, m);
        struct joined part;
        for (size_t i = 0; i < w->n_sources; i += part.n_sources) {
            part = join(w, i);
            model->packed_bytes += packed_bytes(model, &part.rows);
            model->n_weights += part.rows.n * part.rows.k;
        }
    }
}

static enum sb_status pack_part(const struct sb_model *model, struct sb_packed *out, void *memory,
                                const struct sb_tensor *const *source, struct joined *part,
                                struct sb_error *err)
{
    size_t row_bytes = sb_dtype_row_bytes(part->rows.type, part->rows.k), used = 0;
    unsigned char *rows = part->n_sources > 1 ? sb_alloc_array(part->rows.n, row_bytes) : NULL;
    for (size_t i = 0; rows && i < part->n_sources; used += source[i++]->n * row_bytes)
        memcpy(rows + used, source[i]->data, source[i]->n * row_bytes);
    if (part->n_sources > 1)
        part->rows.data = rows;
    bool done = part->rows.data &&
                sb_tensor_pack(out, memory, &part->rows, model->arithmetic.f32_weights) == 0;
    sb_free(rows);
    return done ? SB_OK
                : sb_fail(err, SB_ENOMEM, "out of memory for a %zu x %zu matrix of %s",
                          part->rows.n, part->rows.k, sb_dtype_name(part->rows.type));
}

static enum sb_status pack_matrix(const struct sb_model *model, struct sb_matrix *w,
                                  unsigned char **at, struct sb_packed **last, struct sb_error *err)
{
    struct joined part;
    for (size_t i = 0; i < w->n_sources; i += part.n_sources) {
        struct sb_packed *out = &w->part[w->n_parts];
        part = join(w, i);
        enum sb_status rc = pack_part(model, out, *at, w->source + i, &part, err);
        if (rc != SB_OK)
            return rc;
        w->n_parts++;
        *at += out->size_bytes;
        if (*last)
            sb_packed_follow(*last, out);
        *last = out;
    }
    return SB_OK;
}

enum sb_status sb_model_pack(struct sb_model *model, struct sb_error *err)
{
    name_sources(model);
    count_weights(model);
    model->memory = sb_alloc_aligned(model->packed_bytes, 1);
    if (!model->memory)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu MB of weights",
                       model->packed_bytes / 1000000);
    unsigned char *at = model->memory;
    struct sb_packed *last = NULL;
    enum sb_status rc = SB_OK;
    for (size_t m = 0; m < n_matrices(model) && rc == SB_OK; m++)
        rc = pack_matrix(model, matrix_at(model, m), &at, &last, err);
    return rc;
}

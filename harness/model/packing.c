/* From a file's weights to packed matrices: in one stretch of memory, in the order in which a forward reads
 * them, so that large pages cover it and each matrix runs on into the next. */
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/internal.h"

static bool widens(const struct sb_tensor *t, bool f32)
{
    return f32 && (t->type == SB_F16 || t->type == SB_BF16);
}

/* Rows of a tensor in the type that they are packed in: its own, or widened into *room. NULL: out of memory. */
static const void *rows_of(const struct sb_tensor *t, bool f32, float **room)
{
    *room = NULL;
    if (!widens(t, f32))
        return t->data;
    const size_t row_bytes = sb_dtype_row_bytes(t->type, t->k);
    *room = sb_alloc_array(t->n, t->k * sizeof **room);
    for (size_t i = 0; *room && i < t->n; i++)
        sb_dequantize_row(*room + i * t->k, t->type, (const unsigned char *)t->data + i * row_bytes,
                          t->k);
    return *room;
}

static enum sb_dtype packed_type(const struct sb_tensor *t, bool f32)
{
    return widens(t, f32) ? SB_F32 : t->type;
}

int sb_tensor_pack(struct sb_packed *out, void *memory, const struct sb_tensor *t, bool f32)
{
    float *room;
    const void *rows = rows_of(t, f32, &room);
    int failed = !rows || sb_packed_init(out, memory, packed_type(t, f32), t->n, t->k, rows) != 0;
    sb_free(room);
    return failed;
}

static int pack_gated(struct sb_packed *out, void *memory, const struct sb_tensor *gate,
                      const struct sb_tensor *up, bool f32)
{
    float *room[2];
    const void *rows[2] = { rows_of(gate, f32, &room[0]), rows_of(up, f32, &room[1]) };
    int failed = !rows[0] || !rows[1] ||
                 sb_packed_init_gated(out, memory, packed_type(gate, f32), gate->n, gate->k,
                                      rows[0], rows[1]) != 0;
    sb_free(room[0]);
    sb_free(room[1]);
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
        layer->gate_up.gates = true;
        add_source(&layer->w_down, &from->w_down);
    }
    add_source(&model->head,
               weights->config.tied_embeddings ? &weights->embedding : &weights->lm_head);
}

/* ---- packing --------------------------------------------------------------------------------------- */

/* Matrices that are packed as one: rows under each other, or a gated pair; or one matrix. */
struct joined {
    struct sb_tensor rows;
    size_t n_sources;
    bool gated;
};

/* What source i of a matrix is packed with: all others, where types agree. data is set for one source only. */
static struct joined join(const struct sb_matrix *w, size_t i)
{
    struct joined all = { *w->source[i], 1, false };
    for (size_t s = 1; s < w->n_sources; s++)
        if (w->source[s]->type != w->source[0]->type)
            return all;
    all.n_sources = w->n_sources;
    all.gated = w->gates;
    for (size_t s = 1; s < w->n_sources && !w->gates; s++)
        all.rows.n += w->source[s]->n;
    return all;
}

static void count_weights(struct sb_model *model)
{
    const bool f32 = model->arithmetic.f32_weights;
    for (size_t m = 0; m < n_matrices(model); m++) {
        const struct sb_matrix *w = matrix_at(model, m);
        struct joined part;
        for (size_t i = 0; i < w->n_sources; i += part.n_sources) {
            part = join(w, i);
            const struct sb_tensor *t = &part.rows;
            const size_t each = part.gated ? 2 : 1;
            model->packed_bytes += each * sb_packed_size(packed_type(t, f32), t->n, t->k);
            model->n_weights += each * t->n * t->k;
        }
    }
}

/* Under each other in memory of its own, which is then packed. */
static int pack_stacked(struct sb_packed *out, void *memory, const struct sb_tensor *const *source,
                        const struct joined *part, bool f32)
{
    struct sb_tensor all = part->rows;
    const size_t row_bytes = sb_dtype_row_bytes(all.type, all.k);
    unsigned char *rows = sb_alloc_array(all.n, row_bytes);
    for (size_t i = 0, used = 0; rows && i < part->n_sources; used += source[i++]->n * row_bytes)
        memcpy(rows + used, source[i]->data, source[i]->n * row_bytes);
    all.data = rows;
    int failed = !rows || sb_tensor_pack(out, memory, &all, f32) != 0;
    sb_free(rows);
    return failed;
}

static enum sb_status pack_part(const struct sb_model *model, struct sb_packed *out, void *memory,
                                const struct sb_tensor *const *source, const struct joined *part,
                                struct sb_error *err)
{
    const bool f32 = model->arithmetic.f32_weights;
    const int failed = part->gated           ? pack_gated(out, memory, source[0], source[1], f32)
                       : part->n_sources > 1 ? pack_stacked(out, memory, source, part, f32)
                                             : sb_tensor_pack(out, memory, source[0], f32);
    return failed ? sb_fail(err, SB_ENOMEM, "out of memory for a %zu x %zu matrix of %s",
                            part->rows.n, part->rows.k, sb_dtype_name(part->rows.type))
                  : SB_OK;
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

/* `specbench inspect`: what a model file holds, as JSON. */
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/loaders.h"
#include "harness/model/torch_file.h"

enum { SHOWN_ITEMS = 8, SHOWN_TEXT = 200 };

/* Text from a file, shortened; bytes that are no UTF-8 are said to be so. */
static json_t *text_value(struct sb_text text)
{
    size_t n = text.n < SHOWN_TEXT ? text.n : SHOWN_TEXT;
    while (n > 0 && n < text.n && ((unsigned char)text.data[n] & 0xC0) == 0x80)
        n--;
    json_t *value = json_stringn(text.data, n);
    return value ? value : json_sprintf("(%zu bytes that are no UTF-8)", text.n);
}

static json_t *item_value(const struct sb_gguf_value *v, uint64_t i)
{
    struct sb_text text;
    int64_t whole;
    double number;
    if (sb_gguf_item_text(v, i, &text))
        return text_value(text);
    if (v->item == SB_GGUF_BOOL)
        return json_boolean(v->data[i] != 0);
    if (sb_gguf_item_int(v, i, &whole))
        return json_integer(whole);
    if (sb_gguf_item_number(v, i, &number) && number - number == 0)
        return json_real(number);
    return json_null();
}

static json_t *gguf_value(const struct sb_gguf_value *v)
{
    if (v->type != SB_GGUF_ARRAY)
        return item_value(v, 0);
    json_t *first = json_array();
    for (uint64_t i = 0; i < v->n && i < SHOWN_ITEMS; i++)
        json_array_append_new(first, item_value(v, i));
    return json_pack("{s:s, s:I, s:o}", "array_of", sb_gguf_type_name(v->item), "length",
                     (json_int_t)v->n, "first", first);
}

static json_t *shape_value(const uint64_t *dims, size_t n, bool reversed)
{
    json_t *shape = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(shape, json_integer((json_int_t)dims[reversed ? n - 1 - i : i]));
    return shape;
}

static enum sb_status describe_gguf(json_t *root, const char *path, struct sb_error *err)
{
    struct sb_gguf g;
    enum sb_status rc = sb_gguf_open(&g, path, err);
    if (rc != SB_OK)
        return rc;
    json_t *metadata = json_object(), *tensors = json_array();
    for (size_t i = 0; i < g.n_values; i++)
        json_object_setn_new(metadata, g.value[i].key.data, g.value[i].key.n,
                             gguf_value(&g.value[i]));
    for (size_t i = 0; i < g.n_tensors; i++) {
        const struct sb_gguf_tensor *t = &g.tensor[i];
        json_array_append_new(tensors, json_pack("{s:s%, s:s, s:o, s:I}", "name", t->name.data,
                                                 t->name.n, "type", sb_dtype_name(t->type), "shape",
                                                 shape_value(t->dim, t->n_dims, true), "bytes",
                                                 (json_int_t)t->size_bytes));
    }
    json_object_set_new(root, "format", json_string("gguf"));
    json_object_set_new(root, "gguf_version", json_integer(g.version));
    json_object_set_new(root, "bytes", json_integer((json_int_t)g.size));
    json_object_set_new(root, "metadata", metadata);
    json_object_set_new(root, "tensors", tensors);
    sb_gguf_close(&g);
    return SB_OK;
}

void sb_describe_tensors(json_t *tensors, const struct sb_stored_tensor *tensor, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const struct sb_stored_tensor *t = &tensor[i];
        uint64_t dims[4];
        for (size_t k = 0; k < t->n_dims; k++)
            dims[k] = t->dim[k];
        json_array_append_new(tensors, json_pack("{s:s, s:s, s:o, s:I}", "name", t->name, "type",
                                                 sb_element_name(t->type), "shape",
                                                 shape_value(dims, t->n_dims, false), "bytes",
                                                 (json_int_t)t->size_bytes));
    }
}

static enum sb_status describe_hf(json_t *root, const struct sb_weights *w)
{
    const struct sb_weight_files *files = w->private_files;
    json_t *tensors = json_array();
    for (size_t s = 0; s < files->n_shards; s++)
        sb_describe_tensors(tensors, files->shard[s].tensor, files->shard[s].n);
    json_object_set_new(root, "format", json_string("hf"));
    json_object_set_new(root, "files", json_integer((json_int_t)files->n_shards));
    json_object_set_new(root, "bytes", json_integer((json_int_t)w->file_bytes));
    json_object_set_new(root, "tensors", tensors);
    return SB_OK;
}

/* A bare file of tensors, as heads are published. */
static enum sb_status describe_safetensors(json_t *root, const char *path, struct sb_error *err)
{
    struct sb_st_file f;
    enum sb_status rc = sb_st_open(&f, path, err);
    if (rc != SB_OK)
        return rc;
    json_t *tensors = json_array();
    sb_describe_tensors(tensors, f.tensor, f.n);
    json_object_set_new(root, "format", json_string("safetensors"));
    json_object_set_new(root, "bytes", json_integer((json_int_t)f.map.size));
    json_object_set_new(root, "tensors", tensors);
    sb_st_close(&f);
    return SB_OK;
}

static enum sb_status describe_torch(json_t *root, const char *path, struct sb_error *err)
{
    struct sb_torch_file f;
    enum sb_status rc = sb_torch_open(&f, path, err);
    if (rc != SB_OK)
        return rc;
    json_t *tensors = json_array();
    sb_describe_tensors(tensors, f.tensor, f.n);
    json_object_set_new(root, "format", json_string("torch"));
    json_object_set_new(root, "bytes", json_integer((json_int_t)f.map.size));
    json_object_set_new(root, "other_values", json_integer((json_int_t)f.n_other));
    json_object_set_new(root, "tensors", tensors);
    sb_torch_close(&f);
    return SB_OK;
}

static bool is_safetensors(const char *path)
{
    size_t n = strlen(path);
    return n > 12 && strcmp(path + n - 12, ".safetensors") == 0;
}

static enum sb_status describe_file(json_t *root, const char *path, struct sb_error *err)
{
    if (is_safetensors(path))
        return describe_safetensors(root, path, err);
    return sb_torch_is_file(path) ? describe_torch(root, path, err)
                                  : describe_gguf(root, path, err);
}

/* Memory of the packed weights, and of the KV cache per 1,000 positions (float32). */
static json_t *memory(const struct sb_weights *w)
{
    const struct sb_config *c = &w->config;
    const struct sb_tensor *head = c->tied_embeddings ? &w->embedding : &w->lm_head;
    size_t packed = sb_packed_size(head->type, head->n, head->k);
    for (size_t i = 0; i < c->n_layers; i++) {
        const struct sb_layer_weights *l = &w->layers[i];
        const struct sb_tensor *t[] = { &l->wq,     &l->wk,   &l->wv,    &l->wo,
                                        &l->w_gate, &l->w_up, &l->w_down };
        for (size_t k = 0; k < sizeof t / sizeof *t; k++)
            packed += sb_packed_size(t[k]->type, t[k]->n, t[k]->k);
    }
    size_t kv = 1000 * c->n_layers * c->n_kv_heads * c->head_dim * 2 * sizeof(float);
    return json_pack("{s:I, s:I}", "packed_bytes", (json_int_t)packed,
                     "kv_bytes_per_1000_positions", (json_int_t)kv);
}

static json_t *architecture(const struct sb_weights *w)
{
    const struct sb_config *c = &w->config;
    json_t *eos = json_array();
    for (size_t i = 0; i < c->n_eos; i++)
        json_array_append_new(eos, json_integer(c->eos[i]));
    char hash[17];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)w->content_hash);
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:b, s:s, s:b, s:b, s:i, s:o, s:s}",
        "arch", c->arch, "layers", (json_int_t)c->n_layers, "width", (json_int_t)c->d_model,
        "heads", (json_int_t)c->n_heads, "kv_heads", (json_int_t)c->n_kv_heads, "head_width",
        (json_int_t)c->head_dim, "ff", (json_int_t)c->d_ff, "vocab", (json_int_t)c->n_vocab,
        "context", (json_int_t)c->max_context, "norm_eps", (double)c->norm_eps, "rope_base",
        c->rope_base, "rope_scale_linear", c->rope_scale_linear, "rope_factors",
        w->rope_factors != NULL, "rope_layout",
        c->rope_layout == SB_ROPE_HALF ? "half" : "interleaved", "tied_embeddings",
        c->tied_embeddings, "qkv_bias", c->qkv_bias, "bos", c->bos, "eos", eos, "content_hash",
        hash);
}

enum sb_status sb_model_file_describe(char **json, const char *path, struct sb_error *err)
{
    struct sb_weights *w = NULL;
    json_t *root = json_object();
    enum sb_status rc = root ? SB_OK : sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    json_object_set_new(root, "path", json_string(path));
    bool dir = sb_is_dir(path);
    if (rc == SB_OK && !dir)
        rc = describe_file(root, path, err);
    if (rc == SB_OK) {
        enum sb_status loaded = sb_weights_open(&w, path, err);
        if (loaded == SB_OK) {
            json_object_set_new(root, "architecture", architecture(w));
            json_object_set_new(root, "memory", memory(w));
        } else if (dir)
            rc = loaded;
        else /* a sound file that is no model specbench runs: say what it holds, and why not */
            json_object_set_new(root, "not_runnable", json_string(err ? err->message : ""));
    }
    if (rc == SB_OK && dir)
        rc = describe_hf(root, w);
    char *text = rc == SB_OK ? json_dumps(root, JSON_COMPACT) : NULL;
    if (rc == SB_OK && (!text || !(*json = sb_strdup(text))))
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    free(text);
    sb_weights_close(w);
    json_decref(root);
    return rc;
}

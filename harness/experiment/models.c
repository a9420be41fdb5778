#include "harness/experiment/models.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/bundled.h"
#include "harness/model/mapping.h"

struct entry {
    char *path;
    struct sb_model *model;
    struct sb_tokenizer *tokenizer;
};

struct used_file {
    char *path;
    uint64_t hash; /* XXH64 of its bytes */
};

struct sb_models {
    struct entry *entry;
    size_t n, cap;
    struct used_file *file;
    size_t n_files, cap_files;
    struct sb_arithmetic arithmetic;
};

struct sb_models *sb_models_create(void)
{
    return sb_alloc_zero(1, sizeof(struct sb_models));
}

enum sb_status sb_models_set_arithmetic(struct sb_models *models,
                                        const struct sb_arithmetic *arithmetic,
                                        struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    models->arithmetic = *arithmetic;
    for (size_t i = 0; rc == SB_OK && i < models->n; i++)
        rc = sb_model_set_arithmetic(models->entry[i].model, arithmetic, err);
    return rc;
}

static void finish_entry(struct entry *e)
{
    sb_model_destroy(e->model);
    sb_tokenizer_close(e->tokenizer);
    sb_free(e->path);
}

void sb_models_destroy(struct sb_models *models)
{
    if (!models)
        return;
    for (size_t i = 0; i < models->n; i++)
        finish_entry(&models->entry[i]);
    for (size_t i = 0; i < models->n_files; i++)
        sb_free(models->file[i].path);
    sb_free(models->entry);
    sb_free(models->file);
    sb_free(models);
}

enum sb_status sb_models_uses(void *loader, const char *path, struct sb_error *err)
{
    struct sb_models *models = loader;
    struct sb_mapping map;
    for (size_t i = 0; i < models->n_files; i++)
        if (strcmp(models->file[i].path, path) == 0)
            return SB_OK;
    enum sb_status rc = sb_mapping_open(&map, path, err);
    if (rc != SB_OK)
        return rc;
    struct used_file file = { sb_strdup(path), XXH64(map.bytes, map.size, 0) };
    sb_mapping_close(&map);
    if (!file.path || sb_grow((void **)&models->file, &models->cap_files, models->n_files + 1,
                              sizeof file) != 0) {
        sb_free(file.path);
        return sb_fail(err, SB_ENOMEM, "out of memory for file '%s'", path);
    }
    models->file[models->n_files++] = file;
    return SB_OK;
}

static void put_hash(json_t *object, const char *path, uint64_t hash)
{
    char text[17];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    json_object_set_new(object, path, json_string(text));
}

json_t *sb_models_hashes(const struct sb_models *models)
{
    json_t *object = json_object();
    for (size_t i = 0; i < models->n; i++)
        put_hash(object, models->entry[i].path,
                 sb_model_weights(models->entry[i].model)->content_hash);
    for (size_t i = 0; i < models->n_files; i++)
        put_hash(object, models->file[i].path, models->file[i].hash);
    return object;
}

/* A model without tokenizer is legal (bare ids); a tokenizer that is there must be sound. */
static bool has_tokenizer(const char *path)
{
    if (!sb_is_dir(path))
        return true; /* a GGUF says so itself */
    char *json = sb_strf("%s/tokenizer.json", path);
    bool found = json && sb_is_file(json);
    sb_free(json);
    return found;
}

static enum sb_status load(struct entry *e, const struct sb_arithmetic *arithmetic,
                           struct sb_error *err)
{
    enum sb_status rc = sb_model_load(&e->model, e->path, err);
    if (rc == SB_OK)
        rc = sb_model_set_arithmetic(e->model, arithmetic, err);
    if (rc != SB_OK || !has_tokenizer(e->path))
        return rc;
    struct sb_error why;
    rc = sb_tokenizer_open(&e->tokenizer, e->path, &why);
    if (rc == SB_EINPUT && !sb_is_dir(e->path))
        return SB_OK; /* weights without a vocabulary */
    if (rc != SB_OK && err)
        *err = why;
    return rc;
}

enum sb_status sb_models_get(struct sb_models *models, const char *name, struct sb_model **model,
                             const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    struct entry e = { 0 };
    enum sb_status rc = sb_bundled_resolve(&e.path, "model", name, err);
    if (rc != SB_OK)
        return rc;
    const struct entry *found = NULL;
    for (size_t i = 0; i < models->n && !found; i++)
        if (strcmp(models->entry[i].path, e.path) == 0)
            found = &models->entry[i];
    if (found) {
        finish_entry(&e);
    } else {
        rc = load(&e, &models->arithmetic, err);
        if (rc == SB_OK && sb_grow((void **)&models->entry, &models->cap, models->n + 1, sizeof e))
            rc = sb_fail(err, SB_ENOMEM, "out of memory for model '%s'", name);
        if (rc != SB_OK) {
            finish_entry(&e);
            return rc;
        }
        models->entry[models->n] = e;
        found = &models->entry[models->n++];
    }
    *model = found->model;
    if (tokenizer)
        *tokenizer = found->tokenizer;
    return SB_OK;
}

enum sb_status sb_models_load(void *loader, const char *name, struct sb_model **model,
                              const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    return sb_models_get(loader, name, model, tokenizer, err);
}

static int64_t count_params(const struct sb_model *model)
{
    const struct sb_config *c = sb_model_config(model);
    const struct sb_layer_weights *l = sb_model_weights(model)->layers;
    int64_t n = (int64_t)(c->n_vocab * c->d_model * (c->tied_embeddings ? 1 : 2));
    for (size_t i = 0; i < c->n_layers; i++, l++) {
        const struct sb_tensor *t[] = { &l->wq,     &l->wk,        &l->wv,
                                        &l->wo,     &l->w_gate,    &l->w_up,
                                        &l->w_down, &l->attn_norm, &l->ffn_norm };
        for (size_t k = 0; k < sizeof t / sizeof *t; k++)
            n += (int64_t)(t[k]->n * t[k]->k);
    }
    return n;
}

char *sb_models_shape(const struct sb_model *model)
{
    const struct sb_config *c = sb_model_config(model);
    return sb_strf("{\"layers\":%zu,\"width\":%zu,\"heads\":%zu,\"kv_heads\":%zu,\"ff\":%zu,"
                   "\"vocab\":%zu,\"context\":%zu}",
                   c->n_layers, c->d_model, c->n_heads, c->n_kv_heads, c->d_ff, c->n_vocab,
                   c->max_context);
}

enum sb_status sb_models_store(struct sb_store *store, const char *name,
                               const struct sb_model *model, const struct sb_tokenizer *tokenizer,
                               int64_t *id, struct sb_error *err)
{
    const struct sb_config *c = sb_model_config(model);
    const struct sb_weights *w = sb_model_weights(model);
    char content[17], vocabulary[17] = "";
    snprintf(content, sizeof content, "%016" PRIx64, w->content_hash);
    if (tokenizer)
        snprintf(vocabulary, sizeof vocabulary, "%016" PRIx64, sb_tokenizer_hash(tokenizer));
    char *config = sb_models_shape(model);
    const struct sb_model_row row = {
        .name = name,
        .path = name,
        .arch = c->arch,
        .format = w->format,
        .weight_type = sb_dtype_name(w->layers[0].wq.type),
        .content_hash = content,
        .tokenizer_hash = vocabulary,
        .config_json = config,
        .n_params = count_params(model),
        .size_bytes = (int64_t)w->file_bytes,
    };
    enum sb_status rc = config ? sb_store_model(store, &row, id, err)
                               : sb_fail(err, SB_ENOMEM, "out of memory for the model's row");
    sb_free(config);
    return rc;
}

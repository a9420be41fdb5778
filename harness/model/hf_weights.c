/* A Hugging Face directory as weights: config.json and one or several safetensors files. */
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/loaders.h"

enum { MAX_SHARDS = 1024 };

struct loader {
    struct sb_weights *w;
    struct sb_weight_files *files;
    const char *dir;
    struct sb_error *err;
};

static enum sb_status add_shard(const struct loader *l, const char *name)
{
    char *path = sb_strf("%s/%s", l->dir, name);
    if (!path)
        return sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->dir);
    struct sb_st_file *shard = &l->files->shard[l->files->n_shards];
    enum sb_status rc = sb_st_open(shard, path, l->err);
    if (rc == SB_OK) {
        l->files->n_shards++;
        l->w->file_bytes += shard->map.size;
    }
    sb_free(path);
    return rc;
}

/* The files that an index names, each once. A name must be a plain file beside the index. */
static enum sb_status open_indexed(const struct loader *l, const char *index_path)
{
    json_t *root = NULL;
    const char *key, *seen[MAX_SHARDS];
    json_t *value;
    size_t n = 0;
    enum sb_status rc = sb_json_open(&root, index_path, l->err);
    if (rc != SB_OK)
        return rc;
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        rc = sb_fail(l->err, SB_EFORMAT, "%s: 'weight_map' is missing", index_path);
    json_object_foreach(map, key, value)
    {
        const char *name = json_string_value(value);
        bool known = false;
        if (rc != SB_OK)
            break;
        for (size_t i = 0; i < n && name && !known; i++)
            known = strcmp(seen[i], name) == 0;
        if (!name || !*name || strchr(name, '/') || name[0] == '.')
            rc = sb_fail(l->err, SB_EFORMAT, "%s: the file of '%s' is no plain name", index_path,
                         key);
        else if (!known && n == MAX_SHARDS)
            rc = sb_fail(l->err, SB_EFORMAT, "%s: more than %d files", index_path, MAX_SHARDS);
        else if (!known)
            seen[n++] = name;
    }
    l->files->shard = sb_alloc_zero(n ? n : 1, sizeof *l->files->shard);
    if (rc == SB_OK && !l->files->shard)
        rc = sb_fail(l->err, SB_ENOMEM, "%s: out of memory", index_path);
    for (size_t i = 0; i < n && rc == SB_OK; i++)
        rc = add_shard(l, seen[i]);
    json_decref(root);
    return rc;
}

static enum sb_status open_files(const struct loader *l)
{
    char *single = sb_strf("%s/model.safetensors", l->dir);
    char *index = sb_strf("%s/model.safetensors.index.json", l->dir);
    enum sb_status rc;
    if (!single || !index) {
        rc = sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->dir);
    } else if (sb_is_file(index) && !sb_is_file(single)) {
        rc = open_indexed(l, index);
    } else if (!sb_is_file(single)) {
        rc = sb_fail(l->err, SB_EINPUT, "%s: holds no model.safetensors, nor an index of several",
                     l->dir);
    } else {
        l->files->shard = sb_alloc_zero(1, sizeof *l->files->shard);
        rc = l->files->shard ? add_shard(l, "model.safetensors")
                             : sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->dir);
    }
    sb_free(single);
    sb_free(index);
    return rc;
}

static const struct sb_stored_tensor *find(const struct loader *l, const char *name)
{
    const struct sb_stored_tensor *t = NULL;
    for (size_t i = 0; i < l->files->n_shards && !t; i++)
        t = sb_st_find(&l->files->shard[i], name);
    return t;
}

static enum sb_status get_tensor(const struct loader *l, struct sb_tensor *out, const char *name,
                                 size_t n, size_t k, bool vector)
{
    const struct sb_stored_tensor *t = find(l, name);
    if (t && t->n_dims != (vector ? 1u : 2u))
        return sb_fail(l->err, SB_EFORMAT, "%s: tensor '%s' has %zu dimensions; expected %d",
                       l->dir, name, t->n_dims, vector ? 1 : 2);
    enum sb_dtype type = SB_F32;
    if (t && !sb_element_dtype(&type, t->type))
        return sb_fail(l->err, SB_EUNSUPPORTED,
                       "%s: tensor '%s' is %s; specbench computes with F32, F16 and BF16", l->dir,
                       name, sb_element_name(t->type));
    if (t)
        *out = (struct sb_tensor){ t->data, type, vector ? 1 : t->dim[0],
                                   vector ? t->dim[0] : t->dim[1] };
    return sb_tensor_check(out, n, k, vector, name, l->dir, l->err);
}

static enum sb_status read_layer(const struct loader *l, size_t index)
{
    struct sb_wanted_tensor wanted[SB_LAYER_TENSORS];
    size_t n = sb_wanted_tensors(wanted, l->w, index);
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        char name[96];
        snprintf(name, sizeof name, "model.layers.%zu.%s", index, wanted[i].hf);
        rc = get_tensor(l, wanted[i].out, name, wanted[i].n, wanted[i].k, wanted[i].vector);
    }
    return rc;
}

static enum sb_status read_tensors(const struct loader *l)
{
    struct sb_config *c = &l->w->config;
    enum sb_status rc =
        get_tensor(l, &l->w->embedding, "model.embed_tokens.weight", c->n_vocab, c->d_model, false);
    if (rc == SB_OK && !c->tied_embeddings)
        rc = get_tensor(l, &l->w->lm_head, "lm_head.weight", c->n_vocab, c->d_model, false);
    if (rc == SB_OK)
        rc = get_tensor(l, &l->w->final_norm, "model.norm.weight", 1, c->d_model, true);
    l->w->layers = sb_alloc_zero(c->n_layers, sizeof *l->w->layers);
    if (rc == SB_OK && !l->w->layers)
        rc = sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->dir);
    for (size_t i = 0; i < c->n_layers && rc == SB_OK; i++)
        rc = read_layer(l, i);
    return rc;
}

static void add_eos(struct sb_config *c, const json_t *value)
{
    json_int_t id = json_is_integer(value) ? json_integer_value(value) : -1;
    if (id < 0 || (uint64_t)id >= c->n_vocab || c->n_eos == SB_MAX_EOS)
        return;
    for (size_t i = 0; i < c->n_eos; i++)
        if (c->eos[i] == id)
            return;
    c->eos[c->n_eos++] = (sb_token)id;
}

/* bos_token_id and eos_token_id, a number or a list of them. */
static void read_special(struct sb_config *c, const json_t *root)
{
    const json_t *bos = json_object_get(root, "bos_token_id"),
                 *eos = json_object_get(root, "eos_token_id");
    if (json_is_integer(bos) && json_integer_value(bos) >= 0 &&
        (uint64_t)json_integer_value(bos) < c->n_vocab)
        c->bos = (sb_token)json_integer_value(bos);
    add_eos(c, eos);
    for (size_t i = 0; i < json_array_size(eos); i++)
        add_eos(c, json_array_get(eos, i));
}

/* The template is text, or a list of named ones of which "default" counts. */
static const char *template_text(const json_t *value)
{
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *entry = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && strcmp(name, "default") == 0)
            return json_string_value(json_object_get(entry, "template"));
    }
    return json_string_value(value);
}

/* Files that need not be there; when they are, they must be sound. */
static enum sb_status read_optional(const struct loader *l, const char *name, json_t **out)
{
    char *path = sb_strf("%s/%s", l->dir, name);
    enum sb_status rc = SB_OK;
    *out = NULL;
    if (!path)
        return sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->dir);
    if (sb_is_file(path))
        rc = sb_json_open(out, path, l->err);
    sb_free(path);
    return rc;
}

static enum sb_status read_extras(const struct loader *l)
{
    json_t *generation, *tokenizer = NULL;
    enum sb_status rc = read_optional(l, "generation_config.json", &generation);
    if (rc == SB_OK)
        rc = read_optional(l, "tokenizer_config.json", &tokenizer);
    if (rc == SB_OK)
        read_special(&l->w->config, generation);
    const char *text = template_text(json_object_get(tokenizer, "chat_template"));
    if (rc == SB_OK && text) {
        l->w->chat_template = sb_strdup(text);
        if (!l->w->chat_template)
            rc = sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->dir);
    }
    json_decref(generation);
    json_decref(tokenizer);
    return rc;
}

enum sb_status sb_hf_weights(struct sb_weights **out, const char *dir, struct sb_error *err)
{
    struct sb_weights *w;
    json_t *root = NULL;
    char *path = sb_strf("%s/config.json", dir);
    enum sb_status rc =
        path ? sb_weights_create(&w, "hf", err) : sb_fail(err, SB_ENOMEM, "%s: out of memory", dir);
    if (rc != SB_OK) {
        sb_free(path);
        return rc;
    }
    const struct loader l = { w, w->private_files, dir, err };
    rc = sb_json_open(&root, path, err);
    if (rc == SB_OK)
        rc = sb_hf_read_config(w, root, path, err);
    if (rc == SB_OK)
        rc = open_files(&l);
    if (rc == SB_OK)
        rc = read_tensors(&l);
    if (rc == SB_OK) {
        read_special(&w->config, root);
        rc = read_extras(&l);
    }
    json_decref(root);
    sb_free(path);
    if (rc != SB_OK) {
        sb_weights_close(w);
        return rc;
    }
    sb_weights_hash(w);
    *out = w;
    return SB_OK;
}

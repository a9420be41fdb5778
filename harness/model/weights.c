#include "harness/model/weights.h"

#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/loaders.h"
#include "harness/model/torch_file.h"

enum { MAX_JSON = 256 << 20 };

enum sb_status sb_config_check(const struct sb_config *c, const char *path, struct sb_error *err)
{
    const struct {
        const char *name;
        size_t value, most;
    } sizes[] = {
        { "layers", c->n_layers, SB_MAX_LAYERS },
        { "width", c->d_model, SB_MAX_WIDTH },
        { "heads", c->n_heads, 1024 },
        { "KV heads", c->n_kv_heads, 1024 },
        { "head width", c->head_dim, 256 },
        { "feed-forward width", c->d_ff, 1 << 20 },
        { "vocabulary", c->n_vocab, SB_MAX_VOCAB },
        { "context", c->max_context, SB_MAX_CONTEXT },
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value < 1 || sizes[i].value > sizes[i].most)
            return sb_fail(err, SB_EFORMAT, "%s: %s is %zu; expected 1 to %zu", path, sizes[i].name,
                           sizes[i].value, sizes[i].most);
    if (c->n_heads % c->n_kv_heads)
        return sb_fail(err, SB_EFORMAT, "%s: %zu heads are no multiple of %zu KV heads", path,
                       c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2)
        return sb_fail(err, SB_EFORMAT, "%s: head width %zu is odd", path, c->head_dim);
    if (!(c->norm_eps > 0 && c->norm_eps < 1))
        return sb_fail(err, SB_EFORMAT, "%s: norm epsilon %g is not between 0 and 1", path,
                       (double)c->norm_eps);
    if (!(c->rope_base > 1 && c->rope_base < 1e12) ||
        !(c->rope_scale_linear > 0 && c->rope_scale_linear <= 1e6))
        return sb_fail(err, SB_EFORMAT, "%s: rotary base %g, scale %g", path, c->rope_base,
                       c->rope_scale_linear);
    return SB_OK;
}

enum sb_status sb_tensor_check(const struct sb_tensor *t, size_t n, size_t k, bool vector,
                               const char *name, const char *path, struct sb_error *err)
{
    if (!t->data)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is missing", path, name);
    if (t->n != n || t->k != k)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is %zu x %zu; expected %zu x %zu", path,
                       name, t->n, t->k, n, k);
    if (vector && t->type != SB_F32 && t->type != SB_F16 && t->type != SB_BF16)
        return sb_fail(err, SB_EUNSUPPORTED, "%s: tensor '%s' is %s; vectors are F32, F16 or BF16",
                       path, name, sb_dtype_name(t->type));
    return SB_OK;
}

size_t sb_wanted_tensors(struct sb_wanted_tensor out[SB_LAYER_TENSORS], struct sb_weights *weights,
                         size_t layer)
{
    const struct sb_config *c = &weights->config;
    struct sb_layer_weights *w = &weights->layers[layer];
    enum sb_input input = layer == 0 ? c->input : SB_INPUT_PLAIN;
    size_t d = c->d_model, ff = c->d_ff, q = c->n_heads * c->head_dim,
           kv = c->n_kv_heads * c->head_dim, read = layer == 0 ? sb_config_d_input(c) : d;
    const struct sb_wanted_tensor all[SB_LAYER_TENSORS] = {
        { &w->attn_norm, "attn_norm.weight", "input_layernorm.weight", 1, d, true },
        { &w->pair_norm, NULL, "hidden_norm.weight", 1, d, true },
        { &w->wq, "attn_q.weight", "self_attn.q_proj.weight", q, read, false },
        { &w->wk, "attn_k.weight", "self_attn.k_proj.weight", kv, read, false },
        { &w->wv, "attn_v.weight", "self_attn.v_proj.weight", kv, read, false },
        { &w->wo, "attn_output.weight", "self_attn.o_proj.weight", d, q, false },
        { &w->ffn_norm, "ffn_norm.weight", "post_attention_layernorm.weight", 1, d, true },
        { &w->w_gate, "ffn_gate.weight", "mlp.gate_proj.weight", ff, d, false },
        { &w->w_up, "ffn_up.weight", "mlp.up_proj.weight", ff, d, false },
        { &w->w_down, "ffn_down.weight", "mlp.down_proj.weight", d, ff, false },
        { &w->bq, "attn_q.bias", "self_attn.q_proj.bias", 1, q, true },
        { &w->bk, "attn_k.bias", "self_attn.k_proj.bias", 1, kv, true },
        { &w->bv, "attn_v.bias", "self_attn.v_proj.bias", 1, kv, true },
    };
    size_t n = 0;
    for (size_t i = 0; i < SB_LAYER_TENSORS; i++) {
        const struct sb_tensor *t = all[i].out;
        bool bias = t == &w->bq || t == &w->bk || t == &w->bv;
        if ((bias && !c->qkv_bias) || (t == &w->pair_norm && input < SB_INPUT_PAIR) ||
            (t == &w->attn_norm && input == SB_INPUT_BARE))
            continue;
        out[n++] = all[i];
    }
    return n;
}

enum sb_status sb_weights_create(struct sb_weights **out, const char *format, struct sb_error *err)
{
    struct sb_weights *w = sb_alloc_zero(1, sizeof *w);
    struct sb_weight_files *files = sb_alloc_zero(1, sizeof *files);
    if (!w || !files) {
        sb_free(w);
        sb_free(files);
        return sb_fail(err, SB_ENOMEM, "out of memory");
    }
    snprintf(w->format, sizeof w->format, "%s", format);
    w->private_files = files;
    w->config.rope_scale_linear = 1;
    w->config.bos = -1;
    *out = w;
    return SB_OK;
}

enum sb_status sb_weights_body(struct sb_weights **out, const struct sb_config *config,
                               const char *owner, struct sb_error *err)
{
    struct sb_weights *w;
    enum sb_status rc = sb_config_check(config, owner, err);
    if (rc == SB_OK)
        rc = sb_weights_create(&w, "body", err);
    if (rc != SB_OK)
        return rc;
    w->config = *config;
    w->config.tied_embeddings = false;
    w->layers = sb_alloc_zero(config->n_layers, sizeof *w->layers);
    if (!w->layers) {
        sb_weights_close(w);
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for %zu layers", owner, config->n_layers);
    }
    *out = w;
    return SB_OK;
}

void sb_weights_close(struct sb_weights *w)
{
    if (!w)
        return;
    struct sb_weight_files *files = w->private_files;
    if (files) {
        sb_gguf_close(&files->gguf);
        for (size_t i = 0; i < files->n_shards; i++)
            sb_st_close(&files->shard[i]);
        for (size_t i = 0; i < files->n_made; i++)
            sb_free(files->made[i]);
        sb_free(files->made);
        sb_free(files->shard);
    }
    sb_free(files);
    sb_free(w->layers);
    sb_free(w->rope_factors);
    sb_free(w->chat_template);
    sb_free(w);
}

enum sb_status sb_weights_open(struct sb_weights **out, const char *path, struct sb_error *err)
{
    size_t n = strlen(path);
    if (sb_is_dir(path))
        return sb_hf_weights(out, path, err);
    if (n > 12 && strcmp(path + n - 12, ".safetensors") == 0 && sb_is_file(path))
        return sb_fail(err, SB_EINPUT, "%s: give the directory that holds it with its config.json",
                       path);
    if (sb_torch_is_file(path))
        return sb_fail(err, SB_EINPUT,
                       "%s: is a PyTorch file of tensors; a model is a GGUF file or a directory of "
                       "config.json and safetensors",
                       path);
    return sb_gguf_weights(out, path, err);
}

enum sb_status sb_json_open(json_t **out, const char *path, struct sb_error *err)
{
    struct sb_mapping map;
    json_error_t why;
    enum sb_status rc = sb_mapping_open(&map, path, err);
    if (rc != SB_OK)
        return rc;
    json_t *root = NULL;
    if (map.size > MAX_JSON)
        rc = sb_fail(err, SB_EFORMAT, "%s: %zu bytes; a JSON file has at most %d", path, map.size,
                     MAX_JSON);
    else if (!(root = json_loadb((const char *)map.bytes, map.size, JSON_REJECT_DUPLICATES, &why)))
        rc = sb_fail(err, SB_EFORMAT, "%s:%d: %s", path, why.line, why.text);
    sb_mapping_close(&map);
    if (rc == SB_OK)
        *out = root;
    return rc;
}

/* ---- identity ------------------------------------------------------------------------------------- */

static void hash_tensor(XXH3_state_t *state, const struct sb_tensor *t)
{
    uint64_t head[3] = { t->type, t->n, t->k };
    if (!t->data)
        return;
    XXH3_64bits_update(state, head, sizeof head);
    XXH3_64bits_update(state, t->data, t->n * sb_dtype_row_bytes(t->type, t->k));
}

void sb_weights_hash(struct sb_weights *w)
{
    const struct sb_config *c = &w->config;
    char text[512];
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return; /* 0: no identity; nothing else depends on it */
    XXH3_64bits_reset(state);
    int n = snprintf(text, sizeof text, "%s %zu %zu %zu %zu %zu %zu %zu %zu %.9g %.17g %.17g %d %d",
                     c->arch, c->n_layers, c->d_model, c->n_heads, c->n_kv_heads, c->head_dim,
                     c->d_ff, c->n_vocab, c->max_context, (double)c->norm_eps, c->rope_base,
                     c->rope_scale_linear, c->tied_embeddings, c->rope_layout);
    XXH3_64bits_update(state, text, (size_t)n);
    if (w->rope_factors)
        XXH3_64bits_update(state, w->rope_factors, c->head_dim / 2 * sizeof(float));
    hash_tensor(state, &w->embedding);
    hash_tensor(state, &w->final_norm);
    hash_tensor(state, &w->lm_head);
    for (size_t i = 0; i < c->n_layers; i++) {
        const struct sb_layer_weights *l = &w->layers[i];
        const struct sb_tensor *t[] = { &l->attn_norm, &l->wq,     &l->wk,   &l->wv,
                                        &l->bq,        &l->bk,     &l->bv,   &l->wo,
                                        &l->ffn_norm,  &l->w_gate, &l->w_up, &l->w_down,
                                        &l->pair_norm };
        for (size_t k = 0; k < sizeof t / sizeof *t; k++)
            hash_tensor(state, t[k]);
    }
    w->content_hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
}

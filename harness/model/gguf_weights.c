/* A GGUF file as weights: llama and qwen2. */
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/loaders.h"

struct loader {
    const struct sb_gguf *g;
    struct sb_weights *w;
    const char *path;
    struct sb_error *err;
};

static enum sb_status get_size(const struct loader *l, const char *suffix, size_t *out,
                               bool required)
{
    char key[96];
    int64_t value;
    snprintf(key, sizeof key, "%s.%s", l->w->config.arch, suffix);
    if (!sb_gguf_find(l->g, key))
        return required ? sb_fail(l->err, SB_EFORMAT, "%s: the key '%s' is missing", l->path, key)
                        : SB_OK;
    if (!sb_gguf_int(l->g, key, &value) || value < 0 || value > UINT32_MAX)
        return sb_fail(l->err, SB_EFORMAT, "%s: '%s' is no whole number of a sensible size",
                       l->path, key);
    *out = (size_t)value;
    return SB_OK;
}

static enum sb_status get_number(const struct loader *l, const char *suffix, double *out)
{
    char key[96];
    snprintf(key, sizeof key, "%s.%s", l->w->config.arch, suffix);
    if (sb_gguf_find(l->g, key) && !sb_gguf_number(l->g, key, out))
        return sb_fail(l->err, SB_EFORMAT, "%s: '%s' is no number", l->path, key);
    return SB_OK;
}

static enum sb_status read_arch(const struct loader *l)
{
    struct sb_text arch;
    struct sb_config *c = &l->w->config;
    if (!sb_gguf_text(l->g, "general.architecture", &arch))
        return sb_fail(l->err, SB_EFORMAT, "%s: the key 'general.architecture' is missing",
                       l->path);
    snprintf(c->arch, sizeof c->arch, "%.*s", (int)(arch.n < 15 ? arch.n : 15), arch.data);
    if (strcmp(c->arch, "llama") != 0 && strcmp(c->arch, "qwen2") != 0)
        return sb_fail(l->err, SB_EUNSUPPORTED,
                       "%s: architecture '%s'; specbench runs llama and qwen2", l->path, c->arch);
    c->qkv_bias = strcmp(c->arch, "qwen2") == 0;
    c->rope_layout = c->qkv_bias ? SB_ROPE_HALF : SB_ROPE_INTERLEAVED;
    return SB_OK;
}

static enum sb_status read_scaling(const struct loader *l)
{
    char key[96];
    struct sb_text type = { "none", 4 };
    double factor = 1;
    snprintf(key, sizeof key, "%s.rope.scaling.type", l->w->config.arch);
    sb_gguf_text(l->g, key, &type);
    if (type.n == 4 && memcmp(type.data, "none", 4) == 0)
        return SB_OK;
    if (type.n != 6 || memcmp(type.data, "linear", 6) != 0)
        return sb_fail(l->err, SB_EUNSUPPORTED,
                       "%s: %s is '%.*s'; specbench knows none, linear and "
                       "rope_freqs",
                       l->path, key, (int)(type.n < 40 ? type.n : 40), type.data);
    enum sb_status rc = get_number(l, "rope.scaling.factor", &factor);
    if (rc == SB_OK && !(factor >= 1e-3 && factor <= 1e6))
        return sb_fail(l->err, SB_EFORMAT, "%s: rope.scaling.factor is %g", l->path, factor);
    l->w->config.rope_scale_linear = 1 / factor;
    return rc;
}

/* Tokens that end a generation; ids are checked against the vocabulary. */
static void read_special(const struct loader *l)
{
    static const char *const keys[] = { "tokenizer.ggml.eos_token_id",
                                        "tokenizer.ggml.eot_token_id",
                                        "tokenizer.ggml.eom_token_id" };
    struct sb_config *c = &l->w->config;
    int64_t id;
    if (sb_gguf_int(l->g, "tokenizer.ggml.bos_token_id", &id) && id >= 0 &&
        (uint64_t)id < c->n_vocab)
        c->bos = (sb_token)id;
    for (size_t i = 0; i < 3; i++) {
        bool seen = false;
        if (!sb_gguf_int(l->g, keys[i], &id) || id < 0 || (uint64_t)id >= c->n_vocab)
            continue;
        for (size_t k = 0; k < c->n_eos; k++)
            seen = seen || c->eos[k] == id;
        if (!seen)
            c->eos[c->n_eos++] = (sb_token)id;
    }
}

static enum sb_status read_config(const struct loader *l)
{
    struct sb_config *c = &l->w->config;
    double eps = 0;
    size_t rotated = 0;
    c->rope_base = 10000;
    enum sb_status rc = read_arch(l);
    if (rc == SB_OK)
        rc = get_size(l, "block_count", &c->n_layers, true);
    if (rc == SB_OK)
        rc = get_size(l, "embedding_length", &c->d_model, true);
    if (rc == SB_OK)
        rc = get_size(l, "feed_forward_length", &c->d_ff, true);
    if (rc == SB_OK)
        rc = get_size(l, "attention.head_count", &c->n_heads, true);
    if (rc == SB_OK)
        rc = get_size(l, "context_length", &c->max_context, true);
    c->n_kv_heads = c->n_heads;
    if (rc == SB_OK)
        rc = get_size(l, "attention.head_count_kv", &c->n_kv_heads, false);
    c->head_dim = c->n_heads ? c->d_model / c->n_heads : 0;
    if (rc == SB_OK)
        rc = get_size(l, "attention.key_length", &c->head_dim, false);
    rotated = c->head_dim;
    if (rc == SB_OK)
        rc = get_size(l, "rope.dimension_count", &rotated, false);
    if (rc == SB_OK)
        rc = get_number(l, "attention.layer_norm_rms_epsilon", &eps);
    if (rc == SB_OK)
        rc = get_number(l, "rope.freq_base", &c->rope_base);
    if (rc == SB_OK)
        rc = read_scaling(l);
    c->norm_eps = (float)eps;
    const struct sb_gguf_tensor *embedding = sb_gguf_tensor(l->g, "token_embd.weight");
    if (rc == SB_OK && !embedding)
        return sb_fail(l->err, SB_EINPUT,
                       l->g->n_tensors ? "%s: tensor 'token_embd.weight' is missing"
                                       : "%s: holds a vocabulary and no weights",
                       l->path);
    if (rc == SB_OK)
        c->n_vocab = (size_t)embedding->dim[1];
    if (rc == SB_OK)
        rc = sb_config_check(c, l->path, l->err);
    if (rc == SB_OK && rotated != c->head_dim)
        return sb_fail(l->err, SB_EUNSUPPORTED,
                       "%s: rotates %zu of %zu dimensions of a head; "
                       "specbench rotates all",
                       l->path, rotated, c->head_dim);
    return rc;
}

static enum sb_status get_tensor(const struct loader *l, struct sb_tensor *out, const char *name,
                                 size_t n, size_t k, bool vector)
{
    const struct sb_gguf_tensor *t = sb_gguf_tensor(l->g, name);
    if (t && t->n_dims <= 2)
        *out = (struct sb_tensor){ t->data, t->type, (size_t)t->dim[1], (size_t)t->dim[0] };
    else if (t)
        return sb_fail(l->err, SB_EFORMAT, "%s: tensor '%s' has %zu dimensions", l->path, name,
                       t->n_dims);
    return sb_tensor_check(out, n, k, vector, name, l->path, l->err);
}

static enum sb_status read_layer(const struct loader *l, size_t index)
{
    struct sb_wanted_tensor wanted[SB_LAYER_TENSORS];
    size_t n = sb_wanted_tensors(wanted, l->w, index);
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        char name[96];
        snprintf(name, sizeof name, "blk.%zu.%s", index, wanted[i].gguf);
        rc = get_tensor(l, wanted[i].out, name, wanted[i].n, wanted[i].k, wanted[i].vector);
    }
    return rc;
}

static enum sb_status read_rope_factors(const struct loader *l)
{
    size_t n = l->w->config.head_dim / 2;
    struct sb_tensor t = { 0 };
    if (!sb_gguf_tensor(l->g, "rope_freqs.weight"))
        return SB_OK;
    enum sb_status rc = get_tensor(l, &t, "rope_freqs.weight", 1, n, true);
    if (rc != SB_OK)
        return rc;
    l->w->rope_factors = sb_alloc_array(n, sizeof(float));
    if (!l->w->rope_factors)
        return sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->path);
    sb_dequantize_row(l->w->rope_factors, t.type, t.data, n);
    for (size_t i = 0; i < n; i++)
        if (!(l->w->rope_factors[i] > 0))
            return sb_fail(l->err, SB_EFORMAT, "%s: rope_freqs.weight[%zu] is %g", l->path, i,
                           (double)l->w->rope_factors[i]);
    return SB_OK;
}

static enum sb_status read_tensors(const struct loader *l)
{
    struct sb_config *c = &l->w->config;
    enum sb_status rc =
        get_tensor(l, &l->w->embedding, "token_embd.weight", c->n_vocab, c->d_model, false);
    c->tied_embeddings = !sb_gguf_tensor(l->g, "output.weight");
    if (rc == SB_OK && !c->tied_embeddings)
        rc = get_tensor(l, &l->w->lm_head, "output.weight", c->n_vocab, c->d_model, false);
    if (rc == SB_OK)
        rc = get_tensor(l, &l->w->final_norm, "output_norm.weight", 1, c->d_model, true);
    l->w->layers = sb_alloc_zero(c->n_layers, sizeof *l->w->layers);
    if (rc == SB_OK && !l->w->layers)
        rc = sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->path);
    for (size_t i = 0; i < c->n_layers && rc == SB_OK; i++)
        rc = read_layer(l, i);
    return rc == SB_OK ? read_rope_factors(l) : rc;
}

enum sb_status sb_gguf_weights(struct sb_weights **out, const char *path, struct sb_error *err)
{
    struct sb_weights *w;
    struct sb_text chat;
    enum sb_status rc = sb_weights_create(&w, "gguf", err);
    if (rc != SB_OK)
        return rc;
    struct sb_gguf *g = &((struct sb_weight_files *)w->private_files)->gguf;
    const struct loader l = { g, w, path, err };
    rc = sb_gguf_open(g, path, err);
    if (rc == SB_OK)
        rc = read_config(&l);
    if (rc == SB_OK)
        rc = read_tensors(&l);
    if (rc == SB_OK && sb_gguf_text(g, "tokenizer.chat_template", &chat)) {
        w->chat_template = sb_strndup(chat.data, chat.n);
        if (!w->chat_template)
            rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    }
    if (rc != SB_OK) {
        sb_weights_close(w);
        return rc;
    }
    read_special(&l);
    w->file_bytes = g->size;
    sb_weights_hash(w);
    *out = w;
    return SB_OK;
}

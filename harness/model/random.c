#include "harness/model/random.h"

#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/model/loaders.h"

static const struct {
    const char *name;
    size_t layers, width, heads, kv_heads, ff, vocab;
    bool tied;
} shapes[] = {
    { "15m", 6, 288, 6, 6, 768, 32000, true },
    { "110m", 12, 768, 12, 12, 2048, 32000, true },
    { "1b", 22, 2048, 32, 4, 5632, 32000, false },
};

static enum sb_status parse_shape(struct sb_config *c, const char *shape, struct sb_error *err)
{
    char end;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (strcmp(shape, shapes[i].name) != 0)
            continue;
        c->n_layers = shapes[i].layers;
        c->d_model = shapes[i].width;
        c->n_heads = shapes[i].heads;
        c->n_kv_heads = shapes[i].kv_heads;
        c->d_ff = shapes[i].ff;
        c->n_vocab = shapes[i].vocab;
        c->tied_embeddings = shapes[i].tied;
        return SB_OK;
    }
    if (sscanf(shape, "%7zux%7zux%7zux%7zux%7zux%7zu%c", &c->n_layers, &c->d_model, &c->n_heads,
               &c->n_kv_heads, &c->d_ff, &c->n_vocab, &end) != 6)
        return sb_fail(err, SB_EUSAGE, "shape '%s': expected 15m, 110m, 1b or LxDxHxKVxFFxV",
                       shape);
    if (c->n_heads == 0 || c->n_kv_heads == 0 || c->d_model % c->n_heads)
        return sb_fail(err, SB_EUSAGE, "shape '%s': the width %zu is no multiple of %zu heads",
                       shape, c->d_model, c->n_heads);
    return SB_OK;
}

/* Small numbers of either sign, whatever the type; every byte differs from its neighbours. */
static void fill(unsigned char *bytes, enum sb_dtype type, size_t n_bytes, uint64_t key)
{
    static const size_t block_bytes[] = { [SB_Q8_0] = 34, [SB_Q4_0] = 18 };
    const uint16_t scale = sb_f32_to_f16(type == SB_Q8_0 ? 0.0003f : 0.004f);
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n_bytes / 2; i++) {
        uint64_t bits = sb_rng_mix(key, i);
        uint16_t value = (uint16_t)bits; /* quantised integers: as they come */
        if (type == SB_BF16 || (type == SB_F32 && i % 2))
            value = (uint16_t)((bits & 0x807f) | 0x3c80); /* sign, mantissa; 2^-6 to 2^-5 */
        else if (type == SB_F16)
            value = (uint16_t)((bits & 0x83ff) | 0x2400);
        memcpy(bytes + 2 * i, &value, 2);
    }
    if (type == SB_Q8_0 || type == SB_Q4_0)
        for (size_t i = 0; i < n_bytes; i += block_bytes[type])
            memcpy(bytes + i, &scale, 2);
}

static enum sb_status make_tensor(struct sb_weights *w, struct sb_tensor *out, enum sb_dtype type,
                                  size_t n, size_t k, bool vector, struct sb_error *err)
{
    struct sb_weight_files *files = w->private_files;
    enum sb_dtype own = vector ? SB_F32 : type;
    size_t row = sb_dtype_row_bytes(own, k), bytes;
    if (row == 0)
        return sb_fail(err, SB_EUSAGE, "rows of %zu values; %s needs a multiple of %d", k,
                       sb_dtype_name(own), SB_QUANT_BLOCK);
    if (__builtin_mul_overflow(n, row, &bytes) ||
        sb_grow((void **)&files->made, &files->cap_made, files->n_made + 1, sizeof *files->made) !=
            0)
        return sb_fail(err, SB_ENOMEM, "out of memory for random weights");
    unsigned char *data = sb_alloc_aligned(bytes, 1);
    if (!data)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu MB of random weights", bytes >> 20);
    files->made[files->n_made++] = data;
    for (size_t i = 0; vector && i < k; i++)
        ((float *)(void *)data)[i] = 1;
    if (!vector)
        fill(data, own, bytes, files->n_made);
    *out = (struct sb_tensor){ data, own, n, k };
    w->file_bytes += bytes;
    return SB_OK;
}

static enum sb_status make_all(struct sb_weights *w, enum sb_dtype type, struct sb_error *err)
{
    const struct sb_config *c = &w->config;
    enum sb_status rc = make_tensor(w, &w->embedding, type, c->n_vocab, c->d_model, false, err);
    if (rc == SB_OK && !c->tied_embeddings)
        rc = make_tensor(w, &w->lm_head, type, c->n_vocab, c->d_model, false, err);
    if (rc == SB_OK)
        rc = make_tensor(w, &w->final_norm, type, 1, c->d_model, true, err);
    w->layers = sb_alloc_zero(c->n_layers, sizeof *w->layers);
    if (rc == SB_OK && !w->layers)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu layers", c->n_layers);
    for (size_t i = 0; i < c->n_layers && rc == SB_OK; i++) {
        struct sb_wanted_tensor wanted[SB_LAYER_TENSORS];
        size_t n = sb_wanted_tensors(wanted, w, i);
        for (size_t k = 0; k < n && rc == SB_OK; k++)
            rc = make_tensor(w, wanted[k].out, type, wanted[k].n, wanted[k].k, wanted[k].vector,
                             err);
    }
    return rc;
}

enum sb_status sb_weights_random(struct sb_weights **out, const char *shape, enum sb_dtype type,
                                 size_t max_context, struct sb_error *err)
{
    struct sb_weights *w;
    enum sb_status rc = sb_weights_create(&w, "random", err);
    if (rc != SB_OK)
        return rc;
    struct sb_config *c = &w->config;
    snprintf(c->arch, sizeof c->arch, "llama");
    rc = parse_shape(c, shape, err);
    c->head_dim = c->n_heads ? c->d_model / c->n_heads : 0;
    c->max_context = max_context;
    c->norm_eps = 1e-5f;
    c->rope_base = 10000;
    c->rope_layout = SB_ROPE_HALF;
    if (rc == SB_OK)
        rc = sb_config_check(c, shape, err);
    if (rc == SB_OK)
        rc = make_all(w, type, err);
    if (rc == SB_OK)
        *out = w;
    else
        sb_weights_close(w);
    return rc;
}

#include "harness/certify/toy.h"

#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"

enum { D = 16, N_LAYERS = 2, N_HEADS = 2, HEAD_DIM = 8, D_FF = 24, MOST_FLOATS = 1 << 16 };

struct maker {
    struct sb_rng rng, noise_rng;
    double noise;
    float *next;
};

/* A matrix [n, k] of the given scale; scale 0: a norm's vector of ones. */
static struct sb_tensor tensor(struct maker *m, size_t n, size_t k, double scale)
{
    struct sb_tensor t = { .data = m->next, .type = SB_F32, .n = n, .k = k };
    for (size_t i = 0; i < n * k; i++) {
        double x = sb_rng_normal(&m->rng) + m->noise * sb_rng_normal(&m->noise_rng);
        *m->next++ = scale > 0 ? (float)(scale * x) : 1.0f;
    }
    return t;
}

static void make_layer(struct maker *m, struct sb_layer_weights *layer)
{
    layer->attn_norm = tensor(m, 1, D, 0);
    layer->wq = tensor(m, N_HEADS * HEAD_DIM, D, .5);
    layer->wk = tensor(m, HEAD_DIM, D, .5);
    layer->wv = tensor(m, HEAD_DIM, D, .5);
    layer->wo = tensor(m, D, N_HEADS * HEAD_DIM, .5);
    layer->ffn_norm = tensor(m, 1, D, 0);
    layer->w_gate = tensor(m, D_FF, D, .4);
    layer->w_up = tensor(m, D_FF, D, .4);
    layer->w_down = tensor(m, D, D_FF, .4);
}

static enum sb_status fail(struct sb_toy *toy, struct sb_weights *w, struct sb_error *err)
{
    if (w)
        sb_free(w->layers);
    sb_free(w);
    sb_free(toy->data);
    return sb_fail(err, SB_ENOMEM, "out of memory for a toy model");
}

enum sb_status sb_toy_create(struct sb_toy *out, uint64_t seed, double noise, size_t n_vocab,
                             size_t max_context, sb_token eos, struct sb_error *err)
{
    if (n_vocab > 1000)
        return sb_fail(err, SB_EUSAGE, "a toy model of %zu tokens: expected at most 1000", n_vocab);
    struct sb_toy toy = { .data = sb_alloc_array(MOST_FLOATS, sizeof *toy.data) };
    struct sb_weights *w = sb_alloc_zero(1, sizeof *w);
    if (w)
        w->layers = sb_alloc_zero(N_LAYERS, sizeof *w->layers);
    if (!toy.data || !w || !w->layers)
        return fail(&toy, w, err);
    w->config = (struct sb_config){
        .arch = "llama",
        .n_layers = N_LAYERS,
        .d_model = D,
        .n_heads = N_HEADS,
        .n_kv_heads = 1,
        .head_dim = HEAD_DIM,
        .d_ff = D_FF,
        .n_vocab = n_vocab,
        .max_context = max_context,
        .norm_eps = 1e-5f,
        .rope_base = 10000,
        .rope_scale_linear = 1,
        .rope_layout = SB_ROPE_INTERLEAVED,
        .bos = -1,
        .n_eos = eos >= 0,
    };
    w->config.eos[0] = eos;
    struct maker m = { .rng = sb_rng_make(seed, SB_STREAM_INIT),
                       .noise_rng = sb_rng_make(seed, SB_STREAM_DATA),
                       .noise = noise,
                       .next = toy.data };
    w->final_norm = tensor(&m, 1, D, 0);
    for (size_t i = 0; i < N_LAYERS; i++)
        make_layer(&m, &w->layers[i]);
    /* Last, so that models of one seed and different vocabularies share the rest. */
    m.rng = sb_rng_make(seed + 1, SB_STREAM_INIT);
    w->embedding = tensor(&m, n_vocab, D, 1);
    m.rng = sb_rng_make(seed + 2, SB_STREAM_INIT);
    w->lm_head = tensor(&m, n_vocab, D, .5);
    if (sb_model_from_weights(&toy.model, w, err) != SB_OK)
        return fail(&toy, w, err);
    *out = toy;
    return SB_OK;
}

void sb_toy_destroy(struct sb_toy *toy)
{
    sb_model_destroy(toy->model);
    sb_free(toy->data);
    *toy = (struct sb_toy){ 0 };
}

#include "tests/property/toy_model.h"

#include <stdlib.h>
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

struct toy_model toy_model_create(uint64_t seed, double noise, size_t n_vocab, size_t max_context,
                                  sb_token eos)
{
    struct toy_model toy = { .data = sb_alloc_array(MOST_FLOATS, sizeof *toy.data) };
    struct sb_weights *w = sb_alloc_zero(1, sizeof *w);
    if (w)
        w->layers = sb_alloc_zero(N_LAYERS, sizeof *w->layers);
    if (!toy.data || !w || !w->layers || n_vocab > 1000)
        abort();
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
    if (sb_model_from_weights(&toy.model, w, NULL) != SB_OK)
        abort();
    return toy;
}

void toy_model_destroy(struct toy_model *toy)
{
    sb_model_destroy(toy->model);
    sb_free(toy->data);
    *toy = (struct toy_model){ 0 };
}

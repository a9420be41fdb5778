#include "tests/property/cycle_model.h"

#include <stdlib.h>

#include "harness/core/alloc.h"

enum { V = CYCLE_VOCAB, HEADS = 2, HEAD_DIM = V / HEADS, FF = 8, FLOATS = 16 * V * V };

static struct sb_tensor tensor(float **next, size_t n, size_t k, float value)
{
    struct sb_tensor t = { .data = *next, .type = SB_F32, .n = n, .k = k };
    for (size_t i = 0; i < n * k; i++)
        *(*next)++ = value;
    return t;
}

struct cycle_model cycle_model_create(void)
{
    struct cycle_model cycle = { .data = sb_alloc_array(FLOATS, sizeof *cycle.data) };
    struct sb_weights *w = sb_alloc_zero(1, sizeof *w);
    float *next = cycle.data;
    if (!next || !w || !(w->layers = sb_alloc_zero(1, sizeof *w->layers)))
        abort();
    w->config = (struct sb_config){ .arch = "llama",
                                    .n_layers = 1,
                                    .d_model = V,
                                    .n_heads = HEADS,
                                    .n_kv_heads = HEADS,
                                    .head_dim = HEAD_DIM,
                                    .d_ff = FF,
                                    .n_vocab = V,
                                    .max_context = CYCLE_CONTEXT,
                                    .norm_eps = 1e-9f,
                                    .rope_base = 10000,
                                    .rope_scale_linear = 1,
                                    .rope_layout = SB_ROPE_HALF,
                                    .bos = -1 };
    struct sb_layer_weights *l = w->layers; /* adds nothing to the stream */
    l->attn_norm = tensor(&next, 1, V, 1);
    l->wq = tensor(&next, V, V, 0);
    l->wk = tensor(&next, V, V, 0);
    l->wv = tensor(&next, V, V, 0);
    l->wo = tensor(&next, V, V, 0);
    l->ffn_norm = tensor(&next, 1, V, 1);
    l->w_gate = tensor(&next, FF, V, 0);
    l->w_up = tensor(&next, FF, V, 0);
    l->w_down = tensor(&next, V, FF, 0);
    w->final_norm = tensor(&next, 1, V, 1);
    float *embedding = next;
    w->embedding = tensor(&next, V, V, 0);
    float *head = next;
    w->lm_head = tensor(&next, V, V, 0);
    for (size_t t = 0; t < V; t++) {
        embedding[t * V + (t + 1) % V] = 1;
        head[t * V + t] = 1;
    }
    if (next > cycle.data + FLOATS || sb_model_from_weights(&cycle.model, w, NULL) != SB_OK)
        abort();
    return cycle;
}

void cycle_model_destroy(struct cycle_model *cycle)
{
    sb_model_destroy(cycle->model);
    sb_free(cycle->data);
    *cycle = (struct cycle_model){ 0 };
}

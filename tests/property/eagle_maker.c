#include "tests/property/eagle_maker.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tests/property/head_maker.h"

enum { MOST = 48, NAME = 64, FF = 20, HEADS = 2 };

struct list {
    struct made_tensor tensor[MOST];
    char name[MOST][NAME];
    size_t n;
};

static struct made_tensor *__attribute__((format(printf, 5, 6)))
put(struct list *l, size_t n, size_t k, double scale, const char *fmt, ...)
{
    va_list args;
    if (l->n == MOST)
        abort();
    va_start(args, fmt);
    vsnprintf(l->name[l->n], NAME, fmt, args);
    va_end(args);
    l->tensor[l->n] = (struct made_tensor){ .name = l->name[l->n], .n = n, .k = k, .scale = scale };
    return &l->tensor[l->n++];
}

/* A layer of width d whose projections read `input` floats; heads of d / HEADS, kv_heads of them shared. */
static void put_layer(struct list *l, const char *stem, size_t d, size_t input, size_t kv_heads,
                      bool bias)
{
    static const char *const names[] = { "q", "k", "v" };
    for (size_t i = 0; i < 3; i++) {
        size_t n = i == 0 ? d : kv_heads * (d / HEADS);
        put(l, n, input, .4, "%sself_attn.%s_proj.weight", stem, names[i]);
        if (bias)
            put(l, 0, n, .4, "%sself_attn.%s_proj.bias", stem, names[i]);
    }
    put(l, d, d, .4, "%sself_attn.o_proj.weight", stem);
    put(l, FF, d, .4, "%smlp.gate_proj.weight", stem);
    put(l, FF, d, .4, "%smlp.up_proj.weight", stem);
    put(l, d, FF, .4, "%smlp.down_proj.weight", stem);
    put(l, 0, d, 1, "%spost_attention_layernorm.weight", stem);
}

static void finish(const char *name, uint64_t seed, const struct list *l, size_t d, size_t layers,
                   size_t kv_heads, const char *more)
{
    char path[96], text[512];
    mkdir(name, 0777);
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    make_head(path, seed, l->tensor, l->n, NULL);
    snprintf(path, sizeof path, "%s/config.json", name);
    snprintf(
        text, sizeof text,
        "{\"architectures\": [\"Llama\"], \"hidden_size\": %zu, \"num_hidden_layers\": %zu, "
        "\"num_attention_heads\": %d, \"num_key_value_heads\": %zu, \"intermediate_size\": %d, "
        "\"rms_norm_eps\": 1e-5, \"hidden_act\": \"silu\"%s}",
        d, layers, HEADS, kv_heads, FF, more);
    make_text(path, text);
}

void make_eagle_heads(size_t d, size_t n_vocab)
{
    static struct list one, two, three, vllm;
    int64_t offset[1000];
    one.n = two.n = three.n = vllm.n = 0;
    put(&one, n_vocab, d, 1, "embed_tokens.weight");
    put(&one, d, 2 * d, .3, "fc.weight");
    put(&one, 0, d, .3, "fc.bias");
    put_layer(&one, "layers.0.", d, d, HEADS, false);
    finish("eagle", 11, &one, d, 1, HEADS, "");

    put(&two, d, 2 * d, .3, "fc.weight");
    put_layer(&two, "layers.0.", d, d, 1, true);
    put_layer(&two, "layers.1.", d, d, 1, true);
    put(&two, 0, d, 1, "layers.1.input_layernorm.weight");
    finish("eagle-two", 12, &two, d, 2, 1, ", \"rope_theta\": 700");

    size_t n_draft = n_vocab - 5;
    for (size_t i = 0; i < n_draft; i++)
        offset[i] = (int64_t)(i < 3 ? 0 : 4); /* ids 3 to 6 and the last are never drafted */
    put(&three, d, 3 * d, .3, "fc.weight");
    put_layer(&three, "midlayer.", d, 2 * d, 1, false);
    put(&three, 0, d, .8, "midlayer.input_layernorm.weight");
    put(&three, 0, d, .8, "midlayer.hidden_norm.weight");
    put(&three, 0, d, .8, "norm.weight");
    put(&three, n_draft, d, .5, "lm_head.weight");
    put(&three, 0, n_draft, 1, "d2t")->ids = offset;
    finish("eagle3", 13, &three, d, 1, 1,
           ", \"eagle_config\": {\"eagle_aux_hidden_state_layer_ids\": [0, 1, 1]}");

    put(&vllm, d, 2 * d, .3, "fc.weight");
    put_layer(&vllm, "layers.0.", d, 2 * d, HEADS, false);
    put(&vllm, 0, d, .8, "layers.0.input_layernorm.weight");
    put(&vllm, 0, d, .8, "layers.0.hidden_norm.weight");
    put(&vllm, 0, d, .8, "norm.weight");
    finish("eagle3-vllm", 14, &vllm, d, 1, HEADS,
           ", \"norm_before_residual\": true, \"eagle_aux_hidden_state_layer_ids\": [2, 0]");
}

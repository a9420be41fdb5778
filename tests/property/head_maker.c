#define _GNU_SOURCE
#include "tests/property/head_maker.h"

#include <ftw.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "harness/core/rng.h"

static size_t count(const struct made_tensor *t)
{
    return (t->n ? t->n : 1) * t->k;
}

static char *header(const struct made_tensor *tensor, size_t n, const char *target_hash)
{
    json_t *root = json_object();
    size_t at = 0;
    if (target_hash)
        json_object_set_new(root, "__metadata__",
                            json_pack("{s:s}", "specbench.target_hash", target_hash));
    for (size_t i = 0; i < n; i++) {
        const struct made_tensor *t = &tensor[i];
        size_t bytes = count(t) * (t->ids ? 8 : 4);
        json_t *shape = t->n ? json_pack("[I,I]", (json_int_t)t->n, (json_int_t)t->k)
                             : json_pack("[I]", (json_int_t)t->k);
        json_object_set_new(root, t->name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->ids ? "I64" : "F32",
                                      "shape", shape, "data_offsets", (json_int_t)at,
                                      (json_int_t)(at + bytes)));
        at += bytes;
    }
    char *text = json_dumps(root, JSON_COMPACT), *padded = NULL;
    json_decref(root);
    int length = (int)strlen(text);
    if (asprintf(&padded, "%s%*s", text, (8 - length % 8) % 8, "") < 0)
        abort();
    free(text);
    return padded;
}

void make_head(const char *path, uint64_t seed, const struct made_tensor *tensor, size_t n,
               const char *target_hash)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_INIT);
    char *head = header(tensor, n, target_hash);
    uint64_t length = strlen(head);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(&length, 8, 1, f) != 1 || fwrite(head, length, 1, f) != 1)
        abort();
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < count(&tensor[i]); j++) {
            const struct made_tensor *t = &tensor[i];
            float x = t->data    ? t->data[j]
                      : t->scale ? (float)(t->scale * sb_rng_normal(&rng))
                                 : 1.0f;
            const void *value = t->ids ? (const void *)&t->ids[j] : &x;
            if (fwrite(value, t->ids ? 8 : 4, 1, f) != 1)
                abort();
        }
    if (fclose(f) != 0)
        abort();
    free(head);
}

void make_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    if (!f || fputs(text, f) < 0 || fclose(f) != 0)
        abort();
}

/* ---- a folder ---- */

static char *folder, *before;

void enter_folder(void)
{
    const char *tmp = getenv("TMPDIR");
    before = getcwd(NULL, 0);
    if (!before || asprintf(&folder, "%s/sb-heads-XXXXXX", tmp && *tmp ? tmp : "/tmp") < 0 ||
        !mkdtemp(folder) || chdir(folder) != 0)
        abort();
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info, (void)type, (void)where;
    return remove(path);
}

void leave_folder(void)
{
    if (chdir(before) != 0 || nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS) != 0)
        abort();
    free(folder);
    free(before);
}

/* ---- layouts ---- */

enum { MOST = 64, NAME = 64 };

/* Tensors under way; names are kept here. */
struct list {
    struct made_tensor tensor[MOST];
    char name[MOST][NAME];
    size_t n;
};

static void __attribute__((format(printf, 5, 6)))
put(struct list *l, size_t n, size_t k, double scale, const char *fmt, ...)
{
    va_list args;
    if (l->n == MOST)
        abort();
    va_start(args, fmt);
    vsnprintf(l->name[l->n], NAME, fmt, args);
    va_end(args);
    l->tensor[l->n] = (struct made_tensor){ .name = l->name[l->n], .n = n, .k = k, .scale = scale };
    l->n++;
}

void make_medusa_heads(size_t d, size_t n_vocab)
{
    struct list own = { .n = 0 }, shared = { .n = 0 }, vllm = { .n = 0 };
    int64_t ids[1000];
    for (size_t i = 0; i < 4; i++) {
        for (size_t j = 0; j < 2 && i < 3; j++) {
            put(&own, d, d, .3, "%zu.%zu.linear.weight", i, j);
            put(&own, 0, d, .3, "%zu.%zu.linear.bias", i, j);
        }
        if (i < 3)
            put(&own, n_vocab, d, .5, "%zu.2.weight", i);
        put(&shared, d, d, .3, "%zu.0.linear.weight", i);
        put(&shared, 0, d, .3, "%zu.0.linear.bias", i);
        if (i < 2) {
            put(&vllm, d, d, .3, "blocks.%zu.layers.0.weight", i);
            put(&vllm, n_vocab - 5, d, .5, "lm_heads.%zu.weight", i);
        }
    }
    for (size_t i = 0; i < n_vocab - 5; i++)
        ids[i] = (int64_t)(n_vocab - 1 - i);
    put(&vllm, 0, n_vocab - 5, 1, "token_map");
    vllm.tensor[vllm.n - 1].ids = ids;
    make_head("medusa.safetensors", 5, own.tensor, own.n, NULL);
    make_head("medusa-shared.safetensors", 6, shared.tensor, shared.n, NULL);
    make_head("medusa-vllm.safetensors", 7, vllm.tensor, vllm.n, NULL);
}

static void put_hydra(struct list *l, const struct made_shape *s, size_t n_heads, size_t n_blocks,
                      bool dropout, bool own_output)
{
    for (size_t i = 0; i < n_heads; i++) {
        for (size_t j = 0; j < n_blocks; j++) {
            size_t at = dropout ? 2 * j + 1 : j, width = j ? s->d : (i + 2) * s->d;
            if (j == 0) {
                put(l, s->d, width, .3, "hydra_mlp.%zu.%zu.res_connection.weight", i, at);
                put(l, 0, s->d, .3, "hydra_mlp.%zu.%zu.res_connection.bias", i, at);
            }
            put(l, s->d, width, .3, "hydra_mlp.%zu.%zu.linear.weight", i, at);
            put(l, 0, s->d, .3, "hydra_mlp.%zu.%zu.linear.bias", i, at);
        }
        if (own_output) {
            put(l, s->n_vocab, s->d, .5, "hydra_lm_head.%zu%s.weight", i, dropout ? ".1" : "");
            put(l, 0, s->n_vocab, .5, "hydra_lm_head.%zu%s.bias", i, dropout ? ".1" : "");
        }
    }
}

static void put_layer(struct list *l, const struct made_shape *s, const char *stem)
{
    size_t q = s->n_heads * s->head_dim, kv = s->n_kv_heads * s->head_dim;
    put(l, 0, s->d, 0, "%sinput_layernorm.weight", stem);
    put(l, q, s->d, .5, "%sself_attn.q_proj.weight", stem);
    put(l, kv, s->d, .5, "%sself_attn.k_proj.weight", stem);
    put(l, kv, s->d, .5, "%sself_attn.v_proj.weight", stem);
    put(l, s->d, q, .5, "%sself_attn.o_proj.weight", stem);
    put(l, 0, s->d, 0, "%spost_attention_layernorm.weight", stem);
    put(l, s->d_ff, s->d, .4, "%smlp.gate_proj.weight", stem);
    put(l, s->d_ff, s->d, .4, "%smlp.up_proj.weight", stem);
    put(l, s->d, s->d_ff, .4, "%smlp.down_proj.weight", stem);
}

void make_hydra_heads(const struct made_shape *shape)
{
    struct list own = { .n = 0 }, dropout = { .n = 0 }, shared = { .n = 0 }, pp = { .n = 0 };
    put_hydra(&own, shape, 3, 2, false, true);
    put_hydra(&dropout, shape, 3, 2, true, true);
    put_hydra(&shared, shape, 4, 1, false, false);
    put_hydra(&pp, shape, 3, 2, true, true);
    put_layer(&pp, shape, "prefix_embeding_layer.layers.0.");
    put(&pp, 0, shape->d, 0, "prefix_embeding_layer.norm.weight");
    make_head("hydra.safetensors", 8, own.tensor, own.n, NULL);
    make_head("hydra-dropout.safetensors", 8, dropout.tensor, dropout.n, NULL);
    make_head("hydra-shared.safetensors", 9, shared.tensor, shared.n, NULL);
    make_head("hydra-pp.safetensors", 10, pp.tensor, pp.n, NULL);
}

enum { MLP_WIDTH = 12 };

void make_mlp_speculators(size_t d, size_t n_vocab)
{
    struct made_tensor t[16];
    static char name[16][48];
    size_t n = 0, m = MLP_WIDTH;
    for (int i = 0; i < 3; i++) {
        const struct made_tensor stage[] = {
            { .name = "emb.%d.weight", .n = n_vocab, .k = m, .scale = .3 },
            { .name = "proj.%d.weight", .n = m, .k = i ? m : d, .scale = .3 },
            { .name = "head.%d.weight", .n = n_vocab, .k = m, .scale = .3 },
            { .name = "ln.%d.weight", .k = m },
            { .name = "ln.%d.bias", .k = m, .scale = .1 },
        };
        for (size_t j = 0; j < 5; j++, n++) {
            t[n] = stage[j];
            snprintf(name[n], sizeof name[n], stage[j].name, i);
            t[n].name = name[n];
        }
    }
    make_head("mlp.safetensors", 5, t, n, NULL);
    const struct made_tensor tied[] = {
        { .name = "speculator.emb.0.weight", .n = n_vocab, .k = m, .scale = .3 },
        { .name = "speculator.proj.0.weight", .n = m, .k = d, .scale = .3 },
        { .name = "speculator.proj.1.weight", .n = m, .k = m, .scale = .3 },
        { .name = "speculator.head.0.weight", .n = n_vocab, .k = m, .scale = .3 },
        { .name = "speculator.ln.0.weight", .k = m },
        { .name = "speculator.ln.0.bias", .k = m, .scale = .1 },
    };
    if (mkdir("mlp-tied", 0777) != 0)
        abort();
    make_head("mlp-tied/model.safetensors", 6, tied, 6, NULL);
    make_text("mlp-tied/config.json",
              "{\"model_type\": \"mlp_speculator\", \"n_predict\": 4, \"tie_weights\": true,"
              " \"scale_input\": true, \"top_k_tokens_per_head\": [4, 2, 2, 1]}");
}

void make_redrafters(size_t d, size_t n_vocab)
{
    const struct made_tensor full[] = {
        { .name = "rnn_w.weight", .n = d, .k = d, .scale = .3 },
        { .name = "rnn_u.weight", .n = d, .k = d, .scale = .3 },
        { .name = "rnn_u.bias", .k = d, .scale = .1 },
        { .name = "lm_head.0.linear.weight", .n = 2 * d, .k = 2 * d, .scale = .2 },
        { .name = "lm_head.0.linear.bias", .k = 2 * d, .scale = .1 },
        { .name = "lm_head.1.linear.weight", .n = 2 * d, .k = 2 * d, .scale = .2 },
        { .name = "lm_head.1.linear.bias", .k = 2 * d, .scale = .1 },
        { .name = "lm_head.2.weight", .n = n_vocab, .k = 2 * d, .scale = .3 },
    };
    make_head("redrafter.safetensors", 7, full, 8, NULL);
    const struct made_tensor sum[] = {
        { .name = "input_proj.weight", .n = d, .k = 2 * d, .scale = .3 },
        { .name = "input_proj.bias", .k = d, .scale = .1 },
        { .name = "lm_head.0.linear.weight", .n = d, .k = d, .scale = .2 },
        { .name = "lm_head.0.linear.bias", .k = d, .scale = .1 },
        { .name = "lm_head.1.weight", .n = n_vocab, .k = d, .scale = .3 },
    };
    if (mkdir("redrafter-sum", 0777) != 0)
        abort();
    make_head("redrafter-sum/model.safetensors", 8, sum, 5, NULL);
    make_text("redrafter-sum/config.json", "{\"rnn\": false, \"num_draft_layers\": 1}");
}

/* Hydra and Hydra++ (Ankner et al. 2024, arXiv 2402.05109; methods B 4.4): head i reads the hidden state and
 * the embeddings of the tokens drafted so far, u = [h ; e(root) ; .. ; e(c_i)]. First block R u + SiLU(W u + b),
 * then residual blocks, then an LM head with bias. Hydra++ (hydra-pp) reads, in place of h, one decoder layer
 * run over all hidden states of the text. */
#include <jansson.h>

#include "harness/train/decoder_layer.h"

enum { MOST_BLOCKS = 8 };

struct params {
    int64_t heads, layers;
    bool share_lm_head;
};

struct parts {
    struct sb_var w[SB_HEAD_DEPTH][MOST_BLOCKS], b[SB_HEAD_DEPTH][MOST_BLOCKS];
    struct sb_var res_w[SB_HEAD_DEPTH], res_b[SB_HEAD_DEPTH];
    struct sb_var lm_w[SB_HEAD_DEPTH], lm_b[SB_HEAD_DEPTH];
    struct sb_decoder_layer prefix;
    struct sb_var prefix_norm;
};

#define PARAMS(default_layers)                                         \
    {                                                                  \
        { .name = "heads",                                             \
          .type = SB_PARAM_INT,                                        \
          .offset = offsetof(struct params, heads),                    \
          .fallback = "4",                                             \
          .min = 1,                                                    \
          .max = SB_HEAD_DEPTH,                                        \
          .meaning = "how many, and how deep it drafts" },             \
            { .name = "layers",                                        \
              .type = SB_PARAM_INT,                                    \
              .offset = offsetof(struct params, layers),               \
              .fallback = default_layers,                              \
              .min = 1,                                                \
              .max = MOST_BLOCKS,                                      \
              .meaning = "blocks of a head, the first one included" }, \
            { .name = "share_lm_head",                                 \
              .type = SB_PARAM_BOOL,                                   \
              .offset = offsetof(struct params, share_lm_head),        \
              .fallback = "false",                                     \
              .meaning = "use the target's LM head, and write none" }, \
            { 0 },                                                     \
    }
static const struct sb_param params[] = PARAMS("1");
static const struct sb_param pp_params[] = PARAMS("4");

extern const struct sb_head_ops sb_head_hydra, sb_head_hydra_pp;

static bool has_prefix(const struct sb_head *head)
{
    return head->ops == &sb_head_hydra_pp;
}

/* Published files of hydra-pp count the dropout layers between the blocks. */
static size_t file_index(const struct sb_head *head, size_t block)
{
    return has_prefix(head) ? 2 * block + 1 : block;
}

static void declare_head(struct sb_head *head, size_t i)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model, wide = d * (i + 2);
    for (size_t j = 0; j < (size_t)p->layers; j++) {
        size_t at = file_index(head, j);
        sb_trainable_add(&head->weights, &parts->w[i][j], d, j == 0 ? wide : d, 0, 0,
                         "hydra_mlp.%zu.%zu.linear.weight", i, at);
        sb_trainable_add(&head->weights, &parts->b[i][j], 1, d, 0, 0,
                         "hydra_mlp.%zu.%zu.linear.bias", i, at);
        if (j > 0)
            continue;
        sb_trainable_add(&head->weights, &parts->res_w[i], d, wide, 0, 0.1 / sqrt((double)wide),
                         "hydra_mlp.%zu.%zu.res_connection.weight", i, at);
        sb_trainable_add(&head->weights, &parts->res_b[i], 1, d, 0, 0,
                         "hydra_mlp.%zu.%zu.res_connection.bias", i, at);
    }
    if (p->share_lm_head)
        return;
    const char *index = has_prefix(head) ? ".1" : "";
    sb_trainable_add(&head->weights, &parts->lm_w[i], head->target->shape.n_vocab, d, 0, 0,
                     "hydra_lm_head.%zu%s.weight", i, index);
    sb_trainable_add(&head->weights, &parts->lm_b[i], 1, head->target->shape.n_vocab, 0, 0,
                     "hydra_lm_head.%zu%s.bias", i, index);
}

static enum sb_status declare(struct sb_head *head, struct sb_error *err)
{
    (void)err;
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model;
    head->depth = head->reach = (size_t)p->heads;
    for (size_t i = 0; i < head->depth; i++)
        declare_head(head, i);
    if (has_prefix(head)) {
        sb_decoder_layer_declare(&parts->prefix, head, "prefix_embeding_layer.layers.0", d, true);
        sb_trainable_add(&head->weights, &parts->prefix_norm, 1, d, 1, 0,
                         "prefix_embeding_layer.norm.weight");
    }
    return SB_OK;
}

/* The part of R on h starts as the identity, so that a fresh head says nearly what the target said. */
static void start(struct sb_head *head)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model;
    for (size_t i = 0; i < head->depth; i++) {
        for (size_t j = 0; j < d; j++)
            parts->res_w[i].x[j * parts->res_w[i].cols + j] += 1;
        if (!p->share_lm_head)
            sb_head_copy_lm_head(head, &parts->lm_w[i]);
    }
    if (has_prefix(head)) /* about the scale of the target's own norm */
        memcpy(parts->prefix_norm.x, head->target->final_norm.x, d * sizeof(sb_real));
}

/* What heads read of the text so far: [m, d]. */
static struct sb_var *text_state(struct sb_head *head, const struct sb_head_input *in)
{
    struct parts *parts = head->parts;
    struct sb_var *h = in->states->final;
    if (!has_prefix(head))
        return h;
    struct sb_decoder_memory memory = { 0 };
    sb_real eps = (sb_real)head->target->shape.norm_eps;
    struct sb_var *x = sb_tape_rmsnorm(in->tape, h, &parts->prefix.attn_norm, eps);
    h = sb_decoder_layer_forward(&parts->prefix, head, in, h, x, in->texts->rows.pos, &memory);
    return sb_tape_rmsnorm(in->tape, h, &parts->prefix_norm, eps);
}

static void forward(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    const struct sb_head_rows *rows = in->rows;
    struct sb_var *embedding = &head->target->embedding;
    struct sb_var *u = sb_tape_gather(in->tape, text_state(head, in), rows->at, rows->n);
    for (size_t i = 0; i < rows->depth; i++) {
        u = sb_tape_concat(in->tape, u,
                           sb_tape_embed(in->tape, embedding, rows->token[i], rows->n));
        struct sb_var *z = sb_tape_linear(in->tape, u, &parts->res_w[i], &parts->res_b[i]);
        z = sb_head_block(in->tape, z, u, &parts->w[i][0], &parts->b[i][0]);
        for (size_t j = 1; j < (size_t)p->layers; j++)
            z = sb_head_block(in->tape, z, z, &parts->w[i][j], &parts->b[i][j]);
        out->logits[i] = p->share_lm_head
                             ? sb_tape_linear(in->tape, z, embedding, NULL)
                             : sb_tape_linear(in->tape, z, &parts->lm_w[i], &parts->lm_b[i]);
    }
}

static double products(const struct sb_head *head)
{
    const struct params *p = head->params;
    double d = (double)head->target->shape.d_model, v = (double)head->target->shape.n_vocab;
    double sum = has_prefix(head) ? 3 * sb_decoder_layer_products(head, d) : 0;
    for (size_t i = 0; i < head->depth; i++)
        sum += 3 * (2 * d * d * (double)(i + 2) + (double)(p->layers - 1) * d * d) +
               (p->share_lm_head ? 2 : 3) * d * v;
    return sum;
}

static struct json_t *config(const struct sb_head *head)
{
    const struct params *p = head->params;
    json_t *json = sb_head_llama_config(head, "HydraModel");
    json_t *own = json_pack("{s:I, s:I, s:s, s:b, s:i, s:f}", "hydra_num_heads",
                            (json_int_t)p->heads, "hydra_num_layers", (json_int_t)p->layers,
                            "hydra_head_arch", has_prefix(head) ? "prefix-mlp" : "mlp",
                            "grounded_heads", 1, "hidden_state_offset", 0, "dropout_rate", 0.0);
    json_object_update(json, own);
    json_decref(own);
    return json;
}

const struct sb_head_ops sb_head_hydra = {
    .arch = "hydra",
    .summary = "heads that read the tokens drafted before them",
    .params = params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .start = start,
    .forward = forward,
    .products = products,
    .config = config,
};
const struct sb_head_ops sb_head_hydra_pp = {
    .arch = "hydra-pp",
    .summary = "hydra over a decoder layer that reads the whole text",
    .params = pp_params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .start = start,
    .forward = forward,
    .products = products,
    .config = config,
};

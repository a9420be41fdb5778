/* Medusa heads (Cai et al. 2024, arXiv 2401.10774; methods B 4.3): head i is n residual blocks and an LM
 * head on the final hidden state, and guesses depth i. Blocks start as the identity, so a fresh head says
 * what the target said of the token before. */
#include <jansson.h>

#include "harness/train/head.h"

enum { MOST_BLOCKS = 8 };

struct params {
    int64_t heads, layers;
    bool share_lm_head;
};

struct parts {
    struct sb_var w[SB_HEAD_DEPTH][MOST_BLOCKS], b[SB_HEAD_DEPTH][MOST_BLOCKS];
    struct sb_var lm_head[SB_HEAD_DEPTH];
};

static const struct sb_param params[] = {
    { .name = "heads",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, heads),
      .fallback = "4",
      .min = 1,
      .max = SB_HEAD_DEPTH,
      .meaning = "how many, and how deep it drafts" },
    { .name = "layers",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, layers),
      .fallback = "1",
      .min = 1,
      .max = MOST_BLOCKS,
      .meaning = "residual blocks of a head" },
    { .name = "share_lm_head",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct params, share_lm_head),
      .fallback = "false",
      .meaning = "use the target's LM head, and write none" },
    { 0 },
};

static enum sb_status declare(struct sb_head *head, struct sb_error *err)
{
    (void)err;
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model, layers = (size_t)p->layers;
    head->depth = head->reach = (size_t)p->heads;
    for (size_t i = 0; i < head->depth; i++) {
        for (size_t j = 0; j < layers; j++) {
            sb_trainable_add(&head->weights, &parts->w[i][j], d, d, 0, 0, "%zu.%zu.linear.weight",
                             i, j);
            sb_trainable_add(&head->weights, &parts->b[i][j], 1, d, 0, 0, "%zu.%zu.linear.bias", i,
                             j);
        }
        if (!p->share_lm_head)
            sb_trainable_add(&head->weights, &parts->lm_head[i], head->target->shape.n_vocab, d, 0,
                             0, "%zu.%zu.weight", i, layers);
    }
    return SB_OK;
}

static void start(struct sb_head *head)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    for (size_t i = 0; !p->share_lm_head && i < head->depth; i++)
        sb_head_copy_lm_head(head, &parts->lm_head[i]);
}

static void forward(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    struct sb_var *h = sb_tape_gather(in->tape, in->states->final, in->rows->at, in->rows->n);
    for (size_t i = 0; i < in->rows->depth; i++) {
        struct sb_var *z = h;
        for (size_t j = 0; j < (size_t)p->layers; j++)
            z = sb_head_block(in->tape, z, z, &parts->w[i][j], &parts->b[i][j]);
        struct sb_var *lm_head = p->share_lm_head ? &head->target->embedding : &parts->lm_head[i];
        out->logits[i] = sb_tape_linear(in->tape, z, lm_head, NULL);
    }
}

static double products(const struct sb_head *head)
{
    const struct params *p = head->params;
    double d = (double)head->target->shape.d_model, v = (double)head->target->shape.n_vocab;
    return (double)p->heads * (3 * (double)p->layers * d * d + (p->share_lm_head ? 2 : 3) * d * v);
}

static struct json_t *config(const struct sb_head *head)
{
    const struct params *p = head->params;
    return json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:b}", "architectures", "MedusaModel", "model_type",
        "medusa", "medusa_num_heads", (json_int_t)p->heads, "medusa_num_layers",
        (json_int_t)p->layers, "hidden_size", (json_int_t)head->target->shape.d_model, "vocab_size",
        (json_int_t)head->target->shape.n_vocab, "original_lm_head", (int)p->share_lm_head);
}

const struct sb_head_ops sb_head_medusa = {
    .arch = "medusa",
    .summary = "residual blocks on the final hidden state, one head per depth",
    .params = params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .start = start,
    .forward = forward,
    .products = products,
    .config = config,
};

/* ReDrafter (Cheng et al. 2024, arXiv 2403.09919; methods B 4.5): one set of weights for all depths. A
 * recurrent state takes in the target's embedding of the newest token, s_j = SiLU(W e(token) + U s + b) from
 * s = 0; [h ; s_j], with the hidden state h of the row throughout, goes through residual blocks to logits. */
#include <jansson.h>

#include "harness/train/head.h"

enum { MOST_BLOCKS = 8 };

struct params {
    int64_t length, layers;
    bool rnn;
};

struct parts {
    struct sb_var rnn_w, rnn_u, rnn_b;
    struct sb_var w[MOST_BLOCKS], b[MOST_BLOCKS], lm_head;
};

static const struct sb_param params[] = {
    { .name = "length",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, length),
      .fallback = "5",
      .min = 1,
      .max = SB_HEAD_DEPTH,
      .meaning = "depths to unroll in training" },
    { .name = "layers",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, layers),
      .fallback = "2",
      .min = 1,
      .max = MOST_BLOCKS,
      .meaning = "residual blocks, twice as wide as the target" },
    { .name = "rnn",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct params, rnn),
      .fallback = "true",
      .meaning = "false: the state is the sum of the embeddings" },
    { 0 },
};

static enum sb_status declare(struct sb_head *head, struct sb_error *err)
{
    (void)err;
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model, v = head->target->shape.n_vocab;
    double std = 1 / sqrt((double)d);
    head->depth = head->reach = (size_t)p->length;
    for (size_t j = 0; j < (size_t)p->layers; j++) {
        sb_trainable_add(&head->weights, &parts->w[j], 2 * d, 2 * d, 0, 0,
                         "lm_head.%zu.linear.weight", j);
        sb_trainable_add(&head->weights, &parts->b[j], 1, 2 * d, 0, 0, "lm_head.%zu.linear.bias",
                         j);
    }
    sb_trainable_add(&head->weights, &parts->lm_head, v, 2 * d, 0, 0, "lm_head.%zu.weight",
                     (size_t)p->layers);
    if (p->rnn) {
        sb_trainable_add(&head->weights, &parts->rnn_u, d, d, 0, std, "rnn_u.weight");
        sb_trainable_add(&head->weights, &parts->rnn_b, 1, d, 0, 0, "rnn_u.bias");
        sb_trainable_add(&head->weights, &parts->rnn_w, d, d, 0, std, "rnn_w.weight");
    }
    return SB_OK;
}

/* Logits start as the target's own of the hidden state: its LM head on h, nothing on the state. */
static void start(struct sb_head *head)
{
    struct parts *parts = head->parts;
    const struct sb_var *from = &head->target->embedding;
    size_t d = from->cols;
    for (size_t r = 0; r < from->rows; r++)
        memcpy(parts->lm_head.x + r * 2 * d, from->x + r * d, d * sizeof *from->x);
}

static void forward(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    const struct sb_head_rows *rows = in->rows;
    struct sb_var *h = sb_tape_gather(in->tape, in->states->final, rows->at, rows->n), *s = NULL;
    for (size_t i = 0; i < rows->depth; i++) {
        struct sb_var *e =
            sb_tape_embed(in->tape, &head->target->embedding, rows->token[i], rows->n);
        if (p->rnn) {
            e = sb_tape_add_bias(in->tape, sb_tape_linear(in->tape, e, &parts->rnn_w, NULL),
                                 &parts->rnn_b);
            if (i > 0)
                e = sb_tape_add(in->tape, e, sb_tape_linear(in->tape, s, &parts->rnn_u, NULL));
            s = sb_tape_silu(in->tape, e);
        } else {
            s = i > 0 ? sb_tape_add(in->tape, s, e) : e;
        }
        struct sb_var *z = sb_tape_concat(in->tape, h, s);
        for (size_t j = 0; j < (size_t)p->layers; j++)
            z = sb_head_block(in->tape, z, z, &parts->w[j], &parts->b[j]);
        out->logits[i] = sb_tape_linear(in->tape, z, &parts->lm_head, NULL);
    }
}

static double products(const struct sb_head *head)
{
    const struct params *p = head->params;
    double d = (double)head->target->shape.d_model, v = (double)head->target->shape.n_vocab;
    double step = 4 * d * d * (double)p->layers + 2 * d * v + (p->rnn ? 2 * d * d : 0);
    return 3 * (double)p->length * step;
}

static struct json_t *config(const struct sb_head *head)
{
    const struct params *p = head->params;
    size_t d = head->target->shape.d_model;
    return json_pack("{s:[s], s:s, s:I, s:I, s:I, s:I, s:b, s:s}", "architectures",
                     "ReDrafterModel", "model_type", "redrafter", "vocab_size",
                     (json_int_t)head->target->shape.n_vocab, "hidden_size", (json_int_t)d,
                     "exit_dim", (json_int_t)(2 * d), "num_draft_layers", (json_int_t)p->layers,
                     "rnn", (int)p->rnn, "torch_dtype", "bfloat16");
}

const struct sb_head_ops sb_head_redrafter = {
    .arch = "redrafter",
    .summary = "one recurrent cell and head for all depths",
    .params = params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .start = start,
    .forward = forward,
    .products = products,
    .config = config,
};

/* EAGLE (Li et al. 2024, arXiv 2401.15077; methods B 5.1), also for eagle2's tree: row i pairs the target's
 * final state f_i with the next token and guesses f_(i+1):
 *
 *   z = fc [e(x[i+1]) ; f_i],  g = one decoder layer over all rows, attention reading z un-normed
 *
 * logits = the target's LM head of g. With steps = 1 every row is trained on true states, as published; more
 * steps feed rows their own guesses back (methods B 5.3), as drafting does. */
#include <jansson.h>

#include "harness/train/decoder_layer.h"

struct params {
    int64_t steps, measure_steps;
    bool bias;
};

struct parts {
    struct sb_var fc, fc_bias;
    struct sb_decoder_layer layer;
};

static const struct sb_param params[] = {
    { .name = "steps",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, steps),
      .fallback = "1",
      .min = 1,
      .max = SB_HEAD_DEPTH,
      .meaning = "passes in training; those after the first read the head's own guesses" },
    { .name = "measure_steps",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, measure_steps),
      .fallback = "5",
      .min = 1,
      .max = SB_HEAD_DEPTH,
      .meaning = "depths of the held-out figures" },
    { .name = "bias",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct params, bias),
      .fallback = "true",
      .meaning = "fc has a bias" },
    { 0 },
};

static enum sb_status declare(struct sb_head *head, struct sb_error *err)
{
    (void)err;
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model;
    head->depth = (size_t)p->steps;
    head->reach = (size_t)(p->measure_steps > p->steps ? p->measure_steps : p->steps);
    sb_trainable_add(&head->weights, &parts->fc, d, 2 * d, 0, 0.1 / sqrt((double)d), "fc.weight");
    if (p->bias)
        sb_trainable_add(&head->weights, &parts->fc_bias, 1, d, 0, 0, "fc.bias");
    sb_decoder_layer_declare(&parts->layer, head, "layers.0", d, false);
    return SB_OK;
}

/* fc starts near [0 | I]: a fresh head repeats the state it is given. */
static void start(struct sb_head *head)
{
    struct parts *parts = head->parts;
    size_t d = parts->fc.rows;
    for (size_t j = 0; j < d; j++)
        parts->fc.x[j * 2 * d + d + j] += 1;
}

static void forward(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    const struct sb_head_rows *rows = in->rows;
    struct sb_decoder_memory memory = { 0 };
    struct sb_var *f = in->states->final, *embedding = &head->target->embedding;
    for (size_t s = 0; s < rows->depth; s++) {
        struct sb_pass pass;
        if (!sb_pass_make(&pass, in, s))
            return;
        struct sb_var *e = sb_tape_embed(in->tape, embedding, pass.token, in->texts->rows.m);
        struct sb_var *z = sb_tape_linear(in->tape, sb_tape_concat(in->tape, e, f), &parts->fc,
                                          p->bias ? &parts->fc_bias : NULL);
        f = sb_decoder_layer_forward(&parts->layer, head, in, z, z, pass.pos, &memory);
        out->feature[s] = sb_tape_gather(in->tape, f, rows->at, rows->n);
        out->logits[s] = sb_tape_linear(in->tape, out->feature[s], embedding, NULL);
    }
}

static double products(const struct sb_head *head)
{
    double d = (double)head->target->shape.d_model, v = (double)head->target->shape.n_vocab;
    double layer = sb_decoder_layer_products(head, d) + 2 * d * d;
    return (double)head->depth * (3 * layer + 2 * d * v);
}

static struct json_t *config(const struct sb_head *head)
{
    const struct params *p = head->params;
    json_t *json = sb_head_llama_config(head, "LlamaForCausalLMEagle");
    json_object_set_new(json, "bias", json_boolean(p->bias));
    return json;
}

const struct sb_head_ops sb_head_eagle = {
    .arch = "eagle",
    .summary = "one decoder layer that guesses the target's next state",
    .params = params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .start = start,
    .forward = forward,
    .products = products,
    .config = config,
};

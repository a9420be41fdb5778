/* The MLP speculator (Wertheimer et al. 2024, arXiv 2404.19124; methods B 4.6): a state that starts as the
 * target's final hidden state, and at every depth takes in an embedding of its own of the newest token:
 *
 *   z = w_s P s + w_e E(token),  s = GELU(LN(z)),  logits = H s
 *
 * LN(z) = z / sqrt(mean z^2 + 1e-6) * g + b. With tie_weights all depths share E, H, LN, and all but the
 * first share P, whose input may have another width. */
#include <jansson.h>

#include "harness/core/alloc.h"
#include "harness/train/head.h"

struct params {
    int64_t n_predict, inner_dim;
    bool tie_weights, scale_input;
};

struct parts {
    struct sb_var emb[SB_HEAD_DEPTH], proj[SB_HEAD_DEPTH], head[SB_HEAD_DEPTH], gain[SB_HEAD_DEPTH],
        bias[SB_HEAD_DEPTH];
    struct sb_var ones; /* gain of the input's norm */
    sb_real *one;
};

static const struct sb_param params[] = {
    { .name = "n_predict",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, n_predict),
      .fallback = "3",
      .min = 1,
      .max = SB_HEAD_DEPTH,
      .meaning = "how deep it drafts" },
    { .name = "inner_dim",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, inner_dim),
      .fallback = "0",
      .min = 0,
      .max = 65536,
      .meaning = "width of its state; 0: the target's" },
    { .name = "tie_weights",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct params, tie_weights),
      .fallback = "false",
      .meaning = "all depths share their weights" },
    { .name = "scale_input",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct params, scale_input),
      .fallback = "false",
      .meaning = "norm the hidden state first, and divide it by sqrt(2)" },
    { 0 },
};

static const double norm_eps = 1e-6;

static size_t inner_width(const struct sb_head *head)
{
    const struct params *p = head->params;
    return p->inner_dim > 0 ? (size_t)p->inner_dim : head->target->shape.d_model;
}

/* Whose weights depth i uses: `first` is what the tied ones are called. */
static size_t tied(const struct sb_head *head, size_t i, size_t first)
{
    const struct params *p = head->params;
    return p->tie_weights && i > first ? first : i;
}

static enum sb_status declare(struct sb_head *head, struct sb_error *err)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model, v = head->target->shape.n_vocab, m = inner_width(head);
    double in = 1 / sqrt((double)m);
    head->depth = head->reach = (size_t)p->n_predict;
    parts->one = sb_alloc_array(d, sizeof *parts->one);
    if (!parts->one)
        return sb_fail(err, SB_ENOMEM, "head mlp-speculator: out of memory");
    for (size_t j = 0; j < d; j++)
        parts->one[j] = 1;
    parts->ones = (struct sb_var){ .x = parts->one, .rows = 1, .cols = d };
    for (size_t i = 0; i < head->depth; i++) {
        size_t from = i == 0 ? d : m;
        if (tied(head, i, 1) == i)
            sb_trainable_add(&head->weights, &parts->proj[i], m, from, 0, 1 / sqrt((double)from),
                             "speculator.proj.%zu.weight", i);
        if (tied(head, i, 0) != i)
            continue;
        sb_trainable_add(&head->weights, &parts->emb[i], v, m, 0, in, "speculator.emb.%zu.weight",
                         i);
        sb_trainable_add(&head->weights, &parts->head[i], v, m, 0, in, "speculator.head.%zu.weight",
                         i);
        sb_trainable_add(&head->weights, &parts->gain[i], 1, m, 1, 0, "speculator.ln.%zu.weight",
                         i);
        sb_trainable_add(&head->weights, &parts->bias[i], 1, m, 0, 0, "speculator.ln.%zu.bias", i);
    }
    return SB_OK;
}

static void forward(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    const struct sb_head_rows *rows = in->rows;
    double n = (double)p->n_predict, w_s = pow(2, -0.5 / n);
    double w_e = sqrt((1 - w_s * w_s) * (double)inner_width(head) / 2);
    struct sb_var *s = sb_tape_gather(in->tape, in->states->final, rows->at, rows->n);
    if (p->scale_input) {
        s = sb_tape_rmsnorm(in->tape, s, &parts->ones, (sb_real)norm_eps);
        s = sb_tape_mix(in->tape, s, (sb_real)sqrt(0.5), s, 0);
    }
    for (size_t i = 0; i < rows->depth; i++) {
        size_t own = tied(head, i, 0);
        struct sb_var *a = sb_tape_linear(in->tape, s, &parts->proj[tied(head, i, 1)], NULL);
        struct sb_var *e = sb_tape_embed(in->tape, &parts->emb[own], rows->token[i], rows->n);
        struct sb_var *z = sb_tape_mix(in->tape, a, (sb_real)w_s, e, (sb_real)w_e);
        z = sb_tape_rmsnorm(in->tape, z, &parts->gain[own], (sb_real)norm_eps);
        s = sb_tape_gelu(in->tape, sb_tape_add_bias(in->tape, z, &parts->bias[own]));
        out->logits[i] = sb_tape_linear(in->tape, s, &parts->head[own], NULL);
    }
}

static double products(const struct sb_head *head)
{
    double d = (double)head->target->shape.d_model, v = (double)head->target->shape.n_vocab;
    double m = (double)inner_width(head), n = (double)head->depth;
    return 3 * (m * d + (n - 1) * m * m + n * m * v);
}

static struct json_t *config(const struct sb_head *head)
{
    const struct params *p = head->params;
    json_t *top_k = json_array();
    for (int64_t i = 0; i < p->n_predict; i++)
        json_array_append_new(top_k, json_integer(i < 3 ? 5 - i : 3));
    return json_pack(
        "{s:[s], s:s, s:I, s:I, s:I, s:I, s:i, s:o, s:b, s:b, s:s}", "architectures",
        "MLPSpeculatorPreTrainedModel", "model_type", "mlp_speculator", "vocab_size",
        (json_int_t)head->target->shape.n_vocab, "emb_dim", (json_int_t)head->target->shape.d_model,
        "inner_dim", (json_int_t)inner_width(head), "n_predict", (json_int_t)p->n_predict,
        "n_candidates", 5, "top_k_tokens_per_head", top_k, "tie_weights", (int)p->tie_weights,
        "scale_input", (int)p->scale_input, "torch_dtype", "bfloat16");
}

static void close_parts(struct sb_head *head)
{
    sb_free(((struct parts *)head->parts)->one);
}

const struct sb_head_ops sb_head_mlp_speculator = {
    .arch = "mlp-speculator",
    .summary = "a state that takes in embeddings of its own, depth by depth",
    .params = params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .forward = forward,
    .products = products,
    .config = config,
    .close = close_parts,
};

/* EAGLE-3 (Li et al. 2025, arXiv 2503.01840; methods B 5.3): row i joins the residual streams that enter three
 * of the target's layers, f_i = fc [low ; mid ; high], and one decoder layer reads it beside the next token:
 *
 *   attention reads [norm(e(x[i+1])) ; norm(f_i)], the residual is f_i itself, logits = lm_head(norm(g_i))
 *
 * Trained over several passes that read their own g (training-time test). With draft_vocab the output layer has
 * rows for the commonest tokens of the texts alone, which d2t and t2d name. */
#include <jansson.h>

#include "harness/train/decoder_layer.h"

enum { TAPS = 3 };

struct params {
    int64_t steps, measure_steps, draft_vocab;
};

struct parts {
    struct sb_var fc, hidden_norm, norm, lm_head;
    struct sb_decoder_layer layer;
};

static const struct sb_param params[] = {
    { .name = "steps",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, steps),
      .fallback = "5",
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
    { .name = "draft_vocab",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct params, draft_vocab),
      .fallback = "0",
      .min = 0,
      .max = 1 << 24,
      .meaning = "tokens it can say, the commonest of the texts; 0: all of the target's" },
    { 0 },
};

/* Layers whose input is read: 2, L / 2 and L - 3, as far as a small target has them. */
static void tap_layers(size_t at[TAPS], const struct sb_head *head)
{
    size_t n = head->target->shape.n_layers;
    at[0] = n > 2 ? 2 : n;
    at[1] = n / 2;
    at[2] = n > 3 ? n - 3 : n;
}

static enum sb_status declare(struct sb_head *head, struct sb_error *err)
{
    const struct params *p = head->params;
    struct parts *parts = head->parts;
    size_t d = head->target->shape.d_model, n_vocab = head->target->shape.n_vocab;
    if ((size_t)p->draft_vocab > n_vocab)
        return sb_fail(err, SB_EUSAGE,
                       "head eagle3: draft_vocab is %lld; the target has %zu tokens",
                       (long long)p->draft_vocab, n_vocab);
    head->n_draft = (size_t)p->draft_vocab;
    head->draft_rows = head->n_draft ? &parts->lm_head : NULL;
    head->depth = (size_t)p->steps;
    head->reach = (size_t)(p->measure_steps > p->steps ? p->measure_steps : p->steps);
    sb_trainable_add(&head->weights, &parts->fc, d, TAPS * d, 0, 0.1 / sqrt((double)(TAPS * d)),
                     "fc.weight");
    sb_trainable_add(&head->weights, &parts->hidden_norm, 1, d, 1, 0,
                     "midlayer.hidden_norm.weight");
    sb_decoder_layer_declare(&parts->layer, head, "midlayer", 2 * d, true);
    sb_trainable_add(&head->weights, &parts->norm, 1, d, 1, 0, "norm.weight");
    sb_trainable_add(&head->weights, &parts->lm_head, head->n_draft ? head->n_draft : n_vocab, d, 0,
                     0, "lm_head.weight");
    return SB_OK;
}

/* fc starts near the highest tap, norm and head as the target's. */
static void start(struct sb_head *head)
{
    struct parts *parts = head->parts;
    size_t d = parts->fc.rows;
    for (size_t j = 0; j < d; j++)
        parts->fc.x[j * TAPS * d + (TAPS - 1) * d + j] += 1;
    memcpy(parts->norm.x, head->target->final_norm.x, d * sizeof *parts->norm.x);
    if (!head->n_draft)
        sb_head_copy_lm_head(head, &parts->lm_head);
}

static struct sb_var *join_taps(struct sb_head *head, const struct sb_head_input *in)
{
    struct parts *parts = head->parts;
    struct sb_var **tap = in->states->in;
    size_t at[TAPS];
    tap_layers(at, head);
    struct sb_var *low = sb_tape_concat(in->tape, tap[at[0]], tap[at[1]]);
    return sb_tape_linear(in->tape, sb_tape_concat(in->tape, low, tap[at[2]]), &parts->fc, NULL);
}

static void forward(struct sb_head *head, const struct sb_head_input *in,
                    struct sb_head_output *out)
{
    struct parts *parts = head->parts;
    const struct sb_head_rows *rows = in->rows;
    sb_real eps = (sb_real)head->target->shape.norm_eps;
    struct sb_decoder_memory memory = { 0 };
    struct sb_var *f = join_taps(head, in);
    for (size_t s = 0; s < rows->depth; s++) {
        struct sb_pass pass;
        if (!sb_pass_make(&pass, in, s))
            return;
        struct sb_var *e =
            sb_tape_embed(in->tape, &head->target->embedding, pass.token, in->texts->rows.m);
        e = sb_tape_rmsnorm(in->tape, e, &parts->layer.attn_norm, eps);
        struct sb_var *h = sb_tape_rmsnorm(in->tape, f, &parts->hidden_norm, eps);
        f = sb_decoder_layer_forward(&parts->layer, head, in, f, sb_tape_concat(in->tape, e, h),
                                     pass.pos, &memory);
        struct sb_var *g = sb_tape_gather(in->tape, f, rows->at, rows->n);
        out->logits[s] = sb_tape_linear(in->tape, sb_tape_rmsnorm(in->tape, g, &parts->norm, eps),
                                        &parts->lm_head, NULL);
    }
}

static double products(const struct sb_head *head)
{
    const struct parts *parts = head->parts;
    double d = (double)head->target->shape.d_model, v = (double)parts->lm_head.rows;
    double pass = sb_decoder_layer_products(head, 2 * d) + d * v;
    return 3 * ((double)head->depth * pass + TAPS * d * d);
}

static struct json_t *config(const struct sb_head *head)
{
    const struct parts *parts = head->parts;
    size_t at[TAPS];
    tap_layers(at, head);
    json_t *json = sb_head_llama_config(head, "LlamaForCausalLMEagle3");
    json_object_set_new(json, "draft_vocab_size", json_integer((json_int_t)parts->lm_head.rows));
    json_object_set_new(json, "eagle_config",
                        json_pack("{s:[I, I, I]}", "eagle_aux_hidden_state_layer_ids",
                                  (json_int_t)at[0], (json_int_t)at[1], (json_int_t)at[2]));
    return json;
}

const struct sb_head_ops sb_head_eagle3 = {
    .arch = "eagle3",
    .summary = "one decoder layer over three of the target's layers, trained on its own output",
    .params = params,
    .params_size = sizeof(struct params),
    .parts_size = sizeof(struct parts),
    .declare = declare,
    .start = start,
    .forward = forward,
    .products = products,
    .config = config,
};

/* Hydra and Hydra++: every draft against the heads written down plainly in double, positions and depths by an
 * oracle, layouts, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/head_file.h"
#include "harness/decode/session.h"
#include "tests/property/cycle_model.h"
#include "tests/property/head_maker.h"
#include "tests/property/plain_body.h"
#include "tests/property/toy_model.h"

enum { V = 24, D = 16, CONTEXT = 96, BUDGET = 40, MOST_NODES = 4096, MOST_HEADS = 4 };

static struct toy_model toy;
static struct cycle_model cycle;

static int make_models(void **state)
{
    (void)state;
    toy = toy_model_create(1, 0, V, CONTEXT, -1);
    cycle = cycle_model_create();
    enter_folder();
    const struct sb_config *c = sb_model_config(toy.model);
    assert_int_equal(c->d_model, D);
    make_hydra_heads(&(struct made_shape){ D, V, c->n_heads, c->n_kv_heads, c->head_dim, c->d_ff });
    return 0;
}

static int destroy_models(void **state)
{
    (void)state;
    leave_folder();
    cycle_model_destroy(&cycle);
    toy_model_destroy(&toy);
    return 0;
}

/* ---- sessions whose drafts are kept ---- */

struct record {
    struct sb_node node[MOST_NODES];
    int32_t n, steps, from[BUDGET + 2], n_nodes[BUDGET + 2], context[BUDGET + 2];
    int32_t accepted, drafted;
    sb_token text[CONTEXT]; /* prompt and what was generated */
};

static void keep_step(void *self, const struct sb_step *step)
{
    struct record *r = self;
    assert_true(r->n + step->tree->n <= MOST_NODES);
    memcpy(r->node + r->n, step->tree->node, (size_t)step->tree->n * sizeof *r->node);
    r->from[r->steps] = r->n;
    r->n_nodes[r->steps] = step->tree->n;
    r->context[r->steps++] = step->context;
    r->n += step->tree->n;
    r->accepted += step->accepted;
    r->drafted += step->drafted;
}

static enum sb_status open_session(struct sb_session **s, struct sb_model *target, const char *text,
                                   struct sb_error *err)
{
    struct sb_spec spec;
    assert_int_equal(sb_spec_parse(&spec, text, NULL), SB_OK);
    enum sb_status rc = sb_session_create(
        s, &(struct sb_session_options){ .target = target, .drafter = &spec }, err);
    sb_spec_finish(&spec);
    return rc;
}

static void run(struct record *r, struct sb_model *target, const char *drafter,
                const sb_token *prompt, size_t n_prompt)
{
    struct sb_session *s;
    struct sb_error err = { .message = "" };
    struct sb_generation out;
    *r = (struct record){ 0 };
    if (open_session(&s, target, drafter, &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    const struct sb_request request = { .prompt = prompt,
                                        .n_prompt = n_prompt,
                                        .max_new_tokens = BUDGET,
                                        .on_step = keep_step,
                                        .self = r };
    assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
    memcpy(r->text, prompt, n_prompt * sizeof *prompt);
    memcpy(r->text + n_prompt, out.tokens.id, out.tokens.n * sizeof *prompt);
    sb_generation_finish(&out);
    sb_session_destroy(s);
}

/* ---- the heads, plainly ---- */

struct plain_head {
    struct sb_head_file file;
    bool dropout;
    size_t n_blocks;
    struct sb_weights prefix; /* of hydra-pp; no layers otherwise */
    struct sb_layer_weights layer;
    struct plain_body body;
};

static struct sb_tensor matrix(const struct sb_head_file *f, size_t n, size_t k, const char *name)
{
    struct sb_tensor t;
    assert_int_equal(sb_head_matrix(f, &t, n, k, NULL, "%s", name), SB_OK);
    return t;
}

static struct sb_tensor vector(const struct sb_head_file *f, size_t n, const char *name)
{
    struct sb_tensor t;
    assert_int_equal(sb_head_vector(f, &t, n, NULL, "%s", name), SB_OK);
    return t;
}

static void read_prefix(struct plain_head *h)
{
#define LAYER "prefix_embeding_layer.layers.0."
    const struct sb_config *c = sb_model_config(toy.model);
    const struct sb_head_file *f = &h->file;
    size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    h->prefix.config = *c;
    h->prefix.config.n_layers = 1;
    h->prefix.layers = &h->layer;
    h->layer = (struct sb_layer_weights){
        .attn_norm = vector(f, D, LAYER "input_layernorm.weight"),
        .wq = matrix(f, q, D, LAYER "self_attn.q_proj.weight"),
        .wk = matrix(f, kv, D, LAYER "self_attn.k_proj.weight"),
        .wv = matrix(f, kv, D, LAYER "self_attn.v_proj.weight"),
        .wo = matrix(f, D, q, LAYER "self_attn.o_proj.weight"),
        .ffn_norm = vector(f, D, LAYER "post_attention_layernorm.weight"),
        .w_gate = matrix(f, c->d_ff, D, LAYER "mlp.gate_proj.weight"),
        .w_up = matrix(f, c->d_ff, D, LAYER "mlp.up_proj.weight"),
        .w_down = matrix(f, D, c->d_ff, LAYER "mlp.down_proj.weight"),
    };
    h->prefix.final_norm = vector(f, D, "prefix_embeding_layer.norm.weight");
#undef LAYER
}

static void open_plain(struct plain_head *h, const char *drafter, const char *file)
{
    memset(h, 0, sizeof *h);
    const struct sb_head_request request = { drafter, file, NULL, toy.model };
    assert_int_equal(sb_head_open(&h->file, &request, NULL), SB_OK);
    h->dropout = !sb_head_find(&h->file, "hydra_mlp.0.0.linear.weight");
    h->n_blocks = sb_head_count(&h->file, "hydra_mlp.0.") / (h->dropout ? 2 : 1);
    if (strcmp(drafter, "hydra-pp") == 0)
        read_prefix(h);
}

/* y[n] = STEM.weight x + STEM.bias. */
static void linear(const struct plain_head *h, double *y, const double *x, size_t n, size_t k,
                   const char *stem)
{
    char name[128];
    snprintf(name, sizeof name, "%s.weight", stem);
    struct sb_tensor w = matrix(&h->file, n, k, name);
    snprintf(name, sizeof name, "%s.bias", stem);
    struct sb_tensor b = vector(&h->file, n, name);
    plain_multiply(y, &w, x, &b);
}

/* logits[V] of head i for u[D (i + 2)]. */
static void plain_logits(const struct plain_head *h, size_t head, const double *u, double *logits)
{
    double z[D], w[D];
    char stem[96];
    for (size_t j = 0; j < h->n_blocks; j++) {
        size_t at = h->dropout ? 2 * j + 1 : j, width = j ? D : (head + 2) * D;
        const double *x = j ? z : u;
        snprintf(stem, sizeof stem, "hydra_mlp.%zu.%zu.linear", head, at);
        linear(h, w, x, D, width, stem);
        snprintf(stem, sizeof stem, "hydra_mlp.%zu.%zu.res_connection", head, at);
        if (j == 0)
            linear(h, z, x, D, width, stem);
        for (size_t c = 0; c < D; c++)
            z[c] += w[c] / (1 + exp(-w[c]));
    }
    snprintf(stem, sizeof stem, "hydra_lm_head.%zu%s", head, h->dropout ? ".1" : "");
    if (sb_head_count(&h->file, "hydra_lm_head.") > 0)
        linear(h, logits, z, V, D, stem);
    else
        plain_multiply(logits, &sb_model_weights(toy.model)->lm_head, z, NULL);
}

/* The state of a step with n committed tokens. */
static void plain_state(struct plain_head *h, const sb_token *text, size_t n, double *state)
{
    static float hidden[CONTEXT * D];
    struct sb_seq *seq;
    const struct sb_tap tap = { SB_TAP_FINAL, 0, hidden };
    assert_int_equal(sb_seq_create(&seq, toy.model, CONTEXT, 64, NULL), SB_OK);
    assert_int_equal(sb_seq_prefill(seq, text, n - 1, &tap, 1, NULL, NULL), SB_OK);
    sb_seq_destroy(seq);
    double x[D];
    for (size_t i = 0; i < n - 1 && h->prefix.layers; i++)
        plain_body_row(&h->body, &h->prefix, hidden + i * D, i, x);
    if (h->prefix.layers)
        plain_norm(state, x, &h->prefix.final_norm, (double)h->prefix.config.norm_eps);
    for (size_t c = 0; c < D && !h->prefix.layers; c++)
        state[c] = hidden[(n - 2) * D + c];
}

/* Child `token` of rank r: about r tokens have a larger logit. */
static void assert_rank(const double *logits, sb_token token, int32_t rank)
{
    int32_t above = 0, level = 0;
    for (int32_t t = 0; t < V; t++) {
        above += logits[t] > logits[token] + 1e-3;
        level += logits[t] > logits[token] - 1e-3;
    }
    assert_true(above <= rank && rank < level);
}

static void check_step(struct plain_head *h, const struct record *r, int32_t step)
{
    const struct sb_node *node = r->node + r->from[step];
    size_t n = (size_t)r->context[step];
    double state[D];
    plain_state(h, r->text, n, state);
    for (int32_t i = 1; i < r->n_nodes[step]; i++) {
        double u[D * (MOST_HEADS + 2)], logits[V];
        size_t depth = (size_t)node[i].depth - 1;
        memcpy(u, state, sizeof state);
        int32_t at = node[i].parent;
        for (size_t j = depth + 1; j-- > 0; at = node[at].parent) {
            float e[D];
            sb_model_embed(toy.model, e, &node[at].token, 1);
            for (size_t c = 0; c < D; c++)
                u[(j + 1) * D + c] = (double)e[c];
        }
        plain_logits(h, depth, u, logits);
        assert_rank(logits, node[i].token, node[i].rank);
    }
}

static const sb_token prompt[] = { 4, 9, 1, 7, 20, 3, 11 };

static void every_draft_is_what_the_heads_say(void **state)
{
    (void)state;
    static const struct {
        const char *drafter, *file, *text;
    } cases[] = {
        { "hydra", "hydra.safetensors", "hydra:head=hydra.safetensors,tree=4x3x2" },
        { "hydra", "hydra-shared.safetensors", "hydra:head=hydra-shared.safetensors" },
        { "hydra-pp", "hydra-pp.safetensors", "hydra-pp:head=hydra-pp.safetensors" },
    };
    static struct record r;
    static struct plain_head h;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_plain(&h, cases[i].drafter, cases[i].file);
        for (size_t n_prompt = 1; n_prompt < 8; n_prompt += 6) {
            run(&r, toy.model, cases[i].text, prompt, n_prompt);
            assert_true(r.accepted > 0);
            for (int32_t step = 0; step < r.steps; step += 3)
                check_step(&h, &r, step);
        }
        sb_head_close(&h.file);
    }
}

static void siblings_have_children_of_their_own(void **state)
{
    (void)state;
    static struct record r;
    run(&r, toy.model, "hydra:head=hydra.safetensors,tree=2x1", prompt, 7);
    int32_t differ = 0;
    for (int32_t step = 0; step < r.steps; step++) {
        const struct sb_node *node = r.node + r.from[step];
        differ += r.n_nodes[step] == 5 && node[3].token != node[4].token;
    }
    assert_true(differ > 3);
}

static void dropout_indices_change_nothing(void **state)
{
    (void)state;
    static struct record a, b;
    run(&a, toy.model, "hydra:head=hydra.safetensors", prompt, 5);
    run(&b, toy.model, "hydra:head=hydra-dropout.safetensors", prompt, 5);
    assert_int_equal(a.n, b.n);
    for (int32_t i = 0; i < a.n; i++) {
        assert_int_equal(a.node[i].token, b.node[i].token);
        assert_int_equal(a.node[i].parent, b.node[i].parent);
    }
}

/* ---- the oracle (methods B 12.1) ---- */

enum { C = CYCLE_VOCAB };

/* Three heads of one block that adds silu(0) = 0. Head i takes the last part of u, or the first, each a
 * multiple of a one-hot, and guesses the component that is x[n + i + 1], plus `shift`. */
static void make_oracle(const char *path, bool last, int shift)
{
    static float r[3][C * 5 * C], out[3][C * C], zero[C * 5 * C];
    struct made_tensor t[18];
    char name[18][48];
    size_t n = 0;
    memset(r, 0, sizeof r);
    memset(out, 0, sizeof out);
    for (size_t i = 0; i < 3; i++) {
        size_t width = (i + 2) * C, from = last ? (i + 1) * C : 0;
        /* The state is a one-hot at x[n], the embedding of t one at t + 1. */
        int turn = (last ? 0 : (int)i + 1) + shift;
        for (size_t c = 0; c < C; c++) {
            r[i][c * width + from + c] = 1;
            out[i][(c + (size_t)(turn + C)) % C * C + c] = 1;
        }
        const struct {
            const char *stem, *part;
            size_t n, k;
            const float *data;
        } parts[] = { { "hydra_mlp", "0.res_connection.weight", C, width, r[i] },
                      { "hydra_mlp", "0.res_connection.bias", 0, C, zero },
                      { "hydra_mlp", "0.linear.weight", C, width, zero },
                      { "hydra_mlp", "0.linear.bias", 0, C, zero },
                      { "hydra_lm_head", "weight", C, C, out[i] },
                      { "hydra_lm_head", "bias", 0, C, zero } };
        for (size_t k = 0; k < 6; k++, n++) {
            snprintf(name[n], sizeof name[n], "%s.%zu.%s", parts[k].stem, i, parts[k].part);
            t[n] = (struct made_tensor){
                .name = name[n], .n = parts[k].n, .k = parts[k].k, .data = parts[k].data
            };
        }
    }
    make_head(path, 1, t, n, NULL);
}

static void heads_see_the_newest_state_and_the_token_above(void **state)
{
    (void)state;
    static struct record r;
    static const sb_token start[] = { 3, 4, 5, 6 };
    for (int last = 0; last < 2; last++)
        for (int shift = -1; shift <= 1; shift++) {
            make_oracle("oracle.safetensors", last, shift);
            for (size_t n_prompt = 1; n_prompt < 5; n_prompt += 3) {
                run(&r, cycle.model, "hydra:head=oracle.safetensors,tree=1x1x1", start, n_prompt);
                assert_int_equal(r.accepted, shift ? 0 : r.drafted);
                assert_int_equal(r.steps, shift ? BUDGET - 1 : (BUDGET - 1 + 3) / 4);
            }
        }
}

/* ---- refusals ---- */

static void expect_refusal(const char *drafter, const char *message)
{
    struct sb_session *s = NULL;
    struct sb_error err = { .message = "" };
    enum sb_status rc = open_session(&s, toy.model, drafter, &err);
    if (rc == SB_OK || strncmp(err.message, message, strlen(message)) != 0)
        fail_msg("%s: got '%s', expected '%s'", drafter, rc == SB_OK ? "accepted" : err.message,
                 message);
    assert_int_equal(sb_exit_code(rc), 2);
    assert_null(s);
}

static void heads_of_another_kind_are_refused(void **state)
{
    (void)state;
    expect_refusal("hydra:head=hydra-pp.safetensors",
                   "hydra-pp.safetensors: is no head for hydra: looked for hydra_mlp.*, and no "
                   "prefix_embeding_layer.*; its tensors are those of hydra-pp heads");
    expect_refusal("hydra-pp:head=hydra.safetensors",
                   "hydra.safetensors: is no head for hydra-pp: looked for hydra_mlp.* and "
                   "prefix_embeding_layer.*; its tensors are those of hydra heads");
    expect_refusal("hydra:head=hydra.safetensors,heads=4",
                   "drafter hydra: heads=4: hydra.safetensors has 3");
    make_text("config.json", "{\"hydra_head_arch\": \"eagle-attn\"}");
    expect_refusal(
        "hydra:head=hydra.safetensors",
        "hydra.safetensors: config.json: 'hydra_head_arch' is 'eagle-attn'; drafter hydra "
        "runs 'mlp'");
    make_text("config.json", "{\"grounded_heads\": false}");
    expect_refusal("hydra:head=hydra.safetensors",
                   "hydra.safetensors: config.json: 'grounded_heads' is false: ");
    make_text("config.json", "{\"hidden_state_offset\": 3}");
    expect_refusal("hydra:head=hydra.safetensors",
                   "hydra.safetensors: config.json: 'hidden_state_offset' is 3; expected a whole "
                   "number from 0 to 2");
    make_text("config.json", "[]");
    expect_refusal("hydra:head=hydra.safetensors", "config.json: is no JSON object");
    make_text("config.json", "{\"hidden_size\": 32}");
    expect_refusal("hydra-pp:head=hydra-pp.safetensors",
                   "hydra-pp.safetensors: config.json: 'hidden_size' is 32; expected the target's "
                   "width, 16");
    make_text("config.json", "{\"intermediate_size\": 25}");
    expect_refusal(
        "hydra-pp:head=hydra-pp.safetensors",
        "hydra-pp.safetensors: tensor 'prefix_embeding_layer.layers.0.mlp.gate_proj.weight': "
        "found [24, 16], expected [25, 16]");
    make_text("config.json", "{\"hidden_state_offset\": 1, \"whatever\": {}}");
    struct sb_session *s = NULL;
    assert_int_equal(open_session(&s, toy.model, "hydra:head=hydra.safetensors", NULL), SB_OK);
    sb_session_destroy(s);
    remove("config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_draft_is_what_the_heads_say),
        cmocka_unit_test(siblings_have_children_of_their_own),
        cmocka_unit_test(dropout_indices_change_nothing),
        cmocka_unit_test(heads_see_the_newest_state_and_the_token_above),
        cmocka_unit_test(heads_of_another_kind_are_refused),
    };
    return cmocka_run_group_tests(tests, make_models, destroy_models);
}

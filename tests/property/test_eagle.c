/* The EAGLE family (methods B 5, 12): what its rows compute against the rule written down in double, the
 * discipline of stable and scratch rows, and files that must be refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "drafters/eagle_body.h"
#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/decode/session.h"
#include "tests/property/cycle_model.h"
#include "tests/property/eagle_maker.h"
#include "tests/property/head_maker.h"
#include "tests/property/plain_body.h"
#include "tests/property/toy_model.h"

enum { V = 24, D = 16, CONTEXT = 96, N_TEXT = 40, SCRATCH = 12 };

static struct toy_model toy;
static struct cycle_model cycle;
static sb_token text[N_TEXT];

static int prepare(void **state)
{
    (void)state;
    sb_threads_set(1);
    toy = toy_model_create(1, 0, V, CONTEXT, -1);
    cycle = cycle_model_create();
    for (int i = 0; i < N_TEXT; i++)
        text[i] = (sb_token)(i * i * 5 + i / 3) % V;
    assert_int_equal(sb_model_config(toy.model)->d_model, D);
    enter_folder();
    make_eagle_heads(D, V);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    leave_folder();
    toy_model_destroy(&toy);
    cycle_model_destroy(&cycle);
    return 0;
}

static const struct {
    const char *name;
    enum sb_eagle_kind kind;
} heads[] = { { "eagle", SB_EAGLE_1 },
              { "eagle-two", SB_EAGLE_1 },
              { "eagle3", SB_EAGLE_3 },
              { "eagle3-vllm", SB_EAGLE_3 } };
enum { N_HEADS = sizeof heads / sizeof *heads };

/* ---- a body with the target's hidden states ---- */

struct rig {
    struct sb_eagle_body body;
    struct sb_tap_plan plan;
    float *row[SB_MAX_TAPS];
    const float *taps[SB_MAX_TAPS];
};

static enum sb_status open_body(struct rig *rig, const char *name, enum sb_eagle_kind kind,
                                struct sb_error *err)
{
    *rig = (struct rig){ .plan = { .n_layers = sb_model_config(toy.model)->n_layers } };
    const struct sb_drafter_env env = {
        .target = toy.model, .max_context = CONTEXT, .n_vocab = V, .taps = &rig->plan
    };
    return sb_eagle_body_open(&rig->body, kind, &env, "it", name, SCRATCH, err);
}

static void rig_open(struct rig *rig, size_t head)
{
    struct sb_error err = { .message = "" };
    if (open_body(rig, heads[head].name, heads[head].kind, &err) != SB_OK)
        fail_msg("%s", err.message);
    struct sb_tap tap[SB_MAX_TAPS];
    struct sb_seq *seq;
    for (size_t i = 0; i < rig->plan.n; i++) {
        rig->taps[i] = rig->row[i] = sb_alloc_array(N_TEXT * D, sizeof(float));
        tap[i] = rig->plan.want[i];
        tap[i].dst = rig->row[i];
    }
    assert_int_equal(sb_seq_create(&seq, toy.model, CONTEXT, 8, NULL), SB_OK);
    assert_int_equal(sb_seq_prefill(seq, text, N_TEXT, tap, rig->plan.n, NULL, NULL), SB_OK);
    sb_seq_destroy(seq);
}

static void rig_close(struct rig *rig)
{
    sb_eagle_body_close(&rig->body);
    for (size_t i = 0; i < rig->plan.n; i++)
        sb_free(rig->row[i]);
}

static void start(struct rig *rig, size_t n)
{
    bool ready;
    const struct sb_context ctx = { .tokens = text, .n = n, .taps = rig->taps };
    assert_int_equal(sb_eagle_body_start(&rig->body, &ctx, &ready, NULL), SB_OK);
    assert_int_equal(ready, n > 1);
    if (ready) /* the root's row included */
        assert_int_equal(sb_draft_body_length(&rig->body.body), n - 1);
}

/* ---- the rule in double ---- */

static void plain_linear(const struct rig *rig, double *y, const double *x, size_t k)
{
    struct sb_tensor w, bias = { 0 };
    assert_int_equal(sb_head_matrix(&rig->body.head, &w, D, k, NULL, "fc.weight"), SB_OK);
    if (sb_head_find(&rig->body.head, "fc.bias"))
        assert_int_equal(sb_head_vector(&rig->body.head, &bias, D, NULL, "fc.bias"), SB_OK);
    plain_multiply(y, &w, x, &bias);
}

/* The row that pairs a feature with a token, as the body's layers take it. */
static void plain_input(const struct rig *rig, float *row, const double *feature, sb_token token)
{
    const struct sb_tensor *e = &rig->body.embedding;
    double pair[2 * D], fused[D];
    for (size_t i = 0; i < D; i++) {
        pair[i] = (double)((const float *)e->data)[(size_t)token * D + i];
        pair[D + i] = feature[i];
    }
    if (!rig->body.pairs)
        plain_linear(rig, fused, pair, 2 * D);
    for (size_t i = 0; i < (rig->body.pairs ? 2 * D : D); i++)
        row[i] = (float)(rig->body.pairs ? pair[i] : fused[i]);
}

static void true_feature(const struct rig *rig, size_t i, double *feature)
{
    double joined[SB_MAX_TAPS * D];
    for (size_t t = 0; t < rig->body.n_taps; t++)
        for (size_t k = 0; k < D; k++)
            joined[t * D + k] = (double)rig->taps[rig->body.tap[t]][i * D + k];
    if (rig->body.pairs)
        plain_linear(rig, feature, joined, rig->body.n_taps * D);
    else
        memcpy(feature, joined, D * sizeof *feature);
}

static void plain_logits(const struct rig *rig, const double *g, double *logits)
{
    const struct sb_weights *w = sb_model_weights(rig->body.body.model),
                            *target = sb_model_weights(toy.model);
    double normed[D];
    memcpy(normed, g, sizeof normed);
    if (w->final_norm.data)
        plain_norm(normed, g, &w->final_norm, 1e-5);
    plain_multiply(logits, w->lm_head.data ? &w->lm_head : &target->lm_head, normed, NULL);
}

/* Features g[n] that leave the stable rows 0..n-1. */
static void plain_stable(const struct rig *rig, struct plain_body *p, size_t n, double (*g)[D])
{
    float row[2 * D];
    double feature[D];
    for (size_t i = 0; i < n; i++) {
        true_feature(rig, i, feature);
        plain_input(rig, row, feature, text[i + 1]);
        plain_body_row(p, sb_model_weights(rig->body.body.model), row, i, g[i]);
    }
}

static void assert_logits(const struct rig *rig, int32_t row, const double *g)
{
    double want[V];
    const float *got = sb_eagle_body_logits(&rig->body, row);
    double most = 1;
    plain_logits(rig, g, want);
    for (size_t i = 0; i < rig->body.n_draft; i++)
        most = fmax(most, fabs(want[i]));
    for (size_t i = 0; i < rig->body.n_draft; i++)
        if (!(fabs((double)got[i] - want[i]) < 5e-5 * most))
            fail_msg("%s row %d: logit %zu is %g, expected %g", rig->body.head.path, row, i,
                     (double)got[i], want[i]);
}

/* Row n - 2 tells of what comes behind the root x[n - 1]: teacher forcing, all rows at once, gives what steps
 * of any length arrive at. */
static void stable_rows_are_those_of_teacher_forcing(void **state)
{
    (void)state;
    static struct plain_body p;
    static double g[N_TEXT][D];
    for (size_t h = 0; h < N_HEADS; h++)
        for (size_t stride = 1; stride < 6; stride += 2) {
            struct rig rig;
            rig_open(&rig, h);
            plain_stable(&rig, &p, N_TEXT - 1, g);
            for (size_t n = 1; n <= N_TEXT; n += stride) {
                start(&rig, n);
                if (n > 1)
                    assert_logits(&rig, SB_PARENT_PREFIX, g[n - 2]);
            }
            rig_close(&rig);
        }
}

/* The trace of methods B 5.0: A and B below the root take the feature that left its row and stand one behind
 * it; C below A takes A's. */
static void scratch_rows_take_the_feature_above_and_the_next_position(void **state)
{
    (void)state;
    static struct plain_body p;
    static double g[N_TEXT][D];
    for (size_t h = 0; h < N_HEADS; h++)
        for (size_t n = 2; n < 20; n += 3) {
            static const sb_token tokens[] = { 5, 9, 7 };
            static const int32_t root[] = { SB_PARENT_PREFIX, SB_PARENT_PREFIX };
            struct rig rig;
            int32_t first;
            float row[2 * D];
            double a[D], x[D];
            rig_open(&rig, h);
            const struct sb_weights *w = sb_model_weights(rig.body.body.model);
            plain_stable(&rig, &p, n - 1, g);
            start(&rig, n);
            assert_int_equal(sb_eagle_body_grow(&rig.body, tokens, root, 2, &first, NULL), SB_OK);
            assert_int_equal(first, 0);
            plain_input(&rig, row, g[n - 2], tokens[1]);
            plain_body_row(&p, w, row, n - 1, x);
            assert_logits(&rig, 1, x);
            plain_input(&rig, row, g[n - 2], tokens[0]);
            plain_body_row(&p, w, row, n - 1, a);
            assert_logits(&rig, 0, a);
            const int32_t above = 0;
            assert_int_equal(sb_eagle_body_grow(&rig.body, tokens + 2, &above, 1, &first, NULL),
                             SB_OK);
            assert_int_equal(first, 2);
            plain_input(&rig, row, a, tokens[2]);
            plain_body_row(&p, w, row, n, x);
            assert_logits(&rig, 2, x);
            rig_close(&rig);
        }
}

/* ---- steps with rejections against a fresh start ---- */

/* A draft that nobody keeps: three levels below one another, and siblings. */
static void scribble(struct rig *rig, size_t seed)
{
    sb_token token[3];
    int32_t above[3] = { SB_PARENT_PREFIX, SB_PARENT_PREFIX, SB_PARENT_PREFIX }, first;
    for (size_t level = 0; level < 3; level++) {
        for (size_t i = 0; i < 3; i++)
            token[i] = (sb_token)((seed * 7 + level * 3 + i) % V);
        assert_int_equal(sb_eagle_body_grow(&rig->body, token, above, 3, &first, NULL), SB_OK);
        for (size_t i = 0; i < 3; i++)
            above[i] = first + (int32_t)((i + seed) % 3);
    }
}

static void forty_steps_leave_what_a_fresh_start_makes(void **state)
{
    (void)state;
    for (size_t h = 0; h < N_HEADS; h++) {
        struct rig old, new;
        rig_open(&old, h);
        for (size_t n = 2, step = 0; n <= N_TEXT; n += step % 4 ? 1 : 3, step++) {
            start(&old, n);
            rig_open(&new, h);
            const struct sb_context ctx = { .tokens = text, .n = n, .taps = new.taps };
            assert_int_equal(sb_eagle_body_begin(&new.body, &ctx, NULL), SB_OK);
            start(&new, n);
            assert_memory_equal(sb_eagle_body_logits(&old.body, SB_PARENT_PREFIX),
                                sb_eagle_body_logits(&new.body, SB_PARENT_PREFIX),
                                old.body.n_draft * sizeof(float));
            scribble(&old, step);
            scribble(&new, step);
            for (int32_t row = 6; row < 9; row++) /* the last level's */
                assert_memory_equal(sb_eagle_body_logits(&old.body, row),
                                    sb_eagle_body_logits(&new.body, row),
                                    old.body.n_draft * sizeof(float));
            rig_close(&new);
        }
        /* A new prompt forgets all of it. */
        rig_open(&new, h);
        const struct sb_context ctx = { .tokens = text, .n = 7, .taps = old.taps };
        assert_int_equal(sb_eagle_body_begin(&old.body, &ctx, NULL), SB_OK);
        start(&old, 7);
        start(&new, 7);
        assert_memory_equal(sb_eagle_body_logits(&old.body, SB_PARENT_PREFIX),
                            sb_eagle_body_logits(&new.body, SB_PARENT_PREFIX),
                            old.body.n_draft * sizeof(float));
        rig_close(&old);
        rig_close(&new);
    }
}

/* ---- the oracle: which position, which token, which feature (methods B 12.1) ---- */

struct tally {
    int32_t steps, accepted, drafted;
};

static void count_step(void *self, const struct sb_step *step)
{
    struct tally *tally = self;
    tally->steps++;
    tally->accepted += step->accepted;
    tally->drafted += step->drafted;
}

static struct tally generate(struct sb_model *target, const char *drafter, const sb_token *prompt,
                             size_t n_prompt, size_t budget, sb_token *tokens)
{
    struct sb_session *s;
    struct sb_spec spec;
    struct sb_generation out;
    struct sb_error err = { .message = "" };
    struct tally tally = { 0 };
    assert_int_equal(sb_spec_parse(&spec, drafter, NULL), SB_OK);
    if (sb_session_create(&s, &(struct sb_session_options){ .target = target, .drafter = &spec },
                          &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    const struct sb_request request = { .prompt = prompt,
                                        .n_prompt = n_prompt,
                                        .max_new_tokens = budget,
                                        .on_step = count_step,
                                        .self = &tally };
    assert_int_equal(sb_session_generate(s, &request, &out, NULL), SB_OK);
    assert_int_equal(out.tokens.n, budget);
    memcpy(tokens, out.tokens.id, budget * sizeof *tokens);
    sb_generation_finish(&out);
    sb_session_destroy(s);
    sb_spec_finish(&spec);
    return tally;
}

/* fc = scale * (component c + shift from component c), in the columns of the embedding or of the feature. */
static void fill_shift(float *fc, size_t width, size_t column, int shift, float scale)
{
    enum { W = CYCLE_VOCAB };
    memset(fc, 0, W * width * sizeof *fc);
    for (int c = 0; c < W; c++)
        fc[(size_t)((c + shift + W) % W) * width + column + (size_t)c] = scale;
}

/* A head whose layer adds nothing: what leaves a row is fc of its input (EAGLE-1), or its feature (EAGLE-3,
 * whose fed-back features pass no fc). */
static void make_oracle(const char *name, enum sb_eagle_kind kind, const float *fc)
{
    enum { W = CYCLE_VOCAB };
    static float zero[2 * W * W], one[W * W];
    static const char *const matrices[] = { "self_attn.q_proj", "self_attn.k_proj",
                                            "self_attn.v_proj", "self_attn.o_proj",
                                            "mlp.gate_proj",    "mlp.up_proj",
                                            "mlp.down_proj" };
    struct made_tensor t[16];
    char names[16][64], path[96], config[96];
    bool first = kind == SB_EAGLE_1;
    const char *stem = first ? "layers.0." : "midlayer.";
    size_t n = 0;
    for (int i = 0; i < W; i++)
        one[i * W + i] = 1;
    for (; n < 7; n++) {
        snprintf(names[n], 64, "%s%s.weight", stem, matrices[n]);
        t[n] = (struct made_tensor){
            .name = names[n], .n = W, .k = n < 3 && !first ? 2 * W : W, .data = zero
        };
    }
    static const char *const norms[] = { "post_attention_layernorm", "input_layernorm",
                                         "hidden_norm" };
    for (int i = 0; i < (first ? 1 : 3); i++, n++) {
        snprintf(names[n], 64, "%s%s.weight", stem, norms[i]);
        t[n] = (struct made_tensor){ .name = names[n], .k = W };
    }
    t[n++] =
        (struct made_tensor){ .name = "fc.weight", .n = W, .k = first ? 2 * W : W, .data = fc };
    if (!first) {
        t[n++] = (struct made_tensor){ .name = "norm.weight", .k = W };
        t[n++] = (struct made_tensor){ .name = "lm_head.weight", .n = W, .k = W, .data = one };
    }
    mkdir(name, 0777);
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    make_head(path, 1, t, n, NULL);
    snprintf(path, sizeof path, "%s/config.json", name);
    snprintf(config, sizeof config,
             "{\"intermediate_size\": %d, \"eagle_aux_hidden_state_layer_ids\": [0]}", W);
    make_text(path, config);
}

static void assert_counting(const sb_token *tokens, size_t n, sb_token from)
{
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tokens[i], (from + 1 + (sb_token)i) % CYCLE_VOCAB);
}

/* The target's state at x[i] is a one-hot of x[i + 1]: what a row has to predict is the one-hot of its token's
 * successor, which is also its feature moved on by one. Read any other token, feature or position, and no
 * draft is right. */
static void rows_pair_a_feature_with_the_token_after_it(void **state)
{
    (void)state;
    enum { W = CYCLE_VOCAB, STEPS = 8 };
    static float fc[W * 2 * W];
    static const sb_token prompt[] = { 3, 4, 5, 6, 7, 8 };
    sb_token tokens[64];
    for (int shift = -2; shift <= 2; shift++)
        for (int by_feature = 0; by_feature < 2; by_feature++) {
            /* e(t) is the one-hot of t + 1 already. */
            fill_shift(fc, 2 * W, by_feature ? W : 0, shift + by_feature, by_feature ? 1 : 4);
            make_oracle("oracle", SB_EAGLE_1, fc);
            for (size_t n_prompt = 1; n_prompt <= 6; n_prompt++) {
                const char *drafters[] = { "eagle:head=oracle,tree=1x1x1",
                                           "eagle2:head=oracle,depth=2,topk=1" };
                for (int d = 0; d < 2; d++) {
                    struct tally t =
                        generate(cycle.model, drafters[d], prompt, n_prompt, 1 + 4 * STEPS, tokens);
                    assert_counting(tokens, 1 + 4 * STEPS, prompt[n_prompt - 1]);
                    assert_int_equal(t.accepted, shift == 0 ? 3 * STEPS : 0);
                    if (shift == 0)
                        assert_int_equal(t.steps, STEPS);
                }
            }
        }
}

/* With fc = [0 | I] and a layer of zeros the drafter takes every feature for the one before: it repeats the
 * root (methods B 5.1, test 3). */
static void a_head_that_passes_features_on_repeats_the_root(void **state)
{
    (void)state;
    static float fc[CYCLE_VOCAB * 2 * CYCLE_VOCAB];
    static const sb_token prompt[] = { 9, 10 };
    sb_token tokens[20];
    fill_shift(fc, 2 * CYCLE_VOCAB, CYCLE_VOCAB, 0, 1);
    make_oracle("repeats", SB_EAGLE_1, fc);
    struct tally t = generate(cycle.model, "eagle:head=repeats,tree=1x1", prompt, 2, 20, tokens);
    assert_int_equal(t.accepted, 0);
    assert_counting(tokens, 20, 10);
}

/* EAGLE-3 reads the stream that enters a layer: e(x[i]), a one-hot of x[i] + 1. Its layer of zeros leaves the
 * feature as it is, so a chain says the same token at every depth: fc moved by 1 + j is right at depth j. */
static void eagle3_reads_the_stream_that_enters_a_layer(void **state)
{
    (void)state;
    enum { W = CYCLE_VOCAB };
    static float fc[W * W];
    static const sb_token prompt[] = { 3, 4, 5, 6, 7, 8 };
    sb_token tokens[64];
    for (int shift = 0; shift <= 3; shift++) {
        fill_shift(fc, W, 0, shift, 1);
        make_oracle("oracle3", SB_EAGLE_3, fc);
        struct tally one =
            generate(cycle.model, "eagle3:head=oracle3,depth=0,topk=1", prompt, 3, 33, tokens);
        assert_counting(tokens, 33, 5);
        assert_int_equal(one.accepted, shift == 1 ? one.drafted : 0);
    }
}

/* ---- files ---- */

static void expect_refusal(const char *name, enum sb_eagle_kind kind, enum sb_status want,
                           const char *a, const char *b)
{
    struct rig rig;
    struct sb_error err = { .message = "" };
    enum sb_status rc = open_body(&rig, name, kind, &err);
    sb_eagle_body_close(&rig.body);
    if (rc != want || !strstr(err.message, a) || !strstr(err.message, b))
        fail_msg("%s: %d %s", name, rc, err.message);
}

static void heads_of_another_kind_or_shape_are_refused(void **state)
{
    (void)state;
    expect_refusal("eagle3", SB_EAGLE_1, SB_EFORMAT, "eagle3", "fc.weight");
    expect_refusal("eagle", SB_EAGLE_3, SB_EFORMAT, "eagle", "hidden_norm");
    expect_refusal("nowhere", SB_EAGLE_1, SB_EINPUT, "nowhere", "");
    struct made_tensor fc = { .name = "fc.weight", .n = D, .k = D, .scale = .1 };
    mkdir("bad", 0777);
    make_head("bad/model.safetensors", 1, &fc, 1, NULL);
    expect_refusal("bad", SB_EAGLE_1, SB_EFORMAT, "tensor 'fc.weight'", "[16, 32]");
    fc.k = 2 * D;
    make_head("bad/model.safetensors", 1, &fc, 1, NULL);
    expect_refusal("bad", SB_EAGLE_1, SB_EFORMAT, "layers.0.self_attn.q_proj.weight", "missing");
    make_head("bad/model.safetensors", 1, &fc, 1, "0123456789abcdef");
    expect_refusal("bad", SB_EAGLE_1, SB_EUSAGE, "bad", "target");
    make_text("bad/config.json", "{\"hidden_act\": \"gelu\"}");
    make_head("bad/model.safetensors", 1, &fc, 1, NULL);
    expect_refusal("bad", SB_EAGLE_1, SB_EUNSUPPORTED, "gelu", "silu");
    make_text("bad/config.json", "{\"hidden_size\": 8}");
    expect_refusal("bad", SB_EAGLE_1, SB_EFORMAT, "hidden_size is 8", "16");
    make_text("bad/config.json", "{\"num_attention_heads\": 3}");
    expect_refusal("bad", SB_EAGLE_1, SB_EFORMAT, "bad", "");
}

static void layers_that_the_target_lacks_are_refused(void **state)
{
    (void)state;
    struct made_tensor t[] = { { .name = "fc.weight", .n = D, .k = 3 * D, .scale = .1 },
                               { .name = "midlayer.hidden_norm.weight", .k = D } };
    mkdir("deep", 0777);
    make_head("deep/model.safetensors", 1, t, 2, NULL);
    expect_refusal("deep", SB_EAGLE_3, SB_EUSAGE, "L-3", "this one has 2");
    make_text("deep/config.json", "{\"eagle_aux_hidden_state_layer_ids\": [0, 1, 3]}");
    expect_refusal("deep", SB_EAGLE_3, SB_EFORMAT, "entry 2", "target of 2");
    make_text("deep/config.json",
              "{\"eagle_aux_hidden_state_layer_ids\": [0, 1, 1], \"norm_before_fc\": true}");
    expect_refusal("deep", SB_EAGLE_3, SB_EUNSUPPORTED, "norm_before_fc", "");
}

/* ids = 0, 1, 2, ... change nothing. */
static void an_identity_map_is_no_map(void **state)
{
    (void)state;
    struct rig plain, mapped;
    sb_token a[V], b[V];
    float p[V], q[V];
    int32_t n_a, n_b;
    rig_open(&plain, 2);
    rig_open(&mapped, 2);
    for (size_t i = 0; i < mapped.body.n_draft; i++)
        mapped.body.map[i] = (sb_token)i;
    sb_token *map = plain.body.map;
    plain.body.map = NULL;
    start(&plain, 9);
    start(&mapped, 9);
    assert_int_equal(sb_eagle_body_best(&plain.body, -1, V, a, p, &n_a, NULL), SB_OK);
    assert_int_equal(sb_eagle_body_best(&mapped.body, -1, V, b, q, &n_b, NULL), SB_OK);
    assert_int_equal(n_a, V - 5);
    assert_int_equal(n_b, V - 5);
    assert_memory_equal(a, b, (size_t)n_a * sizeof *a);
    assert_memory_equal(p, q, (size_t)n_a * sizeof *p);
    plain.body.map = map;
    rig_close(&plain);
    rig_close(&mapped);
}

static void tokens_outside_the_draft_vocabulary_are_never_drafted(void **state)
{
    (void)state;
    struct rig rig;
    sb_token token[V];
    float log_prob[V];
    int32_t n;
    rig_open(&rig, 2);
    start(&rig, 12);
    assert_int_equal(sb_eagle_body_best(&rig.body, -1, V, token, log_prob, &n, NULL), SB_OK);
    assert_int_equal(n, V - 5);
    double sum = 0;
    for (int32_t i = 0; i < n; i++) {
        assert_true(token[i] < 3 || (token[i] >= 7 && token[i] < V - 1));
        assert_true(i == 0 || log_prob[i] <= log_prob[i - 1]);
        sum += exp((double)log_prob[i]);
    }
    assert_true(fabs(sum - 1) < 1e-5);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stable_rows_are_those_of_teacher_forcing),
        cmocka_unit_test(scratch_rows_take_the_feature_above_and_the_next_position),
        cmocka_unit_test(forty_steps_leave_what_a_fresh_start_makes),
        cmocka_unit_test(rows_pair_a_feature_with_the_token_after_it),
        cmocka_unit_test(a_head_that_passes_features_on_repeats_the_root),
        cmocka_unit_test(eagle3_reads_the_stream_that_enters_a_layer),
        cmocka_unit_test(heads_of_another_kind_or_shape_are_refused),
        cmocka_unit_test(layers_that_the_target_lacks_are_refused),
        cmocka_unit_test(an_identity_map_is_no_map),
        cmocka_unit_test(tokens_outside_the_draft_vocabulary_are_never_drafted),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}

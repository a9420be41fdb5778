/* Training = inference (methods B 12.2): at every depth, what the tape computes of a text all at once is what the
 * drafter's rows give step by step when they are led along that text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "drafters/eagle_body.h"
#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/train/head.h"
#include "tests/property/head_maker.h"

enum { D = 16, V = 31, N = 14, DEPTH = 4, CONTEXT = 64 };

static const struct sb_lm_shape shape = { .n_layers = 5,
                                          .d_model = D,
                                          .n_heads = 2,
                                          .n_kv_heads = 1,
                                          .d_ff = 24,
                                          .n_vocab = V,
                                          .max_context = CONTEXT,
                                          .rope_base = 3000,
                                          .norm_eps = 1e-5 };

/* ---- the same target for both ---- */

static struct sb_tensor view(const struct sb_var *var)
{
    return (struct sb_tensor){ var->x, SB_F32, var->rows, var->cols };
}

static struct sb_model *make_model(const struct sb_lm *lm)
{
    const struct sb_config config = { .arch = "llama",
                                      .n_layers = shape.n_layers,
                                      .d_model = D,
                                      .n_heads = shape.n_heads,
                                      .n_kv_heads = shape.n_kv_heads,
                                      .head_dim = D / shape.n_heads,
                                      .d_ff = shape.d_ff,
                                      .n_vocab = V,
                                      .max_context = CONTEXT,
                                      .norm_eps = (float)shape.norm_eps,
                                      .rope_base = shape.rope_base,
                                      .rope_scale_linear = 1,
                                      .rope_layout = SB_ROPE_HALF };
    struct sb_weights *w;
    struct sb_model *model;
    assert_int_equal(sb_weights_body(&w, &config, "it", NULL), SB_OK);
    w->embedding = w->lm_head = view(&lm->embedding);
    w->final_norm = view(&lm->final_norm);
    for (size_t i = 0; i < shape.n_layers; i++) {
        const struct sb_lm_layer *l = &lm->layers[i];
        w->layers[i] = (struct sb_layer_weights){ .attn_norm = view(&l->attn_norm),
                                                  .wq = view(&l->wq),
                                                  .wk = view(&l->wk),
                                                  .wv = view(&l->wv),
                                                  .wo = view(&l->wo),
                                                  .ffn_norm = view(&l->ffn_norm),
                                                  .w_gate = view(&l->w_gate),
                                                  .w_up = view(&l->w_up),
                                                  .w_down = view(&l->w_down) };
    }
    assert_int_equal(sb_model_from_weights(&model, w, NULL), SB_OK);
    return model;
}

/* The head's tensors and configuration as a folder. */
static void write_head(const struct sb_head *head, const char *name)
{
    struct made_tensor t[32];
    char path[64];
    const struct sb_trainable *w = &head->weights;
    assert_true(w->n_tensors <= 32);
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct sb_trainable_tensor *from = &w->tensors[i];
        t[i] = (struct made_tensor){ .name = from->name,
                                     .n = from->is_vector ? 0 : from->var->rows,
                                     .k = from->var->cols,
                                     .data = from->var->x };
    }
    mkdir(name, 0777);
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    make_head(path, 1, t, w->n_tensors, NULL);
    json_t *config = head->ops->config(head);
    char *text = json_dumps(config, 0);
    snprintf(path, sizeof path, "%s/config.json", name);
    make_text(path, text);
    free(text);
    json_decref(config);
}

/* ---- one text, both ways ---- */

struct world {
    struct sb_lm *lm;
    struct sb_model *model;
    struct sb_head *head;
    struct sb_spec spec;
    struct sb_tape *tape;
    struct sb_head_rows rows;
    struct sb_head_output out;
    sb_token text[N + 1];
};

static void train_forward(struct world *w)
{
    static int32_t positions[N], next[N];
    static sb_real counts[N];
    static const size_t starts[] = { 0, N };
    for (int32_t i = 0; i < N; i++) {
        positions[i] = i;
        next[i] = w->text[i + 1];
        counts[i] = 1;
    }
    const struct sb_head_texts texts = { { w->text, positions, N, { starts, 1 } }, next, counts };
    struct sb_lm_states states;
    assert_non_null(sb_lm_forward_states(w->lm, w->tape, &texts.rows, &states));
    assert_true(sb_head_rows_make(&w->rows, w->tape, &texts, DEPTH));
    const struct sb_head_input in = { w->tape, &texts, &w->rows, &states };
    w->head->ops->forward(w->head, &in, &w->out);
}

static void compare(const struct world *w, size_t depth, size_t row, const float *got)
{
    const sb_real *want = w->out.logits[depth]->x + row * V;
    double most = 1;
    for (size_t i = 0; i < V; i++)
        most = fmax(most, fabs((double)want[i]));
    for (size_t i = 0; i < V; i++)
        if (!(fabs((double)got[i] - (double)want[i]) < 1e-5 * most))
            fail_msg("%s: depth %zu, row %d: logit %zu is %g, in training %g", w->spec.name, depth,
                     w->rows.at[row], i, (double)got[i], (double)want[i]);
}

/* The drafter at every row, led along the text; returns how many logit rows were compared. */
static size_t follow(const struct world *w, enum sb_eagle_kind kind)
{
    struct sb_eagle_body body = { 0 };
    struct sb_tap_plan plan = { .n_layers = shape.n_layers };
    struct sb_tap tap[SB_MAX_TAPS];
    const float *taps[SB_MAX_TAPS];
    struct sb_seq *seq;
    struct sb_error err = { .message = "" };
    size_t compared = 0;
    const struct sb_drafter_env env = {
        .target = w->model, .max_context = CONTEXT, .n_vocab = V, .taps = &plan
    };
    if (sb_eagle_body_open(&body, kind, &env, "it", w->spec.name, DEPTH, &err) != SB_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < plan.n; i++) {
        tap[i] = plan.want[i];
        taps[i] = tap[i].dst = sb_alloc_array(N * D, sizeof(float));
    }
    assert_int_equal(sb_seq_create(&seq, w->model, CONTEXT, N, NULL), SB_OK);
    assert_int_equal(sb_seq_prefill(seq, w->text, N, tap, plan.n, NULL, NULL), SB_OK);
    for (size_t r = 0; r < w->rows.n; r++) {
        int32_t at = w->rows.at[r], row = SB_PARENT_PREFIX;
        bool ready;
        const struct sb_context ctx = { .tokens = w->text, .n = (size_t)at + 2, .taps = taps };
        assert_int_equal(sb_eagle_body_start(&body, &ctx, &ready, NULL), SB_OK);
        assert_true(ready);
        for (size_t depth = 0; depth < DEPTH; depth++) {
            if (w->rows.weight[depth][r] == 0)
                break;
            const sb_token *token = &w->text[(size_t)at + 1 + depth];
            int32_t above = row;
            assert_int_equal(w->rows.token[depth][r], *token);
            if (depth > 0)
                assert_int_equal(sb_eagle_body_grow(&body, token, &above, 1, &row, NULL), SB_OK);
            compare(w, depth, r, sb_eagle_body_logits(&body, row));
            compared++;
        }
    }
    sb_seq_destroy(seq);
    sb_eagle_body_close(&body);
    for (size_t i = 0; i < plan.n; i++)
        sb_free(tap[i].dst);
    return compared;
}

static void drafting_along_a_text_gives_the_numbers_of_training(void **state)
{
    (void)state;
    static const struct {
        const char *spec;
        enum sb_eagle_kind kind;
    } cases[] = { { "eagle:steps=4", SB_EAGLE_1 },
                  { "eagle:steps=1,measure_steps=4,bias=false", SB_EAGLE_1 },
                  { "eagle3:steps=4", SB_EAGLE_3 } };
    enter_folder();
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct world w = { 0 };
        assert_int_equal(sb_lm_create(&w.lm, &shape, true, NULL), SB_OK);
        sb_trainable_init(&w.lm->weights, 3);
        for (size_t i = 0; i < w.lm->weights.n_params; i++)
            w.lm->weights.x[i] *= 2;
        w.model = make_model(w.lm);
        for (int i = 0; i <= N; i++)
            w.text[i] = (i * i * 7 + i) % V;
        assert_int_equal(sb_spec_parse(&w.spec, cases[c].spec, NULL), SB_OK);
        assert_int_equal(
            sb_head_create(&w.head, sb_head_arch_find(w.spec.name), &w.spec, w.lm, 5, NULL), SB_OK);
        struct sb_rng rng = sb_rng_make(9, SB_STREAM_INIT); /* away from where heads start */
        for (size_t i = 0; i < w.head->weights.n_params; i++)
            w.head->weights.x[i] += (sb_real)(.1 * sb_rng_normal(&rng));
        assert_int_equal(sb_tape_create(&w.tape, NULL), SB_OK);
        train_forward(&w);
        write_head(w.head, w.spec.name);
        assert_true(follow(&w, cases[c].kind) > 30);
        sb_tape_destroy(w.tape);
        sb_head_destroy(w.head);
        sb_spec_finish(&w.spec);
        sb_model_destroy(w.model);
        sb_lm_destroy(w.lm);
    }
    leave_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafting_along_a_text_gives_the_numbers_of_training),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Draft heads in the double-precision build: gradients, positions, what a fresh head says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/train/adamw.h"
#include "harness/train/head.h"

static const struct sb_lm_shape shape = {
    .n_layers = 3,
    .d_model = 8,
    .n_heads = 2,
    .n_kv_heads = 1,
    .d_ff = 12,
    .n_vocab = 13,
    .max_context = 32,
    .rope_base = 10000,
    .norm_eps = 1e-5,
};
/* Two texts; the first token of each has no loss. */
static const int32_t ids[] = { 1, 5, 12, 5, 0, 3, 4, 7, 2 },
                     next[] = { 5, 12, 5, 0, 9, 4, 7, 2, 8 };
static const int32_t positions[] = { 0, 1, 2, 3, 4, 0, 1, 2, 3 };
static const size_t starts[] = { 0, 5, 9 };
static const sb_real counts[] = { 0, 1, 1, 1, 1, 0, 1, 1, 1 };
static const struct sb_head_texts texts = { { ids, positions, 9, { starts, 2 } }, next, counts };

/* Every architecture, small, with each of its forms. */
static const char *const specs[] = {
    "eagle:steps=1",
    "eagle:steps=3,bias=false",
    "eagle3:steps=3",
    "eagle3:steps=2,draft_vocab=7",
    "hydra:heads=3,layers=2",
    "hydra:heads=2,share_lm_head=true",
    "hydra-pp:heads=2,layers=2",
    "medusa:heads=3,layers=2",
    "medusa:heads=2,share_lm_head=true",
    "mlp-speculator:n_predict=3,inner_dim=6",
    "mlp-speculator:n_predict=3,inner_dim=6,tie_weights=true,scale_input=true",
    "redrafter:length=3,layers=2",
    "redrafter:length=3,layers=1,rnn=false",
};
enum { N_SPECS = sizeof specs / sizeof *specs };

static const int32_t draft_ids[] = { 0, 2, 4, 5, 8, 9, 12 };

/* A target, a head for it, and the tapes of both. */
struct world {
    struct sb_lm *target;
    struct sb_tape *target_tape, *tape;
    struct sb_spec spec;
    struct sb_head *head;
    struct sb_lm_states states;
    const struct sb_var *logits;
    struct sb_head_rows rows;
    struct sb_head_output out;
    struct sb_head_input in;
};

static void open_world(struct world *w, const char *spec)
{
    struct sb_error err;
    *w = (struct world){ 0 };
    assert_int_equal(sb_lm_create(&w->target, &shape, true, &err), SB_OK);
    sb_trainable_init(&w->target->weights, 3);
    for (size_t i = 0; i < w->target->weights.n_params; i++)
        w->target->weights.x[i] *= 3; /* far from uniform */
    assert_int_equal(sb_tape_create(&w->target_tape, &err), SB_OK);
    assert_int_equal(sb_tape_create(&w->tape, &err), SB_OK);
    assert_int_equal(sb_spec_parse(&w->spec, spec, &err), SB_OK);
    const struct sb_head_ops *ops = sb_head_arch_find(w->spec.name);
    assert_non_null(ops);
    if (sb_head_create(&w->head, ops, &w->spec, w->target, 5, &err) != SB_OK)
        fail_msg("%s: %s", spec, err.message);
    if (w->head->n_draft)
        assert_int_equal(sb_head_set_vocabulary(w->head, draft_ids, &err), SB_OK);
}

static void close_world(struct world *w)
{
    sb_head_destroy(w->head);
    sb_spec_finish(&w->spec);
    sb_tape_destroy(w->tape);
    sb_tape_destroy(w->target_tape);
    sb_lm_destroy(w->target);
}

static void run_target(struct world *w, const struct sb_head_texts *on)
{
    sb_tape_reset(w->target_tape);
    w->logits = sb_lm_forward_states(w->target, w->target_tape, &on->rows, &w->states);
    assert_non_null(w->logits);
}

static void run_head(struct world *w, const struct sb_head_texts *on, size_t depth)
{
    sb_tape_reset(w->tape);
    assert_true(sb_head_rows_make(&w->rows, w->tape, on, depth));
    w->in = (struct sb_head_input){ w->tape, on, &w->rows, &w->states };
    w->out = (struct sb_head_output){ 0 };
    w->head->ops->forward(w->head, &w->in, &w->out);
}

static struct sb_var *loss_of(struct world *w, const struct sb_head_loss *loss)
{
    run_head(w, &texts, w->head->depth);
    sb_head_rows_limit(&w->rows, w->head, w->logits->x, loss->labels);
    struct sb_var *sum = sb_head_loss(w->head, &w->in, &w->out, w->logits->x, loss, 2);
    assert_non_null(sum);
    return sum;
}

/* Away from zeros and identities, where a missing gradient would not show. */
static void stir(struct sb_head *head)
{
    struct sb_rng rng = sb_rng_make(77, SB_STREAM_INIT);
    for (size_t i = 0; i < head->weights.n_params; i++)
        head->weights.x[i] += 0.2 * sb_rng_normal(&rng);
}

static void every_head_agrees_with_central_differences(void **state)
{
    (void)state;
    const double h = 1e-5;
    const struct sb_head_loss losses[] = {
        { .by = { .kind = SB_SOFT_CE }, .weight = 0.7, .feature = 0.5, .decay = 0.8 },
        { .labels = true, .weight = 1, .decay = 0.9 },
    };
    for (size_t s = 0; s < N_SPECS; s++) {
        struct world w;
        struct sb_error err;
        open_world(&w, specs[s]);
        stir(w.head);
        run_target(&w, &texts);
        const struct sb_head_loss *loss = &losses[s % 2];
        struct sb_trainable *weights = &w.head->weights;
        sb_trainable_clear_grads(weights);
        assert_int_equal(sb_tape_backward(w.tape, loss_of(&w, loss), &err), SB_OK);
        for (size_t t = 0; t < weights->n_tensors; t++) {
            struct sb_var *var = weights->tensors[t].var;
            assert_true(var->has_grad);
            for (size_t i = 0; i < var->rows * var->cols; i++) {
                sb_real was = var->x[i], got = var->dx[i];
                var->x[i] = was + h;
                double above = loss_of(&w, loss)->x[0];
                var->x[i] = was - h;
                double below = loss_of(&w, loss)->x[0];
                var->x[i] = was;
                double want = (above - below) / (2 * h);
                if (!(fabs(got - want) <= 1e-6 * fmax(1, fabs(want))))
                    fail_msg("%s: %s, element %zu: tape %.9g, differences %.9g", specs[s],
                             weights->tensors[t].name, i, got, want);
            }
        }
        close_world(&w);
    }
}

static void every_head_can_learn_a_batch_by_heart(void **state)
{
    (void)state;
    const struct sb_head_loss loss = { .labels = true, .weight = 1, .decay = 1 };
    struct sb_adamw_options options = { .lr = 0.03,
                                        .min_lr_ratio = 0.1,
                                        .beta1 = 0.9,
                                        .beta2 = 0.95,
                                        .eps = 1e-8,
                                        .clip = 1,
                                        .warmup = 5,
                                        .steps = 300 };
    for (size_t s = 0; s < N_SPECS; s++) {
        struct world w;
        struct sb_adamw opt;
        struct sb_error err;
        open_world(&w, specs[s]);
        run_target(&w, &texts);
        assert_int_equal(sb_adamw_init(&opt, &options, w.head->weights.n_params, &err), SB_OK);
        double first = 0, last = 0;
        size_t n_target = w.target->weights.n_params;
        sb_real *frozen = sb_alloc_array(n_target, sizeof *frozen);
        assert_non_null(frozen);
        memcpy(frozen, w.target->weights.x, n_target * sizeof *frozen);
        for (size_t i = 0; i < options.steps; i++) {
            sb_trainable_clear_grads(&w.head->weights);
            struct sb_var *sum = loss_of(&w, &loss);
            last = sum->x[0];
            first = i == 0 ? last : first;
            assert_int_equal(sb_tape_backward(w.tape, sum, &err), SB_OK);
            sb_adamw_step(&opt, &w.head->weights);
        }
        /* Guessing at random costs log 13 at each depth; a shared LM head of width 8 is stiff. */
        bool stiff = strstr(specs[s], "share") || strstr(specs[s], "eagle:");
        if (!(last < (stiff ? 0.3 : 0.02) * first))
            fail_msg("%s: loss %.4f, at first %.4f", specs[s], last, first);
        assert_memory_equal(frozen, w.target->weights.x, n_target * sizeof *frozen);
        sb_free(frozen);
        sb_adamw_finish(&opt);
        close_world(&w);
    }
}

/* Text 1 5 12 5 0 9: at t = 0, depth 0, the root is 5, the label 12, and the target says it at row 1. */
static void rows_stand_where_the_card_says(void **state)
{
    (void)state;
    struct sb_tape *tape;
    struct sb_error err;
    struct sb_head_rows rows;
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    assert_true(sb_head_rows_make(&rows, tape, &texts, 2));
    static const int32_t at[] = { 0, 1, 2, 3, 5, 6, 7 };
    static const int32_t token[2][7] = { { 5, 12, 5, 0, 4, 7, 2 }, { 12, 5, 0, 9, 7, 2, 8 } };
    static const int32_t label[2][7] = { { 12, 5, 0, 9, 7, 2, 8 }, { 5, 0, 9, 0, 2, 8, 0 } };
    static const int32_t teacher[2][7] = { { 1, 2, 3, 4, 6, 7, 8 }, { 2, 3, 4, 0, 7, 8, 0 } };
    static const int weight[2][7] = { { 1, 1, 1, 1, 1, 1, 1 }, { 1, 1, 1, 0, 1, 1, 0 } };
    assert_int_equal(rows.n, 7);
    assert_memory_equal(rows.at, at, sizeof at);
    for (size_t j = 0; j < 2; j++) {
        assert_memory_equal(rows.token[j], token[j], sizeof token[j]);
        assert_memory_equal(rows.label[j], label[j], sizeof label[j]);
        assert_memory_equal(rows.teacher[j], teacher[j], sizeof teacher[j]);
        for (size_t r = 0; r < 7; r++)
            assert_true(rows.weight[j][r] == weight[j][r]);
    }
    assert_int_equal(rows.counts[0], 7);
    assert_int_equal(rows.counts[1], 5);
    sb_tape_destroy(tape);
}

static void fresh_residual_heads_say_what_the_target_said(void **state)
{
    (void)state;
    static const char *const fresh[] = { "medusa:heads=3,layers=2",
                                         "medusa:heads=2,share_lm_head=true",
                                         "redrafter:length=3,layers=2" };
    for (size_t s = 0; s < 3; s++) {
        struct world w;
        open_world(&w, fresh[s]);
        run_target(&w, &texts);
        run_head(&w, &texts, w.head->depth);
        for (size_t j = 0; j < w.head->depth; j++)
            for (size_t r = 0; r < w.rows.n; r++)
                for (size_t v = 0; v < shape.n_vocab; v++)
                    assert_true(fabs(w.out.logits[j]->x[r * shape.n_vocab + v] -
                                     w.logits->x[(size_t)w.rows.at[r] * shape.n_vocab + v]) <
                                1e-12);
        close_world(&w);
    }
}

static void set_all(struct sb_head *head, const char *name, double value)
{
    for (size_t t = 0; t < head->weights.n_tensors; t++)
        if (strcmp(head->weights.tensors[t].name, name) == 0) {
            struct sb_var *var = head->weights.tensors[t].var;
            for (size_t i = 0; i < var->rows * var->cols; i++)
                var->x[i] = value;
            return;
        }
    fail_msg("no tensor %s", name);
}

/* B 5.1, test 3: fc = [0 | I] and a layer that adds nothing give the state back, in every pass. */
static void an_empty_eagle_repeats_the_state_it_is_given(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "eagle:steps=3");
    set_all(w.head, "layers.0.self_attn.o_proj.weight", 0);
    set_all(w.head, "layers.0.mlp.down_proj.weight", 0);
    set_all(w.head, "fc.weight", 0);
    size_t d = shape.d_model;
    for (size_t j = 0; j < d; j++)
        w.head->weights.tensors[0].var->x[j * 2 * d + d + j] = 1;
    run_target(&w, &texts);
    run_head(&w, &texts, 3);
    for (size_t s = 0; s < 3; s++)
        for (size_t r = 0; r < w.rows.n; r++)
            for (size_t j = 0; j < d; j++)
                assert_true(fabs(w.out.feature[s]->x[r * d + j] -
                                 w.states.final->x[(size_t)w.rows.at[r] * d + j]) < 1e-12);
    close_world(&w);
}

/* The second text packed behind another, and alone. */
static void packed_texts_do_not_reach_each_other(void **state)
{
    (void)state;
    static const size_t alone_at[] = { 0, 4 };
    const struct sb_head_texts alone = { { ids + 5, positions + 5, 4, { alone_at, 1 } },
                                         next + 5,
                                         counts + 5 };
    for (size_t s = 0; s < N_SPECS; s++) {
        struct world w;
        open_world(&w, specs[s]);
        stir(w.head);
        sb_real both[SB_HEAD_DEPTH][13];
        size_t depth = w.head->reach;
        run_target(&w, &texts);
        run_head(&w, &texts, depth);
        for (size_t j = 0; j < depth; j++)
            memcpy(both[j], w.out.logits[j]->x + 4 * w.out.logits[j]->cols, /* its first row */
                   w.out.logits[j]->cols * sizeof(sb_real));
        run_target(&w, &alone);
        run_head(&w, &alone, depth);
        for (size_t j = 0; j < depth; j++)
            for (size_t v = 0; v < w.out.logits[j]->cols; v++)
                if (!(fabs(w.out.logits[j]->x[v] - both[j][v]) < 1e-12))
                    fail_msg("%s: depth %zu", specs[s], j);
        close_world(&w);
    }
}

/* Pass s of a row is what decoding would compute: the same as when the text ended at that row. Cutting what
 * comes later, tokens of the row's own continuation included only as inputs, moves nothing. */
static void later_rows_do_not_reach_earlier_ones(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SPECS; s++) {
        struct world w;
        open_world(&w, specs[s]);
        stir(w.head);
        size_t depth = w.head->depth;
        run_target(&w, &texts);
        run_head(&w, &texts, depth);
        sb_real before[SB_HEAD_DEPTH][13];
        for (size_t j = 0; j < depth; j++)
            memcpy(before[j], w.out.logits[j]->x, w.out.logits[j]->cols * sizeof(sb_real));
        /* Row 0 at depth j is given the tokens 1 .. 1 + j of the text: change the ones behind. */
        int32_t changed_ids[9], changed_next[9];
        memcpy(changed_ids, ids, sizeof ids);
        memcpy(changed_next, next, sizeof next);
        changed_next[depth] = changed_ids[depth + 1] = 11;
        const struct sb_head_texts changed = { { changed_ids, positions, 9, { starts, 2 } },
                                               changed_next,
                                               counts };
        run_target(&w, &changed);
        run_head(&w, &changed, depth);
        for (size_t j = 0; j < depth; j++)
            for (size_t v = 0; v < w.out.logits[j]->cols; v++)
                if (!(fabs(w.out.logits[j]->x[v] - before[j][v]) < 1e-12))
                    fail_msg("%s: depth %zu", specs[s], j);
        close_world(&w);
    }
}

/* What the target, or the text, says outside the draft vocabulary teaches nothing; the rest is counted and
 * numbered in it. */
static void a_draft_vocabulary_limits_rows(void **state)
{
    (void)state;
    struct world w;
    open_world(&w, "eagle3:steps=2,draft_vocab=7");
    run_target(&w, &texts);
    for (int labels = 0; labels < 2; labels++) {
        run_head(&w, &texts, 2);
        struct sb_head_rows before = w.rows;
        int32_t label[2][16];
        bool counted[2][16];
        for (size_t j = 0; j < 2; j++)
            for (size_t r = 0; r < before.n; r++) {
                label[j][r] = before.label[j][r];
                counted[j][r] = before.weight[j][r] != 0;
            }
        sb_head_rows_limit(&w.rows, w.head, w.logits->x, labels);
        for (size_t j = 0; j < 2; j++) {
            size_t kept = 0;
            for (size_t r = 0; r < w.rows.n; r++) {
                const sb_real *row = w.logits->x + (size_t)w.rows.teacher[j][r] * shape.n_vocab;
                size_t top = 0;
                for (size_t i = 1; i < shape.n_vocab; i++)
                    top = row[i] > row[top] ? i : top;
                int32_t said = labels ? label[j][r] : (int32_t)top, at = -1;
                for (int32_t i = 0; i < 7; i++)
                    at = draft_ids[i] == said ? i : at;
                assert_int_equal(w.rows.weight[j][r] != 0, counted[j][r] && at >= 0);
                if (w.rows.weight[j][r] != 0)
                    assert_int_equal(w.rows.label[j][r], at);
                kept += w.rows.weight[j][r] != 0;
            }
            assert_int_equal(w.rows.counts[j], kept);
        }
        assert_true(w.rows.counts[0] > 0 && w.rows.counts[0] < 7);
    }
    const sb_real *full = sb_head_full_rows(w.head, w.tape, w.out.logits[0]);
    assert_true(full[4] == w.out.logits[0]->x[2] && isinf(full[1]) && full[1] < 0);
    close_world(&w);
}

static void unknown_parameters_of_a_head_are_refused(void **state)
{
    (void)state;
    struct world w;
    struct sb_error err;
    struct sb_head *head = NULL;
    open_world(&w, "medusa:heads=2");
    assert_int_equal(sb_spec_set(&w.spec, "head_count", "3", &err), SB_OK);
    assert_int_equal(sb_head_create(&head, sb_head_arch_find("medusa"), &w.spec, w.target, 1, &err),
                     SB_EUSAGE);
    assert_non_null(strstr(err.message, "head medusa"));
    assert_non_null(strstr(err.message, "head_count"));
    assert_null(head);
    assert_null(sb_head_arch_find("medusae"));
    close_world(&w);
}

static void every_head_has_a_config_and_distinct_names(void **state)
{
    (void)state;
    for (size_t s = 0; s < N_SPECS; s++) {
        struct world w;
        open_world(&w, specs[s]);
        json_t *config = w.head->ops->config(w.head);
        assert_true(json_is_object(config));
        assert_true(json_integer_value(json_object_get(config, "vocab_size")) == 13);
        json_decref(config);
        const struct sb_trainable *set = &w.head->weights;
        for (size_t a = 0; a < set->n_tensors; a++)
            for (size_t b = 0; b < a; b++)
                assert_string_not_equal(set->tensors[a].name, set->tensors[b].name);
        assert_true(w.head->ops->products(w.head) > 0);
        close_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_head_agrees_with_central_differences),
        cmocka_unit_test(every_head_can_learn_a_batch_by_heart),
        cmocka_unit_test(rows_stand_where_the_card_says),
        cmocka_unit_test(fresh_residual_heads_say_what_the_target_said),
        cmocka_unit_test(an_empty_eagle_repeats_the_state_it_is_given),
        cmocka_unit_test(packed_texts_do_not_reach_each_other),
        cmocka_unit_test(later_rows_do_not_reach_earlier_ones),
        cmocka_unit_test(a_draft_vocabulary_limits_rows),
        cmocka_unit_test(unknown_parameters_of_a_head_are_refused),
        cmocka_unit_test(every_head_has_a_config_and_distinct_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

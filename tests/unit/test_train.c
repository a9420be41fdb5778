/* train/: runs that stop and go on, bit by bit the same, and the written model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/core/threads.h"
#include "harness/model/model.h"
#include "harness/train/data.h"
#include "harness/train/teacher.h"
#include "harness/train/train.h"
#include "tests/unit/train_world.h"

static void the_exponential_is_good_to_a_few_units_in_the_last_place(void **state)
{
    (void)state;
    for (double x = -87; x <= 88; x += 0.00317) {
        float got = sb_real_exp((float)x);
        double want = exp((double)(float)x);
        assert_true(fabs((double)got - want) <= 3 * want * 0x1p-23);
    }
    assert_true(sb_real_exp(-1000) < 1e-37f && sb_real_exp(-1000) >= 0);
    assert_true(isnan(sb_real_exp(NAN)));
}

static void a_run_that_stops_and_goes_on_gives_the_same_model(void **state)
{
    (void)state;
    struct sb_train_options whole = { .out = at("whole") }, parts = { .out = at("parts") };
    struct sb_error err;
    train_ok("toy.lua", &whole);
    parts.max_steps = 5;
    assert_int_equal(sb_train_recipe(at("toy.lua"), &parts, &err), SB_EINTERRUPTED);
    assert_non_null(strstr(err.message, "after step 5 of 12"));
    parts.resume = true;
    assert_int_equal(sb_train_recipe(at("toy.lua"), &parts, &err), SB_EINTERRUPTED);
    parts.max_steps = 0;
    train_ok("toy.lua", &parts);
    assert_same_file(at("whole/model.safetensors"), at("parts/model.safetensors"));
    assert_same_file(at("whole/loss.csv"), at("parts/loss.csv"));
    assert_same_file(at("whole/training.json"), at("parts/training.json"));
    assert_same_file(at("whole/train.ckpt"), at("parts/train.ckpt"));
}

static void the_number_of_threads_moves_no_bit(void **state)
{
    (void)state;
    int before = sb_threads_get();
    struct sb_train_options one = { .out = at("one"), .threads = 1 };
    struct sb_train_options three = { .out = at("three"), .threads = 3 };
    /* Enough tokens for several blocks of rows, and a width of more than one weight block. */
    write_recipe("wide.lua", ", width = 160, heads = 4",
                 ", lr = 0.01, micro_tokens = 700, "
                 "batch_tokens = 700, steps = 3",
                 "", "");
    train_ok("wide.lua", &one);
    train_ok("wide.lua", &three);
    sb_threads_set(before);
    assert_same_file(at("one/train.ckpt"), at("three/train.ckpt"));
}

static void a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(void **state)
{
    (void)state;
    write_recipe("wild.lua", "", ", lr = 1e30, checkpoint_every = 1, weight_decay = 0", "", "");
    struct sb_train_options options = { .out = at("wild"), .max_steps = 1 };
    struct sb_error err;
    assert_int_equal(sb_train_recipe(at("wild.lua"), &options, &err), SB_EINTERRUPTED);
    size_t size;
    unsigned char *kept = read_bytes(at("wild/train.ckpt"), &size);
    options = (struct sb_train_options){ .out = at("wild"), .resume = true };
    assert_int_equal(sb_train_recipe(at("wild.lua"), &options, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "is not a finite number"));
    assert_non_null(strstr(err.message, "of step 2"));
    assert_false(sb_is_file(at("wild/model.safetensors")));
    size_t size_after;
    unsigned char *after = read_bytes(at("wild/train.ckpt"), &size_after);
    assert_int_equal(size, size_after);
    assert_memory_equal(kept, after, size);
    sb_free(kept);
    sb_free(after);
}

static void a_foreign_or_damaged_checkpoint_is_refused(void **state)
{
    (void)state;
    struct sb_train_options options = { .out = at("damaged"), .max_steps = 4 };
    struct sb_error err;
    assert_int_equal(sb_train_recipe(at("toy.lua"), &options, &err), SB_EINTERRUPTED);
    options.resume = true;
    size_t size;
    unsigned char *good = read_bytes(at("damaged/train.ckpt"), &size);
    write_recipe("other.lua", "", ", lr = 0.02", "", "");
    assert_int_equal(sb_train_recipe(at("other.lua"), &options, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "another recipe"));
    write_bytes(at("damaged/train.ckpt"), good, size - 9);
    assert_int_equal(sb_train_recipe(at("toy.lua"), &options, &err), SB_EFORMAT);
    write_bytes(at("damaged/train.ckpt"), good, 11);
    assert_int_equal(sb_train_recipe(at("toy.lua"), &options, &err), SB_EFORMAT);
    good[size / 2] ^= 1;
    write_bytes(at("damaged/train.ckpt"), good, size);
    assert_int_equal(sb_train_recipe(at("toy.lua"), &options, &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "checksum"));
    sb_free(good);
}

/* Logits of the tape and of the inference engine, from the same file. */
static void compare_forwards(const char *path, const int32_t *ids, size_t m)
{
    struct sb_error err;
    struct sb_lm *lm;
    struct sb_tape *tape;
    uint64_t hash;
    if (sb_teacher_load(&lm, &hash, path, m, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sb_tape_create(&tape, &err), SB_OK);
    int32_t *pos = sb_alloc_array(m, sizeof *pos);
    struct sb_row *rows = sb_alloc_zero(m, sizeof *rows);
    for (size_t i = 0; i < m; i++) {
        pos[i] = (int32_t)i;
        rows[i] = (struct sb_row){ .token = ids[i], .parent = (int32_t)i - 1, .want_logits = true };
    }
    const size_t start[] = { 0, m };
    const struct sb_lm_batch batch = { ids, pos, m, { start, 1 } };
    const struct sb_var *trained = sb_lm_forward(lm, tape, &batch);
    struct sb_model *model;
    struct sb_seq *seq;
    if (sb_model_load(&model, path, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sb_seq_create(&seq, model, m, m, &err), SB_OK);
    assert_int_equal(sb_forward(seq, rows, m, NULL, &err), SB_OK);
    size_t n_vocab = lm->shape.n_vocab;
    for (size_t i = 0; i < m * n_vocab; i++) {
        float logit = sb_seq_logits(seq, i / n_vocab)[i % n_vocab];
        if (!(fabsf(logit - trained->x[i]) < 1e-3f))
            fail_msg("%s: logit %zu is %f in training and %f in inference", path, i,
                     (double)trained->x[i], (double)logit);
    }
    sb_seq_destroy(seq);
    sb_model_destroy(model);
    sb_free(rows);
    sb_free(pos);
    sb_tape_destroy(tape);
    sb_lm_destroy(lm);
}

static void inference_computes_what_training_did(void **state)
{
    (void)state;
    struct sb_train_options options = { .out = at("written") };
    train_ok("toy.lua", &options);
    int32_t ids[40];
    for (size_t i = 0; i < 40; i++)
        ids[i] = (int32_t)(i * 37 % 300);
    compare_forwards(at("written"), ids, 40);
}

static void the_bundled_models_compute_the_same_both_ways(void **state)
{
    (void)state;
    static const char *const names[] = { "models/tiny", "models/tiny-draft" };
    int32_t ids[200];
    for (size_t i = 0; i < 200; i++)
        ids[i] = (int32_t)(i * i * 37 % 4096);
    for (size_t i = 0; i < 2; i++) {
        char *path = sb_data_path(names[i]);
        compare_forwards(path, ids, 200);
        sb_free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_exponential_is_good_to_a_few_units_in_the_last_place),
        cmocka_unit_test(a_run_that_stops_and_goes_on_gives_the_same_model),
        cmocka_unit_test(the_number_of_threads_moves_no_bit),
        cmocka_unit_test(a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint),
        cmocka_unit_test(a_foreign_or_damaged_checkpoint_is_refused),
        cmocka_unit_test(inference_computes_what_training_did),
        cmocka_unit_test(the_bundled_models_compute_the_same_both_ways),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}

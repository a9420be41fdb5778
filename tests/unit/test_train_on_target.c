/* train/: what learns from a target: students and draft heads, on texts the target wrote, and their cards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/model.h"
#include "harness/model/safetensors.h"
#include "harness/train/data.h"
#include "harness/train/teacher.h"
#include "harness/train/train.h"
#include "tests/unit/train_world.h"

struct watched {
    size_t steps, notes;
    double first, last;
};

static void watch(void *user, const struct sb_train_progress *progress)
{
    struct watched *seen = user;
    if (progress->note) {
        seen->notes++;
        return;
    }
    if (seen->steps == 0)
        seen->first = progress->loss;
    seen->last = progress->smooth;
    assert_int_equal(progress->step, ++seen->steps);
    assert_int_equal(progress->tokens, seen->steps * 128);
}

/* ---- students -------------------------------------------------------------------------------- */

static void a_student_learns_from_its_teacher(void **state)
{
    (void)state;
    struct watched seen = { 0 };
    struct sb_train_options options = { .out = at("teacher") };
    train_ok("toy.lua", &options);
    char more[256];
    snprintf(more, sizeof more, "distill = { teacher = '%s/teacher', weight = 1 }", dir);
    write_recipe("student.lua", ", layers = 1", ", lr = 0.02, steps = 60", "", more);
    options =
        (struct sb_train_options){ .out = at("student"), .report = watch, .report_user = &seen };
    train_ok("student.lua", &options);
    assert_int_equal(seen.steps, 60);
    assert_true(seen.notes >= 2);
    assert_true(seen.last < 0.5 * seen.first); /* the divergence alone, so it can go to zero */
}

static void a_student_learns_by_every_divergence(void **state)
{
    (void)state;
    static const char *const losses[] = { "reverse-kl", "jsd", "tvd" };
    write_head_recipe("head.lua", "medusa", "", "", ""); /* makes the target */
    for (size_t i = 0; i < 3; i++) {
        struct watched seen = { 0 };
        char more[256], out[32];
        snprintf(more, sizeof more, "distill = { teacher = '%s/target', weight = 1, loss = '%s' }",
                 dir, losses[i]);
        write_recipe("student.lua", ", layers = 1", ", lr = 0.02, steps = 60", "", more);
        snprintf(out, sizeof out, "by-%zu", i);
        struct sb_train_options options = { .out = at(out), .report = watch, .report_user = &seen };
        train_ok("student.lua", &options);
        assert_true(seen.last < 0.8 * seen.first);
    }
}

/* It goes on from the weights of another, and refuses one of another shape. */
static void a_model_starts_from_another(void **state)
{
    (void)state;
    struct sb_error err;
    struct watched fresh = { 0 }, going = { 0 };
    write_head_recipe("head.lua", "medusa", "", "", ""); /* makes the target */
    char more[256];
    snprintf(more, sizeof more, "init = '%s/target'", dir);
    write_recipe("fresh.lua", "", ", lr = 0.01, steps = 4", "", "");
    write_recipe("going.lua", "", ", lr = 0.01, steps = 4", "", more);
    struct sb_train_options a = { .out = at("fresh"), .report = watch, .report_user = &fresh },
                            b = { .out = at("going"), .report = watch, .report_user = &going };
    train_ok("fresh.lua", &a);
    train_ok("going.lua", &b);
    assert_true(going.first < 0.8 * fresh.first);
    write_recipe("going.lua", ", layers = 1", ", lr = 0.01, steps = 4", "", more);
    assert_int_equal(sb_train_recipe(at("going.lua"), &b, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "expected the recipe's model"));
}

/* ---- draft heads ----------------------------------------------------------------------------- */

static void every_head_trains_and_goes_on_where_it_stopped(void **state)
{
    (void)state;
    static const char *const archs[] = { "medusa", "hydra",          "hydra-pp", "eagle",
                                         "eagle3", "mlp-speculator", "redrafter" };
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        write_head_recipe("head.lua", archs[i], "", ", loss_on = 'answers'", "");
        struct sb_train_options whole = { .out = at("h-whole") }, parts = { .out = at("h-parts") };
        struct sb_error err;
        train_ok("head.lua", &whole);
        parts.max_steps = 5;
        assert_int_equal(sb_train_recipe(at("head.lua"), &parts, &err), SB_EINTERRUPTED);
        parts.resume = true;
        parts.max_steps = 0;
        train_ok("head.lua", &parts);
        static const char *const files[] = { "model.safetensors", "config.json", "training.json",
                                             "train.ckpt", "loss.csv" };
        for (size_t f = 0; f < sizeof files / sizeof *files; f++) {
            char a[64], b[64];
            snprintf(a, sizeof a, "h-whole/%s", files[f]);
            snprintf(b, sizeof b, "h-parts/%s", files[f]);
            assert_same_file(at(a), at(b));
        }
        remove(at("h-parts/train.ckpt"));
    }
}

static void assert_holds(const char *path, const char *text)
{
    size_t size, n = strlen(text), at_byte = 0;
    unsigned char *data = read_bytes(path, &size);
    while (at_byte + n <= size && memcmp(data + at_byte, text, n) != 0)
        at_byte++;
    if (at_byte + n > size)
        fail_msg("%s does not hold %s", path, text);
    sb_free(data);
}

static void a_head_is_written_with_what_it_was_made_for(void **state)
{
    (void)state;
    write_head_recipe("head.lua", "medusa", "", "", "head = { heads = 2, share_lm_head = true }");
    struct sb_train_options options = { .out = at("made") };
    train_ok("head.lua", &options);
    struct sb_lm *target;
    struct sb_error err;
    uint64_t hash;
    assert_int_equal(sb_teacher_load(&target, &hash, at("target"), 0, &err), SB_OK);
    sb_lm_destroy(target);
    struct sb_st_file file;
    assert_int_equal(sb_st_open(&file, at("made/model.safetensors"), &err), SB_OK);
    assert_int_equal(file.n, 4); /* two blocks with biases, no LM head */
    assert_non_null(sb_st_find(&file, "1.0.linear.weight"));
    sb_st_close(&file);
    char want[64];
    snprintf(want, sizeof want, "\"specbench.target_hash\":\"%016llx\"", (unsigned long long)hash);
    assert_holds(at("made/model.safetensors"), want);
    assert_holds(at("made/model.safetensors"), "\"specbench.recipe\":\"toy-head\"");
    assert_holds(at("made/training.json"), "\"tokens_per_step\"");
    assert_holds(at("made/training.json"), "\"step\": 12");
}

static void a_head_whose_loss_is_not_a_number_keeps_its_checkpoint(void **state)
{
    (void)state;
    write_head_recipe("head.lua", "medusa", ", lr = 1e30, checkpoint_every = 1", "", "");
    struct sb_train_options options = { .out = at("h-wild"), .max_steps = 1 };
    struct sb_error err;
    assert_int_equal(sb_train_recipe(at("head.lua"), &options, &err), SB_EINTERRUPTED);
    size_t before, after;
    unsigned char *kept = read_bytes(at("h-wild/train.ckpt"), &before);
    options = (struct sb_train_options){ .out = at("h-wild"), .resume = true };
    assert_int_equal(sb_train_recipe(at("head.lua"), &options, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "is not a finite number"));
    assert_false(sb_is_file(at("h-wild/model.safetensors")));
    unsigned char *now = read_bytes(at("h-wild/train.ckpt"), &after);
    assert_int_equal(before, after);
    assert_memory_equal(kept, now, before);
    sb_free(kept);
    sb_free(now);
}

static void a_head_learns_what_its_target_says(void **state)
{
    (void)state;
    struct watched seen = { 0 };
    write_head_recipe("head.lua", "eagle", ", steps = 60", "", "loss = { by = 'kl' }");
    struct sb_train_options options = { .out = at("learns"),
                                        .report = watch,
                                        .report_user = &seen };
    train_ok("head.lua", &options);
    assert_true(seen.last < 0.7 * seen.first);
}

static void bad_head_recipes_are_refused_with_what_is_right(void **state)
{
    (void)state;
    static const struct {
        const char *arch, *train, *data, *more, *want;
    } bad[] = {
        { "medusae", "", "", "", "arch is 'medusae'; it must be one of eagle, eagle3, hydra" },
        { "medusa", "", "", "head = { haeds = 2 }", "haeds" },
        { "medusa", "", "", "head = { heads = 99 }", "heads" },
        { "medusa", "", "", "head = { heads = {} }", "head must give names" },
        { "medusa", "", "", "loss = { by = 'hope' }", "loss.by is 'hope'" },
        { "medusa", "", "", "model = { vocab = 300 }", "recipe has no key 'model'" },
        { "medusa", ", seq_len = 60", "", "", "target" },
        { "medusa", "", ", generate = { prompts = 1 }", "", "generate.max_new_tokens is missing" },
        { "medusa", "", ", generate = { prompts = 1, max_new_tokens = 4, temperature = 'hot' }", "",
          "generate.temperature must be a number" },
        { "medusa", "", ", generate = { prompts = 1, max_new_tokens = 4, temperature = {} }", "",
          "generate.temperature lists 0 numbers" },
        { "medusa", "", ", generate = { prompts = 1, max_new_tokens = 24 }", "",
          "no prompt leaves room" },
    };
    struct sb_train_options options = { .out = at("refused") };
    struct sb_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_head_recipe("bad.lua", bad[i].arch, bad[i].train, bad[i].data, bad[i].more);
        assert_int_equal(sb_exit_code(sb_train_recipe(at("bad.lua"), &options, &err)), 2);
        assert_says(err.message, bad[i].want);
    }
    write_recipe("bad.lua", "", ", lr = 1", ", generate = { prompts = 1, max_new_tokens = 4 }", "");
    assert_int_equal(sb_train_recipe(at("bad.lua"), &options, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "data.generate needs distill.teacher"));
}

/* ---- the target's texts ---------------------------------------------------------------------- */

static size_t count_of(const char *path, char c)
{
    size_t size, n = 0;
    unsigned char *data = read_bytes(path, &size);
    for (size_t i = 0; i < size; i++)
        n += data[i] == (unsigned char)c;
    sb_free(data);
    return n;
}

static volatile sig_atomic_t stop_now;
static size_t stop_after;

static void stop_writing(void *user, const struct sb_train_progress *progress)
{
    (void)user;
    if (progress->texts && progress->step == stop_after)
        stop_now = 1;
}

#define GENERATE ", generate = { prompts = 6, max_new_tokens = 8, temperature = %s, seed = 3 }"

static void a_target_writes_its_texts_and_goes_on_where_it_stopped(void **state)
{
    (void)state;
    struct sb_error err;
    char generate[128];
    snprintf(generate, sizeof generate, GENERATE, "{ 0.7, 0, 1 }");
    write_head_recipe("head.lua", "medusa", "", generate, "");
    struct sb_train_options whole = { .out = at("g-whole") }, parts = { .out = at("g-parts") };
    train_ok("head.lua", &whole);
    assert_int_equal(count_of(at("g-whole/generated.jsonl"), '\n'), 18); /* of three tasks */
    stop_now = 0;
    stop_after = 7;
    parts.stop = &stop_now;
    parts.report = stop_writing;
    assert_int_equal(sb_train_recipe(at("head.lua"), &parts, &err), SB_EINTERRUPTED);
    assert_int_equal(count_of(at("g-parts/generated.jsonl"), '\n'), 7);
    FILE *file = fopen(at("g-parts/generated.jsonl"), "a"); /* as if killed within a line */
    fputs("{\"task\": \"qa\", \"ids\": [1, 2", file);
    fclose(file);
    stop_now = 0;
    parts.report = NULL;
    train_ok("head.lua", &parts);
    assert_same_file(at("g-whole/generated.jsonl"), at("g-parts/generated.jsonl"));
    assert_same_file(at("g-whole/model.safetensors"), at("g-parts/model.safetensors"));
    snprintf(generate, sizeof generate, GENERATE, "0");
    write_head_recipe("head.lua", "medusa", "", generate, "");
    assert_int_equal(sb_train_recipe(at("head.lua"), &parts, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "another target, tokenizer or recipe"));
}

/* kind "texts" writes the very lines that a head's own data.generate would. */
static void texts_alone_are_those_of_a_head(void **state)
{
    (void)state;
    struct sb_error err;
    char generate[128], text[1024];
    snprintf(generate, sizeof generate, GENERATE, "{ 0.7, 0, 1 }");
    write_head_recipe("head.lua", "medusa", "", generate, "");
    struct sb_train_options head = { .out = at("texts-head") }, alone = { .out = at("texts") };
    train_ok("head.lua", &head);
    snprintf(
        text, sizeof text,
        "return { kind = 'texts', name = 'toy-texts', out = '%s/texts', target = '%s/target', " DATA
        " train = { seq_len = 24 } }",
        dir, dir, dir, generate);
    write_text(at("texts.lua"), text);
    train_ok("texts.lua", &alone);
    assert_same_file(at("texts-head/generated.jsonl"), at("texts/generated.jsonl"));
    snprintf(
        text, sizeof text,
        "return { kind = 'texts', name = 'toy-texts', out = '%s/texts', target = '%s/target', " DATA
        " train = { seq_len = 24 } }",
        dir, dir, dir, "");
    write_text(at("texts.lua"), text);
    assert_int_equal(sb_train_recipe(at("texts.lua"), &alone, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "data.generate is missing"));
}

/* Greedy texts are the arg max of the target's own rows. */
static void greedy_texts_are_what_the_target_likes_best(void **state)
{
    (void)state;
    struct sb_error err;
    char generate[128];
    snprintf(generate, sizeof generate, GENERATE, "0");
    write_head_recipe("head.lua", "medusa", "", generate, "");
    struct sb_train_options options = { .out = at("greedy") };
    train_ok("head.lua", &options);
    struct sb_marks marks;
    struct sb_tokenizer *tok = open_tokenizer(&marks);
    struct sb_corpus corpus;
    struct sb_rendered doc = { 0 };
    const char *path = at("greedy/generated.jsonl");
    assert_int_equal(sb_corpus_read(&corpus, NULL, &path, 1, 0, &err), SB_OK);
    struct sb_model *model;
    struct sb_seq *seq;
    assert_int_equal(sb_model_load(&model, at("target"), &err), SB_OK);
    assert_int_equal(sb_seq_create(&seq, model, 64, 64, &err), SB_OK);
    for (size_t i = 0; i < corpus.n_records; i++) {
        assert_int_equal(sb_record_render(&doc, &corpus, &corpus.records[i], tok, &marks, &err),
                         SB_OK);
        size_t from = 0, row;
        while (!doc.answer[from])
            from++;
        sb_seq_truncate(seq, 0);
        for (size_t t = from; t < doc.tokens.n; t++) {
            size_t fed = sb_seq_length(seq);
            assert_int_equal(sb_seq_prefill(seq, doc.tokens.id + fed, t - fed, NULL, 0, &row, &err),
                             SB_OK);
            const float *logits = sb_seq_logits(seq, row);
            for (size_t v = 0; v < 300; v++)
                assert_true(logits[v] <= logits[doc.tokens.id[t]]);
        }
    }
    sb_seq_destroy(seq);
    sb_model_destroy(model);
    sb_rendered_finish(&doc);
    sb_corpus_finish(&corpus);
    sb_tokenizer_close(tok);
}

/* ---- cards ----------------------------------------------------------------------------------- */

static char *read_text(const char *path)
{
    size_t size;
    unsigned char *data = read_bytes(path, &size);
    char *text = sb_strf("%.*s", (int)size, (const char *)data);
    sb_free(data);
    return text;
}

static void a_card_tells_what_was_trained(void **state)
{
    (void)state;
    struct sb_error err;
    struct sb_train_options lm = { .out = at("card-lm") }, head = { .out = at("card-head") };
    write_recipe("card.lua", "", ", lr = 0.01, steps = 20", "",
                 "summary = 'A toy.', notes = 'Of no use.', samples = { 'Well?' }");
    train_ok("card.lua", &lm);
    char *card = read_text(at("card-lm/README.md"));
    static const char *const wanted[] = { "# toy\n\nA toy.\n", "2 layers, width 16",     "seed 7",
                                          "Of no use.",        "| tokens (thousands) |", "| all |",
                                          "> **Well?**" };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        assert_says(card, wanted[i]);
    sb_free(card);
    write_head_recipe("head.lua", "medusa", "", "", "");
    train_ok("head.lua", &head);
    char *first = read_text(at("card-head/README.md"));
    assert_non_null(strstr(first, "| 1 | "));
    assert_non_null(strstr(first, "tokens a step"));
    assert_int_equal(remove(at("card-head/README.md")), 0);
    head.card = true;
    train_ok("head.lua", &head);
    char *again = read_text(at("card-head/README.md"));
    assert_string_equal(first, again);
    sb_free(first);
    sb_free(again);
    head.out = at("nothing-here");
    assert_int_equal(sb_train_recipe(at("head.lua"), &head, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, "train first"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_student_learns_from_its_teacher),
        cmocka_unit_test(a_student_learns_by_every_divergence),
        cmocka_unit_test(a_model_starts_from_another),
        cmocka_unit_test(every_head_trains_and_goes_on_where_it_stopped),
        cmocka_unit_test(a_head_is_written_with_what_it_was_made_for),
        cmocka_unit_test(a_head_whose_loss_is_not_a_number_keeps_its_checkpoint),
        cmocka_unit_test(a_head_learns_what_its_target_says),
        cmocka_unit_test(bad_head_recipes_are_refused_with_what_is_right),
        cmocka_unit_test(a_target_writes_its_texts_and_goes_on_where_it_stopped),
        cmocka_unit_test(texts_alone_are_those_of_a_head),
        cmocka_unit_test(greedy_texts_are_what_the_target_likes_best),
        cmocka_unit_test(a_card_tells_what_was_trained),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}

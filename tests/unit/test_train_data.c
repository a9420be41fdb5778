/* train/: texts to batches, and recipes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/train/data.h"
#include "harness/train/recipe.h"
#include "harness/train/train.h"
#include "tests/unit/train_world.h"

/* ---- texts ----------------------------------------------------------------------------------- */

static enum sb_status read_one(struct sb_corpus *corpus, const char *name, struct sb_error *err)
{
    return sb_corpus_read(corpus, dir, &name, 1, 0, err);
}

static void a_chat_is_rendered_as_it_will_be_prompted(void **state)
{
    (void)state;
    write_text(
        at("one.jsonl"),
        "{\"task\": \"qa\", \"turns\": [{\"user\": \"Hi <|end|>\", \"assistant\": \"\\n Ho\"}, "
        "{\"user\": \"a\", \"assistant\": \"b\"}]}\n"
        "{\"task\": \"prose\", \"text\": \"Old <|user|> rain\"}");
    struct sb_marks marks;
    struct sb_tokenizer *tok = open_tokenizer(&marks);
    struct sb_corpus corpus;
    struct sb_error err;
    struct sb_rendered doc = { 0 };
    assert_int_equal(read_one(&corpus, "one.jsonl", &err), SB_OK);
    assert_int_equal(corpus.n_records, 2);
    static const char *const want[] = {
        "<|bos|><|user|>\nHi <|end|>\n<|assistant|>\nHo<|end|>\n<|user|>\na\n<|assistant|>\nb<|end|>\n",
        "<|bos|>Old <|user|> rain<|end|>",
    };
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(sb_record_render(&doc, &corpus, &corpus.records[i], tok, &marks, &err),
                         SB_OK);
        char *text;
        size_t length, ends = 0, answers = 0;
        assert_int_equal(
            sb_tokenizer_decode(tok, &text, &length, doc.tokens.id, doc.tokens.n, true, &err),
            SB_OK);
        assert_string_equal(text, want[i]);
        for (size_t t = 0; t < doc.tokens.n; t++) {
            ends += doc.tokens.id[t] == marks.end;
            answers += doc.answer[t];
        }
        assert_int_equal(ends, i == 0 ? 2 : 1); /* the user's own <|end|> is only text */
        if (i == 0)
            assert_true(answers >= 4 && answers < 8); /* Ho, b, and the marks that end them */
        else
            assert_int_equal(answers, doc.tokens.n - 1);
        sb_free(text);
    }
    sb_rendered_finish(&doc);
    sb_corpus_finish(&corpus);
    sb_tokenizer_close(tok);
}

static void an_epoch_gives_every_training_record_once_and_no_other(void **state)
{
    (void)state;
    struct sb_marks marks;
    struct sb_tokenizer *tok = open_tokenizer(&marks);
    struct sb_corpus corpus;
    struct sb_error err;
    static const char *const files[] = { "chats.jsonl.gz", "prose.jsonl" };
    assert_int_equal(sb_corpus_read(&corpus, dir, files, 2, 0.1, &err), SB_OK);
    size_t held = 0, rows = 0;
    struct sb_rendered doc = { 0 };
    for (size_t i = 0; i < corpus.n_records; i++) {
        held += corpus.records[i].held_out;
        if (corpus.records[i].held_out)
            continue;
        assert_int_equal(sb_record_render(&doc, &corpus, &corpus.records[i], tok, &marks, &err),
                         SB_OK);
        rows += doc.tokens.n - 1;
    }
    sb_rendered_finish(&doc);
    assert_true(held >= 5 && held <= 25);
    struct sb_data_options options = { .seed = 1, .seq_len = 24 };
    for (size_t t = 0; t < SB_MAX_TASKS; t++)
        options.weights[t] = 1;
    struct sb_data_stream stream;
    struct sb_batch batch;
    assert_int_equal(sb_data_init(&stream, &corpus, tok, &marks, &options, &err), SB_OK);
    assert_int_equal(sb_batch_init(&batch, 1, &err), SB_OK);
    size_t given = 0;
    for (; stream.cursor.epoch == 0; given++) {
        assert_int_equal(sb_data_next(&stream, &batch, &err), SB_OK);
        assert_false(corpus.records[stream.order[stream.cursor.next - 1]].held_out);
    }
    assert_int_equal(given - 1, rows); /* the last one began the next epoch */
    sb_batch_finish(&batch);
    sb_data_finish(&stream);
    sb_corpus_finish(&corpus);
    sb_tokenizer_close(tok);
}

static void batches_are_packed_and_a_cursor_continues_them(void **state)
{
    (void)state;
    struct sb_marks marks;
    struct sb_tokenizer *tok = open_tokenizer(&marks);
    struct sb_corpus corpus;
    struct sb_error err;
    assert_int_equal(read_one(&corpus, "chats.jsonl.gz", &err), SB_OK);
    struct sb_data_options options = { .seed = 1, .seq_len = 10, .weights = { 1.5, 0.5 } };
    struct sb_data_stream a, b;
    struct sb_batch x, y;
    assert_int_equal(sb_data_init(&a, &corpus, tok, &marks, &options, &err), SB_OK);
    assert_int_equal(sb_data_init(&b, &corpus, tok, &marks, &options, &err), SB_OK);
    assert_int_equal(sb_batch_init(&x, 100, &err), SB_OK);
    assert_int_equal(sb_batch_init(&y, 100, &err), SB_OK);
    for (int i = 0; i < 40; i++) { /* into the second epoch */
        struct sb_cursor cursor = a.cursor;
        assert_int_equal(sb_data_next(&a, &x, &err), SB_OK);
        assert_int_equal(sb_data_seek(&b, &cursor, &err), SB_OK);
        assert_int_equal(sb_data_next(&b, &y, &err), SB_OK);
        assert_int_equal(x.m, 100);
        assert_memory_equal(x.ids, y.ids, 100 * sizeof *x.ids);
        assert_memory_equal(x.target, y.target, 100 * sizeof *x.target);
        assert_int_equal(x.start[x.n_segments], 100);
        for (size_t s = 0; s < x.n_segments; s++) {
            size_t n = x.start[s + 1] - x.start[s];
            assert_true(n >= 1 && n <= 10);
            for (size_t r = 0; r < n; r++) {
                assert_int_equal(x.pos[x.start[s] + r], r);
                if (r > 0) /* the row's token is what the row before was to predict */
                    assert_int_equal(x.ids[x.start[s] + r], x.target[x.start[s] + r - 1]);
            }
        }
    }
    assert_true(a.cursor.epoch > 0);
    sb_batch_finish(&x);
    sb_batch_finish(&y);
    sb_data_finish(&a);
    sb_data_finish(&b);
    sb_corpus_finish(&corpus);
    sb_tokenizer_close(tok);
}

static void bad_texts_are_refused_by_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } bad[] = {
        { "{\"task\": \"qa\", \"text\": \"a\"}\nnot json\n", "bad.jsonl line 2: not a JSON" },
        { "{\"task\": 1, \"text\": \"a\"}\n", "line 1: field 'task' must be a string" },
        { "{\"task\": \"qa\", \"turns\": []}\n", "line 1: expected 'text'" },
        { "{\"task\": \"qa\", \"turns\": [{\"user\": \"a\"}]}\n", "line 1: expected 'text'" },
        { "{\"task\": \"qa\", \"text\": \"\xff\"}\n", "line 1: not a JSON" },
        { "[]\n", "line 1: field 'task'" },
        { "", "hold no records" },
    };
    struct sb_corpus corpus;
    struct sb_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(at("bad.jsonl"), bad[i].text);
        assert_int_not_equal(read_one(&corpus, "bad.jsonl", &err), SB_OK);
        assert_says(err.message, bad[i].want);
    }
    assert_int_equal(read_one(&corpus, "absent.jsonl", &err), SB_EINPUT);
    assert_int_not_equal(read_one(&corpus, ".", &err), SB_OK); /* a directory */
    size_t size;
    unsigned char *whole = read_bytes(at("chats.jsonl.gz"), &size);
    write_bytes(at("cut.jsonl.gz"), whole, size / 2);
    assert_int_equal(read_one(&corpus, "cut.jsonl.gz", &err), SB_EFORMAT);
    whole[size / 2] ^= 0x55;
    write_bytes(at("cut.jsonl.gz"), whole, size);
    assert_int_equal(read_one(&corpus, "cut.jsonl.gz", &err), SB_EFORMAT);
    sb_free(whole);
}

static void records_of_tokens_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } bad[] = {
        { "{\"task\": \"qa\", \"ids\": [1, -2], \"answer\": 1}", "expected 'text'" },
        { "{\"task\": \"qa\", \"ids\": [1], \"answer\": 1}", "expected 'text'" },
        { "{\"task\": \"qa\", \"ids\": [1, 2], \"answer\": 3}", "expected 'text'" },
        { "{\"task\": \"qa\", \"ids\": [1, 2.5], \"answer\": 1}", "expected 'text'" },
        { "{\"task\": \"qa\", \"ids\": [1, 4294967297], \"answer\": 1}", "expected 'text'" },
        { "{\"task\": \"qa\", \"ids\": [1, 300], \"answer\": 1}", "vocabulary of 300" },
    };
    struct sb_marks marks;
    struct sb_tokenizer *tok = open_tokenizer(&marks);
    struct sb_corpus corpus;
    struct sb_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sb_rendered doc = { 0 };
        write_text(at("ids.jsonl"), bad[i].text);
        enum sb_status status = read_one(&corpus, "ids.jsonl", &err);
        if (status == SB_OK) {
            status = sb_record_render(&doc, &corpus, &corpus.records[0], tok, &marks, &err);
            sb_corpus_finish(&corpus);
        }
        assert_int_equal(status, SB_EFORMAT);
        assert_says(err.message, bad[i].want);
        sb_rendered_finish(&doc);
    }
    sb_tokenizer_close(tok);
}

/* ---- recipes --------------------------------------------------------------------------------- */

static void a_recipe_is_read_with_its_defaults(void **state)
{
    (void)state;
    struct sb_recipe recipe;
    struct sb_error err;
    assert_int_equal(sb_recipe_read(&recipe, at("toy.lua"), &err), SB_OK);
    assert_string_equal(recipe.name, "toy");
    assert_int_equal(recipe.model.kv_heads, 1);
    assert_int_equal(recipe.data.n_files, 2);
    assert_string_equal(recipe.data.loss_on, "all");
    assert_true(recipe.train.beta2 == 0.95 && recipe.model.rope_base == 10000);
    assert_null(recipe.distill.teacher);
    sb_recipe_finish(&recipe);
}

static void a_recipe_may_take_its_data_from_another(void **state)
{
    (void)state;
    char text[512];
    struct sb_recipe recipe, other;
    struct sb_error err;
    snprintf(text, sizeof text,
             "return { kind = 'tokenizer', name = 'n', out = 'o', model = { vocab = 300 }, data = {"
             " from = '%s/toy.lua', held_out = 0.2 } }",
             dir);
    write_text(at("from.lua"), text);
    assert_int_equal(sb_recipe_read(&other, at("toy.lua"), &err), SB_OK);
    if (sb_recipe_read(&recipe, at("from.lua"), &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_true(recipe.data.held_out == 0.2); /* its own */
    assert_int_equal(recipe.data.n_files, other.data.n_files);
    assert_string_equal(recipe.data.files[1], other.data.files[1]);
    sb_recipe_finish(&recipe);
    sb_recipe_finish(&other);
    write_text(at("from.lua"),
               "return { kind = 'tokenizer', name = 'n', out = 'o', data = { from = "
               "'no-such.lua' } }");
    assert_int_equal(sb_recipe_read(&recipe, at("from.lua"), &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "no-such.lua"));
}

static void bad_recipes_are_refused_with_what_is_right(void **state)
{
    (void)state;
#define HEAD "return { kind = 'tokenizer', name = 'n', out = 'o', "
    static const struct {
        const char *text, *want;
    } bad[] = {
        { "return 1", "must return a table, found a number" },
        { "return {", "bad.lua:1: unexpected symbol" },
        { "error('stop')", "stop" },
        { "return { kind = 'lmm', name = 'n', out = 'o' }",
          "is 'lmm'; it must be one of lm|head|texts|tokenizer" },
        { "return { name = 'n', out = 'o' }", "recipe.kind is missing" },
        { "return { knid = 'lm' }", "recipe has no key 'knid'; it has: kind, name" },
        { "return { kind = 'lm', name = {}, out = 'o' }",
          "recipe.name must be a string, found a table" },
        { HEAD "data = 3 }", "recipe.data must be a table" },
        { HEAD "data = { files = {} } }", "data.files must list" },
        { HEAD "data = { files = { 1 } } }", "data.files[1] must be a string" },
        { HEAD "data = { files = { 'a' }, held_out = 2 } }", "data.held_out is 2" },
        { HEAD "data = { files = { 'a' } }, model = { vocab = 300.5 } }", "model.vocab is 300.5" },
        { HEAD "data = { files = { 'a' } }, model = { vocab = 0/0 } }", "model.vocab is" },
        { HEAD "data = { files = { 'a' } }, model = { vocab = '300' } }", "must be a number" },
        { HEAD "data = { files = { 'a' }, weights = { 1 } } }", "data.weights must give" },
        { "return { kind = 'lm', name = 'n', out = 'o', data = { files = { 'a' } } }",
          "recipe.tokenizer is missing" },
        { "dofile('x')", "dofile" },
    };
    struct sb_recipe recipe;
    struct sb_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_text(at("bad.lua"), bad[i].text);
        assert_int_equal(sb_recipe_read(&recipe, at("bad.lua"), &err), SB_EUSAGE);
        assert_says(err.message, bad[i].want);
        assert_says(err.message, "bad.lua");
    }
    assert_int_equal(sb_recipe_read(&recipe, at("absent.lua"), &err), SB_EINPUT);
    assert_int_equal(sb_recipe_read(&recipe, dir, &err), SB_EINPUT);
}

static void recipes_that_do_not_fit_their_data_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *model, *train, *data, *more, *want;
    } bad[] = {
        { "", ", lr = 1", ", weights = { poetry = 1 }", "", "names task 'poetry'" },
        { "", ", lr = 1", ", weights = { qa = 0, prose = 0, math_reasoning = 0 }", "",
          "leave no record" },
        { ", vocab = 290", ", lr = 1", "", "", "the tokenizer has 300 tokens" },
        { ", heads = 3", ", lr = 1", "", "", "width is 16" },
        { "", ", lr = 1, micro_tokens = 100", "", "", "multiple of micro_tokens (100)" },
        { "", ", lr = 1, seq_len = 65", "", "", "seq_len is greater than model.context" },
        { "", ", lr = 1", "", "distill = { teacher = 'no-such-model' }", "no-such-model" },
    };
    struct sb_train_options options = { 0 };
    struct sb_error err;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        write_recipe("bad.lua", bad[i].model, bad[i].train, bad[i].data, bad[i].more);
        assert_int_equal(sb_exit_code(sb_train_recipe(at("bad.lua"), &options, &err)), 2);
        assert_says(err.message, bad[i].want);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_is_rendered_as_it_will_be_prompted),
        cmocka_unit_test(an_epoch_gives_every_training_record_once_and_no_other),
        cmocka_unit_test(batches_are_packed_and_a_cursor_continues_them),
        cmocka_unit_test(bad_texts_are_refused_by_file_and_line),
        cmocka_unit_test(records_of_tokens_are_checked),
        cmocka_unit_test(a_recipe_is_read_with_its_defaults),
        cmocka_unit_test(a_recipe_may_take_its_data_from_another),
        cmocka_unit_test(bad_recipes_are_refused_with_what_is_right),
        cmocka_unit_test(recipes_that_do_not_fit_their_data_are_refused),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}

/* train/ in single precision: texts to batches, recipes, runs that stop and go on, the written model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/core/threads.h"
#include "harness/model/model.h"
#include "harness/model/safetensors.h"
#include "harness/train/data.h"
#include "harness/train/recipe.h"
#include "harness/train/teacher.h"
#include "harness/train/train.h"

static char dir[64]; /* of this process, removed at the end */

/* dir/name in one of 64 static buffers, more than a test asks for. */
static const char *at(const char *name)
{
    static char path[64][256];
    static size_t next;
    next = (next + 1) % 64;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
    return path[next];
}

static void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(size == 0 || fwrite(data, size, 1, file) == 1);
    fclose(file);
}

static void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static unsigned char *read_bytes(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        fail_msg("%s is not there", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = sb_alloc(*size);
    assert_non_null(data);
    assert_int_equal(fread(data, 1, *size, file), *size);
    fclose(file);
    return data;
}

static void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = read_bytes(a, &n_a), *y = read_bytes(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    sb_free(x);
    sb_free(y);
}

/* ---- a small world --------------------------------------------------------------------------- */

static const char *const words[] = { "river",  "stone", "walks", "under", "the",  "old",
                                     "bridge", "and",   "sings", "of",    "rain", "light" };

static void write_corpus(void)
{
    gzFile file = gzopen(at("chats.jsonl.gz"), "wb");
    assert_non_null(file);
    for (int i = 0; i < 120; i++)
        gzprintf(
            file,
            "{\"task\": \"%s\", \"turns\": [{\"user\": \"What of the %s, %d?\", \"assistant\": "
            "\"The %s %s %s the %s.\"}]}\n",
            i % 2 ? "qa" : "math_reasoning", words[i % 12], i, words[i * 5 % 12], words[i * 7 % 12],
            words[(i + 3) % 12], words[i * i % 12]);
    gzclose(file);
    FILE *prose = fopen(at("prose.jsonl"), "w");
    assert_non_null(prose);
    for (int i = 0; i < 12; i++)
        fprintf(prose, "{\"task\": \"prose\", \"text\": \"%s %s %s, %s %s %s %s; %s %s\"}\n",
                words[i], words[i * 5 % 12], words[i * 7 % 12], words[(i + 5) % 12],
                words[(i + 1) % 12], words[(i + 2) % 12], words[(i + 4) % 12], words[(i + 7) % 12],
                words[(i + 9) % 12]);
    fclose(prose);
}

#define DATA "data = { dir = '%s', held_out = 0.1, files = { 'chats.jsonl.gz', 'prose.jsonl' }%s },"

static void write_recipe(const char *name, const char *model, const char *train,
                         const char *data_more, const char *more)
{
    char text[2048];
    snprintf(text, sizeof text,
             "return { kind = 'lm', name = 'toy', out = '%s/out', tokenizer = '%s/tok', " DATA
             " model = { layers = 2, width = 16, heads = 2, kv_heads = 1, ff = 24, vocab = 300,"
             " context = 64 %s }, train = { steps = 12, batch_tokens = 128, micro_tokens = 64,"
             " seq_len = 24, seed = 7, checkpoint_every = 4 %s }, %s }",
             dir, dir, dir, data_more, model, train, more);
    write_text(at(name), text);
}

static struct sb_tokenizer *open_tokenizer(struct sb_marks *marks)
{
    struct sb_tokenizer *tok;
    struct sb_error err;
    if (sb_tokenizer_open(&tok, at("tok"), &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sb_marks_find(marks, tok, "tok", &err), SB_OK);
    return tok;
}

static int make_world(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/sb-train-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(dir))
        return -1;
    write_corpus();
    char text[512];
    snprintf(
        text, sizeof text,
        "return { kind = 'tokenizer', name = 'toy', out = '%s/tok', model = { vocab = 300 }, " DATA
        " }",
        dir, dir, "");
    write_text(at("tokenizer.lua"), text);
    write_recipe("toy.lua", "", ", lr = 0.01, warmup = 2", "", "");
    struct sb_error err;
    struct sb_train_options options = { 0 };
    if (sb_train_recipe(at("tokenizer.lua"), &options, &err) != SB_OK) {
        fprintf(stderr, "%s\n", err.message);
        return -1;
    }
    return 0;
}

static int remove_world(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

static void train_ok(const char *recipe, const struct sb_train_options *options)
{
    struct sb_error err;
    if (sb_train_recipe(at(recipe), options, &err) != SB_OK)
        fail_msg("%s", err.message);
}

/* ---- numbers --------------------------------------------------------------------------------- */

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
        if (!strstr(err.message, bad[i].want))
            fail_msg("expected '%s' in: %s", bad[i].want, err.message);
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
        if (!strstr(err.message, bad[i].want) || !strstr(err.message, "bad.lua"))
            fail_msg("expected '%s' in: %s", bad[i].want, err.message);
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
        if (!strstr(err.message, bad[i].want))
            fail_msg("expected '%s' in: %s", bad[i].want, err.message);
    }
}

/* ---- runs ------------------------------------------------------------------------------------ */

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

/* ---- draft heads ----------------------------------------------------------------------------- */

/* A recipe for a head of the toy target in dir/target, which is trained on first use. */
static void write_head_recipe(const char *name, const char *arch, const char *train,
                              const char *data_more, const char *more)
{
    if (!sb_is_file(at("target/model.safetensors"))) {
        struct sb_train_options options = { .out = at("target") };
        train_ok("toy.lua", &options);
    }
    char text[2048];
    snprintf(text, sizeof text,
             "return { kind = 'head', name = 'toy-head', out = '%s/head', target = '%s/target', "
             "arch = '%s', " DATA " train = { steps = 12, batch_tokens = 128, micro_tokens = 64,"
             " seq_len = 24, seed = 7, checkpoint_every = 4, lr = 0.01 %s }, %s }",
             dir, dir, arch, dir, data_more, train, more);
    write_text(at(name), text);
}

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
        if (!strstr(err.message, bad[i].want))
            fail_msg("expected '%s' in: %s", bad[i].want, err.message);
        sb_rendered_finish(&doc);
    }
    sb_tokenizer_close(tok);
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
        if (!strstr(err.message, bad[i].want))
            fail_msg("expected '%s' in: %s", bad[i].want, err.message);
    }
    write_recipe("bad.lua", "", ", lr = 1", ", generate = { prompts = 1, max_new_tokens = 4 }", "");
    assert_int_equal(sb_train_recipe(at("bad.lua"), &options, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "data.generate needs distill.teacher"));
}

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
        if (!strstr(card, wanted[i]))
            fail_msg("no '%s' in: %s", wanted[i], card);
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

/* ---- the written model ----------------------------------------------------------------------- */

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
        cmocka_unit_test(a_chat_is_rendered_as_it_will_be_prompted),
        cmocka_unit_test(an_epoch_gives_every_training_record_once_and_no_other),
        cmocka_unit_test(batches_are_packed_and_a_cursor_continues_them),
        cmocka_unit_test(bad_texts_are_refused_by_file_and_line),
        cmocka_unit_test(a_recipe_is_read_with_its_defaults),
        cmocka_unit_test(a_recipe_may_take_its_data_from_another),
        cmocka_unit_test(bad_recipes_are_refused_with_what_is_right),
        cmocka_unit_test(recipes_that_do_not_fit_their_data_are_refused),
        cmocka_unit_test(a_run_that_stops_and_goes_on_gives_the_same_model),
        cmocka_unit_test(the_number_of_threads_moves_no_bit),
        cmocka_unit_test(a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint),
        cmocka_unit_test(a_foreign_or_damaged_checkpoint_is_refused),
        cmocka_unit_test(a_student_learns_from_its_teacher),
        cmocka_unit_test(a_card_tells_what_was_trained),
        cmocka_unit_test(a_model_starts_from_another),
        cmocka_unit_test(a_student_learns_by_every_divergence),
        cmocka_unit_test(every_head_trains_and_goes_on_where_it_stopped),
        cmocka_unit_test(a_head_is_written_with_what_it_was_made_for),
        cmocka_unit_test(records_of_tokens_are_checked),
        cmocka_unit_test(a_head_whose_loss_is_not_a_number_keeps_its_checkpoint),
        cmocka_unit_test(a_head_learns_what_its_target_says),
        cmocka_unit_test(a_target_writes_its_texts_and_goes_on_where_it_stopped),
        cmocka_unit_test(texts_alone_are_those_of_a_head),
        cmocka_unit_test(greedy_texts_are_what_the_target_likes_best),
        cmocka_unit_test(bad_head_recipes_are_refused_with_what_is_right),
        cmocka_unit_test(inference_computes_what_training_did),
        cmocka_unit_test(the_bundled_models_compute_the_same_both_ways),
    };
    return cmocka_run_group_tests(tests, make_world, remove_world);
}

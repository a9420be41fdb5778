/* The small world of train_world.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/train/train.h"
#include "tests/unit/train_world.h"

char dir[64];

const char *at(const char *name)
{
    static char path[64][256];
    static size_t next;
    next = (next + 1) % 64;
    snprintf(path[next], sizeof path[next], "%s/%s", dir, name);
    return path[next];
}

void write_bytes(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_true(size == 0 || fwrite(data, size, 1, file) == 1);
    fclose(file);
}

void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

unsigned char *read_bytes(const char *path, size_t *size)
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

void assert_same_file(const char *a, const char *b)
{
    size_t n_a, n_b;
    unsigned char *x = read_bytes(a, &n_a), *y = read_bytes(b, &n_b);
    assert_int_equal(n_a, n_b);
    assert_memory_equal(x, y, n_a);
    sb_free(x);
    sb_free(y);
}

void assert_says(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("expected '%s' in: %s", part, text);
}

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

void write_recipe(const char *name, const char *model, const char *train, const char *data_more,
                  const char *more)
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

struct sb_tokenizer *open_tokenizer(struct sb_marks *marks)
{
    struct sb_tokenizer *tok;
    struct sb_error err;
    if (sb_tokenizer_open(&tok, at("tok"), &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sb_marks_find(marks, tok, "tok", &err), SB_OK);
    return tok;
}

int make_world(void **state)
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

int remove_world(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

void train_ok(const char *recipe, const struct sb_train_options *options)
{
    struct sb_error err;
    if (sb_train_recipe(at(recipe), options, &err) != SB_OK)
        fail_msg("%s", err.message);
}

void write_head_recipe(const char *name, const char *arch, const char *train, const char *data_more,
                       const char *more)
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

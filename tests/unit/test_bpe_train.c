/* The trainer of byte-level vocabularies: known merges of tiny corpora. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/model/bpe_train.h"
#include "harness/model/tokenizer.h"

static char file[] = "/tmp/specbench-bpe-XXXXXX.json";

enum { FIRST = 2 + 256 }; /* two special tokens, the bytes, then what is joined */

static const char *const special[] = { "<|bos|>", "<|end|>" };

static struct sb_bpe_trainer *create(size_t n_vocab)
{
    struct sb_bpe_trainer *t;
    struct sb_bpe_options options = { .n_vocab = n_vocab, .special = special, .n_special = 2 };
    assert_int_equal(sb_bpe_trainer_create(&t, &options, NULL), SB_OK);
    return t;
}

static void add(struct sb_bpe_trainer *t, const char *text, int64_t count)
{
    assert_int_equal(sb_bpe_trainer_add(t, text, strlen(text), count, NULL), SB_OK);
}

static struct sb_tokenizer *finish(struct sb_bpe_trainer *t, size_t n_vocab)
{
    struct sb_tokenizer *tok;
    struct sb_error err;
    size_t n = 0;
    if (sb_bpe_trainer_write(t, file, &n, &err) != SB_OK ||
        sb_tokenizer_open(&tok, file, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_int_equal(n, n_vocab);
    assert_int_equal(sb_tokenizer_size(tok), n_vocab);
    sb_bpe_trainer_destroy(t);
    return tok;
}

/* Sennrich et al. 2016, figure 1: low 5, lower 2, newest 6, widest 3. "es" and "st" are both there nine
 * times: of equals the smaller ids win, 'e' before 's'. */
static void the_published_example(void **state)
{
    (void)state;
    static const char *const want[] = { "es", "est", "lo", "low", "ew" };
    struct sb_bpe_trainer *t = create(FIRST + 5);
    add(t, "low", 5);
    add(t, "lower", 2);
    add(t, "newest", 6);
    add(t, "widest", 3);
    struct sb_tokenizer *tok = finish(t, FIRST + 5);
    for (int i = 0; i < 5; i++)
        assert_string_equal(sb_tokenizer_piece(tok, FIRST + i), want[i]);
    struct sb_tokens ids = { 0 };
    assert_int_equal(sb_tokenizer_encode(tok, &ids, "lowest<|end|>", 13, 0, NULL), SB_OK);
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.id[0], FIRST + 3);
    assert_int_equal(ids.id[1], FIRST + 1);
    assert_int_equal(ids.id[2], 1);
    sb_tokens_finish(&ids);
    sb_tokenizer_close(tok);
}

static void pairs_do_not_cross_pretokens(void **state)
{
    (void)state;
    struct sb_bpe_trainer *t = create(FIRST + 4);
    add(t, "1234 1234 ab ab", 10);
    struct sb_tokenizer *tok = finish(t, FIRST + 4);
    /* "123", "4", " ", "123", "4", " ab", " ab": four joins of twenty each */
    assert_int_equal(sb_tokenizer_find(tok, "34"), -1);
    assert_int_equal(sb_tokenizer_find(tok, "1234"), -1);
    assert_true(sb_tokenizer_find(tok, "123") > 0);
    sb_tokenizer_close(tok);
}

/* "aaaa" has three pairs, of which two can be joined. */
static void overlapping_pairs_are_counted_down(void **state)
{
    (void)state;
    struct sb_bpe_trainer *t = create(FIRST + 10);
    add(t, "aaaa", 1);
    struct sb_tokenizer *tok = finish(t, FIRST + 2); /* aa, aaaa, and nothing more */
    assert_string_equal(sb_tokenizer_piece(tok, FIRST), "aa");
    assert_string_equal(sb_tokenizer_piece(tok, FIRST + 1), "aaaa");
    sb_tokenizer_close(tok);
}

/* Otherwise users could write it: its text would be an ordinary piece. */
static void no_join_is_spelled_like_a_special_token(void **state)
{
    (void)state;
    static const char *const marks[] = { "abc" };
    struct sb_bpe_trainer *t;
    struct sb_bpe_options options = { .n_vocab = 256 + 5, .special = marks, .n_special = 1 };
    size_t n = 0;
    assert_int_equal(sb_bpe_trainer_create(&t, &options, NULL), SB_OK);
    add(t, "abc", 9);
    add(t, "xy", 1);
    assert_int_equal(sb_bpe_trainer_write(t, file, &n, NULL), SB_OK);
    assert_int_equal(n, 1 + 256 + 2); /* ab, xy */
    sb_bpe_trainer_destroy(t);
    struct sb_tokenizer *tok;
    struct sb_tokens ids = { 0 };
    assert_int_equal(sb_tokenizer_open(&tok, file, NULL), SB_OK);
    assert_int_equal(sb_tokenizer_encode(tok, &ids, "abc", 3, SB_ENCODE_PLAIN, NULL), SB_OK);
    assert_int_equal(ids.n, 2);
    sb_tokens_finish(&ids);
    sb_tokenizer_close(tok);
}

static char *read_file(size_t *n)
{
    FILE *f = fopen(file, "rb");
    assert_non_null(f);
    char *text = malloc(1 << 20);
    *n = fread(text, 1, 1 << 20, f);
    fclose(f);
    return text;
}

static void the_same_counts_give_the_same_bytes(void **state)
{
    (void)state;
    char *first = NULL;
    size_t n_first = 0, n;
    for (int order = 0; order < 2; order++) {
        struct sb_bpe_trainer *t = create(FIRST + 40);
        for (int i = 0; i < 26; i++) {
            int k = order ? 25 - i : i;
            char text[32];
            snprintf(text, sizeof text, " %c%c%c the \xC3\xA9%c 7%d", 'a' + k, 'a' + k / 2,
                     'a' + k / 3, 'z' - k, k);
            add(t, text, 1 + k % 5);
        }
        sb_tokenizer_close(finish(t, FIRST + 40));
        char *text = read_file(&n);
        if (first) {
            assert_int_equal(n, n_first);
            assert_memory_equal(text, first, n);
            free(text);
        } else {
            first = text;
            n_first = n;
        }
    }
    free(first);
}

static void any_text_comes_back(void **state)
{
    (void)state;
    static const char text[] = "na\xC3\xAFve \xF0\x9F\x98\x80\n\n  12345 \xE4\xB8\x80 \x01 end";
    struct sb_bpe_trainer *t = create(FIRST + 30);
    add(t, text, 3);
    add(t, "a naive end of the end", 2);
    struct sb_tokens ids = { 0 };
    char *back;
    size_t length, n = 0;
    assert_int_equal(sb_bpe_trainer_write(t, file, &n, NULL), SB_OK);
    sb_bpe_trainer_destroy(t);
    struct sb_tokenizer *tok;
    assert_int_equal(sb_tokenizer_open(&tok, file, NULL), SB_OK);
    assert_int_equal(sb_tokenizer_encode(tok, &ids, text, strlen(text), 0, NULL), SB_OK);
    assert_true(ids.n < strlen(text));
    assert_int_equal(sb_tokenizer_decode(tok, &back, &length, ids.id, ids.n, false, NULL), SB_OK);
    assert_string_equal(back, text);
    sb_free(back);
    sb_tokens_finish(&ids);
    sb_tokenizer_close(tok);
}

static void wrong_options_are_refused(void **state)
{
    (void)state;
    static const char *const twice[] = { "<a>", "<a>" };
    struct sb_bpe_trainer *t = NULL;
    struct sb_bpe_options small = { .n_vocab = 200 }, same = { 400, twice, 2 };
    struct sb_error err;
    assert_int_equal(sb_bpe_trainer_create(&t, &small, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "256"));
    assert_int_equal(sb_bpe_trainer_create(&t, &same, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "<a>"));
    assert_null(t);
    t = create(FIRST);
    size_t n;
    assert_int_equal(sb_bpe_trainer_add(t, "a\xFF", 2, 1, &err), SB_EFORMAT);
    assert_int_equal(sb_bpe_trainer_write(t, "/nonexistent/x.json", &n, &err), SB_EIO);
    assert_non_null(strstr(err.message, "/nonexistent/x.json"));
    sb_bpe_trainer_destroy(t);
}

static int make_file(void **state)
{
    (void)state;
    int fd = mkstemps(file, 5);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state)
{
    (void)state;
    return unlink(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_example),
        cmocka_unit_test(pairs_do_not_cross_pretokens),
        cmocka_unit_test(overlapping_pairs_are_counted_down),
        cmocka_unit_test(no_join_is_spelled_like_a_special_token),
        cmocka_unit_test(the_same_counts_give_the_same_bytes),
        cmocka_unit_test(any_text_comes_back),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}

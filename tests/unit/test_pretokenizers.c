/* Normalizers and pre-tokenizers of tokenizer.json, one small file each: what text they make of a text and
 * where they cut it. The answers are those of Hugging Face's tokenizers library. */
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
#include "harness/model/tok_internal.h"

static char file[] = "/tmp/specbench-tokenizer-XXXXXX.json"; /* written anew by each check */

static enum sb_status open_with(struct sb_tokenizer **tok, const char *normalizer, const char *cut,
                                struct sb_error *err)
{
    FILE *f = fopen(file, "w");
    assert_non_null(f);
    fprintf(f,
            "{\"normalizer\": %s, \"pre_tokenizer\": %s, \"added_tokens\": [],"
            " \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
            normalizer, cut);
    fclose(f);
    enum sb_status rc = sb_tokenizer_open(tok, file, err);
    return rc;
}

/* The text after the normalizer, with '|' between the pieces. */
static void check(const char *normalizer, const char *cut, const char *text, const char *want)
{
    struct sb_error err;
    struct sb_tokenizer *tok;
    struct sb_pieces a = { 0 }, b = { 0 }, c = { 0 };
    char got[512] = "";
    if (open_with(&tok, normalizer, cut, &err) != SB_OK)
        fail_msg("%s", err.message);
    struct sb_pieces *p =
        sb_steps_run(tok->normalize, tok->n_normalize, &a, &b, text, strlen(text), true);
    struct sb_pieces *q =
        sb_steps_run(tok->cut, tok->n_cut, &c, p == &a ? &b : &a, p->text, p->n_text, true);
    for (size_t i = 0, from = 0; i < q->n; from = q->end[i++])
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%.*s", i ? "|" : "",
                 (int)(q->end[i] - from), q->text + from);
    assert_string_equal(got, want);
    sb_pieces_finish(&a);
    sb_pieces_finish(&b);
    sb_pieces_finish(&c);
    sb_tokenizer_close(tok);
}

static void cut(const char *pretokenizer, const char *text, const char *want)
{
    check("null", pretokenizer, text, want);
}

static void normalize(const char *normalizer, const char *text, const char *want)
{
    check(normalizer, "null", text, want);
}

#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":\"" behavior "\",\"invert\":" invert \
    "}"

static void unicode_forms(void **state)
{
    (void)state;
    normalize("{\"type\":\"NFC\"}", "e\xCC\x81", "\xC3\xA9");
    normalize("{\"type\":\"NFD\"}", "\xC3\xA9", "e\xCC\x81");
    normalize("{\"type\":\"NFKC\"}", "\xEF\xAC\x81", "fi");
    normalize("{\"type\":\"NFKD\"}", "\xEF\xAC\x81\xC3\xA9", "fie\xCC\x81");
    normalize("{\"type\":\"Lowercase\"}", "A\xC3\x89\xC4\xB0", "a\xC3\xA9i\xCC\x87");
}

static void text_replacements(void **state)
{
    (void)state;
    normalize("{\"type\":\"Prepend\",\"prepend\":\"_\"}", "ab", "_ab");
    normalize("{\"type\":\"Replace\",\"pattern\":{\"String\":\"ab\"},\"content\":\"x\"}", "aabab",
              "axx");
    normalize("{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\s+\"},\"content\":\"_\"}",
              "a \t b  ", "a_b_");
    normalize("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":false}", " \xE3\x80\x80 a ",
              "a ");
    normalize("{\"type\":\"Strip\",\"strip_left\":false,\"strip_right\":true}", " a \n", " a");
    normalize("{\"type\":\"Strip\",\"strip_left\":true,\"strip_right\":true}", "  ", "");
    normalize("{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Lowercase\"},"
              "{\"type\":\"Prepend\",\"prepend\":\"X\"}]}",
              "AB", "Xab");
}

static void split_behaviors(void **state)
{
    (void)state;
    const char text[] = "a--b-c";
    cut(SPLIT("{\"String\":\"-\"}", "Isolated", "false"), text, "a|-|-|b|-|c");
    cut(SPLIT("{\"String\":\"-\"}", "Removed", "false"), text, "a|b|c");
    cut(SPLIT("{\"String\":\"-\"}", "MergedWithPrevious", "false"), text, "a-|-|b-|c");
    cut(SPLIT("{\"String\":\"-\"}", "MergedWithNext", "false"), text, "a|-|-b|-c");
    cut(SPLIT("{\"String\":\"-\"}", "Contiguous", "false"), text, "a|--|b|-|c");
    cut(SPLIT("{\"Regex\":\"[a-z]+\"}", "Removed", "true"), text, "a|b|c");
    cut(SPLIT("{\"Regex\":\"[a-z]+\"}", "Isolated", "false"), text, "a|--|b|-|c");
}

static void named_pretokenizers(void **state)
{
    (void)state;
    cut("{\"type\":\"Digits\",\"individual_digits\":true}", "ab12c3", "ab|1|2|c|3");
    cut("{\"type\":\"Digits\",\"individual_digits\":false}", "ab12c3", "ab|12|c|3");
    cut("{\"type\":\"Punctuation\"}", "a,.b\xE3\x80\x82$", "a|,|.|b|\xE3\x80\x82|$");
    cut("{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"}", "a,.b", "a|,.|b");
    cut("{\"type\":\"Whitespace\"}", "ab  c,d e!?", "ab|c|,|d|e|!?");
    cut("{\"type\":\"WhitespaceSplit\"}",
        " ab  c,d\xC2\xA0"
        "e",
        "ab|c,d|e");
    cut("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", "ab cd's",
        "\xC4\xA0"
        "ab|\xC4\xA0"
        "cd|'s");
    cut("{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}", "a b\n\xC3\xBC",
        "a\xC4\xA0"
        "b\xC4\x8A\xC3\x83\xC2\xBC");
}

static void metaspace_schemes(void **state)
{
    (void)state;
    cut("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\"}", "a b  c",
        "_a|_b|_|_c");
    cut("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"never\"}", "a b",
        "a|_b");
    cut("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"always\","
        "\"split\":false}",
        " a b", "_a_b");
    cut("{\"type\":\"Metaspace\",\"replacement\":\"_\",\"add_prefix_space\":false}", "a b", "a|_b");
    cut("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"WhitespaceSplit\"},"
        "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"first\"}]}",
        "a b", "_a|b");
}

/* Llama 3: digits in threes from the left, a line break joins the signs before it, one space stays with the
 * word behind it. */
static void the_llama_3_pattern(void **state)
{
    (void)state;
    const char step[] =
        SPLIT("{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
              "\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"
              "\\\\s+(?!\\\\S)|\\\\s+\"}",
              "Isolated", "false");
    cut(step, "I'LL be 12345  times!\n\n x", "I|'LL| be| |123|45| | times|!\n\n| x");
}

/* Falcon cuts signs off first, so that "'s" is no piece of its own; then digits in threes. */
static void a_sequence_cuts_what_the_step_before_left(void **state)
{
    (void)state;
    cut("{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Punctuation\",\"behavior\":\"Contiguous\"},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true},"
        "{\"type\":\"Digits\",\"individual_digits\":false}," SPLIT(
            "{\"Regex\":\"[0-9][0-9][0-9]\"}", "Isolated", "false") "]}",
        "it's 12345", "it|'|s|\xC4\xA0|123|45");
    cut("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},"
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}]}",
        "a 12", "a|\xC4\xA0|1|2");
}

/* Patterns mean what they mean in Oniguruma, which the reference uses. */
static void patterns_are_read_as_oniguruma_reads_them(void **state)
{
    (void)state;
    /* U+180E is no white space, U+0085 is */
    cut(SPLIT("{\"Regex\":\"\\\\s\"}", "Isolated", "false"),
        "a\xE1\xA0\x8E"
        "b\xC2\x85"
        "c",
        "a\xE1\xA0\x8E"
        "b|\xC2\x85|c");
    /* marks are word characters */
    cut(SPLIT("{\"Regex\":\"\\\\w+\"}", "Isolated", "false"), "e\xCC\x81_1-x", "e\xCC\x81_1|-|x");
    cut(SPLIT("{\"Regex\":\"[^\\\\S\\\\n]+\"}", "Isolated", "false"), "a \nb", "a| |\nb");
    /* a class inside a class */
    cut(SPLIT("{\"Regex\":\"[^(\\\\s|[.,!])]+\"}", "Isolated", "false"), "ab(c,d|e f",
        "ab|(|c|,|d|||e| |f");
    /* no possessive {m,n}+ */
    cut(SPLIT("{\"Regex\":\"x(?:[0-9]){1,2}+9\"}", "Isolated", "false"), "ax12349b", "a|x12349|b");
    cut(SPLIT("{\"Regex\":\"\\\\p{N}{1,3}+\"}", "Isolated", "false"), "a12345b", "a|12345|b");
    /* ^ and $ at line ends */
    cut(SPLIT("{\"Regex\":\"x$\"}", "Isolated", "false"), "ax\nbx", "a|x|\nb|x");
    cut(SPLIT("{\"Regex\":\"\\\\u0061+\"}", "Isolated", "false"), "baab", "b|aa|b");
}

/* What no match covers stays, also when matching gives up. */
static void unmatched_text_is_a_piece(void **state)
{
    (void)state;
    cut(SPLIT("{\"Regex\":\"z*\"}", "Isolated", "false"), "abzzc", "ab|zz|c");
    cut(SPLIT("{\"Regex\":\"q\"}", "Isolated", "false"), "abc", "abc");
    cut(SPLIT("{\"Regex\":\"(a+)+!\"}", "Isolated", "false"),
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
}

static void unknown_steps_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *normalizer, *cut, *told;
    } bad[] = {
        { "null", "{\"type\":\"UnicodeScripts\"}", "UnicodeScripts" },
        { "{\"type\":\"Precompiled\"}", "null", "Precompiled" },
        { "null", SPLIT("{\"Regex\":\"(\"}", "Isolated", "false"), "pattern '('" },
        { "null", SPLIT("{\"Regex\":\"[a[^b]]\"}", "Isolated", "false"), "negated class" },
        { "null", SPLIT("{\"Regex\":\"[a-z&&b]\"}", "Isolated", "false"), "&&" },
        { "null", SPLIT("{\"Regex\":\"\\\\C\"}", "Isolated", "false"), "pattern '\\C'" },
        { "null", SPLIT("{\"Regex\":\"a\"}", "Sideways", "false"), "Sideways" },
        { "null", SPLIT("{\"String\":\"\"}", "Isolated", "false"), "pattern" },
        { "null", SPLIT("7", "Isolated", "false"), "pattern" },
        { "null", "{\"type\":\"Sequence\",\"pretokenizers\":3}", "Sequence" },
        { "null", "[]", "no type" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sb_error err;
        struct sb_tokenizer *tok = NULL;
        assert_int_equal(sb_exit_code(open_with(&tok, bad[i].normalizer, bad[i].cut, &err)), 2);
        assert_null(tok);
        assert_non_null(strstr(err.message, file));
        if (!strstr(err.message, bad[i].told))
            fail_msg("'%s' does not tell '%s'", err.message, bad[i].told);
    }
}

/* A megabyte without a place to cut takes no quadratic time: this test would run for hours. */
static void long_runs_are_fast(void **state)
{
    (void)state;
    static const char *const cuts[] = {
        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}",
        "{\"type\":\"Metaspace\",\"replacement\":\"_\"}", "null"
    };
    size_t n = 1 << 20;
    char *text = malloc(n);
    memset(text, 'a', n);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct sb_tokenizer *tok;
        struct sb_tokens ids = { 0 };
        assert_int_equal(open_with(&tok, "null", cuts[i], NULL), SB_OK);
        assert_int_equal(sb_tokenizer_encode(tok, &ids, text, n, 0, NULL), SB_OK);
        assert_int_equal(ids.n, n);
        sb_tokens_finish(&ids);
        sb_tokenizer_close(tok);
    }
    free(text);
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
        cmocka_unit_test(unicode_forms),
        cmocka_unit_test(text_replacements),
        cmocka_unit_test(split_behaviors),
        cmocka_unit_test(named_pretokenizers),
        cmocka_unit_test(metaspace_schemes),
        cmocka_unit_test(the_llama_3_pattern),
        cmocka_unit_test(a_sequence_cuts_what_the_step_before_left),
        cmocka_unit_test(patterns_are_read_as_oniguruma_reads_them),
        cmocka_unit_test(unmatched_text_is_a_piece),
        cmocka_unit_test(unknown_steps_are_refused_by_name),
        cmocka_unit_test(long_runs_are_fast),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}

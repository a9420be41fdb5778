/* Tokenizer files: added tokens, byte fallback, chat formats, and what bad files get. */
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
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/model/chat.h"
#include "harness/model/tokenizer.h"

static char folder[] = "/tmp/specbench-tokenizer-XXXXXX";
static char file[sizeof folder + 32], config[sizeof folder + 32], gguf[sizeof folder + 32];

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof file, "%s/tokenizer.json", folder);
    snprintf(config, sizeof config, "%s/tokenizer_config.json", folder);
    snprintf(gguf, sizeof gguf, "%s/vocabulary.gguf", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(file);
    unlink(config);
    unlink(gguf);
    return rmdir(folder);
}

static void write_file(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

static struct sb_tokenizer *open_text(const char *text)
{
    struct sb_error err;
    struct sb_tokenizer *tok;
    write_text(file, text);
    if (sb_tokenizer_open(&tok, folder, &err) != SB_OK)
        fail_msg("%s", err.message);
    return tok;
}

static void check_ids(const struct sb_tokenizer *tok, const char *text, unsigned flags,
                      const char *want)
{
    struct sb_tokens ids = { 0 };
    char got[512] = "";
    assert_int_equal(sb_tokenizer_encode(tok, &ids, text, strlen(text), flags, NULL), SB_OK);
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids.id[i]);
    assert_string_equal(got, want);
    sb_tokens_finish(&ids);
}

static void check_text(const struct sb_tokenizer *tok, const sb_token *ids, size_t n, bool special,
                       const char *want)
{
    char *text;
    size_t length;
    assert_int_equal(sb_tokenizer_decode(tok, &text, &length, ids, n, special, NULL), SB_OK);
    assert_string_equal(text, want);
    assert_int_equal(length, strlen(want));
    sb_free(text);
}

#define ADDED(id, text, more) "{\"id\":" #id ",\"content\":\"" text "\"" more "}"

static void added_tokens_are_cut_out_longest_first(void **state)
{
    (void)state;
    struct sb_tokenizer *tok = open_text(
        "{\"added_tokens\":[" ADDED(5, "<a>", ",\"special\":true") "," ADDED(6, "<a>b", ",\"special\":true") "," ADDED(
            7, "ca",
            "") "," ADDED(8, "<l>",
                          ",\"lstrip\":true") "," ADDED(9, "<r>",
                                                        ",\"rstrip\":true") "," ADDED(10, "bb",
                                                                                      ",\"single_word\":true") "],"
                                                                                                               "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\" \":3,\"ab\":4},"
                                                                                                               "\"merges\":[\"a b\"]}}");
    check_ids(tok, "a<a>ab", 0, "0 5 4");
    check_ids(tok, "<a>b<a>", 0, "6 5");
    check_ids(tok, "<a>b", SB_ENCODE_PLAIN, "4");  /* "<" and ">" are no pieces here */
    check_ids(tok, "cab", SB_ENCODE_PLAIN, "7 1"); /* not special: always cut out */
    check_ids(tok, "a  <l> a", 0, "0 8 3 0");
    check_ids(tok, "a <r>\xE3\x80\x80 a", 0, "0 3 9 0");
    check_ids(tok, "bb abb bb\xC3\xA9", 0, "10 3 4 1 3 1 1");
    assert_int_equal(sb_tokenizer_find(tok, "<a>b"), 6);
    assert_int_equal(sb_tokenizer_find(tok, "<a"), -1);
    const sb_token ids[] = { 5, 4, 7 };
    check_text(tok, ids, 3, false, "abca");
    check_text(tok, ids, 3, true, "<a>abca");
    sb_tokenizer_close(tok);
}

static void an_added_token_may_be_listed_twice(void **state)
{
    (void)state;
    struct sb_tokenizer *tok = open_text("{\"added_tokens\":[" ADDED(1, "<a>", "") "," ADDED(
        1, "<a>",
        ",\"special\":true") "],"
                             "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]}}");
    check_ids(tok, "a<a>a", 0, "0 1 0");
    sb_tokenizer_close(tok);
}

/* Whole words that are tokens need no merges where the file says so (Llama 3). */
static void ignore_merges_takes_whole_pieces(void **state)
{
    (void)state;
    static const char model[] = "{\"added_tokens\":[" ADDED(
        3, "aba",
        ",\"special\":true") "],"
                             "\"model\":{\"type\":\"BPE\",\"ignore_merges\":%s,"
                             "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"bab\":4},\"merges\":[[\"a\",\"b\"]]}}";
    char text[400];
    snprintf(text, sizeof text, model, "false");
    struct sb_tokenizer *tok = open_text(text);
    check_ids(tok, "bab", 0, "1 2");
    sb_tokenizer_close(tok);
    snprintf(text, sizeof text, model, "true");
    tok = open_text(text);
    check_ids(tok, "bab", 0, "4");
    check_ids(tok, "aba", SB_ENCODE_PLAIN, "2 0"); /* but never a special one */
    sb_tokenizer_close(tok);
}

/* Of equal ranks the leftmost is joined first; of different ranks the lower one. */
static void merges_go_by_rank_then_from_the_left(void **state)
{
    (void)state;
    struct sb_tokenizer *tok =
        open_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"ba\":3,"
                  "\"aab\":4},\"merges\":[\"b a\",\"a a\",\"aa b\"]}}");
    check_ids(tok, "aaa", 0, "2 0");
    check_ids(tok, "aaba", 0, "2 3");
    check_ids(tok, "aab", 0, "4");
    check_ids(tok, "", 0, "");
    sb_tokenizer_close(tok);
}

/* Llama 2 as tokenizer.json: a space in front, characters without a piece as their bytes. */
static const char byte_fallback[] =
    "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":["
    "{\"type\":\"Prepend\",\"prepend\":\"\xE2\x96\x81\"},"
    "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xE2\x96\x81\"}]},"
    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
    "{\"id\":\"<s>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}]},"
    "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":"
    "{\"String\":\"\xE2\x96\x81\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},"
    "{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"added_tokens\":[" ADDED(0, "<unk>", ",\"special\":true") "," ADDED(1, "<s>", ",\"special\":true") "," ADDED(
        2, "</s>",
        ",\"special\":true") "],"
                             "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"fuse_unk\":true,"
                             "\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</s>\":2,\"<0xC3>\":3,"
                             "\"<0xA9>\":4,\"\xE2\x96\x81\":5,\"a\":6,\"\xE2\x96\x81"
                             "a\":7},"
                             "\"merges\":[\"\xE2\x96\x81 a\"]}}";

static void characters_without_a_piece_become_bytes(void **state)
{
    (void)state;
    struct sb_tokenizer *tok = open_text(byte_fallback);
    const sb_token ids[] = { 1, 7, 5, 3, 4, 2 }, half[] = { 3 }, beyond[] = { 8 };
    struct sb_error err;
    char *text;
    size_t length;
    check_ids(tok, "a \xC3\xA9", 0, "7 5 3 4");
    check_ids(tok, "a", SB_ENCODE_BOS, "1 7");
    check_ids(tok,
              "a\xE4\xB8\x80\xE4\xB8\x81"
              "a",
              0, "7 0 6"); /* unknown ones in a row are one */
    check_ids(tok, "<s>a", SB_ENCODE_PLAIN, "5 0 6");
    check_text(tok, ids, 6, false, "a \xC3\xA9");
    check_text(tok, half, 1, false, "\xC3"); /* the other half is in the next token */
    assert_int_equal(sb_tokenizer_bos(tok), 1);
    assert_int_equal(sb_tokenizer_eos(tok), 2);
    assert_true(sb_tokenizer_adds_bos(tok));
    assert_true(sb_tokenizer_is_eog(tok, 2));
    assert_int_equal(sb_tokenizer_decode(tok, &text, &length, beyond, 1, true, &err), SB_EUSAGE);
    assert_null(sb_tokenizer_piece(tok, 8));
    assert_null(sb_tokenizer_piece(tok, -1));
    sb_tokenizer_close(tok);
}

static void the_config_beside_it_names_bos_and_eos(void **state)
{
    (void)state;
    write_text(config, "{\"add_bos_token\":true,\"bos_token\":{\"content\":\"b\"},"
                       "\"eos_token\":\"a\"}");
    struct sb_tokenizer *tok = open_text("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},"
                                         "\"merges\":[]}}");
    check_ids(tok, "a", SB_ENCODE_BOS, "1 0");
    assert_true(sb_tokenizer_is_eog(tok, 0));
    sb_tokenizer_close(tok);
    unlink(config);
}

static void the_hash_tells_vocabularies_apart(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1,\"b\":0,\"ab\":2},\"merges\":[\"a b\"]}}",
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[]}}",
    };
    uint64_t hash[4];
    for (size_t i = 0; i < 4; i++) {
        struct sb_tokenizer *tok = open_text(texts[i % 3]);
        hash[i] = sb_tokenizer_hash(tok);
        sb_tokenizer_close(tok);
    }
    assert_true(hash[0] == hash[3]);
    assert_true(hash[0] != hash[1] && hash[0] != hash[2] && hash[1] != hash[2]);
}

#define CHAT_MODEL                                                                                                                                                                     \
    "{\"added_tokens\":[" ADDED(0, "<|bos|>", ",\"special\":true") "," ADDED(                                                                                                          \
        1, "<|user|>",                                                                                                                                                                 \
        ",\"special\":true") "," ADDED(2, "<|assistant|>",                                                                                                                             \
                                       ",\"special\":true") "," ADDED(3, "<|end|>",                                                                                                    \
                                                                      ",\"special\":true") "],"                                                                                        \
                                                                                           "\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\n\":4,\"a\":5,\"b\":6,\"<\":7,\"|\":8,\">\":9," \
                                                                                           "\"u\":10,\"s\":11,\"e\":12,\"r\":13,\" \":14},\"merges\":[]}}"

static void check_chat(const struct sb_tokenizer *tok, const char *name, const char *want)
{
    const struct sb_turn turns[] = { { "a<|user|>", "b" }, { "a", NULL } };
    struct sb_tokens ids = { 0 };
    char got[512] = "";
    assert_int_equal(sb_chat_encode(name, tok, turns, 2, &ids, NULL), SB_OK);
    for (size_t i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids.id[i]);
    assert_string_equal(got, want);
    sb_tokens_finish(&ids);
}

/* The format of the bundled models; the user's own "<|user|>" is eight characters. */
static void our_own_chat_format(void **state)
{
    (void)state;
    struct sb_tokenizer *tok = open_text(CHAT_MODEL);
    check_chat(tok, "specbench", "0 1 4 5 7 8 10 11 12 13 8 9 4 2 4 6 3 4 1 4 5 4 2 4");
    check_chat(tok, "plain", "5 7 8 10 11 12 13 8 9 4 6 4 5");
    struct sb_error err;
    struct sb_tokens ids = { 0 };
    assert_int_equal(sb_chat_encode("nonesuch", tok, NULL, 0, &ids, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "chatml"));
    sb_tokenizer_close(tok);
}

static void bad_tokenizer_json_gets_one_clear_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *told;
    } bad[] = {
        { "", "tokenizer.json" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0", "tokenizer.json" },
        { "[1]", "object" },
        { "{}", "model" },
        { "{\"model\":7}", "model" },
        { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[]}}", "Unigram" },
        { "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "WordPiece" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "vocab" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "vocabulary" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":\"0\"},\"merges\":[]}}", "'a'" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "'a'" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1e99},\"merges\":[]}}", "'a'" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999},\"merges\":[]}}", "'a'" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1000000},\"merges\":[]}}", "1000000" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "id 0" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "a" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", "merges" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}", "merge 0" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"aa\"]}}", "merges[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", "merges[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[7]}}", "merges[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}",
          "what they make" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],"
          "\"end_of_word_suffix\":\"</w>\"}}",
          "end_of_word_suffix" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
          "\"added_tokens\":[{\"id\":0,\"content\":\"b\"}]}",
          "added_tokens[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
          "\"added_tokens\":[{\"id\":1,\"content\":\"a\"}]}",
          "added_tokens[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
          "\"added_tokens\":[{\"content\":\"b\"}]}",
          "added_tokens[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
          "\"added_tokens\":[{\"id\":1,\"content\":7}]}",
          "added_tokens[0]" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},\"added_tokens\":7}",
          "added_tokens" },
        { "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\xFF\":0},\"merges\":[]}}", "tokenizer.json" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct sb_error err;
        struct sb_tokenizer *tok = NULL;
        write_text(file, bad[i].text);
        if (sb_tokenizer_open(&tok, folder, &err) == SB_OK)
            fail_msg("'%s' was taken", bad[i].text);
        assert_null(tok);
        assert_int_equal(sb_exit_code(err.code), 2);
        if (!strstr(err.message, file) || !strstr(err.message, bad[i].told))
            fail_msg("'%s' for '%s' does not tell '%s'", err.message, bad[i].text, bad[i].told);
    }
}

static void check_refusal(const char *path, const char *told)
{
    struct sb_error err;
    struct sb_tokenizer *tok = NULL;
    assert_int_equal(sb_exit_code(sb_tokenizer_open(&tok, path, &err)), 2);
    assert_null(tok);
    if (!strstr(err.message, path) || !strstr(err.message, told))
        fail_msg("'%s' does not tell '%s'", err.message, told);
}

static void other_files_are_refused_with_advice(void **state)
{
    (void)state;
    char path[sizeof folder + 32];
    unlink(file);
    check_refusal(folder, "no tokenizer.json");
    snprintf(path, sizeof path, "%s/sample.sp.model", folder);
    write_text(path, "\n\x0e\n\x05<unk>");
    check_refusal(path, "SentencePiece");
    unlink(path);
    check_refusal(path, "");
}

/* A vocabulary of GGUF, built value by value. */
struct bytes {
    uint8_t data[2048];
    size_t n;
};

static void put(struct bytes *b, const void *data, size_t n)
{
    assert_true(b->n + n <= sizeof b->data);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void put_int(struct bytes *b, uint64_t value, size_t size)
{
    put(b, &value, size); /* little-endian, as are the machines this runs on */
}

static void put_text(struct bytes *b, const char *text)
{
    put_int(b, strlen(text), 8);
    put(b, text, strlen(text));
}

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };

struct vocabulary {
    const char *pieces[8], *merges[4];
    int types[8];
    float scores[8];
    const char *model, *pre, *extra_key;
    uint32_t extra_type, extra;
};

static void put_strings(struct bytes *b, const char *key, const char *const *text, size_t most)
{
    size_t n = 0;
    while (n < most && text[n])
        n++;
    put_text(b, key);
    put_int(b, ARRAY, 4);
    put_int(b, STRING, 4);
    put_int(b, n, 8);
    for (size_t i = 0; i < n; i++)
        put_text(b, text[i]);
}

static void write_gguf(const struct vocabulary *v)
{
    struct bytes b = { 0 };
    size_t n = 0;
    while (n < 8 && v->pieces[n])
        n++;
    put(&b, "GGUF", 4);
    put_int(&b, 3, 4);
    put_int(&b, 0, 8);
    put_int(&b, 6 + (v->pre != NULL) + (v->extra_key != NULL), 8);
    put_text(&b, "general.architecture");
    put_int(&b, STRING, 4);
    put_text(&b, "llama");
    put_text(&b, "tokenizer.ggml.model");
    put_int(&b, STRING, 4);
    put_text(&b, v->model);
    put_strings(&b, "tokenizer.ggml.tokens", v->pieces, 8);
    put_strings(&b, "tokenizer.ggml.merges", v->merges, 4);
    put_text(&b, "tokenizer.ggml.token_type");
    put_int(&b, ARRAY, 4);
    put_int(&b, I32, 4);
    put_int(&b, n, 8);
    for (size_t i = 0; i < n; i++)
        put_int(&b, (uint32_t)v->types[i], 4);
    put_text(&b, "tokenizer.ggml.scores");
    put_int(&b, ARRAY, 4);
    put_int(&b, F32, 4);
    put_int(&b, n, 8);
    put(&b, v->scores, 4 * n);
    if (v->pre) {
        put_text(&b, "tokenizer.ggml.pre");
        put_int(&b, STRING, 4);
        put_text(&b, v->pre);
    }
    if (v->extra_key) {
        put_text(&b, v->extra_key);
        put_int(&b, v->extra_type, 4);
        put_int(&b, v->extra, v->extra_type == BOOL ? 1 : 4);
    }
    write_file(gguf, b.data, b.n);
}

static const struct vocabulary spm = {
    .model = "llama",
    .pieces = { "<unk>", "<s>", "</s>", "\xE2\x96\x81", "a", "aa",
                "\xE2\x96\x81"
                "a",
                "</s" },
    .types = { 2, 3, 3, 1, 1, 1, 1, 1 },
    .scores = { 0, 0, 0, -3, -4, -1, -2, -5 },
};

static const struct vocabulary bpe = {
    .model = "gpt2",
    .pre = "gpt-2",
    .pieces = { "a", "\xC4\xA0", "aa", "1", "<|e|>",
                "\xC4\xA0"
                "a" },
    .types = { 1, 1, 1, 1, 3, 1 },
    .merges = { "a a", "\xC4\xA0 a" },
};

static struct sb_tokenizer *open_gguf(const struct vocabulary *v)
{
    struct sb_error err;
    struct sb_tokenizer *tok;
    write_gguf(v);
    if (sb_tokenizer_open(&tok, gguf, &err) != SB_OK)
        fail_msg("%s", err.message);
    return tok;
}

static void scored_pieces_join_by_score(void **state)
{
    (void)state;
    struct sb_tokenizer *tok = open_gguf(&spm);
    check_ids(tok, "aaa", 0, "3 5 4"); /* "aa" has the better score, the leftmost comes first */
    check_ids(tok, "a", SB_ENCODE_BOS, "1 6");
    check_ids(tok, "a</s>a", 0, "6 2 6");
    check_ids(tok, "</s>", SB_ENCODE_PLAIN, "3 0 0 0 0"); /* never the special token */
    assert_int_equal(sb_tokenizer_eos(tok), 2);
    sb_tokenizer_close(tok);
    struct vocabulary bare = spm;
    bare.extra_key = "tokenizer.ggml.add_space_prefix";
    bare.extra_type = BOOL;
    tok = open_gguf(&bare);
    check_ids(tok, "aaa", 0, "5 4");
    sb_tokenizer_close(tok);
}

static void every_named_pretokenizer_opens(void **state)
{
    (void)state;
    static const char *const names[] = { "gpt-2",        "llama-bpe",      "qwen2",
                                         "deepseek-llm", "deepseek-coder", "deepseek-v3",
                                         "falcon",       "starcoder",      "default" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct vocabulary v = bpe;
        v.pre = names[i];
        struct sb_tokenizer *tok = open_gguf(&v);
        check_ids(tok, "aa a<|e|>", 0, "2 5 4");
        check_ids(tok, "11", SB_ENCODE_PLAIN, "3 3");
        sb_tokenizer_close(tok);
    }
}

/* Opens, encodes, decodes and writes a prompt with only n allocations to be had. */
static bool works_with(const char *path, size_t n)
{
    static const struct sb_turn turn = { "aa </s>", NULL };
    struct sb_tokenizer *tok = NULL;
    struct sb_tokens ids = { 0 };
    struct sb_error err;
    char *text = NULL;
    size_t length;
    sb_alloc_fail_after(n);
    enum sb_status rc = sb_tokenizer_open(&tok, path, &err);
    if (rc == SB_OK)
        rc = sb_tokenizer_encode(tok, &ids, "a a\xFF</s>a", 9, SB_ENCODE_BOS, &err);
    if (rc == SB_OK)
        rc = sb_chat_encode("vicuna", tok, &turn, 1, &ids, &err);
    if (rc == SB_OK)
        rc = sb_tokenizer_decode(tok, &text, &length, ids.id, ids.n, true, &err);
    sb_alloc_fail_after(SIZE_MAX);
    if (rc != SB_OK && rc != SB_ENOMEM)
        fail_msg("%zu allocations: %s", n, err.message);
    sb_free(text);
    sb_tokens_finish(&ids);
    sb_tokenizer_close(tok);
    return rc == SB_OK;
}

static void memory_may_run_out_anywhere(void **state)
{
    (void)state;
    write_text(file, byte_fallback);
    write_gguf(&spm);
    for (int i = 0; i < 2; i++) {
        size_t n = 0;
        while (!works_with(i ? gguf : file, n))
            n++;
        assert_true(n > 20);
    }
}

static void bad_gguf_vocabularies_get_one_clear_line(void **state)
{
    (void)state;
    struct vocabulary v = bpe;
    v.pre = "nonesuch";
    write_gguf(&v);
    check_refusal(gguf, "nonesuch");
    v = bpe;
    v.model = "bert";
    write_gguf(&v);
    check_refusal(gguf, "bert");
    v = bpe;
    v.merges[1] = "a q";
    write_gguf(&v);
    check_refusal(gguf, "merge 1");
    v.merges[1] = "aq";
    write_gguf(&v);
    check_refusal(gguf, "merge 1");
    v = bpe;
    v.pieces[2] = "a\xFF";
    write_gguf(&v);
    check_refusal(gguf, "tokens[2]");
    v = bpe;
    v.extra_key = "tokenizer.ggml.eos_token_id";
    v.extra_type = U32;
    v.extra = 6;
    write_gguf(&v);
    check_refusal(gguf, "eos_token_id");
    v.extra_type = F32;
    write_gguf(&v);
    check_refusal(gguf, "eos_token_id");
    v.extra_key = "tokenizer.ggml.add_bos_token";
    write_gguf(&v);
    check_refusal(gguf, "add_bos_token");
    v = spm;
    v.scores[4] = NAN;
    write_gguf(&v);
    check_refusal(gguf, "score 4");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(added_tokens_are_cut_out_longest_first),
        cmocka_unit_test(an_added_token_may_be_listed_twice),
        cmocka_unit_test(ignore_merges_takes_whole_pieces),
        cmocka_unit_test(merges_go_by_rank_then_from_the_left),
        cmocka_unit_test(characters_without_a_piece_become_bytes),
        cmocka_unit_test(the_config_beside_it_names_bos_and_eos),
        cmocka_unit_test(the_hash_tells_vocabularies_apart),
        cmocka_unit_test(our_own_chat_format),
        cmocka_unit_test(bad_tokenizer_json_gets_one_clear_line),
        cmocka_unit_test(other_files_are_refused_with_advice),
        cmocka_unit_test(scored_pieces_join_by_score),
        cmocka_unit_test(every_named_pretokenizer_opens),
        cmocka_unit_test(memory_may_run_out_anywhere),
        cmocka_unit_test(bad_gguf_vocabularies_get_one_clear_line),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

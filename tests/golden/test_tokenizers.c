/* Tokenizer vectors of ggml-org/llama.cpp (MIT): each text of the .inp file gives the ids of its line in the
 * .out file, from GGUF and from tokenizer.json. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/core/rng.h"
#include "harness/model/chat.h"
#include "harness/model/tok_internal.h"
#include "harness/model/tokenizer.h"

static const char separator[] = "\n__ggml_vocab_test__\n";

static char *folder;

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot be read", path);
    fseek(f, 0, SEEK_END);
    long n = ftell(f);
    rewind(f);
    char *text = malloc((size_t)n + 1);
    assert_int_equal(fread(text, 1, (size_t)n, f), n);
    text[n] = '\0';
    fclose(f);
    return text;
}

static struct sb_tokenizer *open_tokenizer(const char *path)
{
    struct sb_error err;
    struct sb_tokenizer *tok;
    if (sb_tokenizer_open(&tok, path, &err) != SB_OK)
        fail_msg("%s", err.message);
    return tok;
}

/* The ids of one text as "1 2 3". */
static char *ids_text(const struct sb_tokenizer *tok, const char *text, size_t n)
{
    struct sb_tokens ids = { 0 };
    struct sb_error err;
    char *out = calloc(1, 16), *longer;
    if (sb_tokenizer_encode(tok, &ids, text, n, 0, &err) != SB_OK)
        fail_msg("%s", err.message);
    for (size_t i = 0; i < ids.n; i++) {
        longer = sb_strf("%s%s%d", out, i ? " " : "", ids.id[i]);
        free(out);
        out = longer;
    }
    sb_tokens_finish(&ids);
    return out;
}

static void check_vectors(const char *dir, const char *vectors, const char *tokenizer)
{
    char inp[4096], out[4096], path[4096];
    snprintf(inp, sizeof inp, "%s/ggml-vocab-%s.gguf.inp", folder, vectors);
    snprintf(out, sizeof out, "%s/ggml-vocab-%s.gguf.out", folder, vectors);
    snprintf(path, sizeof path, "%s/%s", dir, tokenizer);
    struct sb_tokenizer *tok = open_tokenizer(path);
    char *texts = read_file(inp), *lines = read_file(out), *text = texts, *line = lines;
    int n = 0;
    for (char *end; (end = strstr(text, separator)); text = end + strlen(separator), n++) {
        char *line_end = strchr(line, '\n');
        assert_non_null(line_end);
        *line_end = '\0';
        char *got = ids_text(tok, text, (size_t)(end - text));
        char *want = line + strspn(line, " ");
        if (strcmp(got, want) != 0)
            fail_msg("%s, text %d '%.*s':\n got %s\nwant %s", path, n, (int)(end - text), text, got,
                     want);
        free(got);
        line = line_end + 1;
    }
    assert_int_equal(n, 46);
    free(texts);
    free(lines);
    sb_tokenizer_close(tok);
}

static void llama_spm_from_gguf(void **state)
{
    (void)state;
    check_vectors(folder, "llama-spm", "ggml-vocab-llama-spm.gguf");
}

/* The vocabulary of a GGUF file as Hugging Face converts it: scores become the order of merges, each piece
 * from every two pieces that spell it. */
static const struct sb_tokenizer *scored;

static int better_score_first(const void *a, const void *b)
{
    sb_token x = *(const sb_token *)a, y = *(const sb_token *)b;
    float p = scored->score[x], q = scored->score[y];
    return p != q ? (p < q) - (p > q) : (x > y) - (x < y);
}

static json_t *as_llama_2_json(const struct sb_tokenizer *tok)
{
    enum { FIRST_JOINED = 259 }; /* behind the special tokens and the bytes */
    size_t n_ids = sb_tokenizer_size(tok);
    sb_token *ids = calloc(n_ids, sizeof *ids);
    for (size_t i = 0; i < n_ids; i++)
        ids[i] = (sb_token)i;
    scored = tok;
    qsort(ids, n_ids, sizeof *ids, better_score_first);
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    for (size_t i = 0; i < n_ids; i++) {
        sb_token id = ids[i];
        const char *piece = sb_tokenizer_piece(tok, id);
        json_object_set_new(vocab, piece, json_integer(id));
        if (id < 3)
            json_array_append_new(
                added, json_pack("{s:i, s:s, s:b}", "id", (int)id, "content", piece, "special", 1));
        for (size_t n = 1; id >= FIRST_JOINED && n < strlen(piece); n++) {
            char left[256];
            snprintf(left, sizeof left, "%.*s", (int)n, piece);
            bool whole = ((unsigned char)piece[n] & 0xC0) != 0x80;
            if (whole && sb_tokenizer_find(tok, left) >= FIRST_JOINED &&
                sb_tokenizer_find(tok, piece + n) >= FIRST_JOINED)
                json_array_append_new(merges, json_pack("[s, s]", left, piece + n));
        }
    }
    free(ids);
    return json_pack("{s:o, s:{s:s, s:[{s:s, s:s}, {s:s, s:{s:s}, s:s}]},"
                     " s:{s:s, s:s, s:b, s:b, s:o, s:o}}",
                     "added_tokens", added, "normalizer", "type", "Sequence", "normalizers", "type",
                     "Prepend", "prepend", "\xE2\x96\x81", "type", "Replace", "pattern", "String",
                     " ", "content", "\xE2\x96\x81", "model", "type", "BPE", "unk_token", "<unk>",
                     "byte_fallback", 1, "fuse_unk", 1, "vocab", vocab, "merges", merges);
}

static void llama_spm_as_tokenizer_json(void **state)
{
    (void)state;
    char path[4096], dir[] = "/tmp/specbench-llama-2-XXXXXX";
    snprintf(path, sizeof path, "%s/ggml-vocab-llama-spm.gguf", folder);
    struct sb_tokenizer *tok = open_tokenizer(path);
    json_t *json = as_llama_2_json(tok);
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/tokenizer.json", dir);
    assert_int_equal(json_dump_file(json, path, 0), 0);
    check_vectors(dir, "llama-spm", "");
    unlink(path);
    rmdir(dir);
    json_decref(json);
    sb_tokenizer_close(tok);
}

static void gpt2_from_gguf(void **state)
{
    (void)state;
    check_vectors(folder, "gpt-2", "ggml-vocab-gpt-2.gguf");
}

static void gpt2_from_tokenizer_json(void **state)
{
    (void)state;
    check_vectors(folder, "gpt-2", "hf-gpt-2");
}

/* Qwen's vocabulary has a licence of its own and is not copied into the project. */
static void qwen2_where_its_vocabulary_is_at_hand(void **state)
{
    (void)state;
    const char *dir = SB_SOURCE_DIR "/../shared/data/tokenizers";
    if (!sb_is_dir(dir)) {
        print_message("# not tested: qwen2, whose vocabulary is not in %s\n", dir);
        return; /* cmocka 1.1's skip() reads as a failure in TAP */
    }
    check_vectors(dir, "qwen2", "ggml-vocab-qwen2.gguf");
    check_vectors(dir, "qwen2", "hf-qwen2");
}

static void decoding_undoes_encoding(void **state)
{
    (void)state;
    static const char *const names[] = { "ggml-vocab-llama-spm.gguf", "ggml-vocab-gpt-2.gguf",
                                         "hf-gpt-2" };
    struct sb_rng rng = sb_rng_make(5, SB_STREAM_DATA);
    for (size_t k = 0; k < 3; k++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, names[k]);
        struct sb_tokenizer *tok = open_tokenizer(path);
        for (int round = 0; round < 300; round++) {
            char text[512], *back;
            size_t n = 0, length;
            while (n < 400 && sb_rng_below(&rng, 60)) {
                /* ASCII, Latin, Cyrillic, CJK, emoji; no surrogates, no NUL */
                static const uint32_t from[] = { 0x20, 0xA1, 0x410, 0x4E00, 0x1F600 };
                uint32_t c = from[sb_rng_below(&rng, 5)] + (uint32_t)sb_rng_below(&rng, 60);
                if (c < 0x80)
                    text[n++] = (char)c;
                else if (c < 0x800)
                    n += (size_t)sprintf(text + n, "%c%c", 0xC0 | c >> 6, 0x80 | (c & 63));
                else if (c < 0x10000)
                    n += (size_t)sprintf(text + n, "%c%c%c", 0xE0 | c >> 12, 0x80 | (c >> 6 & 63),
                                         0x80 | (c & 63));
                else
                    n +=
                        (size_t)sprintf(text + n, "%c%c%c%c", 0xF0 | c >> 18, 0x80 | (c >> 12 & 63),
                                        0x80 | (c >> 6 & 63), 0x80 | (c & 63));
            }
            struct sb_tokens ids = { 0 };
            assert_int_equal(sb_tokenizer_encode(tok, &ids, text, n, SB_ENCODE_PLAIN, NULL), SB_OK);
            assert_int_equal(sb_tokenizer_decode(tok, &back, &length, ids.id, ids.n, true, NULL),
                             SB_OK);
            assert_int_equal(length, n);
            assert_memory_equal(back, text, n);
            sb_free(back);
            sb_tokens_finish(&ids);
        }
        for (size_t id = 0; id < sb_tokenizer_size(tok); id++) {
            sb_token one = (sb_token)id;
            char *text;
            size_t length;
            assert_int_equal(sb_tokenizer_decode(tok, &text, &length, &one, 1, true, NULL), SB_OK);
            sb_free(text);
        }
        sb_tokenizer_close(tok);
    }
}

static void users_cannot_write_special_tokens(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s/hf-gpt-2", folder);
    struct sb_tokenizer *tok = open_tokenizer(path);
    struct sb_tokens plain = { 0 }, special = { 0 };
    sb_token end = sb_tokenizer_find(tok, "<|endoftext|>");
    const char text[] = "a <|endoftext|> b";
    assert_true(end >= 0);
    sb_tokenizer_encode(tok, &special, text, strlen(text), 0, NULL);
    sb_tokenizer_encode(tok, &plain, text, strlen(text), SB_ENCODE_PLAIN, NULL);
    size_t n_special = 0, n_plain = 0;
    for (size_t i = 0; i < special.n; i++)
        n_special += special.id[i] == end;
    for (size_t i = 0; i < plain.n; i++)
        n_plain += plain.id[i] == end;
    assert_int_equal(n_special, 1);
    assert_int_equal(n_plain, 0);
    sb_tokens_finish(&plain);
    sb_tokens_finish(&special);
    sb_tokenizer_close(tok);
}

static void a_vicuna_prompt_is_as_fastchat_writes_it(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s/ggml-vocab-llama-spm.gguf", folder);
    struct sb_tokenizer *tok = open_tokenizer(path);
    const struct sb_turn turns[] = { { "Hi </s> there", "Hello." }, { "Bye", NULL } };
    struct sb_tokens ids = { 0 };
    char *text;
    size_t length;
    assert_int_equal(sb_chat_encode("vicuna", tok, turns, 2, &ids, NULL), SB_OK);
    assert_int_equal(ids.id[0], 1); /* BOS */
    size_t ends = 0;
    for (size_t i = 0; i < ids.n; i++)
        ends += ids.id[i] == 2;
    assert_int_equal(ends, 1); /* the answer's, not the user's */
    assert_int_equal(sb_tokenizer_decode(tok, &text, &length, ids.id, ids.n, true, NULL), SB_OK);
    assert_string_equal(
        text,
        "<s>A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. USER: Hi </s> there "
        "ASSISTANT: Hello.</s> USER: Bye ASSISTANT:");
    sb_free(text);
    sb_tokens_finish(&ids);
    sb_tokenizer_close(tok);
}

static void templates_are_recognised_by_their_marks(void **state)
{
    (void)state;
    bool known;
    assert_string_equal(sb_chat_recognise("{{'<|im_start|>' + x + '<|im_end|>'}}", &known),
                        "chatml");
    assert_true(known);
    assert_string_equal(sb_chat_recognise("<|start_header_id|> <|eot_id|>", &known), "llama-3");
    assert_string_equal(sb_chat_recognise("[INST] x [/INST]", &known), "llama-2");
    assert_string_equal(sb_chat_recognise("USER: ASSISTANT:", &known), "vicuna");
    assert_string_equal(
        sb_chat_recognise("{{ '<|user|>\\n' + message['content'] + '\\n' }}<|assistant|><|end|>",
                          &known),
        "specbench");
    /* Phi-3 has the same marks and ends the user's turn too: not ours */
    assert_string_equal(
        sb_chat_recognise("{{'<|user|>\\n' + message['content'] + '<|end|>\\n'}}<|assistant|>",
                          &known),
        "plain");
    assert_false(known);
    assert_string_equal(sb_chat_recognise("something else", &known), "plain");
    assert_false(known);
}

int main(void)
{
    folder = sb_strf("%s/golden/tokenizers", getenv("SB_TEST_DIR"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_spm_from_gguf),
        cmocka_unit_test(llama_spm_as_tokenizer_json),
        cmocka_unit_test(gpt2_from_gguf),
        cmocka_unit_test(gpt2_from_tokenizer_json),
        cmocka_unit_test(qwen2_where_its_vocabulary_is_at_hand),
        cmocka_unit_test(decoding_undoes_encoding),
        cmocka_unit_test(users_cannot_write_special_tokens),
        cmocka_unit_test(a_vicuna_prompt_is_as_fastchat_writes_it),
        cmocka_unit_test(templates_are_recognised_by_their_marks),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    sb_free(folder);
    return failed;
}

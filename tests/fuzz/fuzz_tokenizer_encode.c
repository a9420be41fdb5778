#define _GNU_SOURCE
/* Any bytes as text, to a byte-level vocabulary and to one with byte fallback: valid UTF-8 comes back as it
 * was, and users' text gives no special token. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "harness/core/alloc.h"
#include "harness/model/pretokenize.h"
#include "harness/model/tok_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { N_SPECIAL = 2 };

static const char *const special[N_SPECIAL] = { "<|user|>", "a" };

static json_t *special_tokens(json_t *vocab)
{
    json_t *added = json_array();
    for (int i = 0; i < N_SPECIAL; i++) {
        json_object_set_new(vocab, special[i], json_integer(i));
        json_array_append_new(
            added, json_pack("{s:i, s:s, s:b}", "id", i, "content", special[i], "special", 1));
    }
    return added;
}

/* Every byte but 'a', which is taken, so that "special" is put to the test; a few joins. */
static json_t *byte_level(void)
{
    static const char *const joins[][2] = {
        { "t", "h" }, { "th", "e" }, { "\xC4\xA0", "the" },
        { "1", "2" }, { "<", "|" },  { "\xC3\x83", "\xC2\xA9" }
    };
    json_t *vocab = json_object(), *merges = json_array(), *added = special_tokens(vocab);
    int n = N_SPECIAL;
    for (unsigned byte = 0; byte < 256; byte++) {
        char code[3] = "";
        sb_put_code(code, sb_byte_code((unsigned char)byte));
        if (byte != 'a')
            json_object_set_new(vocab, code, json_integer(n++));
    }
    for (size_t i = 0; i < sizeof joins / sizeof *joins; i++) {
        char joined[16];
        snprintf(joined, sizeof joined, "%s%s", joins[i][0], joins[i][1]);
        json_object_set_new(vocab, joined, json_integer(n++));
        json_array_append_new(merges, json_pack("[s, s]", joins[i][0], joins[i][1]));
    }
    return json_pack("{s:o, s:{s:s, s:[{s:s, s:{s:s}, s:s}, {s:s, s:b}]}, s:{s:s, s:o, s:o}}",
                     "added_tokens", added, "pre_tokenizer", "type", "Sequence", "pretokenizers",
                     "type", "Split", "pattern", "Regex", sb_pattern_llama3, "behavior", "Isolated",
                     "type", "ByteLevel", "use_regex", 0, "model", "type", "BPE", "vocab", vocab,
                     "merges", merges);
}

static json_t *with_byte_fallback(void)
{
    json_t *vocab = json_object(), *added = special_tokens(vocab);
    int n = N_SPECIAL;
    for (int byte = 0; byte < 256; byte++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", byte);
        json_object_set_new(vocab, piece, json_integer(n++));
    }
    json_object_set_new(vocab, "t", json_integer(n++));
    json_object_set_new(vocab, "h", json_integer(n++));
    json_object_set_new(vocab, "th", json_integer(n++));
    json_object_set_new(vocab, "\xE2\x96\x81", json_integer(n++));
    return json_pack("{s:o, s:{s:s, s:s, s:s, s:b}, s:{s:s, s:s}, s:{s:s, s:b, s:o, s:[[s, s]]}}",
                     "added_tokens", added, "pre_tokenizer", "type", "Metaspace", "prepend_scheme",
                     "first", "replacement", "\xE2\x96\x81", "split", 0, "decoder", "type",
                     "Metaspace", "prepend_scheme", "first", "model", "type", "BPE",
                     "byte_fallback", 1, "vocab", vocab, "merges", "t", "h");
}

static struct sb_tokenizer *open_json(json_t *json)
{
    char path[] = "/tmp/specbench-fuzz-XXXXXX.json";
    struct sb_error err;
    struct sb_tokenizer *tok;
    int fd = mkstemps(path, 5);
    if (!json || fd < 0 || close(fd) != 0 || json_dump_file(json, path, 0) != 0)
        abort();
    if (sb_tokenizer_open(&tok, path, &err) != SB_OK) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    unlink(path);
    json_decref(json);
    return tok;
}

static void check(const struct sb_tokenizer *tok, const char *text, size_t n, bool comes_back)
{
    struct sb_tokens ids = { 0 };
    char *back;
    size_t length;
    if (sb_tokenizer_encode(tok, &ids, text, n, SB_ENCODE_PLAIN, NULL) != SB_OK)
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (ids.id[i] < N_SPECIAL || (size_t)ids.id[i] >= sb_tokenizer_size(tok))
            abort();
    if (sb_tokenizer_decode(tok, &back, &length, ids.id, ids.n, true, NULL) != SB_OK)
        abort();
    if (comes_back && (length != n || memcmp(back, text, n) != 0))
        abort();
    sb_free(back);
    sb_tokens_finish(&ids);
    if (sb_tokenizer_encode(tok, &ids, text, n, 0, NULL) != SB_OK)
        abort();
    sb_tokens_finish(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct sb_tokenizer *bytes, *spaces;
    const char *text = (const char *)data;
    if (!bytes) {
        bytes = open_json(byte_level());
        spaces = open_json(with_byte_fallback());
    }
    bool valid = sb_utf8_is_valid(text, size);
    /* 'a' and U+2581 do not come back: the one is no piece of ours, the other means a space. */
    bool whole = valid && !memchr(text, 'a', size);
    check(bytes, text, size, whole);
    check(spaces, text, size,
          valid && !memmem(text, size, "\xE2\x96\x81", 3) && (size == 0 || text[0] != ' '));
    return 0;
}

/* The vocabulary of a GGUF file: "llama" (SentencePiece) and "gpt2" (byte-level BPE). */
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/model/gguf.h"
#include "harness/model/tok_internal.h"

struct loader {
    const struct sb_gguf *g;
    struct sb_tokenizer *tok;
    const char *path;
    struct sb_error *err;
};

/* ---- single values: absent is fine, another type is not --------------------------------------------- */

static enum sb_status wrong_type(const struct loader *l, const char *key, const char *expected)
{
    return sb_fail(l->err, SB_EFORMAT, "%s: '%s' is of type %s; expected %s", l->path, key,
                   sb_gguf_type_name(sb_gguf_find(l->g, key)->type), expected);
}

static enum sb_status read_text(const struct loader *l, const char *key, struct sb_text *out)
{
    bool fine = sb_gguf_text(l->g, key, out) || !sb_gguf_find(l->g, key);
    return fine ? SB_OK : wrong_type(l, key, "a string");
}

static enum sb_status read_bool(const struct loader *l, const char *key, bool *out)
{
    bool fine = sb_gguf_bool(l->g, key, out) || !sb_gguf_find(l->g, key);
    return fine ? SB_OK : wrong_type(l, key, "a bool");
}

/* A token id; -1 (also as 32 bits unsigned) and absence mean none, which leaves *out. */
static enum sb_status read_id(const struct loader *l, const char *key, sb_token *out)
{
    int64_t id;
    if (!sb_gguf_int(l->g, key, &id))
        return sb_gguf_find(l->g, key) ? wrong_type(l, key, "an integer") : SB_OK;
    if (id == -1 || id == UINT32_MAX)
        return SB_OK;
    if (id < 0 || (uint64_t)id >= l->tok->n)
        return sb_fail(l->err, SB_EFORMAT, "%s: '%s' is %lld, outside the vocabulary of %zu",
                       l->path, key, (long long)id, l->tok->n);
    *out = (sb_token)id;
    return SB_OK;
}

/* ---- pre-tokenizers by name ---------------------------------------------------------------------- */

/* Letters of DeepSeek LLM's pattern, those with case, as its tokenizer.json lists them: by number, since
 * an editor that composes characters would change some. */
#define CASED                                                                              \
    "A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}"         \
    "\\x{1C4}-\\x{293}\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}" \
    "\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}"          \
    "\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"               \
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}"         \
    "\\x{1D00}-\\x{1D2B}\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}"         \
    "\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}"         \
    "\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}\\x{1FB6}-\\x{1FBC}" \
    "\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}"                   \
    "\\x{1FD6}-\\x{1FDB}\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}"         \
    "\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}\\x{2119}-\\x{211D}\\x{2124}\\x{2126}"  \
    "\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}"          \
    "\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}" \
    "\\x{2CEB}-\\x{2CEE}\\x{2CF2}\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}"          \
    "\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}\\x{AB70}-\\x{ABBF}"         \
    "\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"         \
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}" \
    "\\x{10CC0}-\\x{10CF2}\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}"
#define HAN_AND_HANGUL "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const struct {
    const char *name;
    const char *pattern[7]; /* each cuts what the one before left */
    bool ignore_merges, adds_bos;
} pretokenizers[] = {
    { "gpt-2", { sb_pattern_gpt2 }, false, false },
    { "llama-bpe", { sb_pattern_llama3 }, true, true },
    { "llama3", { sb_pattern_llama3 }, true, true },
    { "llama-v3", { sb_pattern_llama3 }, true, true },
    { "qwen2", { sb_pattern_qwen2 }, false, false },
    { "deepseek-r1-qwen", { sb_pattern_qwen2 }, false, false },
    { "deepseek-llm",
      { "[\r\n]", "\\s?[" CASED "]+",
        "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+",
        "\\s+$", HAN_AND_HANGUL, "\\p{N}+" },
      false,
      false },
    { "deepseek-coder",
      { "[\r\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN_AND_HANGUL, "\\p{N}" },
      false,
      false },
    { "falcon",
      { "[\\p{P}\\$\\+<=>\\^~\\|`]+", sb_pattern_gpt2, "[0-9][0-9][0-9]" },
      false,
      false },
    { "deepseek-v3",
      { "\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|"
        "[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|"
        "\\s*[\r\n]+|\\s+(?!\\S)|\\s+" },
      false,
      false },
    { "starcoder", { "\\p{N}", sb_pattern_gpt2 }, false, false },
    { "refact", { "\\p{N}", sb_pattern_gpt2 }, false, false },
    { "command-r", { "\\p{N}", sb_pattern_gpt2 }, false, false },
    { "smollm", { "\\p{N}", sb_pattern_gpt2 }, false, false },
    { "mpt", { sb_pattern_gpt2 }, false, false },
    { "olmo", { sb_pattern_gpt2 }, false, false },
    { "default",
      { "[\\p{P}\\$\\+<=>\\^~\\|]+", sb_pattern_gpt2, "\\p{N}+", "[0-9][0-9][0-9]" },
      false,
      false },
};

static enum sb_status add_pretokenizer(const struct loader *l)
{
    struct sb_text name = { "default", 7 };
    struct sb_step *step;
    enum sb_status rc = read_text(l, "tokenizer.ggml.pre", &name);
    if (rc != SB_OK)
        return rc;
    size_t i = 0, n = sizeof pretokenizers / sizeof *pretokenizers;
    while (i < n && (strlen(pretokenizers[i].name) != name.n ||
                     memcmp(pretokenizers[i].name, name.data, name.n) != 0))
        i++;
    if (i == n)
        return sb_fail(
            l->err, SB_EUNSUPPORTED,
            "%s: tokenizer.ggml.pre is '%.*s'; specbench knows gpt-2, "
            "llama-bpe, qwen2, deepseek-llm, deepseek-coder, deepseek-v3, falcon, starcoder, "
            "refact, command-r, smollm, mpt, olmo, default",
            l->path, (int)(name.n < 60 ? name.n : 60), name.data);
    l->tok->ignore_merges = pretokenizers[i].ignore_merges;
    l->tok->adds_bos = pretokenizers[i].adds_bos;
    for (size_t k = 0; k < 7 && pretokenizers[i].pattern[k] && rc == SB_OK; k++) {
        const char *pattern = pretokenizers[i].pattern[k];
        step = sb_tok_add_cut(l->tok);
        step->kind = SB_STEP_SPLIT;
        rc = sb_regex_create(&step->regex, pattern, strlen(pattern), pretokenizers[i].name, l->err);
    }
    step = sb_tok_add_cut(l->tok);
    step->kind = SB_STEP_BYTES;
    return rc;
}

/* ---- the vocabulary ---------------------------------------------------------------------------------- */

static const struct sb_gguf_value *find_array(const struct loader *l, const char *key,
                                              enum sb_gguf_type item, enum sb_status *rc)
{
    const struct sb_gguf_value *v = sb_gguf_find(l->g, key);
    if (v &&
        (v->type != SB_GGUF_ARRAY || (item == SB_GGUF_STRING) != (v->item == SB_GGUF_STRING))) {
        *rc = sb_fail(l->err, SB_EFORMAT, "%s: '%s' is no array of %ss", l->path, key,
                      item == SB_GGUF_STRING ? "string" : "number");
        return NULL;
    }
    return v;
}

static enum sb_piece_kind kind_of(int64_t type)
{
    static const enum sb_piece_kind kinds[] = {
        [1] = SB_PIECE_NORMAL, [2] = SB_PIECE_UNKNOWN, [3] = SB_PIECE_CONTROL,
        [4] = SB_PIECE_USER,   [5] = SB_PIECE_UNUSED,  [6] = SB_PIECE_BYTE
    };
    return type >= 1 && type <= 6 ? kinds[type] : SB_PIECE_NORMAL;
}

static enum sb_status read_pieces(const struct loader *l, const struct sb_gguf_value *tokens)
{
    enum sb_status rc = SB_OK;
    const struct sb_gguf_value *types =
        find_array(l, "tokenizer.ggml.token_type", SB_GGUF_I32, &rc);
    if (rc == SB_OK && types && types->n != tokens->n)
        rc = sb_fail(l->err, SB_EFORMAT, "%s: %llu token types for %llu tokens", l->path,
                     (unsigned long long)types->n, (unsigned long long)tokens->n);
    for (size_t i = 0; i < l->tok->n && rc == SB_OK; i++) {
        struct sb_text text;
        int64_t type = 1;
        sb_gguf_item_text(tokens, i, &text);
        if (types && !sb_gguf_item_int(types, i, &type))
            return sb_fail(l->err, SB_EFORMAT,
                           "%s: tokenizer.ggml.token_type is no array of numbers", l->path);
        if (memchr(text.data, '\0', text.n) || !sb_utf8_is_valid(text.data, text.n))
            return sb_fail(l->err, SB_EFORMAT,
                           "%s: tokenizer.ggml.tokens[%zu] is no UTF-8 or holds a NUL byte",
                           l->path, i);
        rc = sb_tok_set_piece(l->tok, i, text.data, text.n, kind_of(type), l->err);
    }
    return rc == SB_OK ? sb_tok_index(l->tok, l->err) : rc;
}

static enum sb_status read_scores(const struct loader *l)
{
    enum sb_status rc = SB_OK;
    const struct sb_gguf_value *scores = find_array(l, "tokenizer.ggml.scores", SB_GGUF_F32, &rc);
    if (rc == SB_OK && (!scores || scores->n != l->tok->n))
        rc = sb_fail(l->err, SB_EFORMAT,
                     "%s: 'tokenizer.ggml.scores' is missing or not one per token", l->path);
    if (rc == SB_OK && !(l->tok->score = sb_alloc_array(l->tok->n, sizeof *l->tok->score)))
        rc = sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->path);
    for (size_t i = 0; i < l->tok->n && rc == SB_OK; i++) {
        double score;
        if (!sb_gguf_item_number(scores, i, &score) || score != score)
            rc = sb_fail(l->err, SB_EFORMAT, "%s: score %zu is no number", l->path, i);
        else
            l->tok->score[i] = (float)score;
    }
    return rc;
}

static enum sb_status read_merges(const struct loader *l)
{
    enum sb_status rc = SB_OK;
    const struct sb_gguf_value *merges =
        find_array(l, "tokenizer.ggml.merges", SB_GGUF_STRING, &rc);
    if (rc == SB_OK && !merges)
        rc = sb_fail(l->err, SB_EFORMAT, "%s: 'tokenizer.ggml.merges' is missing", l->path);
    if (rc == SB_OK)
        rc = sb_tok_set_merges(l->tok, (size_t)merges->n, l->err);
    for (uint64_t i = 0; rc == SB_OK && i < merges->n; i++) {
        struct sb_text text;
        sb_gguf_item_text(merges, i, &text);
        const char *space = text.n > 1 ? memchr(text.data + 1, ' ', text.n - 1) : NULL;
        if (!space)
            return sb_fail(l->err, SB_EFORMAT,
                           "%s: merge %llu is not two pieces with a space between", l->path,
                           (unsigned long long)i);
        size_t n = (size_t)(space - text.data);
        rc = sb_tok_add_merge(l->tok, (size_t)i, text.data, n, space + 1, text.n - n - 1, l->path,
                              l->err);
    }
    return rc;
}

/* Control and user-defined tokens are found in the text itself. */
static enum sb_status read_added(const struct loader *l)
{
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < l->tok->n && rc == SB_OK; i++) {
        enum sb_piece_kind kind = (enum sb_piece_kind)l->tok->kind[i];
        const char *piece = l->tok->piece[i];
        if (*piece &&
            (kind == SB_PIECE_CONTROL || kind == SB_PIECE_USER || kind == SB_PIECE_UNKNOWN))
            rc = sb_tok_add_added(l->tok,
                                  (struct sb_added){ .id = (sb_token)i,
                                                     .text = piece,
                                                     .n = strlen(piece),
                                                     .special = kind != SB_PIECE_USER },
                                  l->err);
    }
    return rc;
}

static enum sb_status read_spm(const struct loader *l)
{
    struct sb_tokenizer *tok = l->tok;
    bool prefix = true;
    tok->adds_bos = true;
    tok->byte_fallback = true;
    enum sb_status rc = read_bool(l, "tokenizer.ggml.add_space_prefix", &prefix);
    if (rc != SB_OK)
        return rc;
    tok->space_prefix = prefix;
    struct sb_step *step = sb_tok_add_normalize(tok);
    if (prefix) {
        step->kind = SB_STEP_PREPEND;
        step->text = sb_strdup(" ");
        if (!step->text)
            return sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->path);
        step = sb_tok_add_normalize(tok);
    }
    step->kind = SB_STEP_REPLACE;
    step->from = sb_strdup(" ");
    step->text = sb_strdup("\xE2\x96\x81");
    if (!step->from || !step->text)
        return sb_fail(l->err, SB_ENOMEM, "%s: out of memory", l->path);
    return read_scores(l);
}

static enum sb_status read_bpe(const struct loader *l)
{
    l->tok->byte_level = true;
    enum sb_status rc = add_pretokenizer(l);
    return rc == SB_OK ? read_merges(l) : rc;
}

static enum sb_status read_ids(const struct loader *l, bool spm)
{
    struct sb_tokenizer *tok = l->tok;
    sb_token turn_end = -1, message_end = -1;
    const struct {
        const char *key;
        sb_token *id;
    } ids[] = { { "tokenizer.ggml.bos_token_id", &tok->bos },
                { "tokenizer.ggml.eos_token_id", &tok->eos },
                { "tokenizer.ggml.unknown_token_id", &tok->unknown },
                { "tokenizer.ggml.eot_token_id", &turn_end },
                { "tokenizer.ggml.eom_token_id", &message_end } };
    if (spm) {
        tok->bos = sb_tok_lookup(tok, "<s>", 3);
        tok->eos = sb_tok_lookup(tok, "</s>", 4);
        tok->unknown = sb_tok_lookup(tok, "<unk>", 5);
    }
    enum sb_status rc = read_bool(l, "tokenizer.ggml.add_bos_token", &tok->adds_bos);
    for (size_t i = 0; i < sizeof ids / sizeof *ids && rc == SB_OK; i++)
        rc = read_id(l, ids[i].key, ids[i].id);
    sb_tok_add_end(tok, turn_end);
    sb_tok_add_end(tok, message_end);
    return rc;
}

static enum sb_status read_all(struct loader *l)
{
    struct sb_text model;
    enum sb_status rc = SB_OK;
    const struct sb_gguf_value *tokens =
        find_array(l, "tokenizer.ggml.tokens", SB_GGUF_STRING, &rc);
    if (rc != SB_OK)
        return rc;
    if (!tokens || !sb_gguf_text(l->g, "tokenizer.ggml.model", &model))
        return sb_fail(l->err, SB_EINPUT, "%s: holds no vocabulary", l->path);
    bool spm = model.n == 5 && memcmp(model.data, "llama", 5) == 0;
    bool bpe = model.n == 4 && memcmp(model.data, "gpt2", 4) == 0;
    if (!spm && !bpe)
        return sb_fail(l->err, SB_EUNSUPPORTED,
                       "%s: tokenizer.ggml.model is '%.*s'; specbench reads llama and "
                       "gpt2",
                       l->path, (int)(model.n < 40 ? model.n : 40), model.data);
    rc = sb_tok_create(&l->tok, (size_t)tokens->n, l->path, l->err);
    if (rc == SB_OK)
        rc = read_pieces(l, tokens);
    if (rc == SB_OK)
        rc = spm ? read_spm(l) : read_bpe(l);
    if (rc == SB_OK)
        rc = read_added(l);
    if (rc == SB_OK)
        rc = read_ids(l, spm);
    if (rc == SB_OK)
        sb_tok_complete(l->tok);
    return rc;
}

enum sb_status sb_tok_from_gguf(struct sb_tokenizer **out, const char *path, struct sb_error *err)
{
    struct sb_gguf g;
    enum sb_status rc = sb_gguf_open(&g, path, err);
    if (rc != SB_OK)
        return rc;
    struct loader l = { .g = &g, .path = path, .err = err };
    rc = read_all(&l);
    if (rc == SB_OK)
        *out = l.tok;
    else
        sb_tokenizer_close(l.tok);
    sb_gguf_close(&g);
    return rc;
}

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

/* ---- pre-tokenizers by name ---------------------------------------------------------------------- */

/* Letters of DeepSeek LLM's pattern: those with case, as its tokenizer.json lists them. */
#define CASED                                                                                                                                                                                                                                                        \
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-"                           \
    "ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⲳⲳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-" \
    "𞥃"
#define HAN_AND_HANGUL "[一-龥ࠀ-一가-\xED\x9F\xBF]+"

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
      { "[\r\n]", "\\s?[" CASED "]+", "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", HAN_AND_HANGUL,
        "\\p{N}+" },
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
    { "starcoder", { "\\p{N}", sb_pattern_gpt2 }, false, false },
    { "smollm", { "\\p{N}", sb_pattern_gpt2 }, false, false },
    { "default",
      { "[\\p{P}\\$\\+<=>\\^~\\|]+", sb_pattern_gpt2, "\\p{N}+", "[0-9][0-9][0-9]" },
      false,
      false },
};

static enum sb_status add_pretokenizer(const struct loader *l)
{
    struct sb_text name = { "default", 7 };
    struct sb_step *step;
    sb_gguf_text(l->g, "tokenizer.ggml.pre", &name);
    size_t i = 0, n = sizeof pretokenizers / sizeof *pretokenizers;
    while (i < n && (strlen(pretokenizers[i].name) != name.n ||
                     memcmp(pretokenizers[i].name, name.data, name.n) != 0))
        i++;
    if (i == n)
        return sb_fail(
            l->err, SB_EUNSUPPORTED,
            "%s: tokenizer.ggml.pre is '%.*s'; specbench knows gpt-2, "
            "llama-bpe, qwen2, deepseek-llm, deepseek-coder, falcon, starcoder, smollm, default",
            l->path, (int)(name.n < 60 ? name.n : 60), name.data);
    l->tok->ignore_merges = pretokenizers[i].ignore_merges;
    l->tok->adds_bos = pretokenizers[i].adds_bos;
    enum sb_status rc = SB_OK;
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
        if (memchr(text.data, '\0', text.n))
            return sb_fail(l->err, SB_EFORMAT, "%s: token %zu holds a NUL byte", l->path, i);
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

static sb_token read_id(const struct loader *l, const char *key)
{
    int64_t id;
    return sb_gguf_int(l->g, key, &id) && id >= 0 && (uint64_t)id < l->tok->n ? (sb_token)id : -1;
}

static enum sb_status read_spm(const struct loader *l)
{
    struct sb_tokenizer *tok = l->tok;
    bool prefix = true;
    tok->adds_bos = true;
    tok->byte_fallback = true;
    sb_gguf_bool(l->g, "tokenizer.ggml.add_space_prefix", &prefix);
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
    if (rc != SB_OK)
        return rc;
    sb_gguf_bool(l->g, "tokenizer.ggml.add_bos_token", &l->tok->adds_bos);
    l->tok->bos = read_id(l, "tokenizer.ggml.bos_token_id");
    l->tok->eos = read_id(l, "tokenizer.ggml.eos_token_id");
    l->tok->unknown = read_id(l, "tokenizer.ggml.unknown_token_id");
    if (spm && l->tok->bos < 0)
        l->tok->bos = sb_tok_lookup(l->tok, "<s>", 3);
    if (spm && l->tok->eos < 0)
        l->tok->eos = sb_tok_lookup(l->tok, "</s>", 4);
    if (spm && l->tok->unknown < 0)
        l->tok->unknown = sb_tok_lookup(l->tok, "<unk>", 5);
    sb_tok_add_end(l->tok, read_id(l, "tokenizer.ggml.eot_token_id"));
    sb_tok_add_end(l->tok, read_id(l, "tokenizer.ggml.eom_token_id"));
    sb_tok_complete(l->tok);
    return SB_OK;
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

/* Tokenizers: what is common to all kinds - the vocabulary, cutting out added tokens, both ways. */
#include "harness/model/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/tok_internal.h"

/* ---- building ------------------------------------------------------------------------------------ */

enum sb_status sb_tok_create(struct sb_tokenizer **out, size_t n, const char *path,
                             struct sb_error *err)
{
    if (n < 1 || n > SB_MAX_VOCAB)
        return sb_fail(err, SB_EFORMAT, "%s: a vocabulary of %zu tokens; expected 1 to %d", path, n,
                       SB_MAX_VOCAB);
    struct sb_tokenizer *tok = sb_alloc_zero(1, sizeof *tok);
    if (tok) {
        tok->piece = sb_alloc_zero(n, sizeof *tok->piece);
        tok->kind = sb_alloc_zero(n, sizeof *tok->kind);
    }
    if (!tok || !tok->piece || !tok->kind) {
        sb_tokenizer_close(tok);
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for %zu tokens", path, n);
    }
    tok->n = n;
    tok->bos = tok->eos = tok->unknown = -1;
    for (size_t i = 0; i < 256; i++)
        tok->byte_id[i] = -1;
    *out = tok;
    return SB_OK;
}

void sb_tokenizer_close(struct sb_tokenizer *tok)
{
    if (!tok)
        return;
    for (size_t i = 0; tok->piece && i < tok->n; i++)
        sb_free(tok->piece[i]);
    for (size_t i = 0; i < tok->n_normalize; i++)
        sb_step_finish(&tok->normalize[i]);
    for (size_t i = 0; i < tok->n_cut; i++)
        sb_step_finish(&tok->cut[i]);
    sb_free(tok->piece);
    sb_free(tok->kind);
    sb_free(tok->score);
    sb_free(tok->slot);
    sb_free(tok->merge);
    for (size_t i = 0; i < tok->n_added; i++)
        sb_free(tok->added[i].normal);
    sb_free(tok->added);
    sb_free(tok);
}

enum sb_status sb_tok_set_piece(struct sb_tokenizer *tok, size_t id, const char *text, size_t n,
                                enum sb_piece_kind kind, struct sb_error *err)
{
    char *copy = sb_strndup(text, n);
    if (!copy)
        return sb_fail(err, SB_ENOMEM, "out of memory for token %zu", id);
    sb_free(tok->piece[id]);
    tok->piece[id] = copy;
    tok->kind[id] = (uint8_t)kind;
    return SB_OK;
}

static size_t find_slot(const struct sb_tokenizer *tok, const char *text, size_t n)
{
    size_t i = (size_t)XXH3_64bits(text, n) & (tok->n_slots - 1);
    for (; tok->slot[i]; i = (i + 1) & (tok->n_slots - 1)) {
        const char *piece = tok->piece[tok->slot[i] - 1];
        if (strncmp(piece, text, n) == 0 && piece[n] == '\0')
            break;
    }
    return i;
}

sb_token sb_tok_lookup(const struct sb_tokenizer *tok, const char *text, size_t n)
{
    if (n == 0 || tok->n_slots == 0 || memchr(text, '\0', n))
        return -1;
    size_t i = find_slot(tok, text, n);
    return tok->slot[i] ? (sb_token)tok->slot[i] - 1 : -1;
}

/* "<0x0A>" -> 10, else -1 */
static int byte_of_piece(const char *piece)
{
    unsigned byte;
    char end;
    return strlen(piece) == 6 && sscanf(piece, "<0x%2x%c", &byte, &end) == 2 && end == '>'
               ? (int)byte
               : -1;
}

enum sb_status sb_tok_index(struct sb_tokenizer *tok, struct sb_error *err)
{
    sb_free(tok->slot);
    for (tok->n_slots = 1024; tok->n_slots < 2 * tok->n; tok->n_slots *= 2)
        ;
    tok->slot = sb_alloc_zero(tok->n_slots, sizeof *tok->slot);
    if (!tok->slot)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu tokens", tok->n);
    for (size_t i = 0; i < tok->n; i++) {
        const char *piece = tok->piece[i];
        int byte = piece ? byte_of_piece(piece) : -1;
        if (!piece || !*piece)
            continue;
        size_t slot = find_slot(tok, piece, strlen(piece));
        if (!tok->slot[slot])
            tok->slot[slot] = (uint32_t)i + 1;
        if (byte >= 0 && tok->byte_id[byte] < 0)
            tok->byte_id[byte] = (sb_token)i;
    }
    return SB_OK;
}

enum sb_status sb_tok_set_merges(struct sb_tokenizer *tok, size_t n, struct sb_error *err)
{
    for (tok->n_merge_slots = 1024; tok->n_merge_slots < 2 * n; tok->n_merge_slots *= 2)
        ;
    tok->merge = sb_alloc_array(tok->n_merge_slots, sizeof *tok->merge);
    if (!tok->merge)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu merges", n);
    for (size_t i = 0; i < tok->n_merge_slots; i++)
        tok->merge[i].key = UINT64_MAX;
    return SB_OK;
}

enum sb_status sb_tok_add_merge(struct sb_tokenizer *tok, size_t rank, const char *left,
                                size_t n_left, const char *right, size_t n_right, const char *path,
                                struct sb_error *err)
{
    char joined[1024];
    if (n_left + n_right > sizeof joined)
        return sb_fail(err, SB_EFORMAT, "%s: merge %zu makes a token of %zu bytes", path, rank,
                       n_left + n_right);
    memcpy(joined, left, n_left);
    memcpy(joined + n_left, right, n_right);
    sb_token a = sb_tok_lookup(tok, left, n_left), b = sb_tok_lookup(tok, right, n_right);
    sb_token id = sb_tok_lookup(tok, joined, n_left + n_right);
    if (a < 0 || b < 0 || id < 0)
        return sb_fail(err, SB_EFORMAT, "%s: merge %zu joins '%.*s' and '%.*s'; %s is no token",
                       path, rank, (int)n_left, left, (int)n_right, right,
                       a < 0   ? "the first"
                       : b < 0 ? "the second"
                               : "what they make");
    uint64_t key = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    size_t mask = tok->n_merge_slots - 1, i = (size_t)XXH3_64bits(&key, sizeof key) & mask;
    while (tok->merge[i].key != UINT64_MAX && tok->merge[i].key != key)
        i = (i + 1) & mask;
    if (tok->merge[i].key == key) /* the same pair again: the earlier rank counts */
        return SB_OK;
    tok->merge[i] = (struct sb_merge){ key, (uint32_t)rank, id };
    tok->n_merges++;
    return SB_OK;
}

enum sb_status sb_tok_add_added(struct sb_tokenizer *tok, struct sb_added added,
                                struct sb_error *err)
{
    if (sb_grow((void **)&tok->added, &tok->cap_added, tok->n_added + 1, sizeof added) != 0)
        return sb_fail(err, SB_ENOMEM, "out of memory for added tokens");
    tok->added[tok->n_added++] = added;
    return SB_OK;
}

enum sb_status sb_tok_normalize_added(struct sb_tokenizer *tok, struct sb_error *err)
{
    struct sb_pieces a = { 0 }, b = { 0 };
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < tok->n_added && tok->n_normalize > 0 && rc == SB_OK; i++) {
        struct sb_added *t = &tok->added[i];
        if (!t->normalized)
            continue;
        struct sb_pieces *p =
            sb_steps_run(tok->normalize, tok->n_normalize, &a, &b, t->text, t->n, true);
        t->normal = p->out_of_memory ? NULL : sb_strndup(p->n_text ? p->text : "", p->n_text);
        if (!t->normal)
            rc = sb_fail(err, SB_ENOMEM, "out of memory for added tokens");
        t->text = t->normal;
        t->n = p->n_text;
    }
    sb_pieces_finish(&a);
    sb_pieces_finish(&b);
    return rc;
}

struct sb_step *sb_tok_add_cut(struct sb_tokenizer *tok)
{
    return tok->n_cut < SB_MAX_STEPS ? &tok->cut[tok->n_cut++] : NULL;
}

struct sb_step *sb_tok_add_normalize(struct sb_tokenizer *tok)
{
    return tok->n_normalize < SB_MAX_STEPS ? &tok->normalize[tok->n_normalize++] : NULL;
}

void sb_tok_add_end(struct sb_tokenizer *tok, sb_token id)
{
    if (id < 0 || (size_t)id >= tok->n || tok->n_end == SB_MAX_EOS)
        return;
    for (size_t i = 0; i < tok->n_end; i++)
        if (tok->end[i] == id)
            return;
    tok->end[tok->n_end++] = id;
}

static int longest_first(const void *a, const void *b)
{
    const struct sb_added *x = a, *y = b;
    return x->n != y->n ? (x->n < y->n) - (x->n > y->n) : (x->id > y->id) - (x->id < y->id);
}

void sb_tok_complete(struct sb_tokenizer *tok)
{
    /* Marks that end a turn, whatever the file calls its end token. */
    static const char *const ends[] = {
        "</s>",
        "<|end_of_text|>",
        "<|endoftext|>",
        "<|end|>",
        "<|eot_id|>",
        "<|im_end|>",
        "<|end_of_turn|>",
        "<end_of_turn>",
        "<|eom_id|>",
        "<\xEF\xBD\x9C"
        "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    };
    XXH64_hash_t hash = tok->n_merges;
    sb_tok_add_end(tok, tok->eos);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        sb_token id = sb_tok_lookup(tok, ends[i], strlen(ends[i]));
        if (id < 0 || tok->kind[id] != SB_PIECE_CONTROL)
            continue;
        sb_tok_add_end(tok, id);
        if (tok->eos < 0) /* a file that does not say */
            tok->eos = id;
    }
    if (tok->n_added > 0)
        qsort(tok->added, tok->n_added, sizeof *tok->added, longest_first);
    for (size_t i = 0; i < tok->n_added; i++)
        tok->added_first[(unsigned char)tok->added[i].text[0]] = tok->added[i].n > 0;
    for (size_t i = 0; i < tok->n; i++) {
        const char *piece = tok->piece[i] ? tok->piece[i] : "";
        hash = XXH64(piece, strlen(piece) + 1, hash + tok->kind[i]);
    }
    if (tok->score)
        hash = XXH64(tok->score, tok->n * sizeof *tok->score, hash);
    /* Merges by rank, not by their place in the table: sum of a mix is free of order. */
    uint64_t sum = 0;
    for (size_t i = 0; i < tok->n_merge_slots; i++)
        if (tok->merge[i].key != UINT64_MAX)
            sum += XXH64(&tok->merge[i].key, sizeof tok->merge[i].key, tok->merge[i].rank);
    tok->hash = XXH64(&sum, sizeof sum, hash);
}

enum sb_status sb_tokenizer_open(struct sb_tokenizer **out, const char *path, struct sb_error *err)
{
    size_t n = strlen(path);
    if (!sb_is_dir(path)) {
        if (n > 5 && strcmp(path + n - 5, ".json") == 0)
            return sb_tok_from_hf(out, path, NULL, err);
        if (n > 6 && strcmp(path + n - 6, ".model") == 0 && sb_is_file(path))
            return sb_fail(err, SB_EUNSUPPORTED,
                           "%s: is a SentencePiece model; specbench reads GGUF files "
                           "and tokenizer.json",
                           path);
        return sb_tok_from_gguf(out, path, err);
    }
    char *json = sb_strf("%s/tokenizer.json", path);
    enum sb_status rc;
    if (!json)
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    else if (!sb_is_file(json))
        rc = sb_fail(err, SB_EINPUT, "%s: the folder holds no tokenizer.json", path);
    else
        rc = sb_tok_from_hf(out, json, path, err);
    sb_free(json);
    return rc;
}

/* ---- facts ------------------------------------------------------------------------------------------ */

size_t sb_tokenizer_size(const struct sb_tokenizer *tok)
{
    return tok->n;
}

sb_token sb_tokenizer_bos(const struct sb_tokenizer *tok)
{
    return tok->bos;
}

sb_token sb_tokenizer_eos(const struct sb_tokenizer *tok)
{
    return tok->eos;
}

bool sb_tokenizer_adds_bos(const struct sb_tokenizer *tok)
{
    return tok->adds_bos && tok->bos >= 0;
}

bool sb_tokenizer_is_eog(const struct sb_tokenizer *tok, sb_token id)
{
    for (size_t i = 0; i < tok->n_end; i++)
        if (tok->end[i] == id)
            return true;
    return false;
}

sb_token sb_tokenizer_find(const struct sb_tokenizer *tok, const char *text)
{
    return sb_tok_lookup(tok, text, strlen(text));
}

const char *sb_tokenizer_piece(const struct sb_tokenizer *tok, sb_token id)
{
    return id >= 0 && (size_t)id < tok->n && tok->piece[id] ? tok->piece[id] : NULL;
}

uint64_t sb_tokenizer_hash(const struct sb_tokenizer *tok)
{
    return tok->hash;
}

void sb_tokens_finish(struct sb_tokens *tokens)
{
    if (!tokens)
        return;
    sb_free(tokens->id);
    *tokens = (struct sb_tokens){ 0 };
}

enum sb_status sb_tokens_push(struct sb_tokens *tokens, const sb_token *id, size_t n,
                              struct sb_error *err)
{
    if (n == 0)
        return SB_OK;
    if (sb_grow((void **)&tokens->id, &tokens->cap, tokens->n + n, sizeof *id) != 0)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu tokens", tokens->n + n);
    memcpy(tokens->id + tokens->n, id, n * sizeof *id);
    tokens->n += n;
    return SB_OK;
}

/* ---- text to ids --------------------------------------------------------------------------------------- */

struct encoder {
    const struct sb_tokenizer *tok;
    struct sb_tokens *out;
    struct sb_error *err;
    struct sb_pieces a, b;
    bool plain, first; /* first: nothing of the input is encoded yet */
};

/* Ordinary text that is normalized: cut, then merge each piece. */
static enum sb_status encode_normalized(struct encoder *e, const char *text, size_t n)
{
    const struct sb_tokenizer *tok = e->tok;
    const struct sb_pieces *in =
        sb_steps_run(tok->cut, tok->n_cut, &e->a, &e->b, text, n, e->first);
    e->first = false;
    enum sb_status rc =
        in->out_of_memory ? sb_fail(e->err, SB_ENOMEM, "out of memory for %zu bytes", n) : SB_OK;
    for (size_t i = 0; i < in->n && rc == SB_OK; i++) {
        size_t from = i ? in->end[i - 1] : 0;
        rc = (tok->score ? sb_merge_scored : sb_merge_ranked)(tok, e->out, in->text + from,
                                                              in->end[i] - from, e->err);
    }
    return rc;
}

/* The character that ends at (back) or begins at `at`; 0 outside. `text` is valid UTF-8. */
static unsigned character(const char *text, size_t n, size_t at, bool back)
{
    size_t from = at;
    if (back ? at == 0 : at >= n)
        return 0;
    if (back)
        do
            from--;
        while (from > 0 && ((unsigned char)text[from] & 0xC0) == 0x80);
    return sb_utf8_code(text + from, sb_utf8_length(text + from, n - from));
}

static size_t code_length(unsigned code)
{
    return code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
}

static bool is_word(unsigned code)
{
    switch (code ? utf8proc_category((utf8proc_int32_t)code) : UTF8PROC_CATEGORY_CC) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return code == 0x200C || code == 0x200D;
    }
}

/* The next added token in text[from..n): the leftmost, the longest there. */
static const struct sb_added *next_added(const struct encoder *e, const char *text, size_t n,
                                         size_t from, bool normalized, size_t *at)
{
    const struct sb_tokenizer *tok = e->tok;
    for (size_t i = from; i < n && tok->n_added > 0; i++) {
        if (!tok->added_first[(unsigned char)text[i]])
            continue;
        for (size_t k = 0; k < tok->n_added; k++) {
            const struct sb_added *t = &tok->added[k];
            if (t->normalized != normalized || (t->special && e->plain) || t->n == 0 ||
                t->n > n - i || memcmp(text + i, t->text, t->n) != 0)
                continue;
            if (t->single_word && (is_word(character(text, n, i, true)) ||
                                   is_word(character(text, n, i + t->n, false))))
                continue;
            *at = i;
            return t;
        }
    }
    return NULL;
}

typedef enum sb_status encode_part(struct encoder *e, const char *text, size_t n);

/* Cut added tokens out, give the rest to `part`. */
static enum sb_status encode_around(struct encoder *e, const char *text, size_t n, bool normalized,
                                    encode_part *part)
{
    size_t from = 0, at = 0;
    enum sb_status rc = SB_OK;
    for (const struct sb_added *t;
         rc == SB_OK && (t = next_added(e, text, n, from, normalized, &at));) {
        size_t before = at, after = at + t->n;
        for (unsigned c;
             t->lstrip && before > from && sb_is_space(c = character(text, n, before, true));)
            before -= code_length(c);
        for (unsigned c; t->rstrip && sb_is_space(c = character(text, n, after, false));)
            after += code_length(c);
        if (before > from)
            rc = part(e, text + from, before - from);
        if (rc == SB_OK)
            rc = sb_tokens_push(e->out, &t->id, 1, e->err);
        e->first = false;
        from = after;
    }
    return rc == SB_OK && from < n ? part(e, text + from, n - from) : rc;
}

static enum sb_status encode_part_normalized(struct encoder *e, const char *text, size_t n)
{
    return encode_normalized(e, text, n);
}

static enum sb_status encode_raw(struct encoder *e, const char *text, size_t n)
{
    const struct sb_tokenizer *tok = e->tok;
    struct sb_pieces a = { 0 }, b = { 0 };
    const struct sb_pieces *in =
        sb_steps_run(tok->normalize, tok->n_normalize, &a, &b, text, n, e->first);
    enum sb_status rc =
        in->out_of_memory ? sb_fail(e->err, SB_ENOMEM, "out of memory for %zu bytes", n) : SB_OK;
    if (rc == SB_OK && in->n_text > 0)
        rc = encode_around(e, in->text, in->n_text, true, encode_part_normalized);
    sb_pieces_finish(&a);
    sb_pieces_finish(&b);
    return rc;
}

/* Bytes that are no UTF-8 become U+FFFD, as the reference tokenizers have it. NULL: already valid. */
static char *make_valid(const char *text, size_t n, size_t *n_out, bool *failed)
{
    *failed = false;
    if (sb_utf8_is_valid(text, n))
        return NULL;
    char *out = sb_alloc_array(n, 3);
    *failed = !out;
    *n_out = 0;
    for (size_t i = 0, length; out && i < n; i += length ? length : 1) {
        length = sb_utf8_length(text + i, n - i);
        memcpy(out + *n_out, length ? text + i : "\xEF\xBF\xBD", length ? length : 3);
        *n_out += length ? length : 3;
    }
    return out;
}

enum sb_status sb_tokenizer_encode(const struct sb_tokenizer *tok, struct sb_tokens *out,
                                   const char *text, size_t length, unsigned flags,
                                   struct sb_error *err)
{
    struct encoder e = {
        .tok = tok, .out = out, .err = err, .plain = flags & SB_ENCODE_PLAIN, .first = true
    };
    bool failed;
    size_t before = out->n;
    enum sb_status rc = SB_OK;
    char *valid = make_valid(text, length, &length, &failed);
    if (failed)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu bytes", length);
    if (rc == SB_OK && (flags & SB_ENCODE_BOS) && sb_tokenizer_adds_bos(tok))
        rc = sb_tokens_push(out, &tok->bos, 1, err);
    if (rc == SB_OK)
        rc = encode_around(&e, valid ? valid : text, length, false, encode_raw);
    sb_pieces_finish(&e.a);
    sb_pieces_finish(&e.b);
    sb_free(valid);
    if (rc != SB_OK)
        out->n = before;
    return rc;
}

/* ---- ids to text ------------------------------------------------------------------------------------------ */

/* Stand-in characters back to bytes; a character that stands for none is kept. */
static void put_byte_level(struct sb_pieces *out, const char *piece)
{
    for (size_t n = strlen(piece), length; n > 0; piece += length, n -= length) {
        length = sb_utf8_length(piece, n);
        int byte = length ? sb_code_byte(sb_utf8_code(piece, length)) : -1;
        char c = (char)byte;
        length = length ? length : 1;
        sb_pieces_put(out, byte >= 0 ? &c : piece, byte >= 0 ? 1 : length);
    }
}

static void put_spaced(struct sb_pieces *out, const char *piece)
{
    for (size_t n = strlen(piece); n > 0;) {
        bool mark = n >= 3 && memcmp(piece, "\xE2\x96\x81", 3) == 0;
        sb_pieces_put(out, mark ? " " : piece, 1);
        piece += mark ? 3 : 1;
        n -= mark ? 3 : 1;
    }
}

static void put_token(const struct sb_tokenizer *tok, struct sb_pieces *out, sb_token id,
                      bool special)
{
    const char *piece = tok->piece[id] ? tok->piece[id] : "";
    int byte = byte_of_piece(piece);
    char c = (char)byte;
    switch ((enum sb_piece_kind)tok->kind[id]) {
    case SB_PIECE_CONTROL:
    case SB_PIECE_UNKNOWN:
        if (special)
            sb_pieces_put(out, piece, strlen(piece));
        return;
    case SB_PIECE_USER:
        sb_pieces_put(out, piece, strlen(piece));
        return;
    case SB_PIECE_NORMAL:
    case SB_PIECE_UNUSED:
    case SB_PIECE_BYTE:
        break;
    }
    if (tok->byte_level)
        put_byte_level(out, piece);
    else if (byte >= 0 && (tok->byte_fallback || tok->kind[id] == SB_PIECE_BYTE))
        sb_pieces_put(out, &c, 1);
    else
        put_spaced(out, piece);
}

enum sb_status sb_tokenizer_decode(const struct sb_tokenizer *tok, char **text, size_t *length,
                                   const sb_token *id, size_t n, bool special, struct sb_error *err)
{
    struct sb_pieces out = { 0 };
    bool at_start = tok->space_prefix;
    for (size_t i = 0; i < n; i++) {
        if (id[i] < 0 || (size_t)id[i] >= tok->n) {
            sb_pieces_finish(&out);
            return sb_fail(err, SB_EUSAGE, "token %d is outside the vocabulary of %zu", id[i],
                           tok->n);
        }
        size_t before = out.n_text;
        put_token(tok, &out, id[i], special);
        bool ordinary = tok->kind[id[i]] != SB_PIECE_CONTROL && tok->kind[id[i]] != SB_PIECE_USER;
        if (at_start && ordinary && out.n_text > before && out.text[before] == ' ') {
            memmove(out.text + before, out.text + before + 1, out.n_text - before - 1);
            out.n_text--;
        }
        at_start = at_start && !ordinary;
    }
    sb_pieces_put(&out, "", 1);
    if (out.out_of_memory) {
        sb_pieces_finish(&out);
        return sb_fail(err, SB_ENOMEM, "out of memory for the text of %zu tokens", n);
    }
    *length = out.n_text - 1;
    *text = out.text;
    sb_free(out.end);
    return SB_OK;
}

/* Merging the symbols of a piece: by rank (BPE) or by score (SentencePiece).
 *
 * Symbols are a linked list over the text; candidates wait in a heap, best first, the leftmost of
 * equals first; one whose symbols have changed since is passed over. O(n log n). */
#include <string.h>

#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/model/tok_internal.h"

struct symbol {
    size_t from, n; /* text; n = 0: joined into its left neighbour */
    int64_t previous, next;
    sb_token id;
};

struct candidate {
    uint64_t order; /* smaller is better */
    size_t left;    /* symbol; the right one is its next */
    size_t n;       /* bytes of both when noted: tells whether they have changed */
    sb_token id;
};

struct work {
    const struct sb_tokenizer *tok;
    const char *text;
    struct symbol *symbol;
    size_t n_symbols, cap_symbols;
    struct candidate *heap;
    size_t n_heap, cap_heap;
    /* What joining two neighbours gives: false when they do not join. */
    bool (*join)(const struct work *w, const struct symbol *a, const struct symbol *b,
                 uint64_t *order, sb_token *id);
};

static bool better(const struct candidate *a, const struct candidate *b)
{
    return a->order != b->order ? a->order < b->order : a->left < b->left;
}

static int push(struct work *w, struct candidate c)
{
    if (sb_grow((void **)&w->heap, &w->cap_heap, w->n_heap + 1, sizeof *w->heap) != 0)
        return -1;
    size_t i = w->n_heap++;
    for (; i > 0 && better(&c, &w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = c;
    return 0;
}

static struct candidate pop(struct work *w)
{
    struct candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < w->n_heap) {
        if (child + 1 < w->n_heap && better(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!better(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static int consider(struct work *w, int64_t left)
{
    struct candidate c = { .left = (size_t)left };
    if (left < 0 || w->symbol[left].next < 0)
        return 0;
    const struct symbol *a = &w->symbol[left], *b = &w->symbol[a->next];
    if (!w->join(w, a, b, &c.order, &c.id))
        return 0;
    c.n = a->n + b->n;
    return push(w, c);
}

static int add_symbol(struct work *w, size_t from, size_t n, sb_token id)
{
    if (sb_grow((void **)&w->symbol, &w->cap_symbols, w->n_symbols + 1, sizeof *w->symbol) != 0)
        return -1;
    int64_t i = (int64_t)w->n_symbols++;
    w->symbol[i] = (struct symbol){ from, n, i - 1, -1, id };
    if (i > 0)
        w->symbol[i - 1].next = i;
    return 0;
}

static int merge_all(struct work *w)
{
    for (size_t i = 0; i + 1 < w->n_symbols; i++)
        if (consider(w, (int64_t)i) != 0)
            return -1;
    while (w->n_heap > 0) {
        struct candidate c = pop(w);
        struct symbol *a = &w->symbol[c.left];
        if (a->n == 0 || a->next < 0 || a->n + w->symbol[a->next].n != c.n)
            continue;
        uint64_t order;
        sb_token id;
        struct symbol *b = &w->symbol[a->next];
        if (!w->join(w, a, b, &order, &id) || id != c.id) /* same length, other symbols */
            continue;
        a->n += b->n;
        a->id = id;
        a->next = b->next;
        b->n = 0;
        if (a->next >= 0)
            w->symbol[a->next].previous = (int64_t)c.left;
        if (consider(w, a->previous) != 0 || consider(w, (int64_t)c.left) != 0)
            return -1;
    }
    return 0;
}

static void finish(struct work *w)
{
    sb_free(w->symbol);
    sb_free(w->heap);
}

static enum sb_status out_of_memory(struct sb_error *err, size_t n)
{
    return sb_fail(err, SB_ENOMEM, "out of memory while tokenizing %zu bytes", n);
}

/* The piece that text[0..n) is, unless only the tokenizer itself may write it. */
static sb_token ordinary(const struct sb_tokenizer *tok, const char *text, size_t n)
{
    sb_token id = sb_tok_lookup(tok, text, n);
    if (id < 0 || tok->kind[id] == SB_PIECE_CONTROL || tok->kind[id] == SB_PIECE_UNKNOWN ||
        tok->kind[id] == SB_PIECE_BYTE)
        return -1;
    return id;
}

/* ---- by rank -------------------------------------------------------------------------------------- */

static const struct sb_merge *find_merge(const struct sb_tokenizer *tok, sb_token left,
                                         sb_token right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    if (tok->n_merge_slots == 0)
        return NULL;
    size_t mask = tok->n_merge_slots - 1, i = (size_t)XXH3_64bits(&key, sizeof key) & mask;
    for (; tok->merge[i].key != UINT64_MAX; i = (i + 1) & mask)
        if (tok->merge[i].key == key)
            return &tok->merge[i];
    return NULL;
}

static bool join_ranked(const struct work *w, const struct symbol *a, const struct symbol *b,
                        uint64_t *order, sb_token *id)
{
    const struct sb_merge *m = a->id < 0 || b->id < 0 ? NULL : find_merge(w->tok, a->id, b->id);
    if (!m)
        return false;
    *order = m->rank;
    *id = m->joined;
    return true;
}

/* A character that is no token: its bytes as "<0x..>" tokens, or the unknown token. */
static int add_unknown(struct work *w, size_t from, size_t n)
{
    const struct sb_tokenizer *tok = w->tok;
    bool bytes = tok->byte_fallback;
    for (size_t i = 0; i < n && bytes; i++)
        bytes = tok->byte_id[(unsigned char)w->text[from + i]] >= 0;
    for (size_t i = 0; i < n && bytes; i++)
        if (add_symbol(w, from + i, 1, tok->byte_id[(unsigned char)w->text[from + i]]) != 0)
            return -1;
    if (bytes || tok->unknown < 0)
        return 0; /* a vocabulary without an unknown token drops the character */
    struct symbol *last = w->n_symbols ? &w->symbol[w->n_symbols - 1] : NULL;
    if (tok->fuse_unknown && last && last->id == tok->unknown) {
        last->n += n;
        return 0;
    }
    return add_symbol(w, from, n, tok->unknown);
}

enum sb_status sb_merge_ranked(const struct sb_tokenizer *tok, struct sb_tokens *out,
                               const char *text, size_t n, struct sb_error *err)
{
    struct work w = { .tok = tok, .text = text, .join = join_ranked };
    sb_token whole = tok->ignore_merges ? ordinary(tok, text, n) : -1;
    if (whole >= 0)
        return sb_tokens_push(out, &whole, 1, err);
    int failed = 0;
    for (size_t i = 0; i < n && !failed;) {
        size_t length = sb_utf8_length(text + i, n - i);
        length = length ? length : 1;
        sb_token id = ordinary(tok, text + i, length);
        failed = id >= 0 ? add_symbol(&w, i, length, id) : add_unknown(&w, i, length);
        i += length;
    }
    enum sb_status rc = failed || merge_all(&w) != 0 ? out_of_memory(err, n) : SB_OK;
    for (size_t i = 0; i < w.n_symbols && rc == SB_OK; i++)
        if (w.symbol[i].n > 0)
            rc = sb_tokens_push(out, &w.symbol[i].id, 1, err);
    finish(&w);
    return rc;
}

/* ---- by score -------------------------------------------------------------------------------------- */

/* Floats in descending order as ascending integers. */
static uint32_t descending(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~bits;
}

static bool join_scored(const struct work *w, const struct symbol *a, const struct symbol *b,
                        uint64_t *order, sb_token *id)
{
    *id = ordinary(w->tok, w->text + a->from, a->n + b->n);
    if (*id < 0)
        return false;
    *order = descending(w->tok->score[*id]);
    return true;
}

enum sb_status sb_merge_scored(const struct sb_tokenizer *tok, struct sb_tokens *out,
                               const char *text, size_t n, struct sb_error *err)
{
    struct work w = { .tok = tok, .text = text, .join = join_scored };
    int failed = 0;
    for (size_t i = 0; i < n && !failed;) {
        size_t length = sb_utf8_length(text + i, n - i);
        length = length ? length : 1;
        failed = add_symbol(&w, i, length, ordinary(tok, text + i, length));
        i += length;
    }
    enum sb_status rc = failed || merge_all(&w) != 0 ? out_of_memory(err, n) : SB_OK;
    for (size_t i = 0; i < w.n_symbols && rc == SB_OK; i++) {
        const struct symbol *s = &w.symbol[i];
        if (s->n > 0 && s->id >= 0)
            rc = sb_tokens_push(out, &s->id, 1, err);
        for (size_t k = 0; k < s->n && s->id < 0 && rc == SB_OK; k++) {
            sb_token byte = tok->byte_id[(unsigned char)text[s->from + k]];
            sb_token id = byte >= 0 ? byte : tok->unknown;
            if (id >= 0)
                rc = sb_tokens_push(out, &id, 1, err);
        }
    }
    finish(&w);
    return rc;
}

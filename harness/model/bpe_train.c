#include "harness/model/bpe_train.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/model/pretokenize.h"
#include "harness/model/tok_internal.h"

enum { N_BYTES = 256 };

struct word {
    size_t first;    /* into trainer->symbol */
    uint32_t n;      /* symbols left */
    uint32_t length; /* bytes, for looking it up */
    int64_t count;
};

struct pair {
    uint64_t key; /* left id << 32 | right id */
    int64_t count;
    uint32_t *where; /* words it was seen in, some no longer */
    size_t n, cap;
};

struct candidate {
    int64_t count;
    uint64_t key;
};

struct merge {
    uint32_t left, right;
};

struct sb_bpe_trainer {
    size_t n_vocab, n_special;
    char **special;
    struct sb_regex *regex;
    struct word *word;
    size_t n_words, cap_words;
    unsigned char *byte; /* of all words, one after the other: word i begins at word[i].first */
    size_t n_bytes, cap_bytes;
    uint32_t *slot; /* hash table of words: index + 1 */
    size_t n_slots;
    uint32_t *symbol; /* [n_bytes] while joining */
    struct pair *pair;
    size_t n_pairs, cap_pairs;
    uint32_t *pair_slot;
    size_t n_pair_slots;
    struct candidate *heap;
    size_t n_heap, cap_heap;
    char **text;          /* [n_tokens] spelling of each token in stand-in characters, owned */
    uint32_t *token_slot; /* hash table of spellings: id + 1 */
    size_t n_tokens, n_token_slots;
    struct merge *merge; /* more than there are joined tokens when two pairs spell the same one */
    size_t n_merges, cap_merges;
    size_t *changed; /* pairs that a join made or raised */
    size_t n_changed, cap_changed;
};

/* ---- counting ------------------------------------------------------------------------------------- */

enum sb_status sb_bpe_trainer_create(struct sb_bpe_trainer **out,
                                     const struct sb_bpe_options *options, struct sb_error *err)
{
    if (options->n_vocab < options->n_special + N_BYTES || options->n_vocab > 1 << 20)
        return sb_fail(err, SB_EUSAGE,
                       "a vocabulary of %zu; expected %zu (special tokens and bytes) to %d",
                       options->n_vocab, options->n_special + N_BYTES, 1 << 20);
    for (size_t i = 0; i < options->n_special; i++) {
        bool fine = strlen(options->special[i]) >= 2;
        for (size_t k = 0; k < i; k++)
            fine = fine && strcmp(options->special[i], options->special[k]) != 0;
        if (!fine)
            return sb_fail(err, SB_EUSAGE, "special token '%.60s' is too short, or is there twice",
                           options->special[i]);
    }
    struct sb_bpe_trainer *t = sb_alloc_zero(1, sizeof *t);
    if (!t)
        return sb_fail(err, SB_ENOMEM, "out of memory for a vocabulary");
    t->n_vocab = options->n_vocab;
    t->n_special = options->n_special;
    t->special = sb_alloc_zero(options->n_special, sizeof *t->special);
    bool ok = t->special != NULL;
    for (size_t i = 0; i < options->n_special && ok; i++)
        ok = (t->special[i] = sb_strdup(options->special[i])) != NULL;
    enum sb_status rc = ok ? sb_regex_create(&t->regex, sb_pattern_llama3,
                                             strlen(sb_pattern_llama3), "pre-tokenizer", err)
                           : sb_fail(err, SB_ENOMEM, "out of memory for a vocabulary");
    if (rc == SB_OK)
        *out = t;
    else
        sb_bpe_trainer_destroy(t);
    return rc;
}

static void drop_pairs(struct sb_bpe_trainer *t)
{
    for (size_t i = 0; i < t->n_tokens; i++)
        sb_free(t->text[i]);
    sb_free(t->text);
    sb_free(t->token_slot);
    t->text = NULL;
    t->token_slot = NULL;
    t->n_tokens = 0;
    for (size_t i = 0; i < t->n_pairs; i++)
        sb_free(t->pair[i].where);
    sb_free(t->pair);
    sb_free(t->pair_slot);
    sb_free(t->heap);
    sb_free(t->changed);
    sb_free(t->symbol);
    t->pair = NULL;
    t->pair_slot = NULL;
    t->heap = NULL;
    t->changed = NULL;
    t->symbol = NULL;
    t->n_pairs = t->cap_pairs = t->n_pair_slots = t->n_heap = t->cap_heap = 0;
    t->n_changed = t->cap_changed = 0;
}

void sb_bpe_trainer_destroy(struct sb_bpe_trainer *t)
{
    if (!t)
        return;
    drop_pairs(t);
    for (size_t i = 0; t->special && i < t->n_special; i++)
        sb_free(t->special[i]);
    sb_free(t->special);
    sb_regex_destroy(t->regex);
    sb_free(t->word);
    sb_free(t->byte);
    sb_free(t->slot);
    sb_free(t->merge);
    sb_free(t);
}

static size_t find_slot(const struct sb_bpe_trainer *t, const char *text, size_t n)
{
    size_t i = (size_t)XXH3_64bits(text, n) & (t->n_slots - 1);
    for (; t->slot[i]; i = (i + 1) & (t->n_slots - 1)) {
        const struct word *w = &t->word[t->slot[i] - 1];
        if (w->length == n && memcmp(t->byte + w->first, text, n) == 0)
            break;
    }
    return i;
}

static int grow_slots(struct sb_bpe_trainer *t)
{
    if (t->n_words * 2 < t->n_slots)
        return 0;
    size_t n = t->n_slots ? t->n_slots * 2 : 1 << 16;
    uint32_t *slot = sb_alloc_zero(n, sizeof *slot);
    if (!slot)
        return -1;
    sb_free(t->slot);
    t->slot = slot;
    t->n_slots = n;
    for (size_t i = 0; i < t->n_words; i++)
        t->slot[find_slot(t, (const char *)t->byte + t->word[i].first, t->word[i].length)] =
            (uint32_t)i + 1;
    return 0;
}

static enum sb_status count_word(struct sb_bpe_trainer *t, const char *text, size_t n,
                                 int64_t count, struct sb_error *err)
{
    if (grow_slots(t) != 0)
        return sb_fail(err, SB_ENOMEM, "out of memory after %zu words", t->n_words);
    size_t i = find_slot(t, text, n);
    if (t->slot[i]) {
        t->word[t->slot[i] - 1].count += count;
        return SB_OK;
    }
    if (t->n_words >= UINT32_MAX - 1 || n > UINT32_MAX ||
        sb_grow((void **)&t->word, &t->cap_words, t->n_words + 1, sizeof *t->word) != 0 ||
        sb_grow((void **)&t->byte, &t->cap_bytes, t->n_bytes + n, 1) != 0)
        return sb_fail(err, SB_ENOMEM, "out of memory after %zu words", t->n_words);
    memcpy(t->byte + t->n_bytes, text, n);
    t->word[t->n_words++] = (struct word){ t->n_bytes, (uint32_t)n, (uint32_t)n, count };
    t->n_bytes += n;
    t->slot[i] = (uint32_t)t->n_words;
    return SB_OK;
}

enum sb_status sb_bpe_trainer_add(struct sb_bpe_trainer *t, const char *text, size_t length,
                                  int64_t count, struct sb_error *err)
{
    size_t start, end;
    enum sb_status rc = SB_OK;
    if (!sb_utf8_is_valid(text, length))
        return sb_fail(err, SB_EFORMAT, "a text of %zu bytes is no UTF-8", length);
    for (size_t at = 0; rc == SB_OK && sb_regex_next(t->regex, text, length, at, &start, &end);
         at = end)
        rc = count_word(t, text + start, end - start, count, err);
    return rc;
}

/* ---- pairs ------------------------------------------------------------------------------------------- */

static size_t find_pair_slot(const struct sb_bpe_trainer *t, uint64_t key)
{
    size_t i = (size_t)XXH3_64bits(&key, sizeof key) & (t->n_pair_slots - 1);
    while (t->pair_slot[i] && t->pair[t->pair_slot[i] - 1].key != key)
        i = (i + 1) & (t->n_pair_slots - 1);
    return i;
}

static int grow_pair_slots(struct sb_bpe_trainer *t)
{
    if (t->n_pairs * 2 < t->n_pair_slots)
        return 0;
    size_t n = t->n_pair_slots ? t->n_pair_slots * 2 : 1 << 16;
    uint32_t *slot = sb_alloc_zero(n, sizeof *slot);
    if (!slot)
        return -1;
    sb_free(t->pair_slot);
    t->pair_slot = slot;
    t->n_pair_slots = n;
    for (size_t i = 0; i < t->n_pairs; i++)
        t->pair_slot[find_pair_slot(t, t->pair[i].key)] = (uint32_t)i + 1;
    return 0;
}

/* Add `delta` to the pair's count; a raise notes the word and that the pair changed. */
static int count_pair(struct sb_bpe_trainer *t, uint32_t left, uint32_t right, int64_t delta,
                      uint32_t word)
{
    uint64_t key = (uint64_t)left << 32 | right;
    if (grow_pair_slots(t) != 0)
        return -1;
    size_t i = find_pair_slot(t, key);
    if (!t->pair_slot[i]) {
        if (sb_grow((void **)&t->pair, &t->cap_pairs, t->n_pairs + 1, sizeof *t->pair) != 0)
            return -1;
        t->pair[t->n_pairs++] = (struct pair){ .key = key };
        t->pair_slot[i] = (uint32_t)t->n_pairs;
    }
    size_t index = t->pair_slot[i] - 1;
    struct pair *p = &t->pair[index];
    p->count += delta;
    if (delta < 0)
        return 0;
    if ((p->n == 0 || p->where[p->n - 1] != word) &&
        sb_grow((void **)&p->where, &p->cap, p->n + 1, sizeof *p->where) != 0)
        return -1;
    if (p->n == 0 || p->where[p->n - 1] != word)
        p->where[p->n++] = word;
    if (sb_grow((void **)&t->changed, &t->cap_changed, t->n_changed + 1, sizeof *t->changed) != 0)
        return -1;
    t->changed[t->n_changed++] = index;
    return 0;
}

/* Does a come out of the heap before b? */
static bool before(struct candidate a, struct candidate b)
{
    return a.count != b.count ? a.count > b.count : a.key < b.key;
}

static int push(struct sb_bpe_trainer *t, struct candidate c)
{
    if (sb_grow((void **)&t->heap, &t->cap_heap, t->n_heap + 1, sizeof *t->heap) != 0)
        return -1;
    size_t i = t->n_heap++;
    for (; i > 0 && before(c, t->heap[(i - 1) / 2]); i = (i - 1) / 2)
        t->heap[i] = t->heap[(i - 1) / 2];
    t->heap[i] = c;
    return 0;
}

static struct candidate pop(struct sb_bpe_trainer *t)
{
    struct candidate top = t->heap[0], last = t->heap[--t->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < t->n_heap) {
        if (child + 1 < t->n_heap && before(t->heap[child + 1], t->heap[child]))
            child++;
        if (!before(t->heap[child], last))
            break;
        t->heap[i] = t->heap[child];
        i = child;
    }
    t->heap[i] = last;
    return top;
}

static int push_changed(struct sb_bpe_trainer *t)
{
    for (size_t i = 0; i < t->n_changed; i++) {
        const struct pair *p = &t->pair[t->changed[i]];
        if (p->count > 0 && push(t, (struct candidate){ p->count, p->key }) != 0)
            return -1;
    }
    t->n_changed = 0;
    return 0;
}

static int count_all_pairs(struct sb_bpe_trainer *t)
{
    t->symbol = sb_alloc_array(t->n_bytes, sizeof *t->symbol);
    if (!t->symbol)
        return -1;
    for (size_t i = 0; i < t->n_bytes; i++)
        t->symbol[i] = (uint32_t)t->n_special + t->byte[i];
    for (size_t w = 0; w < t->n_words; w++) {
        struct word *word = &t->word[w];
        word->n = word->length;
        for (size_t i = 1; i < word->n; i++)
            if (count_pair(t, t->symbol[word->first + i - 1], t->symbol[word->first + i],
                           word->count, (uint32_t)w) != 0)
                return -1;
    }
    /* Every pair once, not once a sighting. */
    t->n_changed = 0;
    for (size_t i = 0; i < t->n_pairs; i++)
        if (push(t, (struct candidate){ t->pair[i].count, t->pair[i].key }) != 0)
            return -1;
    return 0;
}

/* ---- joining ------------------------------------------------------------------------------------------ */

/* Replace left right by `joined` in one word and correct the counts of its neighbours. */
static int join_in_word(struct sb_bpe_trainer *t, uint32_t w, uint32_t left, uint32_t right,
                        uint32_t joined)
{
    struct word *word = &t->word[w];
    uint32_t *s = t->symbol + word->first;
    int64_t c = word->count;
    size_t to = 0;
    for (size_t i = 0; i < word->n; i++, to++) {
        if (i + 1 >= word->n || s[i] != left || s[i + 1] != right) {
            s[to] = s[i];
            continue;
        }
        int failed = count_pair(t, left, right, -c, w);
        if (to > 0)
            failed |=
                count_pair(t, s[to - 1], left, -c, w) | count_pair(t, s[to - 1], joined, c, w);
        if (i + 2 < word->n)
            failed |= count_pair(t, right, s[i + 2], -c, w) | count_pair(t, joined, s[i + 2], c, w);
        if (failed)
            return -1;
        s[to] = joined;
        i++;
    }
    word->n = (uint32_t)to;
    return 0;
}

/* The commonest pair; false when none is left. */
static bool choose(struct sb_bpe_trainer *t, size_t *index)
{
    while (t->n_heap > 0) {
        struct candidate c = pop(t);
        size_t slot = find_pair_slot(t, c.key);
        int64_t now = t->pair[t->pair_slot[slot] - 1].count;
        if (now == c.count && now > 0) {
            *index = t->pair_slot[slot] - 1;
            return true;
        }
        if (now > 0 && now < c.count)
            push(t, (struct candidate){ now, c.key }); /* room is there: one was just taken out */
    }
    return false;
}

/* ---- tokens ----------------------------------------------------------------------------------------------- */

static size_t find_token_slot(const struct sb_bpe_trainer *t, const char *text)
{
    size_t mask = t->n_token_slots - 1, i = (size_t)XXH3_64bits(text, strlen(text)) & mask;
    while (t->token_slot[i] && strcmp(t->text[t->token_slot[i] - 1], text) != 0)
        i = (i + 1) & mask;
    return i;
}

/* Takes over `text`; NULL (out of memory) fails. */
static int add_token(struct sb_bpe_trainer *t, char *text)
{
    if (!text)
        return -1;
    size_t slot = find_token_slot(t, text);
    t->text[t->n_tokens++] = text;
    t->token_slot[slot] = (uint32_t)t->n_tokens;
    return 0;
}

static int add_first_tokens(struct sb_bpe_trainer *t)
{
    int failed = 0;
    for (t->n_token_slots = 1024; t->n_token_slots < 2 * t->n_vocab; t->n_token_slots *= 2)
        ;
    t->text = sb_alloc_zero(t->n_vocab, sizeof *t->text);
    t->token_slot = sb_alloc_zero(t->n_token_slots, sizeof *t->token_slot);
    if (!t->text || !t->token_slot)
        return -1;
    for (size_t i = 0; i < t->n_special && !failed; i++)
        failed = add_token(t, sb_strdup(t->special[i]));
    for (unsigned byte = 0; byte < N_BYTES && !failed; byte++) {
        char code[2];
        size_t n = sb_put_code(code, sb_byte_code((unsigned char)byte));
        failed = add_token(t, sb_strndup(code, n));
    }
    return failed;
}

/* The token that the pair makes. UINT32_MAX: none, it would be spelled like a special token, and then users
 * could write that. -1: out of memory. */
static int joined_token(struct sb_bpe_trainer *t, uint32_t left, uint32_t right, uint32_t *id)
{
    char *text = sb_strf("%s%s", t->text[left], t->text[right]);
    if (!text)
        return -1;
    uint32_t known = t->token_slot[find_token_slot(t, text)];
    if (!known) {
        *id = (uint32_t)t->n_tokens;
        return add_token(t, text);
    }
    *id = known <= t->n_special ? UINT32_MAX : known - 1;
    sb_free(text);
    return 0;
}

/* ---- all joins -------------------------------------------------------------------------------------------- */

static int join_everywhere(struct sb_bpe_trainer *t, size_t index)
{
    uint32_t left = (uint32_t)(t->pair[index].key >> 32), right = (uint32_t)t->pair[index].key;
    uint32_t joined, *where = t->pair[index].where;
    size_t n = t->pair[index].n;
    int failed = joined_token(t, left, right, &joined);
    if (failed || joined == UINT32_MAX) {
        t->pair[index].count = 0; /* never again */
        return failed;
    }
    if (sb_grow((void **)&t->merge, &t->cap_merges, t->n_merges + 1, sizeof *t->merge) != 0)
        return -1;
    t->merge[t->n_merges++] = (struct merge){ left, right };
    t->pair[index].where = NULL; /* taken: the array of pairs may move while counting */
    t->pair[index].n = t->pair[index].cap = 0;
    for (size_t i = 0; i < n && !failed; i++)
        failed = join_in_word(t, where[i], left, right, joined);
    sb_free(where);
    return failed || push_changed(t) != 0 ? -1 : 0;
}

static enum sb_status join_pairs(struct sb_bpe_trainer *t, struct sb_error *err)
{
    size_t index = 0;
    t->n_merges = 0;
    int failed = add_first_tokens(t) != 0 || count_all_pairs(t) != 0;
    while (!failed && t->n_tokens < t->n_vocab && choose(t, &index))
        failed = join_everywhere(t, index);
    return failed ? sb_fail(err, SB_ENOMEM, "out of memory for a vocabulary from %zu words",
                            t->n_words)
                  : SB_OK;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

static json_t *added_token(const char *text, size_t id)
{
    return json_pack("{s:I, s:s, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)id, "content", text,
                     "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
}

static json_t *as_json(const struct sb_bpe_trainer *t)
{
    char *const *text = t->text;
    json_t *vocab = json_object(), *merges = json_array(), *added = json_array();
    for (size_t i = 0; i < t->n_tokens; i++)
        json_object_set_new(vocab, text[i], json_integer((json_int_t)i));
    for (size_t i = 0; i < t->n_special; i++)
        json_array_append_new(added, added_token(text[i], i));
    for (size_t i = 0; i < t->n_merges; i++)
        json_array_append_new(
            merges, json_sprintf("%s %s", text[t->merge[i].left], text[t->merge[i].right]));
    json_t *split = json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                              sb_pattern_llama3, "behavior", "Isolated", "invert", 0);
    json_t *bytes = json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                              "trim_offsets", 1, "use_regex", 0);
    return json_pack("{s:s, s:n, s:n, s:o, s:n, s:{s:s, s:[o, o]}, s:n, s:o, "
                     "s:{s:s, s:n, s:n, s:n, s:n, s:b, s:b, s:b, s:o, s:o}}",
                     "version", "1.0", "truncation", "padding", "added_tokens", added, "normalizer",
                     "pre_tokenizer", "type", "Sequence", "pretokenizers", split, bytes,
                     "post_processor", "decoder",
                     json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 1,
                               "trim_offsets", 1, "use_regex", 1),
                     "model", "type", "BPE", "dropout", "unk_token", "continuing_subword_prefix",
                     "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0, "ignore_merges", 0,
                     "vocab", vocab, "merges", merges);
}

enum sb_status sb_bpe_trainer_write(struct sb_bpe_trainer *t, const char *path, size_t *n_vocab,
                                    struct sb_error *err)
{
    enum sb_status rc = join_pairs(t, err);
    json_t *root = rc == SB_OK ? as_json(t) : NULL;
    if (rc == SB_OK && !root)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu tokens", t->n_tokens);
    else if (rc == SB_OK && json_dump_file(root, path, JSON_INDENT(1)) != 0)
        rc = sb_fail(err, SB_EIO, "%s: cannot be written: %s", path, strerror(errno));
    else if (rc == SB_OK)
        *n_vocab = t->n_tokens;
    json_decref(root);
    drop_pairs(t);
    return rc;
}

/* Reading and writing n-gram cache files (methods C 1.11). Two passes: the first checks every size and
 * id and counts what is needed, the second adds it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "drafters/ngrams.h"
#include "harness/model/mapping.h"

enum { WORD = 4, HEAD = (SB_NGRAM_FILE_ORDER + 1) * WORD, PAIR = 2 * WORD };

static int32_t word_at(const uint8_t *p)
{
    uint32_t word = p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
    int32_t value;
    memcpy(&value, &word, sizeof value);
    return value;
}

struct reader {
    const char *name;
    const uint8_t *bytes;
    size_t size, at;
    size_t n_vocab, lowest, highest;
    struct sb_error *err;
};

struct record {
    sb_token context[SB_NGRAM_FILE_ORDER];
    size_t order, n_next;
    const uint8_t *next; /* PAIR bytes each */
};

static enum sb_status check_id(struct reader *r, size_t at, int32_t id)
{
    if (id < 0 || (size_t)id >= r->n_vocab)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: byte %zu: token %" PRId32 ", the vocabulary has %zu", r->name, at, id,
                       r->n_vocab);
    return SB_OK;
}

static enum sb_status read_context(struct reader *r, struct record *record)
{
    enum sb_status rc = SB_OK;
    record->order = 0;
    for (size_t i = 0; i < SB_NGRAM_FILE_ORDER && rc == SB_OK; i++) {
        size_t at = r->at + i * WORD;
        int32_t id = word_at(r->bytes + at);
        if (id == -1)
            continue;
        if (record->order < i)
            return sb_fail(r->err, SB_EFORMAT,
                           "%s: byte %zu: token %" PRId32 " behind the end of an n-gram", r->name,
                           at, id);
        rc = check_id(r, at, id);
        record->context[record->order++] = id;
    }
    if (rc == SB_OK && (record->order < r->lowest || record->order > r->highest))
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: byte %zu: an n-gram of %zu tokens, expected %zu to %zu", r->name, r->at,
                       record->order, r->lowest, r->highest);
    return rc;
}

/* The record at r->at, which moves behind it. */
static enum sb_status read_record(struct reader *r, struct record *record)
{
    size_t left = r->size - r->at;
    if (left < HEAD)
        return sb_fail(r->err, SB_EFORMAT, "%s: ends inside the record at byte %zu", r->name,
                       r->at);
    enum sb_status rc = read_context(r, record);
    if (rc != SB_OK)
        return rc;
    int32_t n = word_at(r->bytes + r->at + HEAD - WORD);
    if (n < 1)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: byte %zu: %" PRId32 " successors, expected at least 1", r->name,
                       r->at + HEAD - WORD, n);
    if ((size_t)n > (left - HEAD) / PAIR)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: byte %zu: %" PRId32 " successors, but %zu bytes are left", r->name,
                       r->at + HEAD - WORD, n, left - HEAD);
    record->n_next = (size_t)n;
    record->next = r->bytes + r->at + HEAD;
    for (size_t i = 0; i < record->n_next && rc == SB_OK; i++) {
        size_t at = r->at + HEAD + i * PAIR;
        int32_t count = word_at(r->bytes + at + WORD);
        rc = check_id(r, at, word_at(r->bytes + at));
        if (rc == SB_OK && count < 1)
            rc = sb_fail(r->err, SB_EFORMAT,
                         "%s: byte %zu: a count of %" PRId32 ", expected at least 1", r->name,
                         at + WORD, count);
    }
    r->at += HEAD + record->n_next * PAIR;
    return rc;
}

enum sb_status sb_ngrams_parse(struct sb_ngrams *t, const char *name, const uint8_t *bytes,
                               size_t size, size_t n_vocab, size_t lowest, size_t highest,
                               struct sb_error *err)
{
    struct reader r = { name, bytes, size, 0, n_vocab, lowest, highest, err };
    struct record record;
    enum sb_status rc = SB_OK;
    size_t nodes = 0, nexts = 0;
    while (r.at < size && rc == SB_OK) {
        rc = read_record(&r, &record);
        nodes += record.order;
        nexts += record.n_next;
    }
    if (rc == SB_OK && (rc = sb_ngrams_reserve(t, nodes, nexts, err)) != SB_OK)
        return sb_fail_context(err, rc, "%s", name);
    for (r.at = 0; r.at < size && rc == SB_OK;) {
        rc = read_record(&r, &record);
        for (size_t i = 0; i < record.n_next && rc == SB_OK; i++)
            sb_ngrams_add(t, record.context, record.order, word_at(record.next + i * PAIR),
                          word_at(record.next + i * PAIR + WORD));
    }
    return rc;
}

enum sb_status sb_ngrams_load(struct sb_ngrams *t, const char *path, size_t n_vocab, size_t lowest,
                              size_t highest, struct sb_error *err)
{
    struct sb_mapping file = { 0 };
    enum sb_status rc = sb_mapping_open(&file, path, err);
    if (rc == SB_OK)
        rc = sb_ngrams_parse(t, path, file.bytes, file.size, n_vocab, lowest, highest, err);
    sb_mapping_close(&file);
    return rc;
}

/* ---- writing ---- */

static bool put_word(FILE *f, int32_t value)
{
    uint32_t word = (uint32_t)value;
    const uint8_t bytes[WORD] = { (uint8_t)word, (uint8_t)(word >> 8), (uint8_t)(word >> 16),
                                  (uint8_t)(word >> 24) };
    return fwrite(bytes, 1, WORD, f) == WORD;
}

static bool put_node(FILE *f, const struct sb_ngrams *t, size_t index)
{
    const struct sb_ngram_node *node = &t->node[index];
    int32_t at = (int32_t)index;
    sb_token context[SB_NGRAM_FILE_ORDER];
    size_t order = 0;
    for (; at > 0 && order < SB_NGRAM_FILE_ORDER; at = t->node[at].parent)
        context[order++] = t->node[at].token;
    if (at > 0 || node->n_next == 0)
        return true; /* too long for a file, or there for longer ones only */
    bool ok = true;
    for (size_t i = 0; i < SB_NGRAM_FILE_ORDER; i++)
        ok = ok && put_word(f, i < order ? context[i] : -1);
    ok = ok && put_word(f, node->n_next);
    for (int32_t j = node->first; j >= 0; j = t->next[j].link)
        ok = ok && put_word(f, t->next[j].token) && put_word(f, t->next[j].count);
    return ok;
}

enum sb_status sb_ngrams_save(const struct sb_ngrams *t, const char *path, struct sb_error *err)
{
    FILE *f = fopen(path, "wb");
    if (!f)
        return sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    bool ok = true;
    for (size_t i = 1; i < t->n_nodes && ok; i++)
        ok = put_node(f, t, i);
    ok = fclose(f) == 0 && ok;
    return ok ? SB_OK : sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
}

/* Reading datastores. Sizes are checked before anything is read, then every id and position once; the
 * order of the suffixes is trusted: where it is wrong, matches are missed and nothing else happens. */
#include "drafters/datastore.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "harness/core/alloc.h"

enum { VERSION = 1, MOST_IDS = 1 << 24 };
const char sb_datastore_magic[8] = { 'S', 'B', 'I', 'N', 'D', 'E', 'X', '\n' };

static uint64_t number_at(const uint8_t *p, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)p[i] << (8 * i);
    return value;
}

uint64_t sb_datastore_checksum(const uint8_t *header, const uint8_t *body, size_t size)
{
    return XXH64(body, size, XXH64(header, SB_DATASTORE_CHECKSUM, 0));
}

/* ---- what both formats have in common ---- */

/* Every id and position of a chunk, and where the suffixes of each id begin. */
static enum sb_status index_chunk(struct sb_datastore *store, struct sb_datastore_chunk *chunk,
                                  const char *name, struct sb_error *err)
{
    chunk->first = sb_alloc_zero(store->n_ids + 1, sizeof *chunk->first);
    if (!chunk->first)
        return sb_fail(err, SB_ENOMEM, "%s: no memory for %zu ids", name, store->n_ids);
    for (size_t i = 0; i < chunk->n; i++) {
        uint32_t id = (uint32_t)sb_datastore_token(store, chunk, i);
        size_t suffix = sb_datastore_suffix(chunk, i);
        if (id >= store->n_ids)
            return sb_fail(err, SB_EFORMAT,
                           "%s: position %zu holds token %" PRIu32
                           ", the vocabulary has %zu; build the index with the target's tokenizer",
                           name, i, id, store->n_vocab);
        if (suffix >= chunk->n)
            return sb_fail(err, SB_EFORMAT, "%s: suffix %zu is at %zu, the text has %zu tokens",
                           name, i, suffix, chunk->n);
        chunk->first[id + 1]++;
    }
    for (size_t id = 0; id < store->n_ids; id++)
        chunk->first[id + 1] += chunk->first[id];
    return SB_OK;
}

static enum sb_status index_all(struct sb_datastore *store, const char *name, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (size_t c = 0; c < store->n_chunks && rc == SB_OK; c++) {
        rc = index_chunk(store, &store->chunk[c], name, err);
        store->n_tokens += store->chunk[c].n;
    }
    return rc;
}

/* ---- our own format ---- */

static enum sb_status read_header(struct sb_datastore *store, const char *name,
                                  const uint8_t *bytes, size_t size, struct sb_error *err)
{
    if (size < SB_DATASTORE_HEADER)
        return sb_fail(err, SB_EFORMAT, "%s: ends inside its header, after %zu of %d bytes", name,
                       size, SB_DATASTORE_HEADER);
    if (memcmp(bytes, sb_datastore_magic, sizeof sb_datastore_magic) != 0)
        return sb_fail(err, SB_EFORMAT,
                       "%s: is no datastore: expected 'SBINDEX' first; make one with specbench "
                       "index, or name REST's files .idx",
                       name);
    uint64_t version = number_at(bytes + SB_DATASTORE_VERSION, 4);
    if (version != VERSION)
        return sb_fail(err, SB_EFORMAT, "%s: datastore version %" PRIu64 ", expected %d", name,
                       version, VERSION);
    store->width = (unsigned)number_at(bytes + SB_DATASTORE_WIDTH, 4);
    store->tokenizer_hash = number_at(bytes + SB_DATASTORE_HASH, 8);
    store->n_vocab = number_at(bytes + SB_DATASTORE_VOCAB, 8);
    store->n_documents = number_at(bytes + SB_DATASTORE_DOCUMENTS, 8);
    store->checksum = number_at(bytes + SB_DATASTORE_CHECKSUM, 8);
    store->format = "sbidx";
    if ((store->width != 2 && store->width != 4) || store->n_vocab < 1 ||
        store->n_vocab >= MOST_IDS || (store->width == 2 && store->n_vocab > UINT16_MAX))
        return sb_fail(err, SB_EFORMAT, "%s: %zu ids in tokens of %u bytes, expected 2 or 4", name,
                       store->n_vocab, store->width);
    store->n_ids = store->n_vocab + 1;
    return SB_OK;
}

static size_t padded(size_t size)
{
    return (size + 3) / 4 * 4;
}

static enum sb_status read_body(struct sb_datastore *store, const char *name, const uint8_t *bytes,
                                size_t size, struct sb_error *err)
{
    uint64_t n = number_at(bytes + SB_DATASTORE_LENGTH, 8);
    size_t body = size - SB_DATASTORE_HEADER;
    if (n > UINT32_MAX || store->n_documents > n)
        return sb_fail(err, SB_EFORMAT, "%s: %" PRIu64 " tokens in %zu documents", name, n,
                       store->n_documents);
    size_t text = padded((size_t)n * store->width), wanted = text + 4 * (size_t)n;
    if (body != wanted)
        return sb_fail(err, SB_EFORMAT,
                       "%s: %zu bytes behind the header, expected %zu for %" PRIu64
                       " tokens; the file is %s",
                       name, body, wanted, n, body < wanted ? "cut short" : "too long");
    const uint8_t *tokens = bytes + SB_DATASTORE_HEADER;
    uint64_t checksum = sb_datastore_checksum(bytes, tokens, body);
    if (checksum != store->checksum)
        return sb_fail(err, SB_EFORMAT,
                       "%s: checksum %016" PRIx64 ", the header says %016" PRIx64
                       "; the file is damaged: build it again",
                       name, checksum, store->checksum);
    store->chunk[0] =
        (struct sb_datastore_chunk){ .tokens = tokens, .suffix = tokens + text, .n = (size_t)n };
    store->n_chunks = 1;
    return SB_OK;
}

static enum sb_status read_own(struct sb_datastore *store, const char *name, const uint8_t *bytes,
                               size_t size, const struct sb_tokenizer *tokenizer, size_t n_vocab,
                               struct sb_error *err)
{
    enum sb_status rc = read_header(store, name, bytes, size, err);
    if (rc == SB_OK)
        rc = read_body(store, name, bytes, size, err);
    if (rc != SB_OK)
        return rc;
    if (tokenizer && sb_tokenizer_hash(tokenizer) != store->tokenizer_hash)
        return sb_fail(err, SB_EFORMAT,
                       "%s: was made with tokenizer %016" PRIx64 ", the target's is %016" PRIx64
                       "; build it with specbench index --model TARGET",
                       name, store->tokenizer_hash, sb_tokenizer_hash(tokenizer));
    if (n_vocab && store->n_vocab > n_vocab)
        return sb_fail(err, SB_EFORMAT,
                       "%s: is of a vocabulary of %zu tokens, the target's has %zu", name,
                       store->n_vocab, n_vocab);
    rc = index_all(store, name, err);
    store->n_tokens -= store->n_documents < store->n_tokens ? store->n_documents : store->n_tokens;
    return rc;
}

/* ---- REST's ---- */

/* The chunk at *at, which moves behind it. Ids have 2 bytes in older files and 4 in newer ones: what the
 * positions, of 4 bytes each, leave open. */
static enum sb_status read_rest_chunk(struct sb_datastore *store, const char *name,
                                      const uint8_t *bytes, size_t size, size_t *at,
                                      struct sb_error *err)
{
    size_t begin = *at, left = size - begin;
    size_t text = left >= 4 ? number_at(bytes + begin, 4) : 0;
    if (left < 8 || text > left - 8)
        return sb_fail(err, SB_EFORMAT, "%s: byte %zu: ends inside a chunk", name, begin);
    size_t suffixes = number_at(bytes + begin + 4 + text, 4), n = suffixes / 4;
    if (suffixes > left - 8 - text)
        return sb_fail(err, SB_EFORMAT, "%s: byte %zu: ends inside a chunk's suffix array", name,
                       begin);
    unsigned width = n > 0 && text == 2 * n ? 2 : 4;
    if (suffixes % 4 != 0 || text != n * width || (n > 0 && store->width && store->width != width))
        return sb_fail(
            err, SB_EFORMAT,
            "%s: byte %zu: %zu bytes of tokens and %zu of suffixes, expected 2 or 4 to 4", name,
            begin, text, suffixes);
    if (store->n_chunks == SB_DATASTORE_CHUNKS)
        return sb_fail(err, SB_EUNSUPPORTED, "%s: has more than %d chunks", name,
                       SB_DATASTORE_CHUNKS);
    store->width = n > 0 ? width : store->width;
    store->chunk[store->n_chunks++] = (struct sb_datastore_chunk){
        .tokens = bytes + begin + 4, .suffix = bytes + begin + 8 + text, .n = n
    };
    *at += 8 + text + suffixes;
    return SB_OK;
}

static size_t largest_id(const struct sb_datastore *store)
{
    size_t largest = 0;
    for (size_t c = 0; c < store->n_chunks; c++)
        for (size_t i = 0; i < store->chunk[c].n; i++) {
            uint32_t id = (uint32_t)sb_datastore_token(store, &store->chunk[c], i);
            largest = id > largest ? id : largest;
        }
    return largest;
}

static enum sb_status read_rest(struct sb_datastore *store, const char *name, const uint8_t *bytes,
                                size_t size, size_t n_vocab, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    store->format = "rest";
    for (size_t at = 0; at < size && rc == SB_OK;)
        rc = read_rest_chunk(store, name, bytes, size, &at, err);
    if (rc != SB_OK)
        return rc;
    store->width = store->width ? store->width : 4;
    store->n_vocab = store->n_ids = n_vocab ? n_vocab : largest_id(store) + 1;
    if (store->n_ids > MOST_IDS)
        return sb_fail(err, SB_EFORMAT, "%s: holds token %zu, expected ids below %d", name,
                       store->n_ids - 1, MOST_IDS);
    return index_all(store, name, err);
}

static bool ends_in(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n > m && strcmp(name + n - m, end) == 0;
}

/* ---- opening ---- */

enum sb_status sb_datastore_parse(struct sb_datastore *out, const char *name, const uint8_t *bytes,
                                  size_t size, const struct sb_tokenizer *tokenizer, size_t n_vocab,
                                  struct sb_error *err)
{
    struct sb_datastore store = { 0 };
    enum sb_status rc = ends_in(name, ".idx")
                            ? read_rest(&store, name, bytes, size, n_vocab, err)
                            : read_own(&store, name, bytes, size, tokenizer, n_vocab, err);
    if (rc == SB_OK)
        *out = store;
    else
        sb_datastore_close(&store);
    return rc;
}

enum sb_status sb_datastore_open(struct sb_datastore *out, const char *path,
                                 const struct sb_tokenizer *tokenizer, size_t n_vocab,
                                 struct sb_error *err)
{
    struct sb_mapping file = { 0 };
    enum sb_status rc = sb_mapping_open(&file, path, err);
    if (rc == SB_OK)
        rc = sb_datastore_parse(out, path, file.bytes, file.size, tokenizer, n_vocab, err);
    if (rc == SB_OK)
        out->file = file;
    else
        sb_mapping_close(&file);
    return rc;
}

void sb_datastore_close(struct sb_datastore *store)
{
    for (size_t c = 0; c < store->n_chunks; c++)
        sb_free(store->chunk[c].first);
    sb_mapping_close(&store->file);
    *store = (struct sb_datastore){ 0 };
}

bool sb_datastore_is(const char *path)
{
    char head[sizeof sb_datastore_magic];
    FILE *f = fopen(path, "rb");
    bool ours = f && fread(head, 1, sizeof head, f) == sizeof head &&
                memcmp(head, sb_datastore_magic, sizeof head) == 0;
    if (f)
        fclose(f);
    return ours || ends_in(path, ".idx") || ends_in(path, ".sbidx");
}

/* ---- searching ---- */

/* Below 0: the suffix comes before all that begin with the pattern; above 0: behind them. */
static int compare(const struct sb_datastore *store, const struct sb_datastore_chunk *chunk,
                   size_t at, const sb_token *pattern, size_t m)
{
    for (size_t j = 0; j < m; j++) {
        if (at + j >= chunk->n)
            return -1;
        sb_token id = sb_datastore_token(store, chunk, at + j);
        if (id != pattern[j])
            return id < pattern[j] ? -1 : 1;
    }
    return 0;
}

/* First rank in from..to-1 whose suffix compares above `below`; to: none. */
static size_t bound(const struct sb_datastore *store, const struct sb_datastore_chunk *chunk,
                    struct sb_datastore_range range, const sb_token *pattern, size_t m, int below)
{
    while (range.from < range.to) {
        size_t middle = range.from + (range.to - range.from) / 2;
        if (compare(store, chunk, sb_datastore_suffix(chunk, middle), pattern, m) > below)
            range.to = middle;
        else
            range.from = middle + 1;
    }
    return range.from;
}

struct sb_datastore_range sb_datastore_find(const struct sb_datastore *store, size_t chunk,
                                            const sb_token *pattern, size_t m)
{
    const struct sb_datastore_chunk *c = &store->chunk[chunk];
    if (pattern[0] < 0 || (size_t)pattern[0] >= store->n_vocab)
        return (struct sb_datastore_range){ 0 };
    struct sb_datastore_range range = { c->first[pattern[0]], c->first[pattern[0] + 1] };
    range.from = bound(store, c, range, pattern, m, -1);
    range.to = bound(store, c, range, pattern, m, 0);
    return range;
}

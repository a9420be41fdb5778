/* Datastores (methods C 1.6): tokenised documents and the suffix array over them, in a mapped file.
 *
 * Two formats are read, docs/formats.md has both: our own .sbidx, which knows its tokenizer and has a
 * checksum, and the .idx of REST, which has neither. Documents of an .sbidx are followed by a separator,
 * the id n_vocab, so that nothing is copied across their ends.
 *
 * Memory: the mapped file, and 4 bytes per vocabulary entry and chunk. Readers share a store freely. */
#ifndef SB_DRAFTERS_DATASTORE_H
#define SB_DRAFTERS_DATASTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/mapping.h"
#include "harness/model/tokenizer.h"

enum { SB_DATASTORE_CHUNKS = 64, SB_DATASTORE_HEADER = 64 };

/* A text with its suffix array. Suffixes stand in the order of their tokens, a prefix before what goes
 * on behind it. */
struct sb_datastore_chunk {
    const uint8_t *tokens; /* [n] of width bytes, little-endian */
    const uint8_t *suffix; /* [n] u32 positions */
    size_t n;
    uint32_t *first; /* [n_ids + 1] suffixes that begin with a smaller id; owned by the store */
};

struct sb_datastore {
    struct sb_mapping file;
    struct sb_datastore_chunk chunk[SB_DATASTORE_CHUNKS];
    size_t n_chunks, n_tokens, n_documents; /* tokens without separators; documents 0: not known */
    size_t n_vocab;                         /* ids below it are tokens */
    size_t n_ids;                           /* ids below it may stand in the text */
    unsigned width;                         /* bytes of a token, 2 or 4 */
    uint64_t tokenizer_hash, checksum;      /* 0: the format has none */
    const char *format;                     /* "sbidx" or "rest" */
};

/* Map a file and check all of it: sizes, checksum, every id and position. With a tokenizer (the target's;
 * NULL: bare ids) its hash must be the store's; ids must be below n_vocab. n_vocab 0 takes any store, to
 * look at it. What is wrong is SB_EFORMAT, a missing file SB_EINPUT. */
enum sb_status sb_datastore_open(struct sb_datastore *out, const char *path,
                                 const struct sb_tokenizer *tokenizer, size_t n_vocab,
                                 struct sb_error *err);
/* The same from memory, which must outlive the store; the name says what it is by its ending. */
enum sb_status sb_datastore_parse(struct sb_datastore *out, const char *name, const uint8_t *bytes,
                                  size_t size, const struct sb_tokenizer *tokenizer, size_t n_vocab,
                                  struct sb_error *err);
void sb_datastore_close(struct sb_datastore *store); /* accepts a zeroed one */

/* The suffixes from..to-1 of a chunk begin with pattern[m], m >= 1. */
struct sb_datastore_range {
    size_t from, to;
};
struct sb_datastore_range sb_datastore_find(const struct sb_datastore *store, size_t chunk,
                                            const sb_token *pattern, size_t m);

/* Position of the suffix of that rank. */
static inline size_t sb_datastore_suffix(const struct sb_datastore_chunk *chunk, size_t rank)
{
    const uint8_t *p = chunk->suffix + 4 * rank;
    return p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
}

/* The id at a position; separators are n_vocab or more. */
static inline sb_token sb_datastore_token(const struct sb_datastore *store,
                                          const struct sb_datastore_chunk *chunk, size_t at)
{
    const uint8_t *p = chunk->tokens + at * store->width;
    uint32_t low = p[0] | (uint32_t)p[1] << 8;
    return (sb_token)(store->width == 2 ? low : low | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
}

/* Does sb_datastore_open take a file for a datastore, by its first bytes or its name? */
bool sb_datastore_is(const char *path);

/* Sort and write. text[n] has the id n_vocab behind each document, n_documents times in all. The file
 * appears whole or not at all. At most 2^31 - 1 bytes are sorted, of 1 to 4 per token as the vocabulary
 * needs: a larger text is SB_EUNSUPPORTED. */
enum sb_status sb_datastore_write(const char *path, const sb_token *text, size_t n,
                                  size_t n_documents, size_t n_vocab, uint64_t tokenizer_hash,
                                  struct sb_error *err);

/* Fields of the .sbidx header: byte offsets. */
enum {
    SB_DATASTORE_VERSION = 8,
    SB_DATASTORE_WIDTH = 12,
    SB_DATASTORE_HASH = 16,
    SB_DATASTORE_VOCAB = 24,
    SB_DATASTORE_LENGTH = 32,
    SB_DATASTORE_DOCUMENTS = 40,
    SB_DATASTORE_RESERVED = 48,
    SB_DATASTORE_CHECKSUM = 56,
};
extern const char sb_datastore_magic[8];
/* Checksum of a file in two parts: its header but for the checksum, and what follows. */
uint64_t sb_datastore_checksum(const uint8_t *header, const uint8_t *body, size_t size);

#endif

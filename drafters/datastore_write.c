/* Building datastores. libdivsufsort sorts the suffixes of a text of bytes. Tokens are spelt with their
 * most significant byte first, all in equally many bytes, so the suffixes that begin at a token have the
 * order of the tokens; the others are left out. That costs 4 bytes of memory per byte and token, and
 * keeps a well-tried sorter where one for numbers is not packaged. */
#include <divsufsort.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "drafters/datastore.h"
#include "harness/core/alloc.h"

/* Bytes that every id up to `largest` fits in. */
static unsigned spelling_bytes(size_t largest)
{
    unsigned bytes = 1;
    while (largest >>= 8)
        bytes++;
    return bytes;
}

/* Positions of the suffixes in order, into suffix[n]. */
static enum sb_status sort_suffixes(uint32_t *suffix, const sb_token *text, size_t n,
                                    size_t largest, const char *path, struct sb_error *err)
{
    unsigned bytes = spelling_bytes(largest);
    size_t size = n * bytes, kept = 0;
    if (n > INT32_MAX / bytes)
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: %zu tokens of %u bytes, an index holds 2^31 - 1 bytes; split the text",
                       path, n, bytes);
    uint8_t *spelt = sb_alloc(size);
    saidx_t *order = sb_alloc_array(size, sizeof *order);
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < size && spelt; i++)
        spelt[i] = (uint8_t)((uint32_t)text[i / bytes] >> (8 * (bytes - 1 - i % bytes)));
    if (!spelt || !order || (n > 0 && divsufsort(spelt, order, (saidx_t)size) != 0))
        rc = sb_fail(err, SB_ENOMEM, "%s: no memory to sort %zu tokens", path, n);
    for (size_t i = 0; i < size && rc == SB_OK; i++)
        if ((size_t)order[i] % bytes == 0)
            suffix[kept++] = (uint32_t)order[i] / bytes;
    sb_free(order);
    sb_free(spelt);
    return rc;
}

static void put_number(uint8_t *p, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        p[i] = (uint8_t)(value >> (8 * i));
}

/* Write it beside its place and move it there. */
static enum sb_status put_file(const char *path, const uint8_t *bytes, size_t size,
                               struct sb_error *err)
{
    char *beside = sb_strf("%s.part", path);
    FILE *f = beside ? fopen(beside, "wb") : NULL;
    if (!beside)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    bool ok = f && fwrite(bytes, 1, size, f) == size;
    ok = f && fclose(f) == 0 && ok;
    ok = ok && rename(beside, path) == 0;
    enum sb_status rc = ok ? SB_OK : sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    if (f && !ok)
        remove(beside);
    sb_free(beside);
    return rc;
}

enum sb_status sb_datastore_write(const char *path, const sb_token *text, size_t n,
                                  size_t n_documents, size_t n_vocab, uint64_t tokenizer_hash,
                                  struct sb_error *err)
{
    unsigned width = n_vocab <= UINT16_MAX ? 2 : 4;
    size_t padded = (n * width + 3) / 4 * 4, size = SB_DATASTORE_HEADER + padded + 4 * n;
    uint32_t *suffix = sb_alloc_array(n, sizeof *suffix);
    uint8_t *bytes = sb_alloc_zero(1, size);
    enum sb_status rc = suffix && bytes
                            ? sort_suffixes(suffix, text, n, n_vocab, path, err)
                            : sb_fail(err, SB_ENOMEM, "%s: no memory for %zu tokens", path, n);
    if (rc == SB_OK) {
        uint8_t *body = bytes + SB_DATASTORE_HEADER;
        memcpy(bytes, sb_datastore_magic, sizeof sb_datastore_magic);
        put_number(bytes + SB_DATASTORE_VERSION, 1, 4);
        put_number(bytes + SB_DATASTORE_WIDTH, width, 4);
        put_number(bytes + SB_DATASTORE_HASH, tokenizer_hash, 8);
        put_number(bytes + SB_DATASTORE_VOCAB, n_vocab, 8);
        put_number(bytes + SB_DATASTORE_LENGTH, n, 8);
        put_number(bytes + SB_DATASTORE_DOCUMENTS, n_documents, 8);
        for (size_t i = 0; i < n; i++)
            put_number(body + i * width, (uint32_t)text[i], width);
        for (size_t i = 0; i < n; i++)
            put_number(body + padded + 4 * i, suffix[i], 4);
        put_number(bytes + SB_DATASTORE_CHECKSUM,
                   sb_datastore_checksum(bytes, body, size - SB_DATASTORE_HEADER), 8);
        rc = put_file(path, bytes, size, err);
    }
    sb_free(bytes);
    sb_free(suffix);
    return rc;
}

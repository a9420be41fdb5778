/* The zip archives that torch.save writes: entries stored as they are, so each can be used where it
 * lies. Not a general reader: an entry that is compressed or encrypted is refused.
 *
 * Ours and no library's, since the point is the place of an entry's bytes in a mapping: libzip copies
 * them out and does not say where they are, and neither it nor minizip refuses entries that overlap. */
#ifndef SB_MODEL_TORCH_ZIP_H
#define SB_MODEL_TORCH_ZIP_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_zip_entry {
    const char *name; /* in the bytes given, not NUL-terminated */
    size_t name_n;
    const uint8_t *header; /* its own; name, an extra field and data follow */
    const uint8_t *data;
    size_t size;
};

struct sb_zip {
    struct sb_zip_entry *entry; /* sorted by name, owned */
    size_t n;
};

/* Read the central directory, check each entry against its own header: inside the file, stored, no
 * overlap, no name twice. The bytes stay in place while *out is in use; `path` is for messages.
 * Checksums are not compared: torch may be told to write none. */
enum sb_status sb_zip_parse(struct sb_zip *out, const uint8_t *bytes, size_t size, const char *path,
                            struct sb_error *err);
void sb_zip_close(struct sb_zip *zip);
const struct sb_zip_entry *sb_zip_find(const struct sb_zip *zip, const char *name,
                                       size_t name_n); /* or NULL */

#endif

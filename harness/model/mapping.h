/* A whole file, mapped read-only. */
#ifndef SB_MODEL_MAPPING_H
#define SB_MODEL_MAPPING_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_mapping {
    const uint8_t *bytes; /* page-aligned */
    size_t size;          /* at least 1 */
};

/* SB_EINPUT for a file that is missing or a directory, SB_EFORMAT for an empty one. */
enum sb_status sb_mapping_open(struct sb_mapping *out, const char *path, struct sb_error *err);
void sb_mapping_close(struct sb_mapping *mapping);

#endif

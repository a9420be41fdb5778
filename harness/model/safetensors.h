/* safetensors files: a JSON header that names tensors, then their bytes. */
#ifndef SB_MODEL_SAFETENSORS_H
#define SB_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/mapping.h"
#include "harness/model/stored.h"

/* An entry of `__metadata__`; those that are no text are left out. */
struct sb_st_meta {
    char *key, *value; /* owned */
};

struct sb_st_file {
    struct sb_mapping map;
    struct sb_stored_tensor *tensor; /* sorted by name */
    size_t n;
    struct sb_st_meta *meta;
    size_t n_meta;
};

/* Open and check: bounds, sizes, no overlaps, a known type. */
enum sb_status sb_st_open(struct sb_st_file *out, const char *path, struct sb_error *err);
/* The same over bytes that stay in place; sb_st_close then unmaps nothing. */
enum sb_status sb_st_parse(struct sb_st_file *out, const uint8_t *bytes, size_t size,
                           const char *name, struct sb_error *err);
void sb_st_close(struct sb_st_file *file);
const struct sb_stored_tensor *sb_st_find(const struct sb_st_file *file,
                                          const char *name);            /* or NULL */
const char *sb_st_meta(const struct sb_st_file *file, const char *key); /* or NULL */

#endif

/* safetensors files: a JSON header that names tensors, then their bytes. */
#ifndef SB_MODEL_SAFETENSORS_H
#define SB_MODEL_SAFETENSORS_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/mapping.h"
#include "kernels/kernels.h"

struct sb_st_tensor {
    char *name; /* owned */
    enum sb_dtype type;
    size_t n_dims, dim[4]; /* outermost first; a scalar has n_dims 0 */
    const void *data;
    size_t size_bytes;
};

struct sb_st_file {
    struct sb_mapping map;
    struct sb_st_tensor *tensor; /* sorted by name */
    size_t n;
};

/* Open and check: bounds, sizes, no overlaps, F32, F16 or BF16. */
enum sb_status sb_st_open(struct sb_st_file *out, const char *path, struct sb_error *err);
/* The same over bytes that stay in place; sb_st_close then unmaps nothing. */
enum sb_status sb_st_parse(struct sb_st_file *out, const uint8_t *bytes, size_t size,
                           const char *name, struct sb_error *err);
void sb_st_close(struct sb_st_file *file);
const struct sb_st_tensor *sb_st_find(const struct sb_st_file *file,
                                      const char *name); /* or NULL */

#endif

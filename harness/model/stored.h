/* Tensors as a file holds them: what safetensors and torch archives have in common. */
#ifndef SB_MODEL_STORED_H
#define SB_MODEL_STORED_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/kernels.h"

/* Element types that a file may name. */
enum sb_element {
    SB_ELEMENT_F32,
    SB_ELEMENT_F16,
    SB_ELEMENT_BF16,
    SB_ELEMENT_F64,
    SB_ELEMENT_I64,
    SB_ELEMENT_I32,
    SB_ELEMENT_I16,
    SB_ELEMENT_I8,
    SB_ELEMENT_U8,
    SB_ELEMENT_BOOL,
    SB_ELEMENT_COUNT,
};
const char *sb_element_name(enum sb_element element); /* "f32", "i64", ... */
size_t sb_element_bytes(enum sb_element element);
/* The same type for the kernels; false when they have none (integers, truth values, f64). */
bool sb_element_dtype(enum sb_dtype *out, enum sb_element element);

struct sb_stored_tensor {
    char *name; /* owned by the file's list */
    enum sb_element type;
    size_t n_dims, dim[4]; /* outermost first; a scalar has n_dims 0 */
    const void *data;      /* little-endian, row-major, aligned to an element */
    size_t size_bytes;
};

void sb_stored_sort(struct sb_stored_tensor *tensor, size_t n); /* by name */
/* Of n that are sorted by name; NULL: none. */
const struct sb_stored_tensor *sb_stored_find(const struct sb_stored_tensor *tensor, size_t n,
                                              const char *name);

#endif

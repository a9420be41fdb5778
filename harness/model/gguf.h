/* GGUF files (versions 2 and 3, little-endian): metadata and tensor directory, checked before use.
 *
 * Everything points into the mapped file; the offsets and sizes handed out lie inside it. Strings are
 * not NUL-terminated. */
#ifndef SB_MODEL_GGUF_H
#define SB_MODEL_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "kernels/kernels.h"

enum sb_gguf_type {
    SB_GGUF_U8,
    SB_GGUF_I8,
    SB_GGUF_U16,
    SB_GGUF_I16,
    SB_GGUF_U32,
    SB_GGUF_I32,
    SB_GGUF_F32,
    SB_GGUF_BOOL,
    SB_GGUF_STRING,
    SB_GGUF_ARRAY,
    SB_GGUF_U64,
    SB_GGUF_I64,
    SB_GGUF_F64,
    SB_GGUF_TYPE_COUNT,
};

struct sb_text {
    const char *data;
    size_t n;
};

struct sb_gguf_value {
    struct sb_text key;
    enum sb_gguf_type type;
    enum sb_gguf_type item; /* of an array */
    uint64_t n;             /* of an array; 1 otherwise */
    const uint8_t *data;    /* the first value, packed, little-endian */
    const uint8_t **string; /* arrays of strings: [n] where each one's length begins, owned */
};

struct sb_gguf_tensor {
    struct sb_text name;
    enum sb_dtype type;
    size_t n_dims;
    uint64_t dim[4]; /* innermost first: dim[0] is k */
    const void *data;
    size_t size_bytes;
};

struct sb_gguf {
    uint32_t version;
    struct sb_gguf_value *value;
    size_t n_values;
    struct sb_gguf_tensor *tensor;
    size_t n_tensors;
    struct sb_gguf_value **by_key;   /* sorted by key, owned */
    struct sb_gguf_tensor **by_name; /* sorted by name, owned */
    const uint8_t *bytes;
    size_t size;
    bool mapped;
};

/* Open a file, or bytes that stay in place while *out is in use; `name` is for messages. */
enum sb_status sb_gguf_open(struct sb_gguf *out, const char *path, struct sb_error *err);
enum sb_status sb_gguf_parse(struct sb_gguf *out, const uint8_t *bytes, size_t size,
                             const char *name, struct sb_error *err);
void sb_gguf_close(struct sb_gguf *gguf);

const struct sb_gguf_value *sb_gguf_find(const struct sb_gguf *gguf, const char *key); /* or NULL */
const struct sb_gguf_tensor *sb_gguf_tensor(const struct sb_gguf *gguf, const char *name);

/* Values by key; false when the key is absent or of another kind. Any integer type fits an int64. */
bool sb_gguf_int(const struct sb_gguf *gguf, const char *key, int64_t *out);
bool sb_gguf_number(const struct sb_gguf *gguf, const char *key, double *out);
bool sb_gguf_bool(const struct sb_gguf *gguf, const char *key, bool *out);
bool sb_gguf_text(const struct sb_gguf *gguf, const char *key, struct sb_text *out);

/* Item i of a value (i = 0 for a plain one); false when it is of another kind or out of range. */
bool sb_gguf_item_int(const struct sb_gguf_value *v, uint64_t i, int64_t *out);
bool sb_gguf_item_number(const struct sb_gguf_value *v, uint64_t i, double *out);
bool sb_gguf_item_text(const struct sb_gguf_value *v, uint64_t i, struct sb_text *out);

const char *sb_gguf_type_name(enum sb_gguf_type type);

#endif

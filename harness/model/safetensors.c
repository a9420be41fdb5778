#include "harness/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/core/alloc.h"

/* The format's own limit on the header. */
enum { MAX_HEADER = 100000000, MAX_DIMS = 4 };

static enum sb_status read_type(enum sb_element *out, const char *type, const char *name,
                                const char *tensor, struct sb_error *err)
{
    static const char *const known[SB_ELEMENT_COUNT] = {
        [SB_ELEMENT_F32] = "F32",   [SB_ELEMENT_F16] = "F16", [SB_ELEMENT_BF16] = "BF16",
        [SB_ELEMENT_F64] = "F64",   [SB_ELEMENT_I64] = "I64", [SB_ELEMENT_I32] = "I32",
        [SB_ELEMENT_I16] = "I16",   [SB_ELEMENT_I8] = "I8",   [SB_ELEMENT_U8] = "U8",
        [SB_ELEMENT_BOOL] = "BOOL",
    };
    for (size_t i = 0; type && i < SB_ELEMENT_COUNT; i++) {
        if (strcmp(type, known[i]) == 0) {
            *out = (enum sb_element)i;
            return SB_OK;
        }
    }
    return sb_fail(
        err, type ? SB_EUNSUPPORTED : SB_EFORMAT,
        "%s: tensor '%s' has dtype %s; specbench knows F64, F32, F16, BF16, I64 to I8, U8 "
        "and BOOL",
        name, tensor, type ? type : "missing");
}

static enum sb_status read_shape(struct sb_stored_tensor *t, const json_t *shape, const char *name,
                                 struct sb_error *err)
{
    size_t values = 1;
    if (!json_is_array(shape) || json_array_size(shape) > MAX_DIMS)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s': shape is no list of at most %d sizes",
                       name, t->name, MAX_DIMS);
    t->n_dims = json_array_size(shape);
    for (size_t i = 0; i < t->n_dims; i++) {
        const json_t *size = json_array_get(shape, i);
        json_int_t n = json_is_integer(size) ? json_integer_value(size) : -1;
        if (n < 1 || n > INT32_MAX)
            return sb_fail(err, SB_EFORMAT,
                           "%s: tensor '%s': size %zu of its shape is not 1 to 2^31", name, t->name,
                           i);
        t->dim[i] = (size_t)n;
        if (__builtin_mul_overflow(values, t->dim[i], &values))
            return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is larger than any file", name,
                           t->name);
    }
    if (__builtin_mul_overflow(values, sb_element_bytes(t->type), &t->size_bytes))
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is larger than any file", name, t->name);
    return SB_OK;
}

static enum sb_status read_tensor(struct sb_stored_tensor *t, const char *key, const json_t *entry,
                                  const uint8_t *data, size_t size, const char *name,
                                  struct sb_error *err)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    t->name = sb_strdup(key);
    if (!t->name)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", name);
    enum sb_status rc =
        read_type(&t->type, json_string_value(json_object_get(entry, "dtype")), name, key, err);
    if (rc == SB_OK)
        rc = read_shape(t, json_object_get(entry, "shape"), name, err);
    if (rc != SB_OK)
        return rc;
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    json_int_t from = json_is_integer(first) ? json_integer_value(first) : -1;
    json_int_t to = json_is_integer(last) ? json_integer_value(last) : -1;
    if (json_array_size(offsets) != 2 || from < 0 || to < from || (uint64_t)to > size)
        return sb_fail(err, SB_EFORMAT,
                       "%s: tensor '%s': data_offsets [%lld, %lld] do not lie in its "
                       "%zu bytes of data",
                       name, key, (long long)from, (long long)to, size);
    if ((size_t)(to - from) != t->size_bytes)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' has %lld bytes; its shape needs %zu", name,
                       key, (long long)(to - from), t->size_bytes);
    if ((uintptr_t)(data + from) % sb_element_bytes(t->type))
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is not aligned", name, key);
    t->data = data + from;
    return SB_OK;
}

static int by_data(const void *a, const void *b)
{
    const struct sb_stored_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static enum sb_status read_meta(struct sb_st_file *f, const json_t *meta, const char *name,
                                struct sb_error *err)
{
    const char *key;
    json_t *value;
    f->meta = sb_alloc_zero(json_object_size(meta), sizeof *f->meta);
    if (!f->meta)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for its metadata", name);
    json_object_foreach((json_t *)meta, key, value)
    {
        if (!json_is_string(value))
            continue;
        struct sb_st_meta *m = &f->meta[f->n_meta++];
        *m = (struct sb_st_meta){ sb_strdup(key), sb_strdup(json_string_value(value)) };
        if (!m->key || !m->value)
            return sb_fail(err, SB_ENOMEM, "%s: out of memory for its metadata", name);
    }
    return SB_OK;
}

static enum sb_status read_tensors(struct sb_st_file *f, const json_t *header, const uint8_t *data,
                                   size_t size, const char *name, struct sb_error *err)
{
    const char *key;
    json_t *entry;
    enum sb_status rc = SB_OK;
    f->tensor = sb_alloc_zero(json_object_size(header), sizeof *f->tensor);
    if (!f->tensor)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for its directory", name);
    json_object_foreach((json_t *)header, key, entry)
    {
        rc = strcmp(key, "__metadata__") == 0
                 ? read_meta(f, entry, name, err)
                 : read_tensor(&f->tensor[f->n++], key, entry, data, size, name, err);
        if (rc != SB_OK)
            return rc;
    }
    qsort(f->tensor, f->n, sizeof *f->tensor, by_data);
    for (size_t i = 1; i < f->n; i++)
        if ((const uint8_t *)f->tensor[i - 1].data + f->tensor[i - 1].size_bytes >
            (const uint8_t *)f->tensor[i].data)
            return sb_fail(err, SB_EFORMAT, "%s: tensors '%s' and '%s' overlap", name,
                           f->tensor[i - 1].name, f->tensor[i].name);
    sb_stored_sort(f->tensor, f->n);
    return SB_OK;
}

enum sb_status sb_st_parse(struct sb_st_file *out, const uint8_t *bytes, size_t size,
                           const char *name, struct sb_error *err)
{
    struct sb_st_file f = { 0 };
    uint64_t length = 0;
    json_error_t why;
    if (size < 8)
        return sb_fail(err, SB_EFORMAT, "%s: %zu bytes are no safetensors file", name, size);
    memcpy(&length, bytes, 8);
    if (length > MAX_HEADER || length > size - 8)
        return sb_fail(err, SB_EFORMAT,
                       "%s: its header of %llu bytes does not fit the file of %zu "
                       "(is it a safetensors file?)",
                       name, (unsigned long long)length, size);
    json_t *header =
        json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &why);
    if (!json_is_object(header)) {
        json_decref(header);
        return sb_fail(err, SB_EFORMAT, "%s: its header is no JSON object: %s", name,
                       header ? "another value" : why.text);
    }
    enum sb_status rc =
        read_tensors(&f, header, bytes + 8 + length, size - 8 - (size_t)length, name, err);
    json_decref(header);
    if (rc == SB_OK)
        *out = f;
    else
        sb_st_close(&f);
    return rc;
}

enum sb_status sb_st_open(struct sb_st_file *out, const char *path, struct sb_error *err)
{
    struct sb_mapping map;
    enum sb_status rc = sb_mapping_open(&map, path, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_st_parse(out, map.bytes, map.size, path, err);
    if (rc == SB_OK)
        out->map = map;
    else
        sb_mapping_close(&map);
    return rc;
}

void sb_st_close(struct sb_st_file *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->n; i++)
        sb_free(file->tensor[i].name);
    sb_free(file->tensor);
    for (size_t i = 0; i < file->n_meta; i++) {
        sb_free(file->meta[i].key);
        sb_free(file->meta[i].value);
    }
    sb_free(file->meta);
    sb_mapping_close(&file->map);
    *file = (struct sb_st_file){ 0 };
}

const struct sb_stored_tensor *sb_st_find(const struct sb_st_file *file, const char *name)
{
    return sb_stored_find(file->tensor, file->n, name);
}

const char *sb_st_meta(const struct sb_st_file *file, const char *key)
{
    for (size_t i = 0; i < file->n_meta; i++)
        if (strcmp(file->meta[i].key, key) == 0)
            return file->meta[i].value;
    return NULL;
}

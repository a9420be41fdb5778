#include "harness/model/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/core/alloc.h"

/* The format's own limit on the header. */
enum { MAX_HEADER = 100000000, MAX_DIMS = 4 };

static enum sb_status read_type(enum sb_dtype *out, const char *type, const char *name,
                                const char *tensor, struct sb_error *err)
{
    static const struct {
        const char *text;
        enum sb_dtype type;
    } known[] = { { "F32", SB_F32 }, { "F16", SB_F16 }, { "BF16", SB_BF16 } };
    for (size_t i = 0; type && i < sizeof known / sizeof *known; i++) {
        if (strcmp(type, known[i].text) == 0) {
            *out = known[i].type;
            return SB_OK;
        }
    }
    return sb_fail(err, type ? SB_EUNSUPPORTED : SB_EFORMAT,
                   "%s: tensor '%s' has dtype %s; specbench reads F32, F16, BF16", name, tensor,
                   type ? type : "missing");
}

static enum sb_status read_shape(struct sb_st_tensor *t, const json_t *shape, const char *name,
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
    size_t value_bytes = t->type == SB_F32 ? 4 : 2;
    if (__builtin_mul_overflow(values, value_bytes, &t->size_bytes))
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is larger than any file", name, t->name);
    return SB_OK;
}

static enum sb_status read_tensor(struct sb_st_tensor *t, const char *key, const json_t *entry,
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
    if ((uintptr_t)(data + from) % (t->type == SB_F32 ? 4 : 2))
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is not aligned", name, key);
    t->data = data + from;
    return SB_OK;
}

static int by_data(const void *a, const void *b)
{
    const struct sb_st_tensor *x = a, *y = b;
    return (x->data > y->data) - (x->data < y->data);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct sb_st_tensor *)a)->name, ((const struct sb_st_tensor *)b)->name);
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
        if (strcmp(key, "__metadata__") == 0)
            continue;
        rc = read_tensor(&f->tensor[f->n++], key, entry, data, size, name, err);
        if (rc != SB_OK)
            return rc;
    }
    qsort(f->tensor, f->n, sizeof *f->tensor, by_data);
    for (size_t i = 1; i < f->n; i++)
        if ((const uint8_t *)f->tensor[i - 1].data + f->tensor[i - 1].size_bytes >
            (const uint8_t *)f->tensor[i].data)
            return sb_fail(err, SB_EFORMAT, "%s: tensors '%s' and '%s' overlap", name,
                           f->tensor[i - 1].name, f->tensor[i].name);
    qsort(f->tensor, f->n, sizeof *f->tensor, by_name);
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
    sb_mapping_close(&file->map);
    *file = (struct sb_st_file){ 0 };
}

const struct sb_st_tensor *sb_st_find(const struct sb_st_file *file, const char *name)
{
    const struct sb_st_tensor probe = { .name = (char *)name };
    return bsearch(&probe, file->tensor, file->n, sizeof probe, by_name);
}

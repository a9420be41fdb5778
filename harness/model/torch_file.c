#include "harness/model/torch_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/tok_internal.h"
#include "harness/model/torch_pickle.h"
#include "harness/model/torch_zip.h"

enum {
    MAX_DIMS = 4,
    MAX_NESTING = 16,
    MAX_NAME = 1024,
    MAX_DIRECTORY =
        1 << 27, /* bytes of all tensors' names and records: 4 bytes of pickle name one more */
};

struct collector {
    const struct sb_zip *zip;
    const struct sb_pickle *pickle;
    const char *path;
    const struct sb_zip_entry *data_pkl; /* its name begins with the archive's folder */
    size_t root_n;                       /* bytes of that folder's name, with its '/' */
    struct sb_torch_file *out;
    size_t cap, directory_bytes;
    struct sb_error *err;
    char name[MAX_NAME + 1]; /* of the value in hand */
};

/* ---- the archive ----------------------------------------------------------------------------------- */

static bool begins_as_zip(const uint8_t *bytes, size_t size)
{
    return size >= 4 && memcmp(bytes, "PK\3\4", 4) == 0;
}

static bool begins_as_pickle(const uint8_t *bytes, size_t size)
{
    return size >= 2 && bytes[0] == 0x80 && bytes[1] >= 2 && bytes[1] <= 5;
}

bool sb_torch_is_file(const char *path)
{
    static const char *const suffixes[] = { ".bin", ".pt", ".pth" };
    uint8_t head[4] = { 0 };
    size_t length = strlen(path);
    FILE *f = sb_is_file(path) ? fopen(path, "rb") : NULL;
    size_t n = f ? fread(head, 1, sizeof head, f) : 0;
    if (f)
        fclose(f);
    if (!f || (n == 4 && memcmp(head, "GGUF", 4) == 0))
        return false;
    bool named = false;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t suffix_n = strlen(suffixes[i]);
        named |= length > suffix_n && strcmp(path + length - suffix_n, suffixes[i]) == 0;
    }
    return named || begins_as_zip(head, n) || begins_as_pickle(head, n);
}

static enum sb_status check_kind(const uint8_t *bytes, size_t size, const char *path,
                                 struct sb_error *err)
{
    if (begins_as_zip(bytes, size))
        return SB_OK;
    if (begins_as_pickle(bytes, size))
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: is a bare pickle, as torch before 1.6 wrote; load and save it with a "
                       "newer torch, or convert it to safetensors",
                       path);
    return sb_fail(err, SB_EFORMAT, "%s: does not begin as a zip archive of torch.save", path);
}

/* The entry ROOT/data.pkl; ROOT is a folder of any name. */
static enum sb_status find_pickle(const struct sb_zip *zip, const struct sb_zip_entry **out,
                                  size_t *root_n, const char *path, struct sb_error *err)
{
    static const char file[] = "/data.pkl";
    const size_t file_n = sizeof file - 1;
    const struct sb_zip_entry *found = NULL;
    for (size_t i = 0; i < zip->n; i++) {
        const struct sb_zip_entry *e = &zip->entry[i];
        if (e->name_n <= file_n || memcmp(e->name + e->name_n - file_n, file, file_n) != 0 ||
            memchr(e->name, '/', e->name_n - file_n))
            continue;
        if (found)
            return sb_fail(err, SB_EFORMAT, "%s: holds both '%.*s' and '%.*s'; expected one", path,
                           (int)found->name_n, found->name, (int)e->name_n, e->name);
        found = e;
    }
    if (!found)
        return sb_fail(err, SB_EFORMAT, "%s: holds no FOLDER/data.pkl; is it from torch.save?",
                       path);
    *out = found;
    *root_n = found->name_n - (file_n - 1);
    return SB_OK;
}

/* The entry `name` in the folder that `in` (ROOT/data.pkl) is in. */
static const struct sb_zip_entry *beside(const struct sb_zip *zip, const struct sb_zip_entry *in,
                                         size_t root_n, const char *name, size_t name_n)
{
    char full[2 * MAX_NAME];
    if (root_n + name_n > sizeof full)
        return NULL;
    memcpy(full, in->name, root_n);
    memcpy(full + root_n, name, name_n);
    return sb_zip_find(zip, full, root_n + name_n);
}

static enum sb_status check_archive(const struct sb_zip *zip, const struct sb_zip_entry *pickle,
                                    size_t root_n, const char *path, struct sb_error *err)
{
    if (beside(zip, pickle, root_n, "constants.pkl", 13))
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: is a TorchScript program; expected a state_dict saved by torch.save",
                       path);
    const struct sb_zip_entry *order = beside(zip, pickle, root_n, "byteorder", 9);
    if (order && (order->size != 6 || memcmp(order->data, "little", 6) != 0))
        return sb_fail(err, SB_EUNSUPPORTED, "%s: its byteorder is '%.*s'; expected 'little'", path,
                       order->size < 16 ? (int)order->size : 16, (const char *)order->data);
    return SB_OK;
}

/* ---- one tensor ------------------------------------------------------------------------------------ */

static size_t read_sizes(const struct sb_pickle *p, sb_pickle_ref tuple, int64_t out[MAX_DIMS])
{
    const struct sb_pickle_items *items = &p->value[tuple].items;
    size_t n = 0;
    for (sb_pickle_ref l = items->first; l && n < MAX_DIMS; l = p->link[l].next)
        out[n++] = p->value[p->link[l].value].whole;
    return items->n;
}

/* Shape and strides: row-major without gaps. The stride of a dimension of 1 is never used. */
static enum sb_status read_shape(const struct collector *c, struct sb_stored_tensor *t,
                                 const struct sb_pickle_tensor *from)
{
    int64_t size[MAX_DIMS], stride[MAX_DIMS];
    size_t values = 1;
    t->n_dims = read_sizes(c->pickle, from->size, size);
    size_t n_strides = read_sizes(c->pickle, from->stride, stride);
    if (t->n_dims > MAX_DIMS || n_strides != t->n_dims)
        return sb_fail(
            c->err, SB_EFORMAT,
            "%s: tensor '%s' has %zu sizes and %zu strides; expected as many of both, at "
            "most %d",
            c->path, t->name, t->n_dims, n_strides, MAX_DIMS);
    for (size_t i = t->n_dims; i-- > 0;) {
        if (size[i] < 1 || size[i] > INT32_MAX)
            return sb_fail(c->err, SB_EFORMAT,
                           "%s: tensor '%s': size %zu of its shape is %lld; expected 1 to 2^31",
                           c->path, t->name, i, (long long)size[i]);
        if (size[i] != 1 && (stride[i] < 0 || (uint64_t)stride[i] != values))
            return sb_fail(
                c->err, SB_EUNSUPPORTED,
                "%s: tensor '%s': stride %zu is %lld; expected %zu, for tensors are read "
                "that are contiguous (save t.contiguous())",
                c->path, t->name, i, (long long)stride[i], values);
        t->dim[i] = (size_t)size[i];
        if (__builtin_mul_overflow(values, t->dim[i], &values))
            return sb_fail(c->err, SB_EFORMAT, "%s: tensor '%s' is larger than any file", c->path,
                           t->name);
    }
    if (__builtin_mul_overflow(values, sb_element_bytes(t->type), &t->size_bytes))
        return sb_fail(c->err, SB_EFORMAT, "%s: tensor '%s' is larger than any file", c->path,
                       t->name);
    return SB_OK;
}

/* The entry data/KEY holds the storage, all of it and nothing else. */
static enum sb_status find_storage(const struct collector *c, const struct sb_zip_entry **out,
                                   const struct sb_stored_tensor *t,
                                   const struct sb_pickle_storage *storage)
{
    const struct sb_pickle_text key = c->pickle->value[storage->key].text;
    char name[80];
    if (key.n > 64 || memchr(key.data, '\0', key.n))
        return sb_fail(c->err, SB_EFORMAT, "%s: tensor '%s': a storage's key is %zu bytes", c->path,
                       t->name, key.n);
    size_t n = (size_t)snprintf(name, sizeof name, "data/%.*s", (int)key.n, key.data);
    *out = beside(c->zip, c->data_pkl, c->root_n, name, n);
    if (!*out)
        return sb_fail(c->err, SB_EFORMAT, "%s: tensor '%s': its entry %s is missing", c->path,
                       t->name, name);
    size_t bytes = sb_element_bytes(t->type);
    if ((*out)->size / bytes != (uint64_t)storage->n || (*out)->size % bytes)
        return sb_fail(c->err, SB_EFORMAT,
                       "%s: tensor '%s': its entry %s has %zu bytes; expected %lld values of %zu",
                       c->path, t->name, name, (*out)->size, (long long)storage->n, bytes);
    return SB_OK;
}

static enum sb_status place_tensor(const struct collector *c, struct sb_stored_tensor *t,
                                   const struct sb_pickle_tensor *from)
{
    const struct sb_pickle_storage *storage = &c->pickle->value[from->storage].storage;
    const struct sb_zip_entry *entry = NULL;
    t->type = storage->type;
    enum sb_status rc = read_shape(c, t, from);
    if (rc == SB_OK)
        rc = find_storage(c, &entry, t, storage);
    if (rc != SB_OK)
        return rc;
    size_t bytes = sb_element_bytes(t->type);
    if (from->offset < 0 || (uint64_t)from->offset > entry->size / bytes ||
        t->size_bytes > entry->size - (size_t)from->offset * bytes)
        return sb_fail(c->err, SB_EFORMAT,
                       "%s: tensor '%s': %zu bytes from value %lld pass the end of its storage of "
                       "%lld values",
                       c->path, t->name, t->size_bytes, (long long)from->offset,
                       (long long)storage->n);
    t->data = entry->data + (size_t)from->offset * bytes;
    if ((uintptr_t)t->data % bytes)
        return sb_fail(c->err, SB_EFORMAT, "%s: tensor '%s' is not aligned", c->path, t->name);
    return SB_OK;
}

static enum sb_status add_tensor(struct collector *c, const struct sb_pickle_tensor *from)
{
    struct sb_torch_file *f = c->out;
    c->directory_bytes += sizeof *f->tensor + strlen(c->name) + 1;
    if (c->directory_bytes > MAX_DIRECTORY)
        return sb_fail(c->err, SB_EFORMAT,
                       "%s: its %zu tensors and their names take more than %d bytes", c->path,
                       f->n + 1, MAX_DIRECTORY);
    if (sb_grow((void **)&f->tensor, &c->cap, f->n + 1, sizeof *f->tensor))
        return sb_fail(c->err, SB_ENOMEM, "%s: out of memory for %zu tensors", c->path, f->n + 1);
    struct sb_stored_tensor *t = &f->tensor[f->n];
    *t = (struct sb_stored_tensor){ .name = sb_strdup(c->name) };
    if (!t->name)
        return sb_fail(c->err, SB_ENOMEM, "%s: out of memory", c->path);
    f->n++;
    return place_tensor(c, t, from);
}

/* ---- the dictionaries ------------------------------------------------------------------------------ */

/* Append a key to the name in hand, after a dot; *n is the name's length. */
static enum sb_status extend_name(struct collector *c, const struct sb_pickle_value *key, size_t *n)
{
    char number[24];
    struct sb_pickle_text text = key->text;
    if (key->kind == SB_PICKLE_INT) {
        text.n = (size_t)snprintf(number, sizeof number, "%lld", (long long)key->whole);
        text.data = number;
    } else if (key->kind != SB_PICKLE_TEXT) {
        return sb_fail(c->err, SB_EFORMAT, "%s: a key in '%s' is %s; expected text or a number",
                       c->path, c->name, sb_pickle_kind_name(key->kind));
    }
    size_t dot = *n ? 1 : 0;
    if (text.n > MAX_NAME - dot - *n)
        return sb_fail(c->err, SB_EFORMAT,
                       "%s: a tensor's name is %zu bytes after '%.40s'; expected at most %d in all",
                       c->path, text.n, c->name, MAX_NAME);
    if (memchr(text.data, '\0', text.n) || !sb_utf8_is_valid(text.data, text.n))
        return sb_fail(c->err, SB_EFORMAT, "%s: a key in '%s' is no UTF-8", c->path, c->name);
    if (dot)
        c->name[(*n)++] = '.';
    memcpy(c->name + *n, text.data, text.n);
    *n += text.n;
    c->name[*n] = '\0';
    return SB_OK;
}

/* Tensors of the dictionary `ref`, whose name is the first name_n bytes of the name in hand. */
static enum sb_status collect(struct collector *c, sb_pickle_ref ref, size_t name_n, int depth)
{
    struct sb_pickle_value *dict = &c->pickle->value[ref];
    enum sb_status rc = SB_OK;
    if (depth > MAX_NESTING)
        return sb_fail(c->err, SB_EFORMAT, "%s: dictionaries are nested deeper than %d at '%.80s'",
                       c->path, MAX_NESTING, c->name);
    if (dict->seen)
        return sb_fail(c->err, SB_EFORMAT, "%s: the dictionary at '%.80s' stands in two places",
                       c->path, c->name);
    dict->seen = 1;
    for (sb_pickle_ref l = dict->items.first; l && rc == SB_OK; l = c->pickle->link[l].next) {
        const struct sb_pickle_link *item = &c->pickle->link[l];
        const struct sb_pickle_value *value = &c->pickle->value[item->value];
        size_t n = name_n;
        c->name[n] = '\0';
        if (value->kind != SB_PICKLE_DICT && value->kind != SB_PICKLE_TENSOR) {
            c->out->n_other++;
            continue;
        }
        rc = extend_name(c, &c->pickle->value[item->key], &n);
        if (rc == SB_OK && value->kind == SB_PICKLE_DICT)
            rc = collect(c, item->value, n, depth + 1);
        else if (rc == SB_OK)
            rc = add_tensor(c, &value->tensor);
    }
    return rc;
}

static enum sb_status collect_all(struct collector *c)
{
    const struct sb_pickle_value *root = &c->pickle->value[c->pickle->result];
    if (root->kind != SB_PICKLE_DICT)
        return sb_fail(c->err, SB_EFORMAT, "%s: holds %s; expected a dictionary of tensors",
                       c->path, sb_pickle_kind_name(root->kind));
    enum sb_status rc = collect(c, c->pickle->result, 0, 1);
    if (rc != SB_OK)
        return rc;
    struct sb_torch_file *f = c->out;
    if (f->n == 0)
        return sb_fail(c->err, SB_EINPUT, "%s: holds no tensors; %zu other values", c->path,
                       f->n_other);
    sb_stored_sort(f->tensor, f->n);
    for (size_t i = 1; i < f->n; i++)
        if (strcmp(f->tensor[i - 1].name, f->tensor[i].name) == 0)
            return sb_fail(c->err, SB_EFORMAT, "%s: tensor '%s' stands twice", c->path,
                           f->tensor[i].name);
    return SB_OK;
}

/* ---- the file -------------------------------------------------------------------------------------- */

static enum sb_status read_archive(struct sb_torch_file *out, const struct sb_zip *zip,
                                   const char *path, struct sb_error *err)
{
    const struct sb_zip_entry *entry = NULL;
    struct sb_pickle pickle;
    size_t root_n = 0;
    char label[512];
    enum sb_status rc = find_pickle(zip, &entry, &root_n, path, err);
    if (rc == SB_OK)
        rc = check_archive(zip, entry, root_n, path, err);
    if (rc != SB_OK)
        return rc;
    snprintf(label, sizeof label, "%s: data.pkl", path);
    rc = sb_pickle_parse(&pickle, entry->data, entry->size, label, err);
    if (rc != SB_OK)
        return rc;
    struct collector *c = sb_alloc_zero(1, sizeof *c);
    if (c) {
        *c = (struct collector){ .zip = zip,
                                 .pickle = &pickle,
                                 .path = path,
                                 .data_pkl = entry,
                                 .root_n = root_n,
                                 .out = out,
                                 .err = err };
        rc = collect_all(c);
    } else {
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    }
    sb_free(c);
    sb_pickle_close(&pickle);
    return rc;
}

enum sb_status sb_torch_parse(struct sb_torch_file *out, const uint8_t *bytes, size_t size,
                              const char *name, struct sb_error *err)
{
    struct sb_torch_file f = { 0 };
    struct sb_zip zip = { 0 };
    enum sb_status rc = check_kind(bytes, size, name, err);
    if (rc == SB_OK)
        rc = sb_zip_parse(&zip, bytes, size, name, err);
    if (rc == SB_OK)
        rc = read_archive(&f, &zip, name, err);
    sb_zip_close(&zip);
    if (rc == SB_OK)
        *out = f;
    else
        sb_torch_close(&f);
    return rc;
}

enum sb_status sb_torch_open(struct sb_torch_file *out, const char *path, struct sb_error *err)
{
    struct sb_mapping map;
    enum sb_status rc = sb_mapping_open(&map, path, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_torch_parse(out, map.bytes, map.size, path, err);
    if (rc == SB_OK)
        out->map = map;
    else
        sb_mapping_close(&map);
    return rc;
}

void sb_torch_close(struct sb_torch_file *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->n; i++)
        sb_free(file->tensor[i].name);
    sb_free(file->tensor);
    sb_mapping_close(&file->map);
    *file = (struct sb_torch_file){ 0 };
}

const struct sb_stored_tensor *sb_torch_find(const struct sb_torch_file *file, const char *name)
{
    return sb_stored_find(file->tensor, file->n, name);
}

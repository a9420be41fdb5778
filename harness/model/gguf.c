/* GGUF: a reader that trusts nothing. Every count is checked against the bytes that are left before
 * anything is allocated for it. */
#include "harness/model/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

#include "harness/core/alloc.h"
#include "harness/model/mapping.h"

enum { MAX_DIMS = 4, DEFAULT_ALIGNMENT = 32, MIN_VALUE_BYTES = 13, MIN_TENSOR_BYTES = 24 };

static const size_t type_bytes[SB_GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8 };

const char *sb_gguf_type_name(enum sb_gguf_type type)
{
    static const char *const names[] = { "u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                         "bool", "string", "array", "u64", "i64", "f64" };
    return type < SB_GGUF_TYPE_COUNT ? names[type] : "unknown";
}

/* Types of tensors that exist elsewhere, to refuse them by name. */
static const char *const tensor_type_names[] = {
    "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
    "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
    "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",
};

/* ---- reading under a limit ------------------------------------------------------------------------ */

struct reader {
    const uint8_t *at, *end;
    const char *name;
    struct sb_error *err;
};

static size_t left(const struct reader *r)
{
    return (size_t)(r->end - r->at);
}

static enum sb_status ends(const struct reader *r, const char *what)
{
    return sb_fail(r->err, SB_EFORMAT, "%s: the file ends inside %s", r->name, what);
}

static enum sb_status read_u32(struct reader *r, uint32_t *out, const char *what)
{
    if (left(r) < 4)
        return ends(r, what);
    memcpy(out, r->at, 4);
    r->at += 4;
    return SB_OK;
}

static enum sb_status read_u64(struct reader *r, uint64_t *out, const char *what)
{
    if (left(r) < 8)
        return ends(r, what);
    memcpy(out, r->at, 8);
    r->at += 8;
    return SB_OK;
}

static enum sb_status read_text(struct reader *r, struct sb_text *out, const char *what)
{
    uint64_t n;
    enum sb_status rc = read_u64(r, &n, what);
    if (rc != SB_OK)
        return rc;
    if (n > left(r))
        return sb_fail(r->err, SB_EFORMAT, "%s: %s is %" PRIu64 " bytes long, %zu are left",
                       r->name, what, n, left(r));
    *out = (struct sb_text){ (const char *)r->at, (size_t)n };
    r->at += n;
    return SB_OK;
}

static bool is_utf8(struct sb_text text)
{
    for (size_t i = 0; i < text.n;) {
        utf8proc_int32_t code;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text.data + i,
                                              (utf8proc_ssize_t)(text.n - i), &code);
        if (n < 1)
            return false;
        i += (size_t)n;
    }
    return true;
}

static bool same(struct sb_text a, const char *b)
{
    return a.n == strlen(b) && memcmp(a.data, b, a.n) == 0;
}

/* ---- metadata --------------------------------------------------------------------------------------- */

static enum sb_status read_strings(struct reader *r, struct sb_gguf_value *v, const char *what)
{
    if (v->n > left(r) / 8)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: %s has %" PRIu64 " strings, more than the file can hold", r->name, what,
                       v->n);
    v->string = sb_alloc_array((size_t)v->n, sizeof *v->string);
    if (!v->string)
        return sb_fail(r->err, SB_ENOMEM, "%s: out of memory for %s", r->name, what);
    for (uint64_t i = 0; i < v->n; i++) {
        struct sb_text text;
        v->string[i] = r->at;
        enum sb_status rc = read_text(r, &text, what);
        if (rc != SB_OK)
            return rc;
    }
    return SB_OK;
}

static enum sb_status read_array(struct reader *r, struct sb_gguf_value *v, const char *what)
{
    uint32_t item;
    enum sb_status rc = read_u32(r, &item, what);
    if (rc == SB_OK)
        rc = read_u64(r, &v->n, what);
    if (rc != SB_OK)
        return rc;
    if (item >= SB_GGUF_TYPE_COUNT || item == SB_GGUF_ARRAY)
        return sb_fail(r->err, SB_EFORMAT, "%s: %s is an array of %s (type %u)", r->name, what,
                       sb_gguf_type_name((enum sb_gguf_type)item), item);
    v->item = (enum sb_gguf_type)item;
    v->data = r->at;
    if (item == SB_GGUF_STRING)
        return read_strings(r, v, what);
    if (v->n > left(r) / type_bytes[item])
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: %s has %" PRIu64 " items, more than the file can hold", r->name, what,
                       v->n);
    r->at += v->n * type_bytes[item];
    return SB_OK;
}

static enum sb_status read_value(struct reader *r, struct sb_gguf_value *v)
{
    char what[128];
    uint32_t type;
    enum sb_status rc = read_text(r, &v->key, "a metadata key");
    if (rc != SB_OK)
        return rc;
    if (!is_utf8(v->key))
        return sb_fail(r->err, SB_EFORMAT, "%s: a metadata key is no UTF-8", r->name);
    if (v->key.n == 0 || v->key.n > 65535)
        return sb_fail(r->err, SB_EFORMAT, "%s: a metadata key of %zu bytes", r->name, v->key.n);
    snprintf(what, sizeof what, "'%.*s'", (int)(v->key.n < 100 ? v->key.n : 100), v->key.data);
    rc = read_u32(r, &type, what);
    if (rc != SB_OK)
        return rc;
    if (type >= SB_GGUF_TYPE_COUNT)
        return sb_fail(r->err, SB_EFORMAT, "%s: %s has the unknown type %u", r->name, what, type);
    v->type = v->item = (enum sb_gguf_type)type;
    v->n = 1;
    v->data = r->at;
    if (type == SB_GGUF_ARRAY)
        return read_array(r, v, what);
    if (type == SB_GGUF_STRING) {
        struct sb_text text;
        return read_text(r, &text, what);
    }
    if (left(r) < type_bytes[type])
        return ends(r, what);
    r->at += type_bytes[type];
    return SB_OK;
}

/* ---- the tensor directory ----------------------------------------------------------------------------- */

static const struct {
    uint32_t code;
    enum sb_dtype type;
} dtypes[] = { { 0, SB_F32 }, { 1, SB_F16 }, { 2, SB_Q4_0 }, { 8, SB_Q8_0 }, { 30, SB_BF16 } };

static bool find_dtype(uint32_t code, enum sb_dtype *type)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        if (dtypes[i].code == code) {
            *type = dtypes[i].type;
            return true;
        }
    }
    return false;
}

static enum sb_status check_size(struct reader *r, struct sb_gguf_tensor *t, const char *what)
{
    uint64_t rows = 1, bytes;
    for (size_t i = 0; i < t->n_dims; i++)
        if (t->dim[i] == 0 || t->dim[i] > INT32_MAX)
            return sb_fail(r->err, SB_EFORMAT, "%s: %s has a dimension of %" PRIu64, r->name, what,
                           t->dim[i]);
    size_t row_bytes = sb_dtype_row_bytes(t->type, (size_t)t->dim[0]);
    if (row_bytes == 0)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: %s has rows of %" PRIu64 " values; %s needs a multiple "
                       "of %d",
                       r->name, what, t->dim[0], sb_dtype_name(t->type), SB_QUANT_BLOCK);
    for (size_t i = 1; i < t->n_dims; i++)
        if (__builtin_mul_overflow(rows, t->dim[i], &rows))
            rows = UINT64_MAX;
    if (__builtin_mul_overflow(rows, (uint64_t)row_bytes, &bytes) || bytes > SIZE_MAX / 2)
        return sb_fail(r->err, SB_EFORMAT, "%s: %s is larger than any file", r->name, what);
    t->size_bytes = (size_t)bytes;
    return SB_OK;
}

/* One entry; *offset counts from the start of the data section. */
static enum sb_status read_tensor(struct reader *r, struct sb_gguf_tensor *t, uint64_t *offset)
{
    char what[160];
    uint32_t n_dims = 0, code = 0;
    enum sb_status rc = read_text(r, &t->name, "a tensor's name");
    if (rc != SB_OK)
        return rc;
    if (!is_utf8(t->name))
        return sb_fail(r->err, SB_EFORMAT, "%s: a tensor's name is no UTF-8", r->name);
    snprintf(what, sizeof what, "tensor '%.*s'", (int)(t->name.n < 100 ? t->name.n : 100),
             t->name.data);
    rc = read_u32(r, &n_dims, what);
    if (rc == SB_OK && (n_dims < 1 || n_dims > MAX_DIMS))
        return sb_fail(r->err, SB_EFORMAT, "%s: %s has %u dimensions; expected 1 to %d", r->name,
                       what, n_dims, MAX_DIMS);
    t->n_dims = n_dims;
    for (size_t i = 0; i < MAX_DIMS; i++)
        t->dim[i] = 1;
    for (size_t i = 0; i < t->n_dims && rc == SB_OK; i++)
        rc = read_u64(r, &t->dim[i], what);
    if (rc == SB_OK)
        rc = read_u32(r, &code, what);
    if (rc == SB_OK)
        rc = read_u64(r, offset, what);
    if (rc != SB_OK)
        return rc;
    if (!find_dtype(code, &t->type)) {
        size_t known = sizeof tensor_type_names / sizeof *tensor_type_names;
        return sb_fail(r->err, SB_EUNSUPPORTED,
                       "%s: %s has type %s (%u); specbench reads F32, F16, BF16, Q8_0, Q4_0",
                       r->name, what, code < known ? tensor_type_names[code] : "unknown", code);
    }
    return check_size(r, t, what);
}

static int compare_texts(struct sb_text a, struct sb_text b)
{
    int order = memcmp(a.data, b.data, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int by_key(const void *a, const void *b)
{
    return compare_texts((*(struct sb_gguf_value *const *)a)->key,
                         (*(struct sb_gguf_value *const *)b)->key);
}

static int by_name(const void *a, const void *b)
{
    return compare_texts((*(struct sb_gguf_tensor *const *)a)->name,
                         (*(struct sb_gguf_tensor *const *)b)->name);
}

static int by_data(const void *a, const void *b)
{
    const struct sb_gguf_tensor *x = *(struct sb_gguf_tensor *const *)a,
                                *y = *(struct sb_gguf_tensor *const *)b;
    return (x->data > y->data) - (x->data < y->data);
}

/* Sorted pointers, so that finding is quick and repeated names stand side by side. */
static enum sb_status make_indices(struct sb_gguf *g, const char *name, struct sb_error *err)
{
    g->by_key = sb_alloc_array(g->n_values, sizeof *g->by_key);
    g->by_name = sb_alloc_array(g->n_tensors, sizeof *g->by_name);
    if (!g->by_key || !g->by_name)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for its directory", name);
    for (size_t i = 0; i < g->n_values; i++)
        g->by_key[i] = &g->value[i];
    for (size_t i = 0; i < g->n_tensors; i++)
        g->by_name[i] = &g->tensor[i];
    qsort(g->by_key, g->n_values, sizeof *g->by_key, by_key);
    for (size_t i = 1; i < g->n_values; i++)
        if (by_key(&g->by_key[i - 1], &g->by_key[i]) == 0)
            return sb_fail(err, SB_EFORMAT, "%s: the key '%.*s' stands twice", name,
                           (int)g->by_key[i]->key.n, g->by_key[i]->key.data);
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, by_data);
    for (size_t i = 1; i < g->n_tensors; i++) {
        const struct sb_gguf_tensor *a = g->by_name[i - 1], *b = g->by_name[i];
        if ((const uint8_t *)a->data + a->size_bytes > (const uint8_t *)b->data)
            return sb_fail(err, SB_EFORMAT, "%s: tensors '%.*s' and '%.*s' overlap", name,
                           (int)a->name.n, a->name.data, (int)b->name.n, b->name.data);
    }
    qsort(g->by_name, g->n_tensors, sizeof *g->by_name, by_name);
    for (size_t i = 1; i < g->n_tensors; i++)
        if (by_name(&g->by_name[i - 1], &g->by_name[i]) == 0)
            return sb_fail(err, SB_EFORMAT, "%s: tensor '%.*s' stands twice", name,
                           (int)g->by_name[i]->name.n, g->by_name[i]->name.data);
    return SB_OK;
}

/* ---- the file -------------------------------------------------------------------------------------------- */

static enum sb_status read_header(struct reader *r, struct sb_gguf *g)
{
    uint64_t n_tensors, n_values;
    if (left(r) < 4 || memcmp(r->at, "GGUF", 4) != 0)
        return sb_fail(r->err, SB_EFORMAT, "%s: is no GGUF file (it does not begin with 'GGUF')",
                       r->name);
    r->at += 4;
    enum sb_status rc = read_u32(r, &g->version, "its header");
    if (rc != SB_OK)
        return rc;
    if (g->version == 0x02000000 || g->version == 0x03000000)
        return sb_fail(r->err, SB_EUNSUPPORTED, "%s: is a big-endian GGUF file", r->name);
    if (g->version != 2 && g->version != 3)
        return sb_fail(r->err, SB_EUNSUPPORTED, "%s: GGUF version %u; specbench reads 2 and 3",
                       r->name, g->version);
    rc = read_u64(r, &n_tensors, "its header");
    if (rc == SB_OK)
        rc = read_u64(r, &n_values, "its header");
    if (rc != SB_OK)
        return rc;
    if (n_values > left(r) / MIN_VALUE_BYTES || n_tensors > left(r) / MIN_TENSOR_BYTES)
        return sb_fail(r->err, SB_EFORMAT,
                       "%s: %" PRIu64 " keys and %" PRIu64 " tensors, more than its "
                       "%zu bytes can hold",
                       r->name, n_values, n_tensors, g->size);
    g->value = sb_alloc_zero((size_t)n_values, sizeof *g->value);
    g->tensor = sb_alloc_zero((size_t)n_tensors, sizeof *g->tensor);
    if (!g->value || !g->tensor)
        return sb_fail(r->err, SB_ENOMEM, "%s: out of memory for its directory", r->name);
    g->n_values = (size_t)n_values;
    g->n_tensors = (size_t)n_tensors;
    return SB_OK;
}

static enum sb_status place_tensors(struct reader *r, struct sb_gguf *g, const uint64_t *offset)
{
    int64_t alignment = DEFAULT_ALIGNMENT;
    for (size_t i = 0; i < g->n_values; i++)
        if (same(g->value[i].key, "general.alignment") &&
            (!sb_gguf_item_int(&g->value[i], 0, &alignment) || alignment < 1 ||
             alignment > 1 << 20 || (alignment & (alignment - 1))))
            return sb_fail(r->err, SB_EFORMAT, "%s: general.alignment is no power of two", r->name);
    size_t start = (size_t)(r->at - g->bytes);
    start = (start + (size_t)alignment - 1) / (size_t)alignment * (size_t)alignment;
    for (size_t i = 0; i < g->n_tensors; i++) {
        struct sb_gguf_tensor *t = &g->tensor[i];
        if (offset[i] % (uint64_t)alignment)
            return sb_fail(r->err, SB_EFORMAT,
                           "%s: tensor '%.*s' begins at %" PRIu64 ", no multiple of "
                           "%" PRId64,
                           r->name, (int)t->name.n, t->name.data, offset[i], alignment);
        if (start > g->size || offset[i] > g->size - start ||
            t->size_bytes > g->size - start - offset[i])
            return sb_fail(r->err, SB_EFORMAT,
                           "%s: tensor '%.*s' (%zu bytes at %" PRIu64 ") passes the "
                           "end of the file of %zu bytes",
                           r->name, (int)t->name.n, t->name.data, t->size_bytes, offset[i],
                           g->size);
        t->data = g->bytes + start + offset[i];
    }
    return SB_OK;
}

enum sb_status sb_gguf_parse(struct sb_gguf *out, const uint8_t *bytes, size_t size,
                             const char *name, struct sb_error *err)
{
    struct sb_gguf g = { .bytes = bytes, .size = size };
    struct reader r = { bytes, bytes + size, name, err };
    uint64_t *offset = NULL;
    enum sb_status rc = read_header(&r, &g);
    for (size_t i = 0; i < g.n_values && rc == SB_OK; i++)
        rc = read_value(&r, &g.value[i]);
    if (rc == SB_OK && !(offset = sb_alloc_array(g.n_tensors, sizeof *offset)))
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory for its directory", name);
    for (size_t i = 0; i < g.n_tensors && rc == SB_OK; i++)
        rc = read_tensor(&r, &g.tensor[i], &offset[i]);
    if (rc == SB_OK)
        rc = place_tensors(&r, &g, offset);
    if (rc == SB_OK)
        rc = make_indices(&g, name, err);
    sb_free(offset);
    if (rc == SB_OK)
        *out = g;
    else
        sb_gguf_close(&g);
    return rc;
}

enum sb_status sb_gguf_open(struct sb_gguf *out, const char *path, struct sb_error *err)
{
    struct sb_mapping map;
    enum sb_status rc = sb_mapping_open(&map, path, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_gguf_parse(out, map.bytes, map.size, path, err);
    if (rc == SB_OK)
        out->mapped = true;
    else
        sb_mapping_close(&map);
    return rc;
}

void sb_gguf_close(struct sb_gguf *g)
{
    if (!g)
        return;
    for (size_t i = 0; i < g->n_values; i++)
        sb_free(g->value[i].string);
    sb_free(g->value);
    sb_free(g->tensor);
    sb_free(g->by_key);
    sb_free(g->by_name);
    if (g->mapped)
        sb_mapping_close(&(struct sb_mapping){ g->bytes, g->size });
    *g = (struct sb_gguf){ 0 };
}

/* ---- looking things up -------------------------------------------------------------------------------------- */

const struct sb_gguf_value *sb_gguf_find(const struct sb_gguf *g, const char *key)
{
    const struct sb_gguf_value wanted = { .key = { key, strlen(key) } }, *probe = &wanted;
    struct sb_gguf_value **found =
        bsearch(&probe, g->by_key, g->n_values, sizeof *g->by_key, by_key);
    return found ? *found : NULL;
}

const struct sb_gguf_tensor *sb_gguf_tensor(const struct sb_gguf *g, const char *name)
{
    const struct sb_gguf_tensor wanted = { .name = { name, strlen(name) } }, *probe = &wanted;
    struct sb_gguf_tensor **found =
        bsearch(&probe, g->by_name, g->n_tensors, sizeof *g->by_name, by_name);
    return found ? *found : NULL;
}

bool sb_gguf_item_int(const struct sb_gguf_value *v, uint64_t i, int64_t *out)
{
    const uint8_t *p = v->data + i * type_bytes[v->item];
    uint64_t bits = 0;
    if (i >= v->n || v->item == SB_GGUF_F32 || v->item == SB_GGUF_F64 ||
        v->item == SB_GGUF_STRING || v->item == SB_GGUF_BOOL)
        return false;
    memcpy(&bits, p, type_bytes[v->item]); /* little-endian machines only, as the file */
    switch (v->item) {
    case SB_GGUF_I8:
        *out = (int8_t)bits;
        break;
    case SB_GGUF_I16:
        *out = (int16_t)bits;
        break;
    case SB_GGUF_I32:
        *out = (int32_t)bits;
        break;
    default:
        if (v->item == SB_GGUF_U64 && bits > INT64_MAX)
            return false;
        *out = (int64_t)bits;
    }
    return true;
}

bool sb_gguf_item_number(const struct sb_gguf_value *v, uint64_t i, double *out)
{
    int64_t whole;
    if (i < v->n && v->item == SB_GGUF_F32) {
        float x;
        memcpy(&x, v->data + i * 4, 4);
        *out = (double)x;
        return true;
    }
    if (i < v->n && v->item == SB_GGUF_F64) {
        memcpy(out, v->data + i * 8, 8);
        return true;
    }
    if (!sb_gguf_item_int(v, i, &whole))
        return false;
    *out = (double)whole;
    return true;
}

bool sb_gguf_item_text(const struct sb_gguf_value *v, uint64_t i, struct sb_text *out)
{
    if (v->item != SB_GGUF_STRING || i >= v->n)
        return false;
    const uint8_t *p = v->type == SB_GGUF_ARRAY ? v->string[i] : v->data;
    uint64_t n;
    memcpy(&n, p, 8);
    *out = (struct sb_text){ (const char *)p + 8, (size_t)n };
    return true;
}

static const struct sb_gguf_value *find_plain(const struct sb_gguf *g, const char *key)
{
    const struct sb_gguf_value *v = sb_gguf_find(g, key);
    return v && v->type != SB_GGUF_ARRAY ? v : NULL;
}

bool sb_gguf_int(const struct sb_gguf *g, const char *key, int64_t *out)
{
    const struct sb_gguf_value *v = find_plain(g, key);
    return v && sb_gguf_item_int(v, 0, out);
}

bool sb_gguf_number(const struct sb_gguf *g, const char *key, double *out)
{
    const struct sb_gguf_value *v = find_plain(g, key);
    return v && sb_gguf_item_number(v, 0, out);
}

bool sb_gguf_bool(const struct sb_gguf *g, const char *key, bool *out)
{
    const struct sb_gguf_value *v = find_plain(g, key);
    if (!v || v->type != SB_GGUF_BOOL)
        return false;
    *out = v->data[0] != 0;
    return true;
}

bool sb_gguf_text(const struct sb_gguf *g, const char *key, struct sb_text *out)
{
    const struct sb_gguf_value *v = find_plain(g, key);
    return v && sb_gguf_item_text(v, 0, out);
}

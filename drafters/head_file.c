#include "drafters/head_file.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/model/bundled.h"
#include "harness/model/loaders.h"

/* ---- files ---- */

static bool ends_in(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

/* What a training run leaves beside a checkpoint. */
static bool is_left_over(const char *name)
{
    static const char *const begins[] = { "training_args", "optimizer", "scheduler", "rng_state" };
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncmp(name, begins[i], strlen(begins[i])) == 0)
            return true;
    return false;
}

static int is_safetensors(const struct dirent *e)
{
    return ends_in(e->d_name, ".safetensors");
}

static int is_torch(const struct dirent *e)
{
    const char *name = e->d_name;
    return (ends_in(name, ".bin") || ends_in(name, ".pt") || ends_in(name, ".pth")) &&
           !is_left_over(name);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

static enum sb_status open_file(struct sb_head_file *h, const char *path, bool torch,
                                struct sb_error *err)
{
    if (h->n_st + h->n_torch == SB_HEAD_FILES)
        return sb_fail(err, SB_EFORMAT, "%s: more than %d files of tensors", h->path,
                       SB_HEAD_FILES);
    enum sb_status rc = torch ? sb_torch_open(&h->torch[h->n_torch], path, err)
                              : sb_st_open(&h->st[h->n_st], path, err);
    if (rc == SB_OK)
        *(torch ? &h->n_torch : &h->n_st) += 1;
    return rc == SB_OK ? sb_drafter_uses(h->env, path, err) : rc;
}

static enum sb_status open_listed(struct sb_head_file *h, struct dirent **entry, int n, bool torch,
                                  struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (int i = 0; i < n && rc == SB_OK; i++) {
        char *path = sb_strf("%s/%s", h->path, entry[i]->d_name);
        rc = path ? open_file(h, path, torch, err)
                  : sb_fail(err, SB_ENOMEM, "%s: out of memory", h->path);
        sb_free(path);
    }
    return rc;
}

static enum sb_status open_directory(struct sb_head_file *h, struct sb_error *err)
{
    struct dirent **entry = NULL;
    bool torch = false;
    int n = scandir(h->path, &entry, is_safetensors, by_name);
    if (n == 0) {
        free(entry);
        entry = NULL;
        torch = true;
        n = scandir(h->path, &entry, is_torch, by_name);
    }
    enum sb_status rc =
        n > 0 ? open_listed(h, entry, n, torch, err)
              : sb_fail(err, SB_EINPUT,
                        "%s: holds no tensors; expected *.safetensors, *.bin or *.pt", h->path);
    for (int i = 0; i < n; i++)
        free(entry[i]);
    free(entry);
    return rc;
}

/* config.json in the directory, or beside the file. */
static enum sb_status open_config(struct sb_head_file *h, bool directory, struct sb_error *err)
{
    const char *slash = strrchr(h->path, '/');
    int n = directory ? (int)strlen(h->path) : slash ? (int)(slash - h->path) : 0;
    char *path = n > 0   ? sb_strf("%.*s/config.json", n, h->path)
                 : slash ? sb_strdup("/config.json")
                         : sb_strdup("config.json");
    enum sb_status rc = path ? SB_OK : sb_fail(err, SB_ENOMEM, "%s: out of memory", h->path);
    if (rc == SB_OK && sb_is_file(path))
        rc = sb_json_open(&h->config, path, err);
    if (rc == SB_OK && h->config && !json_is_object(h->config))
        rc = sb_fail(err, SB_EFORMAT, "%s: is no JSON object", path);
    if (rc == SB_OK && h->config)
        rc = sb_drafter_uses(h->env, path, err);
    sb_free(path);
    return rc;
}

/* The files at h->path. */
static enum sb_status open_path(struct sb_head_file *h, struct sb_error *err)
{
    bool directory = sb_is_dir(h->path);
    h->prefix = "";
    h->st = sb_alloc_zero(SB_HEAD_FILES, sizeof *h->st);
    h->torch = sb_alloc_zero(SB_HEAD_FILES, sizeof *h->torch);
    if (!h->st || !h->torch)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", h->path);
    enum sb_status rc =
        directory ? open_directory(h, err) : open_file(h, h->path, sb_torch_is_file(h->path), err);
    return rc == SB_OK ? open_config(h, directory, err) : rc;
}

void sb_head_close(struct sb_head_file *h)
{
    for (size_t i = 0; i < h->n_st; i++)
        sb_st_close(&h->st[i]);
    for (size_t i = 0; i < h->n_torch; i++)
        sb_torch_close(&h->torch[i]);
    sb_free(h->st);
    sb_free(h->torch);
    sb_free(h->path);
    json_decref(h->config);
    *h = (struct sb_head_file){ 0 };
}

/* ---- the target ---- */

static const char *metadata(const struct sb_head_file *h, const char *key)
{
    const char *value = NULL;
    for (size_t i = 0; i < h->n_st && !value; i++)
        value = sb_st_meta(&h->st[i], key);
    return value;
}

enum { HASH_TEXT = 17 };

static void target_hash(char text[HASH_TEXT], const struct sb_model *target)
{
    snprintf(text, HASH_TEXT, "%016" PRIx64, sb_model_weights(target)->content_hash);
}

static enum sb_status check_target(const struct sb_head_file *h, const struct sb_model *target,
                                   struct sb_error *err)
{
    char have[HASH_TEXT];
    const char *want = metadata(h, "specbench.target_hash");
    target_hash(have, target);
    if (!want || strcmp(want, have) == 0)
        return SB_OK;
    return sb_fail(err, SB_EUSAGE,
                   "%s: was made for the target with hash %s; this target's is %s (specbench list "
                   "models): name another head",
                   h->path, want, have);
}

/* The bundled head made for a target. */
struct search {
    char want[HASH_TEXT];
    char *path;
};

static bool is_made_for(void *self, const char *name, const char *path)
{
    struct search *search = self;
    struct sb_head_file h = { .path = sb_strdup(path) };
    if (h.path && open_path(&h, NULL) == SB_OK) {
        const char *hash = metadata(&h, "specbench.target_hash");
        if (hash && strcmp(hash, search->want) == 0)
            search->path = sb_strdup(path);
    }
    sb_head_close(&h);
    return !search->path;
}

static enum sb_status find_bundled(char **path, const struct sb_head_request *r,
                                   struct sb_error *err)
{
    struct search search = { .path = NULL };
    char suffix[64];
    snprintf(suffix, sizeof suffix, "-%s", r->family ? r->family : r->drafter);
    target_hash(search.want, r->target);
    sb_bundled_each(suffix, is_made_for, &search);
    if (!search.path)
        return sb_fail(err, SB_EUSAGE,
                       "drafter %s needs head=...: no bundled head models/*%s was made for this "
                       "target (hash %s)",
                       r->drafter, suffix, search.want);
    *path = search.path;
    return SB_OK;
}

enum sb_status sb_head_need_target(const char *drafter, const struct sb_model *target,
                                   struct sb_error *err)
{
    return target ? SB_OK
                  : sb_fail(err, SB_EUSAGE,
                            "drafter %s reads the target's hidden states, which a recording does "
                            "not have; use specbench run",
                            drafter);
}

enum sb_status sb_head_open(struct sb_head_file *out, const struct sb_head_request *request,
                            struct sb_error *err)
{
    struct sb_head_file h = { .drafter = request->drafter, .env = request->env };
    enum sb_status rc = sb_head_need_target(request->drafter, request->target, err);
    if (rc != SB_OK)
        return rc;
    rc = request->name ? sb_bundled_resolve(&h.path, "draft head", request->name, err)
                       : find_bundled(&h.path, request, err);
    if (rc == SB_OK)
        rc = open_path(&h, err);
    if (rc == SB_OK)
        rc = check_target(&h, request->target, err);
    h.env = NULL;
    h.f32_weights = sb_model_arithmetic(request->target)->f32_weights;
    if (rc == SB_OK)
        *out = h;
    else
        sb_head_close(&h);
    return rc;
}

/* ---- tensors ---- */

static const struct sb_stored_tensor *find(const struct sb_head_file *h, const char *name)
{
    const struct sb_stored_tensor *t = NULL;
    for (size_t i = 0; i < h->n_st && !t; i++)
        t = sb_st_find(&h->st[i], name);
    for (size_t i = 0; i < h->n_torch && !t; i++)
        t = sb_torch_find(&h->torch[i], name);
    return t;
}

/* The whole name, the prefix included. */
static void write_name(char name[SB_HEAD_NAME], const struct sb_head_file *h, const char *fmt,
                       va_list args)
{
    int n = snprintf(name, SB_HEAD_NAME, "%s", h->prefix);
    if (n < SB_HEAD_NAME)
        vsnprintf(name + n, (size_t)(SB_HEAD_NAME - n), fmt, args);
}

#define NAME_FROM(fmt)                 \
    char name[SB_HEAD_NAME];           \
    va_list args;                      \
    va_start(args, fmt);               \
    write_name(name, head, fmt, args); \
    va_end(args)

const struct sb_stored_tensor *sb_head_find(const struct sb_head_file *head, const char *fmt, ...)
{
    NAME_FROM(fmt);
    return find(head, name);
}

size_t sb_head_rows(const struct sb_head_file *head, const char *fmt, ...)
{
    NAME_FROM(fmt);
    const struct sb_stored_tensor *t = find(head, name);
    return t && t->n_dims == 2 ? t->dim[0] : 0;
}

/* One past the number that stands between `stem` and a dot; 0: none. */
static size_t number_behind(const char *name, const char *stem)
{
    size_t n = strlen(stem);
    char *end;
    if (strncmp(name, stem, n) != 0 || name[n] < '0' || name[n] > '9')
        return 0;
    unsigned long number = strtoul(name + n, &end, 10);
    return *end == '.' && number < INT32_MAX ? number + 1 : 0;
}

static size_t largest_number(const struct sb_stored_tensor *t, size_t n, const char *stem)
{
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t number = number_behind(t[i].name, stem);
        most = number > most ? number : most;
    }
    return most;
}

size_t sb_head_count(const struct sb_head_file *head, const char *stem)
{
    char whole[SB_HEAD_NAME];
    size_t most = 0, n = 0;
    snprintf(whole, sizeof whole, "%s%s", head->prefix, stem);
    for (size_t i = 0; i < head->n_st + head->n_torch; i++) {
        n = i < head->n_st ? largest_number(head->st[i].tensor, head->st[i].n, whole)
                           : largest_number(head->torch[i - head->n_st].tensor,
                                            head->torch[i - head->n_st].n, whole);
        most = n > most ? n : most;
    }
    return most;
}

static void shape_text(char text[96], const size_t *dim, size_t n)
{
    size_t used = (size_t)snprintf(text, 96, "[");
    for (size_t i = 0; i < n; i++)
        used += (size_t)snprintf(text + used, 96 - used, "%s%zu", i ? ", " : "", dim[i]);
    snprintf(text + used, 96 - used, "]");
}

/* The tensor of that whole name and shape. */
static enum sb_status take(const struct sb_head_file *h, const struct sb_stored_tensor **out,
                           const char *name, const size_t *dim, size_t n_dims, struct sb_error *err)
{
    const struct sb_stored_tensor *t = find(h, name);
    char found[96], expected[96];
    shape_text(expected, dim, n_dims);
    if (!t)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is missing; expected %s", h->path, name,
                       expected);
    shape_text(found, t->dim, t->n_dims);
    if (t->n_dims != n_dims || memcmp(t->dim, dim, n_dims * sizeof *dim) != 0)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s': found %s, expected %s", h->path, name,
                       found, expected);
    *out = t;
    return SB_OK;
}

/* The same for the kernels: rows [n, k]. */
static enum sb_status take_floats(const struct sb_head_file *h, struct sb_tensor *out,
                                  const char *name, const size_t *dim, size_t n_dims,
                                  struct sb_error *err)
{
    const struct sb_stored_tensor *t = NULL;
    enum sb_dtype type;
    enum sb_status rc = take(h, &t, name, dim, n_dims, err);
    if (rc != SB_OK)
        return rc;
    if (!sb_element_dtype(&type, t->type))
        return sb_fail(err, SB_EUNSUPPORTED,
                       "%s: tensor '%s' is %s; specbench computes with F32, F16 and BF16", h->path,
                       name, sb_element_name(t->type));
    *out = (struct sb_tensor){ t->data, type, n_dims == 2 ? dim[0] : 1, dim[n_dims - 1] };
    return SB_OK;
}

enum sb_status sb_head_matrix(const struct sb_head_file *head, struct sb_tensor *out, size_t n,
                              size_t k, struct sb_error *err, const char *fmt, ...)
{
    NAME_FROM(fmt);
    return take_floats(head, out, name, (size_t[]){ n, k }, 2, err);
}

enum sb_status sb_head_vector(const struct sb_head_file *head, struct sb_tensor *out, size_t n,
                              struct sb_error *err, const char *fmt, ...)
{
    NAME_FROM(fmt);
    return take_floats(head, out, name, (size_t[]){ n }, 1, err);
}

enum sb_status sb_head_floats(const struct sb_head_file *head, float **out, size_t n,
                              struct sb_error *err, const char *fmt, ...)
{
    NAME_FROM(fmt);
    struct sb_tensor t;
    enum sb_status rc = take_floats(head, &t, name, (size_t[]){ n }, 1, err);
    float *x = rc == SB_OK ? sb_alloc_array(n, sizeof *x) : NULL;
    if (rc == SB_OK && !x)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for '%s'", head->path, name);
    if (rc == SB_OK) {
        sb_dequantize_row(x, t.type, t.data, n);
        *out = x;
    }
    return rc;
}

static int64_t whole_at(const struct sb_stored_tensor *t, size_t i)
{
    return t->type == SB_ELEMENT_I64 ? ((const int64_t *)t->data)[i]
                                     : ((const int32_t *)t->data)[i];
}

enum sb_status sb_head_vocabulary(const struct sb_head_file *head, sb_token **map, size_t n_draft,
                                  size_t n_vocab, struct sb_error *err)
{
    const struct sb_stored_tensor *t = NULL;
    bool offsets = sb_head_find(head, "d2t");
    const char *name = offsets ? "d2t" : "token_map";
    if (!offsets && !sb_head_find(head, "token_map")) {
        if (n_draft != n_vocab)
            return sb_fail(err, SB_EFORMAT,
                           "%s: tensor 'd2t' is missing: the head has %zu tokens, the target %zu",
                           head->path, n_draft, n_vocab);
        *map = NULL;
        return SB_OK;
    }
    char whole[SB_HEAD_NAME];
    snprintf(whole, sizeof whole, "%s%s", head->prefix, name);
    enum sb_status rc = take(head, &t, whole, (size_t[]){ n_draft }, 1, err);
    if (rc != SB_OK)
        return rc;
    if (t->type != SB_ELEMENT_I64 && t->type != SB_ELEMENT_I32)
        return sb_fail(err, SB_EFORMAT, "%s: tensor '%s' is %s; expected i64 or i32", head->path,
                       whole, sb_element_name(t->type));
    sb_token *ids = sb_alloc_array(n_draft, sizeof *ids);
    if (!ids)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for '%s'", head->path, whole);
    for (size_t i = 0; i < n_draft && rc == SB_OK; i++) {
        int64_t value = whole_at(t, i), low = offsets ? -(int64_t)i : 0;
        if (value < low || value >= low + (int64_t)n_vocab)
            rc = sb_fail(err, SB_EFORMAT,
                         "%s: tensor '%s': entry %zu is %" PRId64 "; expected %" PRId64
                         " to %" PRId64 ", for the target has %zu tokens",
                         head->path, whole, i, value, low, low + (int64_t)n_vocab - 1, n_vocab);
        ids[i] = (sb_token)(offsets ? (int64_t)i + value : value);
    }
    if (rc == SB_OK)
        *map = ids;
    else
        sb_free(ids);
    return rc;
}

enum sb_status sb_head_refuse(const struct sb_head_file *head, const char *looked_for,
                              struct sb_error *err)
{
    const char *family = sb_head_family(head);
    return sb_fail(err, SB_EFORMAT, "%s: is no head for %s: looked for %s; %s%s%s", head->path,
                   head->drafter, looked_for, family ? "its tensors are those of " : "",
                   family ? family : "its tensors are of no kind that is known",
                   family ? " heads" : "");
}

/* ---- config.json ---- */

static const json_t *config_value(const struct sb_head_file *head, const char *key)
{
    const json_t *value = json_object_get(head->config, key);
    return json_is_null(value) ? NULL : value;
}

/* "DIR: config.json: 'n_predict' is 2.5; expected ..." */
static enum sb_status refuse_value(const struct sb_head_file *head, const char *key,
                                   const json_t *value, const char *expected, struct sb_error *err)
{
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    enum sb_status rc = sb_fail(err, SB_EFORMAT, "%s: config.json: '%s' is %.40s; expected %s",
                                head->path, key, text ? text : "?", expected);
    free(text);
    return rc;
}

enum sb_status sb_head_config_size(const struct sb_head_file *head, const char *key, size_t *out,
                                   size_t least, size_t most, struct sb_error *err)
{
    const json_t *value = config_value(head, key);
    json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;
    char expected[80];
    if (!value)
        return SB_OK;
    snprintf(expected, sizeof expected, "a whole number from %zu to %zu", least, most);
    if (n < 0 || (uint64_t)n < least || (uint64_t)n > most)
        return refuse_value(head, key, value, expected, err);
    *out = (size_t)n;
    return SB_OK;
}

enum sb_status sb_head_config_number(const struct sb_head_file *head, const char *key, double *out,
                                     double least, double most, struct sb_error *err)
{
    const json_t *value = config_value(head, key);
    double x = json_number_value(value);
    char expected[80];
    if (!value)
        return SB_OK;
    snprintf(expected, sizeof expected, "a number from %g to %g", least, most);
    if (!json_is_number(value) || !(x >= least && x <= most))
        return refuse_value(head, key, value, expected, err);
    *out = x;
    return SB_OK;
}

enum sb_status sb_head_config_flag(const struct sb_head_file *head, const char *key, bool *out,
                                   struct sb_error *err)
{
    const json_t *value = config_value(head, key);
    if (value && !json_is_boolean(value))
        return refuse_value(head, key, value, "true or false", err);
    if (value)
        *out = json_is_true(value);
    return SB_OK;
}

const char *sb_head_config_text(const struct sb_head_file *head, const char *key)
{
    return json_string_value(config_value(head, key));
}

/* ---- description ---- */

static json_t *describe_kind(const struct sb_head_file *h, const char *family)
{
    static const char *const keys[] = { "target_hash", "recipe" };
    json_t *kind = json_pack("{s:s}", "family", family);
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        char key[64];
        snprintf(key, sizeof key, "specbench.%s", keys[i]);
        if (metadata(h, key))
            json_object_set_new(kind, keys[i], json_string(metadata(h, key)));
    }
    if (h->config)
        json_object_set(kind, "config", h->config);
    return kind;
}

json_t *sb_head_describe(const char *path)
{
    struct sb_head_file h = { .path = sb_strdup(path) };
    json_t *root = NULL, *tensors = json_array();
    size_t bytes = 0;
    const char *family = h.path && open_path(&h, NULL) == SB_OK ? sb_head_family(&h) : NULL;
    for (size_t i = 0; i < h.n_st; i++) {
        sb_describe_tensors(tensors, h.st[i].tensor, h.st[i].n);
        bytes += h.st[i].map.size;
    }
    for (size_t i = 0; i < h.n_torch; i++) {
        sb_describe_tensors(tensors, h.torch[i].tensor, h.torch[i].n);
        bytes += h.torch[i].map.size;
    }
    if (family)
        root = json_pack("{s:s, s:s, s:I, s:o, s:O}", "path", path, "format",
                         h.n_torch ? "torch" : "safetensors", "bytes", (json_int_t)bytes, "head",
                         describe_kind(&h, family), "tensors", tensors);
    json_decref(tensors);
    sb_head_close(&h);
    return root;
}

/* Hugging Face layout, as other programs read it. */
#include "harness/train/model_out.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "harness/core/alloc.h"
#include "kernels/kernels.h"

/* The chat format of sb_record_render as the text that other programs apply, and by which the
 * harness recognises it. */
static const char chat_template[] =
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<|user|>\\n' + message['content'] + '\\n' }}{% else %}"
    "{{ '<|assistant|>\\n' + message['content'] + '<|end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

enum sb_status sb_make_dirs(const char *path, struct sb_error *err)
{
    char *copy = sb_strdup(path);
    if (!copy)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    bool ok = true;
    for (char *at = copy + 1; ok && *at; at++)
        if (*at == '/') {
            *at = '\0';
            ok = mkdir(copy, 0777) == 0 || errno == EEXIST;
            *at = '/';
        }
    ok = ok && (mkdir(copy, 0777) == 0 || errno == EEXIST);
    struct stat info;
    ok = ok && stat(copy, &info) == 0 && S_ISDIR(info.st_mode);
    sb_free(copy);
    return ok ? SB_OK
              : sb_fail(err, SB_EIO, "%s: the directory cannot be made: %s", path,
                        errno == EEXIST || errno == 0 ? "a file is in the way" : strerror(errno));
}

enum sb_status sb_file_write(const char *dir, const char *name, const void *data, size_t size,
                             struct sb_error *err)
{
    char *path = sb_strf("%s/%s", dir, name), *partial = sb_strf("%s/%s.part", dir, name);
    FILE *file = path && partial ? fopen(partial, "wb") : NULL;
    bool ok = file && (size == 0 || fwrite(data, size, 1, file) == 1);
    if (file)
        ok = fclose(file) == 0 && ok;
    ok = ok && rename(partial, path) == 0;
    enum sb_status status =
        ok ? SB_OK
           : sb_fail(err, SB_EIO, "%s/%s: cannot be written: %s", dir, name, strerror(errno));
    sb_free(path);
    sb_free(partial);
    return status;
}

enum sb_status sb_json_write(const char *dir, const char *name, json_t *json, struct sb_error *err)
{
    char *text = json ? json_dumps(json, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    json_decref(json);
    char *whole = text ? sb_strf("%s\n", text) : NULL;
    enum sb_status status = whole ? sb_file_write(dir, name, whole, strlen(whole), err)
                                  : sb_fail(err, SB_ENOMEM, "%s/%s: out of memory", dir, name);
    sb_free(whole);
    free(text);
    return status;
}

enum sb_status sb_tokenizer_config_write(const char *out, size_t max_context, struct sb_error *err)
{
    json_t *json =
        json_pack("{s:b, s:s, s:s, s:s, s:I, s:s}", "add_bos_token", 1, "bos_token", "<|bos|>",
                  "eos_token", "<|end|>", "chat_template", chat_template, "model_max_length",
                  (json_int_t)max_context, "tokenizer_class", "PreTrainedTokenizerFast");
    return sb_json_write(out, "tokenizer_config.json", json, err);
}

static json_t *config_json(const struct sb_lm_shape *s, const struct sb_marks *marks)
{
    json_t *json =
        json_pack("{s:[s], s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f}",
                  "architectures", "LlamaForCausalLM", "model_type", "llama", "hidden_act", "silu",
                  "hidden_size", (json_int_t)s->d_model, "intermediate_size", (json_int_t)s->d_ff,
                  "num_hidden_layers", (json_int_t)s->n_layers, "num_attention_heads",
                  (json_int_t)s->n_heads, "num_key_value_heads", (json_int_t)s->n_kv_heads,
                  "head_dim", (json_int_t)(s->d_model / s->n_heads), "vocab_size",
                  (json_int_t)s->n_vocab, "max_position_embeddings", (json_int_t)s->max_context,
                  "rms_norm_eps", s->norm_eps, "rope_theta", s->rope_base);
    json_t *more = json_pack("{s:b, s:b, s:b, s:s, s:i, s:i}", "tie_word_embeddings", 1,
                             "attention_bias", 0, "mlp_bias", 0, "torch_dtype", "bfloat16",
                             "bos_token_id", (int)marks->bos, "eos_token_id", (int)marks->end);
    if (json_object_update(json, more) != 0) {
        json_decref(json);
        json = NULL;
    }
    json_decref(more);
    return json;
}

void sb_trainable_round_bf16(struct sb_trainable *set)
{
    for (size_t i = 0; i < set->n_params; i++)
        set->x[i] = (sb_real)sb_bf16_to_f32(sb_f32_to_bf16((float)set->x[i]));
}

/* Bytes of d2t and t2d, which lie before the weights: i64 needs the alignment that the header has. */
static size_t ids_bytes(const struct sb_model_file *f)
{
    return f->n_draft ? f->n_draft * sizeof(int64_t) + f->n_vocab : 0;
}

static bool add_entry(json_t *header, const char *name, const char *dtype, json_t *shape,
                      size_t *at, size_t bytes)
{
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype, "shape", shape,
                              "data_offsets", (json_int_t)*at, (json_int_t)(*at + bytes));
    *at += bytes;
    return json_object_set_new(header, name, entry) == 0;
}

static json_t *header_json(const struct sb_model_file *f)
{
    json_t *json = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    bool ok = json != NULL;
    for (size_t i = 0; ok && i < f->n_meta; i++)
        ok = json_object_set_new(json_object_get(json, "__metadata__"), f->meta[i].key,
                                 json_string(f->meta[i].value)) == 0;
    size_t at = 0;
    if (ok && f->n_draft)
        ok = add_entry(json, "d2t", "I64", json_pack("[I]", (json_int_t)f->n_draft), &at,
                       f->n_draft * sizeof(int64_t)) &&
             add_entry(json, "t2d", "BOOL", json_pack("[I]", (json_int_t)f->n_vocab), &at,
                       f->n_vocab);
    for (size_t i = 0; ok && i < f->set->n_tensors; i++) {
        const struct sb_trainable_tensor *tensor = &f->set->tensors[i];
        size_t rows = tensor->var->rows, cols = tensor->var->cols;
        json_t *shape = tensor->is_vector ? json_pack("[I]", (json_int_t)cols)
                                          : json_pack("[I, I]", (json_int_t)rows, (json_int_t)cols);
        ok = add_entry(json, tensor->name, "BF16", shape, &at, rows * cols * 2);
    }
    if (!ok) {
        json_decref(json);
        json = NULL;
    }
    return json;
}

/* {"name": {dtype, shape, data_offsets}, ...} padded with spaces to a multiple of 8. */
static char *safetensors_header(const struct sb_model_file *f)
{
    json_t *json = header_json(f);
    char *text = json ? json_dumps(json, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(json);
    int padding = text ? (int)((8 - strlen(text) % 8) % 8) : 0;
    char *padded = text ? sb_strf("%s%*s", text, padding, "") : NULL;
    free(text);
    return padded;
}

static void put_bytes(unsigned char *to, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = (unsigned char)(value >> (8 * i));
}

static void put_ids(unsigned char *to, const struct sb_model_file *f)
{
    unsigned char *known = to + f->n_draft * sizeof(int64_t);
    memset(known, 0, f->n_vocab);
    for (size_t i = 0; i < f->n_draft; i++) {
        put_bytes(to + i * sizeof(int64_t), (uint64_t)f->draft_ids[i] - i, sizeof(int64_t));
        known[f->draft_ids[i]] = 1;
    }
}

enum sb_status sb_model_file_write(const struct sb_model_file *f, const char *dir, const char *name,
                                   struct sb_error *err)
{
    const struct sb_trainable *set = f->set;
    char *header = safetensors_header(f);
    size_t length = header ? strlen(header) : 0, ids = ids_bytes(f);
    size_t size = 8 + length + ids + set->n_params * 2;
    unsigned char *data = header ? sb_alloc(size) : NULL;
    enum sb_status status = SB_OK;
    if (!data) {
        status = sb_fail(err, SB_ENOMEM, "%s/%s: out of memory", dir, name);
    } else {
        put_bytes(data, length, 8);
        memcpy(data + 8, header, length);
        if (f->n_draft)
            put_ids(data + 8 + length, f);
        unsigned char *weights = data + 8 + length + ids;
        for (size_t i = 0; i < set->n_params; i++)
            put_bytes(weights + 2 * i, sb_f32_to_bf16((float)set->x[i]), 2);
        status = sb_file_write(dir, name, data, size, err);
    }
    sb_free(data);
    sb_free(header);
    return status;
}

/* Copy from/tokenizer.json to out, unless they are the same file. */
static enum sb_status copy_tokenizer(const char *from, const char *out, struct sb_error *err)
{
    char *source = sb_strf("%s/tokenizer.json", from), *target = sb_strf("%s/tokenizer.json", out);
    struct stat a, b;
    enum sb_status status = SB_OK;
    FILE *file = source && target ? fopen(source, "rb") : NULL;
    if (!file || fstat(fileno(file), &a) != 0) {
        status = sb_fail(err, SB_EINPUT, "%s/tokenizer.json: cannot be read", from);
    } else if (stat(target, &b) != 0 || a.st_ino != b.st_ino || a.st_dev != b.st_dev) {
        size_t size = (size_t)a.st_size;
        void *data = sb_alloc(size);
        if (!data || fread(data, 1, size, file) != size)
            status = sb_fail(err, SB_EIO, "%s/tokenizer.json: cannot be read", from);
        else
            status = sb_file_write(out, "tokenizer.json", data, size, err);
        sb_free(data);
    }
    if (file)
        fclose(file);
    sb_free(source);
    sb_free(target);
    return status;
}

enum sb_status sb_lm_write(const struct sb_lm *lm, const char *out, const char *tokenizer_dir,
                           const struct sb_marks *marks, const char *recipe_name,
                           struct sb_error *err)
{
    const struct sb_meta meta = { "specbench.recipe", recipe_name };
    const struct sb_model_file file = { .set = &lm->weights, .meta = &meta, .n_meta = 1 };
    enum sb_status status = sb_make_dirs(out, err);
    if (status == SB_OK)
        status = sb_model_file_write(&file, out, "model.safetensors", err);
    if (status == SB_OK)
        status = sb_json_write(out, "config.json", config_json(&lm->shape, marks), err);
    if (status == SB_OK)
        status = sb_json_write(out, "generation_config.json",
                               json_pack("{s:i, s:i}", "bos_token_id", (int)marks->bos,
                                         "eos_token_id", (int)marks->end),
                               err);
    if (status == SB_OK)
        status = sb_tokenizer_config_write(out, lm->shape.max_context, err);
    return status == SB_OK ? copy_tokenizer(tokenizer_dir, out, err) : status;
}

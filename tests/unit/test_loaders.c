/* Model files that are wrong: each is refused with one line that names the file and what is the matter. Files are
 * made from golden ones by changing bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "harness/core/alloc.h"
#include "harness/model/gguf.h"
#include "harness/model/model.h"
#include "harness/model/safetensors.h"

static char dir[] = "/tmp/sb-loaders-XXXXXX";

struct bytes {
    unsigned char *data;
    size_t n;
};

static char *golden(const char *name)
{
    return sb_strf("%s/golden/models/%s", getenv("SB_TEST_DIR"), name);
}

static struct bytes read_golden(const char *name)
{
    char *path = golden(name);
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    fseek(f, 0, SEEK_END);
    struct bytes b = { NULL, (size_t)ftell(f) };
    rewind(f);
    b.data = malloc(b.n);
    assert_int_equal(fread(b.data, 1, b.n, f), b.n);
    fclose(f);
    sb_free(path);
    return b;
}

static char *write_bytes(const char *name, const void *data, size_t n)
{
    char *path = sb_strf("%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
    return path;
}

static void expect_refusal(const char *path, enum sb_status status, const char *part)
{
    struct sb_weights *w = (struct sb_weights *)&dir;
    struct sb_error err = { 0 };
    enum sb_status rc = sb_weights_open(&w, path, &err);
    if (rc != status || !strstr(err.message, part))
        fail_msg("%s: status %d, not %d; '%s' lacks '%s'", path, (int)rc, (int)status, err.message,
                 part);
    assert_ptr_equal(w, &dir); /* untouched */
}

/* Where `text` stands in the bytes. */
static size_t find(const struct bytes *b, const char *text)
{
    size_t n = strlen(text);
    for (size_t i = 0; i + n <= b->n; i++)
        if (memcmp(b->data + i, text, n) == 0)
            return i;
    fail_msg("no '%s'", text);
    return 0;
}

static void refuse_patched(const char *model, size_t at, const void *patch, size_t n,
                           enum sb_status status, const char *part)
{
    struct bytes b = read_golden(model);
    memcpy(b.data + at, patch, n);
    char *path = write_bytes("patched.gguf", b.data, b.n);
    expect_refusal(path, status, part);
    sb_free(path);
    free(b.data);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct bytes b = read_golden("llama-f16-tied.gguf");
    for (size_t n = 1; n < b.n; n += n < 3000 ? 7 : 9973) {
        char *path = write_bytes("cut.gguf", b.data, n);
        expect_refusal(path, SB_EFORMAT, "cut.gguf");
        sb_free(path);
    }
    char *path = write_bytes("cut.gguf", b.data, 0);
    expect_refusal(path, SB_EFORMAT, "is empty");
    sb_free(path);
    free(b.data);
}

static void headers_are_checked(void **state)
{
    (void)state;
    const uint32_t one = 1, four = 4, big_endian = 0x03000000;
    const uint64_t huge = UINT64_MAX, many = 1 << 20;
    refuse_patched("llama-f32.gguf", 0, "GGML", 4, SB_EFORMAT, "does not begin with 'GGUF'");
    refuse_patched("llama-f32.gguf", 4, &one, 4, SB_EUNSUPPORTED, "GGUF version 1");
    refuse_patched("llama-f32.gguf", 4, &four, 4, SB_EUNSUPPORTED, "GGUF version 4");
    refuse_patched("llama-f32.gguf", 4, &big_endian, 4, SB_EUNSUPPORTED, "big-endian");
    refuse_patched("llama-f32.gguf", 8, &huge, 8, SB_EFORMAT, "more than its");
    refuse_patched("llama-f32.gguf", 16, &huge, 8, SB_EFORMAT, "more than its");
    refuse_patched("llama-f32.gguf", 16, &many, 8, SB_EFORMAT, "patched.gguf");
    refuse_patched("llama-f32.gguf", 24, &huge, 8, SB_EFORMAT,
                   "a metadata key is 18446744073709551615 bytes");
}

static void metadata_is_checked(void **state)
{
    (void)state;
    struct bytes b = read_golden("llama-f32.gguf");
    size_t arch = find(&b, "general.architecture"), layers = find(&b, "llama.block_count");
    size_t heads = find(&b, "llama.attention.head_count"), value;
    free(b.data);
    const uint64_t huge = UINT64_MAX - 4;
    const uint32_t zero = 0, type = 77;
    value = arch + strlen("general.architecture");
    refuse_patched("llama-f32.gguf", value + 12, "gemma", 5, SB_EUNSUPPORTED,
                   "architecture 'gemma'");
    refuse_patched("llama-f32.gguf", value + 4, &huge, 8, SB_EFORMAT,
                   "'general.architecture' is 18446744073709551611 bytes");
    refuse_patched("llama-f32.gguf", value, &type, 4, SB_EFORMAT,
                   "'general.architecture' has the unknown type 77");
    refuse_patched("llama-f32.gguf", arch, "\xff", 1, SB_EFORMAT, "a metadata key is no UTF-8");
    refuse_patched("llama-f32.gguf", arch, "G", 1, SB_EFORMAT, "'general.architecture' is missing");
    refuse_patched("llama-f32.gguf", layers, "L", 1, SB_EFORMAT, "'llama.block_count' is missing");
    refuse_patched("llama-f32.gguf", layers + strlen("llama.block_count") + 4, &zero, 4, SB_EFORMAT,
                   "layers is 0");
    refuse_patched("llama-f32.gguf", heads + strlen("llama.attention.head_count") + 4, &zero, 4,
                   SB_EFORMAT, "heads is 0");
}

static void tensors_are_checked(void **state)
{
    (void)state;
    struct bytes b = read_golden("llama-f32.gguf");
    /* name, u32 n_dims = 2, u64 dims[2], u32 type, u64 offset */
    size_t name = find(&b, "blk.0.attn_k.weight"), dims = name + strlen("blk.0.attn_k.weight");
    free(b.data);
    const uint32_t zero = 0, five = 5, q6_k = 14;
    const uint64_t none = 0, huge = (uint64_t)1 << 60, odd = 3, three = 3;
    refuse_patched("llama-f32.gguf", name, "X", 1, SB_EFORMAT,
                   "tensor 'blk.0.attn_k.weight' is missing");
    refuse_patched("llama-f32.gguf", name, "\xfe", 1, SB_EFORMAT, "a tensor's name is no UTF-8");
    refuse_patched("llama-f32.gguf", name + strlen("blk.0.attn_"), "q", 1, SB_EFORMAT,
                   "stands twice");
    refuse_patched("llama-f32.gguf", dims, &zero, 4, SB_EFORMAT, "has 0 dimensions");
    refuse_patched("llama-f32.gguf", dims, &five, 4, SB_EFORMAT, "has 5 dimensions");
    refuse_patched("llama-f32.gguf", dims + 4, &none, 8, SB_EFORMAT, "has a dimension of 0");
    refuse_patched("llama-f32.gguf", dims + 4, &huge, 8, SB_EFORMAT,
                   "has a dimension of 1152921504606846976");
    refuse_patched("llama-f32.gguf", dims + 12, &three, 8, SB_EFORMAT, "is 3 x 64; expected");
    refuse_patched("llama-f32.gguf", dims + 20, &q6_k, 4, SB_EUNSUPPORTED, "has type Q6_K (14)");
    refuse_patched("llama-f32.gguf", dims + 24, &odd, 8, SB_EFORMAT, "no multiple of 32");
    refuse_patched("llama-f32.gguf", dims + 24, &huge, 8, SB_EFORMAT, "passes the end of the file");
    refuse_patched("llama-f32.gguf", dims + 24, &none, 8, SB_EFORMAT, "overlap");
    refuse_patched("llama-f32.gguf", dims + 4, &odd, 8, SB_EFORMAT, "blk.0.attn_k.weight");
}

static void a_vocabulary_is_no_model(void **state)
{
    (void)state;
    char *path = sb_strf("%s/golden/tokenizers/ggml-vocab-llama-spm.gguf", getenv("SB_TEST_DIR")),
         *json;
    expect_refusal(path, SB_EINPUT, "holds a vocabulary and no weights");
    assert_int_equal(sb_model_file_describe(&json, path, NULL), SB_OK);
    assert_non_null(strstr(json, "tokenizer.ggml.tokens"));
    sb_free(json);
    sb_free(path);
}

static void paths_are_checked(void **state)
{
    (void)state;
    char *st = golden("llama-f32-hf/model.safetensors");
    expect_refusal("/nowhere/at/all", SB_EINPUT, "/nowhere/at/all: No such file");
    expect_refusal(dir, SB_EINPUT, "config.json: No such file");
    expect_refusal(st, SB_EINPUT, "give the directory");
    sb_free(st);
}

/* ---- Hugging Face ---------------------------------------------------------------------------------- */

static void refuse_header(const char *header, const char *part)
{
    unsigned char bytes[4096] = { 0 };
    uint64_t n = strlen(header);
    struct sb_st_file f;
    struct sb_error err = { 0 };
    memcpy(bytes, &n, 8);
    memcpy(bytes + 8, header, n);
    enum sb_status rc = sb_st_parse(&f, bytes, 8 + n + 64, "x.safetensors", &err);
    if (rc == SB_OK || !strstr(err.message, part))
        fail_msg("'%s': '%s' lacks '%s'", header, rc ? err.message : "accepted", part);
}

static void safetensors_headers_are_checked(void **state)
{
    (void)state;
    refuse_header("[]", "no JSON object");
    refuse_header("{", "no JSON object");
    refuse_header("{\"a\":{\"dtype\":\"F8_E4M3\",\"shape\":[1],\"data_offsets\":[0,1]}}",
                  "dtype F8_E4M3");
    refuse_header("{\"a\":{\"shape\":[1],\"data_offsets\":[0,4]}}", "dtype missing");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}",
                  "its shape needs 8");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[17],\"data_offsets\":[0,68]}}",
                  "do not lie in its 64 bytes");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,4]}}", "do not lie");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}",
                  "size 0 of its shape");
    refuse_header(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2147483647,2147483647,2147483647],\"data_offsets\":[0,4]}}",
        "larger than any file");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                  "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                  "overlap");
    refuse_header("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
                  "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
                  "duplicate");
    struct sb_st_file f;
    struct sb_error err;
    const uint64_t long_header = 1000;
    assert_int_equal(sb_st_parse(&f, (const uint8_t *)&long_header, 8, "x", &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "does not fit"));
}

/* The golden configuration with one field changed (NULL: removed). */
static void refuse_config(const char *key, const char *value, enum sb_status status,
                          const char *part)
{
    char *path = golden("llama-bf16-hf/config.json"), *folder = sb_strf("%s/hf", dir);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    if (value)
        json_object_set_new(root, key, json_loads(value, JSON_DECODE_ANY, NULL));
    else
        json_object_del(root, key);
    mkdir(folder, 0755);
    char *text = json_dumps(root, 0);
    sb_free(write_bytes("hf/config.json", text, strlen(text)));
    expect_refusal(folder, status, part);
    free(text);
    json_decref(root);
    sb_free(path);
    sb_free(folder);
}

static void configurations_are_checked(void **state)
{
    (void)state;
    refuse_config("architectures", "[\"GPT2LMHeadModel\"]", SB_EUNSUPPORTED,
                  "architecture GPT2LMHeadModel");
    refuse_config("hidden_size", NULL, SB_EFORMAT, "'hidden_size' is missing");
    refuse_config("hidden_size", "\"128\"", SB_EFORMAT, "'hidden_size' is no whole number");
    refuse_config("num_hidden_layers", "-1", SB_EFORMAT, "'num_hidden_layers' is no whole number");
    refuse_config("num_hidden_layers", "1000000", SB_EFORMAT, "layers is 1000000");
    refuse_config("num_attention_heads", "0", SB_EFORMAT, "heads is 0");
    refuse_config("num_key_value_heads", "3", SB_EFORMAT, "8 heads are no multiple of 3");
    refuse_config("head_dim", "15", SB_EFORMAT, "head width 15 is odd");
    refuse_config("hidden_act", "\"gelu\"", SB_EUNSUPPORTED, "hidden_act 'gelu'");
    refuse_config("sliding_window", "64", SB_EUNSUPPORTED, "sliding window of 64");
    refuse_config("attention_bias", "true", SB_EUNSUPPORTED, "attention_bias");
    refuse_config("quantization_config", "{\"bits\":4}", SB_EUNSUPPORTED, "quantization_config");
    refuse_config("rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":2}", SB_EUNSUPPORTED,
                  "rope_scaling 'yarn'");
    refuse_config("rope_scaling", "{\"type\":\"linear\",\"factor\":0}", SB_EFORMAT,
                  "rope_scaling.factor is 0");
    refuse_config("rope_scaling", "{\"type\":\"llama3\",\"factor\":8}", SB_EFORMAT,
                  "low_freq_factor 0");
    refuse_config("rope_theta", "\"x\"", SB_EFORMAT, "'rope_theta' is no number");
    refuse_config("rms_norm_eps", "2", SB_EFORMAT, "norm epsilon 2");
    refuse_config("vocab_size", "512", SB_EINPUT, "holds no model.safetensors");
}

/* A golden directory whose tensors are spread over two files gives the same model. */
static void shards_are_one_model(void **state)
{
    (void)state;
    struct bytes b = read_golden("llama-bf16-hf/model.safetensors"),
                 config = read_golden("llama-bf16-hf/config.json");
    char *folder = sb_strf("%s/shards", dir), *whole_path = golden("llama-bf16-hf");
    struct sb_weights *whole, *parts;
    struct sb_error err;
    json_t *map = json_object(), *index, *header;
    uint64_t n;
    memcpy(&n, b.data, 8);
    header = json_loadb((const char *)b.data + 8, (size_t)n, 0, NULL);
    mkdir(folder, 0755);
    sb_free(write_bytes("shards/config.json", config.data, config.n));
    for (int part = 0; part < 2; part++) {
        const char *key;
        json_t *entry, *mine = json_object();
        int i = 0;
        json_object_foreach(header, key, entry)
        {
            if (strcmp(key, "__metadata__") != 0 && i++ % 2 == part) {
                json_object_set(mine, key, entry);
                json_object_set_new(map, key,
                                    json_string(part ? "b.safetensors" : "a.safetensors"));
            }
        }
        char *text = json_dumps(mine, JSON_COMPACT);
        size_t length = (strlen(text) + 7) / 8 * 8, size = 8 + length + b.n - 8 - (size_t)n;
        unsigned char *out = calloc(1, size);
        memset(out + 8, ' ', length);
        memcpy(out, &length, 8);
        memcpy(out + 8, text, strlen(text));
        memcpy(out + 8 + length, b.data + 8 + n, b.n - 8 - (size_t)n);
        sb_free(write_bytes(part ? "shards/b.safetensors" : "shards/a.safetensors", out, size));
        free(out);
        free(text);
        json_decref(mine);
    }
    index = json_pack("{s:O}", "weight_map", map);
    char *text = json_dumps(index, 0);
    sb_free(write_bytes("shards/model.safetensors.index.json", text, strlen(text)));
    free(text);
    assert_int_equal(sb_weights_open(&whole, whole_path, &err), SB_OK);
    if (sb_weights_open(&parts, folder, &err) != SB_OK)
        fail_msg("%s", err.message);
    assert_true(parts->content_hash == whole->content_hash);
    sb_weights_close(parts);
    sb_weights_close(whole);
    json_object_set_new(map, "model.norm.weight", json_string("../a.safetensors"));
    text = json_dumps(index, 0);
    sb_free(write_bytes("shards/model.safetensors.index.json", text, strlen(text)));
    free(text);
    expect_refusal(folder, SB_EFORMAT, "no plain name");
    json_decref(index);
    json_decref(map);
    json_decref(header);
    sb_free(folder);
    sb_free(whole_path);
    free(b.data);
    free(config.data);
}

/* ---- the two layouts ----------------------------------------------------------------------------------- */

static void gguf_and_hf_hold_the_same_model(void **state)
{
    (void)state;
    static const char *const names[] = { "llama-f32", "llama-bf16", "qwen2-f32",
                                         "llama3-ropefreqs" };
    for (size_t k = 0; k < 4; k++) {
        struct sb_weights *a, *b;
        char name[64];
        snprintf(name, sizeof name, "%s.gguf", names[k]);
        char *path = golden(name);
        assert_int_equal(sb_weights_open(&a, path, NULL), SB_OK);
        sb_free(path);
        snprintf(name, sizeof name, "%s-hf", names[k]);
        path = golden(name);
        assert_int_equal(sb_weights_open(&b, path, NULL), SB_OK);
        sb_free(path);
        const struct sb_config *x = &a->config, *y = &b->config;
        assert_int_equal(x->n_layers, y->n_layers);
        assert_int_equal(x->n_vocab, y->n_vocab);
        assert_int_equal(x->head_dim, y->head_dim);
        assert_int_equal(x->max_context, y->max_context);
        assert_true(x->rope_base == y->rope_base && x->norm_eps == y->norm_eps);
        assert_int_equal(a->rope_factors != NULL, b->rope_factors != NULL);
        for (size_t i = 0; a->rope_factors && i < x->head_dim / 2; i++)
            assert_true(a->rope_factors[i] / b->rope_factors[i] > 0.99999f &&
                        a->rope_factors[i] / b->rope_factors[i] < 1.00001f);
        size_t row = sb_dtype_row_bytes(a->layers[0].wq.type, x->d_model), half = x->head_dim / 2;
        bool permuted = x->rope_layout != y->rope_layout;
        assert_int_equal(permuted, strncmp(names[k], "llama", 5) == 0);
        for (size_t r = 0; r < x->n_heads * x->head_dim; r++) {
            size_t h = r / x->head_dim, i = r % x->head_dim;
            size_t other = permuted ? h * x->head_dim + (i % 2) * half + i / 2 : r;
            assert_memory_equal((const char *)a->layers[0].wq.data + r * row,
                                (const char *)b->layers[0].wq.data + other * row, row);
        }
        sb_weights_close(a);
        sb_weights_close(b);
    }
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    static const char *const names[] = { "llama-f16-tied.gguf", "qwen2-f32-hf" };
    for (size_t k = 0; k < 2; k++) {
        char *path = golden(names[k]);
        enum sb_status rc = SB_ENOMEM;
        for (size_t n = 0; rc != SB_OK; n++) {
            struct sb_model *m;
            struct sb_error err;
            assert_true(n < 10000);
            sb_alloc_fail_after(n);
            rc = sb_model_load(&m, path, &err);
            sb_alloc_fail_after(SIZE_MAX);
            assert_true(rc == SB_OK || rc == SB_ENOMEM);
            if (rc == SB_OK)
                sb_model_destroy(m);
        }
        sb_free(path);
    }
}

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char *command = sb_strf("rm -rf %s", dir);
    int rc = system(command);
    sb_free(command);
    return rc;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(headers_are_checked),
        cmocka_unit_test(metadata_is_checked),
        cmocka_unit_test(tensors_are_checked),
        cmocka_unit_test(a_vocabulary_is_no_model),
        cmocka_unit_test(paths_are_checked),
        cmocka_unit_test(safetensors_headers_are_checked),
        cmocka_unit_test(configurations_are_checked),
        cmocka_unit_test(shards_are_one_model),
        cmocka_unit_test(gguf_and_hf_hold_the_same_model),
        cmocka_unit_test(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}

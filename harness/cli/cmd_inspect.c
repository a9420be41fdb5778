/* specbench inspect: what a model file, a results database or a datastore holds. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "drafters/datastore.h"
#include "drafters/head_file.h"
#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/model/bundled.h"
#include "harness/model/weights.h"

static const struct sb_usage usage = {
    .name = "inspect",
    .examples = "  specbench inspect tiny\n  specbench inspect m.gguf --format json\n"
                "  specbench inspect medusa_lm_head.pt\n"
                "  specbench inspect specbench.db\n  specbench inspect chats.sbidx\n",
    .synopsis = "specbench inspect FILE [--format table|json]",
    .about =
        "For a model, or a file of tensors (GGUF, safetensors, PyTorch .bin or .pt): format, metadata,\n"
        "architecture, tensors. For a draft head, a file or a directory: its family, by the names of its\n"
        "tensors, and which target it was made for. For a results database: its experiments and how far\n"
        "they are. For a datastore (.sbidx, or REST's .idx): its tokenizer and size, after all of it was\n"
        "checked.",
};

static bool is_database(const char *path)
{
    static const char magic[] = "SQLite format 3";
    char head[sizeof magic] = { 0 };
    FILE *f = fopen(path, "rb");
    bool yes = f && fread(head, 1, sizeof head, f) == sizeof head &&
               memcmp(head, magic, sizeof magic) == 0;
    if (f)
        fclose(f);
    return yes;
}

static enum sb_status inspect_database(const char *path, enum sb_format format,
                                       struct sb_error *err)
{
    struct sb_store *store = NULL;
    struct sb_table *table = NULL;
    const struct sb_report_options report = { .view = "runs" };
    enum sb_status rc = sb_store_open(
        &store, path, &(struct sb_store_options){ .must_exist = true, .read_only = true }, err);
    if (rc == SB_OK)
        rc = sb_report_table(&table, store, &report, err);
    if (rc == SB_OK)
        rc = sb_table_print(table, stdout, format, err);
    sb_table_destroy(table);
    sb_store_close(store);
    return rc;
}

/* "key: value" lines, nested keys joined by dots; arrays of objects are printed one a line. */
static void print_flat(const char *prefix, json_t *value)
{
    const char *key;
    json_t *member;
    size_t i;
    if (json_is_object(value)) {
        json_object_foreach(value, key, member)
        {
            char *longer = sb_strf("%s%s%s", prefix, *prefix ? "." : "", key);
            if (longer)
                print_flat(longer, member);
            sb_free(longer);
        }
    } else if (json_is_array(value) && json_array_size(value) > 0 &&
               json_is_object(json_array_get(value, 0))) {
        printf("%s:\n", prefix);
        json_array_foreach(value, i, member)
        {
            fputs(" ", stdout);
            json_object_foreach(json_array_get(value, i), key, member)
            {
                char *text = json_dumps(member, JSON_ENCODE_ANY | JSON_COMPACT);
                printf(" %s=%s", key, text ? text : "?");
                free(text);
            }
            putchar('\n');
        }
    } else {
        char *text =
            json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        printf("%s: %s\n", prefix, text ? text : json_string_value(value));
        free(text);
    }
}

/* A model, whatever else is in its files; or a draft head; or tensors. */
static enum sb_status describe(json_t **out, const char *path, struct sb_error *err)
{
    char *text = NULL;
    enum sb_status rc = sb_model_file_describe(&text, path, err);
    json_t *root = rc == SB_OK ? json_loads(text, 0, NULL) : NULL;
    sb_free(text);
    if (!json_object_get(root, "architecture")) {
        json_t *head = sb_head_describe(path);
        if (head) {
            json_decref(root);
            *out = head;
            return SB_OK;
        }
    }
    if (rc == SB_OK && !root)
        rc = sb_fail(err, SB_EINTERNAL, "%s: its description is no JSON", path);
    if (rc == SB_OK)
        *out = root;
    return rc;
}

static enum sb_status inspect_model(const char *name, enum sb_format format, struct sb_error *err)
{
    char *path = NULL;
    json_t *root = NULL;
    enum sb_status rc = sb_bundled_resolve(&path, "model", name, err);
    if (rc == SB_OK)
        rc = describe(&root, path, err);
    if (rc == SB_OK && format == SB_FORMAT_JSON) {
        char *text = json_dumps(root, JSON_COMPACT);
        rc = text ? SB_OK : sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
        if (text)
            puts(text);
        free(text);
    } else if (rc == SB_OK) {
        print_flat("", root);
    }
    json_decref(root);
    sb_free(path);
    return rc;
}

static enum sb_status inspect_datastore(const char *path, enum sb_format format,
                                        struct sb_error *err)
{
    struct sb_datastore store = { 0 };
    char tokenizer[17], checksum[17];
    enum sb_status rc = sb_datastore_open(&store, path, NULL, 0, err);
    if (rc != SB_OK)
        return rc;
    snprintf(tokenizer, sizeof tokenizer, "%016" PRIx64, store.tokenizer_hash);
    snprintf(checksum, sizeof checksum, "%016" PRIx64, store.checksum);
    bool own = store.checksum != 0;
    json_t *root =
        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:s?, s:s?}", "format", store.format,
                  "tokens", (json_int_t)store.n_tokens, "documents", (json_int_t)store.n_documents,
                  "chunks", (json_int_t)store.n_chunks, "vocabulary", (json_int_t)store.n_vocab,
                  "token_bytes", (json_int_t)store.width, "size_bytes", (json_int_t)store.file.size,
                  "tokenizer_hash", own ? tokenizer : NULL, "checksum", own ? checksum : NULL);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    if (!text)
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    else if (format == SB_FORMAT_JSON)
        puts(text);
    else
        print_flat("", root);
    free(text);
    json_decref(root);
    sb_datastore_close(&store);
    return rc;
}

static enum sb_status inspect(const char *path, enum sb_format format, struct sb_error *err)
{
    if (is_database(path))
        return inspect_database(path, format, err);
    return sb_datastore_is(path) ? inspect_datastore(path, format, err)
                                 : inspect_model(path, format, err);
}

int sb_cmd_inspect(int argc, char **argv)
{
    enum sb_format format = SB_FORMAT_TABLE;
    const struct sb_option options[] = {
        { .name = "format",
          .kind = SB_OPT_FORMAT,
          .dst = &format,
          .arg = "F",
          .help = "table or json; for a database also md and csv" },
        { 0 },
    };
    struct sb_texts rest = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &rest, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && rest.n != 1)
        rc = sb_fail(&err, SB_EUSAGE, "expected one file; usage: %s", usage.synopsis);
    if (rc == SB_OK)
        rc = inspect(rest.item[0], format, &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    return rc == SB_OK ? 0 : sb_cli_fail("inspect", &err);
}

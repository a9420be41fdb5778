/* specbench index: texts to a datastore, for drafters that retrieve. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <jansson.h>

#include "drafters/datastore.h"
#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/line_file.h"
#include "harness/model/bundled.h"

static const struct sb_usage usage = {
    .name = "index",
    .examples = "  specbench index chats.jsonl.gz --model tiny -o chats.sbidx\n"
                "  specbench index a.jsonl b.jsonl --model m.gguf --field answer -o answers.sbidx\n"
                "  specbench index book.txt --model tiny --output book.sbidx\n"
                "  specbench run --target tiny --drafter rest:store=chats.sbidx\n",
    .synopsis = "specbench index FILE... --model M -o STORE.sbidx [--field NAME]",
    .about =
        "Tokenises texts as the model does, sorts all their ends, and writes a datastore for the\n"
        "drafter `rest`. Files whose name ends in .jsonl or .json (.gz too) have one JSON value a line:\n"
        "a text, or an object whose fields are texts, lists of texts, or lists of objects that hold\n"
        "them, as chats are logged; every text is a document. Any other file is one plain text.",
};

/* Fields that hold text where --field names none, and the members of turns and messages. */
static const char *const fields[] = { "text",   "turns",  "messages", "conversations",
                                      "prompt", "answer", NULL };
static const char *const members[] = { "user", "assistant", "content", "value", "text", NULL };
enum { PIECE_BYTES = 1 << 20 }; /* of a plain text that is tokenised at once */

struct options {
    const char *model, *output;
    struct sb_texts fields;
};

struct index {
    const struct options *o;
    const struct sb_tokenizer *tok;
    struct sb_tokens text;
    size_t n_documents;
};

/* ---- texts to tokens ------------------------------------------------------------------------- */

static enum sb_status add_text(struct index *x, const char *text, size_t n, struct sb_error *err)
{
    return sb_tokenizer_encode(x->tok, &x->text, text, n, SB_ENCODE_PLAIN, err);
}

static enum sb_status end_document(struct index *x, struct sb_error *err)
{
    const sb_token separator = (sb_token)sb_tokenizer_size(x->tok);
    if (x->text.n == 0 || x->text.id[x->text.n - 1] == separator)
        return SB_OK; /* nothing in it */
    x->n_documents++;
    return sb_tokens_push(&x->text, &separator, 1, err);
}

static enum sb_status add_value(struct index *x, const json_t *value, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    if (json_is_string(value)) {
        rc = add_text(x, json_string_value(value), json_string_length(value), err);
        return rc == SB_OK ? end_document(x, err) : rc;
    }
    for (size_t i = 0; i < json_array_size(value) && rc == SB_OK; i++)
        rc = add_value(x, json_array_get(value, i), err);
    for (size_t i = 0; members[i] && rc == SB_OK && json_is_object(value); i++)
        if (json_is_string(json_object_get(value, members[i])))
            rc = add_value(x, json_object_get(value, members[i]), err);
    return rc;
}

/* One line of JSON. A record without any of the fields is refused: it is more often a wrong name. */
static enum sb_status add_record(struct index *x, const struct sb_line_file *in,
                                 struct sb_error *err)
{
    json_error_t why;
    json_t *json = json_loadb(in->line, in->length, JSON_DECODE_ANY, &why);
    enum sb_status rc = SB_OK;
    size_t found = 0;
    if (!json)
        return sb_fail(err, SB_EFORMAT, "%s: line %zu: no JSON: %s", in->path, in->number,
                       why.text);
    const struct sb_texts *asked = &x->o->fields;
    const char *const *name = asked->n ? asked->item : fields;
    size_t n = asked->n ? asked->n : sizeof fields / sizeof *fields - 1;
    if (json_is_string(json)) {
        found = 1;
        rc = add_value(x, json, err);
    }
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        const json_t *value = json_object_get(json, name[i]);
        found += value != NULL;
        rc = value ? add_value(x, value, err) : SB_OK;
    }
    if (rc == SB_OK && found == 0)
        rc = sb_fail(err, SB_EFORMAT, "%s: line %zu: no field '%s'%s; name one with --field",
                     in->path, in->number, name[0], n > 1 ? " or one like it" : "");
    json_decref(json);
    return rc;
}

static enum sb_status read_records(struct index *x, struct sb_line_file *in, struct sb_error *err)
{
    for (;;) {
        bool end;
        enum sb_status rc = sb_line_file_next(in, &end, err);
        if (rc != SB_OK || end)
            return rc;
        if (strspn(in->line, " \t\r") < in->length && (rc = add_record(x, in, err)) != SB_OK)
            return rc;
    }
}

/* A plain text is one document; it is tokenised in pieces that end with a line. */
static enum sb_status read_plain(struct index *x, struct sb_line_file *in, struct sb_error *err)
{
    char *piece = NULL;
    size_t n = 0, cap = 0;
    enum sb_status rc;
    for (bool end = false; (rc = sb_line_file_next(in, &end, err)) == SB_OK;) {
        if (n > 0 && (end || n > PIECE_BYTES)) {
            rc = add_text(x, piece, n, err);
            n = 0;
        }
        if (rc != SB_OK || end)
            break;
        if (sb_grow((void **)&piece, &cap, n + in->length + 1, 1) != 0) {
            rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", in->path);
            break;
        }
        memcpy(piece + n, in->line, in->length);
        n += in->length;
        piece[n++] = '\n';
    }
    sb_free(piece);
    return rc == SB_OK ? end_document(x, err) : rc;
}

static bool ends_in(const char *text, size_t n, const char *end)
{
    size_t m = strlen(end);
    return n >= m && memcmp(text + n - m, end, m) == 0;
}

static bool holds_json(const char *path)
{
    size_t n = strlen(path);
    n -= ends_in(path, n, ".gz") ? 3 : 0;
    return ends_in(path, n, ".jsonl") || ends_in(path, n, ".json");
}

static enum sb_status read_file(struct index *x, const char *path, struct sb_error *err)
{
    struct sb_line_file in = { 0 };
    enum sb_status rc = sb_line_file_open(&in, path, err);
    if (rc == SB_OK)
        rc = holds_json(path) ? read_records(x, &in, err) : read_plain(x, &in, err);
    sb_line_file_close(&in);
    return rc;
}

/* ---- the command ------------------------------------------------------------------------------ */

static double seconds_since(uint64_t start_ns)
{
    return (double)(sb_now_ns() - start_ns) / 1e9;
}

static enum sb_status build(struct index *x, const struct sb_texts *files, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    uint64_t start = sb_now_ns();
    for (size_t i = 0; i < files->n && rc == SB_OK; i++)
        rc = read_file(x, files->item[i], err);
    if (rc != SB_OK)
        return rc;
    double read_s = seconds_since(start);
    start = sb_now_ns();
    rc = sb_datastore_write(x->o->output, x->text.id, x->text.n, x->n_documents,
                            sb_tokenizer_size(x->tok), sb_tokenizer_hash(x->tok), err);
    if (rc == SB_OK)
        printf("%s: %zu documents, %zu tokens; tokenised in %.1f s, sorted and written in %.1f s\n",
               x->o->output, x->n_documents, x->text.n - x->n_documents, read_s,
               seconds_since(start));
    return rc;
}

static enum sb_status index_files(const struct options *o, const struct sb_texts *files,
                                  struct sb_error *err)
{
    struct index x = { .o = o };
    struct sb_tokenizer *tok = NULL;
    char *path = NULL;
    enum sb_status rc = sb_bundled_resolve(&path, "model", o->model, err);
    if (rc == SB_OK)
        rc = sb_tokenizer_open(&tok, path, err);
    x.tok = tok;
    if (rc == SB_OK)
        rc = build(&x, files, err);
    sb_tokens_finish(&x.text);
    sb_tokenizer_close(tok);
    sb_free(path);
    return rc;
}

int sb_cmd_index(int argc, char **argv)
{
    struct options o = { 0 };
    const struct sb_option options[] = {
        { .name = "model",
          .kind = SB_OPT_TEXT,
          .dst = &o.model,
          .arg = "M",
          .help = "the target that will draft from it: its tokenizer is used" },
        { .name = "output",
          .letter = 'o',
          .kind = SB_OPT_TEXT,
          .dst = &o.output,
          .arg = "FILE",
          .help = "the datastore to write" },
        { .name = "field",
          .kind = SB_OPT_LIST,
          .dst = &o.fields,
          .arg = "NAME",
          .help = "take this field of JSON records only; may be repeated" },
        { 0 },
    };
    struct sb_texts files = { 0 };
    struct sb_error err;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, &files, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && (files.n == 0 || !o.model || !o.output))
        rc = sb_fail(&err, SB_EUSAGE, "expected files, --model and -o; usage: %s", usage.synopsis);
    if (rc == SB_OK)
        rc = index_files(&o, &files, &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    return rc == SB_OK ? 0 : sb_cli_fail("index", &err);
}

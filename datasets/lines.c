/* JSONL: one JSON value a line. Everything a reader of such a file has to mind, once. */
#include "datasets/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "harness/core/alloc.h"

/* The rest of the file, and the line cut off last. */
struct cursor {
    const char *next, *end;
    const char *line; /* without its line end */
    size_t length, number;
};

static struct cursor cursor_start(const char *text, size_t size_bytes)
{
    static const char mark[] = "\xef\xbb\xbf";
    size_t skip = size_bytes >= 3 && memcmp(text, mark, 3) == 0 ? 3 : 0;
    return (struct cursor){ .next = text + skip, .end = text + size_bytes };
}

static bool is_blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

/* Move to the next line that is not blank; false at the end. */
static bool cursor_next(struct cursor *c)
{
    while (c->next < c->end) {
        const char *stop = memchr(c->next, '\n', (size_t)(c->end - c->next));
        c->line = c->next;
        c->length = (size_t)((stop ? stop : c->end) - c->line);
        c->next = stop ? stop + 1 : c->end;
        c->number++;
        if (c->length && c->line[c->length - 1] == '\r')
            c->length--;
        if (!is_blank(c->line, c->length))
            return true;
    }
    return false;
}

/* Jansson checks only what stands inside strings, and its message does not say that the encoding is
 * at fault; so look first. */
static enum sb_status check_utf8(const char *line, size_t length, const struct sb_line *at,
                                 struct sb_error *err)
{
    for (size_t i = 0; i < length;) {
        utf8proc_int32_t point;
        utf8proc_ssize_t step = 1;
        if ((unsigned char)line[i] >= 0x80)
            step = utf8proc_iterate((const utf8proc_uint8_t *)line + i,
                                    (utf8proc_ssize_t)(length - i), &point);
        if (step < 1)
            return sb_line_fail(at, err, "byte %zu is 0x%02x, expected UTF-8", i + 1,
                                (unsigned)(unsigned char)line[i]);
        i += (size_t)step;
    }
    return SB_OK;
}

static enum sb_status parse_line(json_t **out, const struct cursor *c, const struct sb_line *at,
                                 struct sb_error *err)
{
    if (c->length > SB_LINE_BYTES_MAX)
        return sb_line_fail(at, err, "%zu bytes long, expected at most %d", c->length,
                            SB_LINE_BYTES_MAX);
    enum sb_status rc = check_utf8(c->line, c->length, at, err);
    if (rc != SB_OK)
        return rc;
    json_error_t why;
    json_t *value = json_loadb(c->line, c->length, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &why);
    if (!value && json_error_code(&why) == json_error_out_of_memory)
        return sb_fail(err, SB_ENOMEM, "%s: line %zu: out of memory", at->path, at->number);
    if (!value)
        return sb_line_fail(at, err, "byte %d: %s, expected one JSON value", why.position,
                            why.text);
    *out = value;
    return SB_OK;
}

json_t *sb_lines_first(const char *text, size_t size_bytes)
{
    struct cursor c = cursor_start(text, size_bytes);
    json_t *value = NULL;
    if (cursor_next(&c))
        parse_line(&value, &c, &(struct sb_line){ "", c.number }, NULL);
    return value;
}

/* Items so far, and where each stands. */
struct batch {
    struct sb_item *items;
    size_t *lines;
    size_t n, items_cap, lines_cap;
};

static void batch_finish(struct batch *b)
{
    for (size_t i = 0; i < b->n; i++)
        sb_item_finish(&b->items[i]);
    sb_free(b->items);
    sb_free(b->lines);
}

static enum sb_status batch_add(struct batch *b, const json_t *value, const struct sb_line *at,
                                sb_line_reader *read, struct sb_error *err)
{
    if (sb_grow((void **)&b->items, &b->items_cap, b->n + 1, sizeof *b->items) != 0 ||
        sb_grow((void **)&b->lines, &b->lines_cap, b->n + 1, sizeof *b->lines) != 0)
        return sb_fail(err, SB_ENOMEM, "%s: %zu prompts: out of memory", at->path, b->n + 1);
    struct sb_item item = { 0 };
    enum sb_status rc = read(&item, value, at, err);
    if (rc != SB_OK) {
        sb_item_finish(&item);
        return rc;
    }
    b->items[b->n] = item;
    b->lines[b->n++] = at->number;
    return SB_OK;
}

struct id_at {
    int64_t id;
    size_t line;
};

static int by_id_then_line(const void *a, const void *b)
{
    const struct id_at *x = a, *y = b;
    if (x->id != y->id)
        return x->id < y->id ? -1 : 1;
    return (x->line > y->line) - (x->line < y->line);
}

/* Sorted rather than hashed, so that no choice of ids makes it slow. */
static enum sb_status refuse_duplicates(const struct batch *b, const char *path,
                                        struct sb_error *err)
{
    struct id_at *ids = sb_alloc_array(b->n, sizeof *ids);
    if (!ids)
        return sb_fail(err, SB_ENOMEM, "%s: %zu prompts: out of memory", path, b->n);
    for (size_t i = 0; i < b->n; i++)
        ids[i] = (struct id_at){ b->items[i].question_id, b->lines[i] };
    qsort(ids, b->n, sizeof *ids, by_id_then_line);
    enum sb_status rc = SB_OK;
    for (size_t i = 1; i < b->n && rc == SB_OK; i++)
        if (ids[i].id == ids[i - 1].id)
            rc = sb_line_fail(&((struct sb_line){ path, ids[i].line }), err,
                              "question_id: found %" PRId64
                              ", which line %zu has already, expected each once",
                              ids[i].id, ids[i - 1].line);
    sb_free(ids);
    return rc;
}

static enum sb_status read_lines(struct batch *b, const char *path, const char *text,
                                 size_t size_bytes, sb_line_reader *read, struct sb_error *err)
{
    struct cursor c = cursor_start(text, size_bytes);
    while (cursor_next(&c)) {
        const struct sb_line at = { path, c.number };
        json_t *value = NULL;
        enum sb_status rc = parse_line(&value, &c, &at, err);
        if (rc == SB_OK)
            rc = batch_add(b, value, &at, read, err);
        json_decref(value);
        if (rc != SB_OK)
            return rc;
    }
    if (b->n == 0)
        return sb_fail(err, SB_EFORMAT, "%s: found no prompts, expected one a line", path);
    return refuse_duplicates(b, path, err);
}

enum sb_status sb_lines_parse(struct sb_item **items, size_t *n, const char *path, const char *text,
                              size_t size_bytes, sb_line_reader *read, struct sb_error *err)
{
    struct batch b = { 0 };
    enum sb_status rc = read_lines(&b, path, text, size_bytes, read, err);
    if (rc != SB_OK) {
        batch_finish(&b);
        return rc;
    }
    sb_free(b.lines);
    *items = b.items;
    *n = b.n;
    return SB_OK;
}

const char *sb_json_found(const json_t *value)
{
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return json_array_size(value) ? "a list" : "an empty list";
    case JSON_STRING:
        return json_string_length(value) ? "text" : "empty text";
    case JSON_INTEGER:
        return "a whole number";
    case JSON_REAL:
        return "a number with a fraction";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}

enum sb_status sb_line_text(char **out, const json_t *value, const char *field,
                            const struct sb_line *at, struct sb_error *err)
{
    if (!json_is_string(value) || json_string_length(value) == 0)
        return sb_line_fail(at, err, "%s: found %s, expected text", field, sb_json_found(value));
    char *copy = sb_strdup(json_string_value(value));
    if (!copy)
        return sb_fail(err, SB_ENOMEM, "%s: line %zu: out of memory", at->path, at->number);
    *out = copy;
    return SB_OK;
}

enum sb_status sb_item_reserve(struct sb_item *item, size_t n, struct sb_error *err)
{
    item->turns = sb_alloc_zero(n, sizeof *item->turns);
    item->n_turns = item->turns ? n : 0;
    return item->turns ? SB_OK : sb_fail(err, SB_ENOMEM, "%zu turns: out of memory", n);
}

enum sb_status sb_line_turns(struct sb_item *item, const json_t *value, const struct sb_line *at,
                             struct sb_error *err)
{
    if (!json_is_array(value) || json_array_size(value) == 0)
        return sb_line_fail(at, err, "turns: found %s, expected a list of one text or more",
                            sb_json_found(value));
    enum sb_status rc = sb_item_reserve(item, json_array_size(value), err);
    for (size_t i = 0; i < item->n_turns && rc == SB_OK; i++) {
        char field[32];
        snprintf(field, sizeof field, "turns[%zu]", i);
        rc = sb_line_text(&item->turns[i], json_array_get(value, i), field, at, err);
    }
    return rc;
}

const char *sb_task_of(const char *category)
{
    static const char *const conversation[] = {
        "writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"
    };
    for (size_t i = 0; i < sizeof conversation / sizeof *conversation; i++)
        if (strcmp(category, conversation[i]) == 0)
            return "conversation";
    return category;
}

void sb_item_finish(struct sb_item *item)
{
    for (size_t i = 0; i < item->n_turns; i++)
        sb_free(item->turns[i]);
    sb_free(item->turns);
    for (size_t i = 0; i < item->n_documents; i++)
        sb_free(item->documents[i]);
    sb_free(item->documents);
    sb_free(item->category);
    sb_free(item->task);
    *item = (struct sb_item){ 0 };
}

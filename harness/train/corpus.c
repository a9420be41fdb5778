/* Reading the corpora: records of JSON lines. */
#include "harness/train/data.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "harness/core/line_file.h"

static enum sb_status task_index(struct sb_corpus *corpus, const char *name, uint8_t *index,
                                 const char *where, struct sb_error *err)
{
    for (size_t i = 0; i < corpus->n_tasks; i++)
        if (strcmp(corpus->tasks[i], name) == 0) {
            *index = (uint8_t)i;
            return SB_OK;
        }
    if (corpus->n_tasks == SB_MAX_TASKS)
        return sb_fail(err, SB_EFORMAT, "%s: task '%s' is one more than the %d that are kept apart",
                       where, name, SB_MAX_TASKS);
    char *copy = sb_strdup(name);
    if (!copy)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", where);
    *index = (uint8_t)corpus->n_tasks;
    corpus->tasks[corpus->n_tasks++] = copy;
    return SB_OK;
}

static bool turns_are_sound(const json_t *turns)
{
    size_t i;
    json_t *turn;
    if (!json_is_array(turns) || json_array_size(turns) == 0)
        return false;
    json_array_foreach(turns, i, turn)
    {
        if (!json_is_string(json_object_get(turn, "user")) ||
            !json_is_string(json_object_get(turn, "assistant")))
            return false;
    }
    return true;
}

/* Tokens in place of text: "ids" are whole numbers, at least two, and "answer" is a place among them. */
static bool ids_are_sound(const json_t *json)
{
    const json_t *ids = json_object_get(json, "ids"), *from = json_object_get(json, "answer");
    size_t i, n = json_array_size(ids);
    json_t *id;
    json_array_foreach(ids, i, id)
    {
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            return false;
    }
    return n >= 2 && json_is_integer(from) && json_integer_value(from) >= 0 &&
           json_integer_value(from) <= (json_int_t)n;
}

/* Check one line and note what it is. */
static enum sb_status add_record(struct sb_corpus *corpus, const char *line, size_t length,
                                 double held_out, const char *where, struct sb_error *err)
{
    json_error_t why;
    json_t *json = json_loadb(line, length, JSON_REJECT_DUPLICATES, &why);
    if (!json)
        return sb_fail(err, SB_EFORMAT, "%s: not a JSON object: %s", where, why.text);
    const char *task = json_string_value(json_object_get(json, "task"));
    bool sound = json_is_string(json_object_get(json, "text")) || ids_are_sound(json) ||
                 turns_are_sound(json_object_get(json, "turns"));
    struct sb_record record = { .offset = corpus->text_length, .length = length };
    enum sb_status status;
    if (!task)
        status = sb_fail(err, SB_EFORMAT, "%s: field 'task' must be a string", where);
    else if (!sound)
        status =
            sb_fail(err, SB_EFORMAT,
                    "%s: expected 'text' (a string), 'turns' (a list of objects with strings "
                    "'user' and 'assistant'), or 'ids' (tokens) and 'answer' (a place in them)",
                    where);
    else
        status = task_index(corpus, task, &record.task, where, err);
    json_decref(json);
    if (status != SB_OK)
        return status;
    record.held_out = (double)(XXH64(line, length, 0) >> 11) * 0x1p-53 < held_out;
    if (sb_grow((void **)&corpus->records, &corpus->cap_records, corpus->n_records + 1,
                sizeof record) != 0 ||
        sb_grow((void **)&corpus->text, &corpus->text_cap, corpus->text_length + length, 1) != 0)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", where);
    memcpy(corpus->text + corpus->text_length, line, length);
    corpus->text_length += length;
    corpus->hash = XXH64(line, length, corpus->hash);
    corpus->records[corpus->n_records++] = record;
    return SB_OK;
}

static enum sb_status read_lines(struct sb_corpus *corpus, struct sb_line_file *in, double held_out,
                                 struct sb_error *err)
{
    for (;;) {
        bool end = false;
        enum sb_status status = sb_line_file_next(in, &end, err);
        if (status != SB_OK || end)
            return status;
        if (in->length == 0)
            continue;
        char where[300];
        snprintf(where, sizeof where, "%s line %zu", in->path, in->number);
        status = add_record(corpus, in->line, in->length, held_out, where, err);
        if (status != SB_OK)
            return status;
    }
}

static enum sb_status read_file(struct sb_corpus *corpus, const char *path, double held_out,
                                struct sb_error *err)
{
    struct sb_line_file in = { 0 };
    enum sb_status status = sb_line_file_open(&in, path, err);
    if (status == SB_OK)
        status = read_lines(corpus, &in, held_out, err);
    sb_line_file_close(&in);
    return status;
}

enum sb_status sb_corpus_read(struct sb_corpus *corpus, const char *dir, const char *const *files,
                              size_t n_files, double held_out, struct sb_error *err)
{
    *corpus = (struct sb_corpus){ 0 };
    enum sb_status status = SB_OK;
    for (size_t i = 0; i < n_files && status == SB_OK; i++) {
        char *path = dir ? sb_strf("%s/%s", dir, files[i]) : sb_strdup(files[i]);
        status = path ? read_file(corpus, path, held_out, err)
                      : sb_fail(err, SB_ENOMEM, "%s: out of memory", files[i]);
        sb_free(path);
    }
    if (status == SB_OK && corpus->n_records == 0)
        status = sb_fail(err, SB_EINPUT, "data: the %zu files hold no records", n_files);
    if (status != SB_OK)
        sb_corpus_finish(corpus);
    return status;
}

void sb_corpus_finish(struct sb_corpus *corpus)
{
    for (size_t i = 0; i < corpus->n_tasks; i++)
        sb_free(corpus->tasks[i]);
    sb_free(corpus->text);
    sb_free(corpus->records);
    *corpus = (struct sb_corpus){ 0 };
}

static json_t *record_json(const struct sb_corpus *corpus, const struct sb_record *record,
                           struct sb_error *err)
{
    json_t *json = json_loadb(corpus->text + record->offset, record->length, 0, NULL);
    if (!json)
        sb_fail(err, SB_ENOMEM, "training record: out of memory");
    return json;
}

static enum sb_status visit_string(const json_t *string, sb_text_visitor *visit, void *user,
                                   struct sb_error *err)
{
    return visit(user, json_string_value(string), json_string_length(string), err);
}

static enum sb_status visit_record(const json_t *json, sb_text_visitor *visit, void *user,
                                   struct sb_error *err)
{
    if (json_object_get(json, "ids"))
        return SB_OK; /* no text */
    const json_t *text = json_object_get(json, "text");
    if (text)
        return visit_string(text, visit, user, err);
    size_t i;
    json_t *turn;
    json_array_foreach(json_object_get(json, "turns"), i, turn)
    {
        enum sb_status status = visit_string(json_object_get(turn, "user"), visit, user, err);
        if (status == SB_OK)
            status = visit_string(json_object_get(turn, "assistant"), visit, user, err);
        if (status != SB_OK)
            return status;
    }
    return SB_OK;
}

enum sb_status sb_corpus_each_text(const struct sb_corpus *corpus, sb_text_visitor *visit,
                                   void *user, struct sb_error *err)
{
    for (size_t i = 0; i < corpus->n_records; i++) {
        if (corpus->records[i].held_out)
            continue;
        json_t *json = record_json(corpus, &corpus->records[i], err);
        if (!json)
            return SB_ENOMEM;
        enum sb_status status = visit_record(json, visit, user, err);
        json_decref(json);
        if (status != SB_OK)
            return status;
    }
    return SB_OK;
}

/* ---- rendering ------------------------------------------------------------------------------- */

enum sb_status sb_marks_find(struct sb_marks *marks, const struct sb_tokenizer *tok,
                             const char *path, struct sb_error *err)
{
    static const char *const names[] = { "<|bos|>", "<|user|>", "<|assistant|>", "<|end|>" };
    sb_token ids[4];
    for (size_t i = 0; i < 4; i++) {
        ids[i] = sb_tokenizer_find(tok, names[i]);
        if (ids[i] < 0)
            return sb_fail(err, SB_EFORMAT, "%s: the vocabulary has no token '%s'", path, names[i]);
    }
    *marks = (struct sb_marks){ ids[0], ids[1], ids[2], ids[3] };
    return SB_OK;
}

static enum sb_status mark_answers(struct sb_rendered *out, size_t from, bool answer,
                                   struct sb_error *err)
{
    if (sb_grow((void **)&out->answer, &out->cap_answer, out->tokens.n, sizeof *out->answer) != 0)
        return sb_fail(err, SB_ENOMEM, "training record: out of memory");
    for (size_t i = from; i < out->tokens.n; i++)
        out->answer[i] = answer;
    return SB_OK;
}

static enum sb_status put_mark(struct sb_rendered *out, sb_token id, bool answer,
                               struct sb_error *err)
{
    size_t from = out->tokens.n;
    enum sb_status status = sb_tokens_push(&out->tokens, &id, 1, err);
    return status == SB_OK ? mark_answers(out, from, answer, err) : status;
}

static enum sb_status put_text(struct sb_rendered *out, const struct sb_tokenizer *tok,
                               const char *before, const char *text, const char *after, bool answer,
                               struct sb_error *err)
{
    size_t from = out->tokens.n;
    char *whole = sb_strf("%s%s%s", before, text, after);
    if (!whole)
        return sb_fail(err, SB_ENOMEM, "training record: out of memory");
    enum sb_status status =
        sb_tokenizer_encode(tok, &out->tokens, whole, strlen(whole), SB_ENCODE_PLAIN, err);
    sb_free(whole);
    return status == SB_OK ? mark_answers(out, from, answer, err) : status;
}

static enum sb_status render_turn(struct sb_rendered *out, const json_t *turn,
                                  const struct sb_tokenizer *tok, const struct sb_marks *marks,
                                  struct sb_error *err)
{
    const char *user = json_string_value(json_object_get(turn, "user"));
    const char *assistant = json_string_value(json_object_get(turn, "assistant"));
    assistant += strspn(assistant, " \t\r\n"); /* the line break before it is a token of its own */
    enum sb_status status = put_mark(out, marks->user, false, err);
    if (status == SB_OK)
        status = put_text(out, tok, "\n", user, "\n", false, err);
    if (status == SB_OK)
        status = put_mark(out, marks->assistant, false, err);
    if (status == SB_OK)
        status = put_text(out, tok, "\n", "", "", false, err);
    if (status == SB_OK)
        status = put_text(out, tok, "", assistant, "", true, err);
    if (status == SB_OK)
        status = put_mark(out, marks->end, true, err);
    if (status == SB_OK)
        status = put_text(out, tok, "\n", "", "", false, err);
    return status;
}

/* Ids come from a file: each must be of this vocabulary. */
static enum sb_status put_ids(struct sb_rendered *out, const json_t *json,
                              const struct sb_tokenizer *tok, struct sb_error *err)
{
    json_int_t answer = json_integer_value(json_object_get(json, "answer"));
    enum sb_status status = SB_OK;
    size_t i;
    json_t *value;
    json_array_foreach(json_object_get(json, "ids"), i, value)
    {
        json_int_t id = json_integer_value(value);
        if (status == SB_OK && id >= (json_int_t)sb_tokenizer_size(tok))
            status = sb_fail(err, SB_EFORMAT, "training record: token %lld of a vocabulary of %zu",
                             (long long)id, sb_tokenizer_size(tok));
        if (status == SB_OK)
            status = put_mark(out, (sb_token)id, (json_int_t)i >= answer, err);
    }
    return status;
}

static enum sb_status render(struct sb_rendered *out, const json_t *json,
                             const struct sb_tokenizer *tok, const struct sb_marks *marks,
                             struct sb_error *err)
{
    if (json_object_get(json, "ids"))
        return put_ids(out, json, tok, err);
    enum sb_status status = put_mark(out, marks->bos, false, err);
    const char *text = json_string_value(json_object_get(json, "text"));
    if (text) {
        if (status == SB_OK)
            status = put_text(out, tok, "", text, "", true, err);
        return status == SB_OK ? put_mark(out, marks->end, true, err) : status;
    }
    size_t i;
    json_t *turn;
    json_array_foreach(json_object_get(json, "turns"), i, turn)
    {
        if (status == SB_OK)
            status = render_turn(out, turn, tok, marks, err);
    }
    return status;
}

enum sb_status sb_record_render(struct sb_rendered *out, const struct sb_corpus *corpus,
                                const struct sb_record *record, const struct sb_tokenizer *tok,
                                const struct sb_marks *marks, struct sb_error *err)
{
    out->tokens.n = 0;
    json_t *json = record_json(corpus, record, err);
    if (!json)
        return SB_ENOMEM;
    enum sb_status status = render(out, json, tok, marks, err);
    json_decref(json);
    return status;
}

void sb_rendered_finish(struct sb_rendered *rendered)
{
    sb_tokens_finish(&rendered->tokens);
    sb_free(rendered->answer);
    *rendered = (struct sb_rendered){ 0 };
}

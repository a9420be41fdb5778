/* Spec-Bench's answer lines, read with suspicion: every count is checked against what the line holds. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/import.h"

#define FILE_MAX_BYTES ((size_t)1 << 30)
#define TOKENS_MAX     ((json_int_t)1 << 30) /* of a turn */
#define LENGTH_MAX     ((json_int_t)1 << 20) /* of a step */
#define SECONDS_MAX    1e9
#define CHOICES_MAX    1000

/* Where we are, for messages. */
struct place {
    const char *file;
    size_t line;
};

__attribute__((format(printf, 3, 4))) static enum sb_status
refuse(const struct place *at, struct sb_error *err, const char *fmt, ...)
{
    char what[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return sb_fail(err, SB_EFORMAT, "%s: line %zu: %s", at->file, at->line, what);
}

static enum sb_status no_memory(const struct place *at, struct sb_error *err)
{
    return sb_fail(err, SB_ENOMEM, "%s: line %zu: out of memory", at->file, at->line);
}

static bool is_count(const json_t *v, json_int_t max)
{
    return json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= max;
}

static bool are_counts(const json_t *list, json_int_t max)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(list))
        return false;
    json_array_foreach(list, i, v) if (!is_count(v, max)) return false;
    return true;
}

static bool are_seconds(const json_t *list)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(list))
        return false;
    json_array_foreach(list, i, v) if (!json_is_number(v) ||
                                       !(json_number_value(v) > 0 &&
                                         json_number_value(v) <= SECONDS_MAX)) return false;
    return true;
}

static bool are_texts(const json_t *list)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(list) || json_array_size(list) == 0)
        return false;
    json_array_foreach(list, i, v) if (!json_is_string(v)) return false;
    return true;
}

static json_int_t int_at(const json_t *list, size_t i)
{
    return json_integer_value(json_array_get(list, i));
}

/* Lengths of all turns are in one list. decoding_steps says how many are whose, but in some methods it is off
 * by one: what is left over belongs to the last turn, and no sum over the answer changes. */
static bool share_lengths(struct sb_answer *a, const json_t *steps, const json_t *lengths)
{
    size_t n = json_array_size(lengths), from = 0;
    for (size_t t = 0; t < a->n_turns; t++) {
        size_t left = n - from, asked = (size_t)int_at(steps, t);
        size_t mine = t + 1 == a->n_turns || asked > left ? left : asked;
        struct sb_answer_turn *turn = &a->turn[t];
        turn->length = mine ? sb_alloc_array(mine, sizeof *turn->length) : NULL;
        if (mine && !turn->length)
            return false;
        turn->n_lengths = mine;
        for (size_t i = 0; i < mine; i++)
            turn->length[i] = (int32_t)int_at(lengths, from + i);
        from += mine;
    }
    return true;
}

static enum sb_status check_choice(const struct place *at, const json_t *choice, int index,
                                   struct sb_error *err)
{
    static const char *const per_turn[] = { "decoding_steps", "new_tokens", "wall_time" };
    const json_t *turns = json_object_get(choice, "turns");
    const json_t *lengths = json_object_get(choice, "accept_lengths");
    if (!json_is_object(choice) || !are_texts(turns))
        return refuse(at, err, "choices[%d].turns: expected an array of texts", index);
    for (int i = 0; i < 3; i++) {
        const json_t *list = json_object_get(choice, per_turn[i]);
        if (i < 2 ? !are_counts(list, TOKENS_MAX) : !are_seconds(list))
            return refuse(at, err, "choices[%d].%s: expected an array of %s", index, per_turn[i],
                          i < 2 ? "whole numbers" : "seconds above 0");
        if (json_array_size(list) != json_array_size(turns))
            return refuse(at, err, "choices[%d].%s has %zu elements, turns %zu", index, per_turn[i],
                          json_array_size(list), json_array_size(turns));
    }
    if (!are_counts(lengths, LENGTH_MAX))
        return refuse(at, err, "choices[%d].accept_lengths: expected an array of whole numbers",
                      index);
    return SB_OK;
}

static enum sb_status read_choice(struct sb_answer *a, const struct place *at, const json_t *choice,
                                  int index, struct sb_error *err)
{
    enum sb_status rc = check_choice(at, choice, index, err);
    if (rc != SB_OK)
        return rc;
    const json_t *turns = json_object_get(choice, "turns");
    size_t n = json_array_size(turns);
    a->repeat = index;
    if (!(a->turn = sb_alloc_zero(n, sizeof *a->turn)))
        return no_memory(at, err);
    a->n_turns = n;
    for (size_t t = 0; t < n; t++) {
        double s = json_number_value(json_array_get(json_object_get(choice, "wall_time"), t));
        a->turn[t].new_tokens = int_at(json_object_get(choice, "new_tokens"), t);
        a->turn[t].wall_ns = llround(s * 1e9);
        if (!(a->turn[t].text = sb_strdup(json_string_value(json_array_get(turns, t)))))
            return no_memory(at, err);
    }
    return share_lengths(a, json_object_get(choice, "decoding_steps"),
                         json_object_get(choice, "accept_lengths"))
               ? SB_OK
               : no_memory(at, err);
}

static void answer_finish(struct sb_answer *a)
{
    for (size_t t = 0; t < a->n_turns; t++) {
        sb_free(a->turn[t].text);
        sb_free(a->turn[t].length);
    }
    sb_free(a->turn);
    sb_free(a->category);
}

static enum sb_status read_answer(struct sb_answers *out, const struct place *at,
                                  const json_t *line, struct sb_error *err)
{
    const json_t *id = json_object_get(line, "question_id"),
                 *time = json_object_get(line, "tstamp");
    const json_t *category = json_object_get(line, "category");
    const json_t *model = json_object_get(line, "model_id");
    const json_t *choices = json_object_get(line, "choices");
    if (!json_is_object(line))
        return refuse(at, err, "expected an object, an answer of Spec-Bench");
    if (!json_is_integer(id))
        return refuse(at, err, "question_id: expected a whole number");
    if (!json_is_string(category) || !json_string_length(category))
        return refuse(at, err, "category: expected a text");
    if (!json_is_array(choices) || json_array_size(choices) == 0 ||
        json_array_size(choices) > CHOICES_MAX)
        return refuse(at, err, "choices: expected an array of 1 to %d", CHOICES_MAX);
    if (!out->model_id && json_is_string(model) &&
        !(out->model_id = sb_strdup(json_string_value(model))))
        return no_memory(at, err);
    for (size_t i = 0; i < json_array_size(choices); i++) {
        if (sb_grow((void **)&out->item, &out->cap, out->n + 1, sizeof *out->item) != 0)
            return no_memory(at, err);
        struct sb_answer *a = &out->item[out->n++];
        *a = (struct sb_answer){ .question_id = json_integer_value(id),
                                 .time = json_is_number(time) ? json_number_value(time) : 0,
                                 .category = sb_strdup(json_string_value(category)) };
        enum sb_status rc = a->category
                                ? read_choice(a, at, json_array_get(choices, i), (int)i, err)
                                : no_memory(at, err);
        if (rc != SB_OK)
            return rc;
        if (a->n_turns != out->item[out->n - 1 - i].n_turns)
            return refuse(at, err, "choices[%zu] has %zu turns, the first %zu", i, a->n_turns,
                          out->item[out->n - 1 - i].n_turns);
    }
    return SB_OK;
}

static bool is_blank(const char *text, size_t n)
{
    size_t i = 0;
    while (i < n && strchr(" \t\r", text[i]) && text[i])
        i++;
    return i == n;
}

enum sb_status sb_answers_parse(struct sb_answers *out, const char *name, const char *text,
                                size_t size, struct sb_error *err)
{
    struct sb_answers all = { .name = sb_strdup(name) };
    struct place at = { name, 0 };
    enum sb_status rc = all.name ? SB_OK : no_memory(&at, err);
    for (size_t from = 0, end; from < size && rc == SB_OK; from = end + 1) {
        const char *stop = memchr(text + from, '\n', size - from);
        json_error_t why;
        end = stop ? (size_t)(stop - text) : size;
        at.line++;
        if (is_blank(text + from, end - from))
            continue;
        json_t *line = json_loadb(text + from, end - from, JSON_REJECT_DUPLICATES, &why);
        rc = line ? read_answer(&all, &at, line, err)
                  : refuse(&at, err, "no JSON: %.120s", why.text);
        json_decref(line);
    }
    if (rc == SB_OK && all.n == 0)
        rc = sb_fail(err, SB_EFORMAT, "%s: holds no answers", name);
    if (rc == SB_OK)
        *out = all;
    else
        sb_answers_finish(&all);
    return rc;
}

enum sb_status sb_answers_load(struct sb_answers *out, const char *path, struct sb_error *err)
{
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    size_t cap = 0, n = 0, got = 1;
    enum sb_status rc = SB_OK;
    if (!f)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    while (got > 0 && rc == SB_OK) {
        if (n > FILE_MAX_BYTES)
            rc = sb_fail(err, SB_EFORMAT, "%s: larger than 1 GiB, no answer file", path);
        else if (sb_grow((void **)&text, &cap, n + 65536, 1) != 0)
            rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
        else
            n += got = fread(text + n, 1, cap - n, f);
    }
    if (rc == SB_OK && ferror(f))
        rc = sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    fclose(f);
    if (rc == SB_OK)
        rc = sb_answers_parse(out, path, text, n, err);
    sb_free(text);
    return rc;
}

void sb_answers_finish(struct sb_answers *a)
{
    for (size_t i = 0; i < a->n; i++)
        answer_finish(&a->item[i]);
    sb_free(a->item);
    sb_free(a->name);
    sb_free(a->model_id);
    *a = (struct sb_answers){ 0 };
}

/* Plain prompts, one JSON value a line: the prompt as a bare string, or an object with
 *
 *   turns      a list of user texts, or
 *   messages   a list of {role, content} as chat programs log them, or
 *   prompt     one text
 *
 * (the first of these that is there counts), and, where wanted,
 *
 *   question_id or id   a whole number; without one, or when it is text, the line number stands in
 *   documents           a list of texts, or one, that the prompt is about: drafters that copy get them.
 *                       They are no part of the prompt. `context` is another name
 *   category, task      the group; either stands in for the other, "prompts" when neither is there
 *
 * Other keys are ignored, and null is the same as absent. Of messages, the user's become the turns:
 * answers are the model's own here, so the assistant's are passed over; a system text goes in front
 * of the user text after it, as chat templates without a system role have it. */
#include "datasets/internal.h"

#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"

static const char default_group[] = "prompts";

static const json_t *get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static enum sb_status out_of_memory(const struct sb_line *at, struct sb_error *err)
{
    return sb_fail(err, SB_ENOMEM, "%s: line %zu: out of memory", at->path, at->number);
}

static enum sb_status read_id(struct sb_item *item, const json_t *object, const struct sb_line *at,
                              struct sb_error *err)
{
    const char *field = get(object, "question_id") ? "question_id" : "id";
    const json_t *id = get(object, field);
    item->question_id = json_is_integer(id) ? json_integer_value(id) : (int64_t)at->number;
    if (id && !json_is_integer(id) && !json_is_string(id))
        return sb_line_fail(at, err, "%s: found %s, expected a whole number or text", field,
                            sb_json_found(id));
    return SB_OK;
}

static enum sb_status read_group(struct sb_item *item, const json_t *object,
                                 const struct sb_line *at, struct sb_error *err)
{
    const json_t *category = get(object, "category"), *task = get(object, "task");
    enum sb_status rc = SB_OK;
    if (category)
        rc = sb_line_text(&item->category, category, "category", at, err);
    if (rc == SB_OK && task)
        rc = sb_line_text(&item->task, task, "task", at, err);
    if (rc != SB_OK)
        return rc;
    if (!category && !(item->category = sb_strdup(task ? item->task : default_group)))
        return out_of_memory(at, err);
    if (!task && !(item->task = sb_strdup(sb_task_of(item->category))))
        return out_of_memory(at, err);
    return SB_OK;
}

/* One message. `*before` collects system text until the next user message takes it. */
static enum sb_status read_message(struct sb_item *item, const json_t *message, size_t index,
                                   const char **before, const struct sb_line *at,
                                   struct sb_error *err)
{
    const json_t *role = json_object_get(message, "role");
    const json_t *content = json_object_get(message, "content");
    const char *who = json_is_string(role) ? json_string_value(role) : NULL;
    if (!json_is_object(message))
        return sb_line_fail(at, err, "messages[%zu]: found %s, expected an object", index,
                            sb_json_found(message));
    if (!who)
        return sb_line_fail(at, err, "messages[%zu].role: found %s, expected text", index,
                            sb_json_found(role));
    if (strcmp(who, "assistant") == 0)
        return SB_OK;
    if (strcmp(who, "user") != 0 && strcmp(who, "system") != 0)
        return sb_line_fail(at, err,
                            "messages[%zu].role: found '%.40s', expected user, assistant or system",
                            index, who);
    if (!json_is_string(content) || json_string_length(content) == 0)
        return sb_line_fail(at, err, "messages[%zu].content: found %s, expected text", index,
                            sb_json_found(content));
    if (strcmp(who, "system") == 0) {
        if (*before)
            return sb_line_fail(
                at, err, "messages[%zu]: found a second system message, expected user", index);
        *before = json_string_value(content);
        return SB_OK;
    }
    char *turn = sb_strf("%s%s%s", *before ? *before : "", *before ? "\n\n" : "",
                         json_string_value(content));
    if (!turn)
        return out_of_memory(at, err);
    item->turns[item->n_turns++] = turn;
    *before = NULL;
    return SB_OK;
}

static enum sb_status read_messages(struct sb_item *item, const json_t *list,
                                    const struct sb_line *at, struct sb_error *err)
{
    if (!json_is_array(list) || json_array_size(list) == 0)
        return sb_line_fail(at, err, "messages: found %s, expected a list of {role, content}",
                            sb_json_found(list));
    enum sb_status rc = sb_item_reserve(item, json_array_size(list), err);
    if (rc != SB_OK)
        return rc;
    item->n_turns = 0; /* fewer than there is room for: only the user's */
    const char *before = NULL;
    for (size_t i = 0; i < json_array_size(list) && rc == SB_OK; i++)
        rc = read_message(item, json_array_get(list, i), i, &before, at, err);
    if (rc == SB_OK && item->n_turns == 0)
        rc = sb_line_fail(at, err, "messages: found none with role %s, expected one", "user");
    if (rc == SB_OK && before)
        rc = sb_line_fail(at, err, "messages: found a system message last, expected role %s",
                          "user");
    return rc;
}

static enum sb_status read_one_turn(struct sb_item *item, const json_t *value, const char *field,
                                    const struct sb_line *at, struct sb_error *err)
{
    enum sb_status rc = sb_item_reserve(item, 1, err);
    return rc == SB_OK ? sb_line_text(&item->turns[0], value, field, at, err) : rc;
}

static enum sb_status read_turns(struct sb_item *item, const json_t *object,
                                 const struct sb_line *at, struct sb_error *err)
{
    const json_t *turns = get(object, "turns"), *messages = get(object, "messages");
    const json_t *prompt = get(object, "prompt");
    if (turns)
        return sb_line_turns(item, turns, at, err);
    if (messages)
        return read_messages(item, messages, at, err);
    if (prompt)
        return read_one_turn(item, prompt, "prompt", at, err);
    return sb_line_fail(at, err, "found an object without %s", "prompt, turns or messages");
}

/* Empty ones are left out. */
static enum sb_status read_documents(struct sb_item *item, const json_t *object,
                                     const struct sb_line *at, struct sb_error *err)
{
    const char *name = get(object, "documents") ? "documents" : "context";
    const json_t *value = get(object, name);
    if (!value)
        return SB_OK;
    if (!json_is_string(value) && !json_is_array(value))
        return sb_line_fail(at, err, "%s: found %s, expected a list of texts, or one", name,
                            sb_json_found(value));
    size_t n = json_is_array(value) ? json_array_size(value) : 1;
    item->documents = sb_alloc_zero(n, sizeof *item->documents);
    enum sb_status rc = item->documents ? SB_OK : out_of_memory(at, err);
    for (size_t i = 0; i < n && rc == SB_OK; i++) {
        const json_t *text = json_is_array(value) ? json_array_get(value, i) : value;
        char field[40];
        snprintf(field, sizeof field, "%s[%zu]", name, i);
        if (json_is_string(text) && json_string_length(text) == 0)
            continue;
        rc = sb_line_text(&item->documents[item->n_documents], text, field, at, err);
        item->n_documents += rc == SB_OK;
    }
    return rc;
}

static enum sb_status read_prompt(struct sb_item *item, const json_t *value,
                                  const struct sb_line *at, struct sb_error *err)
{
    if (!json_is_object(value) && !json_is_string(value))
        return sb_line_fail(at, err, "found %s, expected text or an object", sb_json_found(value));
    enum sb_status rc = read_id(item, value, at, err);
    if (rc == SB_OK)
        rc = read_group(item, value, at, err);
    if (rc == SB_OK)
        rc = json_is_string(value) ? read_one_turn(item, value, "prompt", at, err)
                                   : read_turns(item, value, at, err);
    if (rc == SB_OK && json_is_object(value))
        rc = read_documents(item, value, at, err);
    return rc;
}

static enum sb_status jsonl_parse(struct sb_item **items, size_t *n, const char *path,
                                  const char *text, size_t size_bytes, struct sb_error *err)
{
    return sb_lines_parse(items, n, path, text, size_bytes, read_prompt, err);
}

const struct sb_reader_ops sb_reader_jsonl = {
    .name = "jsonl",
    .summary = "plain prompts, a line each: text, or an object with prompt, turns or messages",
    .form = "jsonl:FILE",
    .parse = jsonl_parse,
};

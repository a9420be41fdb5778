/* Spec-Bench's question.jsonl (Xia et al. 2024, arXiv 2401.07851): one object a line with
 * question_id, category and turns. Other keys (reference, ...) are not needed to measure speed. */
#include "datasets/internal.h"

#include "harness/core/alloc.h"

static enum sb_status read_question(struct sb_item *item, const json_t *value,
                                    const struct sb_line *at, struct sb_error *err)
{
    if (!json_is_object(value))
        return sb_line_fail(at, err, "found %s, expected an object", sb_json_found(value));
    const json_t *id = json_object_get(value, "question_id");
    if (!json_is_integer(id))
        return sb_line_fail(at, err, "question_id: found %s, expected a whole number",
                            sb_json_found(id));
    item->question_id = json_integer_value(id);
    enum sb_status rc =
        sb_line_text(&item->category, json_object_get(value, "category"), "category", at, err);
    if (rc == SB_OK)
        rc = sb_line_turns(item, json_object_get(value, "turns"), at, err);
    if (rc == SB_OK && !(item->task = sb_strdup(sb_task_of(item->category))))
        rc = sb_fail(err, SB_ENOMEM, "%s: line %zu: out of memory", at->path, at->number);
    return rc;
}

static enum sb_status spec_bench_parse(struct sb_item **items, size_t *n, const char *path,
                                       const char *text, size_t size_bytes, struct sb_error *err)
{
    return sb_lines_parse(items, n, path, text, size_bytes, read_question, err);
}

const struct sb_reader_ops sb_reader_spec_bench = {
    .name = "spec-bench",
    .summary = "Spec-Bench's question.jsonl, or a file in its schema",
    .form = "spec-bench:FILE",
    .parse = spec_bench_parse,
};

const struct sb_reader_ops sb_reader_mini = {
    .name = "mini",
    .summary = "the bundled set: Spec-Bench's six tasks, 12 prompts each",
    .form = "mini",
    .bundled = "datasets/mini.jsonl",
    .parse = spec_bench_parse,
};

/* Baseline files: acceptance records as JSON, one prompt a line.
 *
 *   { "specbench_baseline": 1,
 *     "setup": { "target": "tiny", "target_hash": "...", ... },
 *     "arms": {
 *       "pld": { "method": "pld; greedy; constant", "is_baseline": false, "total": [96, 60, 250],
 *         "prompts": [
 *           ["qa", 81, [48, 30, 125], [12, 4, 2]],
 *           ...
 *
 * A prompt is task, question, [tokens, steps, rows], and how many steps accepted at least 1, 2, ... draft
 * tokens. "total" sums the prompts and is checked, so that a file edited by hand or merged badly is
 * refused. Nothing in it is a time, so it changes only when acceptance does. */
#include "results/record.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/record_fields.h"

#define FILE_MAX_BYTES (64 << 20)
#define COUNT_MAX      ((int64_t)1 << 40) /* as many as fit into a file add up to less than 2^63 */

/* ---- reading ---- */

/* Everything refused in a file goes through here; `what` continues "FILE: ". */
#define refuse(r, err, ...) refuse_at((r), (err), __VA_ARGS__)

__attribute__((format(printf, 3, 4))) static enum sb_status
refuse_at(const struct sb_record *r, struct sb_error *err, const char *fmt, ...)
{
    char what[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    return sb_fail(err, SB_EFORMAT, "%s: %s", r->path, what);
}

static enum sb_status read_field(struct sb_record *r, const struct sb_setup_field *f,
                                 const json_t *value, struct sb_error *err)
{
    bool text = f->kind == SB_FIELD_TEXT;
    if (!value)
        return refuse(r, err, "setup.%s is missing", f->name);
    if (text                      ? !json_is_string(value) && !json_is_null(value)
        : f->kind == SB_FIELD_INT ? !json_is_integer(value)
                                  : !json_is_number(value))
        return refuse(r, err, "setup.%s: expected %s", f->name,
                      text                      ? "a text or null"
                      : f->kind == SB_FIELD_INT ? "a whole number"
                                                : "a number");
    if (f->kind == SB_FIELD_INT)
        *sb_setup_int(&r->setup, f) = json_integer_value(value);
    else if (f->kind == SB_FIELD_REAL)
        *sb_setup_real(&r->setup, f) = json_number_value(value);
    else if (json_is_string(value) &&
             !(*sb_setup_text(&r->setup, f) = sb_strdup(json_string_value(value))))
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", r->path);
    return SB_OK;
}

/* An array of counts, each from 0 to COUNT_MAX; false when it is something else. */
static bool is_counts(const json_t *list)
{
    size_t i;
    const json_t *v;
    if (!json_is_array(list))
        return false;
    json_array_foreach(list, i, v) if (!json_is_integer(v) || json_integer_value(v) < 0 ||
                                       json_integer_value(v) > COUNT_MAX) return false;
    return true;
}

static int64_t count_at(const json_t *list, size_t i)
{
    return json_integer_value(json_array_get(list, i));
}

/* Do the sums of this prompt fit each other? Positions fall, each at most once a step. */
static bool is_possible(int64_t tokens, int64_t steps, int64_t rows, const json_t *accepted)
{
    int64_t above = steps, sum = 0;
    for (size_t k = 0; k < json_array_size(accepted); k++) {
        int64_t n = count_at(accepted, k);
        if (n > above || n == 0)
            return false;
        above = n;
        sum += n;
    }
    return tokens <= steps + sum && rows >= steps + sum;
}

static enum sb_status read_prompt(struct sb_record *r, struct sb_arm_record *arm, const json_t *row,
                                  struct sb_error *err)
{
    const json_t *task = json_array_get(row, 0), *question = json_array_get(row, 1);
    const json_t *sums = json_array_get(row, 2), *accepted = json_array_get(row, 3);
    size_t no = arm->n_prompts + 1;
    if (json_array_size(row) != 4 || !json_is_string(task) || !json_is_integer(question) ||
        !is_counts(sums) || json_array_size(sums) != 3 || !is_counts(accepted))
        return refuse(r, err,
                      "arm '%.80s', prompt %zu: expected [task, question, [tokens, steps, rows],"
                      " [accepted at 1, 2, ...]]",
                      arm->label, no);
    int64_t tokens = count_at(sums, 0), steps = count_at(sums, 1), rows = count_at(sums, 2);
    if (!is_possible(tokens, steps, rows, accepted))
        return refuse(r, err, "arm '%.80s', prompt %zu: its counts contradict each other",
                      arm->label, no);
    struct sb_prompt_counts *p =
        sb_record_add_prompt(arm, json_string_value(task), json_integer_value(question));
    size_t n = json_array_size(accepted);
    if (p && n > 0)
        p->accepted = sb_alloc_array(n, sizeof *p->accepted);
    if (!p || (n > 0 && !p->accepted))
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", r->path);
    p->tokens = tokens;
    p->steps = steps;
    p->rows = rows;
    p->n_accepted = n;
    for (size_t k = 0; k < n; k++)
        p->accepted[k] = count_at(accepted, k);
    return SB_OK;
}

static int compare_prompts(const struct sb_prompt_counts *a, const struct sb_prompt_counts *b)
{
    int d = strcmp(a->task, b->task);
    return d ? d : (a->question_id > b->question_id) - (a->question_id < b->question_id);
}

static struct sb_prompt_counts totals(const struct sb_arm_record *arm)
{
    struct sb_prompt_counts t = { 0 };
    for (size_t i = 0; i < arm->n_prompts; i++) {
        t.tokens += arm->prompt[i].tokens;
        t.steps += arm->prompt[i].steps;
        t.rows += arm->prompt[i].rows;
    }
    return t;
}

static enum sb_status read_arm(struct sb_record *r, const char *label, const json_t *object,
                               struct sb_error *err)
{
    const json_t *method = json_object_get(object, "method"), *row;
    const json_t *is_baseline = json_object_get(object, "is_baseline");
    const json_t *total = json_object_get(object, "total");
    const json_t *prompts = json_object_get(object, "prompts");
    size_t i;
    if (!json_is_string(method) || !json_is_boolean(is_baseline) || !is_counts(total) ||
        json_array_size(total) != 3 || !json_is_array(prompts))
        return refuse(r, err, "arm '%.80s': expected method, is_baseline, total and prompts",
                      label);
    struct sb_arm_record *arm = sb_record_add_arm(r, label, json_string_value(method));
    if (!arm)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", r->path);
    arm->is_baseline = json_is_true(is_baseline);
    json_array_foreach(prompts, i, row)
    {
        enum sb_status rc = read_prompt(r, arm, row, err);
        if (rc != SB_OK)
            return rc;
        if (i > 0 && compare_prompts(&arm->prompt[i - 1], &arm->prompt[i]) >= 0)
            return refuse(r, err, "arm '%.80s', prompt %zu: not in order of task and question",
                          label, i + 1);
    }
    struct sb_prompt_counts t = totals(arm);
    if (count_at(total, 0) != t.tokens || count_at(total, 1) != t.steps ||
        count_at(total, 2) != t.rows)
        return refuse(r, err,
                      "arm '%.80s': total is not the sum of its prompts ([%" PRId64 ", %" PRId64
                      ", %" PRId64 "]); make the baseline anew",
                      label, t.tokens, t.steps, t.rows);
    return SB_OK;
}

static enum sb_status read_root(struct sb_record *r, const json_t *root, struct sb_error *err)
{
    const json_t *version = json_object_get(root, "specbench_baseline");
    const json_t *setup = json_object_get(root, "setup"), *arms = json_object_get(root, "arms");
    const char *label;
    json_t *arm;
    enum sb_status rc = SB_OK;
    if (!json_is_integer(version))
        return refuse(r, err, "JSON, but no specbench baseline (no field specbench_baseline)");
    if (json_integer_value(version) > SB_BASELINE_VERSION)
        return refuse(r, err,
                      "a baseline of version %lld, from a newer specbench; this one reads %d",
                      (long long)json_integer_value(version), SB_BASELINE_VERSION);
    if (json_integer_value(version) < 1)
        return refuse(r, err, "specbench_baseline is %lld, expected 1 to %d",
                      (long long)json_integer_value(version), SB_BASELINE_VERSION);
    if (!json_is_object(setup) || !json_is_object(arms) || json_object_size(arms) == 0)
        return refuse(r, err, "expected the objects setup and arms, with an arm or more");
    for (const struct sb_setup_field *f = sb_setup_fields; f->name && rc == SB_OK; f++)
        rc = read_field(r, f, json_object_get(setup, f->name), err);
    if (rc == SB_OK && r->setup.repeats < 1)
        rc = refuse(r, err, "setup.repeats is %" PRId64 ", expected 1 or more", r->setup.repeats);
    json_object_foreach((json_t *)arms, label, arm) if (rc == SB_OK) rc =
        read_arm(r, label, arm, err);
    return rc;
}

enum sb_status sb_record_parse(struct sb_record *out, const char *name, const char *text,
                               size_t size, struct sb_error *err)
{
    json_error_t why;
    struct sb_record r = { .path = sb_strdup(name) };
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    enum sb_status rc;
    if (!r.path)
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", name);
    else if (!root)
        rc = refuse(&r, err, "neither a results database nor a baseline file (line %d: %.120s)",
                    why.line, why.text);
    else
        rc = read_root(&r, root, err);
    json_decref(root);
    if (rc == SB_OK)
        *out = r;
    else
        sb_record_finish(&r);
    return rc;
}

/* The whole file in new memory, with a NUL behind it. */
static enum sb_status read_file(char **text, size_t *size, const char *path, struct sb_error *err)
{
    FILE *f = fopen(path, "rb");
    size_t cap = 0, n = 0, got = 1;
    char *data = NULL;
    enum sb_status rc = SB_OK;
    if (!f)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    while (got > 0 && rc == SB_OK) {
        if (n > FILE_MAX_BYTES)
            rc = sb_fail(err, SB_EFORMAT, "%s: larger than %d MiB, no baseline file", path,
                         FILE_MAX_BYTES >> 20);
        else if (sb_grow((void **)&data, &cap, n + 4096, 1) != 0)
            rc = sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
        else
            n += got = fread(data + n, 1, cap - n - 1, f);
    }
    if (rc == SB_OK && ferror(f))
        rc = sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    fclose(f);
    if (rc != SB_OK) {
        sb_free(data);
        return rc;
    }
    data[n] = '\0';
    *text = data;
    *size = n;
    return SB_OK;
}

static bool is_database(const char *path)
{
    static const char magic[16] = "SQLite format 3";
    char head[sizeof magic] = { 0 };
    FILE *f = fopen(path, "rb");
    bool yes = f && fread(head, 1, sizeof head, f) == sizeof head &&
               memcmp(head, magic, sizeof magic) == 0;
    if (f)
        fclose(f);
    return yes;
}

enum sb_status sb_record_open(struct sb_record *out, const char *path, int64_t experiment_id,
                              struct sb_error *err)
{
    struct sb_store *store = NULL;
    char *text = NULL;
    size_t size = 0;
    enum sb_status rc;
    if (!is_database(path)) {
        rc = read_file(&text, &size, path, err);
        if (rc == SB_OK)
            rc = sb_record_parse(out, path, text, size, err);
        sb_free(text);
        return rc;
    }
    const struct sb_store_options options = { .must_exist = true, .read_only = true };
    rc = sb_store_open(&store, path, &options, err);
    if (rc == SB_OK)
        rc = sb_record_read_store(out, store, experiment_id, err);
    sb_store_close(store);
    return rc;
}

/* ---- writing ---- */

/* A text as JSON, or null; false out of memory. */
static bool put_text(FILE *f, const char *text)
{
    json_t *value = text ? json_string(text) : json_null();
    bool good = value && json_dumpf(value, f, JSON_ENCODE_ANY) == 0;
    json_decref(value);
    return good;
}

/* The shortest text that reads back as the same number. */
static void put_real(FILE *f, double value)
{
    char text[32];
    int digits = 15;
    do
        snprintf(text, sizeof text, "%.*g", digits, value);
    while (strtod(text, NULL) != value && ++digits <= 17);
    fputs(text, f);
}

static bool put_setup(FILE *f, const struct sb_setup *setup)
{
    struct sb_setup *s = (struct sb_setup *)setup;
    bool good = true;
    for (const struct sb_setup_field *x = sb_setup_fields; x->name && good; x++) {
        fprintf(f, "%s\n    \"%s\": ", x == sb_setup_fields ? "" : ",", x->name);
        if (x->kind == SB_FIELD_TEXT)
            good = put_text(f, *sb_setup_text(s, x));
        else if (x->kind == SB_FIELD_INT)
            fprintf(f, "%" PRId64, *sb_setup_int(s, x));
        else
            put_real(f, *sb_setup_real(s, x));
    }
    return good;
}

static bool put_prompt(FILE *f, const struct sb_prompt_counts *p)
{
    fputs("        [", f);
    bool good = put_text(f, p->task);
    fprintf(f, ", %" PRId64 ", [%" PRId64 ", %" PRId64 ", %" PRId64 "], [", p->question_id,
            p->tokens, p->steps, p->rows);
    for (size_t k = 0; k < p->n_accepted; k++)
        fprintf(f, "%s%" PRId64, k ? ", " : "", p->accepted[k]);
    fputs("]]", f);
    return good;
}

static bool put_arm(FILE *f, const struct sb_arm_record *arm)
{
    struct sb_prompt_counts t = totals(arm);
    fputs("    ", f);
    bool good = put_text(f, arm->label);
    fputs(": {\n      \"method\": ", f);
    good = good && put_text(f, arm->method);
    fprintf(f,
            ",\n      \"is_baseline\": %s,\n      \"total\": [%" PRId64 ", %" PRId64 ", %" PRId64
            "],\n      \"prompts\": [",
            arm->is_baseline ? "true" : "false", t.tokens, t.steps, t.rows);
    for (size_t i = 0; i < arm->n_prompts && good; i++) {
        fputs(i ? ",\n" : "\n", f);
        good = put_prompt(f, &arm->prompt[i]);
    }
    fputs("\n      ]\n    }", f);
    return good;
}

enum sb_status sb_record_write(const struct sb_record *r, FILE *f, struct sb_error *err)
{
    for (size_t i = 0; i < r->n_arms; i++)
        if (r->arm[i].incomplete || r->arm[i].n_prompts == 0)
            return sb_fail(
                err, SB_EINPUT,
                "%s: arm '%.80s' is not finished (%.200s), so it makes no baseline: resume"
                " the run",
                r->path, r->arm[i].label,
                r->arm[i].incomplete ? r->arm[i].incomplete : "no prompt at all");
    fprintf(f, "{\n  \"specbench_baseline\": %d,\n  \"setup\": {", SB_BASELINE_VERSION);
    bool good = put_setup(f, &r->setup);
    fputs("\n  },\n  \"arms\": {\n", f);
    for (size_t i = 0; i < r->n_arms && good; i++) {
        good = put_arm(f, &r->arm[i]);
        fputs(i + 1 < r->n_arms ? ",\n" : "\n", f);
    }
    fputs("  }\n}\n", f);
    if (!good)
        return sb_fail(err, SB_ENOMEM, "%s: its labels are no UTF-8, or memory ran out", r->path);
    return SB_OK;
}

/* Exports: which experiment, which arms, where to; and raw steps, which need no more than that. */
#include "results/export.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <utf8proc.h>

#include "harness/core/alloc.h"
#include "results/export_internal.h"

const struct sb_export_info sb_export_formats[] = {
    { "spec-bench", "answer files of Spec-Bench, one per arm", SB_EXPORT_SPEC_BENCH },
    { "acceptance-json", "acceptance counters and histograms per arm", SB_EXPORT_ACCEPTANCE },
    { "steps-csv", "every step, a row each", SB_EXPORT_STEPS_CSV },
    { "steps-jsonl", "every step, an object per line", SB_EXPORT_STEPS_JSONL },
    { "csv", "short for steps-csv", SB_EXPORT_STEPS_CSV },
    { "jsonl", "short for steps-jsonl", SB_EXPORT_STEPS_JSONL },
    { 0 },
};

enum sb_status sb_export_format_parse(enum sb_export_format *out, const char *name,
                                      struct sb_error *err)
{
    for (const struct sb_export_info *f = sb_export_formats; f->name; f++)
        if (strcmp(f->name, name) == 0) {
            *out = f->format;
            return SB_OK;
        }
    return sb_fail(err, SB_EUSAGE,
                   "format '%s': expected spec-bench, acceptance-json, steps-csv or steps-jsonl",
                   name);
}

char *sb_clean_text(const char *text)
{
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t left = (utf8proc_ssize_t)strlen(text), used;
    char *out = sb_alloc_array((size_t)left + 1, 3); /* a stray byte becomes three */
    if (!out)
        return NULL;
    char *o = out;
    for (; left > 0; p += used, left -= used) {
        utf8proc_int32_t code;
        used = utf8proc_iterate(p, left, &code);
        if (used < 1) {
            used = 1;
            code = 0xFFFD;
        }
        o += utf8proc_encode_char(code, (utf8proc_uint8_t *)o);
    }
    *o = '\0';
    return out;
}

/* ---- which experiment and arms ---- */

static enum sb_status choose_experiment(struct sb_export *x, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(
        &st, x->store,
        "SELECT e.id, e.repeats, coalesce((SELECT id FROM arm WHERE experiment_id = e.id"
        " AND is_baseline = 1 ORDER BY arm_no LIMIT 1), 0) FROM experiment e"
        " WHERE e.id = CASE ?1 WHEN 0 THEN (SELECT max(id) FROM experiment) ELSE ?1 END",
        err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, x->options->experiment_id);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        x->experiment_id = sqlite3_column_int64(st, 0);
        x->repeats = sqlite3_column_int64(st, 1);
        x->baseline_id = sqlite3_column_int64(st, 2);
    } else if (rc != SQLITE_DONE) {
        status = sb_sqlite_fail(err, x->store, rc, "read");
    } else if (x->options->experiment_id) {
        status = sb_fail(err, SB_EUSAGE, "%s: has no experiment %" PRId64, x->store->path,
                         x->options->experiment_id);
    } else {
        status = sb_fail(err, SB_EINPUT, "%s: holds no experiment yet", x->store->path);
    }
    sqlite3_finalize(st);
    return status;
}

static bool is_wanted(const struct sb_export_options *o, const char *label)
{
    for (size_t i = 0; i < o->n_arms; i++)
        if (strcmp(o->arm[i], label) == 0)
            return true;
    return o->n_arms == 0;
}

static enum sb_status choose_arms(struct sb_export *x, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(
        &st, x->store, "SELECT id, label FROM arm WHERE experiment_id = ?1 ORDER BY arm_no", err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, x->experiment_id);
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW && status == SB_OK) {
        const char *label = (const char *)sqlite3_column_text(st, 1);
        if (!label || !is_wanted(x->options, label))
            continue;
        char *copy = sb_strdup(label);
        if (!copy || sb_grow((void **)&x->arm, &x->arm_cap, x->n_arms + 1, sizeof *x->arm) != 0) {
            sb_free(copy);
            status = sb_fail(err, SB_ENOMEM, "%s: out of memory for its arms", x->store->path);
            break;
        }
        x->arm[x->n_arms++] = (struct sb_export_arm){ sqlite3_column_int64(st, 0), copy };
    }
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, x->store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* Every label that was asked for must be there. */
static enum sb_status check_arms(const struct sb_export *x, struct sb_error *err)
{
    for (size_t i = 0; i < x->options->n_arms; i++) {
        size_t k = 0;
        while (k < x->n_arms && strcmp(x->arm[k].label, x->options->arm[i]) != 0)
            k++;
        if (k == x->n_arms)
            return sb_fail(err, SB_EUSAGE,
                           "%s: experiment %" PRId64 " has no arm '%.80s'; specbench report shows"
                           " its arms",
                           x->store->path, x->experiment_id, x->options->arm[i]);
    }
    if (x->n_arms == 0)
        return sb_fail(err, SB_EINPUT, "%s: experiment %" PRId64 " has no arms", x->store->path,
                       x->experiment_id);
    if (x->options->repeat > x->repeats)
        return sb_fail(err, SB_EUSAGE, "--repeat %" PRId64 ": experiment %" PRId64 " has %" PRId64,
                       x->options->repeat, x->experiment_id, x->repeats);
    return SB_OK;
}

/* ---- raw steps ---- */

/* The first two columns are texts. */
static const char *const steps_sql =
    "SELECT a.label AS arm, p.task, p.question_id, p.turn, g.repeat, s.step_no, s.context, s.drafted,"
    " s.auxiliary, s.depth, s.accepted, s.decided, s.tokens, s.bonus, s.draft_ns, s.verify_ns,"
    " s.accept_ns, s.commit_ns, s.observe_ns"
    " FROM arm a JOIN generation g ON g.arm_id = a.id JOIN prompt p ON p.id = g.prompt_id"
    " JOIN step s ON s.generation_id = g.id"
    " WHERE a.id = ?1 AND g.status = 'ok' AND (?2 = 0 OR g.repeat = ?2 - 1)"
    " ORDER BY g.repeat, p.id, s.step_no";
enum { STEP_TEXTS = 2 };

static void put_quoted(FILE *out, const char *text, char escape)
{
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || (*text == '\\' && escape == '\\'))
            fputc(escape, out);
        if ((unsigned char)*text < 0x20 && escape == '\\')
            fprintf(out, "\\u%04x", (unsigned char)*text);
        else
            fputc(*text, out);
    }
    fputc('"', out);
}

static bool put_step(FILE *out, sqlite3_stmt *st, bool json)
{
    for (int c = 0; c < sqlite3_column_count(st); c++) {
        fputs(c ? (json ? ", " : ",") : json ? "{" : "", out);
        if (json)
            fprintf(out, "\"%s\": ", sqlite3_column_name(st, c));
        if (c >= STEP_TEXTS) {
            fprintf(out, "%lld", (long long)sqlite3_column_int64(st, c));
            continue;
        }
        const char *value = (const char *)sqlite3_column_text(st, c);
        char *text = sb_clean_text(value ? value : "");
        if (!text)
            return false;
        if (json || strpbrk(text, ",\"\r\n"))
            put_quoted(out, text, json ? '\\' : '"');
        else
            fputs(text, out);
        sb_free(text);
    }
    fputs(json ? "}\n" : "\n", out);
    return true;
}

static enum sb_status export_steps(struct sb_export *x, FILE *out, bool json, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, x->store, steps_sql, err);
    if (status != SB_OK)
        return status;
    for (int c = 0; c < sqlite3_column_count(st) && !json; c++)
        fprintf(out, "%s%s", c ? "," : "", sqlite3_column_name(st, c));
    if (!json)
        fputc('\n', out);
    for (size_t i = 0; i < x->n_arms && status == SB_OK; i++) {
        int rc = sb_sqlite_bind(st, "ii", x->arm[i].id, x->options->repeat);
        while (rc == SQLITE_OK || rc == SQLITE_ROW) {
            rc = sqlite3_step(st);
            if (rc == SQLITE_ROW && !put_step(out, st, json))
                rc = SQLITE_NOMEM;
            x->result->rows += rc == SQLITE_ROW;
        }
        if (rc != SQLITE_DONE)
            status = sb_sqlite_fail(err, x->store, rc, "read");
        sqlite3_reset(st);
    }
    sqlite3_finalize(st);
    return status;
}

/* ---- where to ---- */

static enum sb_status to_one_file(struct sb_export *x, struct sb_error *err)
{
    const char *path = x->options->path, *name = path ? path : "standard output";
    FILE *out = path ? fopen(path, "wb") : stdout;
    if (!out)
        return sb_fail(err, SB_EIO, "%s: %s", name, strerror(errno));
    enum sb_status rc =
        x->options->format == SB_EXPORT_ACCEPTANCE
            ? sb_export_acceptance(x, out, err)
            : export_steps(x, out, x->options->format == SB_EXPORT_STEPS_JSONL, err);
    bool failed = fflush(out) != 0 || ferror(out);
    if (path && fclose(out) != 0)
        failed = true;
    if (rc == SB_OK && failed)
        rc = sb_fail(err, SB_EIO, "%s: %s", name, strerror(errno));
    x->result->files = 1;
    return rc;
}

enum sb_status sb_export(struct sb_export_result *out, struct sb_store *store,
                         const struct sb_export_options *options, struct sb_error *err)
{
    struct sb_export_result result = { 0 };
    struct sb_export x = { .store = store, .options = options, .result = &result };
    enum sb_status rc = choose_experiment(&x, err);
    if (rc == SB_OK)
        rc = choose_arms(&x, err);
    if (rc == SB_OK)
        rc = check_arms(&x, err);
    if (rc == SB_OK)
        rc = options->format == SB_EXPORT_SPEC_BENCH ? sb_export_spec_bench(&x, err)
                                                     : to_one_file(&x, err);
    for (size_t i = 0; i < x.n_arms; i++)
        sb_free(x.arm[i].label);
    sb_free(x.arm);
    if (rc == SB_OK)
        *out = result;
    return rc;
}

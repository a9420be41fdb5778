/* Answer files as Spec-Bench's evaluation/eval.py writes them and evaluation/speed.py reads them: a line per
 * question with question_id, category, answer_id, model_id, choices [{index, turns, decoding_steps,
 * new_tokens, wall_time, accept_lengths}], tstamp. Per turn: the text, its steps, its tokens, seconds; the
 * accepted lengths (tokens kept by a step) of all turns in one list.
 *
 * Its runs are files (model_answer_run_1/NAME.jsonl, ...), so each repeat is a file here too. new_tokens and
 * wall_time include the prefill and its token, as theirs do; that token is no step. A question counts when
 * every exported arm and the baseline finished all its turns, so that all files hold the same questions. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <xxhash.h>

#include "harness/core/alloc.h"
#include "results/export_internal.h"

struct question {
    int64_t id;
    char *task;
};

struct questions {
    struct question *item;
    size_t n, cap;
};

/* ?1: arms as a JSON array; ?2: repeat from 0. */
static const char *const common_sql =
    "SELECT task, question_id FROM ("
    "  SELECT g.arm_id, p.task, p.question_id FROM generation g JOIN prompt p ON p.id = g.prompt_id"
    "  WHERE g.arm_id IN (SELECT value FROM json_each(?1)) AND g.repeat = ?2 AND g.status = 'ok'"
    "  GROUP BY g.arm_id, p.task, p.question_id HAVING count(*) = max(p.n_turns))"
    " GROUP BY task, question_id HAVING count(*) = json_array_length(?1)"
    " ORDER BY question_id, task";
static const char *const all_sql =
    "SELECT count(*) FROM (SELECT DISTINCT task, question_id FROM prompt WHERE experiment_id = ?1)";
/* Of one answer: ?1 arm, ?2 repeat, ?3 question, ?4 task, ?5 experiment. Task conversation is their
 * mt_bench, whose categories are finer. */
static const char *const turns_sql =
    "SELECT g.id, g.text, g.n_tokens,"
    " CASE e.origin WHEN 'run' THEN g.prefill_ns + g.decode_ns ELSE g.wall_ns END,"
    " CASE p.task WHEN 'conversation' THEN coalesce(p.category, p.task) ELSE p.task END,"
    " CAST(strftime('%s', g.started_at) AS INTEGER)"
    " FROM prompt p JOIN generation g ON g.prompt_id = p.id AND g.arm_id = ?1 AND g.repeat = ?2"
    " JOIN experiment e ON e.id = p.experiment_id"
    " WHERE p.experiment_id = ?5 AND p.question_id = ?3 AND p.task = ?4 ORDER BY p.turn";
static const char *const lengths_sql =
    "SELECT tokens FROM step WHERE generation_id = ?1 ORDER BY step_no";

/* ---- questions that every file will hold ---- */

static void questions_finish(struct questions *q)
{
    for (size_t i = 0; i < q->n; i++)
        sb_free(q->item[i].task);
    sb_free(q->item);
}

static bool questions_add(struct questions *q, const char *task, int64_t id)
{
    char *copy = task ? sb_strdup(task) : NULL;
    if (!copy || sb_grow((void **)&q->item, &q->cap, q->n + 1, sizeof *q->item) != 0) {
        sb_free(copy);
        return false;
    }
    q->item[q->n++] = (struct question){ id, copy };
    return true;
}

/* "[1,2]": the exported arms and the baseline, in new memory. */
static char *arm_ids(const struct sb_export *x)
{
    json_t *list = json_array();
    bool has_baseline = x->baseline_id == 0;
    for (size_t i = 0; i < x->n_arms; i++) {
        json_array_append_new(list, json_integer(x->arm[i].id));
        has_baseline = has_baseline || x->arm[i].id == x->baseline_id;
    }
    if (!has_baseline)
        json_array_append_new(list, json_integer(x->baseline_id));
    char *text = json_dumps(list, JSON_COMPACT);
    json_decref(list);
    return text;
}

static enum sb_status common_questions(struct questions *q, struct sb_export *x, int64_t repeat,
                                       struct sb_error *err)
{
    sqlite3_stmt *st;
    char *ids = arm_ids(x);
    if (!ids)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", x->store->path);
    enum sb_status status = sb_sqlite_prepare(&st, x->store, common_sql, err);
    if (status == SB_OK) {
        int rc = sb_sqlite_bind(st, "ti", ids, repeat);
        while (rc == SQLITE_OK || rc == SQLITE_ROW) {
            rc = sqlite3_step(st);
            if (rc == SQLITE_ROW && !questions_add(q, (const char *)sqlite3_column_text(st, 0),
                                                   sqlite3_column_int64(st, 1)))
                rc = SQLITE_NOMEM;
        }
        if (rc != SQLITE_DONE)
            status = sb_sqlite_fail(err, x->store, rc, "read");
        sqlite3_finalize(st);
    }
    free(ids);
    return status;
}

static enum sb_status count_questions(size_t *n, struct sb_export *x, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, x->store, all_sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, x->experiment_id);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *n = (size_t)sqlite3_column_int64(st, 0);
    else
        status = sb_sqlite_fail(err, x->store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* ---- an answer ---- */

/* What is prepared once for a file. */
struct reader {
    sqlite3_stmt *turns, *lengths;
};

struct answer {
    json_t *turns, *steps, *tokens, *seconds, *lengths;
    char category[80];
    int64_t time;
};

static void answer_finish(struct answer *a)
{
    json_decref(a->turns);
    json_decref(a->steps);
    json_decref(a->tokens);
    json_decref(a->seconds);
    json_decref(a->lengths);
}

/* The kept tokens of a generation's steps, behind those of the turns before; their number in *n. */
static int add_lengths(struct answer *a, sqlite3_stmt *st, int64_t generation_id, int64_t *n)
{
    sqlite3_bind_int64(st, 1, generation_id);
    int rc;
    for (*n = 0; (rc = sqlite3_step(st)) == SQLITE_ROW; ++*n)
        if (json_array_append_new(a->lengths, json_integer(sqlite3_column_int64(st, 0))) != 0)
            return SQLITE_NOMEM;
    sqlite3_reset(st);
    return rc;
}

static int add_turn(struct answer *a, const struct reader *r)
{
    const char *raw = (const char *)sqlite3_column_text(r->turns, 1);
    const char *category = (const char *)sqlite3_column_text(r->turns, 4);
    char *text = sb_clean_text(raw ? raw : "");
    int64_t steps = 0;
    int rc = add_lengths(a, r->lengths, sqlite3_column_int64(r->turns, 0), &steps);
    bool good =
        text && rc == SQLITE_DONE && json_array_append_new(a->turns, json_string(text)) == 0 &&
        json_array_append_new(a->steps, json_integer(steps)) == 0 &&
        json_array_append_new(a->tokens, json_integer(sqlite3_column_int64(r->turns, 2))) == 0 &&
        json_array_append_new(a->seconds, json_real(sqlite3_column_double(r->turns, 3) / 1e9)) == 0;
    snprintf(a->category, sizeof a->category, "%s", category ? category : "");
    a->time = sqlite3_column_int64(r->turns, 5);
    sb_free(text);
    return rc == SQLITE_DONE && !good ? SQLITE_NOMEM : rc;
}

/* A name for the answer that is the same in every export of it. */
static void answer_name(char name[17], const char *label, const struct question *q, int64_t repeat)
{
    char text[200];
    int n = snprintf(text, sizeof text, "%.120s/%" PRId64 "/%" PRId64 "/%.30s", label, q->id,
                     repeat, q->task);
    snprintf(name, 17, "%016" PRIx64, (uint64_t)XXH64(text, (size_t)n, 0));
}

static bool put_answer(FILE *out, const struct answer *a, const char *label,
                       const struct question *q, int64_t repeat)
{
    char name[17];
    answer_name(name, label, q, repeat);
    char *model = sb_clean_text(label), *category = sb_clean_text(a->category);
    json_t *line =
        model && category
            ? json_pack("{s:I, s:s, s:s, s:s, s:[{s:i, s:O, s:O, s:O, s:O, s:O}], s:f}",
                        "question_id", (json_int_t)q->id, "category", category, "answer_id", name,
                        "model_id", model, "choices", "index", 0, "turns", a->turns,
                        "decoding_steps", a->steps, "new_tokens", a->tokens, "wall_time",
                        a->seconds, "accept_lengths", a->lengths, "tstamp", (double)a->time)
            : NULL;
    bool good = line && json_dumpf(line, out, 0) == 0;
    fputc('\n', out);
    json_decref(line);
    sb_free(model);
    sb_free(category);
    return good;
}

static enum sb_status export_answer(struct sb_export *x, FILE *out, const struct reader *r,
                                    const struct sb_export_arm *arm, const struct question *q,
                                    int64_t repeat, struct sb_error *err)
{
    struct answer a = {
        json_array(), json_array(), json_array(), json_array(), json_array(), "", 0
    };
    sqlite3_reset(r->turns);
    int rc = sb_sqlite_bind(r->turns, "iiiti", arm->id, repeat, q->id, q->task, x->experiment_id);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(r->turns);
        if (rc == SQLITE_ROW && (rc = add_turn(&a, r)) == SQLITE_DONE)
            rc = SQLITE_ROW;
    }
    if (rc == SQLITE_DONE && !put_answer(out, &a, arm->label, q, repeat))
        rc = SQLITE_NOMEM;
    answer_finish(&a);
    x->result->rows++;
    return rc == SQLITE_DONE ? SB_OK : sb_sqlite_fail(err, x->store, rc, "read");
}

static enum sb_status export_answers(struct sb_export *x, FILE *out, const struct questions *q,
                                     const struct sb_export_arm *arm, int64_t repeat,
                                     struct sb_error *err)
{
    struct reader r = { 0 };
    enum sb_status rc = sb_sqlite_prepare(&r.turns, x->store, turns_sql, err);
    if (rc == SB_OK)
        rc = sb_sqlite_prepare(&r.lengths, x->store, lengths_sql, err);
    for (size_t i = 0; i < q->n && rc == SB_OK; i++)
        rc = export_answer(x, out, &r, arm, &q->item[i], repeat, err);
    sqlite3_finalize(r.turns);
    sqlite3_finalize(r.lengths);
    return rc;
}

/* ---- files ---- */

enum { SLUG_BYTES = 120 };

static void slug(char out[SLUG_BYTES], const char *label)
{
    size_t n = 0;
    for (const char *p = label; *p && n + 1 < SLUG_BYTES; p++)
        out[n++] = isalnum((unsigned char)*p) || strchr("._-=", *p) ? *p : '-';
    out[n] = '\0';
    if (out[0] == '.')
        out[0] = '-';
}

/* A label as a file name in new memory; labels that become the same get their place behind it. */
static char *file_name(const struct sb_export *x, size_t arm, const char *folder)
{
    char mine[SLUG_BYTES], other[SLUG_BYTES];
    bool twin = false;
    slug(mine, x->arm[arm].label);
    for (size_t k = 0; k < x->n_arms; k++) {
        slug(other, x->arm[k].label);
        twin = twin || (k != arm && strcmp(mine, other) == 0);
    }
    return twin ? sb_strf("%s/%s-%zu.jsonl", folder, mine, arm)
                : sb_strf("%s/%s.jsonl", folder, mine);
}

static enum sb_status export_file(struct sb_export *x, const char *path, const struct questions *q,
                                  size_t arm, int64_t repeat, struct sb_error *err)
{
    if (!path)
        return sb_fail(err, SB_ENOMEM, "out of memory for a file name");
    FILE *out = fopen(path, "wb");
    if (!out)
        return sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno));
    enum sb_status rc = export_answers(x, out, q, &x->arm[arm], repeat, err);
    bool failed = ferror(out) != 0;
    failed = fclose(out) != 0 || failed;
    x->result->files++;
    return rc == SB_OK && failed ? sb_fail(err, SB_EIO, "%s: %s", path, strerror(errno)) : rc;
}

static enum sb_status make_folder(const char *path, struct sb_error *err)
{
    struct stat st;
    if (mkdir(path, 0777) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return SB_OK;
    return sb_fail(err, SB_EIO, "%s: cannot make this folder: %s", path, strerror(errno));
}

/* One repeat into files of a folder: FOLDER/run_N when the experiment has several. */
static enum sb_status export_run(struct sb_export *x, int64_t repeat, size_t n_questions,
                                 struct sb_error *err)
{
    const char *root = x->options->path;
    bool nested = x->repeats > 1 && x->options->repeat == 0;
    char *folder = nested ? sb_strf("%s/run_%" PRId64, root, repeat + 1) : sb_strdup(root);
    struct questions q = { 0 };
    enum sb_status rc =
        folder ? make_folder(root, err) : sb_fail(err, SB_ENOMEM, "out of memory for a file name");
    if (rc == SB_OK && nested)
        rc = make_folder(folder, err);
    if (rc == SB_OK)
        rc = common_questions(&q, x, repeat, err);
    for (size_t i = 0; i < x->n_arms && rc == SB_OK; i++) {
        char *path = file_name(x, i, folder);
        rc = export_file(x, path, &q, i, repeat, err);
        sb_free(path);
    }
    x->result->left_out += n_questions - q.n;
    questions_finish(&q);
    sb_free(folder);
    return rc;
}

/* One arm and one repeat into the file that was named. */
static enum sb_status export_single(struct sb_export *x, size_t n_questions, struct sb_error *err)
{
    int64_t repeat = x->options->repeat ? x->options->repeat - 1 : 0;
    struct questions q = { 0 };
    if (x->n_arms > 1 || (x->repeats > 1 && x->options->repeat == 0))
        return sb_fail(err, SB_EUSAGE,
                       "%s: %zu arms and %" PRId64
                       " repeats make several files: name a folder with -o,"
                       " or choose with --arm and --repeat",
                       x->options->path, x->n_arms, x->options->repeat ? 1 : x->repeats);
    enum sb_status rc = common_questions(&q, x, repeat, err);
    if (rc == SB_OK)
        rc = export_file(x, x->options->path, &q, 0, repeat, err);
    x->result->left_out = n_questions - q.n;
    questions_finish(&q);
    return rc;
}

/* One repeat to standard output, arms behind each other: model_id tells them apart. */
static enum sb_status export_stream(struct sb_export *x, int64_t repeat, size_t n_questions,
                                    struct sb_error *err)
{
    struct questions q = { 0 };
    enum sb_status rc = common_questions(&q, x, repeat, err);
    for (size_t i = 0; i < x->n_arms && rc == SB_OK; i++)
        rc = export_answers(x, stdout, &q, &x->arm[i], repeat, err);
    x->result->left_out += n_questions - q.n;
    questions_finish(&q);
    return rc;
}

/* A file: what is one, or would be one by its name. */
static bool names_a_file(const char *path)
{
    struct stat st;
    size_t n = strlen(path);
    if (stat(path, &st) == 0)
        return !S_ISDIR(st.st_mode);
    return n > 6 && strcmp(path + n - 6, ".jsonl") == 0;
}

enum sb_status sb_export_spec_bench(struct sb_export *x, struct sb_error *err)
{
    size_t n_questions = 0;
    enum sb_status rc = count_questions(&n_questions, x, err);
    if (rc == SB_OK && x->options->path && names_a_file(x->options->path))
        return export_single(x, n_questions, err);
    int64_t from = x->options->repeat ? x->options->repeat - 1 : 0;
    int64_t to = x->options->repeat ? x->options->repeat : x->repeats;
    for (int64_t repeat = from; repeat < to && rc == SB_OK; repeat++)
        rc = (x->options->path ? export_run : export_stream)(x, repeat, n_questions, err);
    return rc;
}

/* Acceptance records in memory: reading them from a database, comparing their set-ups. */
#include "results/record.h"

#include <inttypes.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/internal.h"
#include "results/record_fields.h"

#define TEXT(f, w, how)                                         \
    {                                                           \
#f, w, offsetof(struct sb_setup, f), SB_FIELD_TEXT, how \
    }
#define WHOLE(f, w, how)                                       \
    {                                                          \
#f, w, offsetof(struct sb_setup, f), SB_FIELD_INT, how \
    }
#define REAL(f, w, how)                                         \
    {                                                           \
#f, w, offsetof(struct sb_setup, f), SB_FIELD_REAL, how \
    }

/* In the order of setup_sql's columns. */
const struct sb_setup_field sb_setup_fields[] = {
    TEXT(target, "name of the target model", SB_FIELD_IGNORED),
    TEXT(target_hash, "content of the target model", SB_FIELD_ALWAYS),
    TEXT(tokenizer_hash, "tokenizer", SB_FIELD_ALWAYS),
    TEXT(dataset, "name of the prompt set", SB_FIELD_IGNORED),
    TEXT(dataset_hash, "content of the prompt set", SB_FIELD_ALWAYS),
    TEXT(chat_template, "chat template", SB_FIELD_ALWAYS),
    TEXT(conversation, "answers that later turns follow", SB_FIELD_ALWAYS),
    WHOLE(max_new_tokens, "limit of new tokens", SB_FIELD_ALWAYS),
    REAL(temperature, "temperature", SB_FIELD_ALWAYS),
    REAL(top_p, "top-p", SB_FIELD_ALWAYS),
    WHOLE(top_k, "top-k", SB_FIELD_ALWAYS),
    WHOLE(ignore_eos, "ignore-eos", SB_FIELD_ALWAYS),
    WHOLE(seed, "seed", SB_FIELD_EXACT),
    WHOLE(repeats, "number of repeats", SB_FIELD_EXACT),
    TEXT(arithmetic, "arithmetic", SB_FIELD_EXACT),
    { 0 },
};

static const char *const setup_sql =
    "SELECT m.name, m.content_hash, m.tokenizer_hash, e.dataset, e.dataset_hash, e.chat_template,"
    " e.conversation, e.max_new_tokens, e.temperature, e.top_p, e.top_k, e.ignore_eos, e.seed,"
    " e.repeats, e.arithmetic, e.id"
    " FROM experiment e JOIN model m ON m.id = e.target_model_id"
    " WHERE e.id = CASE ?1 WHEN 0 THEN (SELECT max(id) FROM experiment) ELSE ?1 END";

static const char *const arms_sql =
    "SELECT label, is_baseline, drafter || coalesce(':' || nullif(drafter_params, ''), '')"
    " || coalesce('; ' || verifier || coalesce(':' || nullif(verifier_params, ''), ''), '')"
    " || coalesce('; ' || policy || coalesce(':' || nullif(policy_params, ''), ''), '')"
    " FROM arm WHERE experiment_id = ?1 ORDER BY arm_no";

/* A row per prompt and number of accepted tokens; a prompt whose answers needed no step has one row with
 * accepted NULL. */
static const char *const counts_sql =
    "SELECT a.label, p.task, p.question_id, s.accepted, count(s.step_no), coalesce(sum(s.tokens), 0),"
    " coalesce(sum(1 + s.drafted + s.auxiliary), 0)"
    " FROM arm a JOIN generation g ON g.arm_id = a.id JOIN prompt p ON p.id = g.prompt_id"
    " LEFT JOIN step s ON s.generation_id = g.id"
    " WHERE a.experiment_id = ?1 AND g.status = 'ok'"
    " GROUP BY a.arm_no, p.task, p.question_id, s.accepted"
    " ORDER BY a.arm_no, p.task, p.question_id, s.accepted";

/* Per arm the first turn that lacks a repeat. */
static const char *const incomplete_sql =
    "SELECT a.label, p.question_id, p.turn, coalesce(sum(g.status = 'ok'), 0), max(g.error)"
    " FROM arm a JOIN prompt p ON p.experiment_id = a.experiment_id"
    " LEFT JOIN generation g ON g.arm_id = a.id AND g.prompt_id = p.id"
    " WHERE a.experiment_id = ?1 GROUP BY a.arm_no, p.id"
    " HAVING coalesce(sum(g.status = 'ok'), 0) < ?2 ORDER BY a.arm_no, p.id";

/* ---- memory ---- */

static enum sb_status no_memory(const struct sb_record *r, struct sb_error *err)
{
    return sb_fail(err, SB_ENOMEM, "%s: out of memory for its acceptance record", r->path);
}

struct sb_arm_record *sb_record_add_arm(struct sb_record *r, const char *label, const char *method)
{
    if (sb_grow((void **)&r->arm, &r->arm_cap, r->n_arms + 1, sizeof *r->arm) != 0)
        return NULL;
    struct sb_arm_record *arm = &r->arm[r->n_arms++];
    *arm = (struct sb_arm_record){ .label = sb_strdup(label), .method = sb_strdup(method) };
    return arm->label && arm->method ? arm : NULL;
}

struct sb_prompt_counts *sb_record_add_prompt(struct sb_arm_record *arm, const char *task,
                                              int64_t question_id)
{
    if (sb_grow((void **)&arm->prompt, &arm->prompt_cap, arm->n_prompts + 1, sizeof *arm->prompt) !=
        0)
        return NULL;
    struct sb_prompt_counts *p = &arm->prompt[arm->n_prompts++];
    *p = (struct sb_prompt_counts){ .task = sb_strdup(task), .question_id = question_id };
    return p->task ? p : NULL;
}

static void arm_finish(struct sb_arm_record *arm)
{
    for (size_t i = 0; i < arm->n_prompts; i++) {
        sb_free(arm->prompt[i].task);
        sb_free(arm->prompt[i].accepted);
    }
    sb_free(arm->prompt);
    sb_free(arm->label);
    sb_free(arm->method);
    sb_free(arm->incomplete);
}

void sb_record_finish(struct sb_record *r)
{
    for (const struct sb_setup_field *f = sb_setup_fields; f->name; f++)
        if (f->kind == SB_FIELD_TEXT)
            sb_free(*sb_setup_text(&r->setup, f));
    for (size_t i = 0; i < r->n_arms; i++)
        arm_finish(&r->arm[i]);
    sb_free(r->arm);
    sb_free(r->path);
    *r = (struct sb_record){ 0 };
}

const struct sb_arm_record *sb_record_arm(const struct sb_record *r, const char *label)
{
    for (size_t i = 0; i < r->n_arms; i++)
        if (strcmp(r->arm[i].label, label) == 0)
            return &r->arm[i];
    return NULL;
}

/* ---- from a database ---- */

static bool take_field(struct sb_setup *setup, const struct sb_setup_field *f, sqlite3_stmt *st,
                       int column)
{
    const char *text;
    switch (f->kind) {
    case SB_FIELD_TEXT:
        text = (const char *)sqlite3_column_text(st, column);
        *sb_setup_text(setup, f) = text ? sb_strdup(text) : NULL;
        return !text || *sb_setup_text(setup, f);
    case SB_FIELD_INT:
        *sb_setup_int(setup, f) = sqlite3_column_int64(st, column);
        return true;
    default:
        *sb_setup_real(setup, f) = sqlite3_column_double(st, column);
        return true;
    }
}

/* A query of ?1 (and ?2 where it has one) whose rows go to `take`, which says false when memory runs
 * out. `self` is passed on; returns how many rows came in *n. */
typedef bool take_row(struct sb_record *r, sqlite3_stmt *st, void *self);

static enum sb_status each_row(struct sb_record *r, struct sb_store *s, const char *sql, int64_t id,
                               int64_t second, take_row *take, void *self, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, s, sql, err);
    if (status != SB_OK)
        return status;
    int rc;
    sqlite3_bind_int64(st, 1, id);
    if (sqlite3_bind_parameter_count(st) > 1)
        sqlite3_bind_int64(st, 2, second);
    while (status == SB_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
        if (!take(r, st, self))
            status = no_memory(r, err);
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, s, rc, "read");
    sqlite3_finalize(st);
    return status;
}

static bool take_setup(struct sb_record *r, sqlite3_stmt *st, void *self)
{
    int column = 0;
    for (const struct sb_setup_field *f = sb_setup_fields; f->name; f++, column++)
        if (!take_field(&r->setup, f, st, column))
            return false;
    r->experiment_id = sqlite3_column_int64(st, column);
    (void)self;
    return true;
}

static bool take_arm(struct sb_record *r, sqlite3_stmt *st, void *self)
{
    (void)self;
    const char *label = (const char *)sqlite3_column_text(st, 0);
    const char *method = (const char *)sqlite3_column_text(st, 2);
    struct sb_arm_record *arm = label && method ? sb_record_add_arm(r, label, method) : NULL;
    if (arm)
        arm->is_baseline = sqlite3_column_int(st, 1);
    return arm;
}

/* The arm of the row at hand; arms come in the order they were added, so the last one is near. */
static struct sb_arm_record *arm_of(struct sb_record *r, sqlite3_stmt *st)
{
    const char *label = (const char *)sqlite3_column_text(st, 0);
    return label ? (struct sb_arm_record *)sb_record_arm(r, label) : NULL;
}

/* Rows with the same prompt follow each other, accepted rising: every step with `a` accepted counts at
 * the positions below a. */
static bool take_counts(struct sb_record *r, sqlite3_stmt *st, void *self)
{
    (void)self;
    struct sb_arm_record *arm = arm_of(r, st);
    const char *task = (const char *)sqlite3_column_text(st, 1);
    int64_t question_id = sqlite3_column_int64(st, 2), steps = sqlite3_column_int64(st, 4);
    if (!arm || !task)
        return false;
    struct sb_prompt_counts *p = arm->n_prompts ? &arm->prompt[arm->n_prompts - 1] : NULL;
    if (!p || p->question_id != question_id || strcmp(p->task, task) != 0)
        p = sb_record_add_prompt(arm, task, question_id);
    if (!p)
        return false;
    size_t accepted = (size_t)sqlite3_column_int64(st, 3), have = p->n_accepted;
    if (accepted > have) {
        int64_t *more = sb_realloc_array(p->accepted, accepted, sizeof *more);
        if (!more)
            return false;
        memset(more + have, 0, (accepted - have) * sizeof *more);
        p->accepted = more;
        p->n_accepted = accepted;
    }
    for (size_t k = 0; k < accepted; k++)
        p->accepted[k] += steps;
    p->steps += steps;
    p->tokens += sqlite3_column_int64(st, 5);
    p->rows += sqlite3_column_int64(st, 6);
    return true;
}

static bool take_incomplete(struct sb_record *r, sqlite3_stmt *st, void *self)
{
    struct sb_arm_record *arm = arm_of(r, st);
    const char *why = (const char *)sqlite3_column_text(st, 4);
    if (!arm || arm->incomplete)
        return arm;
    arm->incomplete = sb_strf("question %lld, turn %d: %lld of %lld generations%s%.200s",
                              (long long)sqlite3_column_int64(st, 1), sqlite3_column_int(st, 2),
                              (long long)sqlite3_column_int64(st, 3), (long long)*(int64_t *)self,
                              why ? "; " : "", why ? why : "");
    return arm->incomplete;
}

enum sb_status sb_record_read_store(struct sb_record *out, struct sb_store *s,
                                    int64_t experiment_id, struct sb_error *err)
{
    struct sb_record r = { .path = sb_strdup(s->path) };
    if (!r.path)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", s->path);
    enum sb_status rc = each_row(&r, s, setup_sql, experiment_id, 0, take_setup, NULL, err);
    int64_t id = r.experiment_id;
    if (rc == SB_OK && id == 0)
        rc = experiment_id
                 ? sb_fail(err, SB_EUSAGE, "%s: has no experiment %" PRId64, s->path, experiment_id)
                 : sb_fail(err, SB_EINPUT, "%s: holds no experiment yet", s->path);
    if (rc == SB_OK)
        rc = each_row(&r, s, arms_sql, id, 0, take_arm, NULL, err);
    if (rc == SB_OK)
        rc = each_row(&r, s, counts_sql, id, 0, take_counts, NULL, err);
    if (rc == SB_OK)
        rc = each_row(&r, s, incomplete_sql, id, r.setup.repeats, take_incomplete, &r.setup.repeats,
                      err);
    if (rc == SB_OK)
        *out = r;
    else
        sb_record_finish(&r);
    return rc;
}

/* ---- comparing set-ups ---- */

static bool field_equal(const struct sb_setup *a, const struct sb_setup *b,
                        const struct sb_setup_field *f)
{
    struct sb_setup *x = (struct sb_setup *)a, *y = (struct sb_setup *)b;
    if (f->kind == SB_FIELD_INT)
        return *sb_setup_int(x, f) == *sb_setup_int(y, f);
    if (f->kind == SB_FIELD_REAL)
        return *sb_setup_real(x, f) == *sb_setup_real(y, f);
    const char *s = *sb_setup_text(x, f), *t = *sb_setup_text(y, f);
    return s && t ? strcmp(s, t) == 0 : s == t;
}

static void field_text(char *out, size_t size, const struct sb_setup *setup,
                       const struct sb_setup_field *f)
{
    struct sb_setup *s = (struct sb_setup *)setup;
    if (f->kind == SB_FIELD_INT)
        snprintf(out, size, "%" PRId64, *sb_setup_int(s, f));
    else if (f->kind == SB_FIELD_REAL)
        snprintf(out, size, "%g", *sb_setup_real(s, f));
    else
        snprintf(out, size, "%.40s", *sb_setup_text(s, f) ? *sb_setup_text(s, f) : "unknown");
}

enum sb_status sb_record_comparable(const struct sb_record *now, const struct sb_record *base,
                                    bool exact, struct sb_error *err)
{
    char a[48], b[48];
    for (const struct sb_setup_field *f = sb_setup_fields; f->name; f++) {
        if (f->matters == SB_FIELD_IGNORED || (f->matters == SB_FIELD_EXACT && !exact) ||
            field_equal(&now->setup, &base->setup, f))
            continue;
        field_text(a, sizeof a, &now->setup, f);
        field_text(b, sizeof b, &base->setup, f);
        return sb_fail(
            err, SB_EINPUT,
            "%s and %s differ in the %s (%s: %s, baseline %s): compare like with like, or"
            " make the baseline anew with --write-baseline",
            now->path, base->path, f->what, f->name, a, b);
    }
    return SB_OK;
}

/* Whole numbers repeat; the width that weights are held in changes no bit. */
static bool exact_arithmetic(const struct sb_setup *s)
{
    return s->arithmetic &&
           (strcmp(s->arithmetic, "exact") == 0 || strcmp(s->arithmetic, "exact weights=f32") == 0);
}

bool sb_record_reproducible(const struct sb_record *now, const struct sb_record *base)
{
    const struct sb_setup *a = &now->setup, *b = &base->setup;
    return a->temperature == 0 && b->temperature == 0 && exact_arithmetic(a) &&
           exact_arithmetic(b) && a->seed == b->seed && a->repeats == b->repeats;
}

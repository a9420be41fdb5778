/* From stored generations to paired times. A cell is one question under one arm in one repeat, its turns
 * summed; two arms are paired cell by cell. */
#include "results/speed_pairs.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"

/* ---- loading ---- */

static const char *const arms_sql =
    "SELECT a.id, a.label, a.id IS b.id,"
    " a.drafter = 'none' AND b.drafter = 'none' AND a.id <> b.id AND a.verifier IS b.verifier"
    " AND a.verifier_params IS b.verifier_params"
    " FROM arm a LEFT JOIN (SELECT * FROM arm WHERE experiment_id = ?1 AND is_baseline = 1"
    "                       ORDER BY arm_no LIMIT 1) b ON 1"
    " WHERE a.experiment_id = ?1 ORDER BY a.arm_no";

/* Questions with all their turns; first the decode time, then two expressions over steps. */
static const char *const cells_sql =
    "SELECT g.arm_id, p.task, p.question_id, g.repeat, sum(%s), sum(g.prefill_ns),"
    " sum(max(g.n_tokens - 1, 0)), sum(g.n_tokens), %s"
    " FROM arm a CROSS JOIN generation g ON g.arm_id = a.id CROSS JOIN prompt p ON p.id = g.prompt_id %s"
    " WHERE a.experiment_id = ?1 AND g.status = 'ok'"
    " GROUP BY p.task, p.question_id, g.arm_id, g.repeat"
    " HAVING count(*) >= max(p.n_turns)"
    " ORDER BY p.task, p.question_id, g.arm_id, g.repeat";

static enum sb_status out_of_memory(const struct sb_store *store, struct sb_error *err)
{
    return sb_fail(err, SB_ENOMEM, "%s: out of memory for its generations", store->path);
}

static enum sb_status load_arms(struct sb_speeds *s, struct sb_store *store, int64_t experiment_id,
                                struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, store, arms_sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, experiment_id);
    int rc;
    while (status == SB_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        const char *label = (const char *)sqlite3_column_text(st, 1);
        struct sb_speed_arm arm = { .id = sqlite3_column_int64(st, 0),
                                    .label = sb_strdup(label ? label : ""),
                                    .is_baseline = sqlite3_column_int(st, 2),
                                    .is_again = sqlite3_column_int(st, 3) };
        if (!arm.label || sb_grow((void **)&s->arm, &s->arm_cap, s->n_arms + 1, sizeof arm) != 0) {
            sb_free(arm.label);
            status = out_of_memory(store, err);
        } else {
            s->arm[s->n_arms++] = arm;
        }
    }
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* Rows come in order of tasks, so a task is the last one or new. */
static bool enter_task(struct sb_speeds *s, const char *name)
{
    if (s->n_tasks > 0 && strcmp(s->task[s->n_tasks - 1], name) == 0)
        return true;
    char *copy = sb_strdup(name);
    if (!copy || sb_grow((void **)&s->task, &s->task_cap, s->n_tasks + 1, sizeof *s->task) != 0) {
        sb_free(copy);
        return false;
    }
    s->task[s->n_tasks++] = copy;
    return true;
}

static bool enter_question(struct sb_speeds *s, const char *task, int64_t id)
{
    size_t n_tasks = s->n_tasks;
    if (!enter_task(s, task))
        return false;
    const struct sb_question *last = s->n_questions ? &s->question[s->n_questions - 1] : NULL;
    if (last && s->n_tasks == n_tasks && last->question_id == id)
        return true;
    size_t n = s->n_questions + 1;
    if (sb_grow((void **)&s->question, &s->question_cap, n, sizeof *s->question) != 0 ||
        sb_grow((void **)&s->at, &s->at_cap, n * s->n_arms, sizeof *s->at) != 0)
        return false;
    memset(s->at + s->n_questions * s->n_arms, 0, s->n_arms * sizeof *s->at);
    s->question[s->n_questions++] = (struct sb_question){ (int)s->n_tasks - 1, id };
    return true;
}

size_t sb_speeds_arm(const struct sb_speeds *s, int64_t id)
{
    size_t i = 0;
    while (i < s->n_arms && s->arm[i].id != id)
        i++;
    return i; /* n_arms: none */
}

static bool take_row(struct sb_speeds *s, sqlite3_stmt *st)
{
    const char *task = (const char *)sqlite3_column_text(st, 1);
    size_t arm = sb_speeds_arm(s, sqlite3_column_int64(st, 0));
    if (arm == s->n_arms) /* cannot be: the query joins the same arms */
        return true;
    if (!task || !enter_question(s, task, sqlite3_column_int64(st, 2)) ||
        sb_grow((void **)&s->cell, &s->cell_cap, s->n_cells + 1, sizeof *s->cell) != 0)
        return false;
    struct sb_span *at = &s->at[(s->n_questions - 1) * s->n_arms + arm];
    if (at->n == SB_MOST_REPEATS)
        return true;
    if (at->n++ == 0)
        at->first = s->n_cells;
    double decode_ns = sqlite3_column_double(st, 4);
    s->cell[s->n_cells++] =
        (struct sb_speed_cell){ .repeat = sqlite3_column_int64(st, 3),
                                .decode_ns = decode_ns,
                                .all_ns = decode_ns + sqlite3_column_double(st, 5),
                                .tokens = sqlite3_column_double(st, 6),
                                .all_tokens = sqlite3_column_double(st, 7),
                                .steps = sqlite3_column_double(st, 8),
                                .step_tokens = sqlite3_column_double(st, 9) };
    return true;
}

static enum sb_status load_cells(struct sb_speeds *s, struct sb_store *store, int64_t experiment_id,
                                 const char *decode_ns, bool with_steps, struct sb_error *err)
{
    sqlite3_stmt *st;
    char *sql = sb_strf(cells_sql, decode_ns ? decode_ns : "g.decode_ns",
                        with_steps ? "sum(v.steps), sum(v.tokens)" : "0, 0",
                        with_steps ? "JOIN v_generation v ON v.generation_id = g.id" : "");
    if (!sql)
        return out_of_memory(store, err);
    enum sb_status status = sb_sqlite_prepare(&st, store, sql, err);
    sb_free(sql);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, experiment_id);
    int rc;
    bool room = true;
    while (room && (rc = sqlite3_step(st)) == SQLITE_ROW)
        room = take_row(s, st);
    if (!room)
        status = out_of_memory(store, err);
    else if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

enum sb_status sb_speeds_load_specbench(struct sb_speeds *s, struct sb_store *store,
                                        int64_t experiment_id, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc =
        sb_sqlite_prepare(&st, store,
                          "SELECT arm_id, CASE overall WHEN 0 THEN task END,"
                          " specbench_speedup FROM specbench"
                          " WHERE experiment_id = ?1 AND specbench_speedup NOT NULL",
                          err);
    if (rc != SB_OK)
        return rc;
    sqlite3_bind_int64(st, 1, experiment_id);
    int step = SQLITE_DONE;
    while (rc == SB_OK && (step = sqlite3_step(st)) == SQLITE_ROW) {
        const char *task = (const char *)sqlite3_column_text(st, 1);
        struct sb_specbench row = { .arm_id = sqlite3_column_int64(st, 0),
                                    .task = task ? sb_strdup(task) : NULL,
                                    .speedup = sqlite3_column_double(st, 2) };
        if ((task && !row.task) || sb_grow((void **)&s->specbench, &s->specbench_cap,
                                           s->n_specbench + 1, sizeof row) != 0) {
            sb_free(row.task);
            rc = out_of_memory(store, err);
        } else {
            s->specbench[s->n_specbench++] = row;
        }
    }
    if (rc == SB_OK && step != SQLITE_DONE)
        rc = sb_sqlite_fail(err, store, step, "read");
    sqlite3_finalize(st);
    return rc;
}

double sb_speeds_specbench(const struct sb_speeds *s, int64_t arm_id, const char *task)
{
    for (size_t i = 0; i < s->n_specbench; i++) {
        const struct sb_specbench *x = &s->specbench[i];
        if (x->arm_id == arm_id && !task == !x->task && (!task || strcmp(task, x->task) == 0))
            return x->speedup;
    }
    return NAN;
}

enum sb_status sb_speeds_load_as(struct sb_speeds **out, struct sb_store *store,
                                 int64_t experiment_id, const char *decode_ns, bool with_steps,
                                 struct sb_error *err)
{
    struct sb_speeds *s = sb_alloc_zero(1, sizeof *s);
    if (!s)
        return out_of_memory(store, err);
    enum sb_status rc = load_arms(s, store, experiment_id, err);
    if (rc == SB_OK)
        rc = load_cells(s, store, experiment_id, decode_ns, with_steps, err);
    if (rc == SB_OK)
        *out = s;
    else
        sb_speeds_destroy(s);
    return rc;
}

enum sb_status sb_speeds_load(struct sb_speeds **out, struct sb_store *store, int64_t experiment_id,
                              struct sb_error *err)
{
    return sb_speeds_load_as(out, store, experiment_id, NULL, false, err);
}

void sb_speeds_destroy(struct sb_speeds *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_tasks; i++)
        sb_free(s->task[i]);
    for (size_t i = 0; i < s->n_arms; i++)
        sb_free(s->arm[i].label);
    for (size_t i = 0; i < s->n_specbench; i++)
        sb_free(s->specbench[i].task);
    sb_free(s->specbench);
    sb_free(s->task);
    sb_free(s->arm);
    sb_free(s->question);
    sb_free(s->cell);
    sb_free(s->at);
    sb_free(s);
}

const struct sb_speed_arm *sb_speeds_arms(const struct sb_speeds *s, size_t *n)
{
    *n = s->n_arms;
    return s->arm;
}

size_t sb_speeds_tasks(const struct sb_speeds *s, char *const **names)
{
    *names = s->task;
    return s->n_tasks;
}

const struct sb_speed_arm *sb_speeds_baseline(const struct sb_speeds *s)
{
    for (size_t i = 0; i < s->n_arms; i++)
        if (s->arm[i].is_baseline)
            return &s->arm[i];
    return NULL;
}

/* ---- pairing ---- */

void sb_pairing_finish(struct sb_pairing *p)
{
    sb_free(p->pair);
    sb_free(p->question);
    sb_free(p->stratum);
}

enum sb_status sb_pairing_init(struct sb_pairing *p, const struct sb_speeds *s,
                               struct sb_error *err)
{
    *p = (struct sb_pairing){ .pair = sb_alloc_array(s->n_cells, sizeof *p->pair),
                              .question = sb_alloc_array(s->n_questions, sizeof *p->question),
                              .stratum = sb_alloc_array(s->n_questions, sizeof *p->stratum) };
    if (p->pair && p->question && p->stratum)
        return SB_OK;
    sb_pairing_finish(p);
    return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", s->n_questions);
}

/* Nothing to compare where an answer ended with the prefill's token, in either arm. */
static void add_pair(struct sb_pairing *p, const struct sb_speed_cell *b,
                     const struct sb_speed_cell *m)
{
    if (!(b->tokens > 0 && m->tokens > 0 && b->decode_ns > 0 && m->decode_ns > 0))
        return;
    double method = m->decode_ns;
    if (b->tokens != m->tokens) {
        method *= b->tokens / m->tokens;
        p->per_token = true;
    }
    p->pair[p->n_pairs++] = (struct sb_speed_pair){ .repeat = m->repeat,
                                                    .base = b->decode_ns,
                                                    .method = method,
                                                    .base_all = b->all_ns,
                                                    .method_all = method + m->all_ns - m->decode_ns,
                                                    .base_steps = b->steps,
                                                    .base_tokens = b->step_tokens,
                                                    .method_steps = m->steps,
                                                    .method_tokens = m->step_tokens };
}

static void close_question(struct sb_pairing *p, const struct sb_question *of, size_t first)
{
    size_t n = p->n_pairs - first;
    if (n == 0)
        return;
    p->question[p->n] = (struct sb_paired_question){ of, { first, n } };
    p->stratum[p->n++] = of->task;
    if (n > p->most_repeats)
        p->most_repeats = n;
}

bool sb_speeds_wanted(const struct sb_speeds *s, size_t q, const char *task)
{
    return !task || strcmp(task, s->task[s->question[q].task]) == 0;
}

void sb_pairing_arms(struct sb_pairing *p, const struct sb_speeds *s, size_t base, size_t method,
                     const char *task)
{
    bool there = base < s->n_arms && method < s->n_arms;
    for (size_t q = 0; there && q < s->n_questions; q++) {
        const struct sb_span b = s->at[q * s->n_arms + base], m = s->at[q * s->n_arms + method];
        size_t first = p->n_pairs;
        for (size_t i = 0, j = 0; i < b.n && j < m.n && sb_speeds_wanted(s, q, task);) {
            const struct sb_speed_cell *x = &s->cell[b.first + i], *y = &s->cell[m.first + j];
            if (x->repeat == y->repeat)
                add_pair(p, x, y);
            i += x->repeat <= y->repeat;
            j += y->repeat <= x->repeat;
        }
        close_question(p, &s->question[q], first);
    }
}

void sb_pairing_repeats(struct sb_pairing *p, const struct sb_speeds *s, size_t base)
{
    for (size_t q = 0; q < s->n_questions; q++) {
        const struct sb_span b = s->at[q * s->n_arms + base];
        size_t first = p->n_pairs;
        for (size_t i = 0; i + 1 < b.n; i += 2)
            add_pair(p, &s->cell[b.first + i], &s->cell[b.first + i + 1]);
        close_question(p, &s->question[q], first);
    }
}

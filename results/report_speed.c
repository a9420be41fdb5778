/* From stored generations to paired times. A cell is one question under one arm in one repeat, its turns
 * summed; two arms are paired cell by cell, repeats are reduced by their median inside the bootstrap. */
#include "results/report_speed.h"

#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/bootstrap.h"
#include "results/specbench_formula.h"

enum { MOST_REPEATS = 1024 }; /* an experiment has at most 1,000 */

struct cell {
    int64_t repeat;
    double decode_ns, all_ns;  /* all: prefill included */
    double tokens, all_tokens; /* the prefill's token is not among the first */
    double steps, step_tokens; /* 0 when they were not asked for */
};

struct question {
    int task; /* index into the tasks, in order of their names */
    int64_t question_id;
};

struct span {
    size_t first, n; /* cells */
};

/* How far from 1 a ratio of equals gets, on the log scale, over n questions; NaN: not known. */
struct noise {
    bool sought;
    double floor;
    size_t n;
};

struct sb_speeds {
    struct sb_speed_arm *arm;
    struct question *question; /* by task, then id */
    struct cell *cell;         /* by question, arm, repeat */
    struct span *at;           /* [n_questions, n_arms] */
    char **task;
    struct noise noise; /* sought when asked for */
    size_t n_arms, n_questions, n_cells, n_tasks;
    size_t arm_cap, question_cap, cell_cap, task_cap, at_cap;
};

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
    " FROM generation g JOIN arm a ON a.id = g.arm_id JOIN prompt p ON p.id = g.prompt_id %s"
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
    const struct question *last = s->n_questions ? &s->question[s->n_questions - 1] : NULL;
    if (last && s->n_tasks == n_tasks && last->question_id == id)
        return true;
    size_t n = s->n_questions + 1;
    if (sb_grow((void **)&s->question, &s->question_cap, n, sizeof *s->question) != 0 ||
        sb_grow((void **)&s->at, &s->at_cap, n * s->n_arms, sizeof *s->at) != 0)
        return false;
    memset(s->at + s->n_questions * s->n_arms, 0, s->n_arms * sizeof *s->at);
    s->question[s->n_questions++] = (struct question){ (int)s->n_tasks - 1, id };
    return true;
}

static size_t arm_index(const struct sb_speeds *s, int64_t id)
{
    size_t i = 0;
    while (i < s->n_arms && s->arm[i].id != id)
        i++;
    return i; /* n_arms: none */
}

static bool take_row(struct sb_speeds *s, sqlite3_stmt *st)
{
    const char *task = (const char *)sqlite3_column_text(st, 1);
    size_t arm = arm_index(s, sqlite3_column_int64(st, 0));
    if (arm == s->n_arms) /* cannot be: the query joins the same arms */
        return true;
    if (!task || !enter_question(s, task, sqlite3_column_int64(st, 2)) ||
        sb_grow((void **)&s->cell, &s->cell_cap, s->n_cells + 1, sizeof *s->cell) != 0)
        return false;
    struct span *at = &s->at[(s->n_questions - 1) * s->n_arms + arm];
    if (at->n == MOST_REPEATS)
        return true;
    if (at->n++ == 0)
        at->first = s->n_cells;
    double decode_ns = sqlite3_column_double(st, 4);
    s->cell[s->n_cells++] = (struct cell){ .repeat = sqlite3_column_int64(st, 3),
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

/* One repeat of a question in both arms; the method's times are scaled to the reference's tokens. */
struct pair {
    double base, method, base_all, method_all;
    double base_rate, method_rate; /* tokens per ns, prefill included, as they were */
    double base_steps, base_tokens, method_steps, method_tokens;
};

struct paired_question {
    const struct question *of;
    struct span pairs;
};

struct pairing {
    struct pair *pair;
    struct paired_question *question; /* [n] */
    int *stratum;                     /* [n] task */
    size_t n, n_pairs, most_repeats;
    bool per_token;
};

static void pairing_finish(struct pairing *p)
{
    sb_free(p->pair);
    sb_free(p->question);
    sb_free(p->stratum);
}

static enum sb_status pairing_init(struct pairing *p, const struct sb_speeds *s,
                                   struct sb_error *err)
{
    *p = (struct pairing){ .pair = sb_alloc_array(s->n_cells, sizeof *p->pair),
                           .question = sb_alloc_array(s->n_questions, sizeof *p->question),
                           .stratum = sb_alloc_array(s->n_questions, sizeof *p->stratum) };
    if (p->pair && p->question && p->stratum)
        return SB_OK;
    pairing_finish(p);
    return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", s->n_questions);
}

/* Nothing to compare where an answer ended with the prefill's token, in either arm. */
static void add_pair(struct pairing *p, const struct cell *b, const struct cell *m)
{
    if (!(b->tokens > 0 && m->tokens > 0 && b->decode_ns > 0 && m->decode_ns > 0))
        return;
    double method = m->decode_ns;
    if (b->tokens != m->tokens) {
        method *= b->tokens / m->tokens;
        p->per_token = true;
    }
    p->pair[p->n_pairs++] = (struct pair){ .base = b->decode_ns,
                                           .method = method,
                                           .base_all = b->all_ns,
                                           .method_all = method + m->all_ns - m->decode_ns,
                                           .base_rate = b->all_tokens / b->all_ns,
                                           .method_rate = m->all_tokens / m->all_ns,
                                           .base_steps = b->steps,
                                           .base_tokens = b->step_tokens,
                                           .method_steps = m->steps,
                                           .method_tokens = m->step_tokens };
}

static void close_question(struct pairing *p, const struct question *of, size_t first)
{
    size_t n = p->n_pairs - first;
    if (n == 0)
        return;
    p->question[p->n] = (struct paired_question){ of, { first, n } };
    p->stratum[p->n++] = of->task;
    if (n > p->most_repeats)
        p->most_repeats = n;
}

static bool wanted(const struct sb_speeds *s, size_t q, const char *task)
{
    return !task || strcmp(task, s->task[s->question[q].task]) == 0;
}

static void pair_arms(struct pairing *p, const struct sb_speeds *s, size_t base, size_t method,
                      const char *task)
{
    for (size_t q = 0; q < s->n_questions; q++) {
        const struct span b = s->at[q * s->n_arms + base], m = s->at[q * s->n_arms + method];
        size_t first = p->n_pairs;
        for (size_t i = 0, j = 0; i < b.n && j < m.n && wanted(s, q, task);) {
            const struct cell *x = &s->cell[b.first + i], *y = &s->cell[m.first + j];
            if (x->repeat == y->repeat)
                add_pair(p, x, y);
            i += x->repeat <= y->repeat;
            j += y->repeat <= x->repeat;
        }
        close_question(p, &s->question[q], first);
    }
}

/* The baseline against itself: each of its repeats with an odd number and the one before. */
static void pair_repeats(struct pairing *p, const struct sb_speeds *s, size_t base)
{
    for (size_t q = 0; q < s->n_questions; q++) {
        const struct span b = s->at[q * s->n_arms + base];
        size_t first = p->n_pairs;
        for (size_t i = 0; i + 1 < b.n; i += 2)
            add_pair(p, &s->cell[b.first + i], &s->cell[b.first + i + 1]);
        close_question(p, &s->question[q], first);
    }
}

/* ---- rows of the bootstrap ---- */

/* Medians of a question's pairs, its repeats drawn by `word`. */
static struct pair median_pair(const struct pairing *p, size_t i, const uint32_t *word)
{
    double value[4][MOST_REPEATS];
    const struct span *at = &p->question[i].pairs;
    for (size_t k = 0; k < at->n; k++) {
        const struct pair *x = &p->pair[at->first + sb_draw_repeat(word, k, at->n)];
        value[0][k] = x->base;
        value[1][k] = x->method;
        value[2][k] = x->base_all;
        value[3][k] = x->method_all;
    }
    return (struct pair){ .base = sb_median(value[0], at->n),
                          .method = sb_median(value[1], at->n),
                          .base_all = sb_median(value[2], at->n),
                          .method_all = sb_median(value[3], at->n) };
}

static void speed_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    const struct pair x = median_pair(self, i, word);
    out->v[SB_SUM_BASE] = x.base;
    out->v[SB_SUM_METHOD] = x.method;
    out->v[SB_SUM_BASE_ALL] = x.base_all;
    out->v[SB_SUM_METHOD_ALL] = x.method_all;
    out->v[SB_SUM_LOG_RATIO] = log(x.base) - log(x.method);
    out->v[SB_SUM_PROMPTS] = 1;
}

enum { MAT_TOKENS, MAT_STEPS, MAT_BASE_TOKENS, MAT_BASE_STEPS };

static void mat_row(struct sb_sums *out, const void *self, size_t i, const uint32_t *word)
{
    const struct pairing *p = self;
    const struct span *at = &p->question[i].pairs;
    for (size_t k = 0; k < at->n; k++) {
        const struct pair *x = &p->pair[at->first + sb_draw_repeat(word, k, at->n)];
        out->v[MAT_TOKENS] += x->method_tokens;
        out->v[MAT_STEPS] += x->method_steps;
        out->v[MAT_BASE_TOKENS] += x->base_tokens;
        out->v[MAT_BASE_STEPS] += x->base_steps;
    }
}

static double mat_difference(const struct sb_sums *s)
{
    return s->v[MAT_TOKENS] / s->v[MAT_STEPS] - s->v[MAT_BASE_TOKENS] / s->v[MAT_BASE_STEPS];
}

static struct sb_clusters clusters_of(const struct pairing *p,
                                      void (*row)(struct sb_sums *, const void *, size_t,
                                                  const uint32_t *))
{
    return (struct sb_clusters){
        .n = p->n, .stratum = p->stratum, .repeats = p->most_repeats, .row = row, .self = p
    };
}

/* ---- figures of a pairing ---- */

/* Each task's ratio of totals, geometric mean. */
static double mean_of_tasks(const struct pairing *p)
{
    double sum = 0, base = 0, method = 0;
    size_t tasks = 0;
    for (size_t i = 0; i < p->n; i++) {
        const struct pair x = median_pair(p, i, NULL);
        base += x.base;
        method += x.method;
        if (i + 1 < p->n && p->stratum[i + 1] == p->stratum[i])
            continue;
        sum += log(base) - log(method);
        tasks++;
        base = method = 0;
    }
    return exp(sum / (double)tasks);
}

static double specbench_of(const struct pairing *p, struct sb_specbench_answer *scratch)
{
    double rate[2][MOST_REPEATS];
    for (size_t i = 0; i < p->n; i++) {
        const struct span *at = &p->question[i].pairs;
        for (size_t k = 0; k < at->n; k++) {
            rate[0][k] = p->pair[at->first + k].method_rate;
            rate[1][k] = p->pair[at->first + k].base_rate;
        }
        scratch[i] = (struct sb_specbench_answer){ sb_median(rate[0], at->n), 1 };
        scratch[p->n + i] = (struct sb_specbench_answer){ sb_median(rate[1], at->n), 1 };
    }
    return sb_specbench_speedup(scratch, p->n, scratch + p->n, p->n);
}

static const struct sb_speed nothing = { .totals = { NAN, NAN, NAN },
                                         .all = { NAN, NAN, NAN },
                                         .geometric = { NAN, NAN, NAN },
                                         .task_mean = NAN,
                                         .specbench = NAN,
                                         .noise = NAN,
                                         .note = "" };

static enum sb_status figures(struct sb_speed *out, const struct pairing *p, int resamples,
                              uint64_t seed, struct sb_error *err)
{
    static const sb_estimator estimators[] = { sb_log_totals, sb_log_totals_all, sb_log_mean };
    struct sb_interval x[3];
    if (p->n == 0) {
        *out = nothing;
        return SB_OK;
    }
    const struct sb_clusters clusters = clusters_of(p, speed_row);
    struct sb_specbench_answer *scratch = sb_alloc_array(p->n * 2, sizeof *scratch);
    if (!scratch)
        return sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", p->n);
    enum sb_status rc = sb_bootstrap(x, estimators, 3, &clusters, resamples, seed, err);
    if (rc == SB_OK)
        *out = (struct sb_speed){ .totals = sb_interval_exp(x[0]),
                                  .all = sb_interval_exp(x[1]),
                                  .geometric = sb_interval_exp(x[2]),
                                  .task_mean = mean_of_tasks(p),
                                  .specbench = specbench_of(p, scratch),
                                  .n = p->n,
                                  .per_token = p->per_token,
                                  .noise = NAN,
                                  .note = "" };
    sb_free(scratch);
    return rc;
}

static enum sb_status compare(struct sb_speed *out, const struct sb_speeds *s, size_t arm,
                              size_t reference, const char *task, int resamples, uint64_t seed,
                              struct sb_error *err)
{
    struct pairing p;
    enum sb_status rc = pairing_init(&p, s, err);
    if (rc != SB_OK)
        return rc;
    if (arm < s->n_arms && reference < s->n_arms)
        pair_arms(&p, s, reference, arm, task);
    rc = figures(out, &p, resamples, seed, err);
    pairing_finish(&p);
    return rc;
}

enum sb_status sb_speeds_compare(struct sb_speed *out, const struct sb_speeds *s, int64_t arm_id,
                                 int64_t reference_id, const char *task, int resamples,
                                 uint64_t seed, struct sb_error *err)
{
    return compare(out, s, arm_index(s, arm_id), arm_index(s, reference_id), task, resamples, seed,
                   err);
}

/* ---- the noise floor ---- */

/* The far end of the interval of a ratio of equals, on the log scale. */
static struct noise reach(const struct sb_speed *speed)
{
    struct noise noise = { .sought = true, .floor = NAN, .n = speed->n };
    if (speed->n > 0)
        noise.floor = fabs(log(speed->totals.estimate));
    if (speed->n > 1)
        noise.floor = fmax(fabs(log(speed->totals.low)), fabs(log(speed->totals.high)));
    return noise;
}

/* From A/A arms, the noisiest of them; without any, from the baseline's repeats. Over all tasks: noise
 * is the machine's, and a task has few prompts to see it by. */
static enum sb_status find_noise(struct noise *out, const struct sb_speeds *s, size_t base,
                                 int resamples, uint64_t seed, struct sb_error *err)
{
    struct sb_speed speed;
    struct pairing p;
    struct noise noise = { .sought = true, .floor = NAN };
    enum sb_status rc = SB_OK;
    for (size_t i = 0; i < s->n_arms && rc == SB_OK; i++) {
        if (!s->arm[i].is_again)
            continue;
        rc = compare(&speed, s, i, base, NULL, resamples, seed, err);
        if (rc == SB_OK && !(reach(&speed).floor <= noise.floor))
            noise = reach(&speed);
    }
    if (rc == SB_OK && isnan(noise.floor)) {
        rc = pairing_init(&p, s, err);
        if (rc != SB_OK)
            return rc;
        pair_repeats(&p, s, base);
        rc = figures(&speed, &p, resamples, seed, err);
        if (rc == SB_OK)
            noise = reach(&speed);
        pairing_finish(&p);
    }
    if (rc == SB_OK)
        *out = noise;
    return rc;
}

static const char *note_of(const struct sb_speed *speed, bool is_again)
{
    if (is_again)
        return "A/A";
    if (speed->n == 0)
        return "";
    if (fabs(log(speed->totals.estimate)) <= speed->noise)
        return "within noise";
    return speed->totals.low <= 1 && speed->totals.high >= 1 ? "interval holds 1" : "";
}

enum sb_status sb_speeds_get(struct sb_speed *out, struct sb_speeds *s, int64_t arm_id,
                             const char *task, int resamples, uint64_t seed, struct sb_error *err)
{
    const struct sb_speed_arm *baseline = sb_speeds_baseline(s);
    struct sb_speed speed = nothing;
    size_t arm = arm_index(s, arm_id);
    enum sb_status rc = SB_OK;
    if (!baseline || arm == s->n_arms) {
        *out = speed;
        return SB_OK;
    }
    size_t base = (size_t)(baseline - s->arm);
    if (!s->noise.sought)
        rc = find_noise(&s->noise, s, base, resamples, seed, err);
    if (rc == SB_OK) /* the baseline against itself needs no draws to fill the fields */
        rc = compare(&speed, s, arm, base, task, arm == base ? 2 : resamples, seed, err);
    if (rc != SB_OK)
        return rc;
    if (speed.n > 0) /* fewer prompts, more noise */
        speed.noise = s->noise.floor * sqrt((double)s->noise.n / (double)speed.n);
    if (arm != base)
        speed.note = note_of(&speed, s->arm[arm].is_again);
    *out = speed;
    return SB_OK;
}

/* ---- more of a pair, and of one arm ---- */

enum sb_status sb_speeds_mat(struct sb_mat_difference *out, const struct sb_speeds *s,
                             int64_t arm_id, int64_t reference_id, const char *task, int resamples,
                             uint64_t seed, struct sb_error *err)
{
    static const sb_estimator estimators[] = { mat_difference };
    struct pairing p;
    struct sb_mat_difference d = { NAN, NAN, { NAN, NAN, NAN } };
    struct sb_sums sum = { 0 };
    size_t arm = arm_index(s, arm_id), reference = arm_index(s, reference_id);
    enum sb_status rc = pairing_init(&p, s, err);
    if (rc != SB_OK)
        return rc;
    if (arm < s->n_arms && reference < s->n_arms)
        pair_arms(&p, s, reference, arm, task);
    for (size_t i = 0; i < p.n; i++)
        mat_row(&sum, &p, i, NULL);
    if (p.n > 0 && sum.v[MAT_STEPS] > 0 && sum.v[MAT_BASE_STEPS] > 0) {
        const struct sb_clusters clusters = clusters_of(&p, mat_row);
        d.mat = sum.v[MAT_TOKENS] / sum.v[MAT_STEPS];
        d.reference_mat = sum.v[MAT_BASE_TOKENS] / sum.v[MAT_BASE_STEPS];
        rc = sb_bootstrap(&d.difference, estimators, 1, &clusters, resamples, seed, err);
    }
    if (rc == SB_OK)
        *out = d;
    pairing_finish(&p);
    return rc;
}

enum sb_status sb_speeds_questions(struct sb_speed_question **out, size_t *n,
                                   const struct sb_speeds *s, int64_t arm_id, int64_t reference_id,
                                   const char *task, struct sb_error *err)
{
    struct pairing p;
    size_t arm = arm_index(s, arm_id), reference = arm_index(s, reference_id);
    enum sb_status rc = pairing_init(&p, s, err);
    if (rc != SB_OK)
        return rc;
    if (arm < s->n_arms && reference < s->n_arms)
        pair_arms(&p, s, reference, arm, task);
    struct sb_speed_question *q = sb_alloc_array(p.n, sizeof *q);
    if (!q)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", p.n);
    for (size_t i = 0; i < p.n && rc == SB_OK; i++) {
        struct pair x = median_pair(&p, i, NULL);
        struct sb_sums sum = { 0 };
        mat_row(&sum, &p, i, NULL);
        q[i] = (struct sb_speed_question){
            .task = s->task[p.question[i].of->task],
            .question_id = p.question[i].of->question_id,
            .repeats = p.question[i].pairs.n,
            .reference_ns = x.base,
            .method_ns = x.method,
            .reference_steps = sum.v[MAT_BASE_STEPS],
            .reference_mat = sum.v[MAT_BASE_TOKENS] / sum.v[MAT_BASE_STEPS],
            .method_steps = sum.v[MAT_STEPS],
            .method_mat = sum.v[MAT_TOKENS] / sum.v[MAT_STEPS],
        };
    }
    if (rc == SB_OK) {
        *out = q;
        *n = p.n;
    }
    pairing_finish(&p);
    return rc;
}

struct sb_speed_rate sb_speeds_rate(const struct sb_speeds *s, int64_t arm_id, const char *task)
{
    struct sb_speed_rate rate = { 0 };
    size_t arm = arm_index(s, arm_id);
    double tokens = 0, ns = 0, all_tokens = 0, all_ns = 0;
    for (size_t q = 0; arm < s->n_arms && q < s->n_questions; q++) {
        const struct span at = s->at[q * s->n_arms + arm];
        if (!wanted(s, q, task))
            continue;
        rate.repeats = at.n > rate.repeats ? at.n : rate.repeats;
        for (size_t i = at.first; i < at.first + at.n; i++) {
            tokens += s->cell[i].tokens;
            ns += s->cell[i].decode_ns;
            all_tokens += s->cell[i].all_tokens;
            all_ns += s->cell[i].all_ns;
        }
    }
    rate.decode = ns > 0 ? tokens * 1e9 / ns : NAN;
    rate.all = all_ns > 0 ? all_tokens * 1e9 / all_ns : NAN;
    return rate;
}

/* The views of speed: all figures of all arms, and two arms beside each other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/report_speed.h"
#include "results/report_views.h"

enum { MOST_QUESTIONS = 10 }; /* of those that differ most */

void sb_view_columns(struct sb_table *t, const struct sb_view_column *columns)
{
    for (const struct sb_view_column *c = columns; c->name; c++) {
        sb_table_column(t, c->name, c->decimals);
        if (c->optional)
            sb_table_optional(t);
    }
}

static void add_interval(struct sb_table *t, struct sb_interval x)
{
    sb_table_real(t, x.estimate);
    sb_table_real(t, x.low);
    sb_table_real(t, x.high);
}

static void skip(struct sb_table *t, int n)
{
    while (n-- > 0)
        sb_table_text(t, NULL);
}

/* ---- speed ---- */

static const struct sb_view_column speed_columns[] = {
    { "arm", 0, false },
    { "task", 0, false },
    { "prompts", 0, false },
    { "repeats", 0, false },
    { "tokens_per_s", 1, false },
    { "tokens_per_s_e2e", 1, false },
    { "speedup", 2, false },
    { "speedup_lo", 2, false },
    { "speedup_hi", 2, false },
    { "speedup_e2e", 2, false },
    { "speedup_e2e_lo", 2, false },
    { "speedup_e2e_hi", 2, false },
    { "speedup_gm", 2, false },
    { "speedup_gm_lo", 2, false },
    { "speedup_gm_hi", 2, false },
    { "speedup_tasks", 2, false },
    { "specbench_speedup", 2, false },
    { "noise_floor", 3, true },
    { "few", 0, true },
    { "per_token", 0, true },
    { "note", 0, true },
    { 0 },
};

static enum sb_status speed_row(struct sb_table *t, struct sb_speeds *speeds,
                                const struct sb_speed_arm *arm, const char *task,
                                const struct sb_report_options *o, struct sb_error *err)
{
    struct sb_speed x;
    enum sb_status rc = sb_speeds_get(&x, speeds, arm->id, task, o->resamples, o->seed, err);
    if (rc != SB_OK)
        return rc;
    struct sb_speed_rate rate = sb_speeds_rate(speeds, arm->id, task);
    if (arm->is_baseline) /* 1 by definition, and no interval */
        x.totals = x.all = x.geometric = (struct sb_interval){ 1, NAN, NAN };
    sb_table_text(t, arm->label);
    sb_table_text(t, task ? task : "all");
    sb_table_int(t, (int64_t)x.n);
    sb_table_int(t, (int64_t)rate.repeats);
    sb_table_real(t, rate.decode);
    sb_table_real(t, rate.all);
    add_interval(t, x.totals);
    add_interval(t, x.all);
    add_interval(t, x.geometric);
    sb_table_real(t, task ? NAN : x.task_mean);
    sb_table_real(t, x.specbench);
    sb_table_real(t, expm1(x.noise));
    sb_table_int(t, x.n > 0 && x.n < SB_FEW_PROMPTS && !arm->is_baseline);
    sb_table_int(t, x.per_token);
    sb_table_text(t, x.note[0] ? x.note : NULL);
    return SB_OK;
}

enum sb_status sb_view_speed(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                             const struct sb_report_options *o, struct sb_error *err)
{
    struct sb_speeds *speeds = NULL;
    enum sb_status rc = sb_speeds_load(&speeds, store, experiment_id, err);
    if (rc == SB_OK)
        rc = sb_speeds_load_specbench(speeds, store, experiment_id, err);
    if (rc != SB_OK) {
        sb_speeds_destroy(speeds);
        return rc;
    }
    size_t n_arms, n_tasks;
    char *const *task;
    const struct sb_speed_arm *arm = sb_speeds_arms(speeds, &n_arms);
    n_tasks = sb_speeds_tasks(speeds, &task);
    sb_view_columns(t, speed_columns);
    for (size_t i = 0; i <= n_tasks && rc == SB_OK; i++)
        for (size_t a = 0; a < n_arms && rc == SB_OK; a++)
            rc = speed_row(t, speeds, &arm[a], i < n_tasks ? task[i] : NULL, o, err);
    sb_speeds_destroy(speeds);
    return rc;
}

/* ---- compare ---- */

/* speedup_a and speedup_b are against the baseline; ratio = speedup_a / speedup_b. */
static const struct sb_view_column compare_columns[] = {
    { "scope", 0, false },     { "task", 0, false },      { "question", 0, true },
    { "prompts", 0, false },   { "arm_a", 0, false },     { "arm_b", 0, false },
    { "speedup_a", 2, false }, { "speedup_b", 2, false }, { "ratio", 3, false },
    { "ratio_lo", 3, false },  { "ratio_hi", 3, false },  { "ratio_gm", 3, false },
    { "mat_a", 2, false },     { "mat_b", 2, false },     { "mat_difference", 3, false },
    { "mat_lo", 3, false },    { "mat_hi", 3, false },    { "few", 0, true },
    { "per_token", 0, true },  { "note", 0, true },       { 0 },
};

struct comparison {
    struct sb_table *table;
    struct sb_speeds *speeds;
    const struct sb_speed_arm *a, *b;
    const struct sb_report_options *o;
};

static void compare_names(const struct comparison *c, const char *scope, const char *task)
{
    sb_table_text(c->table, scope);
    sb_table_text(c->table, task);
}

static enum sb_status compare_row(struct comparison *c, const char *task, struct sb_error *err)
{
    const struct sb_report_options *o = c->o;
    struct sb_table *t = c->table;
    struct sb_speed a, b, ratio;
    struct sb_mat_difference mat;
    enum sb_status rc = sb_speeds_get(&a, c->speeds, c->a->id, task, o->resamples, o->seed, err);
    if (rc == SB_OK)
        rc = sb_speeds_get(&b, c->speeds, c->b->id, task, o->resamples, o->seed, err);
    if (rc == SB_OK)
        rc = sb_speeds_compare(&ratio, c->speeds, c->a->id, c->b->id, task, o->resamples, o->seed,
                               err);
    if (rc == SB_OK)
        rc = sb_speeds_mat(&mat, c->speeds, c->a->id, c->b->id, task, o->resamples, o->seed, err);
    if (rc != SB_OK)
        return rc;
    compare_names(c, task ? "task" : "all", task ? task : "all");
    sb_table_text(t, NULL);
    sb_table_int(t, (int64_t)ratio.n);
    sb_table_text(t, c->a->label);
    sb_table_text(t, c->b->label);
    sb_table_real(t, a.totals.estimate);
    sb_table_real(t, b.totals.estimate);
    add_interval(t, ratio.totals);
    sb_table_real(t, ratio.geometric.estimate);
    sb_table_real(t, mat.mat);
    sb_table_real(t, mat.reference_mat);
    add_interval(t, mat.difference);
    sb_table_int(t, ratio.n > 0 && ratio.n < SB_FEW_PROMPTS);
    sb_table_int(t, ratio.per_token);
    bool noisy = ratio.n > 0 && fabs(log(ratio.totals.estimate)) <= a.noise;
    bool holds_1 = ratio.totals.low <= 1 && ratio.totals.high >= 1;
    sb_table_text(t, noisy ? "within noise" : holds_1 ? "interval holds 1" : NULL);
    return SB_OK;
}

static double log_ratio(const struct sb_speed_question *q)
{
    return log(q->reference_ns) - log(q->method_ns);
}

static int by_difference(const void *a, const void *b)
{
    double x = fabs(log_ratio(a)), y = fabs(log_ratio(b));
    const struct sb_speed_question *p = a, *q = b;
    int d = (x < y) - (x > y);
    return d ? d : (p->question_id > q->question_id) - (p->question_id < q->question_id);
}

/* A question's own speedup over the baseline; NaN when there is none to compare. */
static enum sb_status question_speedup(double *out, const struct comparison *c,
                                       const struct sb_speed_question *at, int64_t arm_id,
                                       struct sb_error *err)
{
    struct sb_speed_question *q = NULL;
    size_t n = 0;
    const struct sb_speed_arm *baseline = sb_speeds_baseline(c->speeds);
    *out = NAN;
    if (!baseline)
        return SB_OK;
    enum sb_status rc = sb_speeds_questions(&q, &n, c->speeds, arm_id, baseline->id, at->task, err);
    for (size_t i = 0; i < n; i++)
        if (q[i].question_id == at->question_id)
            *out = q[i].reference_ns / q[i].method_ns;
    sb_free(q);
    return rc;
}

static enum sb_status compare_question(struct comparison *c, const struct sb_speed_question *q,
                                       struct sb_error *err)
{
    struct sb_table *t = c->table;
    double a, b;
    enum sb_status rc = question_speedup(&a, c, q, c->a->id, err);
    if (rc == SB_OK)
        rc = question_speedup(&b, c, q, c->b->id, err);
    if (rc != SB_OK)
        return rc;
    compare_names(c, "prompt", q->task);
    sb_table_int(t, q->question_id);
    sb_table_int(t, 1);
    sb_table_text(t, c->a->label);
    sb_table_text(t, c->b->label);
    sb_table_real(t, a);
    sb_table_real(t, b);
    sb_table_real(t, exp(log_ratio(q)));
    skip(t, 3);
    sb_table_real(t, q->method_mat);
    sb_table_real(t, q->reference_mat);
    sb_table_real(t, q->method_mat - q->reference_mat);
    skip(t, 2);
    skip(t, 3);
    return SB_OK;
}

static enum sb_status compare_questions(struct comparison *c, struct sb_error *err)
{
    struct sb_speed_question *q = NULL;
    size_t n = 0;
    enum sb_status rc = sb_speeds_questions(&q, &n, c->speeds, c->a->id, c->b->id, NULL, err);
    if (rc == SB_OK)
        qsort(q, n, sizeof *q, by_difference);
    for (size_t i = 0; i < n && i < MOST_QUESTIONS && rc == SB_OK; i++)
        rc = compare_question(c, &q[i], err);
    sb_free(q);
    return rc;
}

/* ---- which arms ---- */

static enum sb_status unknown_arm(const struct sb_speeds *speeds, const char *name, size_t length,
                                  struct sb_error *err)
{
    char known[300] = "";
    size_t n;
    const struct sb_speed_arm *arm = sb_speeds_arms(speeds, &n);
    for (size_t i = 0; i < n; i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? "; " : "", arm[i].label);
    }
    return sb_fail(err, SB_EUSAGE, "--arms: the experiment has no arm '%.*s'; it has: %s",
                   (int)length, name, known);
}

static const struct sb_speed_arm *find_arm(const struct sb_speeds *speeds, const char *name,
                                           size_t length)
{
    size_t n;
    const struct sb_speed_arm *arm = sb_speeds_arms(speeds, &n);
    for (size_t i = 0; i < n; i++)
        if (strlen(arm[i].label) == length && strncmp(arm[i].label, name, length) == 0)
            return &arm[i];
    return NULL;
}

/* "A,B": labels may hold commas themselves, so each comma is tried. */
static enum sb_status parse_arms(struct comparison *c, const char *text, struct sb_error *err)
{
    size_t commas = 0, first = 0;
    for (size_t i = 0; text[i]; i++) {
        if (text[i] != ',')
            continue;
        c->a = find_arm(c->speeds, text, i);
        c->b = find_arm(c->speeds, text + i + 1, strlen(text + i + 1));
        if (c->a && c->b)
            return c->a != c->b
                       ? SB_OK
                       : sb_fail(err, SB_EUSAGE, "--arms %s: give two different arms", text);
        first = commas++ ? first : i;
    }
    if (commas != 1)
        return sb_fail(err, SB_EUSAGE,
                       "--arms %s: expected the labels of two arms with a comma between them",
                       text);
    bool a_known = find_arm(c->speeds, text, first);
    return a_known ? unknown_arm(c->speeds, text + first + 1, strlen(text + first + 1), err)
                   : unknown_arm(c->speeds, text, first, err);
}

/* The two fastest, the baseline among them when there is no third. */
static enum sb_status choose_arms(struct comparison *c, const char *database, struct sb_error *err)
{
    size_t n;
    const struct sb_speed_arm *arm = sb_speeds_arms(c->speeds, &n);
    double best[2] = { -1, -1 };
    for (size_t i = 0; i < n; i++) {
        struct sb_speed x;
        enum sb_status rc = sb_speeds_get(&x, c->speeds, arm[i].id, NULL, 2, 0, err);
        if (rc != SB_OK)
            return rc;
        double speed = x.n > 0 && !arm[i].is_baseline && !arm[i].is_again ? x.totals.estimate : 0;
        if (speed > best[0]) {
            c->b = c->a;
            best[1] = best[0];
            c->a = &arm[i];
            best[0] = speed;
        } else if (speed > best[1]) {
            c->b = &arm[i];
            best[1] = speed;
        }
    }
    return c->a && c->b ? SB_OK
                        : sb_fail(err, SB_EINPUT,
                                  "%s: the experiment has one arm; a comparison "
                                  "takes two",
                                  database);
}

enum sb_status sb_view_compare(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                               const struct sb_report_options *o, struct sb_error *err)
{
    struct comparison c = { .table = t, .o = o };
    enum sb_status rc = sb_speeds_load_as(&c.speeds, store, experiment_id, NULL, true, err);
    if (rc != SB_OK)
        return rc;
    rc = o->arms ? parse_arms(&c, o->arms, err) : choose_arms(&c, store->path, err);
    sb_view_columns(t, compare_columns);
    if (rc == SB_OK)
        rc = compare_row(&c, NULL, err);
    char *const *task;
    size_t n_tasks = sb_speeds_tasks(c.speeds, &task);
    for (size_t i = 0; i < n_tasks && rc == SB_OK; i++)
        rc = compare_row(&c, task[i], err);
    if (rc == SB_OK)
        rc = compare_questions(&c, err);
    sb_speeds_destroy(c.speeds);
    return rc;
}

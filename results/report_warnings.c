#include "results/report_warnings.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/report_speed.h"
#include "results/report_views.h"

#define DRIFT_LIMIT   0.05 /* methods C 7.1 */
#define NOISE_LIMIT   0.05
#define LOAD_LIMIT    0.5                      /* runnable processes beside our own threads */
#define OUTLIER_LIMIT 5.0                      /* robust standard deviations from the median */
enum { DRIFT_LEAST = 6, OUTLIERS_LEAST = 10 }; /* values that a check needs */

struct list {
    struct sb_warning *item;
    size_t n, cap;
    bool failed;
};

static void __attribute__((format(printf, 7, 8)))
note(struct list *l, const char *check, const char *arm, double value, double limit, bool warn,
     const char *fmt, ...)
{
    va_list args;
    if (sb_grow((void **)&l->item, &l->cap, l->n + 1, sizeof *l->item) != 0) {
        l->failed = true;
        return;
    }
    struct sb_warning *w = &l->item[l->n++];
    *w = (struct sb_warning){ .check = check, .value = value, .limit = limit, .warn = warn };
    snprintf(w->arm, sizeof w->arm, "%s", arm);
    va_start(args, fmt);
    vsnprintf(w->message, sizeof w->message, fmt, args);
    va_end(args);
}

/* All values of one column, in order. */
struct values {
    double *v;
    size_t n, cap;
};

static enum sb_status read_values(struct values *out, struct sb_store *store, const char *sql,
                                  int64_t experiment_id, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, store, sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, experiment_id);
    int rc;
    while (status == SB_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (sb_grow((void **)&out->v, &out->cap, out->n + 1, sizeof *out->v) != 0)
            status = sb_fail(err, SB_ENOMEM, "%s: out of memory for its generations", store->path);
        else
            out->v[out->n++] = sqlite3_column_double(st, 0);
    }
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* ---- the checks ---- */

static const char *const partial_sql =
    "WITH r AS MATERIALIZED (SELECT planned, done, errors FROM runs WHERE experiment_id = ?1)"
    " SELECT planned - done FROM r UNION ALL SELECT planned FROM r UNION ALL SELECT errors FROM r";

static enum sb_status check_partial(struct list *l, struct sb_store *store, int64_t experiment_id,
                                    struct sb_error *err)
{
    struct values x = { 0 };
    enum sb_status rc = read_values(&x, store, partial_sql, experiment_id, err);
    if (rc == SB_OK && x.n == 3 && x.v[0] > 0)
        note(l, "partial", "", x.v[0], 0, true,
             "%.0f of %.0f generations are missing or failed (%.0f failed): figures are over what "
             "is there, speedups over the prompts that both arms finished",
             x.v[0], x.v[1], x.v[2]);
    else if (rc == SB_OK && x.n == 3)
        note(l, "partial", "", 0, 0, false, "all %.0f generations ended well", x.v[1]);
    sb_free(x.v);
    return rc;
}

/* Arms that finished fewer questions than others: their figures are not over the same prompts. */
static void check_questions(struct list *l, const struct sb_speeds *speeds)
{
    size_t n, most = 0;
    const struct sb_speed_arm *arm = sb_speeds_arms(speeds, &n);
    for (size_t i = 0; i < n; i++) {
        size_t has = sb_speeds_rate(speeds, arm[i].id, NULL).questions;
        most = has > most ? has : most;
    }
    for (size_t i = 0; i < n; i++) {
        size_t has = sb_speeds_rate(speeds, arm[i].id, NULL).questions;
        if (has < most)
            note(
                l, "partial", arm[i].label, (double)(most - has), 0, true,
                "finished %zu prompts where others finished %zu: MAT and tokens/s are over its own, "
                "speedups over those that the baseline finished too",
                has, most);
    }
}

static enum sb_status check_noise(struct list *l, struct sb_speeds *speeds, int resamples,
                                  uint64_t seed, struct sb_error *err)
{
    const struct sb_speed_arm *baseline = sb_speeds_baseline(speeds);
    struct sb_speed x;
    if (!baseline) {
        note(l, "noise", "", NAN, NOISE_LIMIT, true,
             "there is no baseline arm, so there are no speedups");
        return SB_OK;
    }
    enum sb_status rc = sb_speeds_get(&x, speeds, baseline->id, NULL, resamples, seed, err);
    if (rc != SB_OK)
        return rc;
    double floor = expm1(x.noise);
    if (isnan(floor))
        note(l, "noise", "", floor, NOISE_LIMIT, true,
             "the noise floor is not known; run with --aa, or with --repeats 2 or more");
    else
        note(l, "noise", "", floor, NOISE_LIMIT, floor > NOISE_LIMIT,
             "plain decoding differs from itself by up to %.1f %%: no smaller difference counts",
             100 * floor);
    return SB_OK;
}

/* The baseline's time per token in the order of the run; with repeats, over its prompt's own mean, so
 * that prompts with long contexts do not look like a slow machine. */
static const char *const drift_sql =
    "WITH t AS (SELECT g.id, 1.0 * g.decode_ns / (g.n_tokens - 1) AS ns, g.prompt_id"
    "           FROM generation g WHERE g.status = 'ok' AND g.n_tokens > 1 AND g.decode_ns > 0"
    "           AND g.arm_id = (SELECT id FROM arm WHERE experiment_id = ?1 AND is_baseline = 1"
    "                           ORDER BY arm_no LIMIT 1)),"
    " m AS (SELECT prompt_id, avg(ns) AS mean, count(*) AS n FROM t GROUP BY prompt_id)"
    " SELECT CASE WHEN (SELECT min(n) FROM m) > 1 THEN ns / mean ELSE ns END"
    " FROM t JOIN m USING (prompt_id) ORDER BY t.id";

static enum sb_status check_drift(struct list *l, struct sb_store *store, int64_t experiment_id,
                                  bool repeated, struct sb_error *err)
{
    struct values x = { 0 };
    enum sb_status rc = read_values(&x, store, drift_sql, experiment_id, err);
    if (rc == SB_OK && x.n >= DRIFT_LEAST) {
        size_t third = x.n / 3;
        double last = sb_median(x.v + x.n - third, third), first = sb_median(x.v, third);
        double drift = last / first - 1;
        note(l, "drift", "", drift, DRIFT_LIMIT, fabs(drift) > DRIFT_LIMIT,
             "the baseline's time per token changed by %+.1f %% from the first third of the run to "
             "the last%s",
             100 * drift,
             fabs(drift) <= DRIFT_LIMIT ? ""
             : repeated ? "; the machine changed: speedups are paired, tokens/s are not"
                        : ", on other prompts; with --repeats 2 it would be told apart");
    }
    sb_free(x.v);
    return rc;
}

static const char *const load_sql =
    "SELECT g.load_average - h.threads FROM experiment e JOIN host h ON h.id = e.host_id"
    " JOIN arm a ON a.experiment_id = e.id CROSS JOIN generation g ON g.arm_id = a.id"
    " WHERE e.id = ?1 AND g.load_average >= 0";

static enum sb_status check_load(struct list *l, struct sb_store *store, int64_t experiment_id,
                                 struct sb_error *err)
{
    struct values x = { 0 };
    enum sb_status rc = read_values(&x, store, load_sql, experiment_id, err);
    if (rc == SB_OK && x.n > 0) {
        double extra = fmax(sb_median(x.v, x.n), 0);
        note(l, "load", "", extra, LOAD_LIMIT, extra > LOAD_LIMIT,
             extra > LOAD_LIMIT ? "the machine had a load of %.1f beside this run's own threads "
                                  "(median): times are worth less"
                                : "the machine's load beside this run's own threads was %.1f",
             extra);
    }
    sb_free(x.v);
    return rc;
}

/* Values far from the median of all, by the median absolute deviation (1.4826 of it is the standard
 * deviation of a normal law). */
static void report_outliers(struct list *l, const struct sb_speed_arm *arm,
                            const struct sb_speed_question *q, const double *x, double *scratch,
                            size_t n)
{
    memcpy(scratch, x, n * sizeof *x);
    double median = sb_median(scratch, n);
    for (size_t i = 0; i < n; i++)
        scratch[i] = fabs(x[i] - median);
    double deviation = 1.4826 * sb_median(scratch, n);
    size_t outliers = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        outliers += fabs(x[i] - median) > OUTLIER_LIMIT * deviation && deviation > 0;
        if (fabs(x[i] - median) > fabs(x[worst] - median))
            worst = i;
    }
    if (outliers > 0)
        note(l, "outliers", arm->label, (double)outliers, 0, true,
             "%zu of %zu prompts are more than %.0f robust standard deviations from the median "
             "speedup, most of all question %lld (%s): %.2f beside %.2f",
             outliers, n, OUTLIER_LIMIT, (long long)q[worst].question_id, q[worst].task,
             exp(x[worst]), exp(median));
    else
        note(l, "outliers", arm->label, 0, 0, false, "no prompt of %zu stands out", n);
}

static enum sb_status check_outliers(struct list *l, const struct sb_speeds *speeds,
                                     const struct sb_speed_arm *arm, struct sb_error *err)
{
    struct sb_speed_question *q = NULL;
    size_t n = 0;
    const struct sb_speed_arm *baseline = sb_speeds_baseline(speeds);
    if (!baseline || arm == baseline)
        return SB_OK;
    enum sb_status rc = sb_speeds_questions(&q, &n, speeds, arm->id, baseline->id, NULL, err);
    double *x = rc == SB_OK ? sb_alloc_array(2 * n, sizeof *x) : NULL;
    if (rc == SB_OK && !x)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", n);
    for (size_t i = 0; i < n && rc == SB_OK; i++)
        x[i] = log(q[i].reference_ns) - log(q[i].method_ns);
    if (rc == SB_OK && n >= OUTLIERS_LEAST)
        report_outliers(l, arm, q, x, x + n, n);
    sb_free(x);
    sb_free(q);
    return rc;
}

enum sb_status sb_warnings_find(struct sb_warning **out, size_t *n, struct sb_store *store,
                                int64_t experiment_id, int resamples, uint64_t seed,
                                struct sb_error *err)
{
    struct list l = { 0 };
    struct sb_speeds *speeds = NULL;
    enum sb_status rc = sb_report_experiment(store, &experiment_id, err);
    if (rc == SB_OK)
        rc = sb_speeds_load(&speeds, store, experiment_id, err);
    if (rc == SB_OK)
        rc = check_partial(&l, store, experiment_id, err);
    if (rc == SB_OK)
        check_questions(&l, speeds);
    if (rc == SB_OK)
        rc = check_noise(&l, speeds, resamples, seed, err);
    const struct sb_speed_arm *baseline = rc == SB_OK ? sb_speeds_baseline(speeds) : NULL;
    if (rc == SB_OK && baseline)
        rc = check_drift(&l, store, experiment_id,
                         sb_speeds_rate(speeds, baseline->id, NULL).repeats > 1, err);
    if (rc == SB_OK)
        rc = check_load(&l, store, experiment_id, err);
    size_t n_arms = 0;
    const struct sb_speed_arm *arm = rc == SB_OK ? sb_speeds_arms(speeds, &n_arms) : NULL;
    for (size_t i = 0; i < n_arms && rc == SB_OK; i++)
        rc = check_outliers(&l, speeds, &arm[i], err);
    if (rc == SB_OK && l.failed)
        rc = sb_fail(err, SB_ENOMEM, "%s: out of memory for its warnings", store->path);
    sb_speeds_destroy(speeds);
    if (rc == SB_OK) {
        *out = l.item;
        *n = l.n;
    } else {
        sb_free(l.item);
    }
    return rc;
}

enum sb_status sb_warnings_print(FILE *out, const char *command, struct sb_store *store,
                                 int64_t experiment_id, struct sb_error *err)
{
    struct sb_warning *w = NULL;
    size_t n = 0;
    enum sb_status rc = sb_warnings_find(&w, &n, store, experiment_id, 0, 0, err);
    for (size_t i = 0; i < n; i++)
        if (w[i].warn && strcmp(w[i].check, "partial") != 0)
            fprintf(out, "specbench %s: warning: %s%s%s%s\n", command, w[i].arm[0] ? "arm '" : "",
                    w[i].arm, w[i].arm[0] ? "': " : "", w[i].message);
    sb_free(w);
    return rc;
}

enum sb_status sb_view_warnings(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                                const struct sb_report_options *o, struct sb_error *err)
{
    static const struct sb_view_column columns[] = {
        { "check", 0, false },
        { "arm", 0, true },
        { "value", 3, false },
        { "limit", 3, false },
        { "warning", 0, false },
        { "message", 0, false },
        { 0 },
    };
    struct sb_warning *w = NULL;
    size_t n = 0;
    enum sb_status rc = sb_warnings_find(&w, &n, store, experiment_id, o->resamples, o->seed, err);
    sb_view_columns(t, columns);
    for (size_t i = 0; i < n; i++) {
        sb_table_text(t, w[i].check);
        sb_table_text(t, w[i].arm[0] ? w[i].arm : NULL);
        sb_table_real(t, w[i].value);
        sb_table_real(t, w[i].limit);
        sb_table_int(t, w[i].warn);
        sb_table_text(t, w[i].message);
    }
    sb_free(w);
    return rc;
}

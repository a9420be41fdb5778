/* The view of costs: what the cost curve c(M) and the recorded steps say an arm's speed should be (methods
 * C 4.1), where its best constant draft length lies (C 3.1), what perfect drafts would give, and how slow
 * the drafter may be before it loses (C 4.3).
 *
 * The model replaces the time of every target forward by the curve's, and keeps all other times as
 * recorded. The curve is scaled to the run by the baseline's forwards, so that only its shape is judged.
 * For another machine its own curve is taken as it is, and everything that is not the target's forward
 * is scaled as a plain forward is. */
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/cost_model.h"
#include "results/report_speed.h"
#include "results/report_views.h"

#define MODEL_LIMIT 0.05 /* median error per prompt above which the model is not to be trusted */

/* ---- the curve as an SQL function ---- */

struct curve {
    struct sb_cost_model model;
    double scale; /* of its times, so that the baseline's forwards come out as they were */
    double other; /* factor for all times that are not a target forward */
};

/* forward_ns(rows, context) */
static void forward_ns(sqlite3_context *ctx, int n, sqlite3_value **value)
{
    const struct curve *c = sqlite3_user_data(ctx);
    (void)n;
    sqlite3_result_double(ctx,
                          c->scale * sb_cost_model_ns(&c->model, sqlite3_value_double(value[0]),
                                                      sqlite3_value_double(value[1])));
}

static enum sb_status use_curve(struct sb_store *store, struct curve *c, struct sb_error *err)
{
    int rc = sqlite3_create_function(store->db, "forward_ns", 2, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
                                     c, c ? forward_ns : NULL, NULL, NULL);
    return rc == SQLITE_OK ? SB_OK : sb_sqlite_fail(err, store, rc, "prepare the cost model");
}

/* ---- sums over steps ---- */

/* other: all of decoding that is not a target forward. */
static const char *const sums_sql =
    "SELECT s.*, t.decode_ns - s.verify_ns FROM (SELECT a.id AS arm_id, count(*),"
    " sum(s.tokens), sum(s.depth), sum(s.drafted + s.auxiliary), sum(s.drafted > 0),"
    " sum(s.draft_ns), sum(s.verify_ns) AS verify_ns,"
    " sum(forward_ns(1 + s.drafted + s.auxiliary, s.context)), sum(forward_ns(1, s.context)),"
    " avg(s.context), a.arm_no AS arm_no"
    " FROM arm a JOIN generation g ON g.arm_id = a.id AND g.status = 'ok'"
    " JOIN step s ON s.generation_id = g.id WHERE a.experiment_id = ?1 GROUP BY a.id) s"
    " JOIN (SELECT g.arm_id, sum(g.decode_ns) AS decode_ns FROM arm a"
    "       JOIN generation g ON g.arm_id = a.id AND g.status = 'ok'"
    "       WHERE a.experiment_id = ?1 GROUP BY a.id) t ON t.arm_id = s.arm_id"
    " ORDER BY s.arm_no";

static const char *const survival_sql =
    "SELECT survival FROM positions WHERE arm_id = ?1 ORDER BY position";

struct arm_sums {
    int64_t arm_id;
    double steps, tokens, depth;
    double extra; /* rows beside the first of each forward */
    double hits;  /* steps with a draft */
    double draft_ns, verify_ns;
    double forward_ns, plain_ns; /* by the curve: its forwards; as many over one row */
    double context;              /* mean */
    double other_ns;
};

/* What the model says of one arm; NaN where it has nothing to say. */
struct estimate {
    double rows, c;                 /* mean rows of a forward; its mean cost in plain ones */
    double draft_us, break_even_us; /* per level of the draft */
    double best_length, best_speedup, oracle_speedup;
};

struct costs {
    struct sb_store *store;
    const struct sb_report_options *o;
    struct curve here, there;
    struct sb_speeds *measured, *predicted, *elsewhere; /* elsewhere: NULL without --on */
    struct arm_sums *sums;                              /* [n_sums] arms that made steps */
    size_t n_sums, sums_cap;
    double plain_other_ns; /* of a plain step, beside its forward */
    char *model_name, *config_json, *weight_type, *arithmetic;
    int64_t host_id, model_id, experiment_id;
};

static void costs_finish(struct costs *c)
{
    sb_cost_model_finish(&c->here.model);
    sb_cost_model_finish(&c->there.model);
    sb_speeds_destroy(c->measured);
    sb_speeds_destroy(c->predicted);
    sb_speeds_destroy(c->elsewhere);
    sb_free(c->sums);
    sb_free(c->model_name);
    sb_free(c->config_json);
    sb_free(c->weight_type);
    sb_free(c->arithmetic);
}

static char *text_copy(sqlite3_stmt *st, int column)
{
    const char *text = (const char *)sqlite3_column_text(st, column);
    return sb_strdup(text ? text : "");
}

static enum sb_status load_setup(struct costs *c, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status =
        sb_sqlite_prepare(&st, c->store,
                          "SELECT e.host_id, m.id, m.name, m.config_json, m.weight_type,"
                          " e.arithmetic FROM experiment e JOIN model m ON m.id = e.target_model_id"
                          " WHERE e.id = ?1",
                          err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, c->experiment_id);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        c->host_id = sqlite3_column_int64(st, 0);
        c->model_id = sqlite3_column_int64(st, 1);
        c->model_name = text_copy(st, 2);
        c->config_json = text_copy(st, 3);
        c->weight_type = text_copy(st, 4);
        c->arithmetic = text_copy(st, 5);
        if (!c->model_name || !c->config_json || !c->weight_type || !c->arithmetic)
            status = sb_fail(err, SB_ENOMEM, "%s: out of memory", c->store->path);
    } else {
        status = sb_sqlite_fail(err, c->store, rc, "read");
    }
    sqlite3_finalize(st);
    return status;
}

static enum sb_status load_curves(struct costs *c, struct sb_error *err)
{
    enum sb_status rc =
        sb_cost_model_load(&c->here.model, c->store, c->host_id, c->model_id, c->arithmetic, err);
    if (rc == SB_OK && c->here.model.n == 0)
        rc =
            sb_fail(err, SB_EINPUT,
                    "%s: holds no cost curve of '%s' on the host of this experiment; specbench run "
                    "measures it unless --no-cost-curve is given, specbench bench --model %s --db "
                    "stores one",
                    c->store->path, c->model_name, c->model_name);
    const struct sb_cost_owner owner = { .name = c->model_name,
                                         .config_json = c->config_json,
                                         .weight_type = c->weight_type[0] ? c->weight_type : NULL,
                                         .arithmetic = c->arithmetic[0] ? c->arithmetic : NULL };
    if (rc == SB_OK && c->o->on)
        rc = sb_cost_model_read(&c->there.model, c->o->on, &owner, err);
    return rc;
}

static enum sb_status load_sums(struct costs *c, struct sb_error *err)
{
    sqlite3_stmt *st;
    c->here.scale = c->here.other = c->there.scale = 1;
    enum sb_status status = use_curve(c->store, &c->here, err);
    if (status == SB_OK)
        status = sb_sqlite_prepare(&st, c->store, sums_sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, c->experiment_id);
    int rc;
    while (status == SB_OK && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (sb_grow((void **)&c->sums, &c->sums_cap, c->n_sums + 1, sizeof *c->sums) != 0)
            status = sb_fail(err, SB_ENOMEM, "%s: out of memory for its arms", c->store->path);
        else
            c->sums[c->n_sums++] = (struct arm_sums){ .arm_id = sqlite3_column_int64(st, 0),
                                                      .steps = sqlite3_column_double(st, 1),
                                                      .tokens = sqlite3_column_double(st, 2),
                                                      .depth = sqlite3_column_double(st, 3),
                                                      .extra = sqlite3_column_double(st, 4),
                                                      .hits = sqlite3_column_double(st, 5),
                                                      .draft_ns = sqlite3_column_double(st, 6),
                                                      .verify_ns = sqlite3_column_double(st, 7),
                                                      .forward_ns = sqlite3_column_double(st, 8),
                                                      .plain_ns = sqlite3_column_double(st, 9),
                                                      .context = sqlite3_column_double(st, 10),
                                                      .other_ns = sqlite3_column_double(st, 12) };
    }
    if (status == SB_OK && rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, c->store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* Scale the curve to the run, by the baseline; find how other times scale to the other machine. */
static void anchor(struct costs *c)
{
    const struct sb_speed_arm *baseline = sb_speeds_baseline(c->measured);
    for (size_t i = 0; i < c->n_sums; i++)
        if (baseline && c->sums[i].arm_id == baseline->id && c->sums[i].verify_ns > 0) {
            c->here.scale = c->sums[i].verify_ns / c->sums[i].forward_ns;
            c->plain_other_ns = c->sums[i].other_ns / c->sums[i].steps;
        }
    for (size_t i = 0; i < c->n_sums; i++) {
        c->sums[i].forward_ns *= c->here.scale;
        c->sums[i].plain_ns *= c->here.scale;
    }
    if (c->there.model.n > 0) {
        const struct sb_cost_point *first = &c->there.model.point[0];
        c->there.other =
            first->ns / (c->here.scale * sb_cost_model_ns(&c->here.model, 1, first->context));
    }
}

/* Decode time of a generation g by the curve in use. */
static char *decode_expression(const struct curve *c)
{
    return sb_strf("(SELECT coalesce(%.17g * (g.decode_ns - sum(s.verify_ns))"
                   " + sum(forward_ns(1 + s.drafted + s.auxiliary, s.context)), 0)"
                   " FROM step s WHERE s.generation_id = g.id)",
                   c->other);
}

static enum sb_status predict(struct sb_speeds **out, struct costs *c, struct curve *curve,
                              struct sb_error *err)
{
    char *expression = decode_expression(curve);
    enum sb_status rc = expression ? use_curve(c->store, curve, err)
                                   : sb_fail(err, SB_ENOMEM, "%s: out of memory", c->store->path);
    if (rc == SB_OK)
        rc = sb_speeds_load_as(out, c->store, c->experiment_id, expression, false, err);
    sb_free(expression);
    return rc;
}

/* ---- one arm ---- */

/* Speedup of drafts of `length` levels: tokens by the survival of positions, in steps that have a draft
 * at all; rows and draft time per level as in the run. */
struct lengths {
    double hit_rate, draft_ns, rows, other_ns, plain_ns, context;
    const struct curve *curve;
};

static double speedup_of_length(const struct lengths *l, double expected, double length)
{
    double forward =
        l->curve->scale * sb_cost_model_ns(&l->curve->model, 1 + length * l->rows, l->context);
    double plain = l->curve->scale * sb_cost_model_ns(&l->curve->model, 1, l->context);
    double step = l->hit_rate * (length * l->draft_ns + forward) + (1 - l->hit_rate) * plain;
    return (1 + l->hit_rate * expected) * l->plain_ns / (step + l->other_ns);
}

static enum sb_status best_length(struct estimate *e, struct costs *c, const struct arm_sums *a,
                                  double plain_ns, struct sb_error *err)
{
    sqlite3_stmt *st;
    const struct lengths l = { .hit_rate = a->hits / a->steps,
                               .draft_ns = a->draft_ns / a->depth,
                               .rows = a->extra / a->depth,
                               .other_ns = (a->other_ns - a->draft_ns) / a->steps,
                               .plain_ns = plain_ns,
                               .context = a->context,
                               .curve = &c->here };
    enum sb_status status = sb_sqlite_prepare(&st, c->store, survival_sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, a->arm_id);
    int rc;
    double expected = 0;
    e->best_length = 0;
    e->best_speedup = speedup_of_length(&l, 0, 0);
    for (double length = 1; (rc = sqlite3_step(st)) == SQLITE_ROW; length++) {
        expected += sqlite3_column_double(st, 0);
        double speedup = speedup_of_length(&l, expected, length);
        if (speedup > e->best_speedup) {
            e->best_speedup = speedup;
            e->best_length = length;
        }
    }
    if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, c->store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

static enum sb_status estimate(struct estimate *e, struct costs *c, const struct arm_sums *a,
                               struct sb_error *err)
{
    *e = (struct estimate){
        1 + a->extra / a->steps, a->forward_ns / a->plain_ns, NAN, NAN, NAN, NAN, NAN
    };
    if (!(a->depth > 0))
        return SB_OK;
    double plain = a->plain_ns / a->steps + c->plain_other_ns; /* time of a plain step */
    double rest = a->other_ns - a->draft_ns;
    e->draft_us = a->draft_ns / a->depth * 1e-3;
    e->break_even_us = (a->tokens * plain - a->forward_ns - rest) / a->depth * 1e-3;
    e->oracle_speedup = (a->depth + a->steps) * plain / (a->forward_ns + a->other_ns);
    return best_length(e, c, a, plain, err);
}

/* Median over prompts of |predicted / measured - 1| of an arm's time; NaN without prompts. */
static enum sb_status time_error(double *out, struct costs *c, int64_t arm_id, struct sb_error *err)
{
    struct sb_speed_question *m = NULL, *p = NULL;
    size_t n = 0, n_predicted = 0, used = 0;
    *out = NAN;
    enum sb_status rc = sb_speeds_questions(&m, &n, c->measured, arm_id, arm_id, NULL, err);
    if (rc == SB_OK)
        rc = sb_speeds_questions(&p, &n_predicted, c->predicted, arm_id, arm_id, NULL, err);
    double *x = rc == SB_OK ? sb_alloc_array(n, sizeof *x) : NULL;
    if (rc == SB_OK && !x)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for %zu prompts", n);
    for (size_t i = 0; i < n && i < n_predicted && rc == SB_OK; i++)
        if (m[i].question_id == p[i].question_id && strcmp(m[i].task, p[i].task) == 0)
            x[used++] = fabs(p[i].method_ns / m[i].method_ns - 1);
    if (rc == SB_OK && used > 0)
        *out = sb_median(x, used);
    sb_free(x);
    sb_free(m);
    sb_free(p);
    return rc;
}

/* ---- the view ---- */

static const struct sb_view_column columns[] = {
    { "arm", 0, false },
    { "prompts", 0, false },
    { "speedup", 2, false },
    { "speedup_lo", 2, false },
    { "speedup_hi", 2, false },
    { "predicted", 2, false },
    { "residual", 3, false },
    { "time_error", 3, false },
    { "rows_per_step", 2, false },
    { "c", 2, false },
    { "draft_us", 1, false },
    { "break_even_us", 1, false },
    { "best_length", 0, false },
    { "best_speedup", 2, false },
    { "oracle_speedup", 2, false },
    { "predicted_on", 2, true },
    { "tokens_per_s_on", 1, true },
    { "note", 0, true },
    { 0 },
};

static enum sb_status cost_row(struct sb_table *t, struct costs *c, const struct sb_speed_arm *arm,
                               const struct arm_sums *sums, struct sb_error *err)
{
    const struct sb_report_options *o = c->o;
    struct sb_speed measured, predicted, there = { .totals = { NAN, NAN, NAN } };
    struct estimate e;
    double error;
    enum sb_status rc =
        sb_speeds_get(&measured, c->measured, arm->id, NULL, o->resamples, o->seed, err);
    if (rc == SB_OK) /* of predictions only the figure counts: two draws fill the fields */
        rc = sb_speeds_get(&predicted, c->predicted, arm->id, NULL, 2, o->seed, err);
    if (rc == SB_OK && c->elsewhere)
        rc = sb_speeds_get(&there, c->elsewhere, arm->id, NULL, 2, o->seed, err);
    if (rc == SB_OK)
        rc = time_error(&error, c, arm->id, err);
    if (rc == SB_OK)
        rc = estimate(&e, c, sums, err);
    if (rc != SB_OK)
        return rc;
    bool interval = !arm->is_baseline;
    sb_table_text(t, arm->label);
    sb_table_int(t, (int64_t)measured.n);
    sb_table_real(t, measured.totals.estimate);
    sb_table_real(t, interval ? measured.totals.low : NAN);
    sb_table_real(t, interval ? measured.totals.high : NAN);
    sb_table_real(t, predicted.totals.estimate);
    sb_table_real(t, measured.totals.estimate / predicted.totals.estimate - 1);
    sb_table_real(t, error);
    sb_table_real(t, e.rows);
    sb_table_real(t, e.c);
    sb_table_real(t, e.draft_us);
    sb_table_real(t, e.break_even_us);
    if (isnan(e.best_length))
        sb_table_text(t, NULL);
    else
        sb_table_int(t, (int64_t)e.best_length);
    sb_table_real(t, e.best_speedup);
    sb_table_real(t, e.oracle_speedup);
    sb_table_real(t, c->elsewhere ? there.totals.estimate : NAN);
    sb_table_real(t, c->elsewhere ? sb_speeds_rate(c->elsewhere, arm->id, NULL).decode : NAN);
    sb_table_text(t, error > MODEL_LIMIT ? "model off by more than 5 %" : NULL);
    return SB_OK;
}

static enum sb_status cost_rows(struct sb_table *t, struct costs *c, struct sb_error *err)
{
    size_t n;
    enum sb_status rc = SB_OK;
    const struct sb_speed_arm *arm = sb_speeds_arms(c->measured, &n);
    for (size_t k = 0; k < c->n_sums; k++)
        for (size_t i = 0; i < n && rc == SB_OK; i++)
            if (arm[i].id == c->sums[k].arm_id)
                rc = cost_row(t, c, &arm[i], &c->sums[k], err);
    return rc;
}

enum sb_status sb_view_cost(struct sb_table *t, struct sb_store *store, int64_t experiment_id,
                            const struct sb_report_options *o, struct sb_error *err)
{
    struct costs c = { .store = store, .o = o, .experiment_id = experiment_id };
    enum sb_status rc = load_setup(&c, err);
    if (rc == SB_OK)
        rc = load_curves(&c, err);
    if (rc == SB_OK)
        rc = sb_speeds_load(&c.measured, store, experiment_id, err);
    if (rc == SB_OK)
        rc = load_sums(&c, err);
    if (rc == SB_OK) {
        anchor(&c);
        rc = predict(&c.predicted, &c, &c.here, err);
    }
    if (rc == SB_OK && o->on)
        rc = predict(&c.elsewhere, &c, &c.there, err);
    sb_view_columns(t, columns);
    if (rc == SB_OK)
        rc = cost_rows(t, &c, err);
    use_curve(store, NULL, NULL);
    costs_finish(&c);
    return rc;
}

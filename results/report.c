/* The named reports: SQL views as tables, and the leaderboard with its paired intervals. */
#include "results/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/internal.h"
#include "results/report_speed.h"
#include "results/report_views.h"

const struct sb_view_info sb_views[] = {
    { "leaderboard",
      "a row per arm over all prompts: MAT, efficiency, speed, speedup with interval" },
    { "tasks", "the leaderboard's columns for every arm in every task" },
    { "acceptance", "every figure of acceptance: MAT three ways, efficiencies, row waste" },
    { "positions", "acceptance by position in the draft: conditional, survival, marginal" },
    { "ranks", "acceptance by depth and rank among the siblings" },
    { "sources", "acceptance by the drafter's own tag" },
    { "histogram", "steps by draft tokens accepted and by tokens kept" },
    { "drafting", "what drafts reach and cost: per arm in every task, then in all" },
    { "breakdown", "where decoding time goes" },
    { "latency", "what a streaming user waits for: percentiles per token and per step" },
    { "diagnosis", "what verifiers left on the table, in runs with --diagnose" },
    { "runs", "the experiments of the database" },
    { "coverage", "how much of what was planned each arm has done" },
    { "speed", "all speed figures: decode-only and with prefill, three means, tokens/s" },
    { "compare", "two arms beside each other (--arms A,B)" },
    { "cost", "speedups predicted from the cost curve, best draft length, bounds" },
    { "warnings", "noise, drift, outliers, load: what the times are worth" },
    { "certificate", "the newest certificate: a row per verifier, then the planted rules" },
    { "checks", "the newest certificate: a row per check" },
    { 0 },
};

/* Column "name:decimals", for people, "name:g" for two significant digits, with '?' behind it when it is
 * optional; the queries and their columns go together. */
struct sql_view {
    const char *name, *sql;
};
static const struct sql_view sql_views[] = {
    { "positions", "SELECT arm, position, exposure, accepted, conditional AS \"conditional:3\","
                   " survival AS \"survival:3\", marginal AS \"marginal:3\""
                   " FROM positions WHERE experiment_id = ?1 ORDER BY arm_no, position" },
    { "drafting",
      "SELECT b.arm, b.task, b.prompts, b.steps, b.mat, b.mat_drafted, b.hit_rate AS \"hit_rate:3\","
      " b.draft_efficiency AS \"draft_efficiency:3\","
      " b.conditional_acceptance AS \"conditional_acceptance:3\","
      " t.draft_us AS \"draft_us:2\", t.observe_us AS \"observe_us:2\","
      " t.draft_share AS \"draft_share:3?\""
      " FROM leaderboard_base b LEFT JOIN v_drafting t"
      " ON t.arm_id = b.arm_id AND t.overall = b.overall AND t.task = b.task"
      " WHERE b.experiment_id = ?1 ORDER BY b.overall, b.task, b.arm_no" },
    { "acceptance",
      "SELECT arm, prompts, generations, steps, tokens, mat AS \"mat:3\","
      " mat_prompt_mean AS \"mat_prompt_mean:3\", mat_drafted AS \"mat_drafted:3\","
      " hit_rate AS \"hit_rate:3\", tokens_per_forward AS \"tokens_per_forward:3\","
      " conditional_acceptance AS \"conditional_acceptance:3\","
      " draft_efficiency AS \"draft_efficiency:3\", node_efficiency AS \"node_efficiency:3\","
      " depth_efficiency AS \"depth_efficiency:3\", path_utilisation AS \"path_utilisation:3\","
      " row_waste AS \"row_waste:3\", cut AS \"cut:?\", missing AS \"missing:?\""
      " FROM leaderboard_base WHERE experiment_id = ?1 AND overall ORDER BY arm_no" },
    { "ranks", "SELECT arm, depth, rank, nodes, accepted, acceptance AS \"acceptance:3\","
               " share AS \"share:3\", coverage AS \"coverage:3\""
               " FROM ranks WHERE experiment_id = ?1 ORDER BY arm_no, depth, rank" },
    { "sources", "SELECT arm, source, drafted, tried, accepted, acceptance AS \"acceptance:3\","
                 " efficiency AS \"efficiency:3\", share AS \"share:3\""
                 " FROM sources WHERE experiment_id = ?1 ORDER BY arm_no, source" },
    { "histogram", "SELECT arm, length, accepted_steps, accepted_share AS \"accepted_share:3\","
                   " drafted_steps, token_steps, token_share AS \"token_share:3\""
                   " FROM histogram WHERE experiment_id = ?1 ORDER BY arm_no, length" },
    { "latency", "SELECT arm, tokens, chunks, itl_p50_ms AS \"itl_p50_ms:3\","
                 " itl_p95_ms AS \"itl_p95_ms:3\", itl_p99_ms AS \"itl_p99_ms:3\","
                 " chunk_p50_ms AS \"chunk_p50_ms:3\", chunk_p95_ms AS \"chunk_p95_ms:3\","
                 " chunk_p99_ms AS \"chunk_p99_ms:3\", chunk_max_ms AS \"chunk_max_ms:3\","
                 " amortised_ms AS \"amortised_ms:3\", ttft_p50_ms AS \"ttft_p50_ms:2\","
                 " ttft_p95_ms AS \"ttft_p95_ms:2\""
                 " FROM latency WHERE experiment_id = ?1 ORDER BY arm_no" },
    { "coverage", "SELECT arm, planned, done, errors, missing, common"
                  " FROM coverage WHERE experiment_id = ?1 ORDER BY arm_no" },
    { "breakdown",
      "SELECT arm, steps, prefill_s AS \"prefill_s:2\", decode_s AS \"decode_s:2\","
      " ms_per_step AS \"ms_per_step:3\", draft AS \"draft:3\", verify AS \"verify:3\","
      " accept AS \"accept:3\", \"commit\" AS \"commit:3\", observe AS \"observe:3\","
      " other AS \"other:3\", draft_overhead AS \"draft_overhead:3\""
      " FROM breakdown WHERE experiment_id = ?1 ORDER BY arm_no" },
    { "diagnosis", "SELECT arm, verifier, steps, judged, alpha_tv AS \"alpha_tv:3\","
                   " acceptance AS \"acceptance:3\", ot_bound AS \"ot_bound:3\","
                   " left_on_table AS \"left_on_table:3\""
                   " FROM diagnosis WHERE experiment_id = ?1 ORDER BY arm_no" },
    { "runs",
      "SELECT experiment_id, name, created_at, target, dataset, temperature AS \"temperature:2\", seed,"
      " repeats, arms, prompts, planned, done, errors, cpu, threads, isa, specbench_version, \"commit\""
      " FROM runs WHERE ?1 = 0 OR experiment_id = ?1 ORDER BY experiment_id" },
    { "certificate",
      "SELECT verifier, verifier_params AS \"verifier_params:?\","
      " CASE WHEN planted THEN 'planted' ELSE guarantee END AS guarantee, kinds, tables,"
      " max_error AS \"max_error:g\", variation AS \"variation:4\","
      " toy_accepted AS \"toy_accepted:3\", generations AS \"generations:?\","
      " p_holm AS \"p_holm:g\", variation_upper AS \"variation_upper:3\","
      " drift_upper AS \"drift_upper:4\", detectable AS \"detectable:3\", equal AS \"equal:?\","
      " verdict"
      " FROM certified WHERE certificate_id = ?1 ORDER BY planted, guarantee, verifier, verifier_params" },
    { "checks",
      "SELECT check_no, part, planted, verifier, verifier_params, guarantee, kind, drafter, policy,"
      " target, setting, n, outcomes, max_error AS \"max_error:g\", variation AS \"variation:4\","
      " variation_upper AS \"variation_upper:4\", accepted AS \"accepted:3\", g AS \"g:1\","
      " df AS \"df:0\", g_p AS \"g_p:g\", drift AS \"drift:4\", drift_upper AS \"drift_upper:4\","
      " drift_p AS \"drift_p:g\", p_holm AS \"p_holm:g\", detectable AS \"detectable:3\", equal,"
      " ties, numerical, real, wall_ns, verdict, note"
      " FROM certificate_check WHERE certificate_id = ?1 ORDER BY check_no" },
    { 0 },
};

static const struct {
    const char *name;
    sb_view_fill fill;
} computed_views[] = {
    { "speed", sb_view_speed },
    { "compare", sb_view_compare },
    { "cost", sb_view_cost },
    { "warnings", sb_view_warnings },
};

/* ---- any query as a table ---- */

static void add_column(struct sb_table *t, const char *label)
{
    const char *colon = strrchr(label, ':');
    char name[64];
    snprintf(name, sizeof name, "%.*s", colon ? (int)(colon - label) : (int)strlen(label), label);
    bool counted = colon && colon[1] >= '0' && colon[1] <= '9';
    sb_table_column(t, name, counted ? colon[1] - '0' : colon && colon[1] == 'g' ? -2 : 2);
    if (colon && strchr(colon, '?'))
        sb_table_optional(t);
}

static void add_value(struct sb_table *t, sqlite3_stmt *st, int c)
{
    switch (sqlite3_column_type(st, c)) {
    case SQLITE_INTEGER:
        sb_table_int(t, sqlite3_column_int64(st, c));
        break;
    case SQLITE_FLOAT:
        sb_table_real(t, sqlite3_column_double(st, c));
        break;
    default: /* NULL gives NULL */
        sb_table_text(t, (const char *)sqlite3_column_text(st, c));
    }
}

enum sb_status sb_report_query(struct sb_table *t, struct sb_store *s, const char *sql, int64_t id,
                               struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, s, sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, id);
    for (int c = 0; c < sqlite3_column_count(st); c++)
        add_column(t, sqlite3_column_name(st, c));
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW)
        for (int c = 0; c < sqlite3_column_count(st); c++)
            add_value(t, st, c);
    if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, s, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* ---- leaderboard ---- */

/* The last columns: whose outputs were compared only matters under greedy decoding; a certificate of the
 * verifier says nothing of an arm whose drafter changes the law. */
static const char *const leaderboard_sql =
    "WITH e AS MATERIALIZED (SELECT arm_id, task, sum(equal) AS equal, count(*) AS compared"
    "                        FROM v_equality WHERE experiment_id = ?1 GROUP BY arm_id, task),"
    " q AS (SELECT 0 AS overall, * FROM e UNION ALL"
    "       SELECT 1, arm_id, 'all', sum(equal), sum(compared) FROM e GROUP BY arm_id)"
    " SELECT b.arm_id, b.is_baseline, b.overall, b.arm, b.task, b.prompts, b.generations, b.steps, b.mat,"
    " b.draft_efficiency, b.hit_rate, b.tokens_per_s, b.guarantee, b.errors,"
    " CASE WHEN x.temperature = 0 THEN q.equal || '/' || q.compared END,"
    " CASE WHEN l.lossless IS NOT NULL AND b.guarantee = 'lossy' THEN 'lossy' ELSE l.lossless END, b.missing"
    " FROM leaderboard_base b JOIN experiment x ON x.id = b.experiment_id"
    " JOIN arm a ON a.id = b.arm_id JOIN host h ON h.id = x.host_id"
    " LEFT JOIN v_lossless l ON l.\"commit\" IS h.\"commit\" AND l.verifier = a.verifier"
    " AND l.verifier_params = coalesce(a.verifier_params, '')"
    " LEFT JOIN q ON q.arm_id = b.arm_id AND q.overall = b.overall AND q.task = b.task"
    " WHERE b.experiment_id = ?1 AND (b.overall = 1 OR ?2)"
    " ORDER BY b.overall, b.task, b.arm_no";

static const struct sb_view_column leaderboard_columns[] = {
    { "arm", 0, false },
    { "task", 0, false },
    { "prompts", 0, false },
    { "mat", 2, false },
    { "draft_efficiency", 3, false },
    { "hit_rate", 3, false },
    { "tokens_per_s", 1, false },
    { "speedup", 2, false },
    { "speedup_lo", 2, false },
    { "speedup_hi", 2, false },
    { "speedup_gm", 2, false },
    { "speedup_e2e", 2, false },
    { "specbench_speedup", 2, false },
    { "equal", 0, false },
    { "guarantee", 0, false },
    { "lossless", 0, true },
    { "few", 0, true },
    { "per_token", 0, true },
    { "noise_floor", 3, true },
    { "note", 0, true },
    { "errors", 0, true },
    { "missing", 0, true },
    { 0 },
};

/* The baseline has a speedup of 1 by definition and no interval. */
static void add_speed(struct sb_table *t, const struct sb_speed *speed, bool is_baseline)
{
    bool none = speed->n == 0;
    double missing = none ? NAN : is_baseline ? 1 : 0;
    sb_table_real(t, none || is_baseline ? missing : speed->totals.estimate);
    sb_table_real(t, none || is_baseline ? NAN : speed->totals.low);
    sb_table_real(t, none || is_baseline ? NAN : speed->totals.high);
    sb_table_real(t, none || is_baseline ? missing : speed->geometric.estimate);
    sb_table_real(t, none || is_baseline ? missing : speed->all.estimate);
}

static enum sb_status leaderboard_row(struct sb_table *t, sqlite3_stmt *st,
                                      struct sb_speeds *speeds, const struct sb_report_options *o,
                                      struct sb_error *err)
{
    struct sb_speed speed;
    bool is_baseline = sqlite3_column_int(st, 1), overall = sqlite3_column_int(st, 2);
    const char *task = overall ? NULL : (const char *)sqlite3_column_text(st, 4);
    enum sb_status rc = sb_speeds_get(&speed, speeds, sqlite3_column_int64(st, 0), task,
                                      o->resamples, o->seed, err);
    if (rc != SB_OK)
        return rc;
    add_value(t, st, 3);
    add_value(t, st, 4);
    add_value(t, st, 5);
    for (int c = 8; c <= 11; c++)
        add_value(t, st, c);
    add_speed(t, &speed, is_baseline);
    sb_table_real(t, speed.specbench);
    add_value(t, st, 14);
    add_value(t, st, 12);
    add_value(t, st, 15);
    bool compared = speed.n > 0 && !is_baseline;
    sb_table_int(t, compared && speed.n < SB_FEW_PROMPTS);
    sb_table_int(t, compared && speed.per_token);
    sb_table_real(t, compared ? expm1(speed.noise) : NAN);
    sb_table_text(t, speed.note[0] ? speed.note : NULL);
    add_value(t, st, 13);
    add_value(t, st, 16);
    return SB_OK;
}

static enum sb_status leaderboard(struct sb_table *t, struct sb_store *s, int64_t experiment_id,
                                  const struct sb_report_options *o, bool with_tasks,
                                  struct sb_error *err)
{
    struct sb_speeds *speeds = NULL;
    sqlite3_stmt *st = NULL;
    sb_view_columns(t, leaderboard_columns);
    enum sb_status status = sb_speeds_load(&speeds, s, experiment_id, err);
    if (status == SB_OK)
        status = sb_speeds_load_specbench(speeds, s, experiment_id, err);
    if (status == SB_OK)
        status = sb_sqlite_prepare(&st, s, leaderboard_sql, err);
    if (status == SB_OK) {
        int rc = sb_sqlite_bind(st, "ii", experiment_id, (int64_t)with_tasks);
        while (status == SB_OK && (rc = sqlite3_step(st)) == SQLITE_ROW)
            status = leaderboard_row(t, st, speeds, o, err);
        if (status == SB_OK && rc != SQLITE_DONE)
            status = sb_sqlite_fail(err, s, rc, "read");
    }
    sqlite3_finalize(st);
    sb_speeds_destroy(speeds);
    return status;
}

/* ---- entry points ---- */

/* The newest certificate. */
static enum sb_status choose_certificate(struct sb_store *s, int64_t *id, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status =
        sb_sqlite_prepare(&st, s, "SELECT coalesce(max(id), 0) FROM certificate", err);
    if (status != SB_OK)
        return status;
    int rc = sqlite3_step(st);
    *id = rc == SQLITE_ROW ? sqlite3_column_int64(st, 0) : 0;
    if (rc != SQLITE_ROW)
        status = sb_sqlite_fail(err, s, rc, "read");
    else if (*id == 0)
        status = sb_fail(err, SB_EINPUT,
                         "%s: holds no certificate; specbench certify --db makes one", s->path);
    sqlite3_finalize(st);
    return status;
}

enum sb_status sb_report_experiment(struct sb_store *s, int64_t *id, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status =
        sb_sqlite_prepare(&st, s, "SELECT max(id) FROM experiment WHERE ?1 = 0 OR id = ?1", err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, *id);
    int rc = sqlite3_step(st);
    if (rc != SQLITE_ROW)
        status = sb_sqlite_fail(err, s, rc, "read");
    else if (sqlite3_column_type(st, 0) != SQLITE_NULL)
        *id = sqlite3_column_int64(st, 0);
    else if (*id == 0)
        status = sb_fail(err, SB_EINPUT, "%s: holds no experiment yet", s->path);
    else
        status = sb_fail(err, SB_EUSAGE, "%s: has no experiment %lld", s->path, (long long)*id);
    sqlite3_finalize(st);
    return status;
}

static enum sb_status unknown_view(const char *name, struct sb_error *err)
{
    char known[400] = "";
    for (const struct sb_view_info *v = sb_views; v->name; v++) {
        size_t n = strlen(known);
        snprintf(known + n, sizeof known - n, "%s%s", n ? ", " : "", v->name);
    }
    return sb_fail(err, SB_EUSAGE, "no view '%s'; there are: %s", name, known);
}

static enum sb_status fill(struct sb_table *t, struct sb_store *s, const char *view,
                           const struct sb_report_options *o, struct sb_error *err)
{
    int64_t id = o->experiment_id;
    bool certificate = strcmp(view, "certificate") == 0 || strcmp(view, "checks") == 0;
    bool all_experiments = strcmp(view, "runs") == 0 && id == 0;
    enum sb_status rc = certificate       ? choose_certificate(s, &id, err)
                        : all_experiments ? SB_OK
                                          : sb_report_experiment(s, &id, err);
    if (rc != SB_OK)
        return rc;
    for (const struct sql_view *v = sql_views; v->name; v++)
        if (strcmp(v->name, view) == 0)
            return sb_report_query(t, s, v->sql, id, err);
    for (size_t i = 0; i < sizeof computed_views / sizeof *computed_views; i++)
        if (strcmp(computed_views[i].name, view) == 0)
            return computed_views[i].fill(t, s, id, o, err);
    return leaderboard(t, s, id, o, strcmp(view, "tasks") == 0, err);
}

enum sb_status sb_report_table(struct sb_table **out, struct sb_store *store,
                               const struct sb_report_options *options, struct sb_error *err)
{
    static const struct sb_report_options usual = { 0 };
    const struct sb_report_options *o = options ? options : &usual;
    const char *view = o->view ? o->view : "leaderboard";
    const struct sb_view_info *v = sb_views;
    while (v->name && strcmp(v->name, view) != 0)
        v++;
    if (!v->name)
        return unknown_view(view, err);
    struct sb_table *t = sb_table_create();
    if (!t)
        return sb_fail(err, SB_ENOMEM, "out of memory for a table");
    enum sb_status rc = fill(t, store, view, o, err);
    if (rc == SB_OK)
        *out = t;
    else
        sb_table_destroy(t);
    return rc;
}

enum sb_status sb_report_lossless(char out[SB_LOSSLESS_BYTES], struct sb_store *store,
                                  const char *commit, const char *verifier, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status =
        sb_sqlite_prepare(&st, store,
                          "SELECT lossless FROM v_lossless WHERE \"commit\" IS ?1"
                          " AND verifier = ?2 AND verifier_params = ''",
                          err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "tt", commit, verifier);
    rc = rc == SQLITE_OK ? sqlite3_step(st) : rc;
    const char *text = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : NULL;
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        snprintf(out, SB_LOSSLESS_BYTES, "%s", text ? text : "");
    else
        status = sb_sqlite_fail(err, store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* ---- equality ---- */

static const char *const equality_sql =
    "SELECT count(*) FILTER (WHERE a.guarantee IS NOT 'lossy'),"
    " coalesce(sum(q.equal) FILTER (WHERE a.guarantee IS NOT 'lossy'), 0),"
    " count(*) FILTER (WHERE a.guarantee = 'lossy')"
    " FROM v_equality q JOIN arm a ON a.id = q.arm_id WHERE q.experiment_id = ?1";
static const char *const difference_sql =
    "SELECT q.arm, q.question_id, q.turn, q.repeat, g.tokens, b.tokens FROM v_equality q"
    " JOIN generation g ON g.id = q.generation_id JOIN generation b ON b.id = q.baseline_generation_id"
    " JOIN arm a ON a.id = q.arm_id"
    " WHERE q.experiment_id = ?1 AND NOT q.equal AND a.guarantee IS NOT 'lossy'"
    " ORDER BY q.arm_no, q.task, q.question_id, q.turn, q.repeat LIMIT 1";

/* Number of the first element in which two arrays such as [1,22,3] differ. */
static int first_different_element(const char *a, const char *b)
{
    int element = 0;
    size_t start = 1;
    for (size_t i = 0; a[i] && a[i] == b[i]; i++)
        if (a[i] == ',') {
            element++;
            start = i + 1;
        }
    /* One array may end where the other goes on: then the next element is the first that differs. */
    size_t la = strcspn(a + start, ",]"), lb = strcspn(b + start, ",]");
    bool same = la == lb && la > 0 && strncmp(a + start, b + start, la) == 0;
    return element + same;
}

static void describe_difference(struct sb_equality *out, sqlite3_stmt *st)
{
    const char *a = (const char *)sqlite3_column_text(st, 4);
    const char *b = (const char *)sqlite3_column_text(st, 5);
    snprintf(
        out->first_difference, sizeof out->first_difference,
        "%.80s differs from the baseline in question %lld, turn %d, repeat %d, from new token %d on",
        (const char *)sqlite3_column_text(st, 0), (long long)sqlite3_column_int64(st, 1),
        sqlite3_column_int(st, 2), sqlite3_column_int(st, 3),
        a && b && *a && *b ? first_different_element(a, b) : 0);
}

/* Run a query on an experiment's id; true in *row when it has a row to look at. */
static enum sb_status first_row(sqlite3_stmt **st, bool *row, struct sb_store *s, const char *sql,
                                int64_t experiment_id, struct sb_error *err)
{
    enum sb_status status = sb_sqlite_prepare(st, s, sql, err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(*st, 1, experiment_id);
    int rc = sqlite3_step(*st);
    *row = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        return SB_OK;
    status = sb_sqlite_fail(err, s, rc, "read");
    sqlite3_finalize(*st);
    return status;
}

enum sb_status sb_report_equality(struct sb_equality *out, struct sb_store *store,
                                  int64_t experiment_id, struct sb_error *err)
{
    sqlite3_stmt *st;
    bool row;
    struct sb_equality result = { 0 };
    enum sb_status rc = sb_report_experiment(store, &experiment_id, err);
    if (rc == SB_OK)
        rc = first_row(&st, &row, store, equality_sql, experiment_id, err);
    if (rc != SB_OK)
        return rc;
    result.compared = sqlite3_column_int64(st, 0);
    result.equal = sqlite3_column_int64(st, 1);
    result.lossy = sqlite3_column_int64(st, 2);
    sqlite3_finalize(st);
    rc = first_row(&st, &row, store, difference_sql, experiment_id, err);
    if (rc != SB_OK)
        return rc;
    if (row)
        describe_difference(&result, st);
    sqlite3_finalize(st);
    *out = result;
    return SB_OK;
}

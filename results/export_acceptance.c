/* Acceptance counters per arm under the names that vLLM's spec_decode metrics use (num_drafts,
 * num_draft_tokens, num_accepted_tokens, ..._per_pos), and ours beside them. Theirs count steps that had a
 * draft only; an acceptance rate per position is over all of those, reached or not, and "accepted" over
 * every draft token, tried or not. Position 1 is the first element of each array. */
#include <jansson.h>
#include <math.h>

#include "harness/core/alloc.h"
#include "results/export_internal.h"

static const char *const sums_sql =
    "SELECT sum(steps), sum(drafted_steps), sum(drafted), sum(accepted), sum(tokens)"
    " FROM v_generation WHERE arm_id = ?1 AND status = 'ok' AND (?2 = 0 OR repeat = ?2 - 1)";
/* Steps by how many draft tokens they accepted, and how many of them had a draft. */
static const char *const histogram_sql =
    "SELECT s.accepted, count(*), sum(s.drafted > 0), sum(s.decided > s.accepted)"
    " FROM generation g JOIN step s ON s.generation_id = g.id"
    " WHERE g.arm_id = ?1 AND g.status = 'ok' AND (?2 = 0 OR g.repeat = ?2 - 1)"
    " GROUP BY s.accepted ORDER BY s.accepted";
enum { POSITIONS_MAX = 1 << 20 };

static json_t *rate(double a, double b)
{
    return b > 0 ? json_real(a / b) : json_null();
}

/* Rows of a query on an arm go to `take`. */
static enum sb_status each_row(struct sb_export *x, int64_t arm_id, const char *sql,
                               bool (*take)(json_t *arm, sqlite3_stmt *st), json_t *arm,
                               struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, x->store, sql, err);
    if (status != SB_OK)
        return status;
    int rc = sb_sqlite_bind(st, "ii", arm_id, x->options->repeat);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(st);
        if (rc == SQLITE_ROW && !take(arm, st))
            rc = SQLITE_NOMEM;
    }
    if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, x->store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

static json_t *whole(sqlite3_stmt *st, int column)
{
    return sqlite3_column_type(st, column) == SQLITE_NULL
               ? json_null()
               : json_integer(sqlite3_column_int64(st, column));
}

static bool take_sums(json_t *arm, sqlite3_stmt *st)
{
    double steps = sqlite3_column_double(st, 0), drafts = sqlite3_column_double(st, 1);
    double drafted = sqlite3_column_double(st, 2), accepted = sqlite3_column_double(st, 3);
    return json_object_set_new(arm, "num_drafts", whole(st, 1)) == 0 &&
           json_object_set_new(arm, "num_draft_tokens", whole(st, 2)) == 0 &&
           json_object_set_new(arm, "num_accepted_tokens", whole(st, 3)) == 0 &&
           json_object_set_new(arm, "draft_acceptance_rate", rate(accepted, drafted)) == 0 &&
           json_object_set_new(arm, "mean_acceptance_length", rate(drafts + accepted, drafts)) ==
               0 &&
           json_object_set_new(arm, "steps", whole(st, 0)) == 0 &&
           json_object_set_new(arm, "tokens", whole(st, 4)) == 0 &&
           json_object_set_new(arm, "mat", rate(sqlite3_column_double(st, 4), steps)) == 0;
}

/* The histogram as three arrays, by accepted: steps, those with a draft, those that ended at a rejection. */
static const char *const lists[] = { "accepted_histogram", "accepted_histogram_drafts",
                                     "rejected_after" };

static bool take_bin(json_t *arm, sqlite3_stmt *st)
{
    int64_t accepted = sqlite3_column_int64(st, 0);
    bool good = accepted >= 0 && accepted < POSITIONS_MAX;
    for (int i = 0; i < 3 && good; i++) {
        json_t *list = json_object_get(arm, lists[i]);
        while (good && json_array_size(list) < (size_t)accepted)
            good = json_array_append_new(list, json_integer(0)) == 0;
        good =
            good && json_array_append_new(list, json_integer(sqlite3_column_int64(st, i + 1))) == 0;
    }
    return good;
}

static double at(const json_t *list, size_t i)
{
    return (double)json_integer_value(json_array_get(list, i));
}

/* From the histogram: accepted[k] = steps that accepted at least k. Trials at k: accepted there, or rejected
 * right before it. `known`: imported steps do not say where a draft ended. */
static bool add_positions(json_t *arm, bool known)
{
    const json_t *all = json_object_get(arm, lists[0]), *drafts = json_object_get(arm, lists[1]);
    const json_t *rejected = json_object_get(arm, lists[2]);
    json_t *counts = json_array(), *rates = json_array(), *conditional = json_array();
    size_t n = json_array_size(all);
    double n_drafts = 0, above = 0;
    bool good = true;
    for (size_t a = 0; a < n; a++)
        n_drafts += at(drafts, a);
    for (size_t k = n; k-- > 1 && good;) {
        above += at(all, k);
        good = json_array_insert_new(counts, 0, json_integer((json_int_t)above)) == 0 &&
               json_array_insert_new(rates, 0, known ? rate(above, n_drafts) : json_null()) == 0 &&
               json_array_insert_new(conditional, 0,
                                     known ? rate(above, above + at(rejected, k - 1))
                                           : json_null()) == 0;
    }
    /* `set_new` takes the arrays over, whatever comes of it. */
    good = json_object_set_new(arm, "num_accepted_tokens_per_pos", counts) == 0 && good;
    good = json_object_set_new(arm, "acceptance_rate_per_pos", rates) == 0 && good;
    return json_object_set_new(arm, "conditional_acceptance_per_pos", conditional) == 0 && good;
}

static enum sb_status describe(json_t *arm, struct sb_export *x, const struct sb_export_arm *a,
                               struct sb_error *err)
{
    char *label = sb_clean_text(a->label);
    bool good = label && json_object_set_new(arm, "arm", json_string(label)) == 0;
    sb_free(label);
    enum sb_status rc = good ? each_row(x, a->id, sums_sql, take_sums, arm, err) : SB_OK;
    for (int i = 0; i < 3 && good; i++)
        good = json_object_set_new(arm, lists[i], json_array()) == 0;
    if (good && rc == SB_OK)
        rc = each_row(x, a->id, histogram_sql, take_bin, arm, err);
    bool known = !json_is_null(json_object_get(arm, "num_drafts"));
    if (good && rc == SB_OK)
        good = add_positions(arm, known);
    json_object_del(arm, lists[2]);
    if (!known)
        json_object_del(arm, lists[1]);
    return good || rc != SB_OK ? rc : sb_fail(err, SB_ENOMEM, "out of memory for the acceptance");
}

enum sb_status sb_export_acceptance(struct sb_export *x, FILE *out, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    fprintf(out, "{\"experiment_id\": %lld, \"arms\": [\n", (long long)x->experiment_id);
    for (size_t i = 0; i < x->n_arms && rc == SB_OK; i++) {
        json_t *arm = json_object();
        rc = arm ? describe(arm, x, &x->arm[i], err)
                 : sb_fail(err, SB_ENOMEM, "out of memory for the acceptance");
        if (rc == SB_OK && json_dumpf(arm, out, 0) != 0)
            rc = sb_fail(err, SB_EIO, "cannot write the acceptance");
        fputs(i + 1 < x->n_arms ? ",\n" : "\n", out);
        x->result->rows++;
        json_decref(arm);
    }
    fputs("]}\n", out);
    return rc;
}

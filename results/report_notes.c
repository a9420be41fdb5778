/* What a reader must know of an experiment beside its figures: that it is partial, that arms differ in their
 * prompts. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "results/internal.h"
#include "results/report.h"

struct totals { /* of an experiment, over its arms */
    int64_t experiment_id, arms, planned, done, errors, missing, common, most, fewest;
    char most_arm[60], fewest_arm[60];
};

static void add_arm(struct totals *t, sqlite3_stmt *st)
{
    const char *label = (const char *)sqlite3_column_text(st, 1);
    int64_t done = sqlite3_column_int64(st, 3);
    if (t->arms == 0 || done > t->most) {
        t->most = done;
        snprintf(t->most_arm, sizeof t->most_arm, "%s", label ? label : "");
    }
    if (t->arms == 0 || done < t->fewest) {
        t->fewest = done;
        snprintf(t->fewest_arm, sizeof t->fewest_arm, "%s", label ? label : "");
    }
    t->arms++;
    t->planned += sqlite3_column_int64(st, 2);
    t->done += done;
    t->errors += sqlite3_column_int64(st, 4);
    t->missing += sqlite3_column_int64(st, 5);
    t->common = sqlite3_column_int64(st, 6);
}

static void write_notes(char *out, const struct totals *t, const char *path)
{
    size_t n = strlen(out);
    if (t->arms > 0 && t->done < t->planned && n < SB_NOTES_BYTES)
        snprintf(out + n, SB_NOTES_BYTES - n,
                 "%s: experiment %" PRId64 " is partial: %" PRId64 " of %" PRId64
                 " generations are done, %" PRId64 " failed, %" PRId64
                 " are missing; figures cover those done\n",
                 path, t->experiment_id, t->done, t->planned, t->errors, t->missing);
    n = strlen(out);
    if (t->arms > 0 && t->most > t->common && n < SB_NOTES_BYTES)
        snprintf(
            out + n, SB_NOTES_BYTES - n,
            "%s: experiment %" PRId64 ": its arms have unequal prompts: '%s' has %" PRId64
            " generations, '%s' %" PRId64 ", all arms share %" PRId64
            "; speedups pair what an arm shares with the baseline, other figures cover each arm's own\n",
            path, t->experiment_id, t->most_arm, t->most, t->fewest_arm, t->fewest, t->common);
}

enum sb_status sb_report_notes(char out[SB_NOTES_BYTES], struct sb_store *store,
                               int64_t experiment_id, struct sb_error *err)
{
    sqlite3_stmt *st;
    struct totals t = { 0 };
    enum sb_status status = sb_sqlite_prepare(
        &st, store,
        "SELECT experiment_id, arm, planned, done, errors, missing, common FROM coverage"
        " WHERE ?1 < 0 OR experiment_id = coalesce(nullif(?1, 0),"
        " (SELECT max(id) FROM experiment)) ORDER BY experiment_id, arm_no",
        err);
    if (status != SB_OK)
        return status;
    sqlite3_bind_int64(st, 1, experiment_id);
    out[0] = '\0';
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        int64_t id = sqlite3_column_int64(st, 0);
        if (id != t.experiment_id) {
            write_notes(out, &t, store->path);
            t = (struct totals){ .experiment_id = id };
        }
        add_arm(&t, st);
    }
    write_notes(out, &t, store->path);
    if (rc != SQLITE_DONE)
        status = sb_sqlite_fail(err, store, rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* The list of checks, those that SQLite itself answers, and the table. */
#include "results/verify.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "results/verify_internal.h"

static const struct {
    const char *name, *meaning;
} checks[] = {
#define X(id, meaning) { #id, meaning },
    SB_VERIFY_CHECKS(X)
#undef X
};
_Static_assert((int)SB_VERIFY_N <= (int)SB_VERIFY_MAX, "room for every check");

void sb_verify_that(struct sb_verifier *v, enum sb_verify_id id, bool holds, const char *fmt, ...)
{
    struct sb_verify_check *c = &v->v->check[id];
    c->checked++;
    if (holds)
        return;
    if (c->failed++ == 0) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(c->first, sizeof c->first, fmt, args);
        va_end(args);
    }
}

/* "ok" is integrity_check's whole answer when nothing is wrong; else a row per finding. */
static enum sb_status integrity(struct sb_verifier *v, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = sb_sqlite_prepare(&st, v->store, "PRAGMA integrity_check(20)", err);
    if (rc != SB_OK)
        return rc;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW) {
        const char *text = (const char *)sqlite3_column_text(st, 0);
        sb_verify_that(v, SB_VERIFY_integrity, text && strcmp(text, "ok") == 0, "%s",
                       text ? text : "");
    }
    sb_verify_that(v, SB_VERIFY_integrity, step == SQLITE_DONE, "the check ended with: %s",
                   sqlite3_errmsg(v->store->db));
    sqlite3_finalize(st);
    return SB_OK;
}

/* Of the tables that have references; each row of them counts as one. */
static enum sb_status foreign_keys(struct sb_verifier *v, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc =
        sb_sqlite_prepare(&st, v->store,
                          "SELECT (SELECT count(*) FROM experiment) + (SELECT count(*) FROM arm)"
                          " + (SELECT count(*) FROM prompt) + (SELECT count(*) FROM generation)"
                          " + (SELECT count(*) FROM step) + (SELECT count(*) FROM draft_node)",
                          err);
    if (rc != SB_OK)
        return rc;
    if (sqlite3_step(st) == SQLITE_ROW)
        v->v->check[SB_VERIFY_foreign_keys].checked = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    rc = sb_sqlite_prepare(&st, v->store, "PRAGMA foreign_key_check", err);
    if (rc != SB_OK)
        return rc;
    int step;
    while ((step = sqlite3_step(st)) == SQLITE_ROW) {
        v->v->check[SB_VERIFY_foreign_keys].checked--; /* was counted above */
        sb_verify_that(v, SB_VERIFY_foreign_keys, false, "a row of %s refers to no row of %s",
                       (const char *)sqlite3_column_text(st, 0),
                       (const char *)sqlite3_column_text(st, 2));
    }
    if (step != SQLITE_DONE)
        rc = sb_sqlite_fail(err, v->store, step, "check its foreign keys");
    sqlite3_finalize(st);
    return rc;
}

static void arm_finish(struct sb_arm_sums *a)
{
    struct sb_counts *lists[] = { &a->accepted, &a->drafted,  &a->tokens,    &a->exposure,
                                  &a->hits,     &a->chunk_ns, &a->prefill_ns };
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        sb_free(lists[i]->n);
    for (size_t i = 0; i < a->n_tasks; i++)
        sb_free(a->task[i].task);
    for (size_t i = 0; i < a->n_depths; i++)
        sb_free(a->depth[i].rank);
    sb_free(a->task);
    sb_free(a->depth);
    sb_free(a->source);
}

/* In one snapshot: a run may be writing meanwhile. */
enum sb_status sb_verify(struct sb_verification *out, struct sb_store *store, struct sb_error *err)
{
    struct sb_verification result = { .n = SB_VERIFY_N };
    struct sb_verifier v = { .store = store, .v = &result };
    for (size_t i = 0; i < SB_VERIFY_N; i++) {
        result.check[i].name = checks[i].name;
        result.check[i].meaning = checks[i].meaning;
    }
    int begun = sqlite3_exec(store->db, "SAVEPOINT verify", NULL, NULL, NULL);
    if (begun != SQLITE_OK)
        return sb_sqlite_fail(err, store, begun, "read");
    enum sb_status rc = integrity(&v, err);
    if (rc == SB_OK)
        rc = foreign_keys(&v, err);
    if (rc == SB_OK)
        rc = sb_verify_rows(&v, err);
    if (rc == SB_OK)
        rc = sb_verify_views(&v, err);
    if (rc == SB_EFORMAT && result.check[SB_VERIFY_integrity].failed)
        rc = SB_OK; /* a damaged file that cannot be read further: the table says so */
    sqlite3_exec(store->db, "RELEASE verify", NULL, NULL, NULL);
    for (size_t i = 0; i < v.n_arms; i++)
        arm_finish(&v.arm[i]);
    sb_free(v.arm);
    for (size_t i = 0; i < SB_VERIFY_N; i++)
        result.failed += result.check[i].failed > 0;
    if (rc == SB_OK)
        *out = result;
    return rc;
}

enum sb_status sb_verify_table(struct sb_table **out, const struct sb_verification *v,
                               struct sb_error *err)
{
    struct sb_table *t = sb_table_create();
    if (!t)
        return sb_fail(err, SB_ENOMEM, "out of memory for a table");
    sb_table_column(t, "check", 0);
    sb_table_column(t, "checked", 0);
    sb_table_column(t, "failed", 0);
    sb_table_column(t, "meaning", 0);
    sb_table_column(t, "first", 0);
    sb_table_optional(t);
    for (size_t i = 0; i < v->n; i++) {
        sb_table_text(t, v->check[i].name);
        sb_table_int(t, v->check[i].checked);
        sb_table_int(t, v->check[i].failed);
        sb_table_text(t, v->check[i].meaning);
        sb_table_text(t, v->check[i].failed ? v->check[i].first : NULL);
    }
    *out = t;
    return SB_OK;
}

/* Opening the results database: whose file it is, its version, its views. Rows are in store_rows.c.
 *
 * WAL with synchronous=NORMAL: a transaction that committed is in the operating system's hands, so a
 * killed process loses nothing that was finished. Only a power cut can take the last transactions, and
 * it leaves an intact database too; waiting for the disk after every prompt would disturb the timing. */
#include "results/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "results/internal.h"

#define BUSY_TIMEOUT_MS 10000

static enum sb_status status_of(int rc)
{
    switch (rc & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_SCHEMA:
    case SQLITE_ERROR: /* a table or column that should be there is not */
        return SB_EFORMAT;
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
        return SB_EINPUT;
    case SQLITE_NOMEM:
        return SB_ENOMEM;
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_MISUSE:
    case SQLITE_RANGE:
        return SB_EINTERNAL;
    default:
        return SB_EIO;
    }
}

enum sb_status sb_sqlite_fail(struct sb_error *err, const struct sb_store *s, int rc,
                              const char *what)
{
    /* The handle's message says more, but only while it is about this very failure. */
    const char *why = s->db && (sqlite3_errcode(s->db) & 0xff) == (rc & 0xff)
                          ? sqlite3_errmsg(s->db)
                          : sqlite3_errstr(rc);
    if ((rc & 0xff) == SQLITE_BUSY)
        why = "another process is writing to it";
    return sb_fail(err, status_of(rc), "%s: cannot %s: %s", s->path, what, why);
}

int sb_sqlite_bind(sqlite3_stmt *st, const char *types, ...)
{
    va_list args;
    int rc = SQLITE_OK;
    va_start(args, types);
    for (int i = 0; types[i] && rc == SQLITE_OK; i++) {
        if (types[i] == 't')
            rc = sqlite3_bind_text(st, i + 1, va_arg(args, const char *), -1, SQLITE_STATIC);
        else if (types[i] == 'i')
            rc = sqlite3_bind_int64(st, i + 1, va_arg(args, int64_t));
        else
            rc = sqlite3_bind_double(st, i + 1, va_arg(args, double));
    }
    va_end(args);
    return rc;
}

enum sb_status sb_sqlite_prepare(sqlite3_stmt **out, struct sb_store *s, const char *sql,
                                 struct sb_error *err)
{
    int rc = sqlite3_prepare_v2(s->db, sql, -1, out, NULL);
    return rc == SQLITE_OK ? SB_OK : sb_sqlite_fail(err, s, rc, "read");
}

static enum sb_status execute(struct sb_store *s, const char *sql, const char *what,
                              struct sb_error *err)
{
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? SB_OK : sb_sqlite_fail(err, s, rc, what);
}

static enum sb_status query_int(struct sb_store *s, const char *sql, int64_t *value,
                                struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status status = sb_sqlite_prepare(&st, s, sql, err);
    if (status != SB_OK)
        return status;
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW)
        *value = sqlite3_column_int64(st, 0);
    else
        status = sb_sqlite_fail(err, s, rc == SQLITE_DONE ? SQLITE_CORRUPT : rc, "read");
    sqlite3_finalize(st);
    return status;
}

/* ---- whose file is it ---- */

struct identity {
    int64_t application_id, version, n_objects;
};

static enum sb_status identify(struct sb_store *s, struct identity *id, struct sb_error *err)
{
    enum sb_status rc = query_int(s, "PRAGMA application_id", &id->application_id, err);
    if (rc == SB_OK)
        rc = query_int(s, "PRAGMA user_version", &id->version, err);
    if (rc == SB_OK)
        rc = query_int(s, "SELECT count(*) FROM sqlite_schema", &id->n_objects, err);
    return rc;
}

static bool is_blank(const struct identity *id)
{
    return id->application_id == 0 && id->version == 0 && id->n_objects == 0;
}

static enum sb_status check_identity(const struct sb_store *s, const struct identity *id,
                                     bool may_be_blank, struct sb_error *err)
{
    if (is_blank(id))
        return may_be_blank ? SB_OK
                            : sb_fail(err, SB_EFORMAT, "%s: holds no specbench results", s->path);
    if (id->application_id != SB_APPLICATION_ID)
        return sb_fail(err, SB_EFORMAT,
                       "%s: a database of another application (application_id %lld, ours is %d)",
                       s->path, (long long)id->application_id, SB_APPLICATION_ID);
    if (id->version > SB_SCHEMA_VERSION)
        return sb_fail(err, SB_EFORMAT,
                       "%s: was written by a newer specbench (schema %lld; this one knows %d)",
                       s->path, (long long)id->version, SB_SCHEMA_VERSION);
    if (id->version < 1)
        return sb_fail(err, SB_EFORMAT, "%s: user_version is %lld, expected 1 to %d", s->path,
                       (long long)id->version, SB_SCHEMA_VERSION);
    return SB_OK;
}

/* What SQLite would say less clearly, or would not refuse at all. */
static enum sb_status check_file(const char *path, const struct sb_store_options *options,
                                 struct sb_error *err)
{
    static const char magic[16] = "SQLite format 3";
    struct stat st;
    if (stat(path, &st) != 0) {
        if (errno == ENOENT && !options->must_exist && !options->read_only)
            return SB_OK;
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    }
    if (S_ISDIR(st.st_mode))
        return sb_fail(err, SB_EINPUT, "%s: is a directory, expected a results database", path);
    if (!S_ISREG(st.st_mode))
        return sb_fail(err, SB_EINPUT, "%s: not a regular file, expected a results database", path);
    char head[sizeof magic] = { 0 };
    FILE *f = fopen(path, "rb");
    if (!f)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    size_t n = fread(head, 1, sizeof head, f);
    fclose(f);
    if (n > 0 && (n < sizeof head || memcmp(head, magic, sizeof magic) != 0))
        return sb_fail(err, SB_EFORMAT, "%s: not a results database (no SQLite header)", path);
    return SB_OK;
}

/* ---- schema and views ---- */

static enum sb_status migrate_one(struct sb_store *s, int64_t version, struct sb_error *err)
{
    char pragma[96];
    snprintf(pragma, sizeof pragma, "PRAGMA user_version=%lld; PRAGMA application_id=%d",
             (long long)version + 1, SB_APPLICATION_ID);
    enum sb_status rc = execute(s, sb_migrations[version].sql, "migrate", err);
    return rc == SB_OK ? execute(s, pragma, "migrate", err) : rc;
}

static enum sb_status replace_view(struct sb_store *s, const struct sb_sql_text *view,
                                   bool temporary, struct sb_error *err)
{
    char *sql = temporary ? sb_strf("CREATE TEMP VIEW %s", view->sql + strlen("CREATE VIEW "))
                          : sb_strf("DROP VIEW IF EXISTS main.%s; %s", view->name, view->sql);
    if (!sql)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for view %s", s->path, view->name);
    enum sb_status rc = execute(s, sql, "make its views", err);
    sb_free(sql);
    return rc;
}

/* Does the file hold this view with this very text? SQLite keeps the text without the semicolon. */
static enum sb_status view_is_current(struct sb_store *s, const struct sb_sql_text *view,
                                      bool *current, struct sb_error *err)
{
    sqlite3_stmt *st;
    enum sb_status rc = sb_sqlite_prepare(
        &st, s, "SELECT sql FROM main.sqlite_schema WHERE type = 'view' AND name = ?1", err);
    if (rc != SB_OK)
        return rc;
    sqlite3_bind_text(st, 1, view->name, -1, SQLITE_STATIC);
    *current = false;
    int step = sqlite3_step(st);
    if (step == SQLITE_ROW) {
        const char *have = (const char *)sqlite3_column_text(st, 0);
        size_t n = have ? strlen(have) : 0;
        *current = n && strncmp(have, view->sql, n) == 0 && strcmp(view->sql + n, ";\n") == 0;
    } else if (step != SQLITE_DONE) {
        rc = sb_sqlite_fail(err, s, step, "read");
    }
    sqlite3_finalize(st);
    return rc;
}

/* Views are code: each release brings its own, without a schema version. A database that may not be
 * written gets them as temporary views, which take precedence. */
static enum sb_status refresh_views(struct sb_store *s, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    for (const struct sb_sql_text *view = sb_view_sql; view->name && rc == SB_OK; view++) {
        bool current = false;
        rc = view_is_current(s, view, &current, err);
        if (rc == SB_OK && !current)
            rc = replace_view(s, view, s->read_only, err);
    }
    return rc;
}

static enum sb_status views_are_current(struct sb_store *s, bool *current, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    *current = true;
    for (const struct sb_sql_text *view = sb_view_sql; view->name && rc == SB_OK && *current;
         view++)
        rc = view_is_current(s, view, current, err);
    return rc;
}

/* In one transaction; another process may have been faster, so the version is read again inside. */
static enum sb_status upgrade(struct sb_store *s, struct sb_error *err)
{
    struct identity id;
    enum sb_status rc = execute(s, "BEGIN IMMEDIATE", "write", err);
    if (rc != SB_OK)
        return rc;
    rc = identify(s, &id, err);
    if (rc == SB_OK)
        rc = check_identity(s, &id, true, err);
    for (int64_t v = rc == SB_OK ? id.version : SB_SCHEMA_VERSION; v < SB_SCHEMA_VERSION; v++) {
        rc = migrate_one(s, v, err);
        if (rc != SB_OK)
            break;
    }
    if (rc == SB_OK)
        rc = refresh_views(s, err);
    if (rc == SB_OK)
        rc = execute(s,
                     "INSERT INTO generation_sums SELECT *, NULL, 0 FROM v_sums_due"
                     " WHERE generation_id NOT IN (SELECT generation_id FROM generation_sums)",
                     "add up steps", err);
    if (rc == SB_OK)
        rc = execute(s, "COMMIT", "write", err);
    if (rc != SB_OK)
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return rc;
}

/* ---- open, close ---- */

static enum sb_status configure(struct sb_store *s, struct sb_error *err)
{
    sqlite3_extended_result_codes(s->db, 1);
    sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
    /* Database files may come from strangers: no functions with side effects out of their schema. */
    sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    return execute(
        s,
        "PRAGMA trusted_schema=OFF; PRAGMA foreign_keys=ON; PRAGMA temp_store=MEMORY;"
        "PRAGMA cache_size=-32768", /* KiB: the sums and figures of 100,000 generations */
        "open", err);
}

/* A path that SQLite takes for nothing but a path ("file:x" is a URI to it); new memory. */
static char *plain_path(const char *path)
{
    bool plain = path[0] == '/' || strcmp(path, ":memory:") == 0;
    return plain ? sb_strdup(path) : sb_strf("./%s", path);
}

/* A database in WAL mode needs its -shm file even for reading. Where that cannot be made (a read-only
 * folder) and no log is left over, the file itself is all there is: read it as immutable. */
static int open_immutable(struct sb_store *s, const char *path)
{
    char *wal = sb_strf("%s-wal", path);
    struct stat st;
    bool has_log = wal && stat(wal, &st) == 0 && st.st_size > 0;
    sb_free(wal);
    if (!wal || has_log)
        return SQLITE_CANTOPEN;
    char *uri = sqlite3_mprintf("file:%s?immutable=1", path), *p = uri;
    if (!uri || strpbrk(path, "%?#"))
        return sqlite3_free(p), SQLITE_CANTOPEN;
    sqlite3_close(s->db);
    s->db = NULL;
    int rc = sqlite3_open_v2(uri, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
    sqlite3_free(uri);
    return rc;
}

static enum sb_status open_file(struct sb_store *s, bool may_create, struct sb_error *err)
{
    char *path = plain_path(s->path);
    if (!path)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", s->path);
    int flags = s->read_only ? SQLITE_OPEN_READONLY
                             : SQLITE_OPEN_READWRITE | (may_create ? SQLITE_OPEN_CREATE : 0);
    int rc = sqlite3_open_v2(path, &s->db, flags, NULL);
    if (rc == SQLITE_OK && s->read_only) {
        sqlite3_busy_timeout(s->db, BUSY_TIMEOUT_MS);
        rc = sqlite3_exec(s->db, "SELECT 1 FROM sqlite_schema", NULL, NULL, NULL);
        int kind = rc & 0xff;
        if (kind == SQLITE_CANTOPEN || kind == SQLITE_READONLY)
            rc = open_immutable(s, path);
    }
    sb_free(path);
    if (rc != SQLITE_OK)
        return sb_sqlite_fail(err, s, rc, may_create ? "open or create it" : "open it");
    return configure(s, err);
}

/* In one snapshot: another process may be creating the database right now. */
static enum sb_status identify_at_once(struct sb_store *s, struct identity *id,
                                       struct sb_error *err)
{
    enum sb_status rc = execute(s, "BEGIN", "read", err);
    if (rc != SB_OK)
        return rc;
    rc = identify(s, id, err);
    sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    return rc;
}

/* Changing the journal mode takes the file's lock without waiting for it, so the waiting is done here. */
static enum sb_status use_wal(struct sb_store *s, struct sb_error *err)
{
    const struct timespec pause = { .tv_nsec = 5000000 };
    int rc = SQLITE_BUSY;
    for (int waited_ms = 0; waited_ms < BUSY_TIMEOUT_MS; waited_ms += 5) {
        rc = sqlite3_exec(s->db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", NULL, NULL,
                          NULL);
        if ((rc & 0xff) != SQLITE_BUSY && (rc & 0xff) != SQLITE_LOCKED)
            break;
        nanosleep(&pause, NULL);
    }
    return rc == SQLITE_OK ? SB_OK : sb_sqlite_fail(err, s, rc, "write");
}

/* A database of an earlier schema that may not be written is brought up to date in memory: from here on the
 * store is that copy. */
static enum sb_status copy_into_memory(struct sb_store *s, struct sb_error *err)
{
    sqlite3 *copy = NULL;
    int rc = sqlite3_open_v2(":memory:", &copy, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    sqlite3_backup *b = rc == SQLITE_OK ? sqlite3_backup_init(copy, "main", s->db, "main") : NULL;
    if (b) {
        sqlite3_backup_step(b, -1);
        rc = sqlite3_backup_finish(b);
    } else if (rc == SQLITE_OK) {
        rc = sqlite3_errcode(copy);
    }
    if (rc != SQLITE_OK) {
        sqlite3_close(copy);
        return sb_sqlite_fail(err, s, rc, "copy its older schema into memory");
    }
    sqlite3_close(s->db);
    s->db = copy;
    s->read_only = false;
    return configure(s, err);
}

static enum sb_status prepare_schema(struct sb_store *s, bool may_be_blank, struct sb_error *err)
{
    struct identity id;
    enum sb_status rc = identify_at_once(s, &id, err);
    if (rc == SB_OK)
        rc = check_identity(s, &id, may_be_blank, err);
    if (rc != SB_OK)
        return rc;
    if (s->read_only && id.version < SB_SCHEMA_VERSION) {
        rc = copy_into_memory(s, err);
        return rc == SB_OK ? upgrade(s, err) : rc;
    }
    if (s->read_only)
        return refresh_views(s, err);
    if (sqlite3_db_readonly(s->db, "main") == 1) /* SQLite falls back to reading without a word */
        return sb_fail(err, SB_EINPUT, "%s: cannot be written (no permission)", s->path);
    rc = use_wal(s, err);
    bool current = id.version == SB_SCHEMA_VERSION;
    if (rc == SB_OK && current)
        rc = views_are_current(s, &current, err);
    return rc == SB_OK && !current ? upgrade(s, err) : rc;
}

enum sb_status sb_store_open(struct sb_store **out, const char *path,
                             const struct sb_store_options *options, struct sb_error *err)
{
    static const struct sb_store_options usual = { 0 };
    if (!options)
        options = &usual;
    if (!path || !*path)
        return sb_fail(err, SB_EUSAGE, "the path of the results database is empty");
    bool in_memory = strcmp(path, ":memory:") == 0;
    enum sb_status rc = in_memory ? SB_OK : check_file(path, options, err);
    if (rc != SB_OK)
        return rc;
    struct sb_store *s = sb_alloc_zero(1, sizeof *s);
    if (!s || !(s->path = sb_strdup(path))) {
        sb_free(s);
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    }
    s->read_only = options->read_only;
    bool may_create = !options->must_exist && !options->read_only;
    rc = open_file(s, may_create, err);
    if (rc == SB_OK)
        rc = prepare_schema(s, may_create, err);
    if (rc == SB_OK)
        *out = s;
    else
        sb_store_close(s);
    return rc;
}

void sb_store_close(struct sb_store *s)
{
    if (!s)
        return;
    for (int i = 0; i < SB_SQL_COUNT; i++)
        sqlite3_finalize(s->cached[i]);
    sqlite3_close(s->db);
    sb_free(s->path);
    sb_free(s);
}

struct sqlite3 *sb_store_handle(struct sb_store *s)
{
    return s->db;
}

/* Shared by the files of this folder: the open store, embedded SQL, SQLite's errors as ours. */
#ifndef SB_RESULTS_INTERNAL_H
#define SB_RESULTS_INTERNAL_H

#include <sqlite3.h>

#include "results/store.h"

#define SB_SCHEMA_VERSION 6
#define SB_APPLICATION_ID 0x53704265 /* "SpBe", in the header of every database of ours */

/* Statements prepared at first use and kept until the store closes. */
enum sb_statement {
    SB_SQL_HOST_FIND,
    SB_SQL_HOST_ADD,
    SB_SQL_MODEL_FIND,
    SB_SQL_MODEL_ADD,
    SB_SQL_EXPERIMENT_FIND,
    SB_SQL_EXPERIMENT_ADD,
    SB_SQL_ARM_FIND,
    SB_SQL_ARM_ADD,
    SB_SQL_PROMPT_FIND,
    SB_SQL_PROMPT_ADD,
    SB_SQL_NEWEST_RUN,
    SB_SQL_GENERATION_FIND,
    SB_SQL_GENERATION_DROP,
    SB_SQL_GENERATION_ADD,
    SB_SQL_STEP_ADD,
    SB_SQL_NODE_ADD,
    SB_SQL_SUMS_ADD,
    SB_SQL_COST_ADD,
    SB_SQL_CERTIFICATE_ADD,
    SB_SQL_CERTIFICATE_END,
    SB_SQL_CHECK_PUT,
    SB_SQL_BEGIN,
    SB_SQL_COMMIT,
    SB_SQL_ROLLBACK,
    SB_SQL_COUNT
};

struct sb_store {
    sqlite3 *db;
    char *path;
    bool read_only;
    sqlite3_stmt *cached[SB_SQL_COUNT];
};

/* Embedded by embed.sh; the arrays end at a NULL name. */
struct sb_sql_text {
    const char *name, *sql;
};
extern const struct sb_sql_text sb_migrations[]; /* [i] leads from schema i to i + 1 */
extern const struct sb_sql_text sb_view_sql[];

/* "FILE: cannot WHAT: why" with the status that the SQLite result stands for. */
enum sb_status sb_sqlite_fail(struct sb_error *err, const struct sb_store *s, int rc,
                              const char *what);

/* generation_sums.tokens_key of a list such as "[1,22,3]". */
int64_t sb_tokens_key(const char *ids);

/* Bind values in order: 't' const char * (NULL: NULL), 'i' int64_t, 'r' double. */
int sb_sqlite_bind(sqlite3_stmt *st, const char *types, ...);

/* "[1,22,3]" with n ids; new memory. */
enum sb_status sb_store_parse_ids(int32_t **out, size_t n, const char *text,
                                  const struct sb_store *s, struct sb_error *err);

/* Prepare a statement outside the cache; the caller finalizes it. */
enum sb_status sb_sqlite_prepare(sqlite3_stmt **out, struct sb_store *s, const char *sql,
                                 struct sb_error *err);

/* Add a query's columns and rows to an empty table; ?1 is `id`. A column "name:decimals" is rounded for
 * people, "name:g" to two significant digits, with '?' behind it when it is optional. */
struct sb_table;
enum sb_status sb_report_query(struct sb_table *t, struct sb_store *s, const char *sql, int64_t id,
                               struct sb_error *err);
/* The experiment asked for in *id, or, if it is 0, the newest. */
enum sb_status sb_report_experiment(struct sb_store *s, int64_t *id, struct sb_error *err);

#endif

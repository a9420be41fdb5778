/* docs/sql.md: every query in it runs on a real database and answers something. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "results_sample.h"

static void run_block(struct sb_store *s, char *sql)
{
    sqlite3_stmt *st;
    const char *rest;
    if (sqlite3_prepare_v2(sb_store_handle(s), sql, -1, &st, &rest) != SQLITE_OK)
        fail_msg("%s\n%s", sqlite3_errmsg(sb_store_handle(s)), sql);
    if (sqlite3_step(st) != SQLITE_ROW)
        fail_msg("no rows: %s", sql);
    for (int c = 0; c < sqlite3_column_count(st); c++)
        if (sqlite3_column_type(st, c) == SQLITE_NULL)
            fail_msg("column %s is NULL in the first row: %s", sqlite3_column_name(st, c), sql);
    sqlite3_finalize(st);
    assert_string_equal(rest, "\n"); /* one statement per block */
}

static void every_query_of_the_page_gives_rows(void **state)
{
    (void)state;
    static char page[1 << 16];
    FILE *f = fopen(SB_SOURCE_DIR "/docs/sql.md", "rb");
    assert_non_null(f);
    page[fread(page, 1, sizeof page - 1, f)] = '\0';
    fclose(f);
    struct sb_store *s = NULL;
    struct sample id;
    assert_int_equal(sb_store_open(&s, ":memory:", NULL, NULL), SB_OK);
    sample_fill(&id, s, "k");
    int blocks = 0;
    for (char *p = page; (p = strstr(p, "\n```sql\n")); blocks++) {
        char *sql = p + strlen("\n```sql\n"), *end = strstr(sql, "```");
        assert_non_null(end);
        *end = '\0';
        run_block(s, sql);
        p = end + 1;
    }
    assert_true(blocks >= 10);
    sb_store_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_query_of_the_page_gives_rows) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

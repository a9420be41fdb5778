/* The sample experiment in a database in memory, made anew for each test of a file: TEST(name). */
#ifndef SB_TESTS_SAMPLE_STORE_H
#define SB_TESTS_SAMPLE_STORE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "results_sample.h"

static struct sb_store *store;
static struct sample id;

static int open_sample(void **state)
{
    (void)state;
    if (sb_store_open(&store, ":memory:", NULL, NULL) != SB_OK)
        return -1;
    sample_fill(&id, store, "k");
    return 0;
}

static int close_sample(void **state)
{
    (void)state;
    sb_store_close(store);
    return 0;
}

/* Run SQL on it. */
static inline void edit(const char *sql)
{
    char *message = NULL;
    if (sqlite3_exec(sb_store_handle(store), sql, NULL, NULL, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_sample, close_sample)

#endif

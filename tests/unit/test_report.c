/* results/report and table: the leaderboard's figures, equality, and the four formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "results/report.h"
#include "sample_store.h"

/* Printed text in new memory (free). */
static char *print(const struct sb_table *t, enum sb_format format)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    assert_int_equal(sb_table_print(t, f, format, NULL), SB_OK);
    fclose(f);
    return text;
}

static void expect_print(const struct sb_table *t, enum sb_format format, const char *want)
{
    char *text = print(t, format);
    assert_string_equal(text, want);
    free(text);
}

static json_t *report(const char *view, int64_t experiment_id)
{
    struct sb_table *t = NULL;
    struct sb_error err = { 0 };
    const struct sb_report_options o = {
        .view = view, .experiment_id = experiment_id, .seed = 1, .resamples = 500
    };
    if (sb_report_table(&t, store, &o, &err) != SB_OK)
        fail_msg("%s", err.message);
    char *text = print(t, SB_FORMAT_JSON);
    json_t *rows = json_loads(text, 0, NULL);
    if (!rows)
        fail_msg("no JSON: %s", text);
    assert_int_equal(json_array_size(rows), sb_table_rows(t));
    free(text);
    sb_table_destroy(t);
    return rows;
}

/* The row of an arm and task. */
static json_t *row_of(json_t *rows, const char *arm, const char *task)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        if (strcmp(json_string_value(json_object_get(row, "arm")), arm) == 0 &&
            strcmp(json_string_value(json_object_get(row, "task")), task) == 0)
            return row;
    }
    fail_msg("no row for %s in %s", arm, task);
    return NULL;
}

static void expect_number(json_t *row, const char *column, double want)
{
    json_t *cell = json_object_get(row, column);
    if (!json_is_number(cell) || !(fabs(json_number_value(cell) - want) < 1e-9))
        fail_msg("%s: %g, expected %g", column, json_number_value(cell), want);
}

static void the_leaderboard_has_one_row_per_arm_with_paired_speedups(void **state)
{
    (void)state;
    json_t *rows = report(NULL, 0);
    assert_int_equal(json_array_size(rows), 3);
    json_t *none = row_of(rows, "none", "all"), *pld = row_of(rows, "pld", "all");
    json_t *tree = row_of(rows, "tree", "all");
    expect_number(none, "speedup", 1);
    assert_true(json_is_null(json_object_get(none, "speedup_lo")));
    assert_true(json_is_null(json_object_get(none, "equal")));
    expect_number(pld, "prompts", 3);
    expect_number(pld, "mat", 2.75);
    expect_number(pld, "speedup", 110.0 / 57);
    expect_number(pld, "speedup_lo", 110.0 / 57); /* all prompts alike: no width */
    expect_number(pld, "specbench_speedup", 130.0 / 77);
    expect_number(pld, "few", 1);
    expect_number(pld, "per_token", 0);
    assert_string_equal(json_string_value(json_object_get(pld, "equal")), "8/8");
    assert_string_equal(json_string_value(json_object_get(pld, "guarantee")), "greedy-exact");
    /* tree: questions 81 (two turns of 88), 90 (110), 91 (88) against 220, 110, 110 */
    expect_number(tree, "speedup", 440.0 / 374);
    expect_number(tree, "speedup_gm", cbrt(1.25 * 1.0 * 1.25));
    json_decref(rows);
}

static void tasks_come_with_their_own_speedups_and_the_total(void **state)
{
    (void)state;
    json_t *rows = report("tasks", id.experiment);
    assert_int_equal(json_array_size(rows), 9);
    expect_number(row_of(rows, "tree", "qa"), "speedup", 220.0 / 198);
    expect_number(row_of(rows, "tree", "conversation"), "speedup", 1.25);
    assert_true(json_is_null(json_object_get(row_of(rows, "tree", "conversation"), "speedup_lo")));
    assert_string_equal(json_string_value(json_object_get(row_of(rows, "tree", "qa"), "equal")),
                        "4/4");
    expect_number(row_of(rows, "tree", "all"), "speedup", 440.0 / 374);
    json_decref(rows);
}

static void speed_is_the_median_over_repeats(void **state)
{
    (void)state;
    edit("UPDATE experiment SET repeats = 3");
    struct sb_step_row chain[4];
    for (int i = 0; i < 4; i++)
        chain[i] = sample_step(i, 4, i ? 2 : 3, i ? 3 : 2);
    for (int p = 0; p < 4; p++) /* one slow repeat */
        sample_generation(store, id.arm[1], id.prompt[p], 2, chain, 4, 5700000000);
    json_t *rows = report(NULL, 0);
    expect_number(row_of(rows, "pld", "all"), "speedup", 110.0 / 57);
    json_decref(rows);
}

static void different_token_counts_are_compared_per_token_and_marked(void **state)
{
    (void)state;
    int64_t arm = sample_arm(&id, store, 3, "lossy", "lossy");
    const struct sb_step_row steps[] = { sample_step(0, 4, 4, 5) };
    for (int p = 0; p < 4; p++) /* 5 tokens in 25 ms beside 11 in 110: 5 ms against 10 per token */
        sample_generation(store, arm, id.prompt[p], 0, steps, 1, 25000000);
    json_t *rows = report(NULL, 0), *lossy = row_of(rows, "lossy", "all");
    expect_number(lossy, "speedup", 2);
    expect_number(lossy, "per_token", 1);
    assert_string_equal(json_string_value(json_object_get(lossy, "equal")), "0/4");
    json_decref(rows);
}

static void only_turns_that_ended_well_in_both_arms_are_paired(void **state)
{
    (void)state;
    edit("UPDATE generation SET status = 'error', error = 'x'"
         " WHERE arm_id = 3 AND prompt_id = 3"); /* the slow one of tree */
    json_t *rows = report(NULL, 0), *tree = row_of(rows, "tree", "all");
    expect_number(tree, "speedup", 1.25);
    expect_number(tree, "errors", 2);
    json_decref(rows);
}

static void without_a_baseline_there_is_no_speedup(void **state)
{
    (void)state;
    edit("UPDATE arm SET is_baseline = 0");
    json_t *rows = report(NULL, 0);
    assert_true(json_is_null(json_object_get(row_of(rows, "pld", "all"), "speedup")));
    assert_true(json_is_null(json_object_get(row_of(rows, "none", "all"), "speedup")));
    expect_number(row_of(rows, "pld", "all"), "mat", 2.75);
    json_decref(rows);
}

static void equality_is_only_claimed_for_greedy_decoding(void **state)
{
    (void)state;
    edit("UPDATE experiment SET temperature = 0.8");
    json_t *rows = report(NULL, 0);
    assert_true(json_is_null(json_object_get(row_of(rows, "pld", "all"), "equal")));
    json_decref(rows);
}

static void the_diagnosis_says_what_was_left_on_the_table(void **state)
{
    (void)state;
    json_t *rows = report("diagnosis", 0), *row = json_array_get(rows, 0);
    assert_int_equal(json_array_size(rows), 1);
    expect_number(row, "steps", 8);
    expect_number(row, "judged", 24);
    expect_number(row, "alpha_tv", 0.5);
    expect_number(row, "acceptance", 2.0 / 3);
    expect_number(row, "ot_bound", 0.75);
    expect_number(row, "left_on_table", 0.75 - 2.0 / 3);
    json_decref(rows);
}

static void every_view_of_the_list_prints(void **state)
{
    (void)state;
    for (const struct sb_view_info *v = sb_views; v->name; v++) {
        json_t *rows = report(v->name, 0);
        assert_true(json_array_size(rows) > 0);
        json_decref(rows);
    }
}

static const char *text_of(const json_t *row, const char *column)
{
    return json_string_value(json_object_get(row, column));
}

static void a_certificate_has_a_row_per_verifier_and_planted_rules_last(void **state)
{
    (void)state;
    json_t *rows = report("certificate", 0);
    assert_int_equal(json_array_size(rows), 3);
    const json_t *greedy = json_array_get(rows, 0), *loose = json_array_get(rows, 1),
                 *planted = json_array_get(rows, 2);
    assert_string_equal(text_of(greedy, "verifier"), "greedy");
    assert_string_equal(text_of(greedy, "equal"), "6/6");
    assert_string_equal(text_of(greedy, "verdict"), "pass");
    assert_int_equal(json_integer_value(json_object_get(greedy, "tables")), 200);
    assert_true(json_is_null(json_object_get(greedy, "p_holm")));
    assert_string_equal(text_of(loose, "verifier_params"), "x=1");
    assert_string_equal(text_of(loose, "verdict"), "lossy");
    assert_true(json_real_value(json_object_get(loose, "variation")) == .07);
    assert_string_equal(text_of(planted, "guarantee"), "planted");
    assert_string_equal(text_of(planted, "verdict"), "caught");
    assert_true(json_real_value(json_object_get(planted, "variation_upper")) == .1);
    json_decref(rows);
    rows = report("checks", 0);
    assert_int_equal(json_array_size(rows), 4);
    json_decref(rows);
}

/* Only a finished certificate of the arm's own build counts, and the newest of them. */
static void the_leaderboard_says_what_is_certified(void **state)
{
    (void)state;
    char lossless[SB_LOSSLESS_BYTES];
    json_t *rows = report(NULL, 0);
    assert_string_equal(text_of(row_of(rows, "pld", "all"), "lossless"), "certified");
    json_decref(rows);
    assert_int_equal(sb_report_lossless(lossless, store, NULL, "greedy", NULL), SB_OK);
    assert_string_equal(lossless, "certified");
    assert_int_equal(sb_report_lossless(lossless, store, "abc1234", "greedy", NULL), SB_OK);
    assert_string_equal(lossless, "");
    assert_int_equal(sb_report_lossless(lossless, store, NULL, "loose", NULL), SB_OK);
    assert_string_equal(lossless, ""); /* with other parameters only */

    int64_t newer = sample_certificate(&id, store, NULL); /* still running */
    edit("UPDATE certificate_check SET verdict = 'fail' WHERE certificate_id = 2"
         " AND check_no = 0");
    assert_int_equal(sb_report_lossless(lossless, store, NULL, "greedy", NULL), SB_OK);
    assert_string_equal(lossless, "certified");
    assert_int_equal(sb_store_certificate_end(store, newer, "refused", 1, NULL), SB_OK);
    assert_int_equal(sb_report_lossless(lossless, store, NULL, "greedy", NULL), SB_OK);
    assert_string_equal(lossless, "certified");
    assert_int_equal(sb_store_certificate_end(store, newer, "refuted", 1, NULL), SB_OK);
    rows = report(NULL, 0);
    assert_string_equal(text_of(row_of(rows, "pld", "all"), "lossless"), "refuted");
    json_decref(rows);
}

static void unknown_views_and_experiments_are_refused(void **state)
{
    (void)state;
    struct sb_table *t = NULL;
    struct sb_error err;
    struct sb_report_options o = { .view = "best" };
    assert_int_equal(sb_report_table(&t, store, &o, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "no view 'best'; there are: leaderboard, tasks, "));
    o = (struct sb_report_options){ .experiment_id = 77 };
    assert_int_equal(sb_report_table(&t, store, &o, &err), SB_EUSAGE);
    assert_string_equal(err.message, ":memory:: has no experiment 77");
    struct sb_store *empty = NULL;
    assert_int_equal(sb_store_open(&empty, ":memory:", NULL, NULL), SB_OK);
    assert_int_equal(sb_report_table(&t, empty, NULL, &err), SB_EINPUT);
    o = (struct sb_report_options){ .view = "certificate" };
    assert_int_equal(sb_report_table(&t, empty, &o, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, "holds no certificate"));
    struct sb_equality e;
    assert_int_equal(sb_report_equality(&e, empty, 0, &err), SB_EINPUT);
    assert_null(t);
    sb_store_close(empty);
}

static void the_first_difference_is_named(void **state)
{
    (void)state;
    struct sb_equality e;
    assert_int_equal(sb_report_equality(&e, store, 0, NULL), SB_OK);
    assert_int_equal(e.compared, 16);
    assert_int_equal(e.equal, 16);
    assert_string_equal(e.first_difference, "");
    static const struct {
        const char *tokens, *where;
    } cases[] = {
        { "[11,12,13,14,150,16,17,18,19,20,21,22]", "new token 4 on" },
        { "[110,12]", "new token 0 on" },
        { "[11,12,13]", "new token 3 on" },
        { "[11,12,1]", "new token 2 on" },
        { "[]", "new token 0 on" },
        { "[11,12,13,14,15,16,17,18,19,20,21,22,23]", "new token 12 on" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *sql =
            sqlite3_mprintf("UPDATE generation SET tokens = %Q WHERE arm_id = 2 AND prompt_id = 2"
                            " AND repeat = 1",
                            cases[i].tokens);
        edit(sql);
        sqlite3_free(sql);
        assert_int_equal(sb_report_equality(&e, store, 0, NULL), SB_OK);
        assert_int_equal(e.equal, 15);
        if (!strstr(e.first_difference, cases[i].where) ||
            !strstr(e.first_difference,
                    "pld differs from the baseline in question 81, turn 2, repeat 1"))
            fail_msg("%s: %s", cases[i].tokens, e.first_difference);
    }
    /* What a lossy arm says is compared with nothing. */
    sqlite3 *db = sb_store_handle(store);
    sqlite3_exec(db,
                 "CREATE TEMP TABLE kept AS SELECT guarantee FROM arm WHERE id = 2;"
                 "UPDATE arm SET guarantee = 'lossy' WHERE id = 2",
                 NULL, NULL, NULL);
    assert_int_equal(sb_report_equality(&e, store, 0, NULL), SB_OK);
    assert_true(e.lossy > 0 && e.compared == 16 - e.lossy && e.equal == e.compared);
    assert_string_equal(e.first_difference, "");
    sqlite3_exec(db,
                 "UPDATE arm SET guarantee = (SELECT guarantee FROM kept) WHERE id = 2;"
                 "DROP TABLE kept",
                 NULL, NULL, NULL);
}

static void running_out_of_memory_anywhere_is_an_error(void **state)
{
    (void)state;
    FILE *out = fopen("/dev/null", "w");
    size_t n = 0, refused = 0;
    for (bool done = false; !done; n++) {
        struct sb_table *t = NULL;
        const struct sb_report_options o = { .view = "tasks", .resamples = 20 };
        sb_alloc_fail_after(n);
        enum sb_status rc = sb_report_table(&t, store, &o, NULL);
        if (rc == SB_OK)
            rc = sb_table_print(t, out, SB_FORMAT_TABLE, NULL);
        sb_alloc_fail_after(SIZE_MAX);
        sb_table_destroy(t);
        done = rc == SB_OK;
        refused += rc == SB_ENOMEM;
    }
    assert_int_equal(refused, n - 1); /* each of the allocations, until all of them succeed */
    assert_true(n > 100);
    fclose(out);
}

/* ---- tables ---- */

static struct sb_table *small_table(void)
{
    struct sb_table *t = sb_table_create();
    sb_table_column(t, "arm", 0);
    sb_table_column(t, "draft_efficiency", 2);
    sb_table_column(t, "n", 0);
    sb_table_column(t, "errors", 0);
    sb_table_optional(t);
    sb_table_text(t, "pld");
    sb_table_real(t, 0.1);
    sb_table_int(t, 12);
    sb_table_int(t, 0);
    sb_table_text(t, "größer, \"a\"|b\n");
    sb_table_real(t, NAN);
    sb_table_int(t, -3);
    sb_table_int(t, 0);
    return t;
}

static void four_formats_print_one_list_of_columns(void **state)
{
    (void)state;
    struct sb_table *t = small_table();
    expect_print(t, SB_FORMAT_TABLE,
                 "                    draft_\n"
                 "arm             efficiency   n\n"
                 "pld                   0.10  12\n"
                 "größer, \"a\"|b            -  -3\n");
    expect_print(t, SB_FORMAT_MD,
                 "| arm             | draft_efficiency |  n |\n"
                 "| :-------------- | ---------------: | -: |\n"
                 "| pld             |             0.10 | 12 |\n"
                 "| größer, \"a\"\\|b  |                - | -3 |\n");
    expect_print(t, SB_FORMAT_CSV,
                 "arm,draft_efficiency,n,errors\n"
                 "pld,0.1,12,0\n"
                 "\"größer, \"\"a\"\"|b\n\",,-3,0\n");
    expect_print(t, SB_FORMAT_JSON,
                 "[\n  {\"arm\": \"pld\", \"draft_efficiency\": 0.1, \"n\": 12, \"errors\": 0},\n"
                 "  {\"arm\": \"größer, \\\"a\\\"|b\\n\", \"draft_efficiency\": null, \"n\": -3,"
                 " \"errors\": 0}\n]\n");
    sb_table_destroy(t);
}

static void numbers_read_back_as_they_were(void **state)
{
    (void)state;
    static const double values[] = {
        0, 1, 0.1, 1.0 / 3, 1e-300, 1.7976931348623157e308, 123456789.125, -2e20
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct sb_table *t = sb_table_create();
        sb_table_column(t, "x", 2);
        sb_table_real(t, values[i]);
        char *text = print(t, SB_FORMAT_JSON);
        json_t *rows = json_loads(text, 0, NULL),
               *cell = json_object_get(json_array_get(rows, 0), "x");
        assert_true(json_is_real(cell)); /* a real stays one: 1.0, not 1 */
        assert_true(json_real_value(cell) == values[i]);
        json_decref(rows);
        free(text);
        sb_table_destroy(t);
    }
}

static void hostile_text_cannot_break_the_output(void **state)
{
    (void)state;
    struct sb_table *t = sb_table_create();
    sb_table_column(t, "text", 0);
    sb_table_text(t, "\x1b[2J\xff\xc3(\xed\xa0\x80\xc2\x9b\x01");
    char *text = print(t, SB_FORMAT_JSON);
    json_t *rows = json_loads(text, 0, NULL);
    assert_non_null(rows);
    json_decref(rows);
    free(text);
    expect_print(t, SB_FORMAT_TABLE,
                 "text\n [2J?"
                 "?(?"
                 "?"
                 "?  \n");
    sb_table_destroy(t);
}

static void empty_and_ragged_tables(void **state)
{
    (void)state;
    struct sb_table *t = sb_table_create();
    sb_table_column(t, "a", 0);
    expect_print(t, SB_FORMAT_JSON, "[]\n");
    expect_print(t, SB_FORMAT_CSV, "a\n");
    expect_print(t, SB_FORMAT_TABLE, "a\n");
    sb_table_column(t, "b", 0);
    sb_table_int(t, 1);
    assert_int_equal(sb_table_print(t, stderr, SB_FORMAT_JSON, NULL), SB_EINTERNAL);
    sb_table_destroy(t);
    sb_table_destroy(NULL);
    enum sb_format format;
    struct sb_error err;
    assert_int_equal(sb_format_parse(&format, "md", NULL), SB_OK);
    assert_int_equal(format, SB_FORMAT_MD);
    assert_int_equal(sb_format_parse(&format, "xml", &err), SB_EUSAGE);
    assert_string_equal(err.message, "format 'xml': expected table, md, csv or json");
}

static void a_full_disk_is_reported(void **state)
{
    (void)state;
    FILE *full = fopen("/dev/full", "w");
    assert_non_null(full);
    struct sb_table *t = small_table();
    assert_int_equal(sb_table_print(t, full, SB_FORMAT_CSV, NULL), SB_EIO);
    fclose(full);
    sb_table_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_leaderboard_has_one_row_per_arm_with_paired_speedups),
        TEST(tasks_come_with_their_own_speedups_and_the_total),
        TEST(speed_is_the_median_over_repeats),
        TEST(different_token_counts_are_compared_per_token_and_marked),
        TEST(only_turns_that_ended_well_in_both_arms_are_paired),
        TEST(without_a_baseline_there_is_no_speedup),
        TEST(equality_is_only_claimed_for_greedy_decoding),
        TEST(the_diagnosis_says_what_was_left_on_the_table),
        TEST(every_view_of_the_list_prints),
        TEST(a_certificate_has_a_row_per_verifier_and_planted_rules_last),
        TEST(the_leaderboard_says_what_is_certified),
        TEST(unknown_views_and_experiments_are_refused),
        TEST(the_first_difference_is_named),
        TEST(running_out_of_memory_anywhere_is_an_error),
        cmocka_unit_test(four_formats_print_one_list_of_columns),
        cmocka_unit_test(numbers_read_back_as_they_were),
        cmocka_unit_test(hostile_text_cannot_break_the_output),
        cmocka_unit_test(empty_and_ragged_tables),
        cmocka_unit_test(a_full_disk_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The views of speed, comparison, warnings and cost on experiments with known figures. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "results/report.h"
#include "sample_store.h"

static json_t *report_with(const struct sb_report_options *o)
{
    struct sb_table *t = NULL;
    struct sb_error err = { 0 };
    char *text = NULL;
    size_t size;
    if (sb_report_table(&t, store, o, &err) != SB_OK)
        fail_msg("%s", err.message);
    FILE *f = open_memstream(&text, &size);
    assert_int_equal(sb_table_print(t, f, SB_FORMAT_JSON, NULL), SB_OK);
    fclose(f);
    json_t *rows = json_loads(text, 0, NULL);
    if (!rows)
        fail_msg("no JSON: %s", text);
    free(text);
    sb_table_destroy(t);
    return rows;
}

static json_t *report(const char *view)
{
    return report_with(&(struct sb_report_options){ .view = view, .resamples = 500, .seed = 1 });
}

/* The first row with these values in two columns; NULL for any. */
static json_t *row_where(json_t *rows, const char *a, const char *a_is, const char *b,
                         const char *b_is)
{
    for (size_t i = 0; i < json_array_size(rows); i++) {
        json_t *row = json_array_get(rows, i);
        const char *x = json_string_value(json_object_get(row, a));
        const char *y = b ? json_string_value(json_object_get(row, b)) : NULL;
        if (x && strcmp(x, a_is) == 0 && (!b || (y && strcmp(y, b_is) == 0)))
            return row;
    }
    fail_msg("no row with %s %s%s%s", a, a_is, b ? ", " : "", b ? b_is : "");
    return NULL;
}

static json_t *arm_row(json_t *rows, const char *arm, const char *task)
{
    return row_where(rows, "arm", arm, "task", task);
}

static double number(const json_t *row, const char *column)
{
    const json_t *cell = json_object_get(row, column);
    if (!json_is_number(cell))
        fail_msg("%s is no number", column);
    return json_number_value(cell);
}

static void expect_number(const json_t *row, const char *column, double want)
{
    double got = number(row, column);
    if (!(fabs(got - want) < 1e-9 * fmax(1, fabs(want))))
        fail_msg("%s: %.12g, expected %.12g", column, got, want);
}

static void expect_text(const json_t *row, const char *column, const char *want)
{
    const char *text = json_string_value(json_object_get(row, column));
    if (want ? !text || strcmp(text, want) != 0 : text != NULL)
        fail_msg("%s: %s, expected %s", column, text ? text : "(none)", want ? want : "(none)");
}

static void expect_null(const json_t *row, const char *column)
{
    assert_true(json_is_null(json_object_get(row, column)));
}

/* ---- speed ---- */

static void all_speed_figures_stand_in_one_view(void **state)
{
    (void)state;
    json_t *rows = report("speed");
    assert_int_equal(json_array_size(rows), 9); /* two tasks and all, three arms */
    json_t *pld = arm_row(rows, "pld", "all"), *tree = arm_row(rows, "tree", "all");
    expect_number(pld, "prompts", 3);
    expect_number(pld, "repeats", 2);
    expect_number(pld, "tokens_per_s", 11 / .057);
    expect_number(pld, "tokens_per_s_e2e", 12 / .077); /* 20 ms of prefill, and its token */
    expect_number(pld, "speedup", 110. / 57);
    expect_number(pld, "speedup_e2e", 130. / 77);
    expect_number(pld, "speedup_gm", 110. / 57);
    expect_number(pld, "specbench_speedup", 130. / 77);
    expect_number(tree, "speedup", 440. / 374);
    expect_number(tree, "speedup_e2e", 520. / 454);
    expect_number(tree, "speedup_tasks", sqrt(1.25 * 220 / 198));
    expect_null(arm_row(rows, "tree", "qa"), "speedup_tasks");
    expect_number(arm_row(rows, "tree", "qa"), "speedup", 220. / 198);
    expect_number(arm_row(rows, "none", "all"), "speedup", 1);
    expect_null(arm_row(rows, "none", "all"), "speedup_lo");
    json_decref(rows);
}

static void specbench_speedup_is_averaged_over_repeats_as_over_runs(void **state)
{
    (void)state;
    edit("UPDATE generation SET decode_ns = 130000000 WHERE arm_id = 2 AND repeat = 1");
    json_t *rows = report("speed"), *pld = arm_row(rows, "pld", "all");
    expect_number(pld, "specbench_speedup", (130. / 77 + 130. / 150) / 2);
    expect_number(pld, "speedup", 110. / 93.5);
    json_decref(rows);
}

static void a_question_counts_with_all_its_turns_or_not_at_all(void **state)
{
    (void)state;
    edit("UPDATE generation SET status = 'error', error = 'x' WHERE arm_id = 3 AND prompt_id = 2"
         " AND repeat = 1");
    json_t *rows = report("speed"), *tree = arm_row(rows, "tree", "all");
    expect_number(tree, "prompts", 3); /* repeat 0 is still whole */
    expect_number(tree, "speedup", 440. / 374);
    json_decref(rows);
    edit("UPDATE generation SET status = 'error', error = 'x' WHERE arm_id = 3 AND prompt_id = 2");
    rows = report("speed");
    tree = arm_row(rows, "tree", "all");
    expect_number(tree, "prompts", 2);
    expect_number(tree, "speedup", 220. / 198);
    expect_number(arm_row(rows, "tree", "conversation"), "prompts", 0);
    expect_null(arm_row(rows, "tree", "conversation"), "speedup");
    json_decref(rows);
}

static int64_t add_arm(int no, const char *label, const char *drafter, double decode_ms)
{
    int64_t arm = 0;
    struct sb_step_row plain[11];
    const struct sb_arm_row row = { .experiment_id = id.experiment,
                                    .arm_no = no,
                                    .label = label,
                                    .drafter = drafter,
                                    .verifier = "greedy",
                                    .policy = "constant",
                                    .guarantee = "greedy-exact" };
    assert_int_equal(sb_store_arm(store, &row, &arm, NULL), SB_OK);
    for (int i = 0; i < 11; i++)
        plain[i] = sample_step(i, 0, 0, 1);
    for (int p = 0; p < 4; p++)
        for (int repeat = 0; repeat < 2; repeat++)
            sample_generation(store, arm, id.prompt[p], repeat, plain, 11,
                              (int64_t)(decode_ms * 1e6));
    return arm;
}

static void an_a_a_arm_gives_the_noise_floor(void **state)
{
    (void)state;
    add_arm(3, "none (A/A)", "none", 110 * 1.02);
    add_arm(4, "slightly", "quick", 110 / 1.015);
    for (int view = 0; view < 2; view++) {
        json_t *rows = report(view ? "speed" : NULL);
        expect_text(arm_row(rows, "none (A/A)", "all"), "note", "A/A");
        expect_number(arm_row(rows, "none (A/A)", "all"), "speedup", 1 / 1.02);
        json_t *slightly = arm_row(rows, "slightly", "all"), *pld = arm_row(rows, "pld", "all");
        expect_number(slightly, "noise_floor", .02);
        expect_text(slightly, "note", "within noise");
        expect_number(pld, "noise_floor", .02);
        expect_text(pld, "note", NULL);
        json_decref(rows);
    }
    json_t *rows = report("tasks"); /* a third of the prompts: sqrt(3) times the noise */
    expect_number(arm_row(rows, "pld", "conversation"), "noise_floor", pow(1.02, sqrt(3)) - 1);
    json_decref(rows);
}

static void without_an_a_a_arm_the_repeats_of_the_baseline_give_it(void **state)
{
    (void)state;
    json_t *rows = report(NULL);
    expect_number(arm_row(rows, "pld", "all"), "noise_floor", 0); /* equal repeats */
    expect_text(arm_row(rows, "tree", "all"), "note", "interval holds 1");
    json_decref(rows);
    edit("UPDATE generation SET decode_ns = decode_ns * 103 / 100 WHERE arm_id = 1 AND repeat = 1");
    rows = report(NULL);
    assert_true(fabs(number(arm_row(rows, "pld", "all"), "noise_floor") - .03) < 1e-6);
    json_decref(rows);
    edit("DELETE FROM generation WHERE repeat = 1");
    rows = report(NULL);
    expect_null(arm_row(rows, "pld", "all"), "noise_floor");
    json_decref(rows);
}

/* ---- compare ---- */

static json_t *compare_arms(const char *arms)
{
    return report_with(&(struct sb_report_options){
        .view = "compare", .arms = arms, .resamples = 500, .seed = 1 });
}

static void two_arms_are_compared_over_all_by_task_and_by_question(void **state)
{
    (void)state;
    json_t *rows = compare_arms("pld,tree"), *all = row_where(rows, "scope", "all", NULL, NULL);
    assert_int_equal(json_array_size(rows), 1 + 2 + 3);
    expect_number(all, "prompts", 3);
    expect_number(all, "speedup_a", 110. / 57);
    expect_number(all, "speedup_b", 440. / 374);
    expect_number(all, "ratio", 374. / 228);
    expect_number(all, "mat_a", 2.75);
    expect_number(all, "mat_b", 2.2);
    expect_number(all, "mat_difference", .55);
    expect_number(row_where(rows, "task", "qa", "scope", "task"), "ratio", 198. / 114);
    json_t *first = row_where(rows, "scope", "prompt", NULL, NULL);
    expect_number(first, "question", 90); /* where they differ most */
    expect_number(first, "ratio", 110. / 57);
    expect_number(first, "speedup_b", 1);

    json_t *back = compare_arms("tree,pld"), *other = row_where(back, "scope", "all", NULL, NULL);
    assert_true(fabs(number(all, "ratio_lo") * number(other, "ratio_hi") - 1) < 1e-9);
    assert_true(fabs(number(all, "ratio_hi") * number(other, "ratio_lo") - 1) < 1e-9);
    expect_number(other, "mat_difference", -.55);
    assert_true(fabs(number(all, "mat_lo") + number(other, "mat_hi")) < 1e-9);
    json_decref(rows);
    json_decref(back);
}

static void without_names_the_two_fastest_are_compared(void **state)
{
    (void)state;
    json_t *rows = report("compare");
    expect_text(json_array_get(rows, 0), "arm_a", "pld");
    expect_text(json_array_get(rows, 0), "arm_b", "tree");
    json_decref(rows);
}

static void arms_are_named_by_labels_that_may_hold_commas(void **state)
{
    (void)state;
    edit("UPDATE arm SET label = 'pld:k=1,n=2' WHERE id = 2");
    json_t *rows = compare_arms("pld:k=1,n=2,none");
    expect_number(json_array_get(rows, 0), "ratio", 110. / 57);
    json_decref(rows);
    static const struct {
        const char *arms, *why;
    } cases[] = {
        { "tree", "expected the labels of two arms with a comma" },
        { "", "expected the labels of two arms with a comma" },
        { "tree,medusa", "no arm 'medusa'; it has: none; pld:k=1,n=2; tree" },
        { "medusa,tree", "no arm 'medusa'" },
        { "tree,tree", "give two different arms" },
        { "a,b,c", "expected the labels of two arms" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_table *t = NULL;
        struct sb_error err = { 0 };
        const struct sb_report_options o = { .view = "compare", .arms = cases[i].arms };
        assert_int_equal(sb_report_table(&t, store, &o, &err), SB_EUSAGE);
        if (!strstr(err.message, cases[i].why))
            fail_msg("%s: %s", cases[i].arms, err.message);
    }
}

static void one_arm_alone_cannot_be_compared(void **state)
{
    (void)state;
    struct sb_table *t = NULL;
    struct sb_error err;
    edit("DELETE FROM arm WHERE id > 1");
    assert_int_equal(
        sb_report_table(&t, store, &(struct sb_report_options){ .view = "compare" }, &err),
        SB_EINPUT);
    assert_non_null(strstr(err.message, "has one arm"));
}

/* ---- warnings ---- */

static json_t *check_row(json_t *rows, const char *check)
{
    return row_where(rows, "check", check, NULL, NULL);
}

static void a_quiet_run_gives_no_warnings(void **state)
{
    (void)state;
    json_t *rows = report("warnings");
    for (size_t i = 0; i < json_array_size(rows); i++)
        expect_number(json_array_get(rows, i), "warning", 0);
    expect_number(check_row(rows, "noise"), "value", 0);
    expect_number(check_row(rows, "drift"), "value", 0);
    expect_number(check_row(rows, "partial"), "value", 0);
    json_decref(rows);
}

static void drift_load_and_missing_generations_are_warned_of(void **state)
{
    (void)state;
    edit("UPDATE generation SET decode_ns = decode_ns * 108 / 100 WHERE repeat = 1 AND arm_id = 1");
    edit("UPDATE generation SET load_average = 5.5");
    edit("UPDATE generation SET status = 'error', error = 'x' WHERE arm_id = 3 AND prompt_id = 4");
    json_t *rows = report("warnings");
    expect_number(check_row(rows, "drift"), "warning", 1);
    assert_true(fabs(number(check_row(rows, "drift"), "value") - .08) < 1e-6);
    expect_number(check_row(rows, "load"), "warning", 1);
    expect_number(check_row(rows, "load"), "value", 3.5); /* beside two threads */
    expect_number(check_row(rows, "partial"), "warning", 1);
    expect_number(check_row(rows, "partial"), "value", 2);
    json_t *tree = row_where(rows, "check", "partial", "arm", "tree");
    expect_number(tree, "value", 1);
    assert_non_null(strstr(json_string_value(json_object_get(tree, "message")),
                           "finished 2 prompts where others finished 3"));
    expect_number(check_row(rows, "noise"), "warning", 1); /* 8 % is more than 5 */
    json_decref(rows);
    edit("DELETE FROM generation WHERE repeat = 1");
    rows = report("warnings");
    expect_null(check_row(rows, "noise"), "value");
    expect_number(check_row(rows, "noise"), "warning", 1);
    json_decref(rows);
    edit("UPDATE arm SET is_baseline = 0");
    rows = report("warnings");
    expect_number(check_row(rows, "noise"), "warning", 1);
    json_decref(rows);
}

/* Twelve more questions: speedups 2.0 to 2.2, and one of 6. */
static void an_outlying_prompt_is_named(void **state)
{
    (void)state;
    struct sb_step_row plain[11];
    for (int i = 0; i < 11; i++)
        plain[i] = sample_step(i, 0, 0, 1);
    edit("DELETE FROM generation");
    for (int q = 0; q < 12; q++) {
        int64_t prompt = sample_prompt(&id, store, 200 + q, 1, 1, "qa");
        double speedup = q == 7 ? 6 : 2 + .02 * q;
        sample_generation(store, id.arm[0], prompt, 0, plain, 11, 110000000);
        sample_generation(store, id.arm[1], prompt, 0, plain, 11, (int64_t)(110000000 / speedup));
        sample_generation(store, id.arm[2], prompt, 0, plain, 11, 100000000);
    }
    json_t *rows = report("warnings");
    json_t *pld = row_where(rows, "check", "outliers", "arm", "pld");
    expect_number(pld, "value", 1);
    expect_number(pld, "warning", 1);
    assert_non_null(strstr(json_string_value(json_object_get(pld, "message")), "question 207"));
    expect_number(row_where(rows, "check", "outliers", "arm", "tree"), "warning", 0);
    json_decref(rows);
}

/* ---- cost ---- */

/* The sample's curve is t(5) = 10 ms, c(5) = 1.1, and its plain forwards take 9 ms: scaled by that,
 * t(1) = 9 ms and t(5) = 9.9. pld: four drafts of four, 57 ms of which 40 are forwards. */
static void speedups_follow_from_the_cost_curve(void **state)
{
    (void)state;
    json_t *rows = report("cost"), *pld = row_where(rows, "arm", "pld", NULL, NULL);
    double predicted_ms = 57 - 40 + 4 * 9.9, predicted = 110 / predicted_ms;
    expect_number(row_where(rows, "arm", "none", NULL, NULL), "predicted", 1);
    expect_number(row_where(rows, "arm", "none", NULL, NULL), "time_error", 0);
    expect_null(row_where(rows, "arm", "none", NULL, NULL), "best_length");
    expect_number(pld, "speedup", 110. / 57);
    expect_number(pld, "predicted", predicted);
    expect_number(pld, "residual", 110. / 57 / predicted - 1);
    expect_number(pld, "time_error", 1 - predicted_ms / 57);
    expect_number(pld, "rows_per_step", 5);
    expect_number(pld, "c", 1.1);
    expect_number(pld, "draft_us", 1000);
    /* 11 tokens at 10 ms, less forwards and 1 ms of the rest, over 16 levels */
    expect_number(pld, "break_even_us", (110 - 39.6 - 1) / 16 * 1000);
    expect_number(pld, "oracle_speedup", 20 * 10 / predicted_ms);
    /* survival .75 .5 .25 .25: four levels cost 4 + 9.9 + .25 ms for 2.75 tokens, three 12.925 for 2.5 */
    expect_number(pld, "best_length", 4);
    expect_number(pld, "best_speedup", 27.5 / 14.15);
    expect_text(pld, "note", NULL);
    expect_null(pld, "predicted_on");
    json_decref(rows);
}

static void dear_drafts_make_the_best_length_shorter(void **state)
{
    (void)state;
    edit("UPDATE step SET draft_ns = 3500000 * drafted WHERE generation_id IN"
         " (SELECT id FROM generation WHERE arm_id = 2)");
    edit("UPDATE generation SET decode_ns = decode_ns + 40000000 WHERE arm_id = 2");
    json_t *rows = report("cost"), *pld = row_where(rows, "arm", "pld", NULL, NULL);
    /* lengths 1, 2, 3, 4: 17.5 / 12.975, 22.5 / 16.7, 25 / 20.425, 27.5 / 24.15 */
    expect_number(pld, "best_length", 1);
    expect_number(pld, "best_speedup", 17.5 / 12.975);
    json_decref(rows);
}

static json_t *report_on(const char *path)
{
    return report_with(
        &(struct sb_report_options){ .view = "cost", .on = path, .resamples = 500, .seed = 1 });
}

/* A machine nine times as fast at one row, at which five rows cost two: 11 forwards and 11 ms / 9 of other
 * work against 4 forwards of 2 and 17 ms / 9. */
static void a_curve_from_elsewhere_predicts_the_speedup_there(void **state)
{
    (void)state;
    char path[] = "host_XXXXXX";
    static const char text[] =
        "{\"model\":\"tiny\",\"arithmetic\":\"exact\",\"context\":128,\"curve\":["
        "{\"rows\":1,\"ns\":1000000},{\"rows\":5,\"ns\":2000000}]}";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    json_t *rows = report_on(path), *pld = row_where(rows, "arm", "pld", NULL, NULL);
    double base = 11 + 11. / 9, method = 8 + 17. / 9;
    expect_number(pld, "predicted_on", base / method);
    expect_number(pld, "tokens_per_s_on", 11 / method * 1000);
    expect_number(pld, "predicted", 110 / (57 - 40 + 4 * 9.9));
    expect_number(row_where(rows, "arm", "none", NULL, NULL), "predicted_on", 1);
    json_decref(rows);
    unlink(path);
    struct sb_table *t = NULL;
    struct sb_error err;
    const struct sb_report_options o = { .view = "cost", .on = "nowhere.json" };
    assert_int_equal(sb_report_table(&t, store, &o, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, "nowhere.json"));
}

static void without_a_cost_curve_the_way_to_one_is_said(void **state)
{
    (void)state;
    struct sb_table *t = NULL;
    struct sb_error err;
    edit("UPDATE cost_curve SET arithmetic = 'math=fast'");
    assert_int_equal(
        sb_report_table(&t, store, &(struct sb_report_options){ .view = "cost" }, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, "holds no cost curve of 'tiny'"));
}

static void running_out_of_memory_in_any_view_is_an_error(void **state)
{
    (void)state;
    static const char *const views[] = { "speed", "compare", "warnings", "cost" };
    for (size_t v = 0; v < 4; v++) {
        bool done = false;
        for (size_t n = 0; !done; n++) {
            struct sb_table *t = NULL;
            const struct sb_report_options o = { .view = views[v], .resamples = 20 };
            sb_alloc_fail_after(n);
            enum sb_status rc = sb_report_table(&t, store, &o, NULL);
            sb_alloc_fail_after(SIZE_MAX);
            done = rc == SB_OK && n > 300;
            if (rc != SB_OK && rc != SB_ENOMEM)
                fail_msg("%s, allocation %zu: %d", views[v], n, rc);
            sb_table_destroy(t);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(all_speed_figures_stand_in_one_view),
        TEST(specbench_speedup_is_averaged_over_repeats_as_over_runs),
        TEST(a_question_counts_with_all_its_turns_or_not_at_all),
        TEST(an_a_a_arm_gives_the_noise_floor),
        TEST(without_an_a_a_arm_the_repeats_of_the_baseline_give_it),
        TEST(two_arms_are_compared_over_all_by_task_and_by_question),
        TEST(without_names_the_two_fastest_are_compared),
        TEST(arms_are_named_by_labels_that_may_hold_commas),
        TEST(one_arm_alone_cannot_be_compared),
        TEST(a_quiet_run_gives_no_warnings),
        TEST(drift_load_and_missing_generations_are_warned_of),
        TEST(an_outlying_prompt_is_named),
        TEST(speedups_follow_from_the_cost_curve),
        TEST(dear_drafts_make_the_best_length_shorter),
        TEST(a_curve_from_elsewhere_predicts_the_speedup_there),
        TEST(without_a_cost_curve_the_way_to_one_is_said),
        TEST(running_out_of_memory_in_any_view_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

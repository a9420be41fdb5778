/* results/views: every formula against figures worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "sample_store.h"

/* The single number that a query gives; NaN for NULL. */
static double value(const char *sql)
{
    sqlite3_stmt *st;
    if (sqlite3_prepare_v2(sb_store_handle(store), sql, -1, &st, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(sb_store_handle(store)));
    if (sqlite3_step(st) != SQLITE_ROW)
        fail_msg("%s: no row", sql);
    double v = sqlite3_column_type(st, 0) == SQLITE_NULL ? NAN : sqlite3_column_double(st, 0);
    assert_int_equal(sqlite3_step(st), SQLITE_DONE);
    sqlite3_finalize(st);
    return v;
}

static void expect(double want, const char *sql)
{
    double got = value(sql);
    if (!(fabs(got - want) < 1e-12))
        fail_msg("%s: %.15g, expected %.15g", sql, got, want);
}

#define OVERALL(column, arm) \
    "SELECT " column " FROM leaderboard_base WHERE overall AND arm = '" arm "'"

/* Methods C 5.2, worked example: drafted 16, accepted 7, decided 10 in every generation. */
static void the_chain_of_the_methods_card_gives_its_figures(void **state)
{
    (void)state;
    expect(11.0 / 4, OVERALL("mat", "pld"));
    expect(11.0 / 4, OVERALL("mat_prompt_mean", "pld"));
    expect(0.4375, OVERALL("draft_efficiency", "pld"));
    expect(0.70, OVERALL("conditional_acceptance", "pld"));
    expect(1, OVERALL("hit_rate", "pld"));
    expect(8 * 16, OVERALL("drafted", "pld"));
    static const double conditional[] = { 3.0 / 4, 2.0 / 3, 1.0 / 2, 1.0 };
    static const double survival[] = { .75, .5, .25, .25 };
    for (int k = 1; k <= 4; k++) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "SELECT conditional FROM positions WHERE arm = 'pld' AND position = %d", k);
        expect(conditional[k - 1], sql);
        snprintf(sql, sizeof sql,
                 "SELECT survival FROM positions WHERE arm = 'pld' AND position = %d", k);
        expect(survival[k - 1], sql);
    }
    expect(7.0 / 4, "SELECT sum(marginal) FROM positions WHERE arm = 'pld'");
    expect(0, "SELECT count(*) FROM positions WHERE arm = 'none' OR position > 4");
}

/* Steps: accepted 2 (tree), 3 of 4, no draft, 1 of 2, 1 of 1 with its final token cut: 11 tokens. */
static void trees_cuts_and_plain_steps_are_counted_as_defined(void **state)
{
    (void)state;
    expect(11.0 / 5, OVERALL("mat", "tree"));
    expect(10.0 / 4, OVERALL("mat_drafted", "tree"));
    expect(4.0 / 5, OVERALL("hit_rate", "tree"));
    expect(7.0 / 11, OVERALL("draft_efficiency", "tree"));
    /* decided: 2 (nothing below the accepted leaf), 4, 0, 2, 1 */
    expect(7.0 / 9, OVERALL("conditional_acceptance", "tree"));
    /* one token in five steps was cut, so MAT lies that much below 1 + the marginals */
    expect(11.0 / 5 + 1.0 / 5, "SELECT 1 + sum(marginal) FROM positions WHERE arm = 'tree'");
    expect(1, OVERALL("mat", "none"));
    expect(0, OVERALL("hit_rate", "none"));
    assert_true(isnan(value(OVERALL("draft_efficiency", "none"))));
}

static void mat_is_one_plus_the_marginals_when_nothing_is_cut(void **state)
{
    (void)state;
    expect(
        0,
        "SELECT max(abs(d)) FROM (SELECT avg(s.accepted + 1.0) - (SELECT 1 + coalesce(sum(marginal), 0)"
        " FROM positions p WHERE p.arm_id = g.arm_id) AS d FROM step s"
        " JOIN generation g ON g.id = s.generation_id GROUP BY g.arm_id)");
    expect(0,
           "SELECT count(*) FROM positions a JOIN positions b"
           " ON b.arm_id = a.arm_id AND b.position = a.position + 1 WHERE b.marginal > a.marginal");
}

/* pld: 4 + 16 rows per generation for 11 tokens; 12 tokens with the prefill's in 5 forwards. */
static void efficiencies_and_waste_are_counted_as_defined(void **state)
{
    (void)state;
    expect(0.4375, OVERALL("node_efficiency", "pld"));
    expect(7.0 / 16, OVERALL("depth_efficiency", "pld"));
    expect((5.0 / 5 + 3.0 / 5 + 1.0 / 5 + 2.0 / 5) / 4, OVERALL("path_utilisation", "pld"));
    expect(1 - 11.0 / 20, OVERALL("row_waste", "pld"));
    expect(12.0 / 5, OVERALL("tokens_per_forward", "pld"));
    expect(0, OVERALL("cut", "pld"));
    expect(8, OVERALL("cut", "tree"));
    expect(0, OVERALL("row_waste", "none"));
    expect(1, OVERALL("path_utilisation", "none"));
    expect(7.0 / 9, OVERALL("depth_efficiency", "tree")); /* depths 2, 4, 0, 2, 1 */
    expect(7.0 / 11, OVERALL("node_efficiency", "tree"));
}

static void auxiliary_nodes_cost_rows_and_are_never_tried(void **state)
{
    (void)state;
    static const struct sb_node_row nodes[] = {
        { .depth = 1, .token = 12, .decision = 2 },
        { .depth = 1, .token = 50, .auxiliary = true, .source = 9 },
        { .parent = 2, .depth = 2, .token = 51, .auxiliary = true, .source = 9 },
    };
    int64_t arm = sample_arm(&id, store, 3, "windows", "greedy-exact");
    struct sb_step_row step = sample_step(0, 1, 1, 2);
    step.auxiliary = 2;
    step.nodes = nodes;
    step.n_nodes = 3;
    sample_generation(store, arm, id.prompt[2], 0, &step, 1, 20000000);
    expect(1, OVERALL("draft_efficiency", "windows"));
    expect(1.0 / 3, OVERALL("node_efficiency", "windows"));
    expect(1 - 2.0 / 4, OVERALL("row_waste", "windows"));
    expect(1, "SELECT sum(nodes) FROM ranks WHERE arm = 'windows'");
    expect(0, "SELECT count(*) FROM sources WHERE arm = 'windows' AND source = 9");
}

#define RANK(column, depth, rank) \
    "SELECT " column " FROM ranks WHERE arm = 'tree' AND depth = " depth " AND rank = " rank

/* tree: at depth 1 its first child is tried in four steps and taken in three, its second taken in the other. */
static void ranks_and_sources_count_children_of_accepted_parents(void **state)
{
    (void)state;
    expect(8 * 4, RANK("nodes", "1", "0"));
    expect(3.0 / 4, RANK("acceptance", "1", "0"));
    expect(3.0 / 4, RANK("share", "1", "0"));
    expect(1, RANK("acceptance", "1", "1"));
    expect(1.0 / 4, RANK("share", "1", "1"));
    expect(1, RANK("coverage", "1", "1"));
    expect(8 * 3, RANK("nodes", "2", "0")); /* not the one below the rejected branch */
    expect(2.0 / 3, RANK("coverage", "2", "0"));
    expect(0, "SELECT count(*) FROM ranks r JOIN positions p ON p.arm_id = r.arm_id"
              " AND p.position = r.depth WHERE abs(p.conditional - r.coverage) > 1e-12");
    expect(8 * 8, "SELECT drafted FROM sources WHERE arm = 'tree' AND source = 1");
    expect(5.0 / 8, "SELECT acceptance FROM sources WHERE arm = 'tree' AND source = 1");
    expect(5.0 / 7, "SELECT share FROM sources WHERE arm = 'tree' AND source = 1");
    expect(0, "SELECT tried FROM sources WHERE arm = 'tree' AND source = 0");
    expect(1, "SELECT efficiency FROM sources WHERE arm = 'tree' AND source = 2");
}

static void the_histogram_has_every_length_up_to_the_longest(void **state)
{
    (void)state;
    expect(6, "SELECT count(*) FROM histogram WHERE arm = 'pld'");
    expect(0.25, "SELECT accepted_share FROM histogram WHERE arm = 'pld' AND length = 4");
    expect(0, "SELECT accepted_steps FROM histogram WHERE arm = 'pld' AND length = 3");
    expect(8, "SELECT token_steps FROM histogram WHERE arm = 'pld' AND length = 5");
    expect(0, "SELECT token_steps FROM histogram WHERE arm = 'pld' AND length = 0");
    expect(
        8 * 1,
        "SELECT accepted_steps - drafted_steps FROM histogram WHERE arm = 'tree' AND length = 0");
    expect(
        0,
        "SELECT count(*) FROM (SELECT sum(accepted_share) AS a, sum(token_share) AS t FROM histogram"
        " GROUP BY arm_id) WHERE abs(a - 1) > 1e-12 OR abs(t - 1) > 1e-12");
}

/* Steps of tree take 14.2, 14.2, 10.2, 12.2 and 11.2 ms and give 3, 4, 1, 2 and 1 tokens. */
static void latencies_are_what_a_streaming_user_waits_for(void **state)
{
    (void)state;
    expect(
        0,
        "SELECT itl_p50_ms FROM latency WHERE arm = 'tree'"); /* 6 of 11 tokens wait for nothing */
    expect(14.2, "SELECT itl_p95_ms FROM latency WHERE arm = 'tree'");
    expect(12.2, "SELECT chunk_p50_ms FROM latency WHERE arm = 'tree'");
    expect(14.2, "SELECT chunk_p95_ms FROM latency WHERE arm = 'tree'");
    expect(14.2, "SELECT chunk_max_ms FROM latency WHERE arm = 'tree'");
    expect(9.2, "SELECT itl_p50_ms FROM latency WHERE arm = 'none'");
    expect(10, "SELECT amortised_ms FROM latency WHERE arm = 'none'");
    expect(20, "SELECT ttft_p95_ms FROM latency WHERE arm = 'pld'");
    expect(88, "SELECT tokens FROM latency WHERE arm = 'pld'");
    expect(32, "SELECT chunks FROM latency WHERE arm = 'pld'");
}

static void what_is_missing_is_counted_per_task(void **state)
{
    (void)state;
    edit("DELETE FROM generation WHERE arm_id = 2 AND prompt_id = 3 AND repeat = 1");
    expect(1, OVERALL("missing", "pld"));
    expect(0, OVERALL("missing", "tree"));
    expect(1, "SELECT missing FROM leaderboard_base WHERE arm = 'pld' AND task = 'qa'");
    expect(0, "SELECT missing FROM leaderboard_base WHERE arm = 'pld' AND task = 'conversation'");
    expect(1, "SELECT missing FROM coverage WHERE arm = 'pld'");
    expect(7, "SELECT common FROM coverage WHERE arm = 'none'");
    expect(23, "SELECT done FROM runs");
    sample_arm(&id, store, 4, "late", "greedy-exact"); /* an arm that did nothing is in the table */
    expect(8, OVERALL("missing", "late"));
}

static void speed_leaves_the_prefill_out(void **state)
{
    (void)state;
    expect(100, OVERALL("tokens_per_s", "none")); /* 11 tokens in 110 ms */
    expect(11 / 0.057, OVERALL("tokens_per_s", "pld"));
    expect(3, OVERALL("prompts", "pld")); /* a question with its turns is one prompt */
    expect(8, OVERALL("generations", "pld"));
    expect(1, "SELECT prompts FROM leaderboard_base WHERE arm = 'pld' AND task = 'conversation'");
    expect(9, "SELECT count(*) FROM leaderboard_base");
}

static void shares_of_the_time_add_up_to_one(void **state)
{
    (void)state;
    expect(
        0,
        "SELECT max(abs(draft + verify + accept + \"commit\" + observe + other - 1)) < 1e-12 IS NOT 1"
        " FROM breakdown");
    /* pld: 16 ms of drafting and 40 ms of verifying in 57 ms; 0.8 ms of the small parts */
    expect(16.0 / 57, "SELECT draft FROM breakdown WHERE arm = 'pld'");
    expect(40.0 / 57, "SELECT verify FROM breakdown WHERE arm = 'pld'");
    assert_true(fabs(value("SELECT other FROM breakdown WHERE arm = 'pld'") - 0.2 / 57) < 1e-12);
    expect(57.0 / 4, "SELECT ms_per_step FROM breakdown WHERE arm = 'pld'");
    assert_true(fabs(value("SELECT draft_overhead FROM breakdown WHERE arm = 'pld'") - 16 / 56.8) <
                1e-12);
}

static void failed_generations_count_as_errors_and_nothing_else(void **state)
{
    (void)state;
    const struct sb_generation_row row = { .arm_id = id.arm[1],
                                           .prompt_id = id.prompt[0],
                                           .repeat = 2,
                                           .status = "error",
                                           .error = "boom",
                                           .decode_ns = 1000000000 };
    assert_int_equal(sb_store_generation(store, &row, NULL), SB_OK);
    expect(1, OVERALL("errors", "pld"));
    expect(0, OVERALL("errors", "none"));
    expect(8, OVERALL("generations", "pld"));
    expect(11 / 0.057, OVERALL("tokens_per_s", "pld"));
    expect(1, "SELECT errors FROM leaderboard_base WHERE arm = 'pld' AND task = 'conversation'");
    expect(1, "SELECT errors FROM runs");
    expect(24, "SELECT planned FROM runs");
    expect(24, "SELECT done FROM runs");
}

static void an_arm_that_only_failed_still_has_a_row(void **state)
{
    (void)state;
    int64_t arm = sample_arm(&id, store, 3, "broken", "lossy");
    const struct sb_generation_row row = {
        .arm_id = arm, .prompt_id = id.prompt[2], .status = "error", .error = "boom"
    };
    assert_int_equal(sb_store_generation(store, &row, NULL), SB_OK);
    expect(1, OVERALL("errors", "broken"));
    expect(0, OVERALL("prompts", "broken"));
    assert_true(isnan(value(OVERALL("mat", "broken"))));
}

static void experiments_do_not_mix(void **state)
{
    (void)state;
    struct sample other;
    sample_fill(&other, store, "k2");
    char sql[200];
    snprintf(sql, sizeof sql,
             "SELECT prompts FROM leaderboard_base WHERE experiment_id = %d AND overall"
             " AND arm = 'pld'",
             (int)other.experiment);
    expect(3, sql);
    expect(2, "SELECT count(*) FROM runs");
    expect(32, "SELECT count(*) FROM v_equality WHERE equal");
}

static void a_task_called_all_stays_apart_from_the_total(void **state)
{
    (void)state;
    int64_t prompt = sample_prompt(&id, store, 99, 1, 1, "all");
    const struct sb_step_row step = sample_step(0, 1, 1, 2);
    sample_generation(store, id.arm[1], prompt, 0, &step, 1, 1000000);
    expect(2,
           "SELECT mat FROM leaderboard_base WHERE arm = 'pld' AND task = 'all' AND NOT overall");
    expect(4, OVERALL("prompts", "pld"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_chain_of_the_methods_card_gives_its_figures),
        TEST(trees_cuts_and_plain_steps_are_counted_as_defined),
        TEST(mat_is_one_plus_the_marginals_when_nothing_is_cut),
        TEST(efficiencies_and_waste_are_counted_as_defined),
        TEST(auxiliary_nodes_cost_rows_and_are_never_tried),
        TEST(ranks_and_sources_count_children_of_accepted_parents),
        TEST(the_histogram_has_every_length_up_to_the_longest),
        TEST(latencies_are_what_a_streaming_user_waits_for),
        TEST(what_is_missing_is_counted_per_task),
        TEST(speed_leaves_the_prefill_out),
        TEST(shares_of_the_time_add_up_to_one),
        TEST(failed_generations_count_as_errors_and_nothing_else),
        TEST(an_arm_that_only_failed_still_has_a_row),
        TEST(experiments_do_not_mix),
        TEST(a_task_called_all_stays_apart_from_the_total),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

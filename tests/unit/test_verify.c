/* results/verify: a sound database passes; every kind of edit is found by the check that is there for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "results/verify.h"
#include "sample_store.h"

static struct sb_verification verify(void)
{
    struct sb_verification v;
    struct sb_error err = { 0 };
    if (sb_verify(&v, store, &err) != SB_OK)
        fail_msg("%s", err.message);
    return v;
}

static const struct sb_verify_check *check_of(const struct sb_verification *v, const char *name)
{
    for (size_t i = 0; i < v->n; i++)
        if (strcmp(v->check[i].name, name) == 0)
            return &v->check[i];
    fail_msg("no check %s", name);
    return NULL;
}

static void a_sound_database_passes_every_check(void **state)
{
    (void)state;
    struct sb_verification v = verify();
    for (size_t i = 0; i < v.n; i++) {
        if (v.check[i].failed)
            fail_msg("%s: %s", v.check[i].name, v.check[i].first);
        if (v.check[i].checked == 0)
            fail_msg("%s checked nothing", v.check[i].name);
    }
    assert_int_equal(v.failed, 0);
}

/* Each edit alone, undone by a rollback; `check` must be among those that fail. */
static void every_edit_is_caught(void **state)
{
    (void)state;
    static const struct {
        const char *check, *sql;
    } edits[] = {
        { "sums", "UPDATE generation_sums SET accepted = accepted + 1 WHERE generation_id = 2" },
        { "sums", "UPDATE generation_sums SET verify_ns = verify_ns - 1 WHERE generation_id = 2" },
        { "sums", "UPDATE generation_sums SET path = path * 1.001 WHERE generation_id = 3" },
        { "sums",
          "UPDATE step SET observe_ns = observe_ns - 1 WHERE generation_id = 2 AND step_no = 3" },
        { "leaderboard", "UPDATE generation_sums SET tokens = tokens + 1 WHERE generation_id = 2" },
        { "breakdown",
          "UPDATE generation_sums SET draft_ns = draft_ns + 1000 WHERE generation_id = 2" },
        { "mat", "UPDATE generation_sums SET tokens = tokens + 1 WHERE generation_id = 5" },
        { "token_counts", "UPDATE generation SET n_tokens = n_tokens - 1 WHERE id = 2" },
        { "token_ids", "UPDATE generation SET n_tokens = n_tokens - 1 WHERE id = 2" },
        { "token_ids", "UPDATE generation SET tokens = '[1,two]' WHERE id = 1" },
        { "token_ids", "UPDATE generation SET prompt_tokens = '[11,12,13]' WHERE id = 4" },
        { "same_prompts", "UPDATE generation SET prompt_tokens = '[11,12,13,99]' WHERE id = 2" },
        { "greedy_exact",
          "UPDATE generation SET tokens = '[11,12,13,14,15,16,17,18,19,20,21,99]' WHERE id = 2" },
        { "accepted_tokens",
          "UPDATE generation SET tokens = replace(tokens, '13', '99') WHERE id = 3" },
        { "accepted_tokens",
          "UPDATE draft_node SET token = 99 WHERE generation_id = 3 AND decision = 2"
          " AND step_no = 0 AND node_no = 2" },
        { "step_order",
          "UPDATE step SET context = context + 1 WHERE generation_id = 2 AND step_no = 2" },
        { "step_order", "UPDATE step SET step_no = 12 WHERE generation_id = 1 AND step_no = 10" },
        { "step_order", "DELETE FROM step WHERE generation_id = 1 AND step_no = 4" },
        { "token_counts", "DELETE FROM step WHERE generation_id = 1 AND step_no = 10" },
        { "step_tokens",
          "UPDATE step SET tokens = tokens - 1 WHERE generation_id = 2 AND step_no = 1" },
        { "step_tokens",
          "UPDATE step SET bonus = 1 - bonus WHERE generation_id = 2 AND step_no = 0" },
        { "decisions", "UPDATE step SET accepted = accepted + 1, decided = decided + 1"
                       " WHERE generation_id = 2 AND step_no = 1" },
        { "decisions", "UPDATE draft_node SET decision = 1 WHERE generation_id = 2 AND step_no = 0"
                       " AND node_no = 2" },
        { "decisions", "UPDATE draft_node SET decision = 2 WHERE generation_id = 3 AND step_no = 0"
                       " AND node_no = 1" },
        { "trees",
          "UPDATE step SET drafted = drafted + 1 WHERE generation_id = 2 AND step_no = 0" },
        { "trees",
          "UPDATE step SET auxiliary = auxiliary + 1 WHERE generation_id = 2 AND step_no = 0" },
        { "trees",
          "UPDATE draft_node SET rank = 2 WHERE generation_id = 3 AND step_no = 0 AND node_no = 2" },
        { "trees",
          "UPDATE draft_node SET depth = 3 WHERE generation_id = 3 AND step_no = 0 AND node_no = 4" },
        { "trees", "UPDATE draft_node SET auxiliary = 1 WHERE generation_id = 3 AND step_no = 0"
                   " AND node_no = 3" },
        { "trees",
          "DELETE FROM draft_node WHERE generation_id = 2 AND step_no = 1 AND node_no = 4" },
        { "trees", "DELETE FROM draft_node WHERE generation_id = 2 AND step_no = 1" },
        { "times",
          "UPDATE step SET verify_ns = verify_ns * 100 WHERE generation_id = 2 AND step_no = 0" },
        { "times", "UPDATE generation SET decode_ns = decode_ns / 2 WHERE id = 2" },
        { "times", "UPDATE generation SET wall_ns = prefill_ns WHERE id = 2" },
        { "experiments",
          "INSERT INTO experiment SELECT 99, 'other', name, spec_json, script, dataset, dataset_hash,"
          " chat_template, conversation, host_id, target_model_id, seed, repeats, max_new_tokens,"
          " temperature, top_p, top_k, ignore_eos, arithmetic, created_at, origin FROM experiment;"
          "UPDATE prompt SET experiment_id = 99 WHERE id = 1" },
        { "foreign_keys", "DELETE FROM host" },
        { "token_counts", "UPDATE generation SET status = 'error', error = 'x' WHERE id = 2" },
        { "equality", "UPDATE generation_sums SET tokens_key = 1 WHERE generation_id = 2" },
        { "positions",
          "DROP VIEW positions; CREATE VIEW positions AS SELECT 1 AS experiment_id, 2 AS arm_id,"
          " 1 AS position, 1 AS exposure, 1 AS accepted, 1.0 AS conditional, 1.0 AS survival,"
          " 1.0 AS marginal" },
        { "histogram",
          "DROP VIEW histogram; CREATE VIEW histogram AS SELECT 2 AS arm_id, 0 AS length,"
          " 8 AS accepted_steps, 8 AS drafted_steps, .2 AS accepted_share, 8 AS token_steps,"
          " .2 AS token_share" },
    };
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        edit("PRAGMA foreign_keys = OFF");
        edit("SAVEPOINT sound");
        edit(edits[i].sql);
        struct sb_verification v;
        struct sb_error err = { 0 };
        if (sb_verify(&v, store, &err) != SB_OK)
            fail_msg("%s: %s", edits[i].sql, err.message);
        if (check_of(&v, edits[i].check)->failed == 0)
            fail_msg("%s does not see: %s", edits[i].check, edits[i].sql);
        assert_true(strlen(check_of(&v, edits[i].check)->first) > 10);
        edit("ROLLBACK TO sound");
        edit("RELEASE sound");
    }
    assert_int_equal(verify().failed, 0);
}

/* Rows that came by SQL alone have no stored sums: the views add up their steps. */
static void views_do_not_trust_sums_of_edited_steps(void **state)
{
    (void)state;
    sqlite3_stmt *st;
    edit("UPDATE step SET tokens = tokens + 2, accepted = accepted + 2, decided = decided + 1"
         " WHERE generation_id = 2 AND step_no = 1");
    edit("DELETE FROM generation_sums WHERE generation_id = 5");
    sqlite3_prepare_v2(sb_store_handle(store),
                       "SELECT tokens FROM v_generation WHERE generation_id IN (2, 5)"
                       " ORDER BY generation_id",
                       -1, &st, NULL);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(st, 0), 13);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    assert_int_equal(sqlite3_column_int(st, 0), 11);
    sqlite3_finalize(st);
}

static void hostile_figures_are_failures_and_no_crash(void **state)
{
    (void)state;
    edit("UPDATE step SET verify_ns = 9223372036854775807 WHERE generation_id = 2");
    edit("UPDATE generation SET decode_ns = 9223372036854775807 WHERE id = 3");
    edit("UPDATE step SET drafted = 4000000000, depth = 4000000000 WHERE generation_id = 3");
    edit("UPDATE draft_node SET rank = 4000000000 WHERE generation_id = 2 AND step_no = 0");
    struct sb_verification v;
    struct sb_error err = { 0 };
    enum sb_status rc = sb_verify(&v, store, &err);
    assert_true(rc == SB_OK ? v.failed > 0 : strlen(err.message) > 10);
}

static void a_partial_run_and_unequal_prompts_are_named(void **state)
{
    (void)state;
    char notes[SB_NOTES_BYTES];
    assert_int_equal(sb_report_notes(notes, store, 0, NULL), SB_OK);
    assert_string_equal(notes, "");
    edit("DELETE FROM generation WHERE repeat = 1 AND prompt_id = 4");
    assert_int_equal(sb_report_notes(notes, store, 0, NULL), SB_OK);
    assert_string_equal(
        notes, ":memory:: experiment 1 is partial: 21 of 24 generations are done, 0 failed,"
               " 3 are missing; figures cover those done\n");
    edit("DELETE FROM generation WHERE arm_id = 2 AND prompt_id = 1");
    assert_int_equal(sb_report_notes(notes, store, 0, NULL), SB_OK);
    assert_non_null(strstr(notes, "19 of 24"));
    assert_non_null(strstr(notes,
                           "its arms have unequal prompts: 'none' has 7 generations, 'pld' 5, all"
                           " arms share 5;"));
    assert_int_equal(verify().failed, 0);
}

/* Answers of another tool come without token ids, contexts and trees, and count tokens in their own way. */
static void imported_answers_are_held_to_what_they_know(void **state)
{
    (void)state;
    edit("UPDATE experiment SET origin = 'import'; DELETE FROM draft_node;"
         "UPDATE generation SET tokens = '[]', prompt_tokens = '[]', n_tokens = n_tokens + 3;"
         "UPDATE step SET context = 0, bonus = 0; DELETE FROM generation_sums;"
         "INSERT INTO generation_sums SELECT *, NULL, 0 FROM v_sums_due");
    struct sb_verification v = verify();
    for (size_t i = 0; i < v.n; i++)
        if (v.check[i].failed)
            fail_msg("%s: %s", v.check[i].name, v.check[i].first);
    edit(
        "UPDATE step SET accepted = 0, decided = 1, tokens = 1 WHERE generation_id = 2 AND step_no = 0");
    assert_true(verify().failed > 0);
}

static void running_out_of_memory_is_an_error(void **state)
{
    (void)state;
    for (size_t n = 0;; n++) {
        struct sb_verification v;
        struct sb_error err = { 0 };
        sb_alloc_fail_after(n);
        enum sb_status rc = sb_verify(&v, store, &err);
        sb_alloc_fail_after(SIZE_MAX);
        if (rc == SB_OK)
            break;
        assert_int_equal(rc, SB_ENOMEM);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_sound_database_passes_every_check),
        TEST(every_edit_is_caught),
        TEST(views_do_not_trust_sums_of_edited_steps),
        TEST(hostile_figures_are_failures_and_no_crash),
        TEST(a_partial_run_and_unequal_prompts_are_named),
        TEST(imported_answers_are_held_to_what_they_know),
        TEST(running_out_of_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

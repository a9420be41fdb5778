#define _GNU_SOURCE
/* results/: the store on real files: identity, resume, atomicity, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "results/internal.h"

#define TEXT_OF(x)    TEXT_OF_(x)
#define TEXT_OF_(x)   #x
#define KNOWN_VERSION TEXT_OF(SB_SCHEMA_VERSION)

static char folder[64], path[96];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/sb-store-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/x.db", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[256];
    snprintf(command, sizeof command, "chmod -R u+w %s; rm -rf %s", folder, folder);
    return system(command);
}

static struct sb_store *open_store(const struct sb_store_options *options)
{
    struct sb_store *s = NULL;
    struct sb_error err = { 0 };
    if (sb_store_open(&s, path, options, &err) != SB_OK)
        fail_msg("%s", err.message);
    return s;
}

static int64_t number(struct sb_store *s, const char *sql)
{
    sqlite3_stmt *st;
    assert_int_equal(sqlite3_prepare_v2(sb_store_handle(s), sql, -1, &st, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(st), SQLITE_ROW);
    int64_t value = sqlite3_column_int64(st, 0);
    sqlite3_finalize(st);
    return value;
}

struct ids {
    int64_t host, model, experiment, arm, prompt;
};

static struct ids add_experiment(struct sb_store *s, const char *key)
{
    struct ids id;
    const struct sb_host_row host = {
        .hostname = "h", .cpu = "c", .threads = 2, .physical_cores = 2
    };
    const struct sb_model_row model = { .name = "tiny", .n_params = 10 };
    assert_int_equal(sb_store_host(s, &host, &id.host, NULL), SB_OK);
    assert_int_equal(sb_store_model(s, &model, &id.model, NULL), SB_OK);
    const struct sb_experiment_row experiment = { .name = "e",
                                                  .content_key = key,
                                                  .host_id = id.host,
                                                  .target_model_id = id.model,
                                                  .repeats = 1 };
    assert_int_equal(sb_store_experiment(s, &experiment, &id.experiment, NULL), SB_OK);
    const struct sb_arm_row arm = { .experiment_id = id.experiment,
                                    .label = "none",
                                    .drafter = "none",
                                    .guarantee = "greedy-exact",
                                    .is_baseline = true };
    assert_int_equal(sb_store_arm(s, &arm, &id.arm, NULL), SB_OK);
    const struct sb_prompt_row prompt = { .experiment_id = id.experiment,
                                          .question_id = 81,
                                          .task = "qa",
                                          .turn = 1,
                                          .n_turns = 1,
                                          .text = "who?" };
    assert_int_equal(sb_store_prompt(s, &prompt, &id.prompt, NULL), SB_OK);
    return id;
}

static const int32_t prompt_ids[] = { 1, 5, 70000 }, out_ids[] = { 9, 0, 2147483647, 3 };
static const struct sb_node_row chain[] = {
    { .depth = 1, .token = 9, .decision = 2 },
    { .parent = 1, .depth = 2, .token = 7, .decision = 1 }
};
static const struct sb_step_row two_steps[] = {
    { .step_no = 0,
      .context = 4,
      .drafted = 2,
      .depth = 2,
      .accepted = 1,
      .tokens = 2,
      .draft_ns = 1,
      .verify_ns = 2,
      .nodes = chain,
      .n_nodes = 2 },
    { .step_no = 1, .context = 6, .tokens = 1 },
};

static struct sb_generation_row sample(const struct ids *id)
{
    return (struct sb_generation_row){ .arm_id = id->arm,
                                       .prompt_id = id->prompt,
                                       .status = "ok",
                                       .finish = "length",
                                       .prompt_tokens = prompt_ids,
                                       .n_prompt_tokens = 3,
                                       .tokens = out_ids,
                                       .n_tokens = 4,
                                       .text = "x",
                                       .prefill_ns = 5,
                                       .decode_ns = 6,
                                       .wall_ns = 12,
                                       .steps = two_steps,
                                       .n_steps = 2 };
}

static void a_stored_generation_is_found_again_after_reopening(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_generation_row row = sample(&id);
    bool found = true;
    assert_int_equal(sb_store_find_generation(s, id.arm, id.prompt, 0, &found, NULL, NULL, NULL),
                     SB_OK);
    assert_false(found);
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    sb_store_close(s);

    s = open_store(&(struct sb_store_options){ .must_exist = true });
    struct ids again = add_experiment(s, "k1");
    assert_memory_equal(&id, &again, sizeof id); /* every row met its own */
    int32_t *tokens = NULL;
    size_t n = 0;
    assert_int_equal(sb_store_find_generation(s, id.arm, id.prompt, 0, &found, &tokens, &n, NULL),
                     SB_OK);
    assert_true(found);
    assert_int_equal(n, 4);
    assert_memory_equal(tokens, out_ids, sizeof out_ids);
    sb_free(tokens);
    int64_t done;
    char key[SB_KEY_BYTES];
    assert_int_equal(sb_store_newest_run(s, "k", key, &done, NULL), SB_OK);
    assert_string_equal(key, "k1");
    assert_int_equal(done, 1);
    assert_int_equal(sb_store_newest_run(s, "other", key, &done, NULL), SB_OK);
    assert_string_equal(key, "");
    assert_int_equal(done, 0);
    assert_int_equal(number(s, "SELECT count(*) FROM step"), 2);
    assert_int_equal(number(s, "SELECT count(*) FROM draft_node"), 2);
    assert_int_equal(number(s, "SELECT decided FROM step WHERE step_no = 0"), 2);
    sb_store_close(s);
}

static void different_content_gets_different_rows(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids a = add_experiment(s, "k1"), b = add_experiment(s, "k2");
    assert_int_equal(a.host, b.host);
    assert_int_not_equal(a.experiment, b.experiment);
    assert_int_not_equal(a.arm, b.arm);
    int64_t absent, empty;
    const struct sb_host_row one = { .hostname = "h", .cpu = NULL },
                             two = { .hostname = "h", .cpu = "" };
    assert_int_equal(sb_store_host(s, &one, &absent, NULL), SB_OK);
    assert_int_equal(sb_store_host(s, &two, &empty, NULL), SB_OK);
    assert_int_not_equal(absent, empty);
    sb_store_close(s);
}

static void an_arm_with_other_content_under_the_same_label_is_refused(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_error err;
    const struct sb_arm_row other = { .experiment_id = id.experiment,
                                      .label = "none",
                                      .drafter = "pld" };
    int64_t arm;
    assert_int_equal(sb_store_arm(s, &other, &arm, &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "store arm 0 'none'"));
    sb_store_close(s);
}

static void an_error_row_is_replaced_and_an_ok_row_is_not(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_generation_row row = sample(&id);
    row.status = "error";
    row.error = "cache is full";
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    bool found = true;
    assert_int_equal(sb_store_find_generation(s, id.arm, id.prompt, 0, &found, NULL, NULL, NULL),
                     SB_OK);
    assert_false(found);
    row = sample(&id);
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    assert_int_equal(number(s, "SELECT count(*) FROM generation"), 1);
    assert_int_equal(number(s, "SELECT count(*) FROM step"), 2);
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_EINTERNAL);
    assert_int_equal(number(s, "SELECT count(*) FROM generation WHERE status = 'ok'"), 1);
    sb_store_close(s);
}

static void a_failure_in_the_middle_leaves_nothing_behind(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_step_row bad[2] = { two_steps[0], two_steps[1] };
    bad[1].accepted = 3; /* more than was drafted */
    struct sb_generation_row row = sample(&id);
    row.steps = bad;
    struct sb_error err;
    assert_int_equal(sb_store_generation(s, &row, &err), SB_EINTERNAL);
    assert_non_null(strstr(err.message, "store a step"));
    assert_int_equal(number(s,
                            "SELECT (SELECT count(*) FROM generation) + (SELECT count(*) FROM step)"
                            " + (SELECT count(*) FROM draft_node)"),
                     0);
    row.steps = two_steps;
    assert_int_equal(sb_store_generation(s, &row, &err), SB_OK);
    sb_store_close(s);
}

static void a_killed_writer_loses_no_finished_generation(void **state)
{
    (void)state;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct sb_store *s = NULL;
        if (sb_store_open(&s, path, NULL, NULL) != SB_OK)
            _exit(1);
        struct ids id = add_experiment(s, "k1");
        struct sb_generation_row row = sample(&id);
        if (sb_store_generation(s, &row, NULL) != SB_OK)
            _exit(1);
        sqlite3_exec(sb_store_handle(s), "BEGIN IMMEDIATE; DELETE FROM step", NULL, NULL, NULL);
        raise(SIGKILL);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status));
    struct sb_store *s = open_store(&(struct sb_store_options){ .must_exist = true });
    assert_int_equal(number(s, "SELECT count(*) FROM step"), 2);
    assert_int_equal(
        number(s, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    sb_store_close(s);
}

static void a_second_reader_sees_what_is_committed_while_a_writer_is_open(void **state)
{
    (void)state;
    struct sb_store *writer = open_store(NULL);
    struct ids id = add_experiment(writer, "k1");
    struct sb_generation_row row = sample(&id);
    assert_int_equal(sb_store_generation(writer, &row, NULL), SB_OK);
    assert_int_equal(sqlite3_exec(sb_store_handle(writer),
                                  "BEGIN IMMEDIATE; DELETE FROM generation", NULL, NULL, NULL),
                     SQLITE_OK);
    pid_t child = fork();
    if (child == 0) { /* a process of its own, which inherits no connection it would use */
        struct sb_store *reader = NULL;
        if (sb_store_open(&reader, path, &(struct sb_store_options){ .read_only = true }, NULL) !=
            SB_OK)
            _exit(1);
        int64_t n = number(reader, "SELECT count(*) FROM generation");
        sb_store_close(reader);
        _exit(n == 1 ? 0 : 2);
    }
    int status;
    waitpid(child, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    sqlite3_exec(sb_store_handle(writer), "ROLLBACK", NULL, NULL, NULL);
    sb_store_close(writer);
}

/* Shards of one experiment may start at the same moment on a new file. */
static void processes_that_create_the_database_together_all_succeed(void **state)
{
    (void)state;
    enum { N = 6 };
    pid_t child[N];
    for (int i = 0; i < N; i++) {
        child[i] = fork();
        if (child[i] == 0) {
            struct sb_store *s = NULL;
            struct sb_error err = { 0 };
            if (sb_store_open(&s, path, NULL, &err) != SB_OK) {
                fprintf(stderr, "%s\n", err.message);
                _exit(1);
            }
            add_experiment(s, "k1");
            sb_store_close(s);
            _exit(0);
        }
    }
    int failed = 0, status;
    for (int i = 0; i < N; i++) {
        waitpid(child[i], &status, 0);
        failed += !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    assert_int_equal(failed, 0);
    struct sb_store *s = open_store(&(struct sb_store_options){ .must_exist = true });
    assert_int_equal(number(s, "SELECT count(*) FROM experiment"), 1);
    sb_store_close(s);
}

static void running_out_of_memory_is_an_error_and_leaves_nothing(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_generation_row row = sample(&id);
    for (size_t n = 0; n < 2; n++) {
        sb_alloc_fail_after(n);
        enum sb_status rc = sb_store_generation(s, &row, NULL);
        sb_alloc_fail_after(SIZE_MAX);
        assert_int_equal(rc, SB_ENOMEM);
    }
    assert_int_equal(number(s, "SELECT count(*) FROM generation"), 0);
    sb_store_close(s);
    s = NULL;
    sb_alloc_fail_after(0);
    enum sb_status rc = sb_store_open(&s, path, NULL, NULL);
    sb_alloc_fail_after(SIZE_MAX);
    assert_int_equal(rc, SB_ENOMEM);
    assert_null(s);
}

static void read_only_writes_nothing(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    sqlite3_exec(sb_store_handle(s), "DROP VIEW v_generation", NULL, NULL, NULL);
    sb_store_close(s);
    s = open_store(&(struct sb_store_options){ .read_only = true });
    assert_int_equal(number(s, "SELECT count(*) FROM v_generation"), 0); /* a temporary one */
    struct sb_generation_row row = sample(&id);
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_EINPUT);
    assert_int_equal(
        number(s, "SELECT count(*) FROM main.sqlite_schema WHERE name = 'v_generation'"), 0);
    sb_store_close(s);
    s = open_store(NULL); /* and writing brings the view back */
    assert_int_equal(
        number(s, "SELECT count(*) FROM main.sqlite_schema WHERE name = 'v_generation'"), 1);
    sb_store_close(s);
}

static void write_file(const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void expect_refusal(const struct sb_store_options *options, enum sb_status status,
                           const char *text)
{
    struct sb_store *s = NULL;
    struct sb_error err = { 0 };
    assert_int_equal(sb_store_open(&s, path, options, &err), status);
    assert_null(s);
    if (!strstr(err.message, text))
        fail_msg("'%s' lacks '%s'", err.message, text);
    assert_non_null(strstr(err.message, folder));
}

static void foreign_files_are_refused_and_left_alone(void **state)
{
    (void)state;
    static const char text[] = "this is a text file, longer than a header";
    write_file(text, sizeof text);
    expect_refusal(NULL, SB_EFORMAT, "not a results database");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, sizeof text);
    write_file("SQLite", 6);
    expect_refusal(NULL, SB_EFORMAT, "not a results database");

    unlink(path);
    sqlite3 *db;
    sqlite3_open(path, &db);
    sqlite3_exec(db, "CREATE TABLE photos (id INTEGER)", NULL, NULL, NULL);
    expect_refusal(NULL, SB_EFORMAT, "another application");
    sqlite3_exec(db, "PRAGMA application_id=7", NULL, NULL, NULL);
    expect_refusal(NULL, SB_EFORMAT, "application_id 7");
    sqlite3_close(db);
}

static void a_newer_database_is_refused(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    sqlite3_exec(sb_store_handle(s), "PRAGMA user_version=99", NULL, NULL, NULL);
    sb_store_close(s);
    expect_refusal(NULL, SB_EFORMAT,
                   "was written by a newer specbench (schema 99; this one knows " KNOWN_VERSION
                   ")");
}

static void missing_files_folders_and_directories_are_refused(void **state)
{
    (void)state;
    expect_refusal(&(struct sb_store_options){ .must_exist = true }, SB_EINPUT, "No such file");
    expect_refusal(&(struct sb_store_options){ .read_only = true }, SB_EINPUT, "No such file");
    assert_int_not_equal(access(path, F_OK), 0);
    write_file("", 0);
    expect_refusal(&(struct sb_store_options){ .must_exist = true }, SB_EFORMAT,
                   "holds no specbench results");
    snprintf(path, sizeof path, "%s", folder);
    expect_refusal(NULL, SB_EINPUT, "is a directory");
    snprintf(path, sizeof path, "%s/none/x.db", folder);
    expect_refusal(NULL, SB_EINPUT, "unable to open database file");
    struct sb_store *s = NULL;
    assert_int_equal(sb_store_open(&s, "", NULL, NULL), SB_EUSAGE);
}

static void a_folder_without_write_permission_is_refused_for_writing_only(void **state)
{
    (void)state;
    sb_store_close(open_store(NULL));
    chmod(path, 0444);
    chmod(folder, 0555);
    /* Root may write everywhere, so the test goes on as somebody else. */
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(seteuid(65534), 0);
    assert_int_not_equal(faccessat(AT_FDCWD, folder, W_OK, AT_EACCESS), 0);
    expect_refusal(NULL, SB_EINPUT, "cannot");
    sb_store_close(open_store(&(struct sb_store_options){ .read_only = true }));
    if (root)
        assert_int_equal(seteuid(0), 0);
}

/* Cut the file anywhere and damage it anywhere: an error or a working store, never a crash. */
static void damaged_databases_give_errors(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_generation_row row = sample(&id);
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    sb_store_close(s);
    static unsigned char bytes[1 << 20], copy[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    assert_true(n > 4096 && n < sizeof bytes);
    int refused = 0;
    for (size_t i = 0; i < 60; i++) {
        memcpy(copy, bytes, n);
        size_t keep = i % 3 == 0 ? n * i / 60 + 1 : n;
        if (i % 3 == 1)
            memset(copy + n * i / 60, 0xff, 64);
        if (i % 3 == 2)
            copy[16 + i * 7 % 84] ^= 0x5a; /* the header */
        write_file(copy, keep);
        struct sb_store *damaged = NULL;
        struct sb_error err = { 0 };
        bool found;
        int32_t *tokens = NULL;
        size_t n_tokens;
        enum sb_status rc = sb_store_open(&damaged, path, NULL, &err);
        if (rc == SB_OK && (rc = sb_store_find_generation(damaged, id.arm, id.prompt, 0, &found,
                                                          &tokens, &n_tokens, &err)) == SB_OK)
            sb_free(tokens);
        if (rc != SB_OK) {
            refused++;
            assert_int_not_equal(rc, SB_EINTERNAL);
            assert_int_not_equal(err.message[0], '\0');
        }
        sb_store_close(damaged);
    }
    assert_true(refused >= 20); /* every cut, at least */
}

static void hostile_token_lists_are_refused(void **state)
{
    (void)state;
    static const char *const lists[] = { "[1,2,3]",    "[1,2,3,4,5]",   "[1,2,3,99999999999]",
                                         "[1,2,3,-4]", "[1,2,3,\"4\"]", "[]",
                                         "[1, 2,3,4]", "[1,2,3,4]]" };
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_generation_row row = sample(&id);
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        char *sql = sqlite3_mprintf("UPDATE generation SET tokens = %Q", lists[i]);
        assert_int_equal(sqlite3_exec(sb_store_handle(s), sql, NULL, NULL, NULL), SQLITE_OK);
        sqlite3_free(sql);
        int32_t *tokens = NULL;
        size_t n;
        bool found;
        assert_int_equal(
            sb_store_find_generation(s, id.arm, id.prompt, 0, &found, &tokens, &n, NULL),
            SB_EFORMAT);
        assert_null(tokens);
    }
    sqlite3_exec(sb_store_handle(s), "UPDATE generation SET n_tokens = 1000000000000", NULL, NULL,
                 NULL);
    int32_t *tokens = NULL;
    size_t n;
    bool found;
    assert_int_equal(sb_store_find_generation(s, id.arm, id.prompt, 0, &found, &tokens, &n, NULL),
                     SB_EFORMAT);
    sb_store_close(s);
}

static void a_cost_row_is_replaced_by_a_newer_measurement(void **state)
{
    (void)state;
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_cost_row row = { .host_id = id.host,
                               .model_id = id.model,
                               .context = 128,
                               .rows = 4,
                               .median_ns = 10,
                               .c = 1.5,
                               .c_lo = 1.4,
                               .c_hi = 1.6 };
    assert_int_equal(sb_store_cost(s, &row, NULL), SB_OK);
    row.median_ns = 11;
    assert_int_equal(sb_store_cost(s, &row, NULL), SB_OK);
    assert_int_equal(number(s, "SELECT count(*) * 100 + sum(median_ns) FROM cost_curve"), 111);
    sb_store_close(s);
}

/* In a tree the deepest node may lie on a branch that was left: here depth 2 exists, but not below the
 * accepted node 2, so position 2 got no trial. */
static void positions_below_a_branch_that_was_left_are_not_decided(void **state)
{
    (void)state;
    static const struct sb_node_row tree[] = {
        { .depth = 1, .token = 1, .decision = 1 },
        { .depth = 1, .rank = 1, .token = 2, .decision = 2 },
        { .parent = 1, .depth = 2, .token = 3 },
        { .parent = 2, .depth = 2, .token = 4, .auxiliary = true }
    };
    struct sb_step_row step = { .drafted = 3,
                                .auxiliary = 1,
                                .depth = 2,
                                .accepted = 1,
                                .tokens = 2,
                                .nodes = tree,
                                .n_nodes = 4 };
    struct sb_store *s = open_store(NULL);
    struct ids id = add_experiment(s, "k1");
    struct sb_generation_row row = sample(&id);
    row.steps = &step;
    row.n_steps = 1;
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    assert_int_equal(number(s, "SELECT decided FROM step"), 1);
    step.n_nodes = 0; /* without nodes it is taken for a chain */
    row.repeat = 1;
    assert_int_equal(sb_store_generation(s, &row, NULL), SB_OK);
    assert_int_equal(number(s, "SELECT max(decided) FROM step"), 2);
    sb_store_close(s);
}

/* ---- schema.sql says what migrations make ---- */

/* Without comments, runs of blanks, and blanks before a comma or a closing bracket, where an added column
 * has them. */
static void squeeze(char *text)
{
    char *out = text;
    for (char *p = text; *p; p++) {
        if (p[0] == '-' && p[1] == '-') {
            p += strcspn(p, "\n");
            if (!*p)
                break;
        }
        if ((*p == ',' || *p == ')') && out > text && out[-1] == ' ')
            out--;
        if (!isspace((unsigned char)*p))
            *out++ = *p;
        else if (out > text && out[-1] != ' ')
            *out++ = ' ';
    }
    *out = '\0';
}

static char *schema_of(sqlite3 *db)
{
    sqlite3_stmt *st;
    char *all = sb_strdup("");
    assert_int_equal(sqlite3_prepare_v2(db,
                                        "SELECT sql FROM sqlite_schema WHERE type <> 'view'"
                                        " AND sql IS NOT NULL ORDER BY name",
                                        -1, &st, NULL),
                     SQLITE_OK);
    while (sqlite3_step(st) == SQLITE_ROW) {
        char *more = sb_strf("%s%s;\n", all, (const char *)sqlite3_column_text(st, 0));
        sb_free(all);
        all = more;
    }
    sqlite3_finalize(st);
    squeeze(all);
    return all;
}

static void the_schema_file_describes_what_the_migrations_build(void **state)
{
    (void)state;
    static char text[1 << 16];
    FILE *f = fopen(SB_SOURCE_DIR "/results/schema.sql", "rb");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    sqlite3 *db;
    sqlite3_open(":memory:", &db);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    struct sb_store *s = open_store(NULL);
    char *documented = schema_of(db), *built = schema_of(sb_store_handle(s));
    assert_string_equal(documented, built);
    sb_free(documented);
    sb_free(built);
    sqlite3_close(db);
    sb_store_close(s);
}

/* A database of the first release keeps its rows and gets the tables that came later. */
static void an_older_database_is_brought_up_to_date(void **state)
{
    (void)state;
    static char text[1 << 16];
    FILE *f = fopen(SB_SOURCE_DIR "/results/migrations/001_initial.sql", "rb");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = '\0';
    fclose(f);
    sqlite3 *db;
    sqlite3_open(path, &db);
    assert_int_equal(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db,
                                  "PRAGMA application_id=1399865957; PRAGMA user_version=1;"
                                  "INSERT INTO model (content_key, name, n_params, size_bytes)"
                                  " VALUES ('k', 'old', 1, 1);"
                                  "INSERT INTO host (content_key, threads, physical_cores,"
                                  " memory_bytes) VALUES ('h', 1, 1, 1);"
                                  "INSERT INTO cost_curve VALUES (1, 1, 128, 4, 100, 1.5, 1, 2)",
                                  NULL, NULL, NULL),
                     SQLITE_OK);
    sqlite3_close(db);
    struct sb_store *s = open_store(&(struct sb_store_options){ .read_only = true });
    assert_int_equal(number(s, "PRAGMA user_version"), SB_SCHEMA_VERSION); /* in memory */
    assert_int_equal(number(s, "SELECT count(*) FROM model WHERE name = 'old'"), 1);
    sb_store_close(s);
    sqlite3_open(path, &db);
    assert_int_equal(sqlite3_exec(db, "SELECT * FROM certificate", NULL, NULL, NULL), SQLITE_ERROR);
    sqlite3_close(db);
    s = open_store(NULL);
    assert_int_equal(number(s, "PRAGMA user_version"), SB_SCHEMA_VERSION);
    assert_int_equal(number(s, "SELECT count(*) FROM model WHERE name = 'old'"), 1);
    assert_int_equal(number(s, "SELECT count(*) FROM cost_curve WHERE arithmetic = 'exact'"), 1);
    assert_int_equal(number(s, "SELECT count(*) FROM certificate_check"), 0);
    sb_store_close(s);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_stored_generation_is_found_again_after_reopening),
        TEST(different_content_gets_different_rows),
        TEST(an_arm_with_other_content_under_the_same_label_is_refused),
        TEST(an_error_row_is_replaced_and_an_ok_row_is_not),
        TEST(a_failure_in_the_middle_leaves_nothing_behind),
        TEST(a_killed_writer_loses_no_finished_generation),
        TEST(a_second_reader_sees_what_is_committed_while_a_writer_is_open),
        TEST(processes_that_create_the_database_together_all_succeed),
        TEST(running_out_of_memory_is_an_error_and_leaves_nothing),
        TEST(read_only_writes_nothing),
        TEST(foreign_files_are_refused_and_left_alone),
        TEST(a_newer_database_is_refused),
        TEST(missing_files_folders_and_directories_are_refused),
        TEST(a_folder_without_write_permission_is_refused_for_writing_only),
        TEST(damaged_databases_give_errors),
        TEST(hostile_token_lists_are_refused),
        TEST(a_cost_row_is_replaced_by_a_newer_measurement),
        TEST(positions_below_a_branch_that_was_left_are_not_decided),
        TEST(the_schema_file_describes_what_the_migrations_build),
        TEST(an_older_database_is_brought_up_to_date),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

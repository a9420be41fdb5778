#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "datasets/dataset.h"
#include "harness/core/alloc.h"
#include "harness/core/paths.h"

static char folder[] = "/tmp/specbench-datasets-XXXXXX";
static char file[sizeof folder + 16]; /* one file, written anew by each test */

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(file, sizeof file, "%s/set.jsonl", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(file);
    return rmdir(folder);
}

static void write_bytes(const char *bytes, size_t size)
{
    FILE *f = fopen(file, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static enum sb_status open_text(struct sb_dataset *set, const char *reader, const char *text,
                                struct sb_error *err)
{
    char spec[sizeof file + 16];
    write_bytes(text, strlen(text));
    snprintf(spec, sizeof spec, "%s%s%s", reader, *reader ? ":" : "", file);
    return sb_dataset_open(set, spec, err);
}

/* The file is refused with SB_EFORMAT and "FILE: wanted"; the output stays as it was. */
static void assert_refused(const char *reader, const char *text, const char *wanted)
{
    struct sb_dataset set = { .n = 77 };
    struct sb_error err;
    char message[sizeof err.message];
    snprintf(message, sizeof message, "%s: %s", file, wanted);
    assert_int_equal(open_text(&set, reader, text, &err), SB_EFORMAT);
    assert_string_equal(err.message, message);
    assert_int_equal(set.n, 77);
    assert_null(set.items);
}

#define Q(id, rest) "{\"question_id\": " id ", " rest "}\n"
#define GOOD        Q("1", "\"category\": \"qa\", \"turns\": [\"a\"]")

static void a_malformed_question_is_refused_with_line_field_found_and_expected(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        { GOOD "\n" GOOD,
          "line 3: question_id: found 1, which line 1 has already, expected each once" },
        { GOOD "{\"category\": \"qa\", \"turns\": [\"a\"]}",
          "line 2: question_id: found nothing, expected a whole number" },
        { Q("\"7\"", "\"category\": \"qa\", \"turns\": [\"a\"]"),
          "line 1: question_id: found text, expected a whole number" },
        { Q("1.5", "\"category\": \"qa\", \"turns\": [\"a\"]"),
          "line 1: question_id: found a number with a fraction, expected a whole number" },
        { Q("1", "\"turns\": [\"a\"]"), "line 1: category: found nothing, expected text" },
        { Q("1", "\"category\": null, \"turns\": [\"a\"]"),
          "line 1: category: found null, expected text" },
        { Q("1", "\"category\": \"\", \"turns\": [\"a\"]"),
          "line 1: category: found empty text, expected text" },
        { Q("1", "\"category\": \"qa\""),
          "line 1: turns: found nothing, expected a list of one text or more" },
        { Q("1", "\"category\": \"qa\", \"turns\": []"),
          "line 1: turns: found an empty list, expected a list of one text or more" },
        { Q("1", "\"category\": \"qa\", \"turns\": \"a\""),
          "line 1: turns: found text, expected a list of one text or more" },
        { Q("1", "\"category\": \"qa\", \"turns\": [\"a\", 2]"),
          "line 1: turns[1]: found a whole number, expected text" },
        { Q("1", "\"category\": \"qa\", \"turns\": [\"\"]"),
          "line 1: turns[0]: found empty text, expected text" },
        { "[1, 2]\n", "line 1: found a list, expected an object" },
        { "true\n", "line 1: found true or false, expected an object" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused("spec-bench", cases[i].text, cases[i].message);
}

static void a_malformed_prompt_is_refused_with_line_field_found_and_expected(void **state)
{
    (void)state;
#define M(list) "{\"messages\": [" list "]}"
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "\"a\"\n7", "line 2: found a whole number, expected text or an object" },
        { "\"\"", "line 1: prompt: found empty text, expected text" },
        { "{\"prompt\": [\"a\"]}", "line 1: prompt: found a list, expected text" },
        { "{\"text\": \"a\"}", "line 1: found an object without prompt, turns or messages" },
        { "{\"prompt\": null}", "line 1: found an object without prompt, turns or messages" },
        { "{\"turns\": []}",
          "line 1: turns: found an empty list, expected a list of one text or more" },
        { "{\"prompt\": \"a\", \"id\": 1}\n{\"prompt\": \"a\", \"question_id\": 1}",
          "line 2: question_id: found 1, which line 1 has already, expected each once" },
        { "{\"prompt\": \"a\", \"id\": 2.5}",
          "line 1: id: found a number with a fraction, expected a whole number or text" },
        { "{\"prompt\": \"a\", \"task\": 3}", "line 1: task: found a whole number, expected text" },
        { "{\"prompt\": \"a\", \"category\": {}}",
          "line 1: category: found an object, expected text" },
        { M(""), "line 1: messages: found an empty list, expected a list of {role, content}" },
        { M("\"a\""), "line 1: messages[0]: found text, expected an object" },
        { M("{\"content\": \"a\"}"), "line 1: messages[0].role: found nothing, expected text" },
        { M("{\"role\": \"tool\", \"content\": \"a\"}"),
          "line 1: messages[0].role: found 'tool', expected user, assistant or system" },
        { M("{\"role\": \"user\", \"content\": [\"a\"]}"),
          "line 1: messages[0].content: found a list, expected text" },
        { M("{\"role\": \"assistant\", \"content\": \"a\"}"),
          "line 1: messages: found none with role user, expected one" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused("jsonl", cases[i].text, cases[i].message);
}

static void text_that_is_not_json_is_refused_at_its_byte(void **state)
{
    (void)state;
    static const char *const readers[] = { "spec-bench", "jsonl" };
    for (size_t i = 0; i < 2; i++) {
        assert_refused(readers[i], "\r\n\"caf\xe9 noir\"",
                       "line 2: byte 5 is 0xe9, expected UTF-8");
        assert_refused(readers[i], "\xff\xfe{", "line 1: byte 1 is 0xff, expected UTF-8");
        assert_refused(readers[i], "\n \t\r\n", "found no prompts, expected one a line");
        assert_refused(readers[i], "", "found an empty file, expected prompts");
        struct sb_dataset set;
        struct sb_error err;
        assert_int_equal(open_text(&set, readers[i], "\n{\"question_id\": 1,", &err), SB_EFORMAT);
        assert_non_null(strstr(err.message, ": line 2: byte 18: ")); /* the reason is Jansson's */
        assert_non_null(strstr(err.message, ", expected one JSON value"));
        assert_int_equal(
            open_text(&set, readers[i], "{\"prompt\": \"a\", \"prompt\": \"b\"}", &err),
            SB_EFORMAT);
        assert_non_null(strstr(err.message, "duplicate object key"));
        assert_int_equal(open_text(&set, readers[i], "{\"prompt\": \"a\\u0000b\"}", &err),
                         SB_EFORMAT);
        assert_int_equal(open_text(&set, readers[i], "\"a\" \"b\"", &err), SB_EFORMAT);
    }
}

static void a_line_of_more_than_sixteen_mebibytes_is_refused(void **state)
{
    (void)state;
    const size_t limit = 16u << 20, size = limit + 2;
    char *text = malloc(size);
    assert_non_null(text);
    memset(text, 'x', size);
    text[0] = text[limit - 1] = '"';
    text[limit] = '\n';
    struct sb_dataset set;
    struct sb_error err;
    write_bytes(text, limit + 1);
    assert_int_equal(sb_dataset_open(&set, file, &err), SB_OK);
    assert_int_equal(strlen(set.items[0].turns[0]), limit - 2);
    sb_dataset_finish(&set);
    text[limit - 1] = 'x';
    text[limit] = '"';
    text[limit + 1] = '\n';
    write_bytes(text, size);
    free(text);
    assert_int_equal(sb_dataset_open(&set, file, &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "line 1: 16777217 bytes long, expected at most 16777216"));
}

static void what_cannot_be_read_is_refused_with_the_reason(void **state)
{
    (void)state;
    struct sb_dataset set = { .n = 77 };
    struct sb_error err;
    char spec[sizeof file + 32];
    assert_int_equal(sb_dataset_open(&set, folder, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, ": found a directory, expected a file"));
    snprintf(spec, sizeof spec, "jsonl:%s", folder);
    assert_int_equal(sb_dataset_open(&set, spec, &err), SB_EINPUT);
    snprintf(spec, sizeof spec, "spec-bench:%s/absent.jsonl", folder);
    assert_int_equal(sb_dataset_open(&set, spec, &err), SB_EINPUT);
    assert_non_null(strstr(err.message, "/absent.jsonl: No such file"));
    assert_int_equal(sb_dataset_open(&set, strchr(spec, '/'), &err), SB_EINPUT);
    assert_int_equal(sb_dataset_open(&set, "/dev/null", &err), SB_EINPUT);
    assert_string_equal(err.message, "/dev/null: found a device or a pipe, expected a file");
    assert_int_equal(set.n, 77);
}

static void a_wrong_name_is_refused_with_the_right_ones(void **state)
{
    (void)state;
    static const struct {
        const char *spec, *message;
    } cases[] = {
        { "minni", "no dataset or file 'minni'; there are: mini, spec-bench:FILE, jsonl:FILE, or "
                   "a file" },
        { "csv:a", "no dataset or file 'csv:a'; there are: mini, spec-bench:FILE, jsonl:FILE, or "
                   "a file" },
        { "", "no dataset or file ''; there are: mini, spec-bench:FILE, jsonl:FILE, or a file" },
        { "spec-bench", "dataset spec-bench needs a file: spec-bench:FILE" },
        { "jsonl:", "dataset jsonl needs a file: jsonl:FILE" },
        { "mini:a", "dataset mini is bundled and takes no file, found 'mini:a'" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_dataset set;
        struct sb_error err;
        assert_int_equal(sb_dataset_open(&set, cases[i].spec, &err), SB_EUSAGE);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void questions_are_read_with_extra_keys_marks_and_crlf(void **state)
{
    (void)state;
    struct sb_dataset set;
    struct sb_error err;
    assert_int_equal(
        open_text(
            &set, "", /* recognised by content */
            "\xef\xbb\xbf\r\n" Q(
                "-5",
                "\"category\": \"stem\", \"turns\": [\"a\", \"b\", "
                "\"c\"], \"reference\": [[1]], \"x\": {}") "\r\n" Q("9",
                                                                    "\"category\": \"law\", \"turns\": [\"Gr\xc3\xbc\xc3\x9f \\u00fc\"]"),
            &err),
        SB_OK);
    assert_string_equal(set.name, "spec-bench");
    assert_string_equal(set.source, file);
    assert_int_equal(set.n, 2);
    assert_int_equal(set.items[0].question_id, -5);
    assert_string_equal(set.items[0].category, "stem");
    assert_string_equal(set.items[0].task, "conversation");
    assert_int_equal(set.items[0].n_turns, 3);
    assert_string_equal(set.items[0].turns[2], "c");
    assert_string_equal(set.items[1].task, "law");
    assert_string_equal(set.items[1].turns[0], "Gr\xc3\xbc\xc3\x9f \xc3\xbc");
    sb_dataset_finish(&set);
}

static void eight_categories_are_one_conversation_task(void **state)
{
    (void)state;
    static const char *const categories[] = { "writing", "roleplay",   "reasoning", "math",
                                              "coding",  "extraction", "stem",      "humanities" };
    for (size_t i = 0; i < 8; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"prompt\": \"a\", \"category\": \"%s\"}", categories[i]);
        struct sb_dataset set;
        assert_int_equal(open_text(&set, "jsonl", text, NULL), SB_OK);
        assert_string_equal(set.items[0].category, categories[i]);
        assert_string_equal(set.items[0].task, "conversation");
        sb_dataset_finish(&set);
    }
}

static void plain_prompts_are_read_in_each_of_their_forms(void **state)
{
    (void)state;
    static const char text[] =
        "\"bare\"\n"
        "\n"
        "{\"prompt\": \"p\", \"id\": 70, \"task\": \"t\", \"category\": \"c\", \"extra\": 1}\n"
        "{\"turns\": [\"one\", \"two\"], \"prompt\": \"p\", \"id\": \"HE/4\", \"task\": \"qa\"}\n"
        "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"},"
        " {\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": null},"
        " {\"role\": \"user\", \"content\": \"Bye\"}], \"category\": \"rag\", \"id\": null}\n";
    struct sb_dataset set;
    struct sb_error err;
    assert_int_equal(open_text(&set, "", text, &err), SB_OK);
    assert_string_equal(set.name, "jsonl");
    const struct sb_item wanted[] = {
        { 1, (char *)"prompts", (char *)"prompts", (char *[]){ (char *)"bare" }, 1 },
        { 70, (char *)"c", (char *)"t", (char *[]){ (char *)"p" }, 1 },
        { 4, (char *)"qa", (char *)"qa", (char *[]){ (char *)"one", (char *)"two" }, 2 },
        { 5, (char *)"rag", (char *)"rag", (char *[]){ (char *)"Be brief.\n\nHi", (char *)"Bye" },
          2 },
    };
    assert_int_equal(set.n, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(set.items[i].question_id, wanted[i].question_id);
        assert_string_equal(set.items[i].category, wanted[i].category);
        assert_string_equal(set.items[i].task, wanted[i].task);
        assert_int_equal(set.items[i].n_turns, wanted[i].n_turns);
        for (size_t t = 0; t < wanted[i].n_turns; t++)
            assert_string_equal(set.items[i].turns[t], wanted[i].turns[t]);
    }
    sb_dataset_finish(&set);
}

/* Golden: worked out by a few lines of Python from the published algorithm, not by the library. */
static void the_hash_is_xxh64_of_every_byte_of_the_file(void **state)
{
    (void)state;
    static const struct {
        const char *text, *hash;
    } cases[] = { { "\"a\"", "5271bc5453102389" }, { "\"a\"\n", "4e23b46c3cbf75ec" } };
    for (size_t i = 0; i < 2; i++) {
        struct sb_dataset set;
        assert_int_equal(open_text(&set, "", cases[i].text, NULL), SB_OK);
        assert_string_equal(set.hash, cases[i].hash);
        sb_dataset_finish(&set);
    }
}

static size_t count_task(const struct sb_dataset *set, const char *task)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++)
        n += strcmp(set->items[i].task, task) == 0;
    return n;
}

static const char *const tasks[] = { "conversation", "translation",    "summarization",
                                     "qa",           "math_reasoning", "rag" };

static void mini_has_twelve_questions_for_each_of_the_six_tasks(void **state)
{
    (void)state;
    struct sb_dataset set;
    struct sb_error err;
    assert_int_equal(sb_dataset_open(&set, "mini", &err), SB_OK);
    assert_string_equal(set.source, "mini");
    assert_int_equal(set.n, 72);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(count_task(&set, tasks[i]), 12);
    for (size_t i = 0; i < set.n; i++) {
        const struct sb_item *item = &set.items[i];
        bool conversation = strcmp(item->task, "conversation") == 0;
        assert_int_equal(item->question_id, (int64_t)i + 1);
        assert_int_equal(item->n_turns, conversation ? 2 : 1);
        if (strcmp(item->task, "translation") == 0)
            assert_int_equal(strncmp(item->turns[0], "Translate German to English: ", 29), 0);
        if (strcmp(item->task, "summarization") == 0)
            assert_int_equal(strncmp(item->turns[0], "Summarize: ", 11), 0);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(item->turns[0], set.items[j].turns[0]);
    }
    sb_dataset_finish(&set);
}

static void a_rag_question_of_mini_follows_three_to_five_passages(void **state)
{
    (void)state;
    struct sb_dataset set;
    assert_int_equal(sb_dataset_open(&set, "mini", NULL), SB_OK);
    assert_int_equal(sb_dataset_select(&set, "rag", 0, NULL), SB_OK);
    for (size_t i = 0; i < set.n; i++) {
        size_t passages = 0;
        for (const char *c = set.items[i].turns[0]; *c; c++)
            passages += *c == '\n';
        assert_in_range(passages, 3, 5);
    }
    sb_dataset_finish(&set);
}

static void take_keeps_the_first_of_each_task_in_file_order(void **state)
{
    (void)state;
    struct sb_dataset set;
    assert_int_equal(sb_dataset_open(&set, "mini", NULL), SB_OK);
    assert_int_equal(sb_dataset_select(&set, NULL, 2, NULL), SB_OK);
    assert_int_equal(set.n, 12);
    for (size_t i = 0; i < set.n; i++) {
        assert_string_equal(set.items[i].task, tasks[i / 2]);
        assert_int_equal(set.items[i].question_id, (int64_t)(12 * (i / 2) + i % 2 + 1));
    }
    assert_int_equal(sb_dataset_select(&set, " rag,qa , rag", 0, NULL), SB_OK);
    assert_int_equal(set.n, 4);
    assert_string_equal(set.items[0].task, "qa"); /* as in the file, not as in the list */
    assert_string_equal(set.items[3].task, "rag");
    assert_int_equal(sb_dataset_select(&set, "qa", 1000, NULL), SB_OK);
    assert_int_equal(set.n, 2);
    sb_dataset_finish(&set);
}

static void take_counts_within_a_task_when_tasks_alternate(void **state)
{
    (void)state;
    struct sb_dataset set;
    assert_int_equal(open_text(&set, "jsonl",
                               "{\"prompt\": \"1\", \"task\": \"b\"}\n"
                               "{\"prompt\": \"2\", \"task\": \"a\"}\n"
                               "{\"prompt\": \"3\", \"task\": \"b\"}\n"
                               "{\"prompt\": \"4\", \"task\": \"a\"}\n"
                               "{\"prompt\": \"5\", \"task\": \"b\"}\n",
                               NULL),
                     SB_OK);
    assert_int_equal(sb_dataset_select(&set, NULL, 2, NULL), SB_OK);
    assert_int_equal(set.n, 4);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(set.items[i].turns[0][0], "1234"[i]);
    sb_dataset_finish(&set);
}

static void a_task_that_is_not_there_is_refused_with_those_that_are(void **state)
{
    (void)state;
    struct sb_dataset set;
    struct sb_error err;
    assert_int_equal(sb_dataset_open(&set, "mini", NULL), SB_OK);
    static const char *const wrong[] = { "maths", "qa,maths", "qa, , maths" };
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(sb_dataset_select(&set, wrong[i], 1, &err), SB_EUSAGE);
        assert_non_null(strstr(err.message, "; it has: conversation, translation, summarization, "
                                            "qa, math_reasoning, rag"));
        assert_int_equal(set.n, 72);
    }
    assert_int_equal(sb_dataset_select(&set, "", 1, &err), SB_EUSAGE);
    assert_int_equal(sb_dataset_select(&set, "math", 1, &err), SB_EUSAGE);
    assert_non_null(strstr(err.message, "dataset mini has no task 'math'; it has: "));
    sb_dataset_finish(&set);
}

static void running_out_of_memory_is_reported_and_leaks_nothing(void **state)
{
    (void)state;
    static const char text[] = GOOD "{\"question_id\": 2, \"category\": \"stem\", \"turns\": "
                                    "[\"a\", \"b\"]}";
    static const char *const readers[] = { "spec-bench", "jsonl" };
    for (size_t r = 0; r < 2; r++) {
        enum sb_status rc = SB_ENOMEM;
        size_t n = 0;
        for (; rc != SB_OK; n++) {
            struct sb_dataset set = { .n = 77 };
            struct sb_error err;
            assert_true(n < 100);
            sb_alloc_fail_after(n);
            rc = sb_dataset_parse(&set, sb_reader_find(readers[r]), "x", text, strlen(text), &err);
            if (rc == SB_OK)
                rc = sb_dataset_select(&set, "qa", 1, &err);
            sb_alloc_fail_after(SIZE_MAX);
            assert_true(rc == SB_OK || rc == SB_ENOMEM);
            if (set.items)
                sb_dataset_finish(&set);
        }
        assert_true(n > 10); /* it did fail on the way */
    }
}

/* For a checkout that has the real file beside it; it is not part of the repository. */
static void the_real_spec_bench_file_has_six_tasks_of_eighty(void **state)
{
    (void)state;
    char *path = sb_data_path("../shared/data/spec_bench/question.jsonl");
    assert_non_null(path);
    if (!sb_is_file(path)) {
        print_message("# not tested: no Spec-Bench question.jsonl beside the source tree\n");
        sb_free(path);
        return; /* cmocka 1.1's skip() reads as a failure in TAP */
    }
    struct sb_dataset set;
    struct sb_error err;
    assert_int_equal(sb_dataset_open(&set, path, &err), SB_OK);
    sb_free(path);
    assert_string_equal(set.name, "spec-bench");
    assert_int_equal(set.n, 480);
    for (size_t i = 0; i < 6; i++)
        assert_int_equal(count_task(&set, tasks[i]), 80);
    for (size_t i = 0; i < set.n; i++) {
        assert_int_equal(set.items[i].question_id, (int64_t)i + 81);
        assert_int_equal(set.items[i].n_turns, i < 80 ? 2 : 1);
    }
    sb_dataset_finish(&set);
}

static void prompts_bring_documents_of_their_own(void **state)
{
    (void)state;
    struct sb_dataset set;
    assert_int_equal(open_text(&set, "jsonl",
                               "{\"prompt\": \"a\", \"documents\": [\"one\", \"\", \"two\"]}\n"
                               "{\"prompt\": \"b\", \"context\": \"three\"}\n"
                               "{\"prompt\": \"c\", \"context\": \"\"}\n\"d\"\n",
                               NULL),
                     SB_OK);
    assert_int_equal(set.items[0].n_documents, 2);
    assert_string_equal(set.items[0].documents[1], "two");
    assert_int_equal(set.items[1].n_documents, 1);
    assert_string_equal(set.items[1].documents[0], "three");
    assert_int_equal(set.items[2].n_documents + set.items[3].n_documents, 0);
    sb_dataset_finish(&set);
    assert_refused("jsonl", "{\"prompt\": \"a\", \"documents\": 3}",
                   "line 1: documents: found a whole number, expected a list of texts, or one");
    assert_refused("jsonl", "{\"prompt\": \"a\", \"documents\": [3]}",
                   "line 1: documents[0]: found a whole number, expected text");
}

int main(void)
{
    const struct CMUnitTest tests_here[] = {
        cmocka_unit_test(prompts_bring_documents_of_their_own),
        cmocka_unit_test(a_malformed_question_is_refused_with_line_field_found_and_expected),
        cmocka_unit_test(a_malformed_prompt_is_refused_with_line_field_found_and_expected),
        cmocka_unit_test(text_that_is_not_json_is_refused_at_its_byte),
        cmocka_unit_test(a_line_of_more_than_sixteen_mebibytes_is_refused),
        cmocka_unit_test(what_cannot_be_read_is_refused_with_the_reason),
        cmocka_unit_test(a_wrong_name_is_refused_with_the_right_ones),
        cmocka_unit_test(questions_are_read_with_extra_keys_marks_and_crlf),
        cmocka_unit_test(eight_categories_are_one_conversation_task),
        cmocka_unit_test(plain_prompts_are_read_in_each_of_their_forms),
        cmocka_unit_test(the_hash_is_xxh64_of_every_byte_of_the_file),
        cmocka_unit_test(mini_has_twelve_questions_for_each_of_the_six_tasks),
        cmocka_unit_test(a_rag_question_of_mini_follows_three_to_five_passages),
        cmocka_unit_test(take_keeps_the_first_of_each_task_in_file_order),
        cmocka_unit_test(take_counts_within_a_task_when_tasks_alternate),
        cmocka_unit_test(a_task_that_is_not_there_is_refused_with_those_that_are),
        cmocka_unit_test(running_out_of_memory_is_reported_and_leaks_nothing),
        cmocka_unit_test(the_real_spec_bench_file_has_six_tasks_of_eighty),
    };
    return cmocka_run_group_tests(tests_here, make_folder, remove_folder);
}

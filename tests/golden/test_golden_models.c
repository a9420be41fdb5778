/* Every model in tests/golden/models, as GGUF and as HF directory, against what an independent engine
 * computed: log-sum-exp and the five largest logits of each row, and a greedy continuation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "harness/core/paths.h"
#include "harness/model/model.h"

static const double tolerance = 2e-3;

static char folder[4096];

static json_t *read_golden(const char *file)
{
    char path[8192];
    json_error_t why;
    snprintf(path, sizeof path, "%s/%s", folder, file);
    json_t *root = json_load_file(path, 0, &why);
    if (!root)
        fail_msg("%s: %s", path, why.text);
    return root;
}

static sb_token token_at(const json_t *list, size_t i)
{
    return (sb_token)json_integer_value(json_array_get(list, i));
}

static void compare_row(const float *logits, size_t n_vocab, const json_t *want, const char *what)
{
    double lse = (double)sb_logsumexp(logits, n_vocab);
    double wanted = json_number_value(json_object_get(want, "lse"));
    if (!(fabs(lse - wanted) <= tolerance))
        fail_msg("%s: log-sum-exp %.6f, golden %.6f", what, lse, wanted);
    const json_t *top = json_object_get(want, "top");
    assert_true(json_array_size(top) > 0);
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *pair = json_array_get(top, i);
        size_t id = (size_t)token_at(pair, 0);
        double logit = json_number_value(json_array_get(pair, 1));
        assert_true(id < n_vocab);
        if (!(fabs((double)logits[id] - logit) <= tolerance))
            fail_msg("%s: logit of %zu is %.6f, golden %.6f", what, id, (double)logits[id], logit);
        size_t above = 0; /* its place among all logits, near ties aside */
        for (size_t k = 0; k < n_vocab; k++)
            above += (double)logits[k] > logit + 2 * tolerance;
        assert_true(above <= i);
    }
}

static void check_case(struct sb_model *model, const json_t *c, const char *name)
{
    const json_t *tokens = json_object_get(c, "tokens"), *rows = json_object_get(c, "rows");
    const json_t *greedy = json_object_get(c, "greedy");
    size_t n = json_array_size(tokens), n_vocab = sb_model_config(model)->n_vocab;
    size_t n_greedy = json_array_size(greedy);
    struct sb_error err;
    struct sb_seq *seq;
    struct sb_row row[512];
    int32_t path[512];
    assert_in_range(n, 1, 512);
    if (sb_seq_create(&seq, model, n + n_greedy, n, &err) != SB_OK)
        fail_msg("%s: %s", name, err.message);
    for (size_t i = 0; i < n; i++) {
        row[i] = (struct sb_row){ .token = token_at(tokens, i),
                                  .parent = (int32_t)i - 1,
                                  .want_logits = true };
        path[i] = (int32_t)i;
    }
    assert_int_equal(sb_forward(seq, row, n, NULL, &err), SB_OK);
    size_t n_rows = json_array_size(rows); /* of the last positions */
    assert_in_range(n_rows, 1, n);
    for (size_t i = 0; i < n_rows; i++) {
        char what[300];
        size_t at = n - n_rows + i;
        snprintf(what, sizeof what, "%s, %zu tokens, row %zu", name, n, at);
        compare_row(sb_seq_logits(seq, at), n_vocab, json_array_get(rows, i), what);
    }
    assert_int_equal(sb_seq_commit(seq, path, n, &err), SB_OK);
    size_t last = n - 1;
    for (size_t i = 0; i < n_greedy; i++) {
        sb_token next = (sb_token)sb_argmax(sb_seq_logits(seq, last), n_vocab);
        if (next != token_at(greedy, i))
            fail_msg("%s: greedy token %zu is %d, golden %d", name, i, next, token_at(greedy, i));
        struct sb_row one = { .token = next, .parent = SB_PARENT_PREFIX, .want_logits = true };
        assert_int_equal(sb_forward(seq, &one, 1, NULL, &err), SB_OK);
        assert_int_equal(sb_seq_commit(seq, path, 1, &err), SB_OK);
        last = 0;
    }
    sb_seq_destroy(seq);
}

static void check_model(const char *path, const json_t *golden)
{
    struct sb_error err;
    struct sb_model *model;
    if (sb_model_load(&model, path, &err) != SB_OK)
        fail_msg("%s", err.message);
    const json_t *cases = json_object_get(golden, "cases");
    assert_true(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++)
        check_case(model, json_array_get(cases, i), path);
    sb_model_destroy(model);
}

static void every_golden_model_gives_its_recorded_figures(void **state)
{
    (void)state;
    static const char suffix[] = ".golden.json";
    DIR *dir = opendir(folder);
    int n_gguf = 0, n_hf = 0;
    assert_non_null(dir);
    for (struct dirent *e; (e = readdir(dir));) {
        size_t n = strlen(e->d_name);
        char path[8192];
        if (n < sizeof suffix || strcmp(e->d_name + n - (sizeof suffix - 1), suffix) != 0)
            continue;
        int stem = (int)(n - (sizeof suffix - 1));
        json_t *golden = read_golden(e->d_name);
        snprintf(path, sizeof path, "%s/%.*s.gguf", folder, stem, e->d_name);
        check_model(path, golden);
        n_gguf++;
        snprintf(path, sizeof path, "%s/%.*s-hf", folder, stem, e->d_name);
        if (sb_is_dir(path)) {
            check_model(path, golden);
            n_hf++;
        }
        json_decref(golden);
    }
    closedir(dir);
    print_message("# %d GGUF files and %d HF directories\n", n_gguf, n_hf);
    assert_true(n_gguf >= 8 && n_hf >= 6);
}

int main(void)
{
    snprintf(folder, sizeof folder, "%s/golden/models", getenv("SB_TEST_DIR"));
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_golden_model_gives_its_recorded_figures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

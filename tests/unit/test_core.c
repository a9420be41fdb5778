/* core/: errors, memory, randomness, declared parameters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/error.h"
#include "harness/core/param.h"
#include "harness/core/rng.h"
#include "harness/core/threads.h"

static void a_message_is_one_printable_line(void **state)
{
    (void)state;
    struct sb_error err;
    assert_int_equal(sb_fail(&err, SB_EFORMAT, "tensor '%s'", "a\nb\x1b[2J"), SB_EFORMAT);
    assert_string_equal(err.message, "tensor 'a?b?[2J'");
    char longer[2000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    sb_fail(&err, SB_EFORMAT, "%s", longer);
    assert_int_equal(strlen(err.message), sizeof err.message - 1);
    assert_string_equal(err.message + sizeof err.message - 4, "...");
    sb_fail(&err, SB_EFORMAT, "short");
    sb_fail_context(&err, SB_EFORMAT, "load %s", "tiny.gguf");
    assert_string_equal(err.message, "load tiny.gguf: short");
}

static void exit_codes_follow_the_status(void **state)
{
    (void)state;
    assert_int_equal(sb_exit_code(SB_OK), 0);
    assert_int_equal(sb_exit_code(SB_EIO), 1);
    assert_int_equal(sb_exit_code(SB_EFORMAT), 2);
    assert_int_equal(sb_exit_code(SB_EGATE), 3);
    assert_int_equal(sb_exit_code(SB_EINTERRUPTED), 130);
}

static void allocation_refuses_overflow_and_fails_on_demand(void **state)
{
    (void)state;
    assert_null(sb_alloc_array(SIZE_MAX / 2, 3));
    sb_alloc_fail_after(1);
    void *p = sb_alloc(10), *q = sb_alloc(10);
    sb_alloc_fail_after(SIZE_MAX);
    assert_non_null(p);
    assert_null(q);
    sb_free(p);
}

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). */
static void philox_gives_the_published_answers(void **state)
{
    (void)state;
    uint32_t out[4];
    const uint32_t zero[4] = { 0 }, ones[4] = { ~0u, ~0u, ~0u, ~0u };
    const uint32_t of_zero[4] = { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 };
    const uint32_t of_ones[4] = { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd };
    sb_philox4x32_10(out, zero, zero);
    assert_memory_equal(out, of_zero, sizeof out);
    sb_philox4x32_10(out, ones, ones);
    assert_memory_equal(out, of_ones, sizeof out);
}

static void streams_and_positions_are_independent_of_order(void **state)
{
    (void)state;
    struct sb_rng a = sb_rng_make(7, SB_STREAM_DRAFT), b = sb_rng_make(7, SB_STREAM_ACCEPT);
    sb_rng_seek(&a, 5);
    double first = sb_rng_uniform(&a);
    for (int i = 0; i < 10; i++)
        sb_rng_uniform(&b);
    sb_rng_seek(&a, 6);
    sb_rng_uniform(&a);
    sb_rng_seek(&a, 5);
    assert_true(first == sb_rng_uniform(&a));
    sb_rng_seek(&b, 5);
    assert_true(first != sb_rng_uniform(&b));
}

static void uniforms_have_the_right_mean_and_normals_the_right_variance(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(1, SB_STREAM_INIT);
    double sum = 0, square = 0;
    const int n = 20000;
    for (int i = 0; i < n; i++) {
        sum += sb_rng_uniform(&rng);
        double z = sb_rng_normal(&rng);
        square += z * z;
    }
    assert_true(fabs(sum / n - 0.5) < 0.01); /* 5 standard errors */
    assert_true(fabs(square / n - 1.0) < 0.05);
}

struct toy {
    int64_t k;
    double x;
    bool wrap;
    const char *match, *model;
};
static const struct sb_param toy_params[] = {
    { .name = "k",
      .type = SB_PARAM_INT,
      .offset = offsetof(struct toy, k),
      .fallback = "10",
      .min = 1,
      .max = 64 },
    { .name = "x",
      .type = SB_PARAM_NUMBER,
      .offset = offsetof(struct toy, x),
      .fallback = "0.5",
      .min = 0,
      .max = 1 },
    { .name = "wrap",
      .type = SB_PARAM_BOOL,
      .offset = offsetof(struct toy, wrap),
      .fallback = "false" },
    { .name = "match",
      .type = SB_PARAM_CHOICE,
      .offset = offsetof(struct toy, match),
      .fallback = "last",
      .choices = "first|last" },
    { .name = "model",
      .type = SB_PARAM_STRING,
      .offset = offsetof(struct toy, model),
      .required = true,
      .meaning = "a path" },
    { 0 },
};

static enum sb_status apply(struct toy *toy, const char *text, struct sb_error *err)
{
    struct sb_spec spec;
    enum sb_status rc = sb_spec_parse(&spec, text, err);
    if (rc != SB_OK)
        return rc;
    rc = sb_params_apply(toy, toy_params, &spec, "drafter toy", err);
    sb_spec_finish(&spec); /* toy->model would dangle; the tests look at numbers only */
    return rc;
}

static void parameters_are_set_from_text_and_defaults(void **state)
{
    (void)state;
    struct toy toy = { 0 };
    struct sb_error err;
    assert_int_equal(apply(&toy, "toy:k=3,wrap=on,model=m", &err), SB_OK);
    assert_int_equal(toy.k, 3);
    assert_true(toy.x == 0.5 && toy.wrap);
}

static void wrong_parameters_are_refused_with_the_right_ones(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "toy:q=1,model=m", "drafter toy has no parameter 'q'; it has: k, x, wrap, match, model" },
        { "toy:k=0,model=m", "drafter toy: k=0: expected a whole number from 1 to 64" },
        { "toy:k=4x,model=m", "drafter toy: k=4x: expected a whole number from 1 to 64" },
        { "toy:x=nan,model=m", "drafter toy: x=nan: expected a number from 0 to 1" },
        { "toy:match=best,model=m", "drafter toy: match=best: expected one of first|last" },
        { "toy:match=,model=m", "drafter toy: match=: expected one of first|last" },
        { "toy:k=4", "drafter toy needs model=... (a path)" },
        { "toy:k=4,k=5", "toy: parameter 'k' is given twice" },
        { "toy:k", "'k' after 'toy:' is not of the form key=value" },
        { ":k=1", "':k=1' does not begin with a name" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct toy toy = { 0 };
        struct sb_error err;
        assert_int_equal(apply(&toy, cases[i].text, &err), SB_EUSAGE);
        assert_string_equal(err.message, cases[i].message);
    }
}

static void a_spec_has_one_canonical_text(void **state)
{
    (void)state;
    struct sb_spec spec;
    assert_int_equal(sb_spec_parse(&spec, "small-lm:tree='2,1',k=4", NULL), SB_OK);
    char *text = sb_spec_text(&spec);
    assert_string_equal(text, "small-lm:k=4,tree='2,1'");
    sb_free(text);
    sb_spec_finish(&spec);
}

static void specs_stand_within_specs(void **state)
{
    (void)state;
    static const char text[] =
        "merge:a='sam:k=3,min_match=2',b=(delegate:a='sam:k=4',b=(merge:a=pld,b='x:t='))";
    struct sb_spec outer, inner;
    assert_int_equal(sb_spec_parse(&outer, text, NULL), SB_OK);
    assert_string_equal(sb_spec_get(&outer, "a"), "sam:k=3,min_match=2");
    assert_string_equal(sb_spec_get(&outer, "b"), "delegate:a='sam:k=4',b=(merge:a=pld,b='x:t=')");
    char *again = sb_spec_text(&outer);
    assert_string_equal(again, text);
    sb_free(again);
    assert_int_equal(sb_spec_parse(&inner, sb_spec_get(&outer, "b"), NULL), SB_OK);
    assert_string_equal(sb_spec_get(&inner, "b"), "merge:a=pld,b='x:t='");
    sb_spec_finish(&inner);
    sb_spec_finish(&outer);
    /* Elsewhere a parenthesis is a character. */
    assert_int_equal(sb_spec_parse(&outer, "x:file=a(b,k=(1", NULL), SB_OK);
    assert_string_equal(sb_spec_get(&outer, "file"), "a(b");
    assert_string_equal(sb_spec_get(&outer, "k"), "(1");
    sb_spec_finish(&outer);
}

static void there_is_at_least_one_physical_core(void **state)
{
    (void)state;
    assert_true(sb_threads_physical() >= 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_is_one_printable_line),
        cmocka_unit_test(exit_codes_follow_the_status),
        cmocka_unit_test(allocation_refuses_overflow_and_fails_on_demand),
        cmocka_unit_test(philox_gives_the_published_answers),
        cmocka_unit_test(streams_and_positions_are_independent_of_order),
        cmocka_unit_test(uniforms_have_the_right_mean_and_normals_the_right_variance),
        cmocka_unit_test(parameters_are_set_from_text_and_defaults),
        cmocka_unit_test(wrong_parameters_are_refused_with_the_right_ones),
        cmocka_unit_test(a_spec_has_one_canonical_text),
        cmocka_unit_test(specs_stand_within_specs),
        cmocka_unit_test(there_is_at_least_one_physical_core),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

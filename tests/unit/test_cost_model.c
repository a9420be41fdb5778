/* results/cost_model: isotonic regression, reading between points, curves from files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/rng.h"
#include "results/cost_model.h"

static void expect_isotonic(const double *y, const double *want, size_t n)
{
    double x[16];
    memcpy(x, y, n * sizeof *x);
    sb_isotonic(x, n);
    for (size_t i = 0; i < n; i++)
        if (fabs(x[i] - want[i]) > 1e-12)
            fail_msg("place %zu: %g, expected %g", i, x[i], want[i]);
}

static void falling_neighbours_are_pooled(void **state)
{
    (void)state;
    expect_isotonic((double[]){ 1, 2, 3 }, (double[]){ 1, 2, 3 }, 3);
    expect_isotonic((double[]){ 3, 2, 1 }, (double[]){ 2, 2, 2 }, 3);
    expect_isotonic((double[]){ 1, 3, 2, 4 }, (double[]){ 1, 2.5, 2.5, 4 }, 4);
    expect_isotonic((double[]){ 4, 5, 1, 6, 2 }, (double[]){ 10 / 3., 10 / 3., 10 / 3., 4, 4 }, 5);
    expect_isotonic((double[]){ 2, 2, 1 }, (double[]){ 5 / 3., 5 / 3., 5 / 3. }, 3);
    expect_isotonic((double[]){ 7 }, (double[]){ 7 }, 1);
    sb_isotonic(NULL, 0);
}

/* The value at i is the max over a <= i of the min over b >= i of the mean of y[a..b]. */
static void pooling_is_the_min_max_formula(void **state)
{
    (void)state;
    struct sb_rng rng = sb_rng_make(3, SB_STREAM_DATA);
    for (int trial = 0; trial < 50; trial++) {
        double y[12], want[12];
        size_t n = 1 + sb_rng_below(&rng, 12);
        for (size_t i = 0; i < n; i++)
            y[i] = floor(6 * sb_rng_uniform(&rng));
        for (size_t i = 0; i < n; i++) {
            want[i] = -INFINITY;
            for (size_t a = 0; a <= i; a++) {
                double least = INFINITY;
                for (size_t b = i; b < n; b++) {
                    double sum = 0;
                    for (size_t k = a; k <= b; k++)
                        sum += y[k];
                    least = fmin(least, sum / (double)(b - a + 1));
                }
                want[i] = fmax(want[i], least);
            }
        }
        expect_isotonic(y, want, n);
    }
}

static void expect_ns(const struct sb_cost_model *m, double rows, double context, double want)
{
    double ns = sb_cost_model_ns(m, rows, context);
    if (fabs(ns - want) > 1e-9)
        fail_msg("%g rows after %g: %g, expected %g", rows, context, ns, want);
}

static void times_lie_straight_between_points(void **state)
{
    (void)state;
    struct sb_cost_model m = { 0 };
    expect_ns(&m, 4, 100, 0);
    static const double points[][3] = {
        { 128, 8, 220 }, { 128, 1, 100 }, { 128, 4, 140 }, { 1024, 1, 200 }, { 1024, 8, 600 }
    };
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(sb_cost_model_add(&m, points[i][0], points[i][1], points[i][2]), 0);
    sb_cost_model_prepare(&m);
    expect_ns(&m, 1, 128, 100);
    expect_ns(&m, 2.5, 128, 120);
    expect_ns(&m, 6, 128, 180);
    expect_ns(&m, 12, 128, 300); /* the last slope, 20 a row */
    expect_ns(&m, 1, 576, 150);  /* half way between the contexts */
    expect_ns(&m, 8, 576, 410);
    expect_ns(&m, 1, 1920, 300); /* beyond them */
    expect_ns(&m, 1, 16, 87.5);  /* and before */
    sb_cost_model_finish(&m);
    assert_int_equal(sb_cost_model_add(&m, 0, 1, 50), 0);
    sb_cost_model_prepare(&m);
    expect_ns(&m, 64, 4096, 50);
    sb_cost_model_finish(&m);
}

/* ---- files ---- */

static const struct sb_cost_owner owner = {
    .name = "tiny",
    .config_json =
        "{\"layers\":6,\"width\":192,\"heads\":6,\"kv_heads\":2,\"ff\":512,\"vocab\":4096,"
        "\"context\":2048}",
    .weight_type = "bf16",
    .arithmetic = "exact",
};
#define SHAPE \
    "\"shape\":{\"layers\":6,\"width\":192,\"heads\":6,\"kv_heads\":2,\"ff\":512,\"vocab\":4096}"
#define HEAD  "{\"model\":\"other-name\",\"type\":\"bf16\",\"arithmetic\":\"exact\"," SHAPE ","
#define CURVE "\"context\":128,\"curve\":[{\"rows\":1,\"ns\":100},{\"rows\":4,\"ns\":160}]}"

static enum sb_status parse(struct sb_cost_model *m, const char *text, struct sb_error *err)
{
    return sb_cost_model_parse(m, text, strlen(text), "host.json", &owner, err);
}

static void a_curve_of_the_same_shape_is_taken_whatever_its_name(void **state)
{
    (void)state;
    struct sb_cost_model m = { 0 };
    struct sb_error err;
    if (parse(&m, HEAD CURVE, &err) != SB_OK)
        fail_msg("%s", err.message);
    expect_ns(&m, 2, 128, 120);
    sb_cost_model_finish(&m);
    assert_int_equal(
        parse(&m, "{\"model\":\"tiny\",\"type\":\"bf16\",\"arithmetic\":\"exact\"," CURVE, &err),
        SB_OK);
    sb_cost_model_finish(&m);
}

static void anything_else_is_refused_in_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
        enum sb_status code;
    } cases[] = {
        { "", "no JSON at line", SB_EFORMAT },
        { "{\"model\":", "no JSON at line", SB_EFORMAT },
        { "[]", "has no field 'curve'", SB_EFORMAT },
        { "{}", "has no field 'curve'", SB_EFORMAT },
        { HEAD "\"context\":128,\"curve\":[]}", "field 'curve'", SB_EFORMAT },
        { HEAD "\"context\":128,\"curve\":{}}", "field 'curve'", SB_EFORMAT },
        { HEAD "\"context\":\"x\",\"curve\":[]}", "field 'context'", SB_EFORMAT },
        { HEAD "\"context\":128,\"curve\":[{\"rows\":2,\"ns\":1}]}", "curve[0]: rows 2",
          SB_EFORMAT },
        { HEAD "\"context\":128,\"curve\":[{\"rows\":1,\"ns\":0}]}", "ns 0", SB_EFORMAT },
        { HEAD "\"context\":128,\"curve\":[{\"rows\":1,\"ns\":1},{\"rows\":1,\"ns\":1}]}",
          "curve[1]", SB_EFORMAT },
        { HEAD "\"context\":128,\"curve\":[7]}", "curve[0]", SB_EFORMAT },
        { "{\"model\":\"m\",\"type\":\"f32\",\"arithmetic\":\"exact\"," SHAPE "," CURVE,
          "field 'type' is f32; the run has bf16", SB_EUSAGE },
        { "{\"model\":\"m\",\"type\":\"bf16\",\"arithmetic\":\"math=fast\"," SHAPE "," CURVE,
          "field 'arithmetic' is math=fast", SB_EUSAGE },
        { "{\"model\":\"m\",\"type\":\"bf16\",\"arithmetic\":\"exact\",\"shape\":{\"layers\":12}," CURVE,
          "layers=12; expected that of 'tiny', layers=6", SB_EUSAGE },
        { "{\"model\":\"m\",\"type\":\"bf16\",\"arithmetic\":\"exact\",\"shape\":7," CURVE,
          "layers=0", SB_EUSAGE },
        { "{\"model\":\"110m\",\"type\":\"bf16\",\"arithmetic\":\"exact\"," CURVE,
          "field 'model' is 110m", SB_EUSAGE },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_cost_model m = { 0 };
        struct sb_error err = { 0 };
        enum sb_status rc = parse(&m, cases[i].text, &err);
        if (rc != cases[i].code || !strstr(err.message, cases[i].why) ||
            !strstr(err.message, "host.json") || strchr(err.message, '\n') || m.point)
            fail_msg("%s: %d, %s", cases[i].text, rc, err.message);
    }
}

static void a_file_that_is_not_there_or_too_large_is_refused(void **state)
{
    (void)state;
    struct sb_cost_model m = { 0 };
    struct sb_error err;
    char path[] = "cost_XXXXXX";
    assert_int_equal(sb_cost_model_read(&m, "none.json", &owner, &err), SB_EINPUT);
    assert_int_equal(sb_cost_model_read(&m, "/", &owner, &err), SB_EINPUT);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, HEAD CURVE, strlen(HEAD CURVE)), strlen(HEAD CURVE));
    assert_int_equal(sb_cost_model_read(&m, path, &owner, &err), SB_OK);
    sb_cost_model_finish(&m);
    assert_int_equal(ftruncate(fd, 100 << 20), 0);
    assert_int_equal(sb_cost_model_read(&m, path, &owner, &err), SB_EFORMAT);
    assert_non_null(strstr(err.message, "at most"));
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(falling_neighbours_are_pooled),
        cmocka_unit_test(pooling_is_the_min_max_formula),
        cmocka_unit_test(times_lie_straight_between_points),
        cmocka_unit_test(a_curve_of_the_same_shape_is_taken_whatever_its_name),
        cmocka_unit_test(anything_else_is_refused_in_one_line),
        cmocka_unit_test(a_file_that_is_not_there_or_too_large_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

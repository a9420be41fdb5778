/* results/gate and student: verdicts on records with figures worked out by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "results/gate.h"
#include "results/student.h"

/* A record of one or two arms ("a", "b") with the same prompts; tokens and steps per prompt. */
struct made {
    const char *task;
    int tokens, steps;
};

static void put_arm(FILE *f, const char *label, const struct made *p, size_t n)
{
    int tokens = 0, steps = 0;
    for (size_t i = 0; i < n; i++) {
        tokens += p[i].tokens;
        steps += p[i].steps;
    }
    fprintf(
        f,
        "\"%s\": {\"method\": \"m\", \"is_baseline\": false, \"total\": [%d, %d, %d], \"prompts\": [",
        label, tokens, steps, 5 * steps);
    for (size_t i = 0; i < n; i++)
        fprintf(f, "%s[\"%s\", %zu, [%d, %d, %d], [%d, %d, %d]]", i ? "," : "", p[i].task, i + 1,
                p[i].tokens, p[i].steps, 5 * p[i].steps, p[i].steps, p[i].steps, p[i].steps);
    fputs("]}", f);
}

static struct sb_record record(const struct made *a, const struct made *b, size_t n,
                               double temperature)
{
    char *text = NULL;
    size_t size;
    struct sb_record r = { 0 };
    struct sb_error err = { 0 };
    FILE *f = open_memstream(&text, &size);
    fprintf(
        f,
        "{\"specbench_baseline\": 1, \"setup\": {\"target\": \"t\", \"target_hash\": \"h\","
        "\"tokenizer_hash\": null, \"dataset\": \"d\", \"dataset_hash\": \"e\", \"chat_template\": null,"
        "\"conversation\": null, \"max_new_tokens\": 9, \"top_k\": 0, \"ignore_eos\": 0, \"seed\": 0,"
        "\"repeats\": 1, \"temperature\": %g, \"top_p\": 1, \"arithmetic\": \"exact\"}, \"arms\": {",
        temperature);
    put_arm(f, "a", a, n);
    if (b) {
        fputc(',', f);
        put_arm(f, "b", b, n);
    }
    fputs("}}", f);
    fclose(f);
    if (sb_record_parse(&r, "made", text, size, &err) != SB_OK)
        fail_msg("%s", err.message);
    free(text);
    return r;
}

/* The gate over arm "a" (and "b") of two lists of prompts; the caller finishes it. The records live until the
 * next call. */
static struct sb_gate gate(const struct made *now, const struct made *base, size_t n,
                           double max_drop, double temperature)
{
    static struct sb_record r[2];
    struct sb_gate g = { 0 };
    struct sb_error err = { 0 };
    const struct sb_gate_options o = { .max_drop = max_drop };
    sb_record_finish(&r[0]);
    sb_record_finish(&r[1]);
    r[0] = record(now, NULL, n, temperature);
    r[1] = record(base, NULL, n, temperature);
    if (sb_gate_run(&g, &r[0], &r[1], &o, &err) != SB_OK)
        fail_msg("%s", err.message);
    return g;
}

static void expect(const struct made *now, const struct made *base, size_t n, double max_drop,
                   enum sb_verdict verdict, enum sb_gate_outcome outcome)
{
    struct sb_gate g = gate(now, base, n, max_drop, 0);
    assert_int_equal(g.mode, SB_GATE_DETERMINISTIC);
    assert_string_equal(sb_verdict_name(g.arm[0].verdict), sb_verdict_name(verdict));
    assert_int_equal(g.outcome, outcome);
    sb_gate_finish(&g);
}

/* Quantiles of any table of the t law; at one degree of freedom it is the Cauchy law. */
static void student_agrees_with_the_tables(void **state)
{
    (void)state;
    assert_true(fabs(sb_student_tail(1, 1) - 0.25) < 1e-12);
    assert_true(fabs(sb_student_tail(2.228138851964939, 10) - 0.025) < 1e-12);
    assert_true(fabs(sb_student_point(0.05, 11) - 1.795884818704044) < 1e-9);
    assert_true(fabs(sb_student_point(0.05, 1e7) - 1.6448538) < 1e-5);
    assert_true(fabs(sb_student_tail(1e4, 1) / (atan(1e-4) / M_PI) - 1) < 1e-9);
    assert_true(sb_student_tail(0, 5) == 0.5);
    assert_true(fabs(sb_student_tail(-2, 7) + sb_student_tail(2, 7) - 1) < 1e-12);
    assert_true(sb_student_tail(INFINITY, 3) == 0 && sb_student_tail(-INFINITY, 3) == 1);
}

static void whole_numbers_decide_between_same_better_changed_and_worse(void **state)
{
    (void)state;
    const struct made base[] = { { "qa", 30, 20 }, { "rag", 30, 20 } };
    const struct made better[] = { { "qa", 30, 20 }, { "rag", 30, 19 } };
    const struct made worse[] = { { "qa", 3000000, 2000000 }, { "rag", 3000000, 2000001 } };
    const struct made before[] = { { "qa", 3000000, 2000000 }, { "rag", 3000000, 2000000 } };
    const struct made changed[] = { { "qa", 30, 20 }, { "rag", 15, 10 } };
    expect(base, base, 2, 0, SB_SAME, SB_GATE_HOLDS);
    expect(better, base, 2, 0, SB_BETTER, SB_GATE_HOLDS);
    expect(worse, before, 2, 0, SB_WORSE, SB_GATE_FAILS);
    expect(worse, before, 2, 0.001, SB_WORSE, SB_GATE_HOLDS);
    expect(changed, base, 2, 0, SB_CHANGED, SB_GATE_HOLDS);
}

static void a_task_may_not_fall_although_the_whole_rises(void **state)
{
    (void)state;
    const struct made base[] = { { "qa", 50, 40 }, { "rag", 60, 30 } };
    const struct made now[] = { { "qa", 50, 41 }, { "rag", 60, 20 } }; /* qa: -2.4 % */
    expect(now, base, 2, 0, SB_BETTER, SB_GATE_FAILS);
    const struct made near[] = { { "qa", 500, 401 }, { "rag", 60, 20 } }; /* -0.25 % */
    const struct made far[] = { { "qa", 500, 400 }, { "rag", 60, 30 } };
    expect(near, far, 2, 0, SB_BETTER, SB_GATE_HOLDS);
}

/* d = log(1.1) for every second prompt, 0 else: mean .5 l, sd = l sqrt(n / (n - 1)) / 2. */
static void the_detectable_drop_is_that_of_the_cards_formula(void **state)
{
    (void)state;
    enum { N = 12 };
    struct made base[N], now[N];
    for (int i = 0; i < N; i++) {
        base[i] = (struct made){ "qa", 110, 100 };
        now[i] = (struct made){ "qa", i % 2 ? 121 : 110, 100 };
    }
    struct sb_gate g = gate(now, base, N, 0.05, 0.7);
    double l = log(1.1), sd = l * sqrt(N / (N - 1.0)) / 2, se = sd / sqrt(N);
    assert_int_equal(g.mode, SB_GATE_STATISTICAL);
    assert_true(fabs(g.arm[0].detectable - (1 - exp(-(1.645 + 0.842) * se))) < 1e-12);
    assert_true(fabs(g.arm[0].mean_change - expm1(l / 2)) < 1e-12);
    assert_true(fabs(log1p(g.arm[0].low) - (l / 2 - 1.795884818704044 * se)) < 1e-9);
    assert_int_equal(g.arm[0].verdict, SB_PASS);
    assert_int_equal(g.outcome, SB_GATE_HOLDS);
    sb_gate_finish(&g);
    g = gate(base, now, N, 0.005, 0.7); /* falls by 4.7 % on average, in no doubt */
    assert_int_equal(g.arm[0].verdict, SB_REGRESSED);
    assert_int_equal(g.outcome, SB_GATE_FAILS);
    sb_gate_finish(&g);
    g = gate(now, base, N, 0.005, 0.7); /* sd hides 0.5 % */
    assert_int_equal(g.outcome, SB_GATE_BLIND);
    assert_non_null(strstr(g.arm[0].why, "cannot show a drop of 0.50 %"));
    sb_gate_finish(&g);
}

/* One arm's p is between .025 and .05: proven alone, not beside another one like it. */
static void several_arms_share_one_level(void **state)
{
    (void)state;
    enum { N = 10 };
    struct made base[N], now[N];
    for (int i = 0; i < N; i++) {
        base[i] = (struct made){ "qa", 1100, 1000 };
        now[i] = (struct made){ "qa", i < 6 ? 1085 : 1105, 1000 };
    }
    struct sb_error err;
    struct sb_gate g = { 0 };
    const char *one[] = { "a" };
    struct sb_record r = record(now, now, N, 0.7), b = record(base, base, N, 0.7);
    struct sb_gate_options o = { .max_drop = 0.0005, .arm = one, .n_arms = 1 };
    assert_int_equal(sb_gate_run(&g, &r, &b, &o, &err), SB_OK);
    double alone = g.arm[0].p;
    assert_true(alone > 0.025 && alone < 0.05); /* t = -1.99 with 9 degrees of freedom */
    assert_int_equal(g.arm[0].verdict, SB_REGRESSED);
    sb_gate_finish(&g);
    o.arm = NULL;
    o.n_arms = 0;
    assert_int_equal(sb_gate_run(&g, &r, &b, &o, &err), SB_OK);
    for (int i = 0; i < 2; i++)
        assert_int_not_equal(g.arm[i].verdict, SB_REGRESSED);
    sb_gate_finish(&g);
    sb_record_finish(&r);
    sb_record_finish(&b);
}

static void the_prompts_that_moved_most_come_first(void **state)
{
    (void)state;
    enum { N = 8 };
    struct made base[N], now[N];
    const int steps[N] = { 100, 90, 200, 101, 100, 50, 99, 120 };
    for (int i = 0; i < N; i++) {
        base[i] = (struct made){ "qa", 110, 100 };
        now[i] = (struct made){ "qa", 110, steps[i] };
    }
    struct sb_gate g = gate(now, base, N, 0.9, 0);
    const int64_t want[] = { 3, 6, 8, 2,
                             7 }; /* |log|: .693 twice, .182, .105, .01005 before .00995 */
    assert_int_equal(g.n_moved, 6);
    assert_int_equal(g.n_moves, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(g.move[i].question_id, want[i]);
    sb_gate_finish(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(student_agrees_with_the_tables),
        cmocka_unit_test(whole_numbers_decide_between_same_better_changed_and_worse),
        cmocka_unit_test(a_task_may_not_fall_although_the_whole_rises),
        cmocka_unit_test(the_detectable_drop_is_that_of_the_cards_formula),
        cmocka_unit_test(several_arms_share_one_level),
        cmocka_unit_test(the_prompts_that_moved_most_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

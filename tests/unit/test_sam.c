/* drafters/automaton and drafters/sam: the worked examples of methods C 1.9, and slow scans by
 * definition as the judge. */
#include "tests/unit/drafter_rig.h"

#include <string.h>

#include "drafters/automaton.h"
#include "harness/core/rng.h"

static const sb_token card[] = { 1, 2, 3, 4, 1, 2, 5, 1, 2 };

/* ---- the automaton ---- */

static void feed(struct sb_automaton *a, struct sb_automaton_match *m, const sb_token *x, size_t n)
{
    assert_int_equal(sb_automaton_reserve(a, a->n + n, NULL), SB_OK);
    for (size_t i = 0; i < n; i++) {
        *m = sb_automaton_read(a, *m, x[i]);
        sb_automaton_append(a, x[i]);
    }
}

static void the_automaton_is_that_of_the_worked_example(void **state)
{
    (void)state;
    struct sb_automaton a = { 0 };
    struct sb_automaton_match m = { 0 };
    feed(&a, &m, card, 9);
    assert_int_equal(a.n_states, 10);
    assert_int_equal(a.state[2].len, 2);
    assert_int_equal(a.state[2].link, 0);
    assert_int_equal(a.state[2].end, 2);
    assert_int_equal(sb_automaton_next(&a, 2, 3), 3);
    assert_int_equal(sb_automaton_next(&a, 2, 5), 7);
    assert_int_equal(sb_automaton_next(&a, 2, 1), -1);
    assert_int_equal(m.state, 2);
    assert_int_equal(m.len, 2);
    sb_automaton_finish(&a);
}

/* End of the first occurrence of the m tokens before x[n], 1-based; 0: none. */
static size_t first_end(const sb_token *x, size_t n, size_t m, size_t limit)
{
    for (size_t end = m; end <= limit; end++)
        if (memcmp(x + end - m, x + n - m, m * sizeof *x) == 0)
            return end;
    return 0;
}

static size_t longest_earlier(const sb_token *x, size_t n)
{
    size_t m = n - 1;
    while (m > 0 && !first_end(x, n, m, n - 1))
        m--;
    return m;
}

static void matches_and_first_ends_are_those_of_a_scan(void **state)
{
    (void)state;
    enum { N = 120 };
    for (uint64_t seed = 0; seed < 24; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct sb_automaton a = { 0 };
        struct sb_automaton_match m = { 0 };
        sb_token x[N];
        for (size_t n = 1; n <= N; n++) {
            x[n - 1] = (sb_token)sb_rng_below(&rng, 1 + seed % 4);
            feed(&a, &m, x + n - 1, 1); /* grows from nothing, too */
            assert_int_equal(m.len, longest_earlier(x, n));
            if (m.len)
                assert_int_equal(a.state[m.state].end, first_end(x, n, (size_t)m.len, n));
        }
        assert_true(a.n_states <= 2 * N && a.n_edges <= 3 * N);
        int32_t copied = 0; /* every state's edges are in the hash and in its list */
        for (int32_t s = 0; s < a.n_states; s++)
            for (int32_t e = a.state[s].edge; e >= 0; e = a.edge[e].next, copied++)
                assert_int_equal(sb_automaton_next(&a, s, a.edge[e].token), a.edge[e].to);
        assert_int_equal(copied, a.n_edges);
        sb_automaton_finish(&a);
    }
}

/* Exactly the substrings are read: all of them, and no walk that is not one. */
static void it_reads_substrings_and_nothing_else(void **state)
{
    (void)state;
    enum { N = 14, LETTERS = 3 };
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct sb_automaton a = { 0 };
        struct sb_automaton_match m = { 0 };
        sb_token x[N], w[6];
        for (size_t i = 0; i < N; i++)
            x[i] = (sb_token)sb_rng_below(&rng, LETTERS);
        feed(&a, &m, x, N);
        for (int word = 0; word < 729; word++) {
            int32_t s = 0;
            for (int i = 0, rest = word; i < 6; i++, rest /= LETTERS) {
                w[i] = rest % LETTERS;
                s = s < 0 ? s : sb_automaton_next(&a, s, w[i]);
                bool occurs = false;
                for (int at = 0; at + i < N; at++)
                    occurs = occurs || memcmp(x + at, w, (size_t)(i + 1) * sizeof *w) == 0;
                assert_true(occurs == (s >= 0));
            }
        }
        sb_automaton_finish(&a);
    }
}

static void work_per_token_is_constant_on_the_whole(void **state)
{
    (void)state;
    enum { N = 20000 };
    for (int kind = 0; kind < 6; kind++) {
        struct sb_rng rng = sb_rng_make(3, SB_STREAM_DATA);
        struct sb_automaton a = { 0 };
        struct sb_automaton_match m = { 0 };
        static sb_token x[N];
        for (int i = 0; i < N; i++)
            x[i] = kind == 0   ? 7
                   : kind == 1 ? i % 3
                   : kind == 2 ? i % 1000
                   : kind == 3 ? i >= N / 2
                   : kind == 4 ? (i & -i) % 1000 /* the ruler sequence */
                               : (sb_token)sb_rng_below(&rng, 2);
        feed(&a, &m, x, N);
        assert_true(a.walks <= 4 * N);
        sb_automaton_finish(&a);
    }
}

/* ---- the drafter ---- */

static void expect(const char *text, const sb_token *x, size_t n, const sb_token *want,
                   size_t n_want)
{
    struct rig rig;
    assert_int_equal(rig_open(&rig, text, NULL), SB_OK);
    rig_begin(&rig, x, n);
    rig_propose(&rig, x, n);
    rig_expect(&rig, want, NULL, (int32_t)n_want);
    rig_close(&rig);
}

static void the_worked_examples_hold(void **state)
{
    (void)state;
#define AFTER(root) SEQ(1, 2, 3, 4, 1, 2, 5, 1, 2, root)
    expect("sam:k=3", AFTER(3), SEQ(4, 1, 2));
    expect("sam:k=3", AFTER(5), SEQ(1, 2));
    expect("sam:k=3", AFTER(1), SEQ(2, 3, 4));
    expect("sam:k=3", AFTER(9), NULL, 0);
    expect("sam", SEQ(4), NULL, 0);
    expect("sam:min_match=2", AFTER(1), NULL, 0);
    expect("sam:min_match=3,k=1", AFTER(3), SEQ(4));
    expect("sam:alpha=1", AFTER(1), SEQ(2)); /* a match of 1 */
    expect("sam:alpha=0.5", AFTER(1), NULL, 0);
    expect("sam:alpha=0.5", AFTER(3), SEQ(4)); /* of 3 */
}

static void a_shorter_match_with_more_behind_it_takes_over(void **state)
{
    (void)state;
    /* "8 1" ended at 6, with "1 2" behind; "1" first ended at 1. */
#define CLIMB SEQ(1, 5, 6, 7, 8, 1, 2, 8, 1)
    expect("sam:k=2", CLIMB, SEQ(5, 6));
    expect("sam:k=1", CLIMB, SEQ(2));
    expect("sam:k=2,min_match=2", CLIMB, SEQ(2, 8));
}

/* The definition: longest earlier match, its first occurrence, or that of a shorter match. */
static size_t scan(const sb_token *x, size_t n, size_t k, double alpha, sb_token *draft)
{
    size_t m = longest_earlier(x, n);
    if (m == 0)
        return 0;
    size_t most = (double)k < alpha * (double)m ? k : (size_t)(alpha * (double)m);
    size_t end = first_end(x, n, m, n - 1);
    for (size_t shorter = m; n - 1 - end < most + 1 && shorter > 0; shorter--)
        end = first_end(x, n, shorter, n - 1);
    size_t got = 0;
    for (; got < most && end + got < n - 1; got++)
        draft[got] = x[end + got];
    return got;
}

static void drafts_are_those_of_a_scan(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        char *text = sb_strf("sam:k=%d,alpha=%g", (int)(1 + seed % 11), seed % 2 ? 1.5 : 4);
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct rig rig;
        sb_token x[150], draft[16];
        for (size_t i = 0; i < 150; i++)
            x[i] = (sb_token)sb_rng_below(&rng, 1 + seed % 4);
        assert_int_equal(rig_open(&rig, text, NULL), SB_OK);
        size_t n = 1 + sb_rng_below(&rng, 10);
        for (rig_begin(&rig, x, n); n <= 150; n += 1 + sb_rng_below(&rng, 4)) {
            size_t want = scan(x, n, 1 + seed % 11, seed % 2 ? 1.5 : 4, draft);
            rig_propose(&rig, x, n);
            rig_expect(&rig, draft, NULL, (int32_t)want);
        }
        rig_close(&rig);
        sb_free(text);
    }
}

static void scope_says_what_a_new_prompt_forgets(void **state)
{
    (void)state;
    const sb_token first[] = { 1, 2, 3, 4, 5, 6, 7 }; /* a prompt of 4 */
    const sb_token next[] = { 1, 2, 3, 4, 8, 9, 5 };  /* of 6, beginning with that */
    const sb_token other[] = { 1, 2, 9, 5 };
    static const char *const specs[] = { "sam:scope=prompt", "sam", "sam:scope=run" };
    for (int s = 0; s < 3; s++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, specs[s], NULL), SB_OK);
        rig.n_prompt = 4;
        rig_begin(&rig, first, 5);
        rig_observe(&rig, first, 7);
        rig.n_prompt = 6;
        rig_begin(&rig, next, 7);
        rig_propose(&rig, next, 7);
        rig_expect(&rig, (const sb_token[]){ 6 }, NULL, s >= 1); /* the text ended behind it */
        rig.n_prompt = 3;
        rig_begin(&rig, other, 4);
        rig_propose(&rig, other, 4);
        rig_expect(&rig, (const sb_token[]){ 6 }, NULL, s >= 2);
        rig_close(&rig);
    }
}

static void a_prompt_that_goes_on_with_the_text_is_read_on(void **state)
{
    (void)state;
    struct rig rig;
    const sb_token x[] = { 1, 2, 3, 4, 5, 6, 7, 1, 2 };
    assert_int_equal(rig_open(&rig, "sam:k=6,alpha=9", NULL), SB_OK);
    rig.n_prompt = 3;
    rig_begin(&rig, x, 4);
    rig_observe(&rig, x, 5);
    rig.n_prompt = 8;
    rig_begin(&rig, x, 9);
    rig_propose(&rig, x, 9);
    rig_expect(&rig, (const sb_token[]){ 3, 4, 5, 6, 7, 1 }, NULL, 6); /* no joint inside */
    rig_close(&rig);
}

static void texts_are_not_copied_across_their_joint(void **state)
{
    (void)state;
    struct rig rig;
    assert_int_equal(rig_open(&rig, "sam:scope=run", NULL), SB_OK);
    rig_begin(&rig, SEQ(1, 2, 3, 4, 99)); /* the root is not kept */
    const sb_token x[] = { 7, 8, 2, 3 };
    rig_begin(&rig, x, 4);
    rig_propose(&rig, x, 4);
    rig_expect(&rig, (const sb_token[]){ 4 }, NULL, 1);
    rig_close(&rig);
}

static void a_repeated_text_is_accepted_in_long_strides(void **state)
{
    (void)state;
    sb_token x[301];
    for (int i = 0; i < 301; i++)
        x[i] = (i % 50) * (i % 50) % 97;
    struct rig rig;
    int32_t steps, accepted;
    assert_int_equal(rig_open(&rig, "sam", NULL), SB_OK);
    accepted = rig_replay(&rig, x, 50, 301, &steps);
    assert_true(accepted + steps == 250 || accepted + steps == 251);
    assert_true(steps < 20);
    rig_close(&rig);
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    struct rig rig;
    sb_token x[RIG_CONTEXT];
    for (int i = 0; i < RIG_CONTEXT; i++)
        x[i] = i % 7;
    assert_int_equal(rig_open(&rig, "sam:scope=run", NULL), SB_OK);
    for (int text = 0; text < 3; text++) {
        rig_begin(&rig, x + text, 20);
        size_t before = sb_alloc_count();
        for (size_t n = 20; n < RIG_CONTEXT - 3; n++)
            rig_propose(&rig, x + text, n);
        assert_int_equal(sb_alloc_count(), before);
    }
    rig_close(&rig);
}

static void running_out_of_memory_is_an_error_and_leaves_it_usable(void **state)
{
    (void)state;
    for (size_t n = 0; n < 4; n++) {
        struct sb_automaton a = { 0 };
        struct sb_automaton_match m = { 0 };
        feed(&a, &m, card, 9);
        sb_alloc_fail_after(n);
        assert_int_equal(sb_automaton_reserve(&a, 1000, NULL), SB_ENOMEM);
        sb_alloc_fail_after(SIZE_MAX);
        assert_int_equal(a.cap, 9);
        assert_int_equal(sb_automaton_next(&a, 2, 5), 7);
        sb_automaton_finish(&a);
    }
    assert_int_equal(sb_automaton_reserve(&(struct sb_automaton){ 0 }, SIZE_MAX / 2, NULL),
                     SB_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_automaton_is_that_of_the_worked_example),
        cmocka_unit_test(matches_and_first_ends_are_those_of_a_scan),
        cmocka_unit_test(it_reads_substrings_and_nothing_else),
        cmocka_unit_test(work_per_token_is_constant_on_the_whole),
        cmocka_unit_test(the_worked_examples_hold),
        cmocka_unit_test(a_shorter_match_with_more_behind_it_takes_over),
        cmocka_unit_test(drafts_are_those_of_a_scan),
        cmocka_unit_test(scope_says_what_a_new_prompt_forgets),
        cmocka_unit_test(a_prompt_that_goes_on_with_the_text_is_read_on),
        cmocka_unit_test(texts_are_not_copied_across_their_joint),
        cmocka_unit_test(a_repeated_text_is_accepted_in_long_strides),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(running_out_of_memory_is_an_error_and_leaves_it_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

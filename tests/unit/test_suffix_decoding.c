/* drafters/suffix_tree and drafters/suffix-decoding: the worked examples of methods C 1.10, and counts
 * by scanning as the judge. */
#include "tests/unit/drafter_rig.h"

#include <string.h>

#include "drafters/suffix_tree.h"
#include "harness/core/rng.h"

/* ---- the tree ---- */

static void feed(struct sb_suffix_tree *t, int32_t depth, const sb_token *x, size_t n)
{
    assert_int_equal(sb_suffix_tree_reserve(t, t->n + n, depth, NULL), SB_OK);
    sb_suffix_tree_cut(t);
    for (size_t i = 0; i < n; i++)
        sb_suffix_tree_append(t, x[i]);
}

static int32_t count_of(const struct sb_suffix_tree *t, const sb_token *w, size_t n)
{
    struct sb_suffix_place at;
    return sb_suffix_tree_find(t, w, n, &at) ? t->node[at.node].count : 0;
}

static int32_t occurrences(const sb_token *x, size_t n, const sb_token *w, size_t length)
{
    int32_t count = 0;
    for (size_t i = 0; i + length <= n; i++)
        count += memcmp(x + i, w, length * sizeof *w) == 0;
    return count;
}

static void check(const struct sb_suffix_tree *t)
{
    const char *broken = sb_suffix_tree_check(t);
    if (broken)
        fail_msg("after %zu tokens: %s", t->n, broken);
}

/* Three sequences of one tree; every string over the alphabet is counted after every token or so. */
static void counts_are_those_of_a_scan(void **state)
{
    (void)state;
    enum { SEQUENCES = 3, N = 40, DEPTH = 5 };
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct sb_suffix_tree t = { 0 };
        sb_token x[SEQUENCES][N], w[DEPTH + 1];
        sb_token letters = (sb_token)(1 + seed % 3);
        for (int s = 0; s < SEQUENCES; s++) {
            for (int i = 0; i < N; i++)
                x[s][i] = seed % 5 == 4 ? i / 3 % letters
                                        : (sb_token)sb_rng_below(&rng, (uint64_t)letters);
            feed(&t, DEPTH, x[s], 0);
            for (size_t n = 1; n <= N; n++) {
                assert_int_equal(sb_suffix_tree_reserve(&t, t.n + 1, DEPTH, NULL), SB_OK);
                sb_suffix_tree_append(&t, x[s][n - 1]);
                check(&t);
                for (int32_t l = 1; l <= DEPTH && l <= (int32_t)n; l++) { /* the active ends */
                    struct sb_suffix_place at;
                    assert_true(sb_suffix_tree_find(&t, x[s] + n - l, (size_t)l, &at));
                    assert_int_equal(at.node, sb_suffix_tree_end(&t, l));
                    assert_int_equal(at.offset, t.node[at.node].len);
                }
            }
            int words = 1;
            for (size_t l = 1; l <= DEPTH + 1; l++) {
                words *= letters;
                for (int word = 0; word < words; word++) {
                    int32_t want = 0;
                    for (int i = 0, rest = word; i < (int)l; i++, rest /= letters)
                        w[i] = rest % letters;
                    for (int j = 0; j <= s && l <= DEPTH; j++)
                        want += occurrences(x[j], N, w, l);
                    assert_int_equal(count_of(&t, w, l), want);
                }
            }
        }
        sb_suffix_tree_finish(&t);
    }
}

static void a_long_text_stays_small(void **state)
{
    (void)state;
    enum { N = 4000 };
    static sb_token x[N];
    for (int kind = 0; kind < 4; kind++) {
        struct sb_suffix_tree t = { 0 };
        for (int i = 0; i < N; i++)
            x[i] = kind == 0 ? 5 : kind == 1 ? i % 7 : kind == 2 ? i % 1000 : (i & -i) % 97;
        feed(&t, 64, x, N);
        check(&t);
        assert_int_equal(count_of(&t, x + N - 64, 64), occurrences(x, N, x + N - 64, 64));
        assert_true(t.n_nodes <= 2 * N + 1);
        if (kind == 0) /* one string, as deep as it goes, and the ends of the last 63 */
            assert_true(t.n_nodes <= 65);
        sb_suffix_tree_finish(&t);
    }
}

/* ---- the drafter ---- */

static const sb_token first[] = { 50, 1, 2, 3, 4, 5 }, second[] = { 50, 1, 2, 3, 4, 6 },
                      third[] = { 50, 9, 2, 3, 7 };

/* An answer to the prompt 50. */
static void answer(struct rig *rig, const sb_token *x, size_t n)
{
    rig_begin(rig, x, 2);
    rig_observe(rig, x, n);
}

static void teach(struct rig *rig, const char *drafter)
{
    assert_int_equal(rig_open(rig, drafter, NULL), SB_OK);
    answer(rig, first, 6);
    answer(rig, second, 6);
    answer(rig, third, 5);
}

static void expect(const char *drafter, const sb_token *x, size_t n, const sb_token *token,
                   size_t n_want, const int32_t *parent, int32_t source)
{
    struct rig rig;
    teach(&rig, drafter);
    rig.n_prompt = n; /* no output yet */
    rig_begin(&rig, x, n);
    rig_propose(&rig, x, n);
    rig_expect(&rig, token, parent, (int32_t)n_want);
    if (n_want)
        assert_int_equal(rig.tree.node[1].source, source);
    rig_close(&rig);
}

static void the_worked_examples_hold(void **state)
{
    (void)state;
#define F2 "suffix-decoding:factor=2"
    static const int32_t fork[] = { 0, 1, 1 }, wide[] = { 0, 0, 1, 1 };
    expect(F2, SEQ(0, 1, 2, 3), SEQ(4, 5), NULL, -3);
    expect(F2 ",tree=1", SEQ(0, 1, 2, 3), SEQ(4, 5, 6), fork, -3);
    expect(F2 ",tree=1", SEQ(8, 2, 3), SEQ(4, 7, 5, 6), wide, -2);
    expect(F2 ",tree=1,depth=5", SEQ(1, 2, 3, 4), SEQ(5, 6), wide, -4); /* one level, two nodes */
    expect(F2 ",min_score=1.5", SEQ(0, 1, 2, 3), SEQ(4, 5), NULL, -3);
    expect(F2 ",min_score=1.6", SEQ(0, 1, 2, 3), NULL, 0, NULL, 0);
    expect(F2 ",p_min=0.6", SEQ(0, 1, 2, 3), SEQ(4), NULL, -3);
    expect(F2 ",k=1", SEQ(0, 1, 2, 3), SEQ(4), NULL, -3);
    expect(F2 ",depth=4", SEQ(0, 1, 2, 3), SEQ(4), NULL, -3); /* of equal score, the longest */
    expect("suffix-decoding:scope=prompt,factor=2", SEQ(0, 1, 2, 3), NULL, 0, NULL, 0);
    expect(F2, SEQ(60), NULL, 0, NULL, 0);
    /* The text's own tree wins where it says as much. */
    expect("suffix-decoding", SEQ(9, 8, 9), SEQ(2), NULL, -1);
    expect("suffix-decoding:p_min=0.5", SEQ(2, 8, 2), SEQ(3), NULL, -1);
    expect("suffix-decoding:offset=0,factor=1", SEQ(4, 8, 4), SEQ(8), NULL, 1);
}

/* By definition, in one sequence: best chain over all matches. Returns its length. */
static int32_t scan(const sb_token *x, size_t n, size_t depth, double factor, double p_min,
                    int32_t k, sb_token *draft)
{
    double best = 0;
    int32_t n_best = 0;
    for (size_t p = 1; p < depth && p < n; p++) {
        sb_token w[64], guess[64];
        int32_t got = 0, most = (int32_t)(factor * (double)p + 1e-6);
        double prob = 1, score = 0;
        most = most < k ? most : k;
        memcpy(w, x + n - p, p * sizeof *w);
        while (got < most && p + (size_t)got < depth) {
            int32_t all = occurrences(x, n, w, p + (size_t)got), top = 0;
            sb_token pick = -1;
            for (sb_token t = 0; t < 4; t++) {
                w[p + (size_t)got] = t;
                int32_t count = occurrences(x, n, w, p + (size_t)got + 1);
                if (count > top) {
                    top = count;
                    pick = t;
                }
            }
            prob *= (double)top / all;
            if (pick < 0 || prob < p_min)
                break;
            w[p + (size_t)got] = guess[got] = pick;
            got++;
            score += prob;
        }
        if (got > 0 && score >= best) {
            best = score;
            n_best = got;
            memcpy(draft, guess, (size_t)got * sizeof *guess);
        }
    }
    return n_best;
}

static void drafts_are_those_of_a_scan(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        size_t depth = 3 + seed % 12;
        double factor = seed % 2 ? 1 : 2.5, p_min = seed % 3 ? .1 : .4;
        char *text = sb_strf("suffix-decoding:scope=prompt,depth=%zu,factor=%g,p_min=%g,k=7", depth,
                             factor, p_min);
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct rig rig;
        sb_token x[100], draft[64];
        for (size_t i = 0; i < 100; i++)
            x[i] = (sb_token)sb_rng_below(&rng, 1 + seed % 4);
        assert_int_equal(rig_open(&rig, text, NULL), SB_OK);
        rig.n_prompt = 100; /* nothing is an output */
        size_t n = 1 + sb_rng_below(&rng, 10);
        for (rig_begin(&rig, x, n); n <= 100; n += 1 + sb_rng_below(&rng, 4)) {
            int32_t want = scan(x, n, depth, factor, p_min, 7, draft);
            rig_propose(&rig, x, n);
            rig_expect(&rig, draft, NULL, want);
        }
        rig_close(&rig);
        sb_free(text);
    }
}

/* Three answers of 14 tokens in all are more than keep=10: what is left of them, the third, gives the
 * drafts of a drafter that saw nothing else. */
static void forgetting_leaves_what_the_rest_alone_would_make(void **state)
{
    (void)state;
    struct rig a, b;
    const sb_token x[] = { 0, 1, 2, 3 }, y[] = { 8, 2, 3 };
    teach(&a, "suffix-decoding:factor=2,tree=1,keep=10");
    assert_int_equal(rig_open(&b, "suffix-decoding:factor=2,tree=1", NULL), SB_OK);
    answer(&b, third, 5);
    struct rig *both[] = { &a, &b };
    for (int i = 0; i < 2; i++) {
        both[i]->n_prompt = 4;
        rig_begin(both[i], x, 4);
        rig_propose(both[i], x, 4);
        rig_expect(both[i], (const sb_token[]){ 7 }, NULL, 1);
        both[i]->n_prompt = 3;
        rig_begin(both[i], y, 3);
        rig_propose(both[i], y, 3);
        rig_expect(both[i], (const sb_token[]){ 7 }, NULL, 1);
        rig_close(both[i]);
    }
}

static void outputs_that_are_left_do_not_run_into_one_another(void **state)
{
    (void)state;
    struct rig rig;
    const sb_token ended[] = { 60, 7 }, inside[] = { 60, 8 };
    assert_int_equal(rig_open(&rig, "suffix-decoding:keep=8", NULL), SB_OK);
    answer(&rig, first, 6);
    answer(&rig, SEQ(50, 6, 7));
    answer(&rig, SEQ(50, 8, 9)); /* 9 tokens in all: the last two answers stay */
    rig.n_prompt = 2;
    rig_begin(&rig, ended, 2);
    assert_int_equal(rig_propose(&rig, ended, 2), 0);
    rig_begin(&rig, inside, 2);
    rig_propose(&rig, inside, 2);
    rig_expect(&rig, (const sb_token[]){ 9 }, NULL, 1);
    rig_close(&rig);
}

static void a_second_answer_like_the_first_is_accepted_in_long_strides(void **state)
{
    (void)state;
    sb_token x[201], y[201];
    for (int i = 0; i < 201; i++) {
        x[i] = i * i * 7 % 97;
        y[i] = i < 20 ? 98 : x[i]; /* another prompt */
    }
    struct rig rig;
    int32_t steps, accepted;
    assert_int_equal(rig_open(&rig, "suffix-decoding", NULL), SB_OK);
    rig.n_prompt = 20;
    rig_replay(&rig, x, 20, 201, &steps);
    accepted = rig_replay(&rig, y, 20, 201, &steps);
    assert_true(accepted + steps >= 180 && accepted + steps <= 181);
    assert_true(steps < 30);
    rig_close(&rig);
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    struct rig rig;
    sb_token x[RIG_CONTEXT];
    for (int i = 0; i < RIG_CONTEXT; i++)
        x[i] = i * i % 31;
    assert_int_equal(rig_open(&rig, "suffix-decoding:keep=1000", NULL), SB_OK);
    for (int text = 0; text < 5; text++) {
        rig_begin(&rig, x + text, 20);
        size_t before = sb_alloc_count();
        for (size_t n = 20; n < RIG_CONTEXT - 5; n++)
            rig_propose(&rig, x + text, n);
        assert_int_equal(sb_alloc_count(), before);
    }
    rig_close(&rig);
}

static void running_out_of_memory_is_an_error_and_leaves_it_usable(void **state)
{
    (void)state;
    for (size_t n = 0; n < 3; n++) {
        struct sb_suffix_tree t = { 0 };
        feed(&t, 4, first, 6);
        sb_alloc_fail_after(n);
        assert_int_equal(sb_suffix_tree_reserve(&t, 1000, 4, NULL), SB_ENOMEM);
        sb_alloc_fail_after(SIZE_MAX);
        assert_int_equal(t.cap, 6);
        assert_int_equal(count_of(&t, first + 1, 3), 1);
        check(&t);
        sb_suffix_tree_finish(&t);
    }
    assert_int_equal(sb_suffix_tree_reserve(&(struct sb_suffix_tree){ 0 }, SIZE_MAX / 2, 4, NULL),
                     SB_ENOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_are_those_of_a_scan),
        cmocka_unit_test(a_long_text_stays_small),
        cmocka_unit_test(the_worked_examples_hold),
        cmocka_unit_test(drafts_are_those_of_a_scan),
        cmocka_unit_test(forgetting_leaves_what_the_rest_alone_would_make),
        cmocka_unit_test(outputs_that_are_left_do_not_run_into_one_another),
        cmocka_unit_test(a_second_answer_like_the_first_is_accepted_in_long_strides),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(running_out_of_memory_is_an_error_and_leaves_it_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

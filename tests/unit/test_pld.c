/* drafters/pld: the worked examples of methods C 1.1, and a slow scan by definition as the judge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/decode/drafter.h"

enum { CONTEXT = 256, CAP = 40 };

struct rig {
    void *st, *params;
    struct sb_spec spec;
    struct sb_policy policy;
    struct sb_tree tree;
    const struct sb_drafter_ops *ops;
    int64_t constant_k;
};

static enum sb_status rig_open(struct rig *rig, const char *text, struct sb_error *err)
{
    *rig = (struct rig){ .ops = sb_drafter_find("pld") };
    rig->st = sb_alloc_zero(1, rig->ops->state_size);
    rig->params = sb_alloc_zero(1, rig->ops->params_size);
    rig->policy =
        (struct sb_policy){ .ops = sb_policy_find("constant"), .params = &rig->constant_k };
    assert_int_equal(sb_tree_create(&rig->tree, CAP, NULL), SB_OK);
    assert_int_equal(sb_spec_parse(&rig->spec, text, NULL), SB_OK);
    assert_int_equal(
        sb_params_apply(rig->params, rig->ops->params, &rig->spec, "drafter pld", NULL), SB_OK);
    return rig->ops->open(
        rig->st,
        &(struct sb_drafter_env){
            .max_context = CONTEXT, .n_vocab = 100, .params = rig->params, .policy = &rig->policy },
        err);
}

static void rig_close(struct rig *rig)
{
    rig->ops->close(rig->st);
    sb_tree_finish(&rig->tree);
    sb_spec_finish(&rig->spec);
    sb_free(rig->st);
    sb_free(rig->params);
}

static struct sb_context context(const struct rig *rig, const sb_token *x, size_t n)
{
    return (struct sb_context){ .tokens = x, .n = n, .n_prompt = 1, .policy = &rig->policy };
}

static void rig_begin(struct rig *rig, const sb_token *x, size_t n)
{
    struct sb_context ctx = context(rig, x, n);
    assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

/* Draft for x[0..n); returns how many tokens, in draft[]. */
static int32_t rig_propose(struct rig *rig, const sb_token *x, size_t n, int32_t max_depth,
                           sb_token *draft)
{
    struct sb_context ctx = context(rig, x, n);
    sb_tree_reset(&rig->tree, x[n - 1], max_depth);
    assert_int_equal(rig->ops->propose(rig->st, &ctx, &rig->tree, NULL), SB_OK);
    assert_int_equal(sb_tree_check(&rig->tree, 100, NULL), SB_OK);
    assert_true(sb_tree_is_chain(&rig->tree));
    for (int32_t i = 1; i < rig->tree.n; i++)
        draft[i - 1] = rig->tree.node[i].token;
    return rig->tree.n - 1;
}

#define SEQ(...) \
    (const sb_token[]){ __VA_ARGS__ }, sizeof(sb_token[]){ __VA_ARGS__ } / sizeof(sb_token)

static void expect(const char *text, const sb_token *x, size_t n, const sb_token *want,
                   size_t n_want, int32_t source)
{
    struct rig rig;
    sb_token draft[CAP];
    assert_int_equal(rig_open(&rig, text, NULL), SB_OK);
    rig_begin(&rig, x, n);
    assert_int_equal(rig_propose(&rig, x, n, CAP, draft), n_want);
    for (size_t i = 0; i < n_want; i++)
        assert_int_equal(draft[i], want[i]);
    if (n_want)
        assert_int_equal(rig.tree.node[1].source, source);
    rig_close(&rig);
}

static void the_worked_examples_hold(void **state)
{
    (void)state;
#define LONG  SEQ(5, 6, 7, 8, 9, 5, 6, 7, 1, 2, 5, 6, 7)
#define SHORT SEQ(6, 7, 8, 9, 5, 6, 7, 1, 2, 5, 6, 7)
    expect("pld:k=3,match=ref", LONG, SEQ(8, 9, 5), 3);
    expect("pld:k=3,match=first", LONG, SEQ(8, 9, 5), 3);
    expect("pld:k=3,match=last", LONG, SEQ(1, 2, 5), 3);
    expect("pld:k=3,match=best", LONG, SEQ(1, 2, 5), 3);
    expect("pld:match=ref", LONG, SEQ(8, 9, 5, 6, 7, 1, 2, 5, 6, 7), 3);
    expect("pld:match=first", LONG, SEQ(8, 9, 5, 6, 7, 1, 2, 5, 6, 7), 3);
    expect("pld", LONG, SEQ(1, 2, 5, 6, 7), 3);
    expect("pld:match=first", SHORT, SEQ(1, 2, 5, 6, 7), 3);
    expect("pld:match=last", SHORT, SEQ(1, 2, 5, 6, 7), 3);
    expect("pld:match=ref", SHORT, SEQ(8, 9, 5, 6, 7, 1, 2, 5, 6, 7), 2);
    expect("pld:k=5,match=ref", SHORT, SEQ(1, 2, 5, 6, 7), 3);
    expect("pld:k=5,match=first", SHORT, SEQ(1, 2, 5, 6, 7), 3);
    expect("pld:k=5", SHORT, SEQ(1, 2, 5, 6, 7), 3);
    expect("pld", SEQ(1, 2, 3), NULL, 0, 0);
    expect("pld", SEQ(4), NULL, 0, 0);
    expect("pld:match=best", SEQ(4), NULL, 0, 0);
}

static void the_longest_context_wins_in_best(void **state)
{
    (void)state;
    /* "7" after "9 5 6" at 4, after "2 6" at 8; the end reads "9 5 6 7". */
    expect("pld:k=1,ngram_max=1", SEQ(9, 5, 6, 7, 1, 2, 6, 7, 3, 9, 5, 6, 7), SEQ(3), 1);
    expect("pld:k=1,match=best", SEQ(9, 5, 6, 7, 1, 2, 6, 7, 3, 9, 5, 6, 7), SEQ(1), 4);
    expect("pld:match=best,ngram_min=5,ngram_max=5", SEQ(9, 5, 6, 7, 1, 2, 6, 7, 3, 9, 5, 6, 7),
           NULL, 0, 0);
}

static void wrap_turns_a_loop_into_a_full_draft(void **state)
{
    (void)state;
    expect("pld:k=7", SEQ(1, 2, 3, 1, 2, 3), SEQ(1, 2, 3), 3);
    expect("pld:k=7,wrap=1", SEQ(1, 2, 3, 1, 2, 3), SEQ(1, 2, 3, 1, 2, 3, 1), 3);
    expect("pld:k=3,wrap=1", SEQ(4, 4), SEQ(4, 4, 4), 1);
}

static void a_draft_ends_at_the_end_token_and_at_the_budget(void **state)
{
    (void)state;
    const sb_token x[] = { 1, 2, 3, 9, 4, 1, 2 }, eos[] = { 9 };
    struct rig rig;
    sb_token draft[CAP];
    assert_int_equal(rig_open(&rig, "pld", NULL), SB_OK);
    rig_begin(&rig, x, 7);
    assert_int_equal(rig_propose(&rig, x, 7, 3, draft), 3);
    assert_int_equal(rig_propose(&rig, x, 7, 0, draft), 0);
    rig.tree.eos = eos;
    rig.tree.n_eos = 1;
    assert_int_equal(rig_propose(&rig, x, 7, CAP, draft), 2);
    assert_int_equal(draft[1], 9);
    rig_close(&rig);
}

static void the_policy_sets_the_length(void **state)
{
    (void)state;
    const sb_token x[] = { 1, 2, 3, 4, 5, 6, 1, 2 };
    struct rig rig;
    sb_token draft[CAP];
    assert_int_equal(rig_open(&rig, "pld:k=2", NULL), SB_OK);
    rig_begin(&rig, x, 8);
    assert_int_equal(rig_propose(&rig, x, 8, CAP, draft), 2);
    rig.constant_k = 5;
    assert_int_equal(rig_propose(&rig, x, 8, CAP, draft), 5);
    assert_int_equal(rig.ops->max_nodes(rig.params, &rig.policy), 5);
    rig_close(&rig);
}

static void contradicting_orders_are_refused(void **state)
{
    (void)state;
    struct rig rig;
    struct sb_error err;
    assert_int_equal(rig_open(&rig, "pld:ngram_min=4", &err), SB_EUSAGE);
    assert_string_equal(err.message, "drafter pld: ngram_min=4: expected at most ngram_max=3");
    rig_close(&rig);
}

/* ---- the definition, scanned ---- */

static size_t common_suffix(const sb_token *x, size_t end, size_t n)
{
    size_t m = 0;
    while (m <= end && x[end - m] == x[n - 1 - m])
        m++;
    return m;
}

/* Start of the continuation, or 0. */
static size_t scan(const sb_token *x, size_t n, const char *match, size_t lowest, size_t highest,
                   size_t k)
{
    if (strcmp(match, "best") == 0) {
        size_t best = 0, from = 0;
        for (size_t j = 0; j + 1 < n; j++) {
            size_t m = common_suffix(x, j, n);
            if (m >= lowest && m >= best) {
                best = m;
                from = j + 1;
            }
        }
        return from;
    }
    for (size_t g = highest; g >= lowest; g--) {
        size_t from = 0;
        for (size_t i = 0; i + g < n; i++) {
            if (memcmp(x + i, x + n - g, g * sizeof *x) != 0)
                continue;
            if (strcmp(match, "ref") == 0 && !(i + g + k <= n && i + g < n - g))
                continue;
            from = i + g;
            if (strcmp(match, "last") != 0)
                break;
        }
        if (from)
            return from;
    }
    return 0;
}

static void run_against_scan(const char *match, size_t lowest, size_t highest, size_t k, bool wrap,
                             uint64_t seed, uint64_t letters)
{
    char *text = sb_strf("pld:match=%s,ngram_min=%zu,ngram_max=%zu,k=%zu,wrap=%d", match, lowest,
                         highest, k, wrap);
    struct rig rig;
    assert_int_equal(rig_open(&rig, text, NULL), SB_OK);
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    sb_token x[CONTEXT], draft[CAP];
    for (size_t i = 0; i < CONTEXT; i++)
        x[i] = (sb_token)sb_rng_below(&rng, letters);
    size_t n = 1 + sb_rng_below(&rng, 20);
    rig_begin(&rig, x, n);
    while (n <= 200) {
        int32_t got = rig_propose(&rig, x, n, CAP, draft);
        size_t from = scan(x, n, match, lowest, highest, k), want = from ? n - from : 0;
        want = want > k || (from && wrap) ? k : want;
        assert_int_equal(got, want);
        for (size_t i = 0; i < want; i++)
            assert_int_equal(draft[i], x[from + i % (n - from)]);
        n += 1 + sb_rng_below(&rng, 4); /* several tokens per step */
    }
    rig_close(&rig);
    sb_free(text);
}

static void the_index_gives_the_drafts_of_a_scan(void **state)
{
    (void)state;
    static const char *const matches[] = { "ref", "first", "last", "best" };
    uint64_t seed = 0;
    for (size_t m = 0; m < 4; m++)
        for (size_t lowest = 1; lowest <= 3; lowest++)
            for (size_t highest = lowest; highest <= 5; highest += 2)
                for (size_t k = 1; k <= 12; k += 5)
                    for (uint64_t letters = 1; letters <= 3; letters++, seed++)
                        run_against_scan(matches[m], lowest, highest, k, seed % 2, seed, letters);
}

static void a_new_prompt_forgets_the_old_one(void **state)
{
    (void)state;
    static const char *const specs[] = { "pld", "pld:match=first", "pld:match=best" };
    for (size_t s = 0; s < 3; s++) {
        struct rig rig;
        sb_token draft[CAP];
        const sb_token first[] = { 1, 2, 3, 1 }, second[] = { 7, 8, 9, 1 };
        assert_int_equal(rig_open(&rig, specs[s], NULL), SB_OK);
        rig_begin(&rig, first, 4);
        assert_int_equal(rig_propose(&rig, first, 4, CAP, draft), 3);
        rig_begin(&rig, second, 4);
        assert_int_equal(rig_propose(&rig, second, 4, CAP, draft), 0);
        rig_close(&rig);
    }
}

static void proposing_allocates_nothing(void **state)
{
    (void)state;
    static const char *const specs[] = { "pld", "pld:match=best" };
    for (size_t s = 0; s < 2; s++) {
        struct rig rig;
        sb_token x[CONTEXT], draft[CAP];
        for (int i = 0; i < CONTEXT; i++)
            x[i] = i % 7;
        assert_int_equal(rig_open(&rig, specs[s], NULL), SB_OK);
        size_t before = sb_alloc_count();
        rig_begin(&rig, x, 20);
        for (size_t n = 20; n < CONTEXT; n++)
            rig_propose(&rig, x, n, CAP, draft);
        assert_int_equal(sb_alloc_count(), before);
        rig_close(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worked_examples_hold),
        cmocka_unit_test(the_longest_context_wins_in_best),
        cmocka_unit_test(wrap_turns_a_loop_into_a_full_draft),
        cmocka_unit_test(a_draft_ends_at_the_end_token_and_at_the_budget),
        cmocka_unit_test(the_policy_sets_the_length),
        cmocka_unit_test(contradicting_orders_are_refused),
        cmocka_unit_test(the_index_gives_the_drafts_of_a_scan),
        cmocka_unit_test(a_new_prompt_forgets_the_old_one),
        cmocka_unit_test(proposing_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* drafters/trie-lookahead: the worked examples of methods C 1.7, and counts by scanning as the judge. */
#include "tests/unit/drafter_rig.h"

#include <string.h>

#include "harness/core/rng.h"

/* The card's prompt, and its queries behind it as output that is no branch yet. */
static const sb_token text[] = { 1, 2, 3, 1, 2, 4, 1, 2, 3, 5, 0, 0 };

static void expect(const char *drafter, const sb_token *query, size_t n_query,
                   const sb_token *token, size_t n_want, const int32_t *parent)
{
    struct rig rig;
    sb_token x[12];
    memcpy(x, text, sizeof x);
    memcpy(x + 10, query, n_query * sizeof *x);
    assert_int_equal(rig_open(&rig, drafter, NULL), SB_OK);
    rig.n_prompt = 10;
    rig_begin(&rig, x, 10 + n_query);
    rig_propose(&rig, x, 10 + n_query);
    rig_expect(&rig, token, parent, (int32_t)n_want);
    rig_close(&rig);
}

static void the_worked_examples_hold(void **state)
{
    (void)state;
#define B3 "trie-lookahead:branch=3"
    static const int32_t five[] = { 0, 1, 1, 0, 4 }, seven[] = { 0, 1, 2, 1, 0, 5, 6 };
    static const int32_t cut[] = { 0, 1, 1 }, best[] = { 0, 1, 0 };
    expect(B3, SEQ(1, 2), SEQ(3, 1, 5, 4, 1), five);
    expect(B3 ",select=dfs", SEQ(1, 2), SEQ(3, 1, 5, 4, 1), five);
    expect(B3, SEQ(9, 2), SEQ(3, 1, 2, 5, 4, 1, 2), seven);
    expect(B3 ",query=1", SEQ(1, 2), SEQ(3, 1, 2, 5, 4, 1, 2), seven);
    expect(B3 ",select=dfs,k=3", SEQ(1, 2), SEQ(3, 1, 5), cut);
    expect(B3 ",k=3", SEQ(1, 2), SEQ(3, 1, 4), best); /* 4 is older than 5 */
    expect("trie-lookahead", SEQ(1, 9), NULL, 0, NULL);
    /* "3 1" was followed by "2 4", once; that is thin, so what followed "1" takes over. */
    expect("trie-lookahead:k=3", SEQ(3, 1), SEQ(2, 3, 1), NULL);
}

static void nothing_is_left_of_a_prompt_without_output(void **state)
{
    (void)state;
    struct rig rig;
    sb_token x[12], y[] = { 60, 1, 2 };
    memcpy(x, text, sizeof x);
    assert_int_equal(rig_open(&rig, B3, NULL), SB_OK);
    rig.n_prompt = 10;
    x[10] = 70;
    rig_begin(&rig, x, 11);
    rig.n_prompt = 2;
    rig_begin(&rig, y, 3);
    assert_int_equal(rig_propose(&rig, y, 3), 0);
    rig_close(&rig);
}

static void scope_says_whether_outputs_stay(void **state)
{
    (void)state;
    static const char *const specs[] = { B3 ",scope=prompt", B3 ",scope=conversation", B3 };
    const sb_token x[] = { 50, 51, 1, 2, 3, 4, 5 }, next[] = { 50, 51, 9, 2 },
                   other[] = { 8, 8, 2 };
    for (int s = 0; s < 3; s++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, specs[s], NULL), SB_OK);
        rig.n_prompt = 2;
        rig_begin(&rig, x, 3);
        rig_observe(&rig, x, 7); /* 2 3 4 5 is a branch; 3 4 5 is when the next prompt comes */
        rig.n_prompt = 3;
        rig_begin(&rig, next, 4);
        rig_propose(&rig, next, 4);
        rig_expect(&rig, (const sb_token[]){ 3, 4, 5 }, NULL, s >= 1 ? 3 : 0);
        rig.n_prompt = 2;
        rig_begin(&rig, other, 3);
        rig_propose(&rig, other, 3);
        rig_expect(&rig, (const sb_token[]){ 3, 4, 5 }, NULL, s >= 2 ? 3 : 0);
        rig_close(&rig);
    }
}

static void a_branch_counts_once_all_its_tokens_are_there(void **state)
{
    (void)state;
    struct rig rig;
    const sb_token x[] = { 50, 1, 2, 3, 4, 1, 2, 3, 4 };
    assert_int_equal(rig_open(&rig, B3, NULL), SB_OK);
    rig_begin(&rig, x, 2);
    for (size_t n = 2; n <= 9; n++) {
        int32_t got = rig_propose(&rig, x, n);
        /* 1 2 3 4 is in from n = 5 on, 2 3 4 1 from 6, 3 4 1 2 from 7, 4 1 2 3 from 8 */
        assert_int_equal(got, n < 6 ? 0 : 3);
    }
    rig_close(&rig);
}

static void outputs_get_half_of_a_full_draft(void **state)
{
    (void)state;
    struct rig rig;
    const sb_token x[] = { 50, 1, 7, 1, 7, 8, 9, 50 }; /* output: 1 7 */
    const sb_token y[] = { 60, 1, 2, 1, 3, 1, 4, 60, 1 };
    assert_int_equal(rig_open(&rig, "trie-lookahead:branch=1,query=1,k=2", NULL), SB_OK);
    rig_begin(&rig, x, 2);
    rig_observe(&rig, x, 8);
    rig.n_prompt = 8;
    rig_begin(&rig, y, 9);
    rig_propose(&rig, y, 9);
    /* By weight the prompt's 2 and 3 were first; 7 has the half that is for outputs. */
    rig_expect(&rig, (const sb_token[]){ 2, 7 }, (const int32_t[]){ 0, 0 }, 2);
    /* Best by both: taken once. */
    const sb_token z[] = { 60, 1, 7, 1, 2, 1, 3, 60, 1 };
    rig_begin(&rig, z, 9);
    rig_propose(&rig, z, 9);
    rig_expect(&rig, (const sb_token[]){ 7, 2 }, (const int32_t[]){ 0, 0 }, 2);
    rig_close(&rig);
}

static void branches_end_with_the_text(void **state)
{
    (void)state;
    struct rig rig;
    const sb_token eos[] = { 3 }, x[] = { 1, 2, 3, 4, 5, 6, 2 }, y[] = { 1, 2, 3, 4, 5, 6, 3 };
    assert_int_equal(rig_open(&rig, B3, NULL), SB_OK);
    rig.ops->close(rig.st);
    struct sb_drafter_env env = { .max_context = RIG_CONTEXT,
                                  .n_vocab = RIG_VOCAB,
                                  .params = rig.params,
                                  .policy = &rig.policy,
                                  .eos = eos,
                                  .n_eos = 1 };
    memset(rig.st, 0, rig.ops->state_size);
    assert_int_equal(rig.ops->open(rig.st, &env, NULL), SB_OK);
    rig.n_prompt = 6;
    rig_begin(&rig, x, 7);
    rig_propose(&rig, x, 7);
    rig_expect(&rig, (const sb_token[]){ 3 }, NULL, 1);
    assert_int_equal(rig_propose(&rig, y, 7), 0);
    rig_close(&rig);
}

/* Learned in steps of any size, outputs give the drafts of the next prompts. */
static void streaming_equals_learning_at_once(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct rig rig[2];
        sb_token x[60];
        for (int i = 0; i < 60; i++)
            x[i] = (sb_token)sb_rng_below(&rng, 3);
        for (int r = 0; r < 2; r++) {
            assert_int_equal(rig_open(&rig[r], "trie-lookahead:branch=5", NULL), SB_OK);
            rig[r].n_prompt = 4;
            rig_begin(&rig[r], x, 5);
            for (size_t n = 6; r == 0 && n < 60; n += 1 + sb_rng_below(&rng, 5))
                rig_observe(&rig[r], x, n);
            rig_observe(&rig[r], x, 60);
        }
        for (sb_token a = 0; a < 9; a++) {
            const sb_token y[] = { 50, a / 3, a % 3 };
            for (int r = 0; r < 2; r++) {
                rig[r].n_prompt = 1;
                rig_begin(&rig[r], y, 3);
                rig_propose(&rig[r], y, 3);
            }
            assert_int_equal(rig[0].tree.n, rig[1].tree.n);
            for (int32_t i = 0; i < rig[0].tree.n; i++) {
                assert_int_equal(rig[0].tree.node[i].token, rig[1].tree.node[i].token);
                assert_int_equal(rig[0].tree.node[i].parent, rig[1].tree.node[i].parent);
            }
        }
        for (int r = 0; r < 2; r++)
            rig_close(&rig[r]);
    }
}

/* Occurrences of w in the prompt, within a branch of B tokens behind its first. */
static int32_t occurrences(const sb_token *x, size_t n, const sb_token *w, size_t length, size_t b)
{
    int32_t count = 0;
    for (size_t i = 0; i + length <= n && i + 1 < n && length <= b + 1; i++)
        count += memcmp(x + i, w, length * sizeof *w) == 0;
    return count;
}

/* All strings that follow the query, or the best counted of them, better siblings first. */
static void trees_hold_the_best_counted_continuations(void **state)
{
    (void)state;
    enum { N = 40, B = 4, LETTERS = 3, Q = 1 };
    for (uint64_t seed = 0; seed < 40; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
        struct rig rig;
        int32_t k = seed % 2 ? 200 : (int32_t)(2 + seed % 9), all = 0, worst = N, best_left = 0;
        char *drafter = sb_strf("trie-lookahead:branch=4,query=1,k=%d", (int)(k < 129 ? k : 129));
        sb_token x[N + 1], w[B + 1];
        for (int i = 0; i <= N; i++)
            x[i] = (sb_token)sb_rng_below(&rng, LETTERS);
        assert_int_equal(rig_open(&rig, drafter, NULL), SB_OK);
        rig.n_prompt = N;
        rig_begin(&rig, x, N + 1);
        rig_propose(&rig, x, N + 1);
        const struct sb_tree *tree = &rig.tree;
        int32_t count[RIG_CAP];
        for (int32_t i = 1; i < tree->n; i++) {
            const struct sb_node *node = &tree->node[i];
            for (int32_t at = i; at >= 0; at = tree->node[at].parent)
                w[tree->node[at].depth] = tree->node[at].token;
            count[i] = occurrences(x, N, w, (size_t)node->depth + 1, B);
            assert_true(count[i] > 0);
            worst = count[i] < worst ? count[i] : worst;
            for (int32_t j = 1; j < i; j++)
                if (tree->node[j].parent == node->parent)
                    assert_true(count[j] >= count[i]);
        }
        for (int length = 1, words = LETTERS; length <= B; length++, words *= LETTERS)
            for (int word = 0; word < words; word++) {
                int32_t node = 0;
                w[0] = x[N];
                for (int i = 1, rest = word; i <= length; i++, rest /= LETTERS) {
                    w[i] = rest % LETTERS;
                    node = node < 0 ? node : sb_tree_child(tree, node, w[i]);
                }
                int32_t c = occurrences(x, N, w, (size_t)length + 1, B);
                all += c > 0;
                best_left = node < 0 && c > best_left ? c : best_left;
            }
        assert_int_equal(tree->n - 1, all < k ? all : k);
        assert_true(tree->n == 1 || best_left <= worst);
        rig_close(&rig);
        sb_free(drafter);
    }
}

static void forgetting_keeps_what_is_counted_most(void **state)
{
    (void)state;
    struct rig rig;
    assert_int_equal(rig_open(&rig, "trie-lookahead:branch=1,query=1,keep=6", NULL), SB_OK);
    /* Output: 1 2 three times, then pairs that come once. */
    const sb_token x[] = { 50, 1, 2, 1, 2, 1, 2, 30, 31, 32, 33, 34 };
    const sb_token y[] = { 60, 1 }, z[] = { 60, 31 };
    rig_begin(&rig, x, 2);
    rig_observe(&rig, x, 12);
    rig_begin(&rig, y, 2);
    rig_propose(&rig, y, 2);
    rig_expect(&rig, (const sb_token[]){ 2 }, NULL, 1);
    rig_begin(&rig, z, 2);
    assert_int_equal(rig_propose(&rig, z, 2), 0);
    rig_close(&rig);
}

static void steps_allocate_nothing_and_prompts_go_on_for_ever(void **state)
{
    (void)state;
    struct rig rig;
    sb_token x[RIG_CONTEXT];
    struct sb_rng rng = sb_rng_make(1, SB_STREAM_DATA);
    assert_int_equal(rig_open(&rig, "trie-lookahead:keep=300", NULL), SB_OK);
    size_t before = sb_alloc_count();
    for (int prompt = 0; prompt < 30; prompt++) {
        for (int i = 0; i < RIG_CONTEXT; i++)
            x[i] = (sb_token)sb_rng_below(&rng, prompt % 3 ? 90 : 2);
        rig_begin(&rig, x, 2);
        for (size_t n = 2; n <= RIG_CONTEXT; n += 5)
            rig_propose(&rig, x, n);
    }
    assert_int_equal(sb_alloc_count(), before);
    rig_close(&rig);
}

static void a_repeated_text_is_accepted(void **state)
{
    (void)state;
    sb_token x[301];
    for (int i = 0; i < 301; i++)
        x[i] = (i % 50) * (i % 50) % 97;
    struct rig rig;
    int32_t steps;
    assert_int_equal(rig_open(&rig, "trie-lookahead", NULL), SB_OK);
    rig.n_prompt = 60;
    rig_replay(&rig, x, 60, 301, &steps);
    assert_true(steps < 40); /* 240 tokens, 12 at most a draft */
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worked_examples_hold),
        cmocka_unit_test(nothing_is_left_of_a_prompt_without_output),
        cmocka_unit_test(scope_says_whether_outputs_stay),
        cmocka_unit_test(a_branch_counts_once_all_its_tokens_are_there),
        cmocka_unit_test(outputs_get_half_of_a_full_draft),
        cmocka_unit_test(branches_end_with_the_text),
        cmocka_unit_test(streaming_equals_learning_at_once),
        cmocka_unit_test(trees_hold_the_best_counted_continuations),
        cmocka_unit_test(forgetting_keeps_what_is_counted_most),
        cmocka_unit_test(steps_allocate_nothing_and_prompts_go_on_for_ever),
        cmocka_unit_test(a_repeated_text_is_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* drafters/jacobi and drafters/lookahead: the worked traces of methods C 2.1 and 2.2 on targets that are
 * formulas, and the window's mask by its three rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/rng.h"
#include "harness/decode/drafter.h"

enum { V = 16, CAP = 120, CONTEXT = 300 };

/* The target: the next token by what came before. */
typedef sb_token rule(const sb_token *x, size_t n);

struct rig {
    void *st, *params;
    struct sb_spec spec;
    struct sb_policy policy;
    struct sb_tree tree;
    const struct sb_drafter_ops *ops;
    int64_t constant_k;
    rule *next;
    sb_token text[CONTEXT + CAP]; /* the paths of a draft behind it */
    size_t n, n_prompt;
    size_t budget; /* tokens that may still come, the final token of a step included */
};

/* Rows of the last step. sb_seq_logits is replaced by the linker: a drafter reads these. */
static float logits[CAP][V];
static bool has_row[CAP];

const float *__wrap_sb_seq_logits(const struct sb_seq *seq, size_t row);
const float *__wrap_sb_seq_logits(const struct sb_seq *seq, size_t row)
{
    return has_row[row] ? logits[row] : NULL;
}

static enum sb_status rig_open(struct rig *rig, const char *text, rule *next, struct sb_error *err)
{
    *rig = (struct rig){ .next = next, .budget = CONTEXT };
    assert_int_equal(sb_spec_parse(&rig->spec, text, NULL), SB_OK);
    rig->ops = sb_drafter_find(rig->spec.name);
    rig->st = sb_alloc_zero(1, rig->ops->state_size);
    rig->params = sb_alloc_zero(1, rig->ops->params_size);
    rig->policy =
        (struct sb_policy){ .ops = sb_policy_find("constant"), .params = &rig->constant_k };
    assert_int_equal(sb_tree_create(&rig->tree, CAP, NULL), SB_OK);
    assert_int_equal(sb_params_apply(rig->params, rig->ops->params, &rig->spec, "it", NULL), SB_OK);
    return rig->ops->open(
        rig->st,
        &(struct sb_drafter_env){
            .max_context = CONTEXT, .n_vocab = V, .params = rig->params, .policy = &rig->policy },
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

static struct sb_context context(const struct rig *rig)
{
    return (struct sb_context){
        .tokens = rig->text, .n = rig->n, .n_prompt = rig->n_prompt, .policy = &rig->policy
    };
}

static void rig_begin(struct rig *rig, const sb_token *prompt, size_t n)
{
    memcpy(rig->text, prompt, n * sizeof *prompt);
    rig->n_prompt = n;
    rig->text[n] = rig->next(prompt, n);
    rig->n = n + 1;
    struct sb_context ctx = context(rig);
    assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

static void rig_propose(struct rig *rig)
{
    struct sb_context ctx = context(rig);
    sb_tree_reset(&rig->tree, rig->text[rig->n - 1], (int32_t)rig->budget - 1);
    assert_int_equal(rig->ops->propose(rig->st, &ctx, &rig->tree, NULL), SB_OK);
    assert_int_equal(sb_tree_check(&rig->tree, V, NULL), SB_OK);
    assert_true(rig->tree.n - 1 <= rig->ops->max_nodes(rig->params, &rig->policy));
}

/* What the target says after a node, by the path to it. */
static sb_token said(struct rig *rig, int32_t node)
{
    size_t n = rig->n + (size_t)rig->tree.node[node].depth;
    for (int32_t at = node; at > 0; at = rig->tree.node[at].parent)
        rig->text[rig->n - 1 + (size_t)rig->tree.node[at].depth] = rig->tree.node[at].token;
    return rig->next(rig->text, n);
}

/* Verify greedily and let the drafter look. Returns how many tokens were accepted. */
static int32_t rig_settle(struct rig *rig)
{
    const struct sb_tree *tree = &rig->tree;
    int32_t path[CAP] = { 0 }, n_path = 1, child;
    memset(logits, 0, sizeof logits);
    for (int32_t i = 0; i < tree->n; i++) {
        has_row[i] = !tree->node[i].unread;
        logits[i][said(rig, i)] = 1;
    }
    while ((child = sb_tree_child(tree, path[n_path - 1], said(rig, path[n_path - 1]))) >= 0)
        path[n_path++] = child;
    sb_token final = said(rig, path[n_path - 1]); /* writes the path into the text */
    rig->n += (size_t)n_path;
    rig->text[rig->n - 1] = final;
    rig->budget -= (size_t)n_path;
    struct sb_context ctx = context(rig);
    const struct sb_outcome outcome = {
        .tree = tree, .path = path, .n_path = n_path, .final_token = final
    };
    assert_int_equal(rig->ops->observe(rig->st, &ctx, &outcome, NULL), SB_OK);
    return n_path - 1;
}

static void assert_text_is_plain(struct rig *rig)
{
    for (size_t n = rig->n_prompt; n < rig->n; n++)
        assert_int_equal(rig->text[n], rig->next(rig->text, n));
}

static sb_token same_again(const sb_token *x, size_t n)
{
    return x[n - 1];
}

static sb_token formula(const sb_token *x, size_t n)
{
    return (2 * x[n - 1] + x[n - 2] + 1) % 7;
}

static sb_token count_by_5(const sb_token *x, size_t n)
{
    return (x[n - 1] + 1) % 5;
}

/* Some function of the last three tokens. */
static sb_token scramble(const sb_token *x, size_t n)
{
    uint64_t h = 0;
    for (size_t i = n > 3 ? n - 3 : 0; i < n; i++)
        h = sb_rng_mix(h, (uint64_t)x[i]);
    return (sb_token)(h % 4);
}

/* ---- jacobi ---- */

static void expect_guess(struct rig *rig, const sb_token *want, int32_t n)
{
    rig_propose(rig);
    assert_true(sb_tree_is_chain(&rig->tree));
    assert_int_equal(rig->tree.n - 1, n);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(rig->tree.node[i + 1].token, want[i]);
}

#define SEQ(...) \
    (const sb_token[]){ __VA_ARGS__ }, sizeof(sb_token[]){ __VA_ARGS__ } / sizeof(sb_token)

static void jacobi_settles_at_once_where_nothing_changes(void **state)
{
    (void)state;
    struct rig rig;
    assert_int_equal(rig_open(&rig, "jacobi:m=4", same_again, NULL), SB_OK);
    rig_begin(&rig, SEQ(3));
    for (int step = 0; step < 5; step++) {
        expect_guess(&rig, SEQ(3, 3, 3, 3));
        assert_int_equal(rig_settle(&rig), 4);
    }
    assert_int_equal(rig.n, 2 + 5 * 5);
    rig_close(&rig);
}

static void jacobi_follows_the_worked_trace(void **state)
{
    (void)state;
    struct rig rig;
    assert_int_equal(rig_open(&rig, "jacobi:m=4", formula, NULL), SB_OK);
    rig_begin(&rig, SEQ(1, 2));
    assert_int_equal(rig.text[2], 6);
    expect_guess(&rig, SEQ(6, 6, 6, 6));
    assert_int_equal(rig_settle(&rig), 0); /* rows 1 5 5 5 5 */
    expect_guess(&rig, SEQ(5, 5, 5, 5));
    assert_int_equal(rig_settle(&rig), 0); /* rows 2 5 2 2 2 */
    expect_guess(&rig, SEQ(5, 2, 2, 2));
    assert_int_equal(rig_settle(&rig), 0); /* rows 6 6 3 0 0 */
    expect_guess(&rig, SEQ(6, 3, 0, 0));
    assert_memory_equal(rig.text + 2, ((sb_token[]){ 6, 1, 2, 6 }), 4 * sizeof(sb_token));
    rig_close(&rig);
}

static void fillers_stand_where_nothing_was_said(void **state)
{
    (void)state;
    static const struct {
        const char *drafter;
        sb_token want[4];
    } cases[] = {
        { "jacobi:m=4", { 3, 4, 4, 4 } },
        { "jacobi:m=4,fill=root", { 3, 4, 2, 2 } },
        { "jacobi:m=4,fill=prompt", { 3, 4, 0, 0 } }, /* a prompt of one token */
    };
    for (size_t i = 0; i < 3; i++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, cases[i].drafter, count_by_5, NULL), SB_OK);
        rig_begin(&rig, SEQ(0));
        struct sb_context ctx = context(&rig);
        sb_tree_reset(&rig.tree, 1, 3);
        rig.constant_k = 2;
        assert_int_equal(rig.ops->propose(rig.st, &ctx, &rig.tree, NULL), SB_OK);
        assert_int_equal(rig.tree.n, 3); /* the root says 2, the nodes 3 and 4 */
        memset(logits, 0, sizeof logits);
        for (int32_t n = 0; n < 3; n++) {
            has_row[n] = true;
            logits[n][n + 2] = 1;
        }
        const struct sb_outcome outcome = {
            .tree = &rig.tree, .path = (int32_t[]){ 0 }, .n_path = 1, .final_token = 2
        };
        rig.text[rig.n++] = 2;
        ctx = context(&rig);
        assert_int_equal(rig.ops->observe(rig.st, &ctx, &outcome, NULL), SB_OK);
        rig.constant_k = 4;
        expect_guess(&rig, cases[i].want, 4);
        rig_close(&rig);
    }
}

/* ---- lookahead ---- */

static void expect_window(const struct rig *rig, const sb_token *want, size_t n)
{
    const struct sb_tree *tree = &rig->tree;
    assert_int_equal(tree->n_auxiliary, n);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(tree->node[(size_t)tree->n - n + i].token, want[i]);
}

static void lookahead_follows_the_worked_trace(void **state)
{
    (void)state;
    static const struct {
        sb_token root, window[5];
        size_t n_window;
        int32_t drafted, accepted;
    } steps[] = {
        { 2, { 0, 1, 0 }, 3, 0, 0 },       { 3, { 1, 0, 1, 2, 1 }, 5, 0, 0 },
        { 4, { 2, 1, 2, 3, 2 }, 5, 0, 0 }, { 0, { 3, 2, 3, 4, 3 }, 5, 2, 2 },
        { 3, { 4, 3, 4, 0, 4 }, 5, 4, 2 }, { 1, { 0, 4, 0, 1, 0 }, 5, 2, 2 },
        { 4, { 1, 0, 1, 2, 1 }, 5, 4, 2 },
    };
    struct rig rig;
    assert_int_equal(
        rig_open(&rig, "lookahead:window=3,ngram=3,guesses=2,start=cyclic", count_by_5, NULL),
        SB_OK);
    rig_begin(&rig, SEQ(0, 1));
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        assert_int_equal(rig.text[rig.n - 1], steps[i].root);
        rig_propose(&rig);
        expect_window(&rig, steps[i].window, steps[i].n_window);
        assert_int_equal(sb_tree_drafted(&rig.tree), steps[i].drafted);
        if (i == 3) {
            assert_int_equal(rig.tree.node[1].token, 1);
            assert_int_equal(rig.tree.node[2].token, 2);
        }
        assert_int_equal(rig_settle(&rig), steps[i].accepted);
    }
    assert_text_is_plain(&rig);
    assert_int_equal(rig.n - rig.n_prompt, 16);
    rig_close(&rig);
}

/* Depth of window row r, column j is r + j + 1 in row 0, r + j in the others; a row sees row 0 up to its
 * column, and the diagonal of the rows above. */
static void assert_mask(const struct sb_tree *tree, int32_t first, int32_t n_rows, int32_t width)
{
    int32_t before[16] = { 0 }; /* first node of each row */
    for (int32_t r = 0, at = first; r < n_rows; at += r++ ? width + 1 : width)
        before[r] = at;
    for (int32_t r = 0; r < n_rows; r++) {
        for (int32_t j = 0; j < (r ? width + 1 : width); j++) {
            bool want[CAP] = { [0] = true };
            for (int32_t i = 0; i < (r ? j : j + 1); i++)
                want[before[0] + i] = true;
            for (int32_t above = 1; above <= r; above++)
                want[before[above] + j] = true;
            int32_t node = before[r] + j;
            assert_int_equal(tree->node[node].depth, r ? r + j : j + 1);
            assert_true(tree->node[node].auxiliary);
            assert_int_equal(tree->node[node].unread, r + 1 < n_rows);
            bool got[CAP] = { [0] = true };
            for (int32_t at = node; at > 0; at = tree->node[at].parent)
                got[at] = true;
            assert_memory_equal(got, want, sizeof got);
        }
    }
}

static void parent_links_are_the_mask_of_the_three_rules(void **state)
{
    (void)state;
    size_t accepted = 0;
    for (int W = 1; W <= 6; W++)
        for (int N = 3; N <= 6; N++)
            for (int G = 1; G <= 6; G++) {
                struct rig rig;
                char *text = sb_strf("lookahead:window=%d,ngram=%d,guesses=%d,prompt_pool=%d", W, N,
                                     G, G % 2);
                assert_int_equal(rig_open(&rig, text, scramble, NULL), SB_OK);
                rig_begin(&rig, SEQ(0, 1, 2, 1, 0, 1, 2, 3, 0, 1, 2));
                for (int step = 0; step < 25; step++) {
                    int32_t n_rows = step < N - 2 ? step + 1 : N - 1, width = W + N - 2 - n_rows;
                    rig_propose(&rig);
                    int32_t drafted = sb_tree_drafted(&rig.tree);
                    assert_true(drafted <= G * (N - 1) && sb_tree_depth(&rig.tree) <= N - 1);
                    assert_int_equal(rig.tree.n_auxiliary, width + (n_rows - 1) * (width + 1));
                    assert_mask(&rig.tree, 1 + drafted, n_rows, width);
                    accepted += (size_t)rig_settle(&rig);
                }
                assert_text_is_plain(&rig);
                rig_close(&rig);
                sb_free(text);
            }
    assert_true(accepted > 400);
}

/* W=5, N=4, G=2: 21 rows when two guesses differ at once. */
static void a_full_step_has_the_rows_of_the_card(void **state)
{
    (void)state;
    static const int32_t depths[] = { 1, 2, 3, 4, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6 };
    struct rig rig;
    assert_int_equal(
        rig_open(&rig, "lookahead:window=5,ngram=4,guesses=2,prompt_pool=1", same_again, NULL),
        SB_OK);
    /* 9 is followed by 1 1 1, 2 2 2 and 3 3 3: the oldest is dropped. */
    rig_begin(&rig, SEQ(9, 1, 1, 1, 9, 2, 2, 2, 9, 3, 3, 3, 7, 9));
    rig_propose(&rig);
    assert_int_equal(sb_tree_drafted(&rig.tree), 6);
    for (int32_t i = 0; i < 6; i++) {
        assert_int_equal(rig.tree.node[1 + i].token, i < 3 ? 2 : 3);
        assert_int_equal(rig.tree.node[1 + i].depth, 1 + i % 3);
    }
    rig.constant_k = 1; /* the policy bounds guesses, not the window */
    rig_propose(&rig);
    assert_int_equal(sb_tree_drafted(&rig.tree), 2);
    assert_int_equal(rig.tree.n_auxiliary, 6);
    rig_settle(&rig);
    rig.constant_k = 0;
    rig_propose(&rig);
    rig_settle(&rig);
    rig_propose(&rig); /* the window is full, and the pool as it was */
    assert_int_equal(rig.tree.n, 21);
    for (size_t i = 0; i < 14; i++)
        assert_int_equal(rig.tree.node[(size_t)rig.tree.n - 14 + i].depth, depths[i]);
    rig_close(&rig);
}

static void a_window_without_room_pauses(void **state)
{
    (void)state;
    struct rig rig;
    assert_int_equal(
        rig_open(&rig, "lookahead:window=3,ngram=3,guesses=2,start=cyclic", count_by_5, NULL),
        SB_OK);
    rig_begin(&rig, SEQ(0, 1));
    rig_propose(&rig);
    rig_settle(&rig);
    rig.tree.cap = 5;
    rig_propose(&rig);
    assert_int_equal(rig.tree.n, 1);
    rig_settle(&rig);
    rig.tree.cap = 6;
    rig_propose(&rig);
    expect_window(&rig, SEQ(1, 0, 1, 2, 1));
    rig.budget = 1; /* the last token */
    rig_propose(&rig);
    assert_int_equal(rig.tree.n, 1);
    rig.tree.cap = CAP;
    rig_close(&rig);
}

static void a_step_is_bounded_as_a_whole(void **state)
{
    (void)state;
    struct rig rig;
    struct sb_error err;
    assert_int_equal(rig_open(&rig, "lookahead:window=64,ngram=16,guesses=64", count_by_5, &err),
                     SB_EUSAGE);
    assert_string_equal(err.message, "drafter lookahead: window=64, ngram=16, guesses=64: 1919 "
                                     "tokens per step, expected at most 1000");
    rig_close(&rig);
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    static const char *const drafters[] = { "jacobi", "lookahead:prompt_pool=1" };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        assert_int_equal(rig_open(&rig, drafters[i], scramble, NULL), SB_OK);
        size_t before = sb_alloc_count();
        rig_begin(&rig, SEQ(0, 1, 2, 3, 0, 1, 2));
        for (int step = 0; step < 40 && rig.budget > 1; step++) {
            rig_propose(&rig);
            rig_settle(&rig);
        }
        assert_int_equal(sb_alloc_count(), before);
        assert_text_is_plain(&rig);
        rig_close(&rig);
    }
}

static void memory_that_runs_out_is_told(void **state)
{
    (void)state;
    static const struct {
        const char *drafter;
        size_t n;
    } cases[] = { { "jacobi", 1 }, { "lookahead", 5 } };
    for (size_t c = 0; c < 2; c++) {
        for (size_t i = 0; i <= cases[c].n; i++) {
            struct rig rig;
            struct sb_spec spec;
            assert_int_equal(rig_open(&rig, cases[c].drafter, scramble, NULL), SB_OK);
            rig.ops->close(rig.st);
            assert_int_equal(sb_spec_parse(&spec, cases[c].drafter, NULL), SB_OK);
            const struct sb_drafter_env env = {
                .max_context = CONTEXT, .n_vocab = V, .params = rig.params, .policy = &rig.policy
            };
            sb_alloc_fail_after(i);
            enum sb_status rc = rig.ops->open(rig.st, &env, NULL);
            sb_alloc_fail_after(SIZE_MAX);
            assert_int_equal(rc, i < cases[c].n ? SB_ENOMEM : SB_OK);
            sb_spec_finish(&spec);
            rig_close(&rig);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jacobi_settles_at_once_where_nothing_changes),
        cmocka_unit_test(jacobi_follows_the_worked_trace),
        cmocka_unit_test(fillers_stand_where_nothing_was_said),
        cmocka_unit_test(lookahead_follows_the_worked_trace),
        cmocka_unit_test(parent_links_are_the_mask_of_the_three_rules),
        cmocka_unit_test(a_full_step_has_the_rows_of_the_card),
        cmocka_unit_test(a_window_without_room_pauses),
        cmocka_unit_test(a_step_is_bounded_as_a_whole),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(memory_that_runs_out_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

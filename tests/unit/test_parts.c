/* Drafters made of two others: whose draft it is, what each part sees, and what drafters declare about
 * themselves. Parts draft from the text, on rows that this test makes up. */
#include "tests/unit/drafter_rig.h"

#include <string.h>

/* ---- made-up rows: the next id is the likeliest, the one after it comes second ---- */

static const int target_mark;
static const struct sb_seq *const target = (const struct sb_seq *)&target_mark;
static int rows_read;
static const sb_token *row_token; /* token of each node; NULL: none is looked at */

const float *__wrap_sb_seq_logits(const struct sb_seq *seq, size_t row);
const float *__wrap_sb_seq_logits(const struct sb_seq *seq, size_t row)
{
    static float logits[RIG_VOCAB];
    assert_ptr_equal(seq, target);
    rows_read++;
    for (sb_token t = 0; t < RIG_VOCAB; t++)
        logits[t] = 0;
    sb_token token = row_token ? row_token[row] : 0;
    logits[(token + 1) % RIG_VOCAB] = 2;
    logits[(token + 2) % RIG_VOCAB] = 1;
    return logits;
}

/* ---- drafting ---- */

static void open_rig(struct rig *rig, const char *text)
{
    struct sb_error err = { .message = "" };
    if (rig_open(rig, text, &err) != SB_OK)
        fail_msg("%s: %s", text, err.message);
}

static void begin(struct rig *rig, const sb_token *x, size_t n)
{
    struct sb_context ctx = rig_context(rig, x, n);
    if (rig->ops->begin)
        assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

static void expect_sources(const struct rig *rig, const int32_t *source, int32_t n)
{
    assert_int_equal(rig->tree.n - 1, n);
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(rig->tree.node[i + 1].source, source[i]);
}

/* The end of the text is matched over 3 tokens by sam, over 1 by the pld of one-token n-grams. */
static const sb_token text[] = { 1, 2, 3, 4, 9, 3, 8, 1, 2, 3 };
enum { N = sizeof text / sizeof *text };

static void delegate_drafts_from_a_where_its_match_is_long(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "delegate:a='sam:k=2',b='pld:k=1,ngram_max=1',min_match=3",
        "delegate:a='sam:k=2',b='pld:k=1,ngram_max=1',min_match=4"
    };
    static const struct {
        sb_token token[2];
        int32_t source[2], n;
    } want[] = { { { 4, 9 }, { 1, 1 }, 2 }, { { 8 }, { 2 }, 1 } };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        open_rig(&rig, specs[i]);
        begin(&rig, text, N);
        rig_propose(&rig, text, N);
        rig_expect(&rig, want[i].token, NULL, want[i].n);
        expect_sources(&rig, want[i].source, want[i].n);
        rig_close(&rig);
    }
}

static void merge_unites_trees_and_says_whose_a_node_is(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, "merge:a='sam:k=3',b='pld:k=2,ngram_max=1'");
    begin(&rig, text, N);
    rig_propose(&rig, text, N);
    rig_expect(&rig, (const sb_token[]){ 4, 9, 3, 8, 1 }, (const int32_t[]){ 0, 1, 2, 0, 4 }, 5);
    expect_sources(&rig, (const int32_t[]){ 1, 1, 1, 2, 2 }, 5);
    rig_close(&rig);
    /* The same prefix is one node, of both. */
    open_rig(&rig, "merge:a='sam:k=3',b='sam:k=1'");
    begin(&rig, text, N);
    rig_propose(&rig, text, N);
    rig_expect(&rig, (const sb_token[]){ 4, 9, 3 }, NULL, 3);
    expect_sources(&rig, (const int32_t[]){ 3, 1, 1 }, 3);
    rig_close(&rig);
}

static void merge_keeps_to_one_budget(void **state)
{
    (void)state;
    struct rig rig;
    open_rig(&rig, "merge:a='sam:k=3',b='pld:k=2,ngram_max=1',nodes=4");
    begin(&rig, text, N);
    rig_propose(&rig, text, N);
    expect_sources(&rig, (const int32_t[]){ 1, 1, 1, 2 }, 4);
    assert_int_equal(rig.ops->max_nodes(rig.params, &rig.policy), 4);
    rig_close(&rig);
}

/* Both parts see every step, whoever drafted: token recycling learns from the rows of a's nodes. */
static void parts_learn_from_every_step(void **state)
{
    (void)state;
    static const char *const specs[] = {
        "delegate:a='sam:k=2',b='token-recycling:width=1,nodes=2',min_match=3",
        "merge:a='sam:k=2',b='token-recycling:width=1,nodes=2'"
    };
    for (size_t i = 0; i < 2; i++) {
        struct rig rig;
        open_rig(&rig, specs[i]);
        sb_token x[N + 1], of_node[RIG_CAP];
        memcpy(x, text, sizeof text);
        begin(&rig, x, N);
        rig_propose(&rig, x, N);
        assert_int_equal(rig.tree.n, 3); /* 3, then 4 and 9 of sam */
        for (int32_t j = 0; j < rig.tree.n; j++)
            of_node[j] = rig.tree.node[j].token;
        row_token = of_node;
        x[N] = 50; /* all was rejected */
        struct sb_context ctx = rig_context(&rig, x, N + 1);
        const struct sb_outcome outcome = { .tree = &rig.tree,
                                            .path = (const int32_t[]){ 0 },
                                            .n_path = 1,
                                            .final_token = 50,
                                            .target = target };
        assert_int_equal(rig.ops->observe(rig.st, &ctx, &outcome, NULL), SB_OK);
        x[N] = 9; /* seen as a draft only: its row says 10, of 10 nothing is known */
        rig_propose(&rig, x, N + 1);
        assert_true(sb_tree_child(&rig.tree, 0, 10) > 0);
        row_token = NULL;
        rig_close(&rig);
    }
}

static void expect_refused(const char *spec, const char *why)
{
    struct rig rig;
    struct sb_error err = { .message = "" };
    assert_int_equal(rig_open(&rig, spec, &err), SB_EUSAGE);
    if (!strstr(err.message, why))
        fail_msg("%s: no '%s' in: %s", spec, why, err.message);
    rig_close(&rig);
}

static void wrong_parts_are_refused(void **state)
{
    (void)state;
    expect_refused("merge:a=nothing", "drafter merge: a: no drafter is named 'nothing'");
    expect_refused("merge:b='pld:x=1'", "drafter merge: b: drafter pld has no parameter 'x'");
    expect_refused("delegate:b='pld:k=-1'", "k=-1: expected a whole number");
    expect_refused("merge:b=lookahead", "works alone only");
    expect_refused("merge:b=nest", "nest changes the target's law, so it works alone only");
    expect_refused("delegate:b=(merge:a=jacobi)", "b: drafter merge: a: jacobi reads");
    expect_refused("delegate:a=token-recycling", "does not say how long its match is");
    expect_refused("merge:a=''", "does not begin with a name");
}

/* ---- what drafters say of themselves ---- */

/* Ways to run drafters without a model. */
static const char *const model_free[] = {
    "anpd", "delegate",        "delegate:a=pld,b=llma", "jacobi",        "llma", "lookahead",
    "mag",  "merge",           "merge:a=pld,b=sam",     "ngram-cache",   "pld",  "sad",
    "sam",  "suffix-decoding", "token-recycling",       "trie-lookahead"
};
enum { N_MODEL_FREE = sizeof model_free / sizeof *model_free };

/* Steps over a fixed text, the whole of each draft shown to observe; returns rows read. */
static int rows_read_by(const char *spec)
{
    struct rig rig;
    open_rig(&rig, spec);
    sb_token x[60];
    for (int i = 0; i < 60; i++)
        x[i] = (i * i) % 11;
    rows_read = 0;
    begin(&rig, x, 20);
    for (size_t n = 20; n < 59; n++) {
        rig_propose(&rig, x, n);
        struct sb_context ctx = rig_context(&rig, x, n + 1);
        const struct sb_outcome outcome = { .tree = &rig.tree,
                                            .path = (const int32_t[]){ 0 },
                                            .n_path = 1,
                                            .final_token = x[n],
                                            .target = target };
        if (rig.ops->observe)
            assert_int_equal(rig.ops->observe(rig.st, &ctx, &outcome, NULL), SB_OK);
    }
    if ((sb_drafter_target_rows(rig.ops, rig.params) != SB_TARGET_ROWS_NONE) != (rows_read > 0))
        fail_msg("%s: read %d rows, against its declaration", spec, rows_read);
    rig_close(&rig);
    return rows_read;
}

static void drafters_read_rows_where_they_say_so_and_nowhere_else(void **state)
{
    (void)state;
    int reading = 0;
    for (size_t i = 0; i < N_MODEL_FREE; i++)
        reading += rows_read_by(model_free[i]) > 0;
    assert_int_equal(reading, 5);
    for (size_t i = 0; sb_drafters[i]; i++) {    /* the others need a file */
        const char *name = sb_drafters[i]->name; /* hidden states come with a target */
        bool listed =
            strcmp(name, "none") == 0 || strcmp(name, "pld-plus") == 0 || strcmp(name, "nest") == 0;
        bool needs_file = false;
        for (const struct sb_param *p = sb_drafters[i]->params; p && p->name; p++)
            needs_file = needs_file || p->required || strcmp(p->name, "head") == 0;
        for (size_t j = 0; j < N_MODEL_FREE; j++)
            listed = listed || strcmp(model_free[j], name) == 0;
        if (!listed && !needs_file)
            fail_msg("drafter %s is not looked at", name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delegate_drafts_from_a_where_its_match_is_long),
        cmocka_unit_test(merge_unites_trees_and_says_whose_a_node_is),
        cmocka_unit_test(merge_keeps_to_one_budget),
        cmocka_unit_test(parts_learn_from_every_step),
        cmocka_unit_test(wrong_parts_are_refused),
        cmocka_unit_test(drafters_read_rows_where_they_say_so_and_nowhere_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* drafters/token-recycling: its tree against the table of methods C 1.8, and what it learns against
 * the rows of a toy target, sorted by definition. */
#include "tests/unit/drafter_rig.h"

#include <string.h>

#include "harness/core/threads.h"
#include "tests/property/toy_model.h"

enum { V = RIG_VOCAB, WIDTH = 8, CONTEXT = 1000 };

struct world {
    struct rig rig;
    struct toy_model toy;
    struct sb_seq *seq;
    sb_token behind[V][WIDTH]; /* by definition; -1: not known */
    sb_token text[CONTEXT];
    size_t n;
};

static void world_open(struct world *w, const char *drafter)
{
    sb_threads_set(1);
    w->toy = toy_model_create(5, 0, V, CONTEXT + 2 * RIG_CAP, -1);
    assert_int_equal(sb_seq_create(&w->seq, w->toy.model, CONTEXT + RIG_CAP, RIG_CAP, NULL), SB_OK);
    assert_int_equal(rig_open(&w->rig, drafter, NULL), SB_OK);
    memset(w->behind, 0xff, sizeof w->behind);
    w->text[0] = 7;
    w->n = 1;
    rig_begin(&w->rig, w->text, 1);
}

static void world_close(struct world *w)
{
    rig_close(&w->rig);
    sb_seq_destroy(w->seq);
    toy_model_destroy(&w->toy);
}

static void learn_by_definition(struct world *w, sb_token token, const float *row)
{
    for (sb_token t = 0; t < V; t++) {
        int32_t better = 0;
        for (sb_token u = 0; u < V; u++)
            better += row[u] > row[t] || (row[u] == row[t] && u < t);
        if (better < WIDTH)
            w->behind[token][better] = t;
    }
}

/* Draft, forward, accept `accepted` tokens down the first children, observe. */
static void step(struct world *w, bool accept)
{
    struct sb_row row[RIG_CAP];
    const struct sb_tree *tree = &w->rig.tree;
    rig_propose(&w->rig, w->text, w->n);
    for (int32_t i = 0; i < tree->n; i++)
        row[i] = (struct sb_row){ .token = tree->node[i].token,
                                  .parent = tree->node[i].parent,
                                  .want_logits = true };
    assert_int_equal(sb_forward(w->seq, row, (size_t)tree->n, NULL, NULL), SB_OK);
    for (int32_t i = 0; i < tree->n; i++)
        learn_by_definition(w, tree->node[i].token, sb_seq_logits(w->seq, (size_t)i));
    int32_t path[2] = { 0, 1 };
    size_t kept = accept && tree->n > 1 ? 2 : 1;
    int32_t last = path[kept - 1];
    if (kept == 2)
        w->text[w->n++] = tree->node[1].token;
    sb_token bonus = (sb_token)((w->n * 31 + (size_t)last) % V); /* whatever; all come up */
    w->text[w->n++] = bonus;
    struct sb_context ctx = rig_context(&w->rig, w->text, w->n);
    assert_int_equal(sb_seq_commit(w->seq, path, kept, NULL), SB_OK);
    assert_int_equal(w->rig.ops->observe(w->rig.st, &ctx,
                                         &(struct sb_outcome){ .tree = tree, .target = w->seq },
                                         NULL),
                     SB_OK);
}

static void every_child_is_what_the_target_said_behind_its_parent(void **state)
{
    (void)state;
    static struct world w;
    world_open(&w, "token-recycling");
    int32_t deepest = 0, most = 0;
    for (int i = 0; i < 200; i++) {
        step(&w, i % 3 > 0);
        rig_propose(&w.rig, w.text, w.n);
        const struct sb_tree *tree = &w.rig.tree;
        for (int32_t j = 1; j < tree->n; j++) {
            const struct sb_node *node = &tree->node[j];
            assert_int_equal(node->rank, node->source);
            assert_int_equal(node->token, w.behind[tree->node[node->parent].token][node->source]);
        }
        if (w.behind[w.text[w.n - 1]][0] < 0)
            assert_int_equal(tree->n, 1);
        else
            assert_true(tree->n >= 9);
        deepest = sb_tree_depth(tree) > deepest ? sb_tree_depth(tree) : deepest;
        most = tree->n > most ? tree->n : most;
    }
    assert_int_equal(deepest, 6);
    assert_int_equal(most, 81);
    world_close(&w);
}

/* Steps until every token that a tree can reach has its row. */
static void learn_all(struct world *w)
{
    for (int i = 0; i < 150; i++)
        step(w, false);
    for (int i = 0; w->behind[w->text[w->n - 1]][0] < 0 && i < 50; i++)
        step(w, false);
}

/* Rank path of a node as a number with leading 1: 1 is the root, 100 its child 0's child 0. */
static int path_of(const struct sb_tree *tree, int32_t i)
{
    return i == 0 ? 1 : 10 * path_of(tree, tree->node[i].parent) + tree->node[i].rank;
}

static void the_tree_is_the_authors(void **state)
{
    (void)state;
    static const struct {
        int path, children;
    } table[] = {
        { 1, 8 },     { 10, 8 },    { 11, 4 },    { 12, 3 },     { 13, 2 },     { 14, 1 },
        { 15, 1 },    { 16, 1 },    { 17, 1 },    { 100, 8 },    { 101, 3 },    { 102, 2 },
        { 103, 1 },   { 104, 1 },   { 105, 1 },   { 106, 1 },    { 107, 1 },    { 110, 2 },
        { 111, 1 },   { 120, 1 },   { 130, 1 },   { 140, 1 },    { 150, 1 },    { 1000, 5 },
        { 1001, 2 },  { 1002, 1 },  { 1003, 1 },  { 1004, 1 },   { 1010, 1 },   { 1020, 1 },
        { 1100, 1 },  { 1200, 1 },  { 1300, 1 },  { 10000, 3 },  { 10001, 1 },  { 10002, 1 },
        { 10010, 1 }, { 10100, 1 }, { 11000, 1 }, { 100000, 2 }, { 100010, 1 },
    };
    static const int32_t layer[] = { 1, 8, 21, 25, 15, 8, 3 };
    static struct world w;
    world_open(&w, "token-recycling");
    learn_all(&w);
    assert_int_equal(rig_propose(&w.rig, w.text, w.n), 80);
    const struct sb_tree *tree = &w.rig.tree;
    int32_t at_depth[7] = { 0 };
    for (int32_t i = 0; i < tree->n; i++) {
        int children = 0, want = 0;
        for (int32_t j = i + 1; j < tree->n; j++)
            children += tree->node[j].parent == i;
        for (size_t t = 0; t < sizeof table / sizeof *table; t++)
            want += table[t].path == path_of(tree, i) ? table[t].children : 0;
        assert_int_equal(children, want);
        at_depth[tree->node[i].depth]++;
        if (i > 0) /* by depth, then by rank path */
            assert_true(path_of(tree, i - 1) < path_of(tree, i));
    }
    for (int d = 0; d < 7; d++)
        assert_int_equal(at_depth[d], layer[d]);
    world_close(&w);
}

/* The tree of the card's example: {0, 1, 00, 01, 10, 000}. */
static void a_smaller_tree_keeps_the_likeliest_places(void **state)
{
    (void)state;
    static const struct {
        const char *drafter;
        int32_t n;
        int path[8];
    } cases[] = {
        { "token-recycling:width=2,nodes=6", 6, { 10, 11, 100, 101, 110, 1000 } },
        { "token-recycling:nodes=3", 3, { 10, 11, 100 } },
        { "token-recycling:nodes=5", 5, { 10, 11, 12, 100, 101 } },
        { "token-recycling:width=1", 6, { 10, 100, 1000, 10000, 100000, 1000000 } },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        static struct world w;
        world_open(&w, cases[c].drafter);
        for (int i = 0; i < 3; i++) /* a narrow tree sees few tokens: show it many roots */
            learn_all(&w);
        /* The root's chain may still meet a token without a row; then try the next root. */
        for (int i = 0; i < 40 && rig_propose(&w.rig, w.text, w.n) < cases[c].n; i++)
            step(&w, false);
        assert_int_equal(w.rig.tree.n - 1, cases[c].n);
        for (int32_t i = 0; i < cases[c].n; i++)
            assert_int_equal(path_of(&w.rig.tree, i + 1), cases[c].path[i]);
        world_close(&w);
    }
}

static void the_policy_sets_the_depth(void **state)
{
    (void)state;
    static struct world w;
    world_open(&w, "token-recycling");
    learn_all(&w);
    w.rig.constant_k = 2;
    assert_int_equal(rig_propose(&w.rig, w.text, w.n), 8 + 21);
    world_close(&w);
}

static void scope_says_what_a_new_prompt_forgets(void **state)
{
    (void)state;
    static const char *const specs[] = { "token-recycling:scope=prompt",
                                         "token-recycling:scope=conversation", "token-recycling" };
    for (int s = 0; s < 3; s++) {
        static struct world w;
        world_open(&w, specs[s]); /* the first prompt: one token, 7 */
        step(&w, false);
        const sb_token next[] = { 7, 9, 7 }, other[] = { 9, 7 };
        w.rig.n_prompt = 2;
        rig_begin(&w.rig, next, 3);
        assert_int_equal(rig_propose(&w.rig, next, 3), s >= 1 ? 8 : 0);
        rig_begin(&w.rig, other, 2);
        assert_int_equal(rig_propose(&w.rig, other, 2), s >= 2 ? 8 : 0);
        world_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_child_is_what_the_target_said_behind_its_parent),
        cmocka_unit_test(the_tree_is_the_authors),
        cmocka_unit_test(a_smaller_tree_keeps_the_likeliest_places),
        cmocka_unit_test(the_policy_sets_the_depth),
        cmocka_unit_test(scope_says_what_a_new_prompt_forgets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Static trees: the published arrays (methods B 11), files of paths, best trees, filling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/tree_learner.h"

static struct sb_static_tree opened(const char *text)
{
    struct sb_static_tree t;
    struct sb_error err = { .message = "" };
    if (sb_static_tree_open(&t, text, "it", &err) != SB_OK)
        fail_msg("%s: %s", text, err.message);
    return t;
}

/* What holds of every tree; returns the ones in its mask: pairs of a node and an ancestor or itself. */
static int32_t check(const struct sb_static_tree *t)
{
    int32_t ones = 0;
    for (int32_t i = 0; i < t->n; i++) {
        const struct sb_static_node *node = &t->node[i];
        ones += node->depth + 1;
        assert_true(i == 0 ? node->parent == -1 : node->parent < i);
        assert_true(t->level[node->depth] <= i && i < t->level[node->depth + 1]);
        assert_true(node->depth == t->depth ? node->width == 0
                                            : node->width <= t->width[node->depth]);
        for (int32_t c = 0; c < node->n_children; c++)
            assert_int_equal(t->node[node->first_child + c].parent, i);
        if (i > 0) {
            const struct sb_static_node *parent = &t->node[node->parent];
            assert_int_equal(node->depth, parent->depth + 1);
            assert_true(parent->first_child <= i && i < parent->first_child + parent->n_children);
            assert_true(node->rank < parent->width);
        }
    }
    return ones;
}

static void expect(const struct sb_static_tree *t, const int32_t *parent, const int32_t *rank)
{
    for (int32_t i = 1; i < t->n; i++) {
        assert_int_equal(t->node[i].parent, parent[i - 1]);
        assert_int_equal(t->node[i].rank, rank[i - 1]);
    }
}

static void medusas_default_tree_is_the_published_one(void **state)
{
    (void)state;
    static const int32_t parent[] = { 0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  1,  1,  1,
                                      1,  1,  1,  1,  1,  1,  1,  2,  2,  2,  2,  2,  2,
                                      2,  3,  3,  3,  4,  4,  5,  6,  7,  8,  9,  10, 11,
                                      11, 11, 11, 11, 11, 11, 11, 11, 11, 12, 12, 12, 13,
                                      13, 14, 15, 16, 17, 18, 21, 21, 28, 39, 39 };
    static const int32_t rank[] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0,
                                    1, 2, 3, 4, 5, 6, 0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3,
                                    4, 5, 6, 7, 8, 9, 0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1 };
    struct sb_static_tree t = opened("mc_sim_7b_63");
    assert_int_equal(t.n, 64);
    assert_int_equal(check(&t), 207);
    expect(&t, parent, rank);
    static const int32_t level[] = { 0, 1, 11, 39, 62, 64 }, width[] = { 10, 10, 10, 2 };
    int32_t leaves = 0;
    for (int32_t i = 0; i < t.n; i++)
        leaves += t.node[i].n_children == 0;
    assert_int_equal(leaves, 42);
    assert_memory_equal(t.level, level, sizeof level);
    assert_memory_equal(t.width, width, sizeof width);
    sb_static_tree_cut(&t, 2);
    assert_int_equal(t.n, 39);
    check(&t);
    sb_static_tree_finish(&t);
    assert_int_equal(sb_static_tree_nodes("mc_sim_7b_63"), 63);
}

static void eagles_tree_is_the_published_one(void **state)
{
    (void)state;
    static const int32_t parent[] = { 0, 0, 0, 0, 1, 1, 1, 2,  2,  3,  3,  4, 5,
                                      5, 5, 6, 6, 7, 7, 8, 13, 13, 13, 21, 21 };
    static const int32_t rank[] = { 0, 1, 2, 3, 0, 1, 2, 0, 1, 0, 1, 0, 0,
                                    1, 2, 0, 1, 0, 1, 0, 0, 1, 2, 0, 1 };
    struct sb_static_tree t = opened("eagle1_25");
    assert_int_equal(t.n, 26);
    assert_int_equal(check(&t), 92);
    expect(&t, parent, rank);
    int32_t leaves = 0;
    for (int32_t i = 0; i < t.n; i++)
        leaves += t.node[i].n_children == 0;
    assert_int_equal(leaves, 15);
    sb_static_tree_finish(&t);
}

static enum sb_status from_text(struct sb_static_tree *out, const char *text, struct sb_error *err)
{
    json_t *root = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(root);
    enum sb_status rc = sb_static_tree_from_json(out, root, "t.json", err);
    json_decref(root);
    return rc;
}

/* Paths in any order, with ranks left out; and the same tree by children per level. */
static void trees_are_read_from_lists_of_paths(void **state)
{
    (void)state;
    struct sb_static_tree t;
    assert_int_equal(from_text(&t, "[[2],[0,7],[0],[0,1],[2,0],[0,1,0]]", NULL), SB_OK);
    check(&t);
    expect(&t, (const int32_t[]){ 0, 0, 1, 1, 2, 3 }, (const int32_t[]){ 0, 2, 1, 7, 0, 0 });
    assert_int_equal(t.node[1].width, 8);
    assert_int_equal(t.node[0].width, 3);
    sb_static_tree_finish(&t);
    t = opened("2x3");
    check(&t);
    expect(&t, (const int32_t[]){ 0, 0, 1, 1, 1, 2, 2, 2 },
           (const int32_t[]){ 0, 1, 0, 1, 2, 0, 1, 2 });
    sb_static_tree_finish(&t);
}

static void wrong_trees_are_refused_with_one_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "[]", "t.json: a tree of 0 paths; expected 1 to 1000" },
        { "[[0],[0]]", "t.json: the path [0] stands twice" },
        { "[[0],[1,0]]", "t.json: the path [1, 0] is there without its beginning" },
        { "[[]]", "t.json: path 0: expected a list of 1 to 16 ranks" },
        { "[3]", "t.json: path 0: expected a list of 1 to 16 ranks" },
        { "[[0],[64]]", "t.json: path 1: expected ranks from 0 to 63" },
        { "[[0],[-1]]", "t.json: path 1: expected ranks from 0 to 63" },
        { "[[0.5]]", "t.json: path 0: expected ranks from 0 to 63" },
        { "7", "t.json: expected a list of paths, as [[0], [0, 0]], or an object with 'accuracy'" },
        { "{}", "t.json: 'accuracy': expected a list of 1 to 16 lists" },
        { "{\"accuracy\":[[0.5,2]]}", "t.json: 'accuracy' [0][1] is 2; expected 0 to 1" },
        { "{\"accuracy\":[[0.5]],\"nodes\":0}",
          "t.json: 'nodes': expected a whole number from 1 to 1000" },
        { "{\"accuracy\":[[]]}", "t.json: a tree of 0 paths; expected 1 to 1000" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sb_static_tree t = { .n = 77 };
        struct sb_error err = { .message = "" };
        assert_int_equal(from_text(&t, cases[i].text, &err), SB_EFORMAT);
        assert_string_equal(err.message, cases[i].message);
        assert_int_equal(t.n, 77);
    }
    struct sb_static_tree t;
    assert_int_equal(sb_static_tree_open(&t, "mc_sim", "it", NULL), SB_EUSAGE);
    assert_int_equal(sb_static_tree_nodes("9x9x9x9"), 0);
}

/* Methods B 11, B6: a .6, b .3, then a c .30 (shorter first), a d .24, b c .15, b d .12. */
static void best_trees_take_the_largest_products(void **state)
{
    (void)state;
    static const double accuracy[] = { .6, .3, .5, .4 };
    struct sb_static_tree t;
    assert_int_equal(sb_static_tree_best(&t, accuracy, 2, 2, 4, NULL), SB_OK);
    check(&t);
    assert_int_equal(t.n, 5);
    expect(&t, (const int32_t[]){ 0, 0, 1, 1 }, (const int32_t[]){ 0, 1, 0, 1 });
    sb_static_tree_finish(&t);
    assert_int_equal(sb_static_tree_best(&t, accuracy, 2, 2, 2, NULL), SB_OK);
    expect(&t, (const int32_t[]){ 0, 0 }, (const int32_t[]){ 0, 1 });
    sb_static_tree_finish(&t);
    assert_int_equal(sb_static_tree_best(&t, accuracy, 2, 2, 100, NULL), SB_OK);
    assert_int_equal(t.n, 7);
    sb_static_tree_finish(&t);
    /* Of all trees of 9 nodes closed under ancestors none has a larger sum: checked by the sum of the nine
     * largest products, which ancestors always belong to. */
    double a[3][5], product[155], sum = 0, want = 0;
    size_t n = 0;
    for (int j = 0; j < 3; j++)
        for (int r = 0; r < 5; r++)
            a[j][r] = (double)((j * 31 + r * 17) % 23 + 1) / 24;
    for (int r = 0; r < 5; r++) {
        product[n++] = a[0][r];
        for (int s = 0; s < 5; s++) {
            product[n++] = a[0][r] * a[1][s];
            for (int u = 0; u < 5; u++)
                product[n++] = a[0][r] * a[1][s] * a[2][u];
        }
    }
    for (int i = 0; i < 9; i++) {
        size_t best = 0;
        for (size_t k = 1; k < n; k++)
            best = product[k] > product[best] ? k : best;
        want += product[best];
        product[best] = 0;
    }
    assert_int_equal(sb_static_tree_best(&t, &a[0][0], 3, 5, 9, NULL), SB_OK);
    double reach[10] = { 1 };
    for (int32_t i = 1; i < t.n; i++) {
        reach[i] = reach[t.node[i].parent] * a[t.node[i].depth - 1][t.node[i].rank];
        sum += reach[i];
    }
    assert_true(sum > want - 1e-12 && sum < want + 1e-12);
    sb_static_tree_finish(&t);
}

static void independent_lists_fill_every_parent_alike(void **state)
{
    (void)state;
    struct sb_static_tree t = opened("2x2");
    struct sb_tree tree;
    static const sb_token best[] = { 10, 11, -1, 20, 21, -1 };
    assert_int_equal(sb_tree_create(&tree, 10, NULL), SB_OK);
    sb_tree_reset(&tree, 5, 9);
    sb_static_tree_fill(&t, &tree, best, 3, (const int32_t[]){ 2, 2 }, 2);
    static const sb_token want[] = { 5, 10, 11, 20, 21, 20, 21 };
    assert_int_equal(tree.n, 7);
    for (int32_t i = 0; i < 7; i++)
        assert_int_equal(tree.node[i].token, want[i]);
    assert_int_equal(tree.node[5].parent, 2);
    sb_tree_reset(&tree, 5, 9); /* a shorter list, and one level only */
    sb_static_tree_fill(&t, &tree, best, 3, (const int32_t[]){ 1, 2 }, 1);
    assert_int_equal(tree.n, 2);
    sb_tree_finish(&tree);
    sb_static_tree_finish(&t);
}

/* The third guess at depth 1 and the first at depth 2 turn out to be right: the tree moves there. */
static void a_learned_tree_follows_what_was_right(void **state)
{
    (void)state;
    struct sb_tree_learner l = { 0 };
    struct sb_static_tree t;
    static const sb_token list[] = { 50, 51, 52, 53, 54, 55, 56, 57, 58, 59 };
    assert_int_equal(sb_tree_learner_open(&l, &t, "auto", 3, 2, "it", NULL), SB_OK);
    expect(&t, (const int32_t[]){ 0, 0, 1 }, (const int32_t[]){ 0, 1, 0 });
    for (int i = 0; i < 200; i++) {
        sb_tree_learner_see(&l, 1, i % 4 ? 52 : 50, list, 10);
        sb_tree_learner_see(&l, 2, 50, list, 10);
    }
    assert_int_equal(sb_tree_learner_update(&l, &t, NULL), SB_OK);
    check(&t);
    expect(&t, (const int32_t[]){ 0, 0, 2 }, (const int32_t[]){ 0, 2, 0 });
    assert_int_equal(t.n, 4);
    assert_int_equal(sb_tree_learner_width(&l, 3), 10);
    sb_static_tree_finish(&t);
    assert_int_equal(sb_tree_learner_nodes("auto", 7), 7);
    assert_false(sb_tree_learner_branches("auto", 1));
    struct sb_tree_learner off = { 0 };
    assert_int_equal(sb_tree_learner_open(&off, &t, "2x2x2", 3, 2, "it", NULL), SB_OK);
    assert_int_equal(t.n, 7); /* two heads */
    assert_int_equal(sb_tree_learner_update(&off, &t, NULL), SB_OK);
    assert_int_equal(t.n, 7);
    assert_int_equal(sb_tree_learner_width(&off, 3), 3);
    sb_static_tree_finish(&t);
}

/* The token behind the root is the first accepted one, behind the last the final token. */
static void a_step_tells_the_tokens_that_were_right(void **state)
{
    (void)state;
    struct sb_tree tree;
    assert_int_equal(sb_tree_create(&tree, 4, NULL), SB_OK);
    sb_tree_reset(&tree, 1, 9);
    int32_t a = sb_tree_add(&tree, 0, 11, 0), b = sb_tree_add(&tree, a, 12, 0);
    const int32_t path[] = { 0, a, b };
    const struct sb_outcome o = { .tree = &tree, .path = path, .n_path = 3, .final_token = 13 };
    assert_int_equal(sb_tree_learner_token(&o, 0), 11);
    assert_int_equal(sb_tree_learner_token(&o, 1), 12);
    assert_int_equal(sb_tree_learner_token(&o, 2), 13);
    assert_int_equal(sb_tree_learner_token(&o, 3), -1);
    sb_tree_finish(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(medusas_default_tree_is_the_published_one),
        cmocka_unit_test(eagles_tree_is_the_published_one),
        cmocka_unit_test(trees_are_read_from_lists_of_paths),
        cmocka_unit_test(wrong_trees_are_refused_with_one_line),
        cmocka_unit_test(best_trees_take_the_largest_products),
        cmocka_unit_test(a_learned_tree_follows_what_was_right),
        cmocka_unit_test(a_step_tells_the_tokens_that_were_right),
        cmocka_unit_test(independent_lists_fill_every_parent_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

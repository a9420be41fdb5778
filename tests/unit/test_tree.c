/* decode/tree: what a drafter may build, and that broken trees are named. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/tree.h"

enum { V = 8 };

static struct sb_tree make_tree(int32_t cap, int32_t max_depth)
{
    struct sb_tree tree;
    assert_int_equal(sb_tree_create(&tree, cap, NULL), SB_OK);
    sb_tree_reset(&tree, 1, max_depth);
    return tree;
}

/* Methods A 11: parents (-,0,0,1,1). */
static void children_get_depth_and_rank_in_the_order_they_are_added(void **state)
{
    (void)state;
    struct sb_tree tree = make_tree(8, 9);
    assert_int_equal(sb_tree_add(&tree, 0, 2, 7), 1);
    assert_int_equal(sb_tree_add(&tree, 0, 3, 7), 2);
    assert_int_equal(sb_tree_add(&tree, 1, 4, 7), 3);
    assert_int_equal(sb_tree_add(&tree, 1, 5, 7), 4);
    assert_int_equal(tree.node[4].depth, 2);
    assert_int_equal(tree.node[4].rank, 1);
    assert_int_equal(tree.node[4].source, 7);
    assert_int_equal(sb_tree_depth(&tree), 2);
    assert_int_equal(sb_tree_drafted(&tree), 4);
    assert_false(sb_tree_is_chain(&tree));
    assert_int_equal(sb_tree_kinds(&tree), SB_KIND_BIT(SB_DRAW_ONEHOT));
    assert_int_equal(sb_tree_child(&tree, 1, 5), 4);
    assert_int_equal(sb_tree_child(&tree, 2, 5), -1);
    assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
    sb_tree_finish(&tree);
}

static void a_token_added_twice_is_one_node(void **state)
{
    (void)state;
    struct sb_tree tree = make_tree(3, 9);
    assert_int_equal(sb_tree_add(&tree, 0, 2, 0), 1);
    assert_int_equal(sb_tree_add(&tree, 0, 3, 0), 2);
    assert_int_equal(sb_tree_add(&tree, 0, 2, 0), 1); /* even when the tree is full */
    assert_int_equal(sb_tree_add(&tree, 0, 4, 0), -1);
    sb_tree_finish(&tree);
}

static void nothing_grows_below_the_depth_limit_or_an_end_token(void **state)
{
    (void)state;
    const sb_token eos[] = { 6, 7 };
    struct sb_tree tree = make_tree(8, 2);
    tree.eos = eos;
    tree.n_eos = 2;
    int32_t end = sb_tree_add(&tree, 0, 7, 0), other = sb_tree_add(&tree, 0, 2, 0);
    assert_int_equal(sb_tree_add(&tree, end, 2, 0), -1);
    int32_t deepest = sb_tree_add(&tree, other, 2, 0);
    assert_true(deepest > 0);
    assert_int_equal(sb_tree_add(&tree, deepest, 2, 0), -1);
    sb_tree_reset(&tree, 6, 2); /* a root that is EOS was committed on purpose: eos is ignored */
    assert_true(sb_tree_add(&tree, 0, 2, 0) > 0);
    sb_tree_reset(&tree, 1, 0);
    assert_int_equal(sb_tree_add(&tree, 0, 2, 0), -1);
    sb_tree_finish(&tree);
}

static void equal_iid_draws_share_a_node_and_keep_their_draws(void **state)
{
    (void)state;
    const double q[V] = { 0, 0, .5, .5 };
    struct sb_tree tree = make_tree(8, 9);
    assert_int_equal(sb_tree_draw(&tree, 0, 2, SB_DRAW_IID, q, -.7f, 0), 1);
    assert_int_equal(sb_tree_draw(&tree, 0, 3, SB_DRAW_IID, q, -.7f, 0), 2);
    assert_int_equal(sb_tree_draw(&tree, 0, 2, SB_DRAW_IID, q, -.7f, 0), 1);
    assert_int_equal(tree.n, 3);
    assert_int_equal(tree.node[0].n_draws, 3);
    const int32_t draws[] = { 1, 2, 1 };
    assert_memory_equal(tree.draw + tree.node[0].first_draw, draws, sizeof draws);
    assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
    assert_int_equal(sb_tree_draw(&tree, 1, 3, SB_DRAW_IID, q, -.7f, 0), 3);
    /* The run of the root's draws has ended. */
    assert_int_equal(sb_tree_draw(&tree, 0, 3, SB_DRAW_IID, q, -.7f, 0), -1);
    assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
    sb_tree_finish(&tree);
}

static void one_child_drawn_twice_is_no_chain(void **state)
{
    (void)state;
    const double q[V] = { 0, 0, 1 };
    struct sb_tree tree = make_tree(8, 9);
    sb_tree_draw(&tree, 0, 2, SB_DRAW_IID, q, 0, 0);
    assert_true(sb_tree_is_chain(&tree));
    sb_tree_draw(&tree, 0, 2, SB_DRAW_IID, q, 0, 0);
    assert_false(sb_tree_is_chain(&tree));
    sb_tree_finish(&tree);
}

static void kinds_do_not_mix_and_draws_without_replacement_do_not_repeat(void **state)
{
    (void)state;
    const double q[V] = { 0, 0, .5, .5 };
    struct sb_tree tree = make_tree(8, 9);
    assert_int_equal(sb_tree_draw(&tree, 0, 2, SB_DRAW_WOR, q, -.7f, 0), 1);
    assert_int_equal(sb_tree_draw(&tree, 0, 2, SB_DRAW_WOR, q, -.7f, 0), -1);
    assert_int_equal(sb_tree_draw(&tree, 0, 3, SB_DRAW_IID, q, -.7f, 0), -1);
    assert_int_equal(sb_tree_add(&tree, 0, 3, 0), -1);
    assert_int_equal(sb_tree_draw(&tree, 1, 3, SB_DRAW_IID, NULL, -.7f, 0), -1);
    assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
    sb_tree_finish(&tree);
}

static void auxiliary_nodes_are_apart_from_verified_ones(void **state)
{
    (void)state;
    struct sb_tree tree = make_tree(8, 1);
    int32_t aux = sb_tree_add_auxiliary(&tree, 0, 2, 0);
    int32_t deeper = sb_tree_add_auxiliary(&tree, aux, 3, 0); /* beyond the token budget: allowed */
    assert_true(deeper > 0);
    assert_int_equal(sb_tree_child(&tree, 0, 2), -1);
    assert_int_equal(sb_tree_add(&tree, aux, 4, 0), -1);
    int32_t real = sb_tree_add(&tree, 0, 2, 0);
    assert_true(real > 0);
    assert_int_equal(tree.node[real].rank, 0);
    assert_int_equal(tree.n_auxiliary, 2);
    assert_int_equal(sb_tree_drafted(&tree), 1);
    assert_int_equal(sb_tree_depth(&tree), 1);
    assert_true(sb_tree_is_chain(&tree));
    assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
    sb_tree_finish(&tree);
}

/* Each case breaks one invariant of a good tree; the message says which. */
static void break_it(struct sb_tree *tree, int what)
{
    switch (what) {
    case 0:
        tree->node[2].parent = 2;
        break;
    case 1:
        tree->node[2].depth = 5;
        break;
    case 2:
        tree->node[2].token = V;
        break;
    case 3:
        tree->node[2].token = tree->node[1].token;
        break;
    case 4:
        tree->max_depth = 0;
        break;
    case 5:
        tree->node[0].n_draws = 1;
        break;
    case 6:
        tree->draw[1] = 0;
        break;
    case 7:
        ((double *)tree->node[0].q)[2] = .9;
        break;
    case 8:
        tree->node[0].kind = SB_DRAW_NONE;
        break;
    case 9:
        tree->node[2].rank = 0;
        break;
    case 10:
        tree->n_auxiliary = 1;
        break;
    case 11:
        tree->node[1].log_q = 1;
        break;
    case 12:
        tree->node[1].unread = true;
        break;
    default:
        ((double *)tree->node[0].q)[3] = 0;
        break;
    }
}

static void a_broken_tree_is_named(void **state)
{
    (void)state;
    static const char *const messages[] = {
        "draft tree: node 2: its parent does not precede it",
        "draft tree: node 2: its depth is not its parent's plus one",
        "draft tree: node 2: token outside the vocabulary",
        "draft tree: node 2: a sibling has the same token",
        "draft tree: node 1: deeper than the token budget",
        "draft tree: node 0: its draws are incomplete",
        "draft tree: node 0: one of its draws is not its child",
        "draft tree: node 0: its q row does not sum to 1",
        "draft tree: node 1: its parent does not say how it was drawn",
        "draft tree: node 2: its rank is not its place among siblings",
        "draft tree: counts 1 auxiliary nodes, has 0",
        "draft tree: node 1: its log q is above 0 or NaN",
        "draft tree: node 1: verified, and nobody may read its row",
        "draft tree: node 0: q is 0 at a drawn token",
    };
    for (int what = 0; what < 14; what++) {
        double q[V] = { 0, 0, .5, .5 };
        struct sb_tree tree = make_tree(8, 9);
        sb_tree_draw(&tree, 0, 2, SB_DRAW_IID, q, -.7f, 0);
        sb_tree_draw(&tree, 0, 3, SB_DRAW_IID, q, -.7f, 0);
        assert_int_equal(sb_tree_check(&tree, V, NULL), SB_OK);
        break_it(&tree, what);
        struct sb_error err;
        assert_int_equal(sb_tree_check(&tree, V, &err), SB_EINTERNAL);
        assert_string_equal(err.message, messages[what]);
        sb_tree_finish(&tree);
    }
}

static void running_out_of_memory_leaves_nothing_behind(void **state)
{
    (void)state;
    struct sb_tree tree;
    for (size_t n = 0; n < 3; n++) {
        sb_alloc_fail_after(n);
        assert_int_equal(sb_tree_create(&tree, 8, NULL), SB_ENOMEM);
    }
    sb_alloc_fail_after(SIZE_MAX);
    assert_int_equal(sb_tree_create(&tree, 0, NULL), SB_EINTERNAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(children_get_depth_and_rank_in_the_order_they_are_added),
        cmocka_unit_test(a_token_added_twice_is_one_node),
        cmocka_unit_test(nothing_grows_below_the_depth_limit_or_an_end_token),
        cmocka_unit_test(equal_iid_draws_share_a_node_and_keep_their_draws),
        cmocka_unit_test(one_child_drawn_twice_is_no_chain),
        cmocka_unit_test(kinds_do_not_mix_and_draws_without_replacement_do_not_repeat),
        cmocka_unit_test(auxiliary_nodes_are_apart_from_verified_ones),
        cmocka_unit_test(a_broken_tree_is_named),
        cmocka_unit_test(running_out_of_memory_leaves_nothing_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

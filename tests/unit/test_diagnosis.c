#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>

#include "harness/core/alloc.h"
#include "harness/experiment/diagnosis.h"

enum { V = 3 };
static const double p_row[V] = { .5, .3, .2 }, q_row[V] = { .2, .6, .2 };

static const double *same_row(void *self, int32_t node)
{
    (void)self, (void)node;
    return p_row;
}

static struct sb_diagnosis diagnose(const struct sb_tree *tree, const int32_t *path, int32_t n_path)
{
    const struct sb_rows rows = { .row = same_row, .n_vocab = V };
    const struct sb_step step = { .tree = tree, .path = path, .n_path = n_path, .rows = &rows };
    struct sb_diagnosis found = { .judged = -1 };
    void *scratch = NULL;
    size_t bytes = 0;
    assert_true(sb_diagnose(&found, &step, &scratch, &bytes));
    sb_free(scratch);
    return found;
}

static void expect(struct sb_diagnosis d, int32_t judged, double overlap, double ot_bound)
{
    assert_int_equal(d.judged, judged);
    assert_true(fabs(d.overlap - overlap) < 1e-12);
    if (isnan(ot_bound))
        assert_true(isnan(d.ot_bound));
    else
        assert_true(fabs(d.ot_bound - ot_bound) < 1e-12);
}

/* A tree with the root; the caller finishes it. */
static struct sb_tree rooted(void)
{
    struct sb_tree tree;
    assert_int_equal(sb_tree_create(&tree, 8, NULL), SB_OK);
    sb_tree_reset(&tree, 0, 4);
    return tree;
}

/* Methods A 9: for these rows 1 - TV = .7; two independent draws can reach .86. */
static void one_draw_is_worth_the_overlap_and_two_are_worth_more(void **state)
{
    (void)state;
    struct sb_tree tree = rooted();
    sb_tree_draw(&tree, 0, 1, SB_DRAW_IID, q_row, 0, 0);
    expect(diagnose(&tree, (int32_t[]){ 0 }, 1), 1, .7, .7);
    sb_tree_draw(&tree, 0, 0, SB_DRAW_IID, q_row, 0, 0);
    /* The best set is H = {1, 2}: 1 + p(H) - Pr(both in H). Node 2 is a leaf. */
    expect(diagnose(&tree, (int32_t[]){ 0, 2 }, 2), 1, .7, 1 + (.5 - .8 * .8));
    sb_tree_finish(&tree);
}

static void chosen_children_count_by_the_targets_probability(void **state)
{
    (void)state;
    struct sb_tree tree = rooted();
    int32_t first = sb_tree_add(&tree, 0, 1, 0);
    sb_tree_add(&tree, 0, 0, 0);
    sb_tree_add(&tree, first, 2, 0);
    sb_tree_add_auxiliary(&tree, 0, 2, 0);
    expect(diagnose(&tree, (int32_t[]){ 0, first }, 2), 2, .3 + .2, .8 + .2);
    sb_tree_finish(&tree);
}

static void kinds_without_a_bound_give_none(void **state)
{
    (void)state;
    struct sb_tree tree = rooted();
    sb_tree_draw(&tree, 0, 1, SB_DRAW_HUB, q_row, 0, 0);
    sb_tree_draw(&tree, 0, 0, SB_DRAW_HUB, q_row, 0, 0);
    expect(diagnose(&tree, (int32_t[]){ 0 }, 1), 1, .7, NAN);
    sb_tree_finish(&tree);
}

static void an_empty_draft_has_nothing_to_judge(void **state)
{
    (void)state;
    struct sb_tree tree = rooted();
    expect(diagnose(&tree, (int32_t[]){ 0 }, 1), 0, 0, 0);
    sb_tree_finish(&tree);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_draw_is_worth_the_overlap_and_two_are_worth_more),
        cmocka_unit_test(chosen_children_count_by_the_targets_probability),
        cmocka_unit_test(kinds_without_a_bound_give_none),
        cmocka_unit_test(an_empty_draft_has_nothing_to_judge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

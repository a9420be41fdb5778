/* drafters/dynamic_tree: the worked pool of methods B 5.2, and random rows against the rule as it is written,
 * which expands everything, keeps the whole pool and sorts it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/dynamic_tree.h"
#include "harness/core/rng.h"

enum { MOST_K = 6, MOST_LEVELS = 6, MOST_POOL = MOST_K + MOST_LEVELS * MOST_K * MOST_K };

/* The row below a path, as a drafter would compute it: the k best tokens and their log-probabilities. */
typedef void row_fn(const sb_token *path, int32_t depth, int32_t k, sb_token *token,
                    float *log_prob);

static int64_t constant_k;
static const struct sb_policy *policy(void)
{
    static struct sb_policy p;
    p = (struct sb_policy){ .ops = sb_policy_find("constant"), .params = &constant_k };
    return &p;
}

static int32_t path_of(const struct sb_dynamic_tree *dt, int32_t i, sb_token *path)
{
    int32_t depth = i < 0 ? 0 : dt->pool[i].depth;
    for (int32_t at = depth; at-- > 0; i = dt->pool[i].parent)
        path[at] = dt->pool[i].token;
    return depth;
}

static void grow(struct sb_dynamic_tree *dt, struct sb_tree *tree, row_fn *row, int32_t k,
                 int32_t levels, int32_t most)
{
    sb_token token[MOST_K], path[MOST_LEVELS] = { 0 };
    float log_prob[MOST_K];
    sb_dynamic_tree_start(dt, most);
    row(path, 0, k, token, log_prob);
    sb_dynamic_tree_add(dt, -1, token, log_prob, k);
    for (int32_t level = 1; level < levels && sb_dynamic_tree_frontier(dt, tree, policy()) > 0;
         level++)
        for (int32_t i = 0; i < dt->n_frontier; i++) {
            int32_t depth = path_of(dt, dt->frontier[i], path);
            row(path, depth, k, token, log_prob);
            sb_dynamic_tree_add(dt, dt->frontier[i], token, log_prob, k);
        }
    sb_dynamic_tree_choose(dt, tree);
    assert_int_equal(sb_tree_check(tree, 1000, NULL), SB_OK);
}

static struct sb_tree make_tree(void)
{
    struct sb_tree tree;
    assert_int_equal(sb_tree_create(&tree, MOST_POOL + 1, NULL), SB_OK);
    sb_tree_reset(&tree, 0, 100);
    return tree;
}

/* ---- the worked pool ---- */

static void worked_row(const sb_token *path, int32_t depth, int32_t k, sb_token *token,
                       float *log_prob)
{
    static const struct {
        char path[4], token[3];
        double prob[2];
    } rows[] = { { "", "ab", { .6, .3 } },
                 { "a", "cd", { .5, .4 } },
                 { "b", "cd", { .9, .05 } },
                 { "ac", "xy", { .7, .2 } },
                 { "bc", "xy", { .8, .15 } } };
    assert_int_equal(k, 2);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        bool same = (int32_t)strlen(rows[i].path) == depth;
        for (int32_t j = 0; j < depth && same; j++)
            same = path[j] == rows[i].path[j];
        for (int j = 0; j < 2 && same; j++) {
            token[j] = rows[i].token[j];
            log_prob[j] = logf((float)rows[i].prob[j]);
        }
        if (same)
            return;
    }
    fail_msg("the row of a path that is not in the frontier");
}

static void the_worked_pool(void **state)
{
    (void)state;
    static const struct {
        int32_t total;
        const char *tokens;
        int32_t parent[6];
    } cases[] = { { 5, "abcc", { 0, 0, 1, 2 } },
                  { 6, "abcdc", { 0, 0, 1, 1, 2 } },
                  { 2, "a", { 0 } } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct sb_dynamic_tree dt = { 0 };
        struct sb_tree tree = make_tree();
        int32_t n = (int32_t)strlen(cases[c].tokens);
        assert_int_equal(sb_dynamic_tree_open(&dt, 2, 3, cases[c].total - 1, NULL), SB_OK);
        grow(&dt, &tree, worked_row, 2, 3, 100);
        assert_int_equal(tree.n, n + 1);
        for (int32_t i = 0; i < n; i++) {
            assert_int_equal(tree.node[i + 1].token, cases[c].tokens[i]);
            assert_int_equal(tree.node[i + 1].parent, cases[c].parent[i]);
        }
        if (cases[c].total == 6) {
            static const double score[] = { .6, .3, .3, .24, .27, .015, .21, .06, .216, .0405 };
            assert_int_equal(dt.n, 10);
            for (int32_t i = 0; i < 10; i++)
                assert_true(fabs(exp((double)dt.pool[i].score) - score[i]) < 1e-6);
        }
        sb_tree_finish(&tree);
        sb_dynamic_tree_close(&dt);
    }
}

/* Expected tokens 1, 1.6, 1.9, 2.2, 2.47 for 1 to 5 rows. */
static void a_cost_curve_bounds_the_draft(void **state)
{
    (void)state;
    static const struct {
        const char *curve;
        int32_t n;
    } cases[] = { { "2:1;9:1", 8 }, { "2:1;3:1;4:9", 2 }, { "2:1.1;3:1.9", 1 }, { "2:2", 0 } };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        struct sb_dynamic_tree dt = { 0 };
        struct sb_tree tree = make_tree();
        assert_int_equal(sb_cost_curve_parse(&dt.curve, cases[c].curve, "it", NULL), SB_OK);
        assert_int_equal(sb_dynamic_tree_open(&dt, 2, 3, 8, NULL), SB_OK);
        grow(&dt, &tree, worked_row, 2, 3, 100);
        assert_int_equal(tree.n - 1, cases[c].n);
        sb_tree_finish(&tree);
        sb_dynamic_tree_close(&dt);
    }
}

/* ---- random rows ---- */

static uint64_t row_seed;
static int coarse; /* few different probabilities: many ties */

static void random_row(const sb_token *path, int32_t depth, int32_t k, sb_token *token,
                       float *log_prob)
{
    uint64_t key = row_seed;
    for (int32_t i = 0; i < depth; i++)
        key = sb_rng_mix(key, (uint64_t)path[i] + 1);
    struct sb_rng rng = sb_rng_make(key, SB_STREAM_DATA);
    float least = 0;
    for (int32_t i = 0; i < k; i++) {
        least -= coarse ? .25f * (float)sb_rng_below(&rng, 3) : (float)sb_rng_uniform(&rng);
        token[i] = (sb_token)((depth * 7 + i * 3 + (int32_t)(key % 11)) % 97);
        log_prob[i] = least;
    }
}

struct plain {
    sb_token path[MOST_LEVELS];
    int32_t parent, depth, index;
    float score;
};

static int by_score(const void *a, const void *b)
{
    const struct plain *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score)
                                : x->index - y->index;
}

static int by_index(const void *a, const void *b)
{
    return ((const struct plain *)a)->index - ((const struct plain *)b)->index;
}

static int32_t plain_children(struct plain *pool, int32_t n, int32_t parent, int32_t k)
{
    sb_token token[MOST_K], none[1] = { 0 };
    float log_prob[MOST_K];
    const struct plain *p = parent < 0 ? NULL : &pool[parent];
    random_row(p ? p->path : none, p ? p->depth : 0, k, token, log_prob);
    for (int32_t i = 0; i < k; i++, n++) {
        pool[n] = p ? *p : (struct plain){ 0 };
        pool[n].path[pool[n].depth++] = token[i];
        pool[n].parent = parent;
        pool[n].index = n;
        pool[n].score += log_prob[i];
    }
    return n;
}

/* The rule as it is written: pool[..n) in order; returns how many are chosen, sorted by index in best. */
static int32_t plain_pool(struct plain *best, int32_t k, int32_t levels, int32_t most)
{
    static struct plain pool[MOST_POOL], level[MOST_POOL];
    int32_t n = plain_children(pool, 0, -1, k), first = 0;
    for (int32_t l = 1; l < levels; l++) {
        int32_t m = n - first;
        memcpy(level, pool + first, (size_t)m * sizeof *level);
        qsort(level, (size_t)m, sizeof *level, by_score);
        first = n;
        for (int32_t i = 0; i < k && i < m; i++)
            n = plain_children(pool, n, level[i].index, k);
    }
    memcpy(best, pool, (size_t)n * sizeof *best);
    qsort(best, (size_t)n, sizeof *best, by_score);
    n = n < most ? n : most;
    qsort(best, (size_t)n, sizeof *best, by_index);
    return n;
}

static void the_draft_is_the_best_of_the_whole_pool(void **state)
{
    (void)state;
    static struct plain best[MOST_POOL];
    size_t pruned = 0;
    for (uint64_t seed = 0; seed < 400; seed++) {
        struct sb_rng rng = sb_rng_make(seed, SB_STREAM_INIT);
        int32_t k = 1 + (int32_t)sb_rng_below(&rng, MOST_K),
                levels = 1 + (int32_t)sb_rng_below(&rng, MOST_LEVELS),
                most = 1 + (int32_t)sb_rng_below(&rng, 40);
        row_seed = sb_rng_mix(99, seed);
        coarse = seed % 3 == 0;
        struct sb_dynamic_tree dt = { 0 };
        struct sb_tree tree = make_tree();
        assert_int_equal(sb_dynamic_tree_open(&dt, k, levels, most, NULL), SB_OK);
        grow(&dt, &tree, random_row, k, levels, 1000);
        int32_t n = plain_pool(best, k, levels, most);
        assert_int_equal(tree.n, n + 1);
        for (int32_t i = 0; i < n; i++) {
            int32_t node = i + 1;
            assert_int_equal(tree.node[node].depth, best[i].depth);
            for (int32_t at = best[i].depth; at-- > 0; node = tree.node[node].parent)
                assert_int_equal(tree.node[node].token, best[i].path[at]);
        }
        if (k == 1)
            assert_true(sb_tree_is_chain(&tree) && n == (levels < most ? levels : most));
        pruned += dt.n < k + (levels - 1) * k * k;
        sb_tree_finish(&tree);
        sb_dynamic_tree_close(&dt);
    }
    assert_true(pruned > 50);
}

static void nothing_is_drafted_below_the_end(void **state)
{
    (void)state;
    static const sb_token eos = 'c';
    struct sb_dynamic_tree dt = { 0 };
    struct sb_tree tree = make_tree();
    tree.eos = &eos;
    tree.n_eos = 1;
    assert_int_equal(sb_dynamic_tree_open(&dt, 2, 2, 10, NULL), SB_OK);
    grow(&dt, &tree, worked_row, 2, 2, 10);
    assert_int_equal(tree.n, 7);
    /* ad and bd are what is left to expand. */
    assert_int_equal(sb_dynamic_tree_frontier(&dt, &tree, policy()), 2);
    for (int32_t i = 0; i < 2; i++)
        assert_int_equal(dt.pool[dt.frontier[i]].token, 'd');
    sb_tree_finish(&tree);
    sb_dynamic_tree_close(&dt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_worked_pool),
        cmocka_unit_test(a_cost_curve_bounds_the_draft),
        cmocka_unit_test(the_draft_is_the_best_of_the_whole_pool),
        cmocka_unit_test(nothing_is_drafted_below_the_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

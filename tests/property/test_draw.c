/* The rules of drawing (harness/decode/draw.h): their laws by enumeration, by statistics where noise is
 * continuous; sets whole or not at all; the selections and urns they are made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/decode/draw.h"
#include "tests/property/enumerate.h"

enum { MOST = 4, CELLS = 5 * 5 * 5 * 5 }; /* draws of a set; ordered sets of up to four tokens */

static void close_to(double got, double want, const char *what)
{
    if (!(fabs(got - want) < 1e-12))
        fail_msg("%s: got %.15g, expected %.15g", what, got, want);
}

/* A row with at most four tokens above 0. */
struct row {
    const char *name;
    double q[600];
    size_t n;
    int32_t id[MOST];
    double p[MOST]; /* of id[] */
    size_t support;
};

static struct row make_row(const char *name, size_t n, const int32_t *id, const double *p)
{
    struct row row = { .name = name, .n = n };
    for (size_t i = 0; i < MOST; i++) {
        row.q[id[i]] = row.p[i] = p[i];
        row.id[i] = id[i];
        row.support += p[i] > 0;
    }
    return row;
}

enum { N_ROWS = 5 };

/* Within one part of an urn, over several, with zeros, one-hot, with ties. */
static void make_rows(struct row rows[N_ROWS])
{
    static const int32_t near[] = { 0, 1, 2, 3 }, far[] = { 3, 255, 256, 599 };
    static const double p[][MOST] = { { .1, .2, .3, .4 }, { .5, 0, .2, .3 }, { 0, 1, 0, 0 } };
    static const double ties[] = { .2, .3, .3, .2 };
    rows[0] = make_row("plain", 4, near, p[0]);
    rows[1] = make_row("wide", 600, far, p[0]);
    rows[2] = make_row("with a zero", 600, far, p[1]);
    rows[3] = make_row("one-hot", 4, near, p[2]);
    rows[4] = make_row("ties", 4, near, ties);
}

static size_t digit(const struct row *row, sb_token token)
{
    size_t i = 0;
    while (i < MOST && row->id[i] != token)
        i++;
    return i;
}

/* Number of an ordered set: a digit per draw, 0 for none. */
static size_t cell_of(const size_t *x, size_t n)
{
    size_t cell = 0;
    for (size_t i = 0; i < n; i++)
        cell = cell * 5 + x[i] + 1;
    return cell;
}

static void enumerate_rule(double law[CELLS], const struct row *row, enum sb_draw_rule rule,
                           int32_t width)
{
    static double scratch[600];
    struct sb_enum_dice dice = { 0 };
    struct sb_tree tree;
    double total = 0;
    assert_true(sb_draw_scratch_bytes(row->n) <= sizeof scratch);
    assert_int_equal(sb_tree_create(&tree, 9, NULL), SB_OK);
    memset(law, 0, CELLS * sizeof *law);
    do {
        struct sb_dice choose = sb_enum_dice_start(&dice);
        choose.race = NULL;
        sb_tree_reset(&tree, 0, 3);
        int32_t n = sb_draw_children(&tree, 0, rule, row->q, row->n, width, &choose, scratch, 7);
        assert_int_equal(n, tree.n_draws);
        assert_true(n >= 1 && n <= MOST);
        assert_int_equal(sb_tree_check(&tree, row->n, NULL), SB_OK);
        assert_int_equal(tree.node[0].kind, sb_draw_rule_kind(rule));
        assert_int_equal(tree.node[1].source, 7);
        assert_float_equal(tree.node[1].log_q, log(row->q[tree.node[1].token]), 1e-6);
        size_t x[MOST];
        for (int32_t i = 0; i < n; i++)
            x[i] = digit(row, tree.node[tree.draw[i]].token);
        law[cell_of(x, (size_t)n)] += dice.weight;
        total += dice.weight;
        assert_false(dice.trouble);
    } while (sb_enum_dice_next(&dice));
    close_to(total, 1, "all runs");
    sb_tree_finish(&tree);
}

/* ---- the laws ---- */

static size_t set_size(const struct row *row, enum sb_draw_rule rule, size_t width)
{
    size_t most = rule == SB_RULE_HUB ? 2 : width;
    bool repeats = rule == SB_RULE_IID || rule == SB_RULE_PATHS;
    return repeats || most < row->support ? most : row->support;
}

static double law_apart(const struct row *row, const size_t *x, size_t n)
{
    double law = 1, left = 1;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < i; j++)
            if (x[j] == x[i])
                return 0;
        law *= row->p[x[i]] / left;
        left -= row->p[x[i]];
    }
    return law;
}

static double law_independent(const struct row *row, const size_t *x, size_t n)
{
    double law = 1;
    for (size_t i = 0; i < n; i++)
        law *= row->p[x[i]];
    return law;
}

/* Rank of a token by probability, the smaller id on ties. */
static size_t rank_of(const struct row *row, size_t token)
{
    size_t rank = 0;
    for (size_t i = 0; i < MOST; i++)
        rank += row->p[i] > row->p[token] || (row->p[i] == row->p[token] && i < token);
    return rank;
}

static double law_hub(const struct row *row, const size_t *x, size_t n)
{
    bool first = rank_of(row, x[0]) == 0;
    if (n == 1)
        return first; /* one-hot */
    if (x[0] == x[1] || (!first && rank_of(row, x[1]) != 0))
        return 0;
    return first ? row->p[x[0]] * row->p[x[1]] / (1 - row->p[x[0]]) : row->p[x[0]];
}

static double law_topk1(const struct row *row, const size_t *x, size_t n)
{
    double left = 1;
    for (size_t i = 0; i + 1 < n; i++) {
        if (rank_of(row, x[i]) != i)
            return 0;
        left -= row->p[x[i]];
    }
    return rank_of(row, x[n - 1]) < n - 1 ? 0 : row->p[x[n - 1]] / left;
}

static double law_of(const struct row *row, enum sb_draw_rule rule, const size_t *x, size_t n)
{
    return rule == SB_RULE_HUB                            ? law_hub(row, x, n)
           : rule == SB_RULE_TOPK1                        ? law_topk1(row, x, n)
           : rule == SB_RULE_IID || rule == SB_RULE_PATHS ? law_independent(row, x, n)
                                                          : law_apart(row, x, n);
}

static void check_law(const struct row *row, enum sb_draw_rule rule, int32_t width)
{
    double got[CELLS], total = 0;
    size_t n = set_size(row, rule, (size_t)width), x[MOST] = { 0 };
    enumerate_rule(got, row, rule, width);
    for (size_t code = 0; code < 256; code++) {
        if (code >> (2 * n))
            break;
        for (size_t i = 0; i < n; i++)
            x[i] = code >> (2 * i) & 3;
        double want = law_of(row, rule, x, n);
        total += want;
        if (fabs(got[cell_of(x, n)] - want) > 1e-12)
            fail_msg("%s, rule %d, width %d: set %zx has %.15g, expected %.15g", row->name,
                     (int)rule, width, code, got[cell_of(x, n)], want);
    }
    close_to(total, 1, row->name);
}

static void every_rule_has_its_law(void **state)
{
    (void)state;
    static struct row rows[N_ROWS];
    make_rows(rows);
    for (size_t i = 0; i < N_ROWS; i++)
        for (int rule = SB_RULE_IID; rule <= SB_RULE_COUPLED; rule++)
            for (int32_t width = 1; width <= MOST; width++)
                check_law(&rows[i], (enum sb_draw_rule)rule, width);
}

/* Methods A 3.7: q = (.2, .6, .2), hub 1. */
static void hub_pairs_have_the_published_masses(void **state)
{
    (void)state;
    static const int32_t id[] = { 0, 1, 2, 3 };
    static const double p[] = { .2, .6, .2, 0 };
    static struct row row;
    row = make_row("toy", 3, id, p);
    double law[CELLS];
    enumerate_rule(law, &row, SB_RULE_HUB, 2);
    close_to(law[cell_of((size_t[]){ 0, 1 }, 2)], .2, "(x, a)");
    close_to(law[cell_of((size_t[]){ 2, 1 }, 2)], .2, "(x, a)");
    close_to(law[cell_of((size_t[]){ 1, 0 }, 2)], .6 * .2 / .4, "(a, x)");
    close_to(law[cell_of((size_t[]){ 1, 2 }, 2)], .6 * .2 / .4, "(a, x)");
}

/* The union of K paths: each node has as many draws as arrived, and the bag of paths has the law of K
 * independent ones. Two levels, two tokens, K = 3: a cell counts the paths of each of the 4 kinds. */
static void paths_are_independent_walks(void **state)
{
    (void)state;
    static const double root[] = { .3, .7 }, below[][2] = { { .6, .4 }, { .1, .9 } };
    double scratch[2], law[4 * 4 * 4] = { 0 };
    struct sb_enum_dice dice = { 0 };
    struct sb_tree tree;
    assert_int_equal(sb_tree_create(&tree, 7, NULL), SB_OK); /* the root and two levels of 3 */
    do {
        struct sb_dice choose = sb_enum_dice_start(&dice);
        int32_t count[4] = { 0 };
        sb_tree_reset(&tree, 0, 2);
        sb_draw_children(&tree, 0, SB_RULE_PATHS, root, 2, 3, &choose, scratch, 0);
        for (int32_t node = 1, last = tree.n; node < last; node++)
            sb_draw_children(&tree, node, SB_RULE_PATHS, below[tree.node[node].token], 2, 3,
                             &choose, scratch, 0);
        assert_int_equal(sb_tree_check(&tree, 2, NULL), SB_OK);
        assert_int_equal(tree.n_draws, 6);
        for (int32_t d = 3; d < 6; d++) {
            const struct sb_node *leaf = &tree.node[tree.draw[d]];
            count[2 * tree.node[leaf->parent].token + leaf->token]++;
        }
        law[(count[0] * 4 + count[1]) * 4 + count[2]] += dice.weight;
    } while (sb_enum_dice_next(&dice));
    double pi[4], want[4 * 4 * 4] = { 0 };
    for (int i = 0; i < 4; i++)
        pi[i] = root[i / 2] * below[i / 2][i % 2];
    for (int code = 0; code < 64; code++) {
        int x[] = { code & 3, code >> 2 & 3, code >> 4 }, count[4] = { 0 };
        for (int i = 0; i < 3; i++)
            count[x[i]]++;
        want[(count[0] * 4 + count[1]) * 4 + count[2]] += pi[x[0]] * pi[x[1]] * pi[x[2]];
    }
    for (int i = 0; i < 64; i++)
        close_to(law[i], want[i], "bag of paths");
    sb_tree_finish(&tree);
}

/* ---- coupled draws ---- */

/* Pearson's statistic of ordered pairs drawn by races, over many keys: 12 pairs of 4 tokens. The .001
 * point of 11 degrees of freedom is 31.3. */
static void races_draw_without_replacement(void **state)
{
    (void)state;
    enum { N = 20000 };
    static struct row rows[N_ROWS];
    static int32_t count[CELLS];
    static double scratch[600];
    struct sb_tree tree;
    make_rows(rows);
    assert_int_equal(sb_tree_create(&tree, 9, NULL), SB_OK);
    memset(count, 0, sizeof count);
    for (uint64_t key = 0; key < N; key++) {
        struct sb_rng_dice rng =
            sb_rng_dice_make(sb_rng_mix(4, key), SB_STREAM_DRAFT, SB_STREAM_DRAFT);
        struct sb_dice dice = sb_rng_dice_at(&rng, 50);
        sb_tree_reset(&tree, 0, 3);
        assert_int_equal(
            sb_draw_children(&tree, 0, SB_RULE_COUPLED, rows[1].q, rows[1].n, 2, &dice, scratch, 0),
            2);
        size_t x[] = { digit(&rows[1], tree.node[1].token), digit(&rows[1], tree.node[2].token) };
        count[cell_of(x, 2)]++;
    }
    double statistic = 0;
    for (size_t i = 0; i < 16; i++) {
        size_t x[] = { i / 4, i % 4 };
        double want = N * law_apart(&rows[1], x, 2), got = count[cell_of(x, 2)];
        statistic += want > 0 ? (got - want) * (got - want) / want : got * 1e9;
    }
    assert_true(statistic < 31.3);
    sb_tree_finish(&tree);
}

/* The noise is that of the tokens' position: a verifier at the same position sees the same winner. */
static void the_first_of_a_race_is_what_a_verifier_of_that_row_draws(void **state)
{
    (void)state;
    static struct row rows[N_ROWS];
    static double scratch[600];
    struct sb_tree tree;
    make_rows(rows);
    assert_int_equal(sb_tree_create(&tree, 9, NULL), SB_OK);
    int32_t alike = 0;
    for (uint64_t key = 0; key < 50; key++) {
        struct sb_rng_dice ours = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
        struct sb_rng_dice theirs = sb_rng_dice_make(key, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
        struct sb_dice draft = sb_rng_dice_at(&ours, 20), verify = sb_rng_dice_at(&theirs, 20);
        sb_tree_reset(&tree, 0, 3);
        for (int32_t node = 0; node < 3; node = tree.n - 1) {
            sb_draw_children(&tree, node, SB_RULE_COUPLED, rows[0].q, 4, 1, &draft, scratch, 0);
            sb_dice_seek(&verify, (uint64_t)tree.node[node].depth + 1);
            assert_int_equal(verify.race(verify.self, rows[0].q, 4), tree.node[node + 1].token);
        }
        alike += tree.node[1].token == tree.node[2].token;
    }
    assert_true(alike < 40); /* another position, other noise */
    sb_tree_finish(&tree);
}

/* ---- sets whole or not at all ---- */

/* RNG dice that count what is asked of them. */
struct counting {
    struct sb_rng_dice rng;
    struct sb_dice under;
    int32_t choices, seeks;
};

static size_t counting_pick(void *self, const double *weight, size_t n)
{
    struct counting *c = self;
    c->choices++;
    return c->under.pick(c->under.self, weight, n);
}

static void counting_seek(void *self, uint64_t offset)
{
    struct counting *c = self;
    c->seeks++;
}

static struct sb_dice counting_dice(struct counting *c, uint64_t key)
{
    *c = (struct counting){ .rng = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT) };
    c->under = sb_rng_dice_at(&c->rng, 9);
    return (struct sb_dice){ .pick = counting_pick, .seek = counting_seek, .self = c };
}

static void a_set_without_room_is_not_begun(void **state)
{
    (void)state;
    static struct row rows[N_ROWS];
    static double scratch[600];
    const sb_token eos = 1;
    make_rows(rows);
    for (int rule = SB_RULE_IID; rule <= SB_RULE_COUPLED; rule++) {
        for (int32_t width = 1; width <= MOST; width++) {
            for (int32_t cap = 1; cap <= 9; cap++) {
                struct sb_tree tree;
                struct counting c;
                assert_int_equal(sb_tree_create(&tree, cap, NULL), SB_OK);
                tree.eos = &eos;
                tree.n_eos = 1;
                for (uint64_t key = 0; key < 10; key++) {
                    struct sb_dice dice = counting_dice(&c, key);
                    sb_tree_reset(&tree, 0, 2);
                    for (int32_t node = 0; node < tree.n; node++) {
                        int32_t before = c.choices, draws = tree.n_draws;
                        int32_t n = rule == SB_RULE_HUB ? 2 : width;
                        for (int32_t i = 0; rule == SB_RULE_PATHS && node > 0 && i < width; i++)
                            n -= tree.draw[i] != node;
                        bool room = tree.node[node].depth < 2 &&
                                    (node == 0 || tree.node[node].token != eos) &&
                                    n <= cap - tree.n && n <= cap - tree.n_draws;
                        int32_t got = sb_draw_children(&tree, node, (enum sb_draw_rule)rule,
                                                       rows[0].q, 4, width, &dice, scratch, 0);
                        assert_int_equal(got, room ? n : 0);
                        assert_int_equal(tree.n_draws - draws, got);
                        assert_true(room || c.choices == before);
                    }
                    assert_int_equal(sb_tree_check(&tree, 4, NULL), SB_OK);
                    assert_int_equal(c.seeks, 0); /* draws belong to the step, not to a position */
                }
                sb_tree_finish(&tree);
            }
        }
    }
}

/* ---- what is chosen ---- */

static void the_likeliest_are_found_without_sorting(void **state)
{
    (void)state;
    enum { N = 300 };
    struct sb_rng rng = sb_rng_make(3, SB_STREAM_INIT);
    for (int round = 0; round < 60; round++) {
        double x[N];
        float y[N];
        int32_t got[70], narrow[70];
        for (size_t i = 0; i < N; i++) {
            x[i] = (double)sb_rng_below(&rng, 60) - 5; /* many ties, some not above 0 */
            y[i] = (float)x[i];
        }
        size_t k = 1 + (size_t)round, n = sb_top_weights(got, k, x, N, 0);
        assert_int_equal(sb_top_logits(narrow, k, y, N, 0), n);
        assert_memory_equal(got, narrow, n * sizeof *got);
        assert_int_equal(n, k); /* more than 200 are above 0 */
        for (size_t i = 0; i < n; i++) {
            size_t better = 0;
            for (size_t j = 0; j < N; j++)
                better += x[j] > x[got[i]] || (x[j] == x[got[i]] && j < (size_t)got[i]);
            assert_int_equal(better, i);
        }
        size_t above = 0;
        for (size_t i = 0; i < 10; i++)
            above += x[i] > 50;
        assert_int_equal(sb_top_weights(got, 70, x, 10, 50), above);
    }
    const float bad[] = { NAN, 2, -INFINITY, 2, NAN, 5 };
    int32_t id[6];
    assert_int_equal(sb_top_logits(id, 6, bad, 6, -INFINITY), 3);
    assert_int_equal(id[0], 5);
    assert_int_equal(id[1], 1);
    assert_int_equal(id[2], 3);
}

static void children_are_chosen_likelier_first_as_far_as_there_is_room(void **state)
{
    (void)state;
    const float logits[] = { 1, 3, 3, -INFINITY, 2 };
    static const int32_t want[] = { 1, 2, 4, 0 };
    struct sb_tree tree;
    for (int32_t cap = 1; cap <= 7; cap++) {
        assert_int_equal(sb_tree_create(&tree, cap, NULL), SB_OK);
        sb_tree_reset(&tree, 0, 2);
        int32_t n = sb_choose_children(&tree, 0, logits, 5, 5, 3);
        assert_int_equal(n, cap - 1 < 4 ? cap - 1 : 4);
        assert_int_equal(tree.n, n + 1);
        for (int32_t i = 0; i < n; i++) {
            assert_int_equal(tree.node[i + 1].token, want[i]);
            assert_int_equal(tree.node[i + 1].source, 3);
        }
        assert_int_equal(sb_tree_kinds(&tree), n ? SB_KIND_BIT(SB_DRAW_ONEHOT) : 0);
        sb_tree_finish(&tree);
    }
}

/* ---- urns ---- */

/* Down to the last of 1,000 tokens, the tiniest included: never a token twice, empty exactly then. */
static void an_urn_is_empty_exactly_when_all_was_taken(void **state)
{
    (void)state;
    enum { N = 1000 };
    static double q[N], memory[N];
    struct sb_rng rng = sb_rng_make(5, SB_STREAM_INIT);
    struct sb_rng_dice rolls = sb_rng_dice_make(6, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    struct sb_dice dice = sb_rng_dice_at(&rolls, 0);
    for (int round = 0; round < 50; round++) {
        struct sb_urn urn;
        int32_t n = 0;
        bool seen[N] = { false };
        memset(q, 0, sizeof q);
        for (int i = 0; i < SB_DRAW_WIDTH; i++)
            q[sb_rng_below(&rng, N)] = pow(sb_rng_uniform(&rng), 40); /* some below 1e-300 */
        for (int i = 0; i < N; i++)
            n += q[i] > 0;
        sb_urn_fill(&urn, q, N, memory);
        for (; n > 0; n--) {
            assert_true(sb_urn_left(&urn) > 0);
            sb_token token = sb_urn_draw(&urn, &dice);
            assert_true(q[token] > 0 && !seen[token]);
            seen[token] = true;
            sb_urn_take(&urn, token);
        }
        assert_true(sb_urn_left(&urn) == 0);
    }
    assert_true(sb_urn_bytes(N) <= sizeof memory);
}

static void rules_are_found_by_name(void **state)
{
    (void)state;
    static const char *const names[] = { "iid", "wor", "paths", "hub", "topk1", "coupled" };
    static const enum sb_draw_kind kinds[] = { SB_DRAW_IID, SB_DRAW_WOR,   SB_DRAW_PATHS,
                                               SB_DRAW_HUB, SB_DRAW_TOPK1, SB_DRAW_WOR };
    char list[80] = "";
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(sb_draw_rule_of(names[i]), i);
        assert_int_equal(sb_draw_rule_kind((enum sb_draw_rule)i), kinds[i]);
        strcat(strcat(list, i ? "|" : ""), names[i]);
    }
    assert_string_equal(list, SB_DRAW_RULES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule_has_its_law),
        cmocka_unit_test(hub_pairs_have_the_published_masses),
        cmocka_unit_test(paths_are_independent_walks),
        cmocka_unit_test(races_draw_without_replacement),
        cmocka_unit_test(the_first_of_a_race_is_what_a_verifier_of_that_row_draws),
        cmocka_unit_test(a_set_without_room_is_not_begun),
        cmocka_unit_test(the_likeliest_are_found_without_sorting),
        cmocka_unit_test(children_are_chosen_likelier_first_as_far_as_there_is_room),
        cmocka_unit_test(an_urn_is_empty_exactly_when_all_was_taken),
        cmocka_unit_test(rules_are_found_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

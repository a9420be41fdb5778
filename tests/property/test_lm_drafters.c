/* Drafters with a language model of their own: the rows they give to verifiers, beam search against
 * its textbook forms, and how deep they draft where there is little room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "harness/decode/drafter.h"
#include "tests/property/enumerate.h"
#include "tests/property/toy_model.h"

enum { V = 24, N_DRAFT_VOCAB = 20, CONTEXT = 64, EOS = 3 };

static struct toy_model draft;
static const sb_token text[] = { 1, 9, 14, 2, 9, 14, 2, 11, 9, 14 };
enum { N_TEXT = sizeof text / sizeof *text };

static int prepare(void **state)
{
    (void)state;
    sb_threads_set(1); /* the model is too small to share out */
    draft = toy_model_create(1, .12, N_DRAFT_VOCAB, CONTEXT, EOS);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    toy_model_destroy(&draft);
    return 0;
}

static enum sb_status load(void *loader, const char *name, struct sb_model **model,
                           const struct sb_tokenizer **tokenizer, struct sb_error *err)
{
    *model = draft.model;
    *tokenizer = NULL;
    return SB_OK;
}

/* A drafter on its own, that drafts again and again after one text. */
struct rig {
    const struct sb_drafter_ops *ops;
    struct sb_spec spec;
    void *params, *st;
    int64_t policy_params;
    struct sb_policy policy;
    struct sb_tree tree;
    struct sb_sampling sampling;
};

static void rig_open(struct rig *rig, const char *drafter, struct sb_sampling sampling,
                     enum sb_draft_rows rows)
{
    static const sb_token eos = EOS;
    struct sb_error err = { .message = "" };
    *rig = (struct rig){ .sampling = sampling };
    rig->policy =
        (struct sb_policy){ .ops = sb_policy_find("constant"), .params = &rig->policy_params };
    assert_int_equal(sb_spec_parse(&rig->spec, drafter, NULL), SB_OK);
    rig->ops = sb_drafter_find(rig->spec.name);
    rig->params = sb_alloc_zero(1, rig->ops->params_size);
    rig->st = sb_alloc_zero(1, rig->ops->state_size);
    assert_int_equal(sb_params_apply(rig->params, rig->ops->params, &rig->spec, "it", NULL), SB_OK);
    const struct sb_drafter_env env = { .sampling = sampling,
                                        .eos = &eos,
                                        .n_eos = 1,
                                        .max_context = CONTEXT,
                                        .n_vocab = V,
                                        .params = rig->params,
                                        .draft_rows = rows,
                                        .policy = &rig->policy,
                                        .load_model = load };
    if (rig->ops->open(rig->st, &env, &err) != SB_OK)
        fail_msg("%s: %s", drafter, err.message);
    assert_int_equal(
        sb_tree_create(&rig->tree, 1 + rig->ops->max_nodes(rig->params, &rig->policy), NULL),
        SB_OK);
    rig->tree.eos = &eos;
    rig->tree.n_eos = 1;
}

static void rig_close(struct rig *rig)
{
    rig->ops->close(rig->st);
    sb_tree_finish(&rig->tree);
    sb_free(rig->st);
    sb_free(rig->params);
    sb_spec_finish(&rig->spec);
}

static struct sb_context context_of(const struct rig *rig, const sb_token *x, size_t n)
{
    return (struct sb_context){ .tokens = x, .n = n, .n_prompt = n, .policy = &rig->policy };
}

static void rig_begin(struct rig *rig, const sb_token *x, size_t n)
{
    const struct sb_context ctx = context_of(rig, x, n);
    assert_int_equal(rig->ops->begin(rig->st, &ctx, NULL), SB_OK);
}

static void rig_propose(struct rig *rig, const sb_token *x, size_t n, struct sb_dice dice,
                        int32_t max_depth)
{
    struct sb_error err = { .message = "" };
    struct sb_context ctx = context_of(rig, x, n);
    ctx.dice = dice;
    sb_tree_reset(&rig->tree, x[n - 1], max_depth);
    if (rig->ops->propose(rig->st, &ctx, &rig->tree, &err) != SB_OK ||
        sb_tree_check(&rig->tree, V, &err) != SB_OK)
        fail_msg("%s: %s", rig->ops->name, err.message);
}

/* The draft model's row after x[0..n) and the path to `node`, computed from nothing. */
static void expected_row(double row[V], const struct sb_tree *tree, int32_t node, const sb_token *x,
                         size_t n, struct sb_sampling sampling)
{
    sb_token all[CONTEXT];
    uint32_t scratch[V];
    struct sb_seq *seq;
    size_t last, depth = (size_t)tree->node[node].depth;
    memcpy(all, x, n * sizeof *x);
    for (size_t i = 0; i < n; i++) /* what it does not know it reads as 0 */
        all[i] = all[i] < N_DRAFT_VOCAB ? all[i] : 0;
    for (; node > 0; node = tree->node[node].parent)
        all[n + (size_t)tree->node[node].depth - 1] = tree->node[node].token;
    assert_int_equal(sb_seq_create(&seq, draft.model, CONTEXT, CONTEXT, NULL), SB_OK);
    assert_int_equal(sb_seq_prefill(seq, all, n + depth, NULL, 0, &last, NULL), SB_OK);
    if (sampling.temperature <= 0)
        sampling = (struct sb_sampling){ .temperature = 1 };
    memset(row, 0, V * sizeof *row);
    sb_sampling_apply(row, &sampling, sb_seq_logits(seq, last), N_DRAFT_VOCAB, scratch);
    sb_seq_destroy(seq);
}

static const char *const variants[] = {
    "small-lm:model=x,k=5",
    "small-lm:model=x,k=6,p_min=0.4",
    "small-lm:model=x,tree=3x2x2",
    "small-lm:model=x,tree=1x1x3,draw=wor",
    "small-lm:model=x,k=3,draw=paths,paths=4",
    "small-lm:model=x,tree=2x2x2,draw=hub",
    "small-lm:model=x,tree=3x2,draw=topk1",
    "small-lm:model=x,tree=3x3,draw=coupled",
    "rsd-c:model=x",
    "rsd-s:model=x,width=4,k=3",
};

/* ---- rows for verifiers ---- */

static void check_rows(const struct rig *rig, enum sb_draft_rows rows, const sb_token *x, size_t n)
{
    const struct sb_tree *tree = &rig->tree;
    for (int32_t i = 0; i < tree->n; i++) {
        const struct sb_node *node = &tree->node[i];
        double want[V];
        bool parent = node->kind != SB_DRAW_NONE;
        if (rows == SB_DRAFT_ROWS_NONE)
            assert_null(node->draft_row);
        if (rows == SB_DRAFT_ROWS_NONE || (rows == SB_DRAFT_ROWS_PARENTS && !parent))
            continue;
        assert_non_null(node->draft_row);
        expected_row(want, tree, i, x, n, rig->sampling);
        if (memcmp(node->draft_row, want, sizeof want) != 0)
            fail_msg("%s, node %d of %d, depth %d: another row", rig->spec.name, i, tree->n,
                     node->depth);
        if (node->q)
            assert_memory_equal(node->draft_row, node->q, sizeof want);
    }
}

static void verifiers_get_the_rows_they_ask_for(void **state)
{
    (void)state;
    static const struct sb_sampling settings[] = { { 0 },
                                                   { .temperature = .8 },
                                                   { .temperature = 1.2, .top_k = 6 } };
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        for (size_t t = 0; t < 3; t++) {
            for (int rows = SB_DRAFT_ROWS_NONE; rows <= SB_DRAFT_ROWS_ALL; rows++) {
                struct rig rig;
                struct sb_rng_dice rng = sb_rng_dice_make(2, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
                int32_t drafted = 0;
                rig_open(&rig, variants[v], settings[t], (enum sb_draft_rows)rows);
                assert_int_equal(rig.ops->draft_rows, SB_DRAFT_ROWS_ALL);
                for (size_t n = 2; n <= N_TEXT; n += 2) {
                    rig_begin(&rig, text, n);
                    rig_propose(&rig, text, n, sb_rng_dice_at(&rng, n), 9);
                    check_rows(&rig, (enum sb_draft_rows)rows, text, n);
                    drafted += sb_tree_drafted(&rig.tree);
                }
                assert_true(drafted >= 5);
                rig_propose(&rig, text, N_TEXT, sb_rng_dice_at(&rng, 7), 0); /* no room to draft */
                assert_int_equal(rig.tree.n, 1);
                check_rows(&rig, (enum sb_draft_rows)rows, text, N_TEXT);
                rig_close(&rig);
            }
        }
    }
}

/* Accept a path down to any node; returns its length. The final token may be any. */
static size_t accept_some(struct rig *rig, sb_token *x, size_t n, struct sb_rng *rng)
{
    int32_t path[CONTEXT], last = (int32_t)sb_rng_below(rng, (uint64_t)rig->tree.n);
    int32_t depth = rig->tree.node[last].depth;
    struct sb_outcome outcome = { .tree = &rig->tree, .path = path, .n_path = depth + 1 };
    for (int32_t i = depth; i >= 0; last = rig->tree.node[last].parent, i--) {
        path[i] = last;
        x[n - 1 + (size_t)i] = rig->tree.node[last].token;
    }
    n += (size_t)depth;
    x[n++] = outcome.final_token = (sb_token)(4 + sb_rng_below(rng, V - 4));
    const struct sb_context ctx = context_of(rig, x, n);
    assert_int_equal(rig->ops->observe(rig->st, &ctx, &outcome, NULL), SB_OK);
    return n;
}

/* The model's cache survives whatever is accepted: rows are what the model says after the text,
 * computed from nothing. V is larger than the model's vocabulary: some tokens it does not know. */
static void rows_do_not_depend_on_what_was_kept(void **state)
{
    (void)state;
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        for (int all = 0; all < 4; all++) {
            struct rig rig;
            struct sb_rng_dice dice = sb_rng_dice_make(3, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
            struct sb_rng rng = sb_rng_make(v, SB_STREAM_DATA);
            enum sb_draft_rows rows = all & 1 ? SB_DRAFT_ROWS_ALL : SB_DRAFT_ROWS_PARENTS;
            sb_token x[CONTEXT + 9];
            size_t n = N_TEXT;
            memcpy(x, text, sizeof text);
            rig_open(&rig, variants[v], (struct sb_sampling){ .temperature = all & 2 ? 1 : 0 },
                     rows);
            rig_begin(&rig, x, n);
            while (n < CONTEXT - 9) {
                rig_propose(&rig, x, n, sb_rng_dice_at(&dice, n), 9);
                check_rows(&rig, rows, x, n);
                n = accept_some(&rig, x, n, &rng);
            }
            rig_close(&rig);
        }
    }
}

/* Near the end of its context the model feeds what it can; a verifier of all rows gets them all. */
static void the_last_positions_bound_the_draft(void **state)
{
    (void)state;
    sb_token x[CONTEXT + 2];
    for (int i = 0; i < CONTEXT + 2; i++)
        x[i] = 4 + (i * i) % 15;
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        for (int all = 0; all < 2; all++) {
            struct rig rig;
            struct sb_rng_dice rng = sb_rng_dice_make(2, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
            enum sb_draft_rows rows = all ? SB_DRAFT_ROWS_ALL : SB_DRAFT_ROWS_NONE;
            rig_open(&rig, variants[v], (struct sb_sampling){ .temperature = 1 }, rows);
            for (size_t n = CONTEXT - 9; n <= CONTEXT + 2; n++) {
                rig_begin(&rig, x, n);
                rig_propose(&rig, x, n, sb_rng_dice_at(&rng, n), 9);
                int32_t depth = sb_tree_depth(&rig.tree), most = CONTEXT - (int32_t)n + 1 - all;
                assert_true(depth <= (most > 0 ? most : 0));
                /* A level that is fed needs a place for each node, at most 4 in the first. */
                assert_true(depth > 0 || n > CONTEXT - 4 * (size_t)all);
                if (n <= CONTEXT)
                    check_rows(&rig, rows, x, n);
            }
            rig_close(&rig);
        }
    }
}

/* ---- what policies see ---- */

static struct {
    struct sb_policy_node before[64], after[64];
    int32_t n_before, n_after;
} seen;

static int32_t as_wanted(void *st, const void *params, int32_t wanted)
{
    return wanted;
}

static enum sb_policy_verdict see_before(void *st, const void *params,
                                         const struct sb_policy_node *node)
{
    seen.before[seen.n_before++] = *node;
    return SB_POLICY_GO_ON;
}

static enum sb_policy_verdict see_after(void *st, const void *params,
                                        const struct sb_policy_node *node)
{
    seen.after[seen.n_after++] = *node;
    return SB_POLICY_GO_ON;
}

static double entropy_of(const double row[V])
{
    double h = 0;
    for (int t = 0; t < V; t++)
        h -= row[t] > 0 ? row[t] * log(row[t]) : 0;
    return h;
}

static double top_of(const double row[V])
{
    double top = 0;
    for (int t = 0; t < V; t++)
        top = row[t] > top ? row[t] : top;
    return top;
}

/* Figures of a node by their definition, from rows computed from nothing. */
static void check_figures(const struct rig *rig, size_t n, bool greedy)
{
    const struct sb_tree *tree = &rig->tree;
    double path[64] = { 1 }, sum[64] = { 0 }, of_level[16] = { 0 }, rows[64][V];
    int32_t n_level[16] = { 0 }, before = 0;
    for (int32_t i = 0; i < tree->n; i++)
        expected_row(rows[i], tree, i, text, n, rig->sampling);
    for (int32_t i = 1; i < tree->n; i++) {
        int32_t parent = tree->node[i].parent, depth = tree->node[i].depth;
        path[i] = path[parent] * rows[parent][tree->node[i].token];
        sum[i] = sum[parent] + path[i];
        for (int32_t d = depth; d < 16; d++) {
            of_level[d] += path[i];
            n_level[d]++;
        }
    }
    for (int32_t i = 1; i < tree->n; i++) {
        const struct sb_policy_node *node = &seen.after[i - 1];
        int32_t parent = tree->node[i].parent, depth = tree->node[i].depth;
        assert_int_equal(node->depth, depth);
        assert_float_equal(node->top_prob, top_of(rows[parent]), 1e-6);
        assert_float_equal(node->entropy, entropy_of(rows[parent]), 1e-5);
        assert_float_equal(node->prob, rows[parent][tree->node[i].token], 1e-6);
        assert_float_equal(node->path_prob, path[i], 1e-6);
        assert_int_equal(node->n_seen, greedy ? n_level[depth] : depth);
        assert_float_equal(node->sum_seen, greedy ? of_level[depth] : sum[i], 1e-5);
    }
    for (int32_t i = 0; i < tree->n && before < seen.n_before; i++) {
        const struct sb_policy_node *node = &seen.before[before];
        if (i > 0 && tree->node[i].kind == SB_DRAW_NONE)
            continue;
        assert_int_equal(node->depth, tree->node[i].depth);
        assert_float_equal(node->top_prob, top_of(rows[i]), 1e-6);
        assert_float_equal(node->entropy, entropy_of(rows[i]), 1e-5);
        assert_float_equal(node->path_prob, path[i], 1e-6);
        assert_float_equal(node->prob, 0, 0);
        before++;
    }
    assert_int_equal(before, seen.n_before);
}

static void policies_see_the_figures_of_the_rows(void **state)
{
    (void)state;
    static const struct sb_policy_ops watcher = {
        .name = "watch", .plan = as_wanted, .before_children = see_before, .after_node = see_after
    };
    static const struct sb_sampling settings[] = { { 0 },
                                                   { .temperature = .8 },
                                                   { .temperature = 1.7, .top_k = 6 } };
    static const char *const drafters[] = { "small-lm:model=x,k=5", "small-lm:model=x,tree=3x2x1",
                                            "rsd-c:model=x" };
    for (size_t d = 0; d < 3; d++)
        for (size_t t = 0; t < 3; t++) {
            struct rig rig;
            struct sb_rng_dice rng = sb_rng_dice_make(2, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
            rig_open(&rig, drafters[d], settings[t], SB_DRAFT_ROWS_NONE);
            rig.policy.ops = &watcher;
            rig_begin(&rig, text, 8);
            seen.n_before = seen.n_after = 0;
            rig_propose(&rig, text, 8, sb_rng_dice_at(&rng, 8), 9);
            assert_int_equal(seen.n_after, rig.tree.n - 1);
            assert_true(seen.n_before > 1);
            check_figures(&rig, 8, t == 0);
            rig_close(&rig);
        }
}

/* ---- stochastic beam search ---- */

/* W = 2 beams over two levels of three tokens each. An outcome: the tokens of the first level in order,
 * then for each of the two its children in order. */
enum { TOKENS = 3, OUTCOMES = 6 * 16 * 16 };

struct rows {
    double root[TOKENS], below[TOKENS][TOKENS];
    sb_token id[TOKENS]; /* of the first level */
    sb_token below_id[TOKENS][TOKENS];
};

static size_t support_of(double p[TOKENS], sb_token id[TOKENS], const double row[V])
{
    size_t n = 0;
    for (sb_token t = 0; t < V; t++)
        if (row[t] > 0 && n < TOKENS) {
            p[n] = row[t];
            id[n++] = t;
        }
    return n;
}

static const struct sb_sampling three = { .temperature = 1.5, .top_k = TOKENS };

static struct rows read_rows(const sb_token *x, size_t n)
{
    struct rows rows;
    double row[V];
    struct sb_node node[2] = { { .token = x[n - 1], .parent = -1 }, { .parent = 0, .depth = 1 } };
    const struct sb_tree tree = { .node = node, .n = 2 };
    expected_row(row, &tree, 0, x, n, three);
    assert_int_equal(support_of(rows.root, rows.id, row), TOKENS);
    for (size_t i = 0; i < TOKENS; i++) {
        node[1].token = rows.id[i];
        expected_row(row, &tree, 1, x, n, three);
        assert_int_equal(support_of(rows.below[i], rows.below_id[i], row), TOKENS);
    }
    return rows;
}

/* Children in order as a number below 16: none, one of 3, or a pair. */
static size_t code_of(const int *child, int n)
{
    return n == 0 ? 0 : n == 1 ? 1 + (size_t)child[0] : 4 + (size_t)(child[0] * 3 + child[1]);
}

static size_t outcome_of(int first, int second, const int child[2][2], const int n_children[2])
{
    size_t order = (size_t)first * 2 + (size_t)(second > first ? second - 1 : second);
    return (order * 16 + code_of(child[0], n_children[0])) * 16 + code_of(child[1], n_children[1]);
}

static int index_of(const sb_token *id, sb_token token)
{
    int i = 0;
    while (i < TOKENS && id[i] != token)
        i++;
    assert_true(i < TOKENS);
    return i;
}

static size_t outcome_of_tree(const struct sb_tree *tree, const struct rows *rows)
{
    int first[2] = { 0 }, child[2][2] = { { 0 } }, n[2] = { 0 };
    assert_int_equal(tree->node[0].n_draws, 2);
    for (int i = 0; i < 2; i++) {
        const struct sb_node *node = &tree->node[tree->draw[i]];
        first[i] = index_of(rows->id, node->token);
        n[i] = node->n_draws;
        for (int32_t d = 0; d < node->n_draws; d++)
            child[i][d] = index_of(rows->below_id[first[i]],
                                   tree->node[tree->draw[node->first_draw + d]].token);
    }
    return outcome_of(first[0], first[1], child, n);
}

/* The textbook form (methods A 4.8), beams as perturbed log-probabilities. */
static double gumbel(struct sb_rng *rng)
{
    return -log(-log(1 - sb_rng_uniform(rng)));
}

struct perturbed {
    double phi, g;
    int first, second;
};

static void perturb(struct perturbed out[TOKENS], struct perturbed parent, const double *q,
                    struct sb_rng *rng)
{
    double z = -INFINITY;
    for (int t = 0; t < TOKENS; t++) {
        out[t] = parent;
        out[t].phi = parent.phi + log(q[t]);
        out[t].g = out[t].phi + gumbel(rng);
        z = out[t].g > z ? out[t].g : z;
    }
    for (int t = 0; t < TOKENS; t++) {
        double v = parent.g - out[t].g + log1p(-exp(out[t].g - z));
        out[t].g = parent.g - fmax(0, v) - log1p(exp(-fabs(v)));
    }
}

static int by_g(const void *a, const void *b)
{
    double x = ((const struct perturbed *)a)->g, y = ((const struct perturbed *)b)->g;
    return (x < y) - (x > y);
}

static size_t search_once(const struct rows *rows, struct sb_rng *rng)
{
    struct perturbed level[2 * TOKENS], beam[2];
    perturb(level, (struct perturbed){ 0 }, rows->root, rng);
    for (int t = 0; t < TOKENS; t++)
        level[t].first = t;
    qsort(level, TOKENS, sizeof *level, by_g);
    memcpy(beam, level, sizeof beam);
    for (int b = 0; b < 2; b++) {
        perturb(level + b * TOKENS, beam[b], rows->below[beam[b].first], rng);
        for (int t = 0; t < TOKENS; t++)
            level[b * TOKENS + t].second = t;
    }
    qsort(level, sizeof level / sizeof *level, sizeof *level, by_g);
    int child[2][2] = { { 0 } }, n[2] = { 0 };
    for (int i = 0; i < 2; i++) {
        int b = level[i].first == beam[0].first ? 0 : 1;
        child[b][n[b]++] = level[i].second;
    }
    return outcome_of(beam[0].first, beam[1].first, child, n);
}

/* Our drafter enumerated: its law over first levels and pairs of prefixes is the closed form, its joint
 * law that of the perturbed search by a chi-square test with a fixed seed. */
static void stochastic_beam_search_has_the_law_of_the_perturbed_one(void **state)
{
    (void)state;
    enum { RUNS = 200000 };
    static double law[OUTCOMES];
    static int32_t count[OUTCOMES];
    struct rows rows = read_rows(text, N_TEXT);
    struct sb_enum_dice dice = { 0 };
    struct rig rig;
    double total = 0, pairs[9][9] = { { 0 } };
    memset(law, 0, sizeof law);
    memset(count, 0, sizeof count);
    rig_open(&rig, "rsd-s:model=x,width=2,k=2", three, SB_DRAFT_ROWS_NONE);
    do {
        struct sb_dice choose = sb_enum_dice_start(&dice);
        rig_begin(&rig, text, N_TEXT);
        rig_propose(&rig, text, N_TEXT, choose, 2);
        assert_int_equal(rig.tree.n, 5);
        law[outcome_of_tree(&rig.tree, &rows)] += dice.weight;
        total += dice.weight;
        int leaf[2];
        for (int i = 0; i < 2; i++) {
            const struct sb_node *n = &rig.tree.node[3 + i];
            int first = index_of(rows.id, rig.tree.node[n->parent].token);
            leaf[i] = first * 3 + index_of(rows.below_id[first], n->token);
        }
        pairs[leaf[0] < leaf[1] ? leaf[0] : leaf[1]][leaf[0] < leaf[1] ? leaf[1] : leaf[0]] +=
            dice.weight;
        assert_false(dice.trouble);
    } while (sb_enum_dice_next(&dice));
    assert_true(fabs(total - 1) < 1e-12);
    for (int x = 0; x < 9; x++)
        for (int y = x + 1; y < 9; y++) {
            double a = rows.root[x / 3] * rows.below[x / 3][x % 3];
            double b = rows.root[y / 3] * rows.below[y / 3][y % 3];
            assert_true(fabs(pairs[x][y] - a * b / (1 - a) - a * b / (1 - b)) < 1e-12);
        }
    struct sb_rng rng = sb_rng_make(8, SB_STREAM_DATA);
    for (int i = 0; i < RUNS; i++)
        count[search_once(&rows, &rng)]++;
    double statistic = 0, df = -1;
    for (int i = 0; i < OUTCOMES; i++) {
        double want = law[i] * RUNS;
        assert_true(want > 0 || count[i] == 0);
        if (want < 5)
            continue;
        statistic += (count[i] - want) * (count[i] - want) / want;
        df++;
    }
    double a = 2 / (9 * df); /* Wilson and Hilferty's approximation of the .001 point */
    assert_true(df > 30);
    if (!(statistic < df * pow(1 - a + 3.0902 * sqrt(a), 3)))
        fail_msg("%g over %g degrees of freedom", statistic, df);
    rig_close(&rig);
}

/* One beam is ancestral sampling: the chain that small-lm draws with the same dice. */
static void a_single_beam_is_a_chain(void **state)
{
    (void)state;
    struct rig beam, chain;
    rig_open(&beam, "rsd-s:model=x,width=1,k=6", (struct sb_sampling){ .temperature = 1 },
             SB_DRAFT_ROWS_NONE);
    rig_open(&chain, "small-lm:model=x,k=6", (struct sb_sampling){ .temperature = 1 },
             SB_DRAFT_ROWS_NONE);
    for (uint64_t key = 0; key < 20; key++) {
        struct sb_rng_dice a = sb_rng_dice_make(key, SB_STREAM_DRAFT, SB_STREAM_DRAFT), b = a;
        rig_begin(&beam, text, N_TEXT);
        rig_begin(&chain, text, N_TEXT);
        rig_propose(&beam, text, N_TEXT, sb_rng_dice_at(&a, 5), 9);
        rig_propose(&chain, text, N_TEXT, sb_rng_dice_at(&b, 5), 9);
        assert_int_equal(beam.tree.n, chain.tree.n);
        assert_true(sb_tree_is_chain(&beam.tree));
        for (int32_t i = 0; i < beam.tree.n; i++)
            assert_int_equal(beam.tree.node[i].token, chain.tree.node[i].token);
    }
    rig_close(&beam);
    rig_close(&chain);
}

/* ---- beam search at temperature 0 ---- */

struct prefix {
    double log_prob;
    sb_token x[3];
};

static int by_log_prob(const void *a, const void *b)
{
    double x = ((const struct prefix *)a)->log_prob, y = ((const struct prefix *)b)->log_prob;
    return (x < y) - (x > y);
}

/* Every prefix extended by every token, the best kept: three levels, four beams, no ends of text. */
static void greedy_beam_search_finds_what_a_full_search_keeps(void **state)
{
    (void)state;
    enum { W = 4, DEPTH = 3 };
    struct rig rig;
    struct sb_rng_dice rng = sb_rng_dice_make(2, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
    rig_open(&rig, "rsd-s:model=x,width=4,k=3", (struct sb_sampling){ 0 }, SB_DRAFT_ROWS_NONE);
    rig.tree.n_eos = 0;
    for (size_t n = 3; n <= N_TEXT; n++) {
        static struct prefix level[W * V];
        struct prefix beam[W] = { { 0 } };
        int32_t n_beams = 1;
        rig_begin(&rig, text, n);
        rig_propose(&rig, text, n, sb_rng_dice_at(&rng, n), 9);
        assert_int_equal(rig.tree.n, 1 + W * DEPTH);
        for (int32_t depth = 0; depth < DEPTH; depth++) {
            int32_t n_level = 0;
            for (int32_t b = 0; b < n_beams; b++) {
                sb_token all[CONTEXT];
                double row[V];
                struct sb_node root = { .parent = -1 };
                const struct sb_tree none = { .node = &root, .n = 1 };
                memcpy(all, text, n * sizeof *all);
                memcpy(all + n, beam[b].x, (size_t)depth * sizeof *all);
                expected_row(row, &none, 0, all, n + (size_t)depth, (struct sb_sampling){ 0 });
                for (sb_token t = 0; t < N_DRAFT_VOCAB; t++) {
                    level[n_level] = beam[b];
                    level[n_level].x[depth] = t;
                    level[n_level++].log_prob += log(row[t]);
                }
            }
            qsort(level, (size_t)n_level, sizeof *level, by_log_prob);
            n_beams = W;
            memcpy(beam, level, sizeof beam);
            for (int32_t b = 0; b < W; b++) {
                int32_t node = 0;
                for (int32_t i = 0; i <= depth && node >= 0; i++)
                    node = sb_tree_child(&rig.tree, node, beam[b].x[i]);
                assert_true(node > 0); /* W per level, so these are all */
            }
        }
    }
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policies_see_the_figures_of_the_rows),
        cmocka_unit_test(verifiers_get_the_rows_they_ask_for),
        cmocka_unit_test(rows_do_not_depend_on_what_was_kept),
        cmocka_unit_test(the_last_positions_bound_the_draft),
        cmocka_unit_test(stochastic_beam_search_has_the_law_of_the_perturbed_one),
        cmocka_unit_test(a_single_beam_is_a_chain),
        cmocka_unit_test(greedy_beam_search_finds_what_a_full_search_keeps),
    };
    return cmocka_run_group_tests(tests, prepare, clean_up);
}

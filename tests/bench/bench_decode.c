/* What the decoding loop costs beside the forwards: a pld draft per step, steps of jacobi and lookahead,
 * policies, the transform S, and drawing the children of a node. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/decode/drafter.h"
#include "harness/decode/draw.h"

enum { CONTEXT = 4096, WARM = 3000 };

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *name, uint64_t *ns, size_t n)
{
    qsort(ns, n, sizeof *ns, by_value);
    printf("%-34s median %8.2f us   p99 %8.2f us\n", name, (double)ns[n / 2] / 1e3,
           (double)ns[n * 99 / 100] / 1e3);
}

/* The rightmost occurrence by scanning the text: what the index is measured against. */
static size_t scan(const sb_token *x, size_t n)
{
    for (size_t g = 3; g >= 1; g--)
        for (size_t end = n - 1; end-- > g - 1;) {
            size_t m = 0;
            while (m < g && x[end - m] == x[n - 1 - m])
                m++;
            if (m == g)
                return end + 1;
        }
    return 0;
}

/* Per step: the draft, and what the drafter learns from one more committed token. Per prompt: begin. */
static int bench_drafter(const char *text, const sb_token *x)
{
    static uint64_t ns[CONTEXT];
    struct sb_spec spec = { 0 };
    if (sb_spec_parse(&spec, text, NULL) != SB_OK)
        return 1;
    const struct sb_drafter_ops *ops = sb_drafter_find(spec.name);
    int64_t k = 0;
    const struct sb_policy policy = { .ops = sb_policy_find("constant"), .params = &k };
    struct sb_tree tree = { 0 };
    void *params = sb_alloc_zero(1, ops->params_size), *st = sb_alloc_zero(1, ops->state_size);
    struct sb_drafter_env env = {
        .max_context = CONTEXT, .n_vocab = CONTEXT, .params = params, .policy = &policy
    };
    int failed = !params || !st ||
                 sb_params_apply(params, ops->params, &spec, text, NULL) != SB_OK ||
                 sb_tree_create(&tree, 41, NULL) != SB_OK || ops->open(st, &env, NULL) != SB_OK;
    struct sb_context ctx = { .tokens = x, .n = WARM, .n_prompt = WARM - 1, .policy = &policy };
    size_t n = 0;
    uint64_t begin_ns[9];
    for (size_t i = 0; !failed && i < 9; i++) {
        uint64_t start = sb_now_ns();
        failed = ops->begin(st, &ctx, NULL) != SB_OK;
        begin_ns[i] = sb_now_ns() - start;
    }
    for (; !failed && ctx.n <= CONTEXT; ctx.n++) {
        uint64_t start = sb_now_ns();
        if (ops->observe)
            ops->observe(st, &ctx, NULL, NULL);
        sb_tree_reset(&tree, x[ctx.n - 1], 40);
        failed = ops->propose(st, &ctx, &tree, NULL) != SB_OK;
        ns[n++] = sb_now_ns() - start;
    }
    if (!failed) {
        char title[60];
        snprintf(title, sizeof title, "%s begin", text);
        print_times(title, begin_ns, 9);
        print_times(text, ns + 1, n - 1); /* the first one indexes the prompt for pld */
    }
    if (st)
        ops->close(st);
    sb_tree_finish(&tree);
    sb_spec_finish(&spec);
    sb_free(params);
    sb_free(st);
    return failed;
}

static void bench_scan(const sb_token *x)
{
    static uint64_t ns[CONTEXT];
    size_t count = 0;
    volatile size_t found;
    for (size_t n = WARM; n <= CONTEXT; n++) {
        uint64_t start = sb_now_ns();
        found = scan(x, n);
        ns[count++] = sb_now_ns() - start;
    }
    (void)found;
    print_times("a scan, for comparison", ns, count);
}

static int bench_sampling(size_t n, struct sb_sampling s)
{
    uint64_t ns[50];
    float *logits = sb_alloc_array(n, sizeof *logits);
    double *prob = sb_alloc_array(n, sizeof *prob);
    void *scratch = sb_alloc(sb_sampling_scratch_bytes(n));
    int failed = !logits || !prob || !scratch;
    struct sb_rng rng = sb_rng_make(1, SB_STREAM_INIT);
    for (size_t i = 0; !failed && i < n; i++)
        logits[i] = (float)(3 * sb_rng_normal(&rng));
    for (size_t i = 0; !failed && i < 50; i++) {
        uint64_t start = sb_now_ns();
        sb_sampling_apply(prob, &s, logits, n, scratch);
        ns[i] = sb_now_ns() - start;
    }
    char name[80];
    snprintf(name, sizeof name, "S: V=%zu T=%g k=%zu p=%g", n, s.temperature, s.top_k, s.top_p);
    if (!failed)
        print_times(name, ns, 50);
    sb_free(logits);
    sb_free(prob);
    sb_free(scratch);
    return failed;
}

/* A set of four children from a row of S; `chosen`: the likeliest instead. */
static void bench_set(const char *name, size_t n, const float *logits, const double *q,
                      enum sb_draw_rule rule, bool chosen, void *scratch, struct sb_tree *tree)
{
    enum { RUNS = 60, WIDTH = 4 };
    uint64_t ns[RUNS];
    char title[80];
    snprintf(title, sizeof title, "4 children: V=%zu %s", n, name);
    for (uint64_t i = 0; i < RUNS; i++) {
        struct sb_rng_dice rng = sb_rng_dice_make(i, SB_STREAM_DRAFT, SB_STREAM_DRAFT);
        struct sb_dice dice = sb_rng_dice_at(&rng, i);
        sb_tree_reset(tree, 0, 9);
        uint64_t start = sb_now_ns();
        if (chosen)
            sb_choose_children(tree, 0, logits, n, WIDTH, 0);
        else
            sb_draw_children(tree, 0, rule, q, n, WIDTH, &dice, scratch, 0);
        ns[i] = sb_now_ns() - start;
    }
    print_times(title, ns, RUNS);
}

static int bench_draws(size_t n)
{
    static const char *const names[] = { "iid", "wor", "paths", "hub", "topk1", "coupled" };
    float *logits = sb_alloc_array(n, sizeof *logits);
    double *q = sb_alloc_array(n, sizeof *q);
    void *scratch = sb_alloc(sb_draw_scratch_bytes(n) + sb_sampling_scratch_bytes(n));
    struct sb_tree tree = { 0 };
    int failed = !logits || !q || !scratch || sb_tree_create(&tree, 5, NULL) != SB_OK;
    struct sb_rng rng = sb_rng_make(1, SB_STREAM_INIT);
    for (size_t i = 0; !failed && i < n; i++)
        logits[i] = (float)(3 * sb_rng_normal(&rng));
    if (!failed) {
        sb_sampling_apply(q, &(struct sb_sampling){ .temperature = .8 }, logits, n, scratch);
        bench_set("chosen", n, logits, q, SB_RULE_IID, true, scratch, &tree);
        for (size_t i = 0; i < 6; i++)
            bench_set(names[i], n, logits, q, sb_draw_rule_of(names[i]), false, scratch, &tree);
    }
    sb_tree_finish(&tree);
    sb_free(logits);
    sb_free(q);
    sb_free(scratch);
    return failed;
}

/* Target rows for drafters that look at them; the linker puts this in the place of sb_seq_logits. */
static const float *made_up_row;
const float *__wrap_sb_seq_logits(const struct sb_seq *seq, size_t row);
const float *__wrap_sb_seq_logits(const struct sb_seq *seq, size_t row)
{
    return made_up_row;
}

/* Steps that accept nothing: propose, and observe with its pass over the rows. */
static int bench_steps(const char *text, size_t n_vocab, struct sb_rng *rng)
{
    enum { RUNS = 200 };
    uint64_t ns[RUNS];
    struct sb_spec spec = { 0 };
    int failed = sb_spec_parse(&spec, text, NULL) != SB_OK;
    const struct sb_drafter_ops *ops = failed ? NULL : sb_drafter_find(spec.name);
    int64_t k = 0;
    const struct sb_policy policy = { .ops = sb_policy_find("constant"), .params = &k };
    struct sb_tree tree = { 0 };
    if (!ops)
        return 1;
    void *params = sb_alloc_zero(1, ops->params_size), *st = sb_alloc_zero(1, ops->state_size);
    float *logits = sb_alloc_array(n_vocab, sizeof *logits);
    struct sb_drafter_env env = {
        .max_context = CONTEXT, .n_vocab = n_vocab, .params = params, .policy = &policy
    };
    failed = !params || !st || !logits ||
             sb_params_apply(params, ops->params, &spec, "it", NULL) != SB_OK ||
             sb_tree_create(&tree, ops->max_nodes(params, &policy) + 1, NULL) != SB_OK ||
             ops->open(st, &env, NULL) != SB_OK;
    for (size_t i = 0; !failed && i < n_vocab; i++)
        logits[i] = (float)sb_rng_normal(rng);
    static sb_token x[WARM + RUNS + 1];
    for (size_t i = 0; i < WARM + RUNS + 1; i++)
        x[i] = (sb_token)sb_rng_below(rng, 4);
    made_up_row = logits;
    struct sb_context ctx = { .tokens = x, .n = WARM, .n_prompt = WARM, .policy = &policy };
    if (!failed)
        failed = ops->begin(st, &ctx, NULL) != SB_OK;
    for (size_t i = 0; !failed && i < RUNS; i++) {
        if (i % 2) /* the arg max moves; half of the tokens have guesses in the pool */
            logits[sb_rng_below(rng, 4)] = (float)(5 + i);
        uint64_t start = sb_now_ns();
        sb_tree_reset(&tree, x[ctx.n - 1], 100);
        failed = ops->propose(st, &ctx, &tree, NULL) != SB_OK;
        ctx.n++;
        const struct sb_outcome outcome = { .tree = &tree, .path = (int32_t[]){ 0 }, .n_path = 1 };
        failed = failed || ops->observe(st, &ctx, &outcome, NULL) != SB_OK;
        ns[i] = sb_now_ns() - start;
    }
    char name[100];
    snprintf(name, sizeof name, "%s V=%zu", text, n_vocab);
    if (!failed)
        print_times(name, ns, RUNS);
    if (st)
        ops->close(st);
    sb_tree_finish(&tree);
    sb_spec_finish(&spec);
    sb_free(params);
    sb_free(st);
    sb_free(logits);
    return failed;
}

/* What a policy costs a step of a chain of eight: plan, eight questions of each kind, learn. */
static int bench_policy(const char *text, struct sb_rng *rng)
{
    enum { RUNS = 500, TOKENS = 8 };
    uint64_t ns[RUNS];
    struct sb_spec spec = { 0 };
    struct sb_policy p = { 0 };
    int failed = sb_spec_parse(&spec, text, NULL) != SB_OK || !(p.ops = sb_policy_find(spec.name));
    if (failed)
        return 1;
    void *params = sb_alloc_zero(1, p.ops->params_size);
    p.params = params;
    p.state = sb_alloc_zero(1, p.ops->state_size + 1);
    failed = !params || !p.state ||
             sb_params_apply(params, p.ops->params, &spec, "it", NULL) != SB_OK ||
             (p.ops->open && p.ops->open(p.state, p.params, NULL) != SB_OK);
    volatile int32_t sink = 0;
    for (size_t i = 0; !failed && i < RUNS; i++) {
        struct sb_policy_node node[TOKENS];
        for (int32_t d = 0; d < TOKENS; d++) {
            double prob = sb_rng_uniform(rng);
            node[d] = (struct sb_policy_node){ .depth = d + 1,
                                               .n_nodes = d + 1,
                                               .n_seen = d + 1,
                                               .top_prob = prob,
                                               .prob = prob,
                                               .path_prob = prob,
                                               .sum_seen = d * .3,
                                               .entropy = 1 - prob };
        }
        struct sb_policy_step step = { .drafted = TOKENS, .accepted = (int32_t)(i % TOKENS) };
        uint64_t start = sb_now_ns();
        sink += sb_policy_plan(&p, TOKENS);
        for (int32_t d = 0; d < TOKENS; d++)
            sink += sb_policy_refuses(&p, &node[d]) + sb_policy_stops(&p, &node[d]);
        if (p.ops->learn)
            p.ops->learn(p.state, p.params, &step);
        ns[i] = sb_now_ns() - start;
    }
    char name[100];
    snprintf(name, sizeof name, "policy %s", text);
    if (!failed)
        print_times(name, ns, RUNS);
    sb_spec_finish(&spec);
    sb_free(params);
    sb_free(p.state);
    return failed;
}

static int bench_policies(struct sb_rng *rng)
{
    static const char *const policies[] = {
        "constant",
        "heuristic",
        "svip",
        "confidence",
        "confidence:adapt=1",
        "optimal-gamma",
        "optimal-gamma:curve='4:1.4;8:2.2'",
        "tree-cost",
    };
    int failed = 0;
    for (size_t i = 0; i < sizeof policies / sizeof *policies; i++)
        failed |= bench_policy(policies[i], rng);
    return failed;
}

int main(void)
{
    static const char *const drafters[] = { "pld:match=ref",
                                            "pld:match=first",
                                            "pld:match=last",
                                            "pld:match=best",
                                            "ngram-cache",
                                            "anpd",
                                            "anpd:backoff=stupid",
                                            "llma",
                                            "mag",
                                            "sad" };
    static const char *const texts[] = { "zipf-like text", "text without repeats",
                                         "one token repeated" };
    static sb_token x[CONTEXT];
    struct sb_rng rng = sb_rng_make(2, SB_STREAM_DATA);
    int failed = 0;
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < CONTEXT; i++)
            x[i] = t == 0 ? (sb_token)(2000 / (1 + sb_rng_below(&rng, 2000))) : t == 1 ? i : 7;
        printf("%s, %d to %d tokens\n", texts[t], WARM, CONTEXT);
        for (size_t d = 0; d < sizeof drafters / sizeof *drafters; d++)
            failed |= bench_drafter(drafters[d], x);
        bench_scan(x);
    }
    failed |= bench_policies(&rng);
    for (size_t n = 4096; n <= 151936 && !failed; n = n == 4096    ? 32000
                                                      : n == 32000 ? 151936
                                                                   : n + 1) {
        failed |= bench_sampling(n, (struct sb_sampling){ .temperature = .8 });
        failed |= bench_sampling(n, (struct sb_sampling){ .temperature = .8, .top_k = 40 });
        failed |= bench_sampling(n, (struct sb_sampling){ .temperature = .8, .top_p = .95 });
        failed |= bench_draws(n);
        failed |= bench_steps("jacobi", n, &rng);
        failed |= bench_steps("lookahead", n, &rng);
        failed |= bench_steps("lookahead:window=15,ngram=5,guesses=15", n, &rng);
    }
    return failed;
}

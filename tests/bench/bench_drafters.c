/* What drafters without a model cost per step, at a text of 3,000 to 4,000 tokens: propose and observe,
 * one token a step, in microseconds; and begin, which reads the first 3,000. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/core/threads.h"
#include "harness/decode/drafter.h"
#include "tests/property/toy_model.h"

enum { CONTEXT = 4096, WARM = 3000, CAP = 300, VOCAB = 1000 };

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void print_times(const char *what, uint64_t *ns, size_t n)
{
    qsort(ns, n, sizeof *ns, by_value);
    printf("   %s median %7.2f p99 %7.2f us", what, (double)ns[n / 2] / 1e3,
           (double)ns[n * 99 / 100] / 1e3);
}

struct bench {
    const struct sb_drafter_ops *ops;
    void *params, *st;
    struct sb_spec spec;
    struct sb_tree tree;
    struct sb_policy policy;
    struct sb_seq *seq; /* rows to learn from; computed once, whatever the tree is */
};

/* Rows for every node there can be, so that observe has logits to read. */
static int make_rows(struct bench *b, struct sb_model *model)
{
    struct sb_row row[CAP];
    for (int32_t i = 0; i < CAP; i++)
        row[i] = (struct sb_row){ .token = i, .parent = -1 + (i > 0), .want_logits = true };
    return sb_seq_create(&b->seq, model, CAP, CAP, NULL) != SB_OK ||
           sb_forward(b->seq, row, CAP, NULL, NULL) != SB_OK;
}

static void time_steps(struct bench *b, const sb_token *x)
{
    static uint64_t propose_ns[CONTEXT], observe_ns[CONTEXT];
    struct sb_context ctx = { .tokens = x, .n = WARM, .n_prompt = WARM / 2, .policy = &b->policy };
    size_t n = 0, nodes = 0;
    uint64_t start = sb_now_ns();
    if (b->ops->begin)
        b->ops->begin(b->st, &ctx, NULL);
    printf("   begin %8.1f us", (double)(sb_now_ns() - start) / 1e3);
    for (; ctx.n < CONTEXT; n++) {
        start = sb_now_ns();
        sb_tree_reset(&b->tree, x[ctx.n - 1], CAP);
        b->ops->propose(b->st, &ctx, &b->tree, NULL);
        propose_ns[n] = sb_now_ns() - start;
        nodes += (size_t)b->tree.n - 1;
        ctx.n++;
        start = sb_now_ns();
        if (b->ops->observe)
            b->ops->observe(b->st, &ctx, &(struct sb_outcome){ .tree = &b->tree, .target = b->seq },
                            NULL);
        observe_ns[n] = sb_now_ns() - start;
    }
    print_times("propose", propose_ns, n);
    print_times("observe", observe_ns, n);
    printf("   %.1f nodes\n", (double)nodes / (double)n);
}

static int bench_drafter(const char *text, const sb_token *x, struct sb_model *model)
{
    struct bench b = { .policy.ops = sb_policy_find("constant") };
    int64_t k = 0;
    b.policy.params = &k;
    int failed = sb_spec_parse(&b.spec, text, NULL) != SB_OK;
    b.ops = failed ? NULL : sb_drafter_find(b.spec.name);
    if (!b.ops)
        return 1;
    b.params = sb_alloc_zero(1, b.ops->params_size);
    b.st = sb_alloc_zero(1, b.ops->state_size);
    struct sb_drafter_env env = {
        .max_context = CONTEXT, .n_vocab = VOCAB, .params = b.params, .policy = &b.policy
    };
    failed = !b.params || !b.st ||
             sb_params_apply(b.params, b.ops->params, &b.spec, "it", NULL) != SB_OK ||
             sb_tree_create(&b.tree, CAP, NULL) != SB_OK || make_rows(&b, model) ||
             b.ops->open(b.st, &env, NULL) != SB_OK;
    printf("  %-30s", text);
    if (!failed)
        time_steps(&b, x);
    if (b.st)
        b.ops->close(b.st);
    sb_seq_destroy(b.seq);
    sb_tree_finish(&b.tree);
    sb_spec_finish(&b.spec);
    sb_free(b.params);
    sb_free(b.st);
    return failed;
}

int main(void)
{
    static const char *const drafters[] = {
        "pld",           "sam", "suffix-decoding", "suffix-decoding:tree=1", "token-recycling",
        "trie-lookahead"
    };
    static const char *const texts[] = { "zipf-like text", "a text of 700 tokens, repeated",
                                         "one token repeated" };
    static sb_token x[CONTEXT];
    struct sb_rng rng = sb_rng_make(2, SB_STREAM_DATA);
    sb_threads_set(1);
    struct toy_model toy = toy_model_create(1, 0, VOCAB, CONTEXT, -1);
    int failed = 0;
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < CONTEXT; i++)
            x[i] = t == 2              ? 7
                   : t == 0 || i < 700 ? (sb_token)(VOCAB / (1 + sb_rng_below(&rng, VOCAB)) % VOCAB)
                                       : x[i - 700];
        printf("%s\n", texts[t]);
        for (size_t d = 0; d < sizeof drafters / sizeof *drafters; d++)
            failed |= bench_drafter(drafters[d], x, toy.model);
    }
    toy_model_destroy(&toy);
    return failed;
}

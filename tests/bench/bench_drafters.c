/* What drafters without a model cost per step, at a text of 3,000 to 4,000 tokens: propose and observe,
 * one token a step, in microseconds; and begin, which reads the first 3,000. Memory: what is allocated
 * after open, and how much more per 1,000 tokens once 20 texts were seen (what scope=run keeps). Then
 * retrieval from a datastore of 10 million tokens (--store N: another size): sorting, search, draft. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drafters/datastore.h"
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
    printf("   %s median %7.2f p90 %7.2f p99 %7.2f us", what, (double)ns[n / 2] / 1e3,
           (double)ns[n * 9 / 10] / 1e3, (double)ns[n * 99 / 100] / 1e3);
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
    printf("   %.1f nodes", (double)nodes / (double)n);
}

static size_t memory_in_use(void)
{
    struct mallinfo2 m = mallinfo2();
    return m.uordblks + m.hblkhd;
}

/* Texts one after the other, as a run has them, each other than those before. */
static void print_growth(struct bench *b, const sb_token *x, size_t before_open)
{
    enum { TEXTS = 20 };
    static sb_token y[CONTEXT];
    size_t opened = memory_in_use(), n = 0;
    for (int t = 0; t < TEXTS; t++) {
        for (int i = 0; i < CONTEXT; i++)
            y[i] = (x[i] + 7 * t * (i % 3)) % VOCAB;
        struct sb_context ctx = {
            .tokens = y, .n = WARM, .n_prompt = WARM / 2, .policy = &b->policy
        };
        if (b->ops->begin)
            b->ops->begin(b->st, &ctx, NULL);
        for (; ctx.n < CONTEXT - 1; n++) {
            sb_tree_reset(&b->tree, y[ctx.n - 1], CAP);
            b->ops->propose(b->st, &ctx, &b->tree, NULL);
            ctx.n++;
            if (b->ops->observe)
                b->ops->observe(b->st, &ctx,
                                &(struct sb_outcome){ .tree = &b->tree, .target = b->seq }, NULL);
        }
    }
    printf("   %8.0f KiB, %+7.1f per 1,000 tokens\n", (double)(opened - before_open) / 1024,
           ((double)memory_in_use() - (double)opened) / 1024 / (TEXTS * CONTEXT / 1000.));
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
             sb_tree_create(&b.tree, CAP, NULL) != SB_OK || make_rows(&b, model);
    size_t before_open = memory_in_use();
    failed = failed || b.ops->open(b.st, &env, NULL) != SB_OK;
    printf("  %-30s", text);
    if (!failed) {
        time_steps(&b, x);
        print_growth(&b, x, before_open);
    }
    if (b.st)
        b.ops->close(b.st);
    sb_seq_destroy(b.seq);
    sb_tree_finish(&b.tree);
    sb_spec_finish(&b.spec);
    sb_free(b.params);
    sb_free(b.st);
    return failed;
}

/* ---- a datastore ---- */

static const char store_path[] = "/tmp/specbench-bench.sbidx";

/* Zipf-like tokens in which half of all stretches were there before, as in real text. */
static void fill_store(sb_token *text, size_t n)
{
    struct sb_rng rng = sb_rng_make(5, SB_STREAM_DATA);
    enum { STRETCH = 24, IDS = 32000 };
    for (size_t at = 0; at < n;) {
        size_t stop = at + STRETCH < n ? at + STRETCH : n;
        size_t from = at > STRETCH && sb_rng_below(&rng, 2) ? sb_rng_below(&rng, at - STRETCH) : at;
        for (; at < stop; at++, from++)
            text[at] =
                from < at ? text[from] : (sb_token)(IDS / (1 + sb_rng_below(&rng, IDS)) % IDS);
    }
}

static int time_lookups(const sb_token *text, size_t n)
{
    enum { TRIES = 4000, SPANS = 16 };
    static uint64_t find_ns[TRIES], draft_ns[TRIES];
    struct bench b = { .policy.ops = sb_policy_find("constant"), .ops = sb_drafter_find("rest") };
    int64_t k = 0;
    struct sb_rng rng = sb_rng_make(6, SB_STREAM_DATA);
    b.policy.params = &k;
    b.params = sb_alloc_zero(1, b.ops->params_size);
    b.st = sb_alloc_zero(1, b.ops->state_size);
    struct sb_drafter_env env = {
        .max_context = CONTEXT, .n_vocab = 32000, .params = b.params, .policy = &b.policy
    };
    struct sb_datastore store = { 0 };
    sb_spec_init(&b.spec, "rest", NULL);
    sb_spec_set(&b.spec, "store", store_path, NULL);
    uint64_t start = sb_now_ns();
    int failed = sb_params_apply(b.params, b.ops->params, &b.spec, "it", NULL) != SB_OK ||
                 sb_tree_create(&b.tree, CAP, NULL) != SB_OK ||
                 b.ops->open(b.st, &env, NULL) != SB_OK ||
                 sb_datastore_open(&store, store_path, NULL, 32000, NULL) != SB_OK;
    printf("  opened twice in %.2f s\n", (double)(sb_now_ns() - start) / 1e9);
    for (size_t i = 0; i < TRIES && !failed; i++) {
        /* Ends of text that are there as a whole, or to a length drawn by lot. */
        sb_token x[SPANS];
        size_t at = sb_rng_below(&rng, n - SPANS), known = sb_rng_below(&rng, SPANS + 1);
        for (size_t j = 0; j < SPANS; j++)
            x[j] = j + known < SPANS ? (sb_token)sb_rng_below(&rng, 32000) : text[at + j];
        struct sb_context ctx = { .tokens = x, .n = SPANS, .n_prompt = 1, .policy = &b.policy };
        sb_tree_reset(&b.tree, x[SPANS - 1], CAP);
        start = sb_now_ns();
        b.ops->propose(b.st, &ctx, &b.tree, NULL);
        draft_ns[i] = sb_now_ns() - start;
        at = sb_rng_below(&rng, n - SPANS);
        start = sb_now_ns();
        struct sb_datastore_range r = sb_datastore_find(&store, 0, text + at, 1 + i % SPANS);
        find_ns[i] = sb_now_ns() - start;
        failed = r.from == r.to;
    }
    print_times("search", find_ns, TRIES);
    print_times("draft", draft_ns, TRIES);
    printf("\n");
    sb_datastore_close(&store);
    b.ops->close(b.st);
    sb_tree_finish(&b.tree);
    sb_spec_finish(&b.spec);
    sb_free(b.params);
    sb_free(b.st);
    return failed;
}

static int bench_store(size_t n)
{
    sb_token *text = sb_alloc_array(n, sizeof *text);
    if (!text)
        return 1;
    fill_store(text, n);
    uint64_t start = sb_now_ns();
    int failed = sb_datastore_write(store_path, text, n, 0, 32000, 0, NULL) != SB_OK;
    printf("a datastore of %zu tokens: sorted and written in %.1f s\n", n,
           (double)(sb_now_ns() - start) / 1e9);
    failed = failed || time_lookups(text, n);
    remove(store_path);
    sb_free(text);
    return failed;
}

int main(int argc, char **argv)
{
    long n_store = argc > 2 && strcmp(argv[1], "--store") == 0 ? atol(argv[2]) : 10000000;
    static const char *const drafters[] = { "pld",
                                            "sam",
                                            "suffix-decoding",
                                            "suffix-decoding:tree=1",
                                            "token-recycling",
                                            "trie-lookahead",
                                            "anpd",
                                            "ngram-cache",
                                            "ngram-cache:scope=run",
                                            "sam:scope=run",
                                            "llma",
                                            "mag",
                                            "sad",
                                            "delegate",
                                            "merge",
                                            "merge:a=pld,b=sam" };
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
    return failed | bench_store((size_t)n_store);
}

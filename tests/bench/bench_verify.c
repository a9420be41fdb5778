/* bench_verify: what probability rows cost a decoding step, in microseconds per row: the kernels of
 * kernels/prob.h, the transform S, and every verifier of the registry per visited row. A figure is the
 * least of many calls: other work on the machine only ever adds.
 *
 * Rows are like those of language models: peaked ones hold a few likely tokens above a broad rest, flat
 * ones are what a high temperature leaves. The draft's row is near the target's. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/clock.h"
#include "harness/decode/verifier.h"
#include "kernels/prob.h"

enum { MAX_RUNS = 3000 };
static const double budget_s = 0.05; /* per figure */

struct rows {
    size_t n;
    float *x, *y; /* logits of target and draft */
    double *p, *q, *out;
    float *kept;
    struct sb_temper temper;
    struct sb_sampling sampling;
    struct sb_rng noise;
    double u; /* for picks; another one for each call */
    volatile double sink;
};

static double *doubles(size_t n)
{
    double *x = sb_alloc_aligned(n, sizeof *x);
    if (!x) {
        fprintf(stderr, "bench_verify: out of memory\n");
        exit(1);
    }
    memset(x, 0, n * sizeof *x);
    return x;
}

/* A few likely tokens at scattered ids, the rest far below them; or everything alike. */
static void fill_logits(float *x, size_t n, bool flat, uint64_t seed)
{
    struct sb_rng rng = sb_rng_make(seed, SB_STREAM_DATA);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(flat ? .5 * sb_rng_normal(&rng) : 2 * sb_rng_normal(&rng) - 4);
    for (size_t i = 0; i < 40 && !flat; i++)
        x[sb_rng_below(&rng, n)] = (float)(11.5 - 3.5 * log1p((double)i) / log(4));
}

static struct rows rows_make(size_t n, bool flat)
{
    struct rows r = { .n = n,
                      .x = (float *)doubles(n),
                      .y = (float *)doubles(n),
                      .p = doubles(n),
                      .q = doubles(n),
                      .out = doubles(n),
                      .kept = (float *)doubles(n),
                      .noise = sb_rng_make(3, SB_STREAM_NOISE) };
    const struct sb_sampling plain = { .temperature = 1 };
    struct sb_rng rng = sb_rng_make(4, SB_STREAM_DATA);
    fill_logits(r.x, n, flat, 1);
    for (size_t i = 0; i < n; i++)
        r.y[i] = r.x[i] + .6f * (float)sb_rng_normal(&rng);
    sb_sampling_apply(r.p, &plain, r.x, n, NULL);
    sb_sampling_apply(r.q, &plain, r.y, n, NULL);
    r.temper = sb_temper_make(sb_logits_max(r.x, n, NULL), 1);
    return r;
}

static void rows_finish(struct rows *r)
{
    sb_free(r->x);
    sb_free(r->y);
    sb_free(r->p);
    sb_free(r->q);
    sb_free(r->out);
    sb_free(r->kept);
}

/* Least microseconds of one call. */
static double time_of(void (*run)(struct rows *), struct rows *r)
{
    double best = INFINITY, spent = 0;
    for (int i = 0; i < MAX_RUNS && (spent < budget_s || i < 5); i++) {
        r->noise.position = (uint64_t)i;
        r->u = fmod(i * .6180339887, 1);
        uint64_t start = sb_now_ns();
        run(r);
        double seconds = (double)(sb_now_ns() - start) * 1e-9;
        best = seconds < best ? seconds : best;
        spent += seconds;
    }
    return best * 1e6;
}

/* ---- kernels ---- */

#define KERNEL(name, call)                 \
    static void run_##name(struct rows *r) \
    {                                      \
        r->sink = (double)(call);          \
    }
#define KERNELS(X)                                                                \
    X(logits_max, sb_logits_max(r->x, r->n, NULL))                                \
    X(logits_argmax, sb_logits_argmax(r->x, r->n))                                \
    X(logits_count, sb_logits_count(r->x, r->n, 1))                               \
    X(logits_take, sb_logits_take(r->kept, r->x, r->n, 3))                        \
    X(prob_exp, sb_prob_exp(r->out, r->x, r->n, &r->temper))                      \
    X(prob_exp_sum, sb_prob_exp(NULL, r->x, r->n, &r->temper))                    \
    X(prob_moment, sb_prob_moment(r->x, r->n, &r->temper, r->out))                \
    X(prob_sum, sb_prob_sum(r->p, r->n))                                          \
    X(prob_check, sb_prob_check(r->p, r->n))                                      \
    X(prob_scale, (sb_prob_scale(r->out, r->p, r->n, 3), 0))                      \
    X(prob_residual, sb_prob_residual(r->out, 1, r->p, 1, r->q, r->n))            \
    X(prob_residual_onehot, sb_prob_residual_onehot(r->out, 1, r->p, 1, 9, r->n)) \
    X(prob_blend, (sb_prob_blend(r->out, 1, r->p, 1, r->q, r->n), 0))             \
    X(prob_below, sb_prob_below(r->out, r->p, r->q, .1, r->n))                    \
    X(prob_overlap, sb_prob_overlap(1, r->p, 1, r->q, r->n))                      \
    X(prob_entropy, sb_prob_entropy(r->p, r->n))                                  \
    X(prob_argmax, sb_prob_argmax(r->p, r->n))                                    \
    X(prob_pick, sb_prob_pick(r->u, r->p, r->n))                                  \
    X(race, sb_race(&r->noise, r->p, r->n))                                       \
    /* end */
KERNELS(KERNEL)

static const struct {
    const char *name;
    void (*run)(struct rows *);
} kernels[] = {
#define X(name, call) { #name, run_##name },
    KERNELS(X)
#undef X
};

static void run_sampling(struct rows *r)
{
    sb_sampling_apply(r->out, &r->sampling, r->x, r->n, r->kept);
}

static const struct {
    struct sb_sampling sampling;
    bool flat;
} settings[] = {
    { { 0 }, false },
    { { .temperature = 1 }, false },
    { { .temperature = .8, .top_k = 50 }, false },
    { { .temperature = .8, .top_p = .9 }, false },
    { { .temperature = .8, .top_k = 50, .top_p = .9 }, false },
    { { .temperature = 1, .top_k = 50 }, true },
    { { .temperature = 1, .top_k = 20000 }, true },
    { { .temperature = 1, .top_p = .9 }, true },
};

static const size_t sizes[] = { 4096, 32000 };

/* One line per kernel or setting, one column per size and variant. */
static void print_head(const char *what)
{
    printf("\n%-34s", what);
    for (size_t s = 0; s < 2; s++)
        for (int cpu = 0; cpu < SB_CPU_COUNT; cpu++)
            if (sb_cpu_supported((enum sb_cpu)cpu))
                printf(" %8s", sb_cpu_name((enum sb_cpu)cpu));
    printf("\n%-34s", "us per row");
    for (size_t s = 0; s < 2; s++)
        for (int cpu = 0; cpu < SB_CPU_COUNT; cpu++)
            if (sb_cpu_supported((enum sb_cpu)cpu))
                printf(" %8zu", sizes[s]);
    printf("\n");
}

static void print_line(const char *name, void (*run)(struct rows *), struct rows *rows[2])
{
    printf("%-34s", name);
    for (size_t s = 0; s < 2; s++)
        for (int cpu = 0; cpu < SB_CPU_COUNT; cpu++)
            if (sb_cpu_supported((enum sb_cpu)cpu)) {
                sb_cpu_select(sb_cpu_name((enum sb_cpu)cpu), NULL);
                printf(" %8.2f", time_of(run, rows[s]));
            }
    printf("\n");
}

/* ---- verifiers ---- */

/* A step in which one row is visited: the root's, where the only draft is refused. S makes the row, as
 * it does in a session. */
struct step {
    struct rows *rows;
    const struct sb_verifier_ops *verifier;
    void *params, *scratch;
    struct sb_tree tree;
    int32_t path[4];
    uint8_t decision[4];
    struct sb_rng_dice rng;
    int32_t visited;
    bool failed;
};

static const double *step_row(void *self, int32_t node)
{
    struct step *step = self;
    struct rows *r = step->rows;
    if (node == 0 && step->visited == 0)
        sb_sampling_apply(r->out, &r->sampling, r->x, r->n, r->kept);
    step->visited |= 1 << node;
    return r->out;
}

static const float *step_logits(void *self, int32_t node)
{
    return ((struct step *)self)->rows->x;
}

static size_t step_argmax(void *self, int32_t node)
{
    struct step *step = self;
    return sb_logits_argmax(step->rows->x, step->rows->n);
}

static void run_verifier(struct step *step, uint64_t position)
{
    const struct sb_rows rows = { .row = step_row,
                                  .argmax = step_argmax,
                                  .logits = step_logits,
                                  .greedy = step->rows->sampling.temperature <= 0,
                                  .trusted = true,
                                  .self = step,
                                  .n_vocab = step->rows->n };
    struct sb_verdict verdict = { .path = step->path, .decision = step->decision };
    struct sb_dice dice = sb_rng_dice_at(&step->rng, position);
    step->visited = 0;
    if (step->verifier->verify(step->params, &step->tree, &rows, &dice, step->scratch, &verdict,
                               NULL) != SB_OK)
        step->failed = true;
}

/* The root with one drawn child, a token that q likes better than p does, or one that is not the best. */
static bool make_tree(struct step *step)
{
    const struct rows *r = step->rows;
    size_t token = sb_prob_argmax(r->q, r->n);
    if (sb_tree_create(&step->tree, 4, NULL) != SB_OK)
        return false;
    sb_tree_reset(&step->tree, 0, 3);
    step->tree.trusted = true; /* as small-lm says, since S makes its rows */
    for (size_t i = 0; i < r->n; i++)
        if (r->q[i] > 0 && r->q[i] - 3 * r->p[i] > r->q[token] - 3 * r->p[token])
            token = i;
    /* Independent draws if the verifier takes them, else the first kind of draw that it takes. */
    unsigned kinds = step->verifier->kinds & ~SB_KIND_BIT(SB_DRAW_ONEHOT);
    enum sb_draw_kind kind = SB_DRAW_IID;
    while (kinds && !(kinds & SB_KIND_BIT(kind)))
        kind++;
    bool chosen = (step->verifier->kinds & SB_KIND_BIT(SB_DRAW_ONEHOT)) != 0;
    if (kinds && (r->sampling.temperature > 0 || !chosen))
        sb_tree_draw(&step->tree, 0, (sb_token)token, kind, r->q, (float)log(r->q[token]), 0);
    else
        sb_tree_add(&step->tree, 0, (sb_token)((sb_logits_argmax(r->x, r->n) + 1) % r->n), 0);
    step->tree.node[0].draft_row = step->tree.node[1].draft_row = r->q;
    return true;
}

/* Least microseconds where one row was visited: refused; else of all (a verifier may always go on). */
static double time_verifier(struct step *step, bool *refused)
{
    double best[2] = { INFINITY, INFINITY }, spent = 0;
    for (int i = 0; i < MAX_RUNS && (spent < 2 * budget_s || i < 20); i++) {
        uint64_t start = sb_now_ns();
        run_verifier(step, (uint64_t)i);
        double seconds = (double)(sb_now_ns() - start) * 1e-9;
        bool further = step->decision[1] == SB_ACCEPTED;
        best[further] = seconds < best[further] ? seconds : best[further];
        spent += seconds;
    }
    *refused = best[0] < INFINITY;
    return best[*refused ? 0 : 1] * 1e6;
}

static void bench_verifier(const struct sb_verifier_ops *verifier, struct rows *r, const char *what)
{
    struct step step = { .rows = r, .verifier = verifier };
    struct sb_spec spec = { 0 };
    bool refused = false;
    double us = 0;
    step.params = sb_alloc_zero(1, verifier->params_size + 1);
    bool ready = step.params && sb_spec_init(&spec, verifier->name, NULL) == SB_OK &&
                 sb_params_apply(step.params, verifier->params, &spec, "verifier", NULL) == SB_OK;
    size_t scratch =
        ready && verifier->scratch_size ? verifier->scratch_size(step.params, r->n, 4) : 0;
    step.scratch = sb_alloc_aligned(scratch + 1, 1);
    step.rng = sb_rng_dice_make(5, SB_STREAM_ACCEPT, SB_STREAM_SAMPLE);
    if (ready && step.scratch && make_tree(&step))
        us = time_verifier(&step, &refused);
    if (!ready || step.failed)
        printf("%-34s %-22s %8s\n", verifier->name, what, "refuses");
    else
        printf("%-34s %-22s %8.2f%s\n", verifier->name, what, us,
               refused ? "" : "  (went on: two nodes)");
    sb_tree_finish(&step.tree);
    sb_spec_finish(&spec);
    sb_free(step.params);
    sb_free(step.scratch);
}

static void bench_verifiers(struct rows *peaked)
{
    static const struct {
        const char *name;
        struct sb_sampling sampling;
    } laws[] = { { "T=0", { 0 } },
                 { "T=1", { .temperature = 1 } },
                 { "T=1, top_k=50", { .temperature = 1, .top_k = 50 } } };
    sb_cpu_select(NULL, NULL);
    printf("\nverifier, one visited row of %zu, %s\n", peaked->n, sb_cpu_name(sb_cpu_active()));
    for (size_t i = 0; sb_verifiers[i]; i++)
        for (size_t l = 0; l < 3; l++) {
            const struct sb_verifier_ops *v = sb_verifiers[i];
            bool samples = laws[l].sampling.temperature > 0;
            if (samples && (v->guarantee == SB_GREEDY_EXACT || v->greedy_only))
                continue;
            peaked->sampling = laws[l].sampling;
            sb_sampling_apply(peaked->p, &peaked->sampling, peaked->x, peaked->n, peaked->kept);
            sb_sampling_apply(peaked->q, &peaked->sampling, peaked->y, peaked->n, peaked->kept);
            bench_verifier(v, peaked, laws[l].name);
        }
}

int main(void)
{
    struct rows peaked[2], flat[2];
    struct rows *of_peaked[2] = { &peaked[0], &peaked[1] }, *of_flat[2] = { &flat[0], &flat[1] };
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t s = 0; s < 2; s++) {
        peaked[s] = rows_make(sizes[s], false);
        flat[s] = rows_make(sizes[s], true);
    }
    double top = peaked[1].p[sb_prob_argmax(peaked[1].p, 32000)];
    printf("peaked rows: largest probability %.2f, entropy %.2f; flat ones: entropy %.2f\n", top,
           sb_prob_entropy(peaked[1].p, 32000), sb_prob_entropy(flat[1].p, 32000));
    print_head("kernel, peaked rows");
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        print_line(kernels[i].name, kernels[i].run, of_peaked);
    print_head("S");
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        struct rows **rows = settings[i].flat ? of_flat : of_peaked;
        char name[80];
        rows[0]->sampling = rows[1]->sampling = settings[i].sampling;
        snprintf(name, sizeof name, "T=%g k=%zu p=%g, %s", settings[i].sampling.temperature,
                 settings[i].sampling.top_k, settings[i].sampling.top_p,
                 settings[i].flat ? "flat" : "peaked");
        print_line(name, run_sampling, rows);
    }
    for (size_t s = 0; s < 2; s++)
        bench_verifiers(&peaked[s]);
    for (size_t s = 0; s < 2; s++) {
        rows_finish(&peaked[s]);
        rows_finish(&flat[s]);
    }
    return 0;
}

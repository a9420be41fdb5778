#include "harness/certify/exact.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/certify/each.h"
#include "harness/certify/enumerate.h"
#include "harness/certify/tables.h"
#include "harness/core/alloc.h"

/* ---- shapes ---- */

struct shape {
    int32_t depth, width;
    size_t n_vocab;
    unsigned kinds; /* 0: all; deep trees of many independent draws have too many outcomes */
};

#define FEW_OUTCOMES                                                                       \
    (SB_KIND_BIT(SB_DRAW_ONEHOT) | SB_KIND_BIT(SB_DRAW_WOR) | SB_KIND_BIT(SB_DRAW_PATHS) | \
     SB_KIND_BIT(SB_DRAW_HUB) | SB_KIND_BIT(SB_DRAW_TOPK1))

/* Sizes that take milliseconds at most. */
static const struct shape shapes[] = {
    { 1, 1, 5, 0 },
    { 2, 1, 4, 0 },
    { 3, 1, 3, 0 },
    { 3, 1, 2, 0 },
    { 1, 2, 5, 0 },
    { 1, 3, 4, 0 },
    { 2, 2, 3, FEW_OUTCOMES },
    { 2, 2, 2, 0 },
    { 3, 2, 2, FEW_OUTCOMES },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

/* Hub pairs and top-k-plus-one need two children to be what they are. */
static bool fits(const struct shape *s, const struct sb_verifier_ops *v, enum sb_draw_kind kind,
                 bool coupled)
{
    bool needs_two = kind == SB_DRAW_HUB || kind == SB_DRAW_TOPK1 || kind == SB_DRAW_MIX;
    if ((s->kinds && !(s->kinds & SB_KIND_BIT(kind))) ||
        ((v->chains_only || coupled) && s->width > 1))
        return false;
    return kind == SB_DRAW_HUB ? s->width == 2 : !needs_two || s->width > 1;
}

/* ---- published figures ---- */

static const double toy_p[] = { .5, .3, .2 }, toy_q[] = { .2, .6, .2 };
static const double pair_p[] = { 1. / 3, 2. / 3 }, pair_q[] = { 2. / 3, 1. / 3 };

/* Expected accepted tokens, the same rows at every node. The k-seq figure is .2 rho + .5 with
 * rho^2 - 1.8 rho + .5 = 0, found by bisection in the verifier; gumbel-coupled's is 17/26. */
static const struct {
    const char *verifier;
    enum sb_draw_kind kind;
    bool coupled;
    int32_t depth, width;
    const double *p, *q;
    size_t n_vocab;
    double accepted;
} golden[] = {
    { "rejection", SB_DRAW_IID, false, 1, 1, toy_p, toy_q, 3, .7 },
    { "rejection", SB_DRAW_IID, false, 2, 1, toy_p, toy_q, 3, 1.19 },
    { "rejection", SB_DRAW_ONEHOT, false, 1, 1, toy_p, toy_q, 3, .3 },
    { "rejection", SB_DRAW_IID, false, 1, 1, pair_p, pair_q, 2, 2. / 3 },
    { "rejection", SB_DRAW_IID, false, 2, 1, pair_p, pair_q, 2, 10. / 9 },
    { "rejection", SB_DRAW_IID, false, 3, 1, pair_p, pair_q, 2, 38. / 27 },
    { "naive-sample", SB_DRAW_IID, false, 1, 1, toy_p, toy_q, 3, .32 },
    { "naive-sample", SB_DRAW_ONEHOT, false, 1, 2, toy_p, toy_q, 3, .8 },
    { "rrs", SB_DRAW_IID, false, 1, 2, toy_p, toy_q, 3, .76 },
    { "rrs", SB_DRAW_WOR, false, 1, 2, toy_p, toy_q, 3, .85 },
    { "rrs", SB_DRAW_IID, false, 2, 1, toy_p, toy_q, 3, 1.19 },
    { "rrs", SB_DRAW_IID, false, 2, 2, toy_p, toy_q, 3, 1.3376 },
    { "rrs", SB_DRAW_WOR, false, 2, 2, toy_p, toy_q, 3, 1.5725 },
    { "mss", SB_DRAW_IID, false, 1, 2, toy_p, toy_q, 3, .76 },
    { "k-seq", SB_DRAW_IID, false, 1, 2, toy_p, toy_q, 3, .79135528725660044 },
    { "spechub", SB_DRAW_HUB, false, 1, 2, toy_p, toy_q, 3, 1 },
    { "topk-plus-one", SB_DRAW_TOPK1, false, 1, 2, toy_p, toy_q, 3, 1 },
    { "gumbel-coupled", SB_DRAW_WOR, true, 1, 1, toy_p, toy_q, 3, 17. / 26 },
    { "block", SB_DRAW_IID, false, 2, 1, toy_p, toy_q, 3, 1.25 },
    { "block", SB_DRAW_IID, false, 1, 1, pair_p, pair_q, 2, 2. / 3 },
    { "block", SB_DRAW_IID, false, 2, 1, pair_p, pair_q, 2, 11. / 9 },
    { "block", SB_DRAW_IID, false, 3, 1, pair_p, pair_q, 2, 5. / 3 },
    { "traversal", SB_DRAW_IID, false, 2, 1, toy_p, toy_q, 3, 1.25 },
    { "traversal", SB_DRAW_IID, false, 2, 2, toy_p, toy_q, 3, 1.4096 },
    { "traversal", SB_DRAW_WOR, false, 2, 2, toy_p, toy_q, 3, 1.6175 },
};

/* ---- running ---- */

struct job {
    const struct sb_verifier_ops *verifier;
    const void *params;
    struct sb_drawing drawing;
    struct shape shape[N_SHAPES];
    size_t n_shapes;
    const struct sb_exact_options *options;
};

/* What one table gave. */
struct outcome {
    struct sb_enum_result result;
    enum sb_status status;
    struct sb_error err;
};

static bool never_samples(const struct sb_verifier_ops *v)
{
    return v->guarantee == SB_GREEDY_EXACT || v->greedy_only;
}

static struct sb_enum_case case_of(const struct job *job, const struct sb_tables *tables,
                                   const struct shape *shape)
{
    return (struct sb_enum_case){ .target = &tables->p,
                                  .draft = &tables->q[0],
                                  .second = &tables->q[1],
                                  .drawing = job->drawing,
                                  .depth = shape->depth,
                                  .width = shape->width,
                                  .verifier = job->verifier,
                                  .params = job->params };
}

static void run_case(struct outcome *out, const struct sb_enum_case *c)
{
    out->status = sb_enum_run(&out->result, c, &out->err);
    if (out->status == SB_OK && !(fabs(out->result.total - 1) < SB_EXACT_TOLERANCE))
        out->status = sb_fail(&out->err, SB_EINTERNAL,
                              "the weights of all outcomes add up to %.15g", out->result.total);
}

/* Table number i: the same rows for every verifier, since they depend on seed, number and size alone. */
static void run_table(struct outcome *out, const struct job *job, struct sb_tables *tables,
                      int64_t i)
{
    const struct shape *shape = &job->shape[(size_t)i % job->n_shapes];
    size_t round = (size_t)i / job->n_shapes;
    enum sb_flavour flavour = (enum sb_flavour)(round % SB_TABLE_FLAVOURS);
    struct sb_rng rng = sb_rng_make(sb_rng_mix(job->options->seed, shape->n_vocab), SB_STREAM_DATA);
    sb_rng_seek(&rng, round);
    sb_tables_random(tables, shape->n_vocab, flavour, &rng);
    struct sb_enum_case c = case_of(job, tables, shape);
    /* A law of both rows says what is sampled, not which token is its likeliest. */
    c.greedy = never_samples(job->verifier) || (flavour == SB_TABLE_SURE_P && !job->verifier->law);
    run_case(out, &c);
}

static void note(struct sb_exact *out, const struct outcome *o)
{
    bool unsupported = o->status == SB_EUNSUPPORTED;
    if (!(unsupported ? out->unsupported : out->failed) && !(unsupported && out->failed))
        snprintf(out->note, sizeof out->note, "%s", o->err.message);
    out->unsupported = out->unsupported || unsupported;
    out->failed = out->failed || !unsupported;
}

static void sum_up(struct sb_exact *out, const struct outcome *outcome, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const struct sb_enum_result *r = &outcome[i].result;
        if (outcome[i].status != SB_OK) {
            note(out, &outcome[i]);
            continue;
        }
        out->tables++;
        out->runs += (int64_t)r->runs;
        out->max_error = fmax(out->max_error, r->max_error);
        out->variation_max = fmax(out->variation_max, r->variation);
        out->variation += r->variation;
    }
    out->variation = out->tables ? out->variation / (double)out->tables : 0;
}

struct table_job {
    const struct job *job;
    struct outcome *outcome;
};

static void run_one(void *self, size_t i)
{
    struct table_job *t = self;
    struct sb_tables *tables = sb_alloc_zero(1, sizeof *tables);
    if (tables)
        run_table(&t->outcome[i], t->job, tables, (int64_t)i);
    else
        t->outcome[i].status = SB_ENOMEM;
    sb_free(tables);
}

static enum sb_status run_tables(struct sb_exact *out, const struct job *job, struct sb_error *err)
{
    int64_t n = job->options->tables;
    bool out_of_memory = false;
    struct table_job t = { .job = job, .outcome = sb_alloc_zero((size_t)n, sizeof *t.outcome) };
    if (!t.outcome)
        return sb_fail(err, SB_ENOMEM, "out of memory for %lld tables", (long long)n);
    sb_each(run_one, &t, (size_t)n);
    for (int64_t i = 0; i < n; i++)
        out_of_memory = out_of_memory || t.outcome[i].status == SB_ENOMEM;
    if (!out_of_memory)
        sum_up(out, t.outcome, n);
    sb_free(t.outcome);
    return out_of_memory ? sb_fail(err, SB_ENOMEM, "out of memory for enumerations") : SB_OK;
}

static void run_same_rows(struct outcome *out, const struct job *job, struct sb_tables *tables,
                          const double *p, const double *q, const struct shape *shape)
{
    sb_enum_table_fill(&tables->p, p, shape->n_vocab);
    sb_enum_table_fill(&tables->q[0], q, shape->n_vocab);
    sb_enum_table_fill(&tables->q[1], q, shape->n_vocab);
    struct sb_enum_case c = case_of(job, tables, shape);
    c.greedy = never_samples(job->verifier);
    run_case(out, &c);
}

/* One level of two children; of one for rules of chains. */
static void run_toy(struct sb_exact *out, const struct job *job, struct sb_tables *tables)
{
    struct outcome o = { 0 };
    const struct shape shape = { .depth = 1,
                                 .width =
                                     job->verifier->chains_only || job->drawing.coupled ? 1 : 2,
                                 .n_vocab = 3 };
    run_same_rows(&o, job, tables, toy_p, toy_q, &shape);
    if (o.status == SB_OK)
        out->toy_accepted = o.result.accepted;
}

static void run_golden(struct sb_exact *out, const struct job *job, struct sb_tables *tables)
{
    for (size_t i = 0; i < sizeof golden / sizeof *golden; i++) {
        struct outcome o = { 0 };
        const struct shape shape = { .depth = golden[i].depth,
                                     .width = golden[i].width,
                                     .n_vocab = golden[i].n_vocab };
        if (strcmp(golden[i].verifier, job->verifier->name) != 0 ||
            golden[i].kind != job->drawing.kind || golden[i].coupled != job->drawing.coupled)
            continue;
        run_same_rows(&o, job, tables, golden[i].p, golden[i].q, &shape);
        out->golden++;
        if (o.status == SB_OK && fabs(o.result.accepted - golden[i].accepted) < 1e-9)
            continue;
        if (out->golden_missed++ == 0)
            snprintf(out->note, sizeof out->note,
                     "accepts %.9g tokens of a %dx%d draft where %.9g is published",
                     o.result.accepted, golden[i].width, golden[i].depth, golden[i].accepted);
    }
}

/* Published figures are those of the default parameters. */
static bool has_defaults(const struct sb_verifier_ops *v, const void *params)
{
    return sb_verifier_guarantee(v, params) == v->guarantee;
}

static enum sb_status run_job(struct sb_exact *out, const struct job *job, struct sb_error *err)
{
    struct sb_tables *tables = sb_alloc_zero(1, sizeof *tables);
    *out = (struct sb_exact){ .toy_accepted = NAN };
    if (!tables)
        return sb_fail(err, SB_ENOMEM, "out of memory for an enumeration");
    enum sb_status rc = job->n_shapes ? run_tables(out, job, err) : SB_OK;
    if (rc == SB_OK) {
        run_toy(out, job, tables);
        if (has_defaults(job->verifier, job->params))
            run_golden(out, job, tables);
    }
    sb_free(tables);
    return rc;
}

enum sb_status sb_exact_run(struct sb_exact *out, const struct sb_verifier_ops *verifier,
                            const void *params, enum sb_draw_kind kind, bool coupled,
                            const struct sb_exact_options *options, struct sb_error *err)
{
    struct job job = { .verifier = verifier,
                       .params = params,
                       .drawing = { .kind = kind, .coupled = coupled },
                       .options = options };
    for (size_t i = 0; i < N_SHAPES; i++)
        if (fits(&shapes[i], verifier, kind, coupled))
            job.shape[job.n_shapes++] = shapes[i];
    return run_job(out, &job, err);
}

enum sb_status sb_exact_run_drawing(struct sb_exact *out, const struct sb_verifier_ops *verifier,
                                    const void *params, const struct sb_drawing *drawing,
                                    const struct sb_exact_options *options, struct sb_error *err)
{
    struct job job = { .verifier = verifier,
                       .params = params,
                       .drawing = *drawing,
                       .shape = { { 1, drawing->width, 4, 0 }, { 2, drawing->width, 3, 0 } },
                       .n_shapes = 2,
                       .options = options };
    return run_job(out, &job, err);
}

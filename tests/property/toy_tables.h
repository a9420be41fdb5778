/* Tables of rows and verifiers by text, for tests that enumerate. */
#ifndef SB_TESTS_TOY_TABLES_H
#define SB_TESTS_TOY_TABLES_H

#include <math.h>
#include <string.h>

#include "harness/core/rng.h"
#include "tests/property/enumerate.h"

/* The toy of methods A 3. */
static const double toy_p[] = { .5, .3, .2 }, toy_q[] = { .2, .6, .2 };

static inline void close_to(double got, double want)
{
    if (!(fabs(got - want) < 1e-12))
        fail_msg("got %.15g, expected %.15g", got, want);
}

static inline void fill(struct sb_enum_table *table, size_t n_vocab, const double *row)
{
    table->n_vocab = n_vocab;
    for (size_t i = 0; i < sizeof table->row / sizeof *table->row; i++)
        memcpy(table->row[i], row, n_vocab * sizeof *row);
}

/* ---- random tables ---- */

enum flavour { PLAIN, EQUAL, DISJOINT, ONE_HOT, WHOLE, N_FLAVOURS };

/* About Dirichlet(0.3), with a quarter of the entries zero. */
static inline void random_row(double *row, size_t n, struct sb_rng *rng)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        row[i] = sb_rng_uniform(rng) < .25 ? 0 : pow(sb_rng_uniform(rng), 3);
        sum += row[i];
    }
    if (sum == 0)
        sum = row[sb_rng_below(rng, n)] = 1;
    for (size_t i = 0; i < n; i++)
        row[i] /= sum;
}

/* Small whole numbers, normalised: p / q and what is left of p tie. */
static inline void whole_row(double *row, size_t n, struct sb_rng *rng)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += row[i] = (double)sb_rng_below(rng, 3);
    if (sum == 0)
        sum = row[sb_rng_below(rng, n)] = 1;
    for (size_t i = 0; i < n; i++)
        row[i] /= sum;
}

static inline void one_hot(double *row, size_t n, struct sb_rng *rng)
{
    memset(row, 0, n * sizeof *row);
    row[sb_rng_below(rng, n)] = 1;
}

static inline void random_tables(struct sb_enum_table *p, struct sb_enum_table *q, size_t n,
                                 enum flavour kind, struct sb_rng *rng)
{
    p->n_vocab = q->n_vocab = n;
    for (size_t i = 0; i < sizeof p->row / sizeof *p->row; i++) {
        random_row(p->row[i], n, rng);
        random_row(q->row[i], n, rng);
        size_t cut = 1 + sb_rng_below(rng, n - 1);
        double below[SB_ENUM_VOCAB] = { 0 }, above[SB_ENUM_VOCAB] = { 0 };
        random_row(below, cut, rng);
        random_row(above + cut, n - cut, rng);
        if (kind == EQUAL)
            memcpy(q->row[i], p->row[i], sizeof p->row[i]);
        if (kind == DISJOINT) {
            memcpy(p->row[i], below, sizeof below);
            memcpy(q->row[i], above, sizeof above);
        }
        if (kind == WHOLE) {
            whole_row(p->row[i], n, rng);
            whole_row(q->row[i], n, rng);
        }
        if (kind == ONE_HOT)
            one_hot(q->row[i], n, rng);
    }
}

/* ---- verifiers ---- */

/* "rejection", "ot-flow:m=2": the verifier and its parameters. */
struct plug {
    struct sb_spec spec;
    const struct sb_verifier_ops *ops;
    double params[8];
};

static inline void plug_open(struct plug *plug, const char *text)
{
    struct sb_error err = { .message = "" };
    if (sb_spec_parse(&plug->spec, text, &err) != SB_OK)
        fail_msg("%s: %s", text, err.message);
    plug->ops = sb_verifier_find(plug->spec.name);
    assert_non_null(plug->ops);
    assert_true(plug->ops->params_size <= sizeof plug->params);
    if (sb_params_apply(plug->params, plug->ops->params, &plug->spec, text, &err) != SB_OK)
        fail_msg("%s", err.message);
}

static inline void plug_close(struct plug *plug)
{
    sb_spec_finish(&plug->spec);
}

typedef void proposer(const struct sb_enum_case *c, const struct sb_dice *dice,
                      struct sb_tree *tree);

/* One row for all prefixes. */
static inline struct enum_result run_rows(const char *verifier, proposer *propose, int32_t depth,
                                          int32_t width, size_t n, const double *p, const double *q)
{
    static struct sb_enum_table target, draft;
    struct plug plug;
    fill(&target, n, p);
    fill(&draft, n, q);
    plug_open(&plug, verifier);
    struct enum_result r = enum_run(&(struct sb_enum_case){ .target = &target,
                                                            .draft = &draft,
                                                            .propose = propose,
                                                            .depth = depth,
                                                            .width = width,
                                                            .verifier = plug.ops,
                                                            .params = plug.params });
    plug_close(&plug);
    assert_int_equal(r.status, SB_OK);
    return r;
}

#endif

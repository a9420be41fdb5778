/* Measuring the cost curve c(M): time of a target forward over M rows / time over one (methods C 4.1). */
#ifndef SB_EXPERIMENT_COST_CURVE_H
#define SB_EXPERIMENT_COST_CURVE_H

#include <stdbool.h>

#include "harness/experiment/models.h"

/* Forwards over rows[0], rows[1], ..., in rounds: each round has all of them in an order of its own. */
struct sb_curve {
    int32_t *rows; /* [n] */
    double *ns;    /* [n, most_rounds]; only the first `rounds` of each are there */
    size_t n, rounds, most_rounds;
    /* With a meter, not owned, each round measures what the machine can do as well: [most_rounds]. */
    const struct sb_meter *meter;
    double *read_rate, *fma_rate; /* bytes and operations per second */
};
enum sb_status sb_curve_init(struct sb_curve *curve, const int32_t *rows, size_t n,
                             size_t most_rounds, struct sb_error *err);
void sb_curve_finish(struct sb_curve *curve);

/* Append random tokens until `context` are committed. */
enum sb_status sb_curve_prefill(struct sb_seq *seq, size_t context, struct sb_error *err);

/* Time forwards behind what is committed, which stays as it is. The rows are a chain, or a binary tree.
 * A first round warms up and is not kept. With a budget: rows are in rising order, the long ones that
 * the warm-up shows to be too dear are dropped (n shrinks, to no less than up to LEAST_ROWS rows), and rounds end with
 * the budget, at the least with three. `stop` nonzero ends them early; may be NULL. */
enum { SB_CURVE_LEAST_ROWS = 8, SB_CURVE_LEAST_ROUNDS = 3 };
enum sb_status sb_curve_measure(struct sb_curve *curve, struct sb_seq *seq, bool tree,
                                uint64_t budget_ns, const volatile int *stop, struct sb_error *err);

/* Times of rows[i], sorted into `sorted` [rounds]; the median is returned. ratio: of the times to those
 * of rows[0] in the same rounds. */
double sb_curve_sorted(const struct sb_curve *curve, size_t i, bool ratio, double *sorted);

/* The curve of a run, stored unless the database has one of this host, model and arithmetic: M from 1 to
 * 64 at contexts 128 and 1,024 as far as the model's go. Takes some 2 % of what plain decoding of
 * `tokens` tokens would, but 0.1 to 1 s per context. */
enum sb_status sb_curve_store(struct sb_store *store, struct sb_model *model, int64_t host_id,
                              int64_t model_id, const char *arithmetic, double tokens,
                              const volatile int *stop, struct sb_error *err);

#endif

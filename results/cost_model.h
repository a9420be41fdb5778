/* Time of a target forward over M rows after a context, from the points of a measured cost curve
 * (methods C 4.1): straight lines between the rows of one context, made rising by isotonic regression,
 * and between contexts. */
#ifndef SB_RESULTS_COST_MODEL_H
#define SB_RESULTS_COST_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "results/store.h"

struct sb_cost_point {
    double context, rows, ns;
};
struct sb_cost_model {
    struct sb_cost_point *point; /* [n] by context, then rows; owned */
    size_t n, cap;
};
void sb_cost_model_finish(struct sb_cost_model *model);

/* Make y rise (never fall) with the least change in squares: pool adjacent violators. In place. */
void sb_isotonic(double *y, size_t n);

/* Points as measured, in any order; sorts them and makes them rise in rows within each context. A
 * context without a point for one row gets none: its curve is level below its first point. */
void sb_cost_model_prepare(struct sb_cost_model *model);
int sb_cost_model_add(struct sb_cost_model *model, double context, double rows,
                      double ns); /* 0, -1 */

/* Nanoseconds; beyond the last rows by the last slope. Between contexts straight in the context itself,
 * and not in its logarithm as the method card has it: attention's time is proportional to the context;
 * beyond them by the slope between the last two, at least the time at the nearest over 4. 0 without
 * points. */
double sb_cost_model_ns(const struct sb_cost_model *model, double rows, double context);

/* The curve of a host, model and arithmetic as stored; model->n is 0 when there is none. */
enum sb_status sb_cost_model_load(struct sb_cost_model *out, struct sb_store *store,
                                  int64_t host_id, int64_t model_id, const char *arithmetic,
                                  struct sb_error *err);
/* A curve that `specbench bench --format json` wrote, on any machine, for this model. SB_EINPUT for a
 * file that is not there, SB_EFORMAT for one that is no such curve, SB_EUSAGE for one of another model or
 * arithmetic. */
struct sb_cost_owner {
    const char *name, *config_json;       /* as in the table model; the shape counts */
    const char *weight_type, *arithmetic; /* NULL: any */
};
enum sb_status sb_cost_model_read(struct sb_cost_model *out, const char *path,
                                  const struct sb_cost_owner *owner, struct sb_error *err);
enum sb_status sb_cost_model_parse(struct sb_cost_model *out, const char *text, size_t size,
                                   const char *path, const struct sb_cost_owner *owner,
                                   struct sb_error *err);

#endif

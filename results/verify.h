/* Does a results database say what its rows say? Every headline figure is computed again, in C and from the raw
 * rows of generations, steps and draft nodes, and held against the views; and the rows against each other. */
#ifndef SB_RESULTS_VERIFY_H
#define SB_RESULTS_VERIFY_H

#include <stdbool.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "results/report.h"
#include "results/store.h"

struct sb_verify_check {
    const char *name, *meaning;
    int64_t checked,
        failed;      /* statements of this kind: about a generation, a step, a figure, ... */
    char first[240]; /* the first that does not hold: where, found, expected */
};

enum { SB_VERIFY_MAX = 32 };
struct sb_verification {
    struct sb_verify_check check[SB_VERIFY_MAX];
    size_t n;
    int64_t failed; /* checks, not statements */
};

/* All experiments of the file. SB_OK also when checks fail: look at `failed`. */
enum sb_status sb_verify(struct sb_verification *out, struct sb_store *store, struct sb_error *err);

/* A row per check; the caller owns *out (sb_table_destroy). */
enum sb_status sb_verify_table(struct sb_table **out, const struct sb_verification *v,
                               struct sb_error *err);

#endif

/* Decoder layers written down plainly in double, to compare draft bodies with. Chains only. */
#ifndef SB_TESTS_PLAIN_BODY_H
#define SB_TESTS_PLAIN_BODY_H

#include "harness/model/weights.h"

enum { PLAIN_LAYERS = 2, PLAIN_CONTEXT = 160, PLAIN_WIDTH = 160 };

struct plain_body { /* keys and values by layer and position */
    double k[PLAIN_LAYERS][PLAIN_CONTEXT][PLAIN_WIDTH], v[PLAIN_LAYERS][PLAIN_CONTEXT][PLAIN_WIDTH];
};

/* x[d] = what leaves the last layer for the row [sb_config_d_input] at `position`; the rows of positions
 * before it were computed before. Weights are float32. */
void plain_body_row(struct plain_body *p, const struct sb_weights *w, const float *row,
                    size_t position, double *x);
void plain_norm(double *y, const double *x, const struct sb_tensor *w, double eps);
/* y[n] = w[n, k] x (+ bias). */
void plain_multiply(double *y, const struct sb_tensor *w, const double *x,
                    const struct sb_tensor *bias);

#endif

/* The oracle target of methods B 12.1: its hidden state says the token about to come. Token t is followed by
 * t + 1 (mod V), and the state behind the final norm at t is a one-hot at t + 1, scaled by sqrt(V): d = V.
 * A head that reads another position, or guesses for another depth than it should, is never right. */
#ifndef SB_TESTS_CYCLE_MODEL_H
#define SB_TESTS_CYCLE_MODEL_H

#include "harness/model/model.h"

enum { CYCLE_VOCAB = 16, CYCLE_CONTEXT = 96 };

struct cycle_model {
    struct sb_model *model;
    float *data; /* outlives the model */
};
struct cycle_model cycle_model_create(void); /* aborts when memory runs out */
void cycle_model_destroy(struct cycle_model *cycle);

#endif

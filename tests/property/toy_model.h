/* A small random llama made in memory: no file, no loader, a vocabulary small enough to repeat. */
#ifndef SB_TESTS_TOY_MODEL_H
#define SB_TESTS_TOY_MODEL_H

#include "harness/model/model.h"

struct toy_model {
    struct sb_model *model;
    float *data; /* all tensors; outlives the model */
};

/* Weights from `seed`, plus `noise` times others: two models of one seed agree often, not always.
 * `eos` < 0: none. Test programs only: aborts when memory runs out. */
struct toy_model toy_model_create(uint64_t seed, double noise, size_t n_vocab, size_t max_context,
                                  sb_token eos);
void toy_model_destroy(struct toy_model *toy);

#endif

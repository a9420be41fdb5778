/* The certifier's toy llama (harness/certify/toy.h) without a status to check. */
#ifndef SB_TESTS_TOY_MODEL_H
#define SB_TESTS_TOY_MODEL_H

#include "harness/model/model.h"

struct toy_model {
    struct sb_model *model;
    float *data; /* all tensors; outlives the model */
};

/* As sb_toy_create; aborts when memory runs out. */
struct toy_model toy_model_create(uint64_t seed, double noise, size_t n_vocab, size_t max_context,
                                  sb_token eos);
void toy_model_destroy(struct toy_model *toy);

#endif

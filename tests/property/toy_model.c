#include "tests/property/toy_model.h"

#include <stdlib.h>

#include "harness/certify/toy.h"

struct toy_model toy_model_create(uint64_t seed, double noise, size_t n_vocab, size_t max_context,
                                  sb_token eos)
{
    struct sb_toy toy;
    if (sb_toy_create(&toy, seed, noise, n_vocab, max_context, eos, NULL) != SB_OK)
        abort();
    return (struct toy_model){ toy.model, toy.data };
}

void toy_model_destroy(struct toy_model *toy)
{
    sb_toy_destroy(&(struct sb_toy){ toy->model, toy->data });
    *toy = (struct toy_model){ 0 };
}

/* A small random llama made in memory: no file, no loader, and a vocabulary small enough that the law
 * of its first tokens has few cells. Forwards, KV cache and session are those of any model. */
#ifndef SB_CERTIFY_TOY_H
#define SB_CERTIFY_TOY_H

#include "harness/model/model.h"

struct sb_toy {
    struct sb_model *model;
    float *data; /* all tensors; outlives the model */
};

/* Weights from `seed`, plus `noise` times others: two models of one seed agree often, not always.
 * n_vocab up to 1000; `eos` < 0: none. */
enum sb_status sb_toy_create(struct sb_toy *out, uint64_t seed, double noise, size_t n_vocab,
                             size_t max_context, sb_token eos, struct sb_error *err);
void sb_toy_destroy(struct sb_toy *toy);

#endif

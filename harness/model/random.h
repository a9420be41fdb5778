/* A model of random weights, made in memory: for measuring speed, which does not ask what weights say. */
#ifndef SB_MODEL_RANDOM_H
#define SB_MODEL_RANDOM_H

#include "harness/model/weights.h"

/* `shape`: "15m", "110m" (the llama2.c stories models), "1b" (TinyLlama's 1.1 billion), or
 * LxDxHxKVxFFxV: layers, width, heads, KV heads, feed-forward width, vocabulary. Embeddings are tied
 * in 15m and 110m only. The caller owns *out (sb_weights_close). */
enum sb_status sb_weights_random(struct sb_weights **out, const char *shape, enum sb_dtype type,
                                 size_t max_context, struct sb_error *err);

#endif

/* Random EAGLE checkpoints for a target of width d and n_vocab tokens (head_maker.h), as folders of
 * model.safetensors and config.json in the working directory:
 *   eagle         EAGLE-1 as published: a bias in fc, its own embedding
 *   eagle-two     two layers, biases in q, k, v, grouped heads, the target's embedding, no bias in fc
 *   eagle3        EAGLE-3 as published: midlayer, a draft vocabulary of n_vocab - 5, offsets in d2t
 *   eagle3-vllm   layers.0 instead, norm_before_residual, the target's head, two taps */
#ifndef SB_TESTS_EAGLE_MAKER_H
#define SB_TESTS_EAGLE_MAKER_H

#include <stddef.h>

void make_eagle_heads(size_t d, size_t n_vocab);

#endif

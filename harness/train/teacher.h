/* A frozen language model from a model directory, for distillation. */
#ifndef SB_TRAIN_TEACHER_H
#define SB_TRAIN_TEACHER_H

#include "harness/train/lm.h"

/* Load a llama model with tied embeddings and without RoPE scaling, in float32. *hash is the
 * identity of its content. max_context: positions it will see; 0: as many as it was made for. */
enum sb_status sb_teacher_load(struct sb_lm **out, uint64_t *hash, const char *path,
                               size_t max_context, struct sb_error *err);

#endif

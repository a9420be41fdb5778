/* Training a byte-level BPE vocabulary (Sennrich et al. 2016, over bytes as in GPT-2): count
 * pre-tokens, then join the commonest pair of symbols until the vocabulary is full.
 *
 * Deterministic: of pairs with equal counts the one with the smaller (left id, right id) is joined. */
#ifndef SB_MODEL_BPE_TRAIN_H
#define SB_MODEL_BPE_TRAIN_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_bpe_options {
    size_t n_vocab;             /* special tokens, 256 bytes and joined pairs together */
    const char *const *special; /* [n_special] they get the ids 0, 1, ...; all different, two
                                   characters or more */
    size_t n_special;
};

struct sb_bpe_trainer;

/* The options' texts are copied. The caller owns *out. */
enum sb_status sb_bpe_trainer_create(struct sb_bpe_trainer **out,
                                     const struct sb_bpe_options *options, struct sb_error *err);
void sb_bpe_trainer_destroy(struct sb_bpe_trainer *trainer);

/* Count the pre-tokens of a text (UTF-8, else SB_EFORMAT), each `count` times. */
enum sb_status sb_bpe_trainer_add(struct sb_bpe_trainer *trainer, const char *text, size_t length,
                                  int64_t count, struct sb_error *err);

/* Join pairs and write the vocabulary as a Hugging Face tokenizer.json at `path`. When the texts do
 * not give enough pairs, the vocabulary stays smaller; *n_vocab tells its size. */
enum sb_status sb_bpe_trainer_write(struct sb_bpe_trainer *trainer, const char *path,
                                    size_t *n_vocab, struct sb_error *err);

#endif

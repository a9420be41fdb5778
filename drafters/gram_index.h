/* Where the n-grams of a fixed text are: first occurrence and number, for every length up to a highest.
 * A hash table per length; tokens are compared, so a collision never makes a match. */
#ifndef SB_DRAFTERS_GRAM_INDEX_H
#define SB_DRAFTERS_GRAM_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"
#include "harness/model/config.h"

struct sb_gram_place {
    int32_t first; /* position of its last token where it occurs first */
    int32_t n;     /* occurrences */
};

/* Memory: 4 bytes per token, and 16 to 32 per token and length. */
struct sb_gram_index {
    sb_token *text; /* [cap] filled in by the owner before grams are added */
    size_t cap, highest, n_slots;
    struct sb_gram_place *table; /* [highest, n_slots]; n == 0: empty */
};

enum sb_status sb_gram_index_init(struct sb_gram_index *index, size_t cap, size_t highest,
                                  struct sb_error *err);
void sb_gram_index_finish(struct sb_gram_index *index); /* accepts a zeroed one */
void sb_gram_index_clear(struct sb_gram_index *index);
/* Add an occurrence of text[end + 1 - n .. end], n <= highest and n <= end + 1. */
void sb_gram_index_add(struct sb_gram_index *index, size_t end, size_t n);
/* NULL: gram[n] does not occur. */
const struct sb_gram_place *sb_gram_index_find(const struct sb_gram_index *index,
                                               const sb_token *gram, size_t n);

#endif

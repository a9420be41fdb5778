#include "drafters/gram_index.h"

#include <string.h>

#include "harness/core/alloc.h"

enum sb_status sb_gram_index_init(struct sb_gram_index *index, size_t cap, size_t highest,
                                  struct sb_error *err)
{
    *index = (struct sb_gram_index){ .cap = cap, .highest = highest, .n_slots = 16 };
    while (index->n_slots < 2 * cap)
        index->n_slots *= 2;
    index->text = sb_alloc_array(cap, sizeof *index->text);
    index->table = sb_alloc_zero(index->n_slots * highest, sizeof *index->table);
    return index->text && index->table
               ? SB_OK
               : sb_fail(err, SB_ENOMEM, "no memory for an index of %zu tokens", cap);
}

void sb_gram_index_finish(struct sb_gram_index *index)
{
    sb_free(index->text);
    sb_free(index->table);
    *index = (struct sb_gram_index){ 0 };
}

void sb_gram_index_clear(struct sb_gram_index *index)
{
    memset(index->table, 0, index->n_slots * index->highest * sizeof *index->table);
}

static struct sb_gram_place *place_of(const struct sb_gram_index *index, const sb_token *gram,
                                      size_t n)
{
    struct sb_gram_place *table = index->table + (n - 1) * index->n_slots;
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (uint32_t)gram[i]) * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(hash >> 32) & (index->n_slots - 1);
    while (table[at].n > 0 &&
           memcmp(index->text + table[at].first + 1 - n, gram, n * sizeof *gram) != 0)
        at = (at + 1) & (index->n_slots - 1);
    return &table[at];
}

void sb_gram_index_add(struct sb_gram_index *index, size_t end, size_t n)
{
    struct sb_gram_place *place = place_of(index, index->text + end + 1 - n, n);
    if (place->n++ == 0)
        place->first = (int32_t)end;
}

const struct sb_gram_place *sb_gram_index_find(const struct sb_gram_index *index,
                                               const sb_token *gram, size_t n)
{
    const struct sb_gram_place *place = place_of(index, gram, n);
    return place->n > 0 ? place : NULL;
}

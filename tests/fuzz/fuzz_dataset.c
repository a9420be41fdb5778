/* Every dataset reader on the same bytes, then a selection from what it read. */
#include <stdint.h>
#include <stdlib.h>

#include "datasets/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void select_some(struct sb_dataset *set)
{
    if (sb_dataset_select(set, "conversation, rag", 1, NULL) != SB_OK &&
        sb_dataset_select(set, NULL, 2, NULL) != SB_OK)
        abort(); /* every task, first two: cannot be refused */
    if (set->n == 0 || set->items[0].n_turns == 0 || !set->items[0].task)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (size_t i = 0; sb_readers[i]; i++) {
        struct sb_dataset set = { 0 };
        struct sb_error err;
        if (sb_dataset_parse(&set, sb_readers[i], "fuzz", (const char *)data, size, &err) == SB_OK)
            select_some(&set);
        sb_dataset_finish(&set);
    }
    return 0;
}

/* Spec-Bench's answer lines, read and, when they go together, stored in a database in memory. */
#include <stdint.h>
#include <stdlib.h>

#include "results/import.h"
#include "results/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was accepted can be stored; answers longer than a test's patience are not. */
static void store(const struct sb_answers *answers)
{
    struct sb_store *s = NULL;
    struct sb_import_result result;
    struct sb_error err;
    if (answers->n > 64 || sb_answers_check(answers, 1, &err) != SB_OK)
        return;
    if (sb_store_open(&s, ":memory:", NULL, &err) != SB_OK)
        abort();
    const struct sb_import_options options = { 0 };
    if (sb_import(&result, s, answers, 1, true, &options, &err) != SB_OK)
        abort();
    sb_store_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_answers answers = { 0 };
    struct sb_error err;
    if (sb_answers_parse(&answers, "fuzz", (const char *)data, size, &err) == SB_OK)
        store(&answers);
    sb_answers_finish(&answers);
    return 0;
}

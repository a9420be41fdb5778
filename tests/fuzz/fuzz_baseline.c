/* Baseline files: what is read is written and read again as the same, and compares with itself as such. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "results/gate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_again(const struct sb_record *record, struct sb_record *again)
{
    char *text = NULL;
    size_t size = 0;
    struct sb_error err;
    FILE *f = open_memstream(&text, &size);
    if (!f)
        return;
    enum sb_status rc = sb_record_write(record, f, &err);
    fclose(f);
    if (rc == SB_OK && sb_record_parse(again, "fuzz", text, size, &err) != SB_OK)
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_record record = { 0 }, again = { 0 };
    struct sb_error err;
    if (sb_record_parse(&record, "fuzz", (const char *)data, size, &err) == SB_OK) {
        struct sb_gate gate = { 0 };
        const struct sb_gate_options options = { .max_drop = 0.01 };
        read_again(&record, &again);
        if (again.n_arms && sb_gate_run(&gate, &again, &record, &options, &err) == SB_OK &&
            gate.outcome != SB_GATE_HOLDS)
            abort();
        sb_gate_finish(&gate);
    }
    sb_record_finish(&record);
    sb_record_finish(&again);
    return 0;
}

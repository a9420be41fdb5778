/* A cost curve from another machine: any bytes are either a curve of the model or refused. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "results/cost_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_cost_model m = { 0 };
    struct sb_error err;
    const struct sb_cost_owner owner = { .name = "tiny", .arithmetic = "exact" };
    if (sb_cost_model_parse(&m, (const char *)data, size, "fuzz", &owner, &err) != SB_OK)
        return 0;
    static const double at[] = { 1, 2, 5, 1000 };
    for (size_t i = 0; i < 4; i++)
        if (!(sb_cost_model_ns(&m, at[i], 128) > 0))
            abort();
    sb_cost_model_finish(&m);
    return 0;
}

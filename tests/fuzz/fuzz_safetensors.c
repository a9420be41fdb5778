/* safetensors: parse, then touch both ends of every tensor. */
#include <stddef.h>
#include <stdint.h>

#include "harness/model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_st_file f;
    struct sb_error err;
    if (sb_st_parse(&f, data, size, "fuzz", &err) != SB_OK)
        return 0;
    for (size_t i = 0; i < f.n; i++) {
        const uint8_t *bytes = f.tensor[i].data;
        sink += bytes[0] + bytes[f.tensor[i].size_bytes - 1];
        sink += sb_st_find(&f, f.tensor[i].name) == &f.tensor[i];
    }
    sb_st_close(&f);
    return 0;
}

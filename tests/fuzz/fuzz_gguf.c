/* GGUF: parse, then touch every value and every tensor that the parser vouches for. */
#include <stddef.h>
#include <stdint.h>

#include "harness/model/gguf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint64_t sink;

static void walk_value(const struct sb_gguf_value *v)
{
    for (uint64_t i = 0; i < v->n && i < 4096; i++) {
        struct sb_text text;
        int64_t whole;
        double number;
        if (sb_gguf_item_text(v, i, &text) && text.n > 0)
            sink += (unsigned char)text.data[0] + (unsigned char)text.data[text.n - 1];
        if (sb_gguf_item_int(v, i, &whole))
            sink += (uint64_t)whole;
        if (sb_gguf_item_number(v, i, &number))
            sink += number > 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_gguf g;
    struct sb_error err;
    if (sb_gguf_parse(&g, data, size, "fuzz", &err) != SB_OK)
        return 0;
    for (size_t i = 0; i < g.n_values; i++)
        walk_value(&g.value[i]);
    for (size_t i = 0; i < g.n_tensors; i++) {
        const uint8_t *bytes = g.tensor[i].data;
        sink += bytes[0] + bytes[g.tensor[i].size_bytes - 1];
    }
    sb_gguf_close(&g);
    return 0;
}

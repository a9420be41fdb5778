#include "harness/model/stored.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    size_t bytes;
} elements[SB_ELEMENT_COUNT] = {
    [SB_ELEMENT_F32] = { "f32", 4 },   [SB_ELEMENT_F16] = { "f16", 2 },
    [SB_ELEMENT_BF16] = { "bf16", 2 }, [SB_ELEMENT_F64] = { "f64", 8 },
    [SB_ELEMENT_I64] = { "i64", 8 },   [SB_ELEMENT_I32] = { "i32", 4 },
    [SB_ELEMENT_I16] = { "i16", 2 },   [SB_ELEMENT_I8] = { "i8", 1 },
    [SB_ELEMENT_U8] = { "u8", 1 },     [SB_ELEMENT_BOOL] = { "bool", 1 },
};

const char *sb_element_name(enum sb_element element)
{
    return elements[element].name;
}

size_t sb_element_bytes(enum sb_element element)
{
    return elements[element].bytes;
}

bool sb_element_dtype(enum sb_dtype *out, enum sb_element element)
{
    static const enum sb_dtype same[] = { SB_F32, SB_F16, SB_BF16 };
    if (element > SB_ELEMENT_BF16)
        return false;
    *out = same[element];
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct sb_stored_tensor *)a)->name,
                  ((const struct sb_stored_tensor *)b)->name);
}

void sb_stored_sort(struct sb_stored_tensor *tensor, size_t n)
{
    qsort(tensor, n, sizeof *tensor, by_name);
}

const struct sb_stored_tensor *sb_stored_find(const struct sb_stored_tensor *tensor, size_t n,
                                              const char *name)
{
    const struct sb_stored_tensor probe = { .name = (char *)name };
    return bsearch(&probe, tensor, n, sizeof probe, by_name);
}

/* PyTorch archives: the whole file, then the same bytes as the pickle of a sound archive, which lets mutations reach the
 * machine without keeping an archive's offsets intact; touch both ends of every tensor. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness/model/torch_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile unsigned sink;

static void read_all(const uint8_t *data, size_t size)
{
    struct sb_torch_file f;
    struct sb_error err;
    if (sb_torch_parse(&f, data, size, "fuzz", &err) != SB_OK)
        return;
    for (size_t i = 0; i < f.n; i++) {
        const uint8_t *bytes = f.tensor[i].data;
        sink += bytes[0] + bytes[f.tensor[i].size_bytes - 1];
        if (sb_torch_find(&f, f.tensor[i].name) != &f.tensor[i])
            abort();
    }
    sb_torch_close(&f);
}

static uint8_t *add(uint8_t *p, const void *bytes, size_t n)
{
    if (n)
        memcpy(p, bytes, n);
    return p + n;
}

static uint8_t *add_number(uint8_t *p, uint64_t value, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *p++ = (uint8_t)(value >> (8 * i));
    return p;
}

/* What the local and the central header have in common, from the flags on. */
static uint8_t *add_header(uint8_t *p, size_t size, size_t name_n, size_t extra_n)
{
    p = add(p, (const uint8_t[12]){ 0 }, 12);
    p = add_number(add_number(p, size, 4), size, 4);
    return add_number(add_number(p, name_n, 2), extra_n, 2);
}

/* An archive of data.pkl with these bytes, and data/0 with 64 of its own. */
static void read_as_pickle(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "a/data.pkl", "a/data/0" };
    static const uint8_t zeros[64];
    const uint8_t *const content[] = { data, zeros };
    const size_t n[] = { size, sizeof zeros };
    size_t at[2];
    uint8_t *bytes = malloc(size + 1024), *p = bytes;
    if (!bytes)
        return;
    for (size_t i = 0; i < 2; i++) {
        at[i] = (size_t)(p - bytes);
        size_t name_n = strlen(names[i]), pad = -(at[i] + 30 + name_n) % 64;
        p = add_header(add(p, "PK\3\4\0\0", 6), n[i], name_n, pad);
        p = add(add(p, names[i], name_n), zeros, pad);
        p = add(p, content[i], n[i]);
    }
    size_t directory = (size_t)(p - bytes);
    for (size_t i = 0; i < 2; i++) {
        p = add_header(add(p, "PK\1\2\0\0\0\0", 8), n[i], strlen(names[i]), 0);
        p = add_number(add(p, zeros, 10), at[i], 4);
        p = add(p, names[i], strlen(names[i]));
    }
    size_t end = (size_t)(p - bytes);
    p = add(p, "PK\5\6\0\0\0\0\2\0\2\0", 12);
    p = add_number(add_number(add_number(p, end - directory, 4), directory, 4), 0, 2);
    read_all(bytes, (size_t)(p - bytes));
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_all(data, size);
    if (size < 1 << 20)
        read_as_pickle(data, size);
    return 0;
}

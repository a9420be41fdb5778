#define _GNU_SOURCE
/* Any bytes as tokenizer.json; what opens must encode and decode. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/model/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char file[] = "/tmp/specbench-fuzz-XXXXXX.json";

static void remove_file(void)
{
    unlink(file);
}

static void make_file(void)
{
    static int fd = -1;
    if (fd < 0) {
        fd = mkstemps(file, 5);
        if (fd < 0)
            abort();
        atexit(remove_file);
    }
}

static void use(const struct sb_tokenizer *tok)
{
    static const char text[] = "Hello  w\xC3\xB6rld 123\n<|end|> \xE2\x96\x81 \xFF'll end ";
    struct sb_tokens ids = { 0 };
    char *back;
    size_t length;
    if (sb_tokenizer_encode(tok, &ids, text, sizeof text - 1, SB_ENCODE_BOS, NULL) != SB_OK)
        abort();
    for (size_t i = 0; i < ids.n; i++)
        if (ids.id[i] < 0 || (size_t)ids.id[i] >= sb_tokenizer_size(tok))
            abort();
    if (sb_tokenizer_decode(tok, &back, &length, ids.id, ids.n, true, NULL) != SB_OK)
        abort();
    sb_free(back);
    sb_tokens_finish(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sb_error err = { .message = "" };
    struct sb_tokenizer *tok = NULL;
    make_file();
    FILE *f = fopen(file, "wb");
    if (!f || fwrite(data, 1, size, f) != size || fclose(f) != 0)
        abort();
    if (sb_tokenizer_open(&tok, file, &err) == SB_OK)
        use(tok);
    else if (tok || !strstr(err.message, file))
        abort(); /* a refusal names the file */
    sb_tokenizer_close(tok);
    return 0;
}

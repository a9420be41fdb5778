#define _GNU_SOURCE /* memfd_create */
/* The reader of training texts: what it takes can be rendered, or is refused. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness/core/alloc.h"
#include "harness/core/paths.h"
#include "harness/train/data.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Opened once: the bundled vocabulary. */
static struct sb_tokenizer *tokenizer(struct sb_marks *marks)
{
    static struct sb_tokenizer *tok;
    char *path = sb_data_path("models/tiny");
    struct sb_error err;
    if (!tok && (!path || sb_tokenizer_open(&tok, path, &err) != SB_OK))
        abort();
    if (sb_marks_find(marks, tok, path, &err) != SB_OK)
        abort();
    sb_free(path);
    return tok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int fd = memfd_create("texts", 0);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    char path[64];
    const char *file = path;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct sb_corpus corpus;
    struct sb_marks marks;
    struct sb_error err;
    if (sb_corpus_read(&corpus, NULL, &file, 1, 0.5, &err) == SB_OK) {
        const struct sb_tokenizer *tok = tokenizer(&marks);
        struct sb_rendered doc = { 0 };
        for (size_t i = 0; i < corpus.n_records; i++)
            if (sb_record_render(&doc, &corpus, &corpus.records[i], tok, &marks, &err) == SB_OK)
                for (size_t t = 0; t < doc.tokens.n; t++)
                    if (doc.tokens.id[t] < 0 || (size_t)doc.tokens.id[t] >= sb_tokenizer_size(tok))
                        abort();
        sb_rendered_finish(&doc);
        sb_corpus_finish(&corpus);
    }
    close(fd);
    return 0;
}

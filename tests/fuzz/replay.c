/* Feed every file of a corpus folder to a fuzz target, then mutations of each: a test without libFuzzer. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MUTATIONS_PER_FILE = 200 };

static void mutate(uint8_t *data, size_t *size, struct sb_rng *rng)
{
    size_t edits = 1 + (size_t)sb_rng_below(rng, 4);
    for (size_t i = 0; i<edits && * size> 0; i++) {
        size_t at = (size_t)sb_rng_below(rng, *size);
        switch (sb_rng_below(rng, 4)) {
        case 0:
            data[at] ^= (uint8_t)(1u << sb_rng_below(rng, 8));
            break;
        case 1:
            data[at] = (uint8_t)sb_rng_bits(rng);
            break;
        case 2:
            memset(data + at, (int)(sb_rng_bits(rng) & 1 ? 0xff : 0),
                   *size - at < 8 ? *size - at : 8);
            break;
        default:
            *size = at;
        }
    }
}

static int replay(const char *path, uint64_t number)
{
    FILE *f = fopen(path, "rb");
    if (!f || fseek(f, 0, SEEK_END) != 0)
        return -1;
    long length = ftell(f);
    rewind(f);
    uint8_t *data = malloc((size_t)length + 1);
    size_t n = data ? fread(data, 1, (size_t)length, f) : 0;
    fclose(f);
    if (!data || n != (size_t)length)
        return -1;
    LLVMFuzzerTestOneInput(data, n);
    struct sb_rng rng = sb_rng_make(number, SB_STREAM_DATA);
    for (int i = 0; i < MUTATIONS_PER_FILE; i++) {
        uint8_t *copy = malloc(n + 1); /* exact size, so that the sanitizer sees an overrun */
        size_t size = n;
        memcpy(copy, data, n);
        mutate(copy, &size, &rng);
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, copy, size);
        LLVMFuzzerTestOneInput(exact, size);
        free(exact);
        free(copy);
    }
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    DIR *dir = argc > 1 ? opendir(argv[1]) : NULL;
    if (!dir) {
        fprintf(stderr, "usage: %s CORPUS_FOLDER\n", argv[0]);
        return 2;
    }
    uint64_t n = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        char path[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        if (replay(path, n) != 0) {
            fprintf(stderr, "%s: cannot be read\n", path);
            return 1;
        }
        n++;
    }
    closedir(dir);
    printf("%s: %llu inputs, %d mutations each\n", argv[1], (unsigned long long)n,
           MUTATIONS_PER_FILE);
    return n ? 0 : 1;
}

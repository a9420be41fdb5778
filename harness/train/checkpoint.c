/* Layout: struct header, weights, first moments, second moments, losses, xxHash64 of all before it.
 * Numbers are in the machine's own byte order; a checkpoint is not meant to travel. */
#include "harness/train/checkpoint.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "harness/core/alloc.h"

struct header {
    char magic[8];
    uint64_t real_bytes;
    struct sb_train_identity identity;
    struct sb_cursor cursor;
    uint64_t n_params, step;
};

static const char magic[8] = "sbtrain1";

/* Write and hash; false on a full disk. */
static bool put(FILE *file, XXH64_state_t *hash, const void *data, size_t size)
{
    XXH64_update(hash, data, size);
    return size == 0 || fwrite(data, size, 1, file) == 1;
}

static bool write_all(FILE *file, const struct sb_train_state *state, XXH64_state_t *hash)
{
    const struct sb_adamw *opt = state->opt;
    struct header header = {
        .real_bytes = sizeof(sb_real),
        .identity = state->identity,
        .cursor = state->cursor,
        .n_params = opt->n_params,
        .step = opt->step,
    };
    memcpy(header.magic, magic, sizeof magic);
    size_t bytes = opt->n_params * sizeof(sb_real);
    XXH64_reset(hash, 0);
    bool ok = put(file, hash, &header, sizeof header) &&
              put(file, hash, state->weights->x, bytes) && put(file, hash, opt->m, bytes) &&
              put(file, hash, opt->v, bytes) &&
              put(file, hash, state->history, opt->step * sizeof *state->history);
    uint64_t sum = XXH64_digest(hash);
    return ok && fwrite(&sum, sizeof sum, 1, file) == 1 && fflush(file) == 0 &&
           fsync(fileno(file)) == 0;
}

enum sb_status sb_checkpoint_save(const struct sb_train_state *state, const char *path,
                                  struct sb_error *err)
{
    char *partial = sb_strf("%s.part", path);
    XXH64_state_t *hash = XXH64_createState();
    FILE *file = partial && hash ? fopen(partial, "wb") : NULL;
    bool ok = file && write_all(file, state, hash);
    if (file)
        ok = fclose(file) == 0 && ok;
    ok = ok && rename(partial, path) == 0;
    enum sb_status status =
        ok ? SB_OK
           : sb_fail(err, SB_EIO, "checkpoint %s: cannot be written: %s", path, strerror(errno));
    if (!ok && partial)
        remove(partial);
    XXH64_freeState(hash);
    sb_free(partial);
    return status;
}

static enum sb_status check_header(const struct header *h, const struct sb_train_state *state,
                                   const char *path, struct sb_error *err)
{
    const struct sb_train_identity *have = &h->identity, *want = &state->identity;
    if (memcmp(h->magic, magic, sizeof magic) != 0 || h->real_bytes != sizeof(sb_real))
        return sb_fail(err, SB_EFORMAT, "%s: not a training checkpoint of this version", path);
    const char *differs = have->recipe != want->recipe         ? "recipe"
                          : have->corpus != want->corpus       ? "training text"
                          : have->tokenizer != want->tokenizer ? "tokenizer"
                          : have->teacher != want->teacher     ? "teacher"
                                                               : NULL;
    if (differs)
        return sb_fail(err, SB_EUSAGE,
                       "%s: was made with another %s; remove it or train without --resume", path,
                       differs);
    if (h->n_params != state->opt->n_params || h->step > state->opt->options.steps)
        return sb_fail(err, SB_EFORMAT, "%s: %llu weights at step %llu, expected %zu at most %zu",
                       path, (unsigned long long)h->n_params, (unsigned long long)h->step,
                       state->opt->n_params, state->opt->options.steps);
    return SB_OK;
}

/* The whole file in memory, its size checked against its header and its hash against its end. */
static enum sb_status read_checked(unsigned char **data, const struct sb_train_state *state,
                                   FILE *file, const char *path, struct sb_error *err)
{
    struct header header;
    if (fread(&header, sizeof header, 1, file) != 1)
        return sb_fail(err, SB_EFORMAT, "%s: not a training checkpoint of this version", path);
    enum sb_status status = check_header(&header, state, path, err);
    if (status != SB_OK)
        return status;
    size_t body = 3 * state->opt->n_params * sizeof(sb_real) + header.step * sizeof(float);
    size_t size = sizeof header + body + sizeof(uint64_t);
    *data = sb_alloc(size);
    if (!*data)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for %zu bytes", path, size);
    memcpy(*data, &header, sizeof header);
    uint64_t sum;
    if (fread(*data + sizeof header, size - sizeof header, 1, file) != 1 || fgetc(file) != EOF)
        return sb_fail(err, SB_EFORMAT, "%s: is not %zu bytes long, as its header says", path,
                       size);
    memcpy(&sum, *data + size - sizeof sum, sizeof sum);
    if (sum != XXH64(*data, size - sizeof sum, 0))
        return sb_fail(err, SB_EFORMAT, "%s: damaged: its checksum does not hold", path);
    return SB_OK;
}

enum sb_status sb_checkpoint_load(struct sb_train_state *state, const char *path,
                                  struct sb_error *err)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return sb_fail(err, SB_EINPUT, "checkpoint %s: cannot be opened: %s", path,
                       strerror(errno));
    unsigned char *data = NULL;
    enum sb_status status = read_checked(&data, state, file, path, err);
    fclose(file);
    if (status == SB_OK) {
        struct header header;
        memcpy(&header, data, sizeof header);
        size_t bytes = state->opt->n_params * sizeof(sb_real);
        const unsigned char *at = data + sizeof header;
        memcpy(state->weights->x, at, bytes);
        memcpy(state->opt->m, at + bytes, bytes);
        memcpy(state->opt->v, at + 2 * bytes, bytes);
        memcpy(state->history, at + 3 * bytes, header.step * sizeof *state->history);
        state->opt->step = header.step;
        state->cursor = header.cursor;
    }
    sb_free(data);
    return status;
}

/* Prompt sets: which reader, which file, which part of it. */
#include "datasets/dataset.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "datasets/internal.h"
#include "harness/core/alloc.h"
#include "harness/core/paths.h"

/* One line per reader, in the order in which they are listed. */
const struct sb_reader_ops *const sb_readers[] = {
    &sb_reader_mini,
    &sb_reader_spec_bench,
    &sb_reader_jsonl,
    NULL,
};

/* A prompt set has thousands of lines; far more than this is some other file. */
static const long long file_bytes_max = 1LL << 30;

const struct sb_reader_ops *sb_reader_find(const char *name)
{
    for (size_t i = 0; sb_readers[i]; i++)
        if (strcmp(sb_readers[i]->name, name) == 0)
            return sb_readers[i];
    return NULL;
}

/* A whole regular file. The caller frees *text. */
static enum sb_status load_file(char **text, size_t *size_bytes, const char *path,
                                struct sb_error *err)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        return sb_fail(err, SB_EINPUT, "%s: found %s, expected a file", path,
                       S_ISDIR(info.st_mode) ? "a directory" : "a device or a pipe");
    if (info.st_size == 0)
        return sb_fail(err, SB_EFORMAT, "%s: found an empty file, expected prompts", path);
    if (info.st_size > file_bytes_max)
        return sb_fail(err, SB_EFORMAT, "%s: %lld bytes, expected at most %lld", path,
                       (long long)info.st_size, file_bytes_max);
    size_t size = (size_t)info.st_size;
    FILE *f = fopen(path, "rb");
    if (!f)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    enum sb_status rc = SB_OK;
    char *data = sb_alloc(size);
    if (!data)
        rc = sb_fail(err, SB_ENOMEM, "%s: %zu bytes: out of memory", path, size);
    else if (fread(data, 1, size, f) != size)
        rc = sb_fail(err, SB_EINPUT, "%s: ends before its %zu bytes", path, size);
    fclose(f);
    if (rc != SB_OK) {
        sb_free(data);
        return rc;
    }
    *text = data;
    *size_bytes = size;
    return SB_OK;
}

/* parse() with `path` in messages, while the set records `source`. */
static enum sb_status build(struct sb_dataset *out, const struct sb_reader_ops *reader,
                            const char *source, const char *path, const char *text,
                            size_t size_bytes, struct sb_error *err)
{
    struct sb_dataset set = { 0 };
    enum sb_status rc = reader->parse(&set.items, &set.n, path, text, size_bytes, err);
    if (rc != SB_OK)
        return rc;
    snprintf(set.hash, sizeof set.hash, "%016" PRIx64, (uint64_t)XXH64(text, size_bytes, 0));
    set.name = sb_strdup(reader->name);
    set.source = sb_strdup(source);
    if (!set.name || !set.source) {
        sb_dataset_finish(&set);
        return sb_fail(err, SB_ENOMEM, "%s: out of memory", path);
    }
    *out = set;
    return SB_OK;
}

enum sb_status sb_dataset_parse(struct sb_dataset *out, const struct sb_reader_ops *reader,
                                const char *source, const char *text, size_t size_bytes,
                                struct sb_error *err)
{
    return build(out, reader, source, source, text, size_bytes, err);
}

static const struct sb_reader_ops *recognise(const char *text, size_t size_bytes)
{
    json_t *first = sb_lines_first(text, size_bytes);
    bool asks = json_object_get(first, "question_id") && json_object_get(first, "turns");
    json_decref(first);
    return asks ? &sb_reader_spec_bench : &sb_reader_jsonl;
}

/* reader NULL: by content. */
static enum sb_status open_file(struct sb_dataset *out, const struct sb_reader_ops *reader,
                                const char *source, const char *path, struct sb_error *err)
{
    char *text = NULL;
    size_t size_bytes = 0;
    enum sb_status rc = load_file(&text, &size_bytes, path, err);
    if (rc != SB_OK)
        return rc;
    rc = build(out, reader ? reader : recognise(text, size_bytes), source, path, text, size_bytes,
               err);
    sb_free(text);
    return rc;
}

static enum sb_status open_bundled(struct sb_dataset *out, const struct sb_reader_ops *reader,
                                   struct sb_error *err)
{
    char *path = sb_data_path(reader->bundled);
    if (!path)
        return sb_fail(err, SB_ENOMEM, "dataset %s: out of memory", reader->name);
    enum sb_status rc = open_file(out, reader, reader->name, path, err);
    sb_free(path);
    return rc;
}

static enum sb_status unknown_reader(const char *spec, struct sb_error *err)
{
    char known[200] = "";
    for (size_t i = 0, at = 0; sb_readers[i] && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "",
                               sb_readers[i]->form);
    return sb_fail(err, SB_EUSAGE, "no dataset or file '%s'; there are: %s, or a file", spec,
                   known);
}

/* The reader that `spec` names before its colon, or as a whole; NULL: none. */
static const struct sb_reader_ops *named_reader(const char *spec, const char **file)
{
    size_t length = strcspn(spec, ":");
    for (size_t i = 0; sb_readers[i]; i++)
        if (strlen(sb_readers[i]->name) == length && !strncmp(sb_readers[i]->name, spec, length)) {
            *file = spec[length] ? spec + length + 1 : NULL;
            return sb_readers[i];
        }
    return NULL;
}

enum sb_status sb_dataset_open(struct sb_dataset *out, const char *spec, struct sb_error *err)
{
    const char *file = NULL;
    const struct sb_reader_ops *reader = named_reader(spec, &file);
    if (reader && reader->bundled && file)
        return sb_fail(err, SB_EUSAGE, "dataset %s is bundled and takes no file, found '%s'",
                       reader->name, spec);
    if (reader && reader->bundled)
        return open_bundled(out, reader, err);
    if (reader && (!file || !*file))
        return sb_fail(err, SB_EUSAGE, "dataset %s needs a file: %s", reader->name, reader->form);
    if (reader)
        return open_file(out, reader, file, file, err);
    /* Something that looks like a path gets the system's reason, a mere name the list of readers. */
    struct stat info;
    if (!strchr(spec, '/') && stat(spec, &info) != 0)
        return unknown_reader(spec, err);
    return open_file(out, NULL, spec, spec, err);
}

void sb_dataset_finish(struct sb_dataset *dataset)
{
    if (!dataset)
        return;
    for (size_t i = 0; i < dataset->n; i++)
        sb_item_finish(&dataset->items[i]);
    sb_free(dataset->items);
    sb_free(dataset->name);
    sb_free(dataset->source);
    *dataset = (struct sb_dataset){ 0 };
}

/* Items by task, then by place: a task's items stand together, its first one in front. Sorting keeps
 * this fast for a file in which every line is a task of its own. */
struct place {
    const char *task;
    size_t index;
};

static int by_task_then_index(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int order = strcmp(x->task, y->task);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

/* rank[i]: how many items before item i have its task. NULL: out of memory. */
static size_t *rank_in_task(const struct sb_dataset *set)
{
    struct place *places = sb_alloc_array(set->n, sizeof *places);
    size_t *rank = sb_alloc_array(set->n, sizeof *rank);
    if (!places || !rank) {
        sb_free(places);
        sb_free(rank);
        return NULL;
    }
    for (size_t i = 0; i < set->n; i++)
        places[i] = (struct place){ set->items[i].task, i };
    qsort(places, set->n, sizeof *places, by_task_then_index);
    for (size_t i = 0, start = 0; i < set->n; i++) {
        if (strcmp(places[i].task, places[start].task) != 0)
            start = i;
        rank[places[i].index] = i - start;
    }
    sb_free(places);
    return rank;
}

/* Cut the next name off "a, b": its start and length without spaces round it. */
static const char *next_name(const char **list, size_t *length)
{
    const char *name = *list + strspn(*list, " "), *stop = name + strcspn(name, ",");
    *list = *stop ? stop + 1 : stop;
    while (stop > name && stop[-1] == ' ')
        stop--;
    *length = (size_t)(stop - name);
    return name;
}

static bool is_name(const char *name, size_t length, const char *task)
{
    return strlen(task) == length && memcmp(name, task, length) == 0;
}

static bool wanted(const char *tasks, const char *task)
{
    bool found = !tasks;
    while (tasks && *tasks && !found) {
        size_t length;
        const char *name = next_name(&tasks, &length);
        found = is_name(name, length, task);
    }
    return found;
}

static enum sb_status unknown_task(const struct sb_dataset *set, const size_t *rank,
                                   const char *name, size_t length, struct sb_error *err)
{
    char there[300] = "";
    size_t at = 0;
    for (size_t i = 0; i < set->n && at < sizeof there; i++)
        if (rank[i] == 0)
            at += (size_t)snprintf(there + at, sizeof there - at, "%s%s", at ? ", " : "",
                                   set->items[i].task);
    return sb_fail(err, SB_EUSAGE, "dataset %s has no task '%.*s'; it has: %s", set->source,
                   length < 60 ? (int)length : 60, name, there);
}

static enum sb_status check_names(const struct sb_dataset *set, const size_t *rank,
                                  const char *tasks, struct sb_error *err)
{
    if (tasks && tasks[strspn(tasks, " ,")] == '\0')
        return unknown_task(set, rank, "", 0, err);
    while (tasks && *tasks) {
        size_t length;
        const char *name = next_name(&tasks, &length);
        bool there = false;
        for (size_t i = 0; i < set->n && !there; i++)
            there = rank[i] == 0 && is_name(name, length, set->items[i].task);
        if (!there)
            return unknown_task(set, rank, name, length, err);
    }
    return SB_OK;
}

enum sb_status sb_dataset_select(struct sb_dataset *dataset, const char *tasks, size_t take,
                                 struct sb_error *err)
{
    size_t *rank = rank_in_task(dataset);
    if (!rank)
        return sb_fail(err, SB_ENOMEM, "%zu prompts: out of memory", dataset->n);
    enum sb_status rc = check_names(dataset, rank, tasks, err);
    size_t kept = 0;
    for (size_t i = 0; i < dataset->n && rc == SB_OK; i++)
        if ((take == 0 || rank[i] < take) && wanted(tasks, dataset->items[i].task))
            dataset->items[kept++] = dataset->items[i];
        else
            sb_item_finish(&dataset->items[i]);
    if (rc == SB_OK)
        dataset->n = kept;
    sb_free(rank);
    return rc;
}

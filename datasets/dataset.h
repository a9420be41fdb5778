/* Prompt sets. A reader per format turns a file into items; an item has one or more user turns. */
#ifndef SB_DATASETS_DATASET_H
#define SB_DATASETS_DATASET_H

#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

struct sb_item {
    int64_t question_id;
    char *category;   /* as in the file */
    char *task;       /* the group it is reported under: Spec-Bench's eight conversation categories
                         become "conversation"; an unknown category is its own task */
    char **turns;     /* [n_turns] user text, UTF-8 */
    size_t n_turns;   /* at least 1 */
    char **documents; /* [n_documents] texts that the prompts are about, for drafters that copy */
    size_t n_documents;
};

struct sb_dataset {
    char *name;    /* of its reader: "mini", "spec-bench", "jsonl" */
    char *source;  /* path as given, or the bundled name */
    char hash[17]; /* xxHash64 of the file's bytes, 16 hex digits */
    struct sb_item *items;
    size_t n;
};

/* A file format. To add one: a table in a file of its own, and a line in dataset.c's list. */
struct sb_reader_ops {
    const char *name, *summary, *form; /* form: "mini", "spec-bench:FILE", "jsonl:FILE" */
    const char *bundled; /* the reader's own file under the data folder; NULL: it is given a FILE */
    /* The items of a file already in memory; `path` is for messages. The caller owns *items. */
    enum sb_status (*parse)(struct sb_item **items, size_t *n, const char *path, const char *text,
                            size_t size_bytes, struct sb_error *err);
};
extern const struct sb_reader_ops *const sb_readers[];        /* ends at NULL */
const struct sb_reader_ops *sb_reader_find(const char *name); /* NULL: no such reader */

/* "mini", "spec-bench:FILE", "jsonl:FILE", or a bare path: spec-bench when its first line has
 * question_id and turns, else jsonl. A name that is neither a reader nor a file is SB_EUSAGE and lists
 * the readers; a file that cannot be read is SB_EINPUT, one whose content is wrong SB_EFORMAT. */
enum sb_status sb_dataset_open(struct sb_dataset *out, const char *spec, struct sb_error *err);
/* The same from memory: `source` is recorded and stands in messages. */
enum sb_status sb_dataset_parse(struct sb_dataset *out, const struct sb_reader_ops *reader,
                                const char *source, const char *text, size_t size_bytes,
                                struct sb_error *err);
void sb_dataset_finish(struct sb_dataset *dataset);

/* Keep the tasks named in "a,b" (NULL: all), then the first `take` of each task (0: all). A name that
 * is not in the set is SB_EUSAGE and lists the ones there. File order is kept; on failure the set is
 * as it was. `take` counts within a task, so a small number still gives every task its share, and a
 * conversation counts once whichever of the eight categories it has. */
enum sb_status sb_dataset_select(struct sb_dataset *dataset, const char *tasks, size_t take,
                                 struct sb_error *err);

#endif

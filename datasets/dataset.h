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
};

struct sb_dataset {
    char *name;       /* "mini", "spec-bench", "jsonl" */
    char *source;     /* path as given, or the bundled name */
    char hash[17];    /* xxHash64 of the file, hex */
    struct sb_item *items;
    size_t n;
};

struct sb_reader_ops {
    const char *name, *summary, *form; /* form: "mini", "spec-bench:FILE", "jsonl:FILE" */
    enum sb_status (*read)(struct sb_dataset *out, const char *path, struct sb_error *err);
};
extern const struct sb_reader_ops *const sb_readers[]; /* ends at NULL */

/* "mini", "spec-bench:FILE", "jsonl:FILE", or a bare path (kind recognised by content). */
enum sb_status sb_dataset_open(struct sb_dataset *out, const char *spec, struct sb_error *err);
void sb_dataset_finish(struct sb_dataset *dataset);

/* Keep the tasks named in "a,b" (NULL: all), then the first `take` of each task (0: all). A name that
 * is not in the set is SB_EUSAGE and lists the ones there. File order is kept. */
enum sb_status sb_dataset_select(struct sb_dataset *dataset, const char *tasks, size_t take,
                                 struct sb_error *err);

#endif

/* What the readers share: a JSONL file line by line, and the fields of one line. */
#ifndef SB_DATASETS_INTERNAL_H
#define SB_DATASETS_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "datasets/dataset.h"

enum { SB_LINE_BYTES_MAX = 16 << 20 };

/* Where a message points. */
struct sb_line {
    const char *path;
    size_t number; /* from 1, blank lines counted, as an editor shows it */
};

/* A malformed line: SB_EFORMAT with the file and the line in front. */
#define sb_line_fail(at, err, fmt, ...) \
    sb_fail((err), SB_EFORMAT, "%s: line %zu: " fmt, (at)->path, (at)->number, __VA_ARGS__)

/* Turn one parsed line into an item. `item` comes zeroed; whatever is in it when the reader fails is
 * released by the caller. */
typedef enum sb_status sb_line_reader(struct sb_item *item, const json_t *value,
                                      const struct sb_line *at, struct sb_error *err);

/* Read every line that is not blank with `read`, and refuse a question_id that occurs twice. A
 * UTF-8 byte-order mark at the start and CRLF line ends are tolerated. */
enum sb_status sb_lines_parse(struct sb_item **items, size_t *n, const char *path, const char *text,
                              size_t size_bytes, sb_line_reader *read, struct sb_error *err);
/* The first line that is not blank, parsed; NULL: none, or not JSON. The caller decrefs it. */
json_t *sb_lines_first(const char *text, size_t size_bytes);

/* "a list", "empty text", "nothing" (NULL): the found half of a message. */
const char *sb_json_found(const json_t *value);
/* Copy text that is not empty. `field` names the value in messages ("turns[1]"). */
enum sb_status sb_line_text(char **out, const json_t *value, const char *field,
                            const struct sb_line *at, struct sb_error *err);
/* Copy a list of texts, at least one, into item->turns. */
enum sb_status sb_line_turns(struct sb_item *item, const json_t *value, const struct sb_line *at,
                             struct sb_error *err);
/* Room for n turns, all NULL. */
enum sb_status sb_item_reserve(struct sb_item *item, size_t n, struct sb_error *err);
/* The group a category is reported under; borrowed from `category` or static. */
const char *sb_task_of(const char *category);
void sb_item_finish(struct sb_item *item);

extern const struct sb_reader_ops sb_reader_mini, sb_reader_spec_bench, sb_reader_jsonl;

#endif

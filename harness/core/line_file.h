/* A text file read line by line, gzipped or not. */
#ifndef SB_CORE_LINE_FILE_H
#define SB_CORE_LINE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "harness/core/error.h"

enum { SB_LINE_LONGEST = 16 << 20 }; /* bytes of a line */

struct sb_line_file {
    const char *path; /* borrowed, for messages */
    void *file;
    char *line;                 /* [length] the line in hand, without its end mark */
    size_t length, number, cap; /* number counts from 1 */
};

/* SB_EINPUT: it cannot be opened. */
enum sb_status sb_line_file_open(struct sb_line_file *out, const char *path, struct sb_error *err);
void sb_line_file_close(struct sb_line_file *in); /* accepts zeroed */
/* The next line; *end when there is none. SB_EFORMAT: too long, or it cannot be decompressed. */
enum sb_status sb_line_file_next(struct sb_line_file *in, bool *end, struct sb_error *err);

#endif

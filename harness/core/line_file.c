#include "harness/core/line_file.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#include "harness/core/alloc.h"

enum { READ_BYTES = 1 << 16 };

enum sb_status sb_line_file_open(struct sb_line_file *out, const char *path, struct sb_error *err)
{
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return sb_fail(err, SB_EINPUT, "%s: is a directory; expected a file", path);
    gzFile file = gzopen(path, "rb");
    if (!file)
        return sb_fail(err, SB_EINPUT, "%s: %s", path, strerror(errno));
    *out = (struct sb_line_file){ .path = path, .file = file };
    return SB_OK;
}

void sb_line_file_close(struct sb_line_file *in)
{
    if (in->file)
        gzclose(in->file);
    sb_free(in->line);
    *in = (struct sb_line_file){ 0 };
}

enum sb_status sb_line_file_next(struct sb_line_file *in, bool *end, struct sb_error *err)
{
    in->length = 0;
    in->number++;
    for (;;) {
        if (sb_grow((void **)&in->line, &in->cap, in->length + READ_BYTES, 1) != 0)
            return sb_fail(err, SB_ENOMEM, "%s: out of memory", in->path);
        if (!gzgets(in->file, in->line + in->length, READ_BYTES))
            break;
        in->length += strlen(in->line + in->length);
        if (in->length > 0 && in->line[in->length - 1] == '\n') {
            in->length--;
            *end = false;
            return SB_OK;
        }
        if (in->length > SB_LINE_LONGEST)
            return sb_fail(err, SB_EFORMAT, "%s: line %zu is longer than %d MiB", in->path,
                           in->number, SB_LINE_LONGEST >> 20);
    }
    int code;
    const char *why = gzerror(in->file, &code);
    if (code != Z_OK && code != Z_STREAM_END)
        return sb_fail(err, SB_EFORMAT, "%s: cannot be decompressed: %s", in->path,
                       code == Z_BUF_ERROR ? "the file is cut short" : why);
    *end = in->length == 0;
    return SB_OK;
}

#include "harness/core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Terminals and logs get one printable line, whatever bytes a hostile file put into a name. */
static void make_one_line(char *text, size_t size, int wanted)
{
    if (wanted < 0)
        snprintf(text, size, "(message could not be formatted)");
    else if ((size_t)wanted >= size)
        memcpy(text + size - 4, "...", 4);
    for (unsigned char *c = (unsigned char *)text; *c; c++)
        if (*c < 0x20 || *c == 0x7f)
            *c = '?';
}

enum sb_status sb_fail_at(struct sb_error *err, enum sb_status code, const char *file, int line,
                          const char *fmt, ...)
{
    if (!err)
        return code;
    char text[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    int wanted = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    make_one_line(text, sizeof text, wanted);
    *err = (struct sb_error){ .code = code, .line = line, .file = file };
    memcpy(err->message, text, sizeof text);
    return code;
}

enum sb_status sb_fail_context(struct sb_error *err, enum sb_status code, const char *fmt, ...)
{
    if (!err)
        return code;
    char context[sizeof err->message];
    va_list args;
    va_start(args, fmt);
    int wanted = vsnprintf(context, sizeof context, fmt, args);
    va_end(args);
    make_one_line(context, sizeof context, wanted);
    char both[2 * sizeof err->message + 2];
    int length = snprintf(both, sizeof both, "%s: %s", context, err->message);
    snprintf(err->message, sizeof err->message, "%.*s", (int)sizeof err->message - 1, both);
    make_one_line(err->message, sizeof err->message, length);
    return err->code;
}

int sb_exit_code(enum sb_status status)
{
    switch (status) {
    case SB_OK:
        return 0;
    case SB_EUSAGE:
    case SB_EINPUT:
    case SB_EFORMAT:
    case SB_EUNSUPPORTED:
        return 2;
    case SB_EGATE:
        return 3;
    case SB_EINTERRUPTED:
        return 130;
    case SB_EIO:
    case SB_ENOMEM:
    case SB_EINTERNAL:
        break;
    }
    return 1;
}

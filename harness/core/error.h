/* Errors: a status code that every fallible function returns, and a message that its caller owns.
 *
 * A fallible function takes `struct sb_error *err` last (NULL is allowed: the message is dropped),
 * leaves its outputs untouched on failure, and returns what sb_fail returned. */
#ifndef SB_CORE_ERROR_H
#define SB_CORE_ERROR_H

enum sb_status {
    SB_OK = 0,
    SB_EUSAGE,       /* a wrong parameter, option, name or combination of plug-ins */
    SB_EINPUT,       /* an input that is missing or cannot be read */
    SB_EFORMAT,      /* an input whose content is malformed, hostile or of another version */
    SB_EUNSUPPORTED, /* a well-formed input that asks for something specbench does not have */
    SB_EIO,          /* writing failed, or the system refused a resource */
    SB_ENOMEM,       /* memory ran out */
    SB_EGATE,        /* a gate or a certificate does not hold */
    SB_EINTERRUPTED, /* the user asked to stop; what was finished is kept */
    SB_EINTERNAL,    /* an invariant of our own failed; a bug */
};

struct sb_error {
    enum sb_status code;
    int line;          /* of the sb_fail call */
    const char *file;  /* static string */
    char message[512]; /* one line, NUL-terminated; truncated with "..." when longer */
};

/* Record a failure and return `code`. The message is one line: control characters become '?'. The
 * expression lets the compiler see that the result is not SB_OK. */
#define sb_fail(err, code, ...)                                     \
    __extension__({                                                 \
        sb_fail_at((err), (code), __FILE__, __LINE__, __VA_ARGS__); \
        (enum sb_status)(code);                                     \
    })
enum sb_status sb_fail_at(struct sb_error *err, enum sb_status code, const char *file, int line,
                          const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Put "context: " before the message already in err, once; returns err's code (code when NULL). */
enum sb_status sb_fail_context(struct sb_error *err, enum sb_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Process exit code for a status: 0 done, 1 failed, 2 wrong usage or input, 3 a gate or certificate
 * does not hold, 130 interrupted. */
int sb_exit_code(enum sb_status status);

#endif

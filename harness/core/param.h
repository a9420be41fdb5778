/* Declared parameters: one table per plug-in, read by the CLI, Lua, `specbench list` and the docs. */
#ifndef SB_CORE_PARAM_H
#define SB_CORE_PARAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness/core/error.h"

enum sb_param_type {
    SB_PARAM_INT,    /* member: int64_t */
    SB_PARAM_NUMBER, /* member: double */
    SB_PARAM_BOOL,   /* member: bool */
    SB_PARAM_STRING, /* member: const char *, borrowed from the assignment; may be NULL by default */
    SB_PARAM_CHOICE, /* member: const char *, one of `choices` */
};

/* One row of a plug-in's table; the table ends at a NULL name. */
struct sb_param {
    const char *name; /* snake_case */
    enum sb_param_type type;
    size_t offset;        /* of the member in the plug-in's parameter struct */
    const char *fallback; /* the default, as text; NULL: required (STRING: absent) */
    double min, max;      /* INT and NUMBER: inclusive range */
    const char *choices;  /* CHOICE: "ref|first|last" */
    const char *meaning;  /* one line */
    bool required;
};

/* "name:k=v,k=v" taken apart. Values may be quoted with '...' to hold commas, or put into (...), which
 * may hold quotes and further parentheses: specs within specs. */
struct sb_assignment {
    char *key, *value; /* owned by the spec */
};

struct sb_spec {
    char *name; /* plug-in name, owned */
    struct sb_assignment *set;
    size_t n, cap;
};

enum sb_status sb_spec_parse(struct sb_spec *out, const char *text, struct sb_error *err);
enum sb_status sb_spec_init(struct sb_spec *out, const char *name, struct sb_error *err);
/* Add or replace key = value. */
enum sb_status sb_spec_set(struct sb_spec *spec, const char *key, const char *value,
                           struct sb_error *err);
const char *sb_spec_get(const struct sb_spec *spec, const char *key); /* NULL: not set */
void sb_spec_finish(struct sb_spec *spec);
/* Canonical text "name:k=v,k=v" with keys sorted, in new memory; NULL out of memory. */
char *sb_spec_text(const struct sb_spec *spec);

/* Fill `dst` (the plug-in's parameter struct) from defaults and the spec. An unknown key, a value
 * of the wrong type or out of range is SB_EUSAGE and names `owner` ("drafter pld"), the key, the
 * value and what is allowed. String members borrow from spec. */
enum sb_status sb_params_apply(void *dst, const struct sb_param *table, const struct sb_spec *spec,
                               const char *owner, struct sb_error *err);

/* Does the table have a CHOICE parameter of that name, and has it this value in a filled struct? */
bool sb_params_choice_is(const void *params, const struct sb_param *table, const char *name,
                         const char *value);

#endif

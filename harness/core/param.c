#include "harness/core/param.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"

enum sb_status sb_spec_init(struct sb_spec *out, const char *name, struct sb_error *err)
{
    char *copy = sb_strdup(name);
    if (!copy)
        return sb_fail(err, SB_ENOMEM, "out of memory for '%s'", name);
    *out = (struct sb_spec){ .name = copy };
    return SB_OK;
}

void sb_spec_finish(struct sb_spec *spec)
{
    if (!spec)
        return;
    for (size_t i = 0; i < spec->n; i++) {
        sb_free(spec->set[i].key);
        sb_free(spec->set[i].value);
    }
    sb_free(spec->set);
    sb_free(spec->name);
    *spec = (struct sb_spec){ 0 };
}

static struct sb_assignment *find(const struct sb_spec *spec, const char *key)
{
    for (size_t i = 0; i < spec->n; i++)
        if (strcmp(spec->set[i].key, key) == 0)
            return &spec->set[i];
    return NULL;
}

const char *sb_spec_get(const struct sb_spec *spec, const char *key)
{
    const struct sb_assignment *a = find(spec, key);
    return a ? a->value : NULL;
}

enum sb_status sb_spec_set(struct sb_spec *spec, const char *key, const char *value,
                           struct sb_error *err)
{
    struct sb_assignment *a = find(spec, key);
    char *copy = sb_strdup(value);
    if (a && copy) {
        sb_free(a->value);
        a->value = copy;
        return SB_OK;
    }
    char *name = sb_strdup(key);
    if (!copy || !name ||
        sb_grow((void **)&spec->set, &spec->cap, spec->n + 1, sizeof *spec->set) != 0) {
        sb_free(copy);
        sb_free(name);
        return sb_fail(err, SB_ENOMEM, "out of memory for '%s'", key);
    }
    spec->set[spec->n++] = (struct sb_assignment){ name, copy };
    return SB_OK;
}

/* The end of one "k=v": a comma outside quotes and parentheses, or the end of the text. Parentheses
 * count in values that begin with one. */
static const char *assignment_end(const char *text)
{
    bool quoted = false, nests = text[strcspn(text, "=,")] && text[strcspn(text, "=,") + 1] == '(';
    int depth = 0;
    for (; *text && (quoted || depth > 0 || *text != ','); text++) {
        if (*text == '\'')
            quoted = !quoted;
        else if (nests && !quoted && (*text == '(' || *text == ')'))
            depth += *text == '(' ? 1 : -1;
    }
    return text;
}

static enum sb_status parse_assignment(struct sb_spec *spec, const char *from, const char *to,
                                       struct sb_error *err)
{
    const char *equals = memchr(from, '=', (size_t)(to - from));
    if (!equals || equals == from)
        return sb_fail(err, SB_EUSAGE, "'%.*s' after '%s:' is not of the form key=value",
                       (int)(to - from), from, spec->name);
    const char *value = equals + 1;
    size_t length = (size_t)(to - value);
    if (length >= 2 && ((value[0] == '\'' && value[length - 1] == '\'') ||
                        (value[0] == '(' && value[length - 1] == ')'))) {
        value++;
        length -= 2;
    }
    char *k = sb_strndup(from, (size_t)(equals - from)), *v = sb_strndup(value, length);
    enum sb_status rc;
    if (!k || !v)
        rc = sb_fail(err, SB_ENOMEM, "out of memory for '%s'", spec->name);
    else if (find(spec, k))
        rc = sb_fail(err, SB_EUSAGE, "%s: parameter '%s' is given twice", spec->name, k);
    else
        rc = sb_spec_set(spec, k, v, err);
    sb_free(k);
    sb_free(v);
    return rc;
}

enum sb_status sb_spec_parse(struct sb_spec *out, const char *text, struct sb_error *err)
{
    const char *colon = strchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : strlen(text);
    if (length == 0)
        return sb_fail(err, SB_EUSAGE, "'%s' does not begin with a name", text);
    struct sb_spec spec = { .name = sb_strndup(text, length) };
    enum sb_status rc = spec.name ? SB_OK : sb_fail(err, SB_ENOMEM, "out of memory for '%s'", text);
    for (const char *p = colon ? colon + 1 : ""; rc == SB_OK && *p;) {
        const char *end = assignment_end(p);
        rc = parse_assignment(&spec, p, end, err);
        p = *end ? end + 1 : end;
    }
    if (rc == SB_OK)
        *out = spec;
    else
        sb_spec_finish(&spec);
    return rc;
}

static int by_key(const void *a, const void *b)
{
    return strcmp((*(const struct sb_assignment *const *)a)->key,
                  (*(const struct sb_assignment *const *)b)->key);
}

char *sb_spec_text(const struct sb_spec *spec)
{
    const struct sb_assignment **sorted = sb_alloc_array(spec->n + 1, sizeof *sorted);
    char *text = sorted ? sb_strdup(spec->name) : NULL;
    for (size_t i = 0; i < spec->n && sorted; i++)
        sorted[i] = &spec->set[i];
    if (sorted)
        qsort(sorted, spec->n, sizeof *sorted, by_key);
    for (size_t i = 0; i < spec->n && text; i++) {
        const char *value = sorted[i]->value;
        bool nests = value[0] == '(' || (strchr(value, ',') && strpbrk(value, "'("));
        const char *open = nests ? "(" : strchr(value, ',') ? "'" : "";
        const char *close = nests ? ")" : open;
        char *longer =
            sb_strf("%s%c%s=%s%s%s", text, i ? ',' : ':', sorted[i]->key, open, value, close);
        sb_free(text);
        text = longer;
    }
    sb_free(sorted);
    return text;
}

/* "ngram_max, k, match" into a fixed buffer, for messages. */
static void list_names(char *text, size_t size, const struct sb_param *table)
{
    size_t used = 0;
    text[0] = '\0';
    for (const struct sb_param *p = table; p && p->name && used < size; p++)
        used += (size_t)snprintf(text + used, size - used, "%s%s", p == table ? "" : ", ", p->name);
}

static const struct sb_param *find_param(const struct sb_param *table, const char *name)
{
    for (const struct sb_param *p = table; p && p->name; p++)
        if (strcmp(p->name, name) == 0)
            return p;
    return NULL;
}

static bool is_choice(const char *choices, const char *value, const char **canonical)
{
    size_t length = strlen(value);
    for (const char *p = choices; length > 0;) {
        size_t n = strcspn(p, "|");
        if (n == length && memcmp(p, value, n) == 0) {
            *canonical = value;
            return true;
        }
        if (!p[n])
            return false;
        p += n + 1;
    }
    return false;
}

static enum sb_status refuse(const struct sb_param *p, const char *value, const char *owner,
                             struct sb_error *err)
{
    switch (p->type) {
    case SB_PARAM_INT:
        return sb_fail(err, SB_EUSAGE, "%s: %s=%s: expected a whole number from %.0f to %.0f",
                       owner, p->name, value, p->min, p->max);
    case SB_PARAM_NUMBER:
        return sb_fail(err, SB_EUSAGE, "%s: %s=%s: expected a number from %g to %g", owner, p->name,
                       value, p->min, p->max);
    case SB_PARAM_BOOL:
        return sb_fail(err, SB_EUSAGE, "%s: %s=%s: expected true or false", owner, p->name, value);
    case SB_PARAM_CHOICE:
        return sb_fail(err, SB_EUSAGE, "%s: %s=%s: expected one of %s", owner, p->name, value,
                       p->choices);
    case SB_PARAM_STRING:
        break;
    }
    return sb_fail(err, SB_EUSAGE, "%s: %s=%s: expected text", owner, p->name, value);
}

static bool parse_bool(bool *out, const char *value)
{
    static const char *const yes[] = { "true", "1", "yes", "on" };
    static const char *const no[] = { "false", "0", "no", "off" };
    for (size_t i = 0; i < 4; i++) {
        if (strcmp(value, yes[i]) == 0 || strcmp(value, no[i]) == 0) {
            *out = strcmp(value, yes[i]) == 0;
            return true;
        }
    }
    return false;
}

static enum sb_status set_member(void *dst, const struct sb_param *p, const char *value,
                                 const char *owner, struct sb_error *err)
{
    void *member = (char *)dst + p->offset;
    char *end = NULL;
    errno = 0;
    switch (p->type) {
    case SB_PARAM_INT: {
        long long n = strtoll(value, &end, 10);
        if (end == value || *end || errno || (double)n < p->min || (double)n > p->max)
            return refuse(p, value, owner, err);
        *(int64_t *)member = n;
        return SB_OK;
    }
    case SB_PARAM_NUMBER: {
        double x = strtod(value, &end);
        if (end == value || *end || !(x >= p->min && x <= p->max))
            return refuse(p, value, owner, err);
        *(double *)member = x;
        return SB_OK;
    }
    case SB_PARAM_BOOL:
        return parse_bool(member, value) ? SB_OK : refuse(p, value, owner, err);
    case SB_PARAM_CHOICE:
        return is_choice(p->choices, value, (const char **)member) ? SB_OK
                                                                   : refuse(p, value, owner, err);
    case SB_PARAM_STRING:
        *(const char **)member = value;
        return SB_OK;
    }
    return sb_fail(err, SB_EINTERNAL, "%s: %s has an unknown type", owner, p->name);
}

enum sb_status sb_params_apply(void *dst, const struct sb_param *table, const struct sb_spec *spec,
                               const char *owner, struct sb_error *err)
{
    for (size_t i = 0; spec && i < spec->n; i++) {
        char names[256];
        if (find_param(table, spec->set[i].key))
            continue;
        list_names(names, sizeof names, table);
        return sb_fail(err, SB_EUSAGE, "%s has no parameter '%s'; %s%s", owner, spec->set[i].key,
                       names[0] ? "it has: " : "it takes none", names);
    }
    for (const struct sb_param *p = table; p && p->name; p++) {
        const char *value = spec ? sb_spec_get(spec, p->name) : NULL;
        if (!value && p->required)
            return sb_fail(err, SB_EUSAGE, "%s needs %s=... (%s)", owner, p->name, p->meaning);
        if (!value)
            value = p->fallback;
        if (!value)
            continue;
        enum sb_status rc = set_member(dst, p, value, owner, err);
        if (rc != SB_OK)
            return rc;
    }
    return SB_OK;
}

bool sb_params_choice_is(const void *params, const struct sb_param *table, const char *name,
                         const char *value)
{
    const struct sb_param *p = find_param(table, name);
    return p && p->type == SB_PARAM_CHOICE &&
           strcmp(*(const char *const *)((const char *)params + p->offset), value) == 0;
}

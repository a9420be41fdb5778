#include "harness/cli/cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/core/alloc.h"
#include "harness/core/threads.h"
#include "kernels/kernels.h"

/* ---- parsing --------------------------------------------------------------------------------- */

static size_t edit_distance(const char *a, const char *b)
{
    size_t row[64], n = strlen(b);
    if (n >= 63)
        return 99;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 1; a[i - 1]; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= n; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]);
            size_t least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            diagonal = row[j];
            row[j] = change < least ? change : least;
        }
    }
    return row[n];
}

static enum sb_status refuse_option(const char *name, const struct sb_usage *usage,
                                    const struct sb_option *options, struct sb_error *err)
{
    const struct sb_option *nearest = NULL;
    size_t best = 4;
    for (const struct sb_option *o = options; o->name; o++) {
        size_t d = edit_distance(name, o->name);
        if (d < best) {
            best = d;
            nearest = o;
        }
    }
    if (nearest)
        return sb_fail(err, SB_EUSAGE, "there is no option --%s; did you mean --%s?", name,
                       nearest->name);
    return sb_fail(err, SB_EUSAGE, "there is no option --%s; see specbench %s --help", name,
                   usage->name);
}

static enum sb_status set_option(const struct sb_option *o, const char *value, struct sb_error *err)
{
    char *end = NULL;
    bool limited = o->min != 0 || o->max != 0;
    errno = 0;
    switch (o->kind) {
    case SB_OPT_FLAG:
        *(bool *)o->dst = true;
        return SB_OK;
    case SB_OPT_TEXT:
        *(const char **)o->dst = value;
        return SB_OK;
    case SB_OPT_INT: {
        long long x = strtoll(value, &end, 10);
        if (end == value || *end || errno ||
            (limited && ((double)x < o->min || (double)x > o->max)))
            return limited ? sb_fail(err, SB_EUSAGE,
                                     "--%s %s: expected a whole number from %.0f to %.0f", o->name,
                                     value, o->min, o->max)
                           : sb_fail(err, SB_EUSAGE, "--%s %s: expected a whole number", o->name,
                                     value);
        *(int64_t *)o->dst = x;
        return SB_OK;
    }
    case SB_OPT_NUMBER: {
        double x = strtod(value, &end);
        if (end == value || *end || (limited && !(x >= o->min && x <= o->max)))
            return sb_fail(err, SB_EUSAGE, "--%s %s: expected a number from %g to %g", o->name,
                           value, o->min, o->max);
        *(double *)o->dst = x;
        return SB_OK;
    }
    case SB_OPT_LIST: {
        struct sb_texts *list = o->dst;
        if (list->n == SB_TEXTS_MAX)
            return sb_fail(err, SB_EUSAGE, "--%s is given more than %d times", o->name,
                           SB_TEXTS_MAX);
        list->item[list->n++] = value;
        return SB_OK;
    }
    case SB_OPT_FORMAT:
        return sb_format_parse(o->dst, value, err);
    case SB_OPT_SETTING: {
        char key[SB_FLAG_MAX];
        snprintf(key, sizeof key, "%s", o->name);
        for (char *c = key; *c; c++)
            if (*c == '-')
                *c = '_';
        return sb_plan_set(o->dst, key, value, err);
    }
    }
    return sb_fail(err, SB_EINTERNAL, "--%s has an unknown kind", o->name);
}

static bool takes_value(const struct sb_option *o)
{
    return o->arg != NULL;
}

static void print_help(const struct sb_usage *usage, const struct sb_option *options)
{
    printf("%s\nusage: %s\n\n%s\n\noptions:\n", usage->examples, usage->synopsis, usage->about);
    for (const struct sb_option *o = options; o->name; o++) {
        char left[64];
        char letter[8] = "";
        if (o->letter)
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->arg ? " " : "",
                 o->arg ? o->arg : "");
        printf("  %-28s %s\n", left, o->help);
    }
    printf("  %-28s %s\n", "--help", "this text");
}

/* "-o FILE" at argv[*i], which is one letter. */
static enum sb_status parse_letter(int argc, char **argv, int *i, const struct sb_option *options,
                                   struct sb_error *err)
{
    char letter = argv[*i][1];
    for (const struct sb_option *o = options; o->name; o++) {
        if (o->letter != letter || argv[*i][2])
            continue;
        if (!takes_value(o))
            return set_option(o, "true", err);
        if (*i + 1 >= argc)
            return sb_fail(err, SB_EUSAGE, "-%c needs a value: %s", letter, o->arg);
        return set_option(o, argv[++*i], err);
    }
    return sb_fail(err, SB_EUSAGE, "'%s' is no option; options begin with two dashes", argv[*i]);
}

/* One "--name", "--name=value" or "--name value" at argv[*i]. */
static enum sb_status parse_option(int argc, char **argv, int *i, const struct sb_usage *usage,
                                   const struct sb_option *options, struct sb_error *err)
{
    const char *text = argv[*i] + 2, *equals = strchr(text, '=');
    size_t length = equals ? (size_t)(equals - text) : strlen(text);
    for (const struct sb_option *o = options; o->name; o++) {
        if (strlen(o->name) != length || memcmp(o->name, text, length) != 0)
            continue;
        if (!takes_value(o))
            return equals ? sb_fail(err, SB_EUSAGE, "--%s takes no value", o->name)
                          : set_option(o, "true", err);
        if (!equals && *i + 1 >= argc)
            return sb_fail(err, SB_EUSAGE, "--%s needs a value: %s", o->name, o->arg);
        return set_option(o, equals ? equals + 1 : argv[++*i], err);
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)length, text);
    return refuse_option(name, usage, options, err);
}

enum sb_status sb_options_parse(int argc, char **argv, const struct sb_usage *usage,
                                const struct sb_option *options, struct sb_texts *rest,
                                bool *helped, struct sb_error *err)
{
    enum sb_status rc = SB_OK;
    bool only_rest = false;
    *helped = false;
    for (int i = 1; i < argc && rc == SB_OK; i++) {
        if (!only_rest && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            print_help(usage, options);
            *helped = true;
            return SB_OK;
        }
        if (!only_rest && strcmp(argv[i], "-o") == 0) /* the one short form, as compilers have it */
            argv[i] = (char *)"--output";
        if (!only_rest && strcmp(argv[i], "--") == 0)
            only_rest = true;
        else if (!only_rest && strncmp(argv[i], "--", 2) == 0)
            rc = parse_option(argc, argv, &i, usage, options, err);
        else if (!only_rest && argv[i][0] == '-' && argv[i][1])
            rc = parse_letter(argc, argv, &i, options, err);
        else if (!rest || rest->n == SB_TEXTS_MAX)
            rc = sb_fail(err, SB_EUSAGE, "'%s' is not expected here; usage: %s", argv[i],
                         usage->synopsis);
        else
            rest->item[rest->n++] = argv[i];
    }
    return rc;
}

size_t sb_cli_settings(struct sb_option *out, char names[][SB_FLAG_MAX], struct sb_plan *plan,
                       const char *const *left_out)
{
    size_t n = 0;
    for (const struct sb_param *p = sb_settings_table; p->name && n < SB_SETTINGS_MAX; p++) {
        bool skip = false;
        for (size_t i = 0; left_out && left_out[i]; i++)
            skip = skip || strcmp(left_out[i], p->name) == 0;
        if (skip)
            continue;
        snprintf(names[n], SB_FLAG_MAX, "%s", p->name);
        for (char *c = names[n]; *c; c++)
            if (*c == '_')
                *c = '-';
        static const char *const args[] = { [SB_PARAM_INT] = "N",
                                            [SB_PARAM_NUMBER] = "X",
                                            [SB_PARAM_STRING] = "TEXT",
                                            [SB_PARAM_CHOICE] = "WORD" };
        out[n] = (struct sb_option){ .name = names[n],
                                     .kind = SB_OPT_SETTING,
                                     .dst = plan,
                                     .arg = p->type == SB_PARAM_BOOL ? NULL
                                            : p->choices             ? p->choices
                                                                     : args[p->type],
                                     .help = p->meaning };
        n++;
    }
    return n;
}

/* ---- shared small things ----------------------------------------------------------------------- */

int sb_cli_fail(const char *command, const struct sb_error *err)
{
    fprintf(stderr, "specbench %s: %s\n", command, err->message);
    return sb_exit_code(err->code);
}

static volatile int stop_flag;

static void on_signal(int signal_number)
{
    stop_flag = 1;
    signal(signal_number, SIG_DFL);
}

const volatile int *sb_cli_stop_flag(void)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return &stop_flag;
}

enum sb_status sb_cli_set_threads(int64_t threads, struct sb_error *err)
{
    const char *why;
    sb_threads_set((int)threads);
    if (sb_cpu_select(getenv("SB_CPU"), &why) != 0)
        return sb_fail(err, SB_EUSAGE, "SB_CPU=%s: %s", getenv("SB_CPU"), why);
    return SB_OK;
}

enum sb_status sb_cli_set_arithmetic(struct sb_models *models,
                                     const struct sb_arithmetic_texts *texts, struct sb_error *err)
{
    struct sb_arithmetic a;
    enum sb_status rc = sb_arithmetic_parse(&a, texts, err);
    return rc == SB_OK ? sb_models_set_arithmetic(models, &a, err) : rc;
}

enum sb_status sb_cli_flush(struct sb_error *err)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return sb_fail(err, SB_EIO, "standard output: %s", strerror(errno));
    return SB_OK;
}

enum sb_status sb_cli_parse_ids(int32_t **out, size_t *n, const char *text, const char *what,
                                struct sb_error *err)
{
    int32_t *ids = NULL;
    size_t count = 0, cap = 0;
    for (const char *p = text + strspn(text, " \t\r\n,"); *p;) {
        char *end;
        errno = 0;
        long long id = strtoll(p, &end, 10);
        size_t gap = strspn(end, " \t\r\n,");
        if (end == p || errno || id < INT32_MIN || id > INT32_MAX || (*end && gap == 0)) {
            sb_free(ids);
            return sb_fail(err, SB_EUSAGE, "%s: '%.*s' is no whole number", what,
                           (int)strcspn(p, " \t\r\n,"), p);
        }
        if (sb_grow((void **)&ids, &cap, count + 1, sizeof *ids) != 0) {
            sb_free(ids);
            return sb_fail(err, SB_ENOMEM, "%s: out of memory", what);
        }
        ids[count++] = (int32_t)id;
        p = end + gap;
    }
    *out = ids;
    *n = count;
    return SB_OK;
}

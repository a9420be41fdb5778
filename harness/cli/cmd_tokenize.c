#define _GNU_SOURCE
/* specbench tokenize: lines of text to lines of ids, and back. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "harness/cli/cli.h"
#include "harness/core/alloc.h"
#include "harness/model/bundled.h"
#include "harness/model/tokenizer.h"

static const struct sb_usage usage = {
    .name = "tokenize",
    .examples =
        "  echo 'Hello world' | specbench tokenize --model tiny\n"
        "  echo '1 15043 3186' | specbench tokenize --model m.gguf --decode\n"
        "  specbench tokenize --model tokenizer-folder --no-bos --text-separator '\\n---\\n' < texts\n",
    .synopsis = "specbench tokenize --model M [--decode] [--no-bos] [--text-separator S]",
    .about =
        "Reads texts from standard input, one a line, and prints a line of ids for each. With\n"
        "--text-separator the input is split on that text instead (\\n, \\t and \\\\ are understood),\n"
        "so that a text may hold newlines. A directory with only tokenizer.json will do as model.",
};

struct options {
    const char *model, *separator;
    bool decode, no_bos, plain;
};

/* The whole of standard input, with a NUL behind it. */
static enum sb_status read_input(char **out, size_t *n, struct sb_error *err)
{
    char *text = NULL;
    size_t used = 0, cap = 0, got;
    do {
        if (sb_grow((void **)&text, &cap, used + 65537, 1) != 0) {
            sb_free(text);
            return sb_fail(err, SB_ENOMEM, "standard input: out of memory after %zu bytes", used);
        }
        got = fread(text + used, 1, 65536, stdin);
        used += got;
    } while (got > 0);
    if (ferror(stdin)) {
        sb_free(text);
        return sb_fail(err, SB_EINPUT, "standard input: %s", strerror(errno));
    }
    text[used] = '\0';
    *out = text;
    *n = used;
    return SB_OK;
}

/* \n, \t and \\ in an option's text; new memory. */
static char *unescape(const char *text)
{
    char *out = sb_strdup(text), *to = out;
    for (const char *from = text; out && *from; from++) {
        static const char codes[] = "nt\\", values[] = "\n\t\\";
        const char *code = from[0] == '\\' && from[1] ? strchr(codes, from[1]) : NULL;
        *to++ = code ? values[code - codes] : *from;
        from += code != NULL;
    }
    if (out)
        *to = '\0';
    return out;
}

static enum sb_status encode_line(const struct sb_tokenizer *tok, const struct options *o,
                                  const char *text, size_t n, struct sb_error *err)
{
    struct sb_tokens ids = { 0 };
    unsigned flags = (o->no_bos ? 0 : SB_ENCODE_BOS) | (o->plain ? SB_ENCODE_PLAIN : 0);
    enum sb_status rc = sb_tokenizer_encode(tok, &ids, text, n, flags, err);
    for (size_t i = 0; i < ids.n && rc == SB_OK; i++)
        printf("%s%d", i ? " " : "", ids.id[i]);
    if (rc == SB_OK)
        putchar('\n');
    sb_tokens_finish(&ids);
    return rc;
}

static enum sb_status decode_line(const struct sb_tokenizer *tok, const char *line, size_t n,
                                  struct sb_error *err)
{
    int32_t *ids = NULL;
    char *text = NULL, *copy = sb_strndup(line, n);
    size_t n_ids, length;
    enum sb_status rc = copy ? sb_cli_parse_ids(&ids, &n_ids, copy, "standard input", err)
                             : sb_fail(err, SB_ENOMEM, "out of memory");
    if (rc == SB_OK)
        rc = sb_tokenizer_decode(tok, &text, &length, ids, n_ids, true, err);
    if (rc == SB_OK) {
        fwrite(text, 1, length, stdout);
        putchar('\n');
    }
    sb_free(text);
    sb_free(ids);
    sb_free(copy);
    return rc;
}

/* Does text[0..n), inside `input`, stand on a line of its own, without newlines at its ends? */
static bool fills_line(const char *input, const char *text, size_t n)
{
    bool own_newlines = text[0] == '\n' || text[n - 1] == '\n';
    return !own_newlines && (text == input || text[-1] == '\n') && text[n] == '\n';
}

static enum sb_status convert(const struct sb_tokenizer *tok, const struct options *o,
                              const char *input, size_t n, struct sb_error *err)
{
    char *separator = unescape(o->separator ? o->separator : "\n");
    size_t length = separator ? strlen(separator) : 0;
    enum sb_status rc = SB_OK;
    if (!separator)
        rc = sb_fail(err, SB_ENOMEM, "out of memory");
    else if (length == 0)
        rc = sb_fail(err, SB_EUSAGE, "--text-separator is empty");
    for (const char *p = input, *end = input + n; rc == SB_OK && p < end;) {
        const char *next = memmem(p, (size_t)(end - p), separator, length);
        size_t size = (size_t)((next ? next : end) - p), after = length;
        if (next && o->separator && fills_line(input, next, length)) {
            size -= next > p; /* a separator on a line of its own takes the line with it */
            after++;
        }
        if (o->decode || !o->separator) /* lines of a file from another system */
            while (size > 0 && p[size - 1] == '\r' && next)
                size--;
        rc = o->decode ? decode_line(tok, p, size, err) : encode_line(tok, o, p, size, err);
        p = next ? next + after : end;
    }
    sb_free(separator);
    return rc;
}

int sb_cmd_tokenize(int argc, char **argv)
{
    struct options o = { 0 };
    const struct sb_option options[] = {
        { .name = "model",
          .kind = SB_OPT_TEXT,
          .dst = &o.model,
          .arg = "M",
          .help = "a bundled name, a GGUF file, an HF directory or a tokenizer.json" },
        { .name = "decode", .kind = SB_OPT_FLAG, .dst = &o.decode, .help = "ids to text" },
        { .name = "no-bos",
          .kind = SB_OPT_FLAG,
          .dst = &o.no_bos,
          .help = "leave out the beginning-of-text token" },
        { .name = "plain",
          .kind = SB_OPT_FLAG,
          .dst = &o.plain,
          .help = "the text of special tokens is ordinary text" },
        { .name = "text-separator",
          .kind = SB_OPT_TEXT,
          .dst = &o.separator,
          .arg = "S",
          .help = "split the input on S instead of on newlines" },
        { 0 },
    };
    struct sb_error err;
    struct sb_tokenizer *tok = NULL;
    char *path = NULL, *input = NULL;
    size_t n;
    bool helped;
    enum sb_status rc = sb_options_parse(argc, argv, &usage, options, NULL, &helped, &err);
    if (rc == SB_OK && helped)
        return 0;
    if (rc == SB_OK && !o.model)
        rc = sb_fail(&err, SB_EUSAGE, "--model is missing; usage: %s", usage.synopsis);
    if (rc == SB_OK)
        rc = sb_bundled_resolve(&path, "model", o.model, &err);
    if (rc == SB_OK)
        rc = sb_tokenizer_open(&tok, path, &err);
    if (rc == SB_OK)
        rc = read_input(&input, &n, &err);
    if (rc == SB_OK)
        rc = convert(tok, &o, input, n, &err);
    if (rc == SB_OK)
        rc = sb_cli_flush(&err);
    sb_free(input);
    sb_free(path);
    sb_tokenizer_close(tok);
    return rc == SB_OK ? 0 : sb_cli_fail("tokenize", &err);
}

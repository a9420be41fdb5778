#define PCRE2_CODE_UNIT_WIDTH 8
#include "harness/model/pretokenize.h"

#include <string.h>

#include <pcre2.h>

#include "harness/core/alloc.h"

/* Sources: openai/gpt-2 encoder.py; meta-llama/llama3 tokenizer.py; Qwen2's tokenizer.json. */
const char sb_pattern_gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char sb_pattern_llama3[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char sb_pattern_qwen2[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
                                " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* ---- Oniguruma's dialect ------------------------------------------------------------------------ */

/* What \s and \w are in the reference tokenizers: Unicode's White_Space and word characters. PCRE2's own
 * differ (U+180E; marks). Written to stand inside a character class. */
static const char spaces[] = "\\t-\\r \\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}"
                             "\\x{202F}\\x{205F}\\x{3000}";
static const char words[] = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}"
                            "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}"
                            "\\x{1F170}-\\x{1F189}";

enum { MAX_GROUPS = 64 };

/* A pattern on its way from Oniguruma's Ruby dialect, in which tokenizer.json files are written, to PCRE2. */
struct translation {
    const char *in;
    size_t n_in, at;
    char *out;
    size_t n, cap;
    size_t atom; /* where in `out` the last thing that a quantifier applies to begins */
    size_t group[MAX_GROUPS]; /* where open groups begin */
    size_t n_groups, depth;   /* depth: of nested character classes */
    const char *refused;      /* a construct that PCRE2 has not */
    bool out_of_memory;
};

static void put(struct translation *t, const char *text, size_t n)
{
    if (sb_grow((void **)&t->out, &t->cap, t->n + n + 1, 1) != 0) {
        t->out_of_memory = true;
        return;
    }
    memcpy(t->out + t->n, text, n);
    t->n += n;
}

static void put_text(struct translation *t, const char *text)
{
    put(t, text, strlen(text));
}

static char peek(const struct translation *t, size_t ahead)
{
    return t->at + ahead < t->n_in ? t->in[t->at + ahead] : '\0';
}

/* Copy up to and with `end`; all that is left when there is none. */
static void copy_through(struct translation *t, char end)
{
    const char *from = t->in + t->at, *to = memchr(from, end, t->n_in - t->at);
    size_t n = to ? (size_t)(to - from) + 1 : t->n_in - t->at;
    put(t, from, n);
    t->at += n;
}

static void translate_escape(struct translation *t)
{
    char c = peek(t, 1);
    const char *class = c == 's' || c == 'S' ? spaces : c == 'w' || c == 'W' ? words : NULL;
    bool negated = c == 'S' || c == 'W';
    if (t->depth == 0)
        t->atom = t->n;
    if (class && !(t->depth > 0 && negated)) {
        put_text(t, t->depth > 0 ? "" : negated ? "[^" : "[");
        put_text(t, class);
        put_text(t, t->depth > 0 ? "" : "]");
        t->at += 2;
    } else if (c == 'u' && t->n_in - t->at >= 6) {
        put_text(t, "\\x{");
        put(t, t->in + t->at + 2, 4);
        put_text(t, "}");
        t->at += 6;
    } else if ((c == 'p' || c == 'P' || c == 'x') && peek(t, 2) == '{') {
        copy_through(t, '}');
    } else {
        size_t n = t->n_in - t->at < 2 ? 1 : 2;
        put(t, t->in + t->at, n);
        t->at += n;
    }
}

/* Inside a class, "[" opens another one, whose members join the outer one. */
static void translate_in_class(struct translation *t)
{
    char c = peek(t, 0);
    if (c == '[' && peek(t, 1) == ':') {
        copy_through(t, ']');
        return;
    }
    if ((c == '[' && peek(t, 1) == '^') || (c == '&' && peek(t, 1) == '&'))
        t->refused = "a negated class or '&&' inside a character class";
    if (c == '[') {
        t->depth++;
    } else if (c != ']' || --t->depth == 0) {
        put(t, &c, 1);
    }
    t->at++;
}

/* X{1,3}+ repeats X{1,3}; in PCRE2 it would be possessive. */
static void translate_braces(struct translation *t)
{
    size_t digits = strspn(t->in + t->at + 1, "0123456789,");
    bool repeats = digits > 0 && peek(t, digits + 1) == '}' && peek(t, digits + 2) == '+';
    if (!repeats) {
        copy_through(t, '}');
        return;
    }
    put_text(t, "(?:");
    if (t->out_of_memory)
        return;
    memmove(t->out + t->atom + 3, t->out + t->atom, t->n - 3 - t->atom);
    memcpy(t->out + t->atom, "(?:", 3);
    copy_through(t, '}');
    put_text(t, ")");
}

static void translate_outside(struct translation *t)
{
    char c = peek(t, 0);
    if (c == '{') {
        translate_braces(t);
        return;
    }
    if (c == '(' && t->n_groups == MAX_GROUPS)
        t->refused = "groups nested more than 64 deep";
    else if (c == '(')
        t->group[t->n_groups++] = t->n;
    else if (c == ')' && t->n_groups > 0)
        t->atom = t->group[--t->n_groups];
    else if (!strchr("*+?|", c) && ((unsigned char)c & 0xC0) != 0x80)
        t->atom = t->n;
    put(t, &c, 1);
    t->at++;
    if (c == '[') {
        t->depth = 1;
        if (peek(t, 0) == '^')
            put(t, t->in + t->at++, 1);
    } else if (c == '(' && peek(t, 0) == '?') {
        put(t, t->in + t->at++, 1);
    }
}

static void translate(struct translation *t)
{
    put(t, "", 0);
    while (t->at < t->n_in && !t->refused && !t->out_of_memory) {
        if (peek(t, 0) == '\\')
            translate_escape(t);
        else if (t->depth > 0)
            translate_in_class(t);
        else
            translate_outside(t);
    }
}

/* ---- matching ------------------------------------------------------------------------------------- */

struct sb_regex {
    pcre2_code *code;
};

static enum sb_status compile(struct sb_regex *regex, const struct translation *t,
                              const char *where, struct sb_error *err)
{
    /* Oniguruma's ^ and $ are those of a line. \C could cut a character in two. */
    const uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C;
    int shown = (int)(t->n_in < 80 ? t->n_in : 80), error;
    PCRE2_SIZE at;
    if (t->out_of_memory)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for a pattern", where);
    if (t->refused)
        return sb_fail(err, SB_EUNSUPPORTED, "%s: pattern '%.*s' has %s", where, shown, t->in,
                       t->refused);
    regex->code = pcre2_compile((PCRE2_SPTR)t->out, t->n, options, &error, &at, NULL);
    if (!regex->code) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(error, text, sizeof text);
        return sb_fail(err, SB_EFORMAT, "%s: pattern '%.*s': %s", where, shown, t->in,
                       (const char *)text);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* an interpreter does where it cannot */
    return SB_OK;
}

enum sb_status sb_regex_create(struct sb_regex **out, const char *pattern, size_t length,
                               const char *where, struct sb_error *err)
{
    struct translation t = { .in = pattern, .n_in = length };
    struct sb_regex *regex = sb_alloc_zero(1, sizeof *regex);
    if (!regex)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for a pattern", where);
    translate(&t);
    enum sb_status rc = compile(regex, &t, where, err);
    sb_free(t.out);
    if (rc == SB_OK)
        *out = regex;
    else
        sb_regex_destroy(regex);
    return rc;
}

void sb_regex_destroy(struct sb_regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    sb_free(regex);
}

/* The compiled form has a small stack; where that does not do, the interpreter does. */
static int match_once(const struct sb_regex *regex, const char *text, size_t length, size_t from,
                      pcre2_match_data *match)
{
    int rc =
        pcre2_match(regex->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK, match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(regex->code, (PCRE2_SPTR)text, length, from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, NULL);
    return rc;
}

bool sb_regex_next(const struct sb_regex *regex, const char *text, size_t length, size_t from,
                   size_t *start, size_t *end)
{
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(regex->code, NULL);
    bool found = false;
    while (match && !found && from <= length) {
        if (match_once(regex, text, length, from, match) < 0)
            break;
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
        *start = range[0];
        *end = range[1];
        found = range[1] > range[0];
        from = range[1] + 1; /* past an empty match, to the next character */
        while (from < length && ((unsigned char)text[from] & 0xC0) == 0x80)
            from++;
    }
    pcre2_match_data_free(match);
    return found;
}

/* ---- bytes as characters ------------------------------------------------------------------------ */

static bool is_printable(unsigned code)
{
    return (code >= '!' && code <= '~') || (code >= 0xA1 && code <= 0xAC) ||
           (code >= 0xAE && code <= 0xFF);
}

/* Bytes that are no printable Latin-1 character get 256, 257, ... in ascending order. */
unsigned sb_byte_code(unsigned char byte)
{
    unsigned code = 256;
    if (is_printable(byte))
        return byte;
    for (unsigned b = 0; b < byte; b++)
        code += !is_printable(b);
    return code;
}

int sb_code_byte(unsigned code)
{
    if (code < 256)
        return is_printable(code) ? (int)code : -1;
    unsigned next = 256;
    for (unsigned b = 0; b < 256; b++)
        if (!is_printable(b) && next++ == code)
            return (int)b;
    return -1;
}

size_t sb_put_code(char out[2], unsigned code)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    out[0] = (char)(0xC0 | code >> 6);
    out[1] = (char)(0x80 | (code & 0x3F));
    return 2;
}

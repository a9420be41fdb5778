#define PCRE2_CODE_UNIT_WIDTH 8
#include "harness/model/pretokenize.h"

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

struct sb_regex {
    pcre2_code *code;
};

enum sb_status sb_regex_create(struct sb_regex **out, const char *pattern, size_t length,
                               const char *where, struct sb_error *err)
{
    int error;
    PCRE2_SIZE at;
    struct sb_regex *regex = sb_alloc_zero(1, sizeof *regex);
    if (!regex)
        return sb_fail(err, SB_ENOMEM, "%s: out of memory for a pattern", where);
    regex->code =
        pcre2_compile((PCRE2_SPTR)pattern, length, PCRE2_UTF | PCRE2_UCP, &error, &at, NULL);
    if (!regex->code) {
        PCRE2_UCHAR text[128];
        pcre2_get_error_message(error, text, sizeof text);
        sb_free(regex);
        return sb_fail(err, SB_EFORMAT, "%s: pattern '%.*s': %s at offset %zu", where,
                       (int)(length < 80 ? length : 80), pattern, (const char *)text, at);
    }
    pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE); /* an interpreter does where it cannot */
    *out = regex;
    return SB_OK;
}

void sb_regex_destroy(struct sb_regex *regex)
{
    if (!regex)
        return;
    pcre2_code_free(regex->code);
    sb_free(regex);
}

bool sb_regex_next(const struct sb_regex *regex, const char *text, size_t length, size_t from,
                   size_t *start, size_t *end)
{
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(regex->code, NULL);
    bool found = false;
    while (match && !found && from <= length) {
        int rc = pcre2_match(regex->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK, match,
                             NULL);
        if (rc < 0)
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

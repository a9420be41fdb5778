/* Pre-tokenization: cutting text where no merge may cross, by regular expressions (PCRE2). */
#ifndef SB_MODEL_PRETOKENIZE_H
#define SB_MODEL_PRETOKENIZE_H

#include <stdbool.h>
#include <stddef.h>

#include "harness/core/error.h"

/* The patterns of well-known vocabularies, by the name GGUF files use. */
extern const char sb_pattern_gpt2[], sb_pattern_llama3[], sb_pattern_qwen2[];

struct sb_regex; /* a compiled pattern; read-only and shared freely */

/* Compile with Unicode properties. A pattern that PCRE2 refuses is SB_EFORMAT naming `where`. */
enum sb_status sb_regex_create(struct sb_regex **out, const char *pattern, size_t length,
                               const char *where, struct sb_error *err);
void sb_regex_destroy(struct sb_regex *regex);

/* The next match at or after `from`: *start and *end; false when there is none. Empty matches are
 * passed over. `text` is valid UTF-8. */
bool sb_regex_next(const struct sb_regex *regex, const char *text, size_t length, size_t from,
                   size_t *start, size_t *end);

/* GPT-2's printable stand-ins for bytes: byte b is written as code point sb_byte_code(b), and back
 * (-1 when that code point stands for no byte). */
unsigned sb_byte_code(unsigned char byte);
int sb_code_byte(unsigned code);
/* Write a code point below 0x800 as UTF-8; returns the bytes written (1 or 2). */
size_t sb_put_code(char out[2], unsigned code);

#endif

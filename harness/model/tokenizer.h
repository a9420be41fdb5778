/* Tokenizers: text to ids and back, exactly as the model's own tool chain does it. */
#ifndef SB_MODEL_TOKENIZER_H
#define SB_MODEL_TOKENIZER_H

#include "harness/core/error.h"
#include "harness/model/config.h"

struct sb_tokenizer;

/* From a GGUF file (with or without weights) or a directory with tokenizer.json (tokenizer_config.json
 * and config.json are read when present), or a tokenizer.json itself. SentencePiece .model files and
 * kinds other than BPE are refused by name. The caller owns *out. */
enum sb_status sb_tokenizer_open(struct sb_tokenizer **out, const char *path, struct sb_error *err);
void sb_tokenizer_close(struct sb_tokenizer *tok);

size_t sb_tokenizer_size(const struct sb_tokenizer *tok);
sb_token sb_tokenizer_bos(const struct sb_tokenizer *tok); /* -1: none */
sb_token sb_tokenizer_eos(const struct sb_tokenizer *tok); /* -1: none */
bool sb_tokenizer_adds_bos(const struct sb_tokenizer *tok);
bool sb_tokenizer_is_eog(const struct sb_tokenizer *tok, sb_token id); /* ends a generation */
/* Id of the token whose text is exactly `text`, special ones included; -1 when there is none. */
sb_token sb_tokenizer_find(const struct sb_tokenizer *tok, const char *text);
/* The vocabulary entry as stored (SentencePiece or byte-level spelling); NULL outside. Borrowed. */
const char *sb_tokenizer_piece(const struct sb_tokenizer *tok, sb_token id);
uint64_t sb_tokenizer_hash(const struct sb_tokenizer *tok); /* of vocabulary and merges */

struct sb_tokens {
    sb_token *id; /* owned: sb_tokens_finish */
    size_t n, cap;
};
void sb_tokens_finish(struct sb_tokens *tokens);
enum sb_status sb_tokens_push(struct sb_tokens *tokens, const sb_token *id, size_t n,
                              struct sb_error *err);

enum {
    SB_ENCODE_BOS = 1,   /* put BOS first if the tokenizer adds one by default */
    SB_ENCODE_PLAIN = 2, /* the text of special tokens is ordinary text (user input) */
};

/* Append the ids of text[0..length) to `out`. Bytes that are no UTF-8 count as U+FFFD. */
enum sb_status sb_tokenizer_encode(const struct sb_tokenizer *tok, struct sb_tokens *out,
                                   const char *text, size_t length, unsigned flags,
                                   struct sb_error *err);

/* The text of ids, in new memory (sb_free) with a NUL after *length bytes. Special tokens are left
 * out unless `special`. Bytes are exact across token borders; SentencePiece's leading space of the
 * first piece is dropped. Ids outside the vocabulary are SB_EUSAGE. */
enum sb_status sb_tokenizer_decode(const struct sb_tokenizer *tok, char **text, size_t *length,
                                   const sb_token *id, size_t n, bool special,
                                   struct sb_error *err);

#endif

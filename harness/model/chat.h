/* Chat templates: turns to token ids, by the name of a known format. */
#ifndef SB_MODEL_CHAT_H
#define SB_MODEL_CHAT_H

#include "harness/model/tokenizer.h"

/* "plain", "vicuna", "llama-2", "llama-3", "chatml"; NULL-terminated, for help and errors. */
extern const char *const sb_chat_names[];

/* The template whose text in a model file this is (recognised by its marks); "plain" for NULL or
 * when it is not one of ours - *known tells which. */
const char *sb_chat_recognise(const char *template_text, bool *known);

struct sb_turn {
    const char *user;
    const char *assistant; /* NULL in the last turn: the answer to be generated */
};

/* Append the prompt that asks for the answer to turns[n - 1]: BOS as the format wants it, earlier
 * answers closed by the format's end mark. User text cannot inject special tokens. */
enum sb_status sb_chat_encode(const char *name, const struct sb_tokenizer *tok,
                              const struct sb_turn *turns, size_t n, struct sb_tokens *out,
                              struct sb_error *err);

#endif

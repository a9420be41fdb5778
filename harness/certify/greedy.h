/* Greedy decoding: token equality with plain decoding, and a triage of what is not equal (C 6.1). */
#ifndef SB_CERTIFY_GREEDY_H
#define SB_CERTIFY_GREEDY_H

#include "harness/certify/arena.h"

/* The bundled questions in the model's chat format, and what plain decoding answers: one row at a time,
 * without session, drafter or tree. */
struct sb_greedy_set {
    struct sb_arena *arena;
    struct sb_tokens *prompt, *plain; /* [n] */
    size_t n;
    size_t length;  /* most tokens of an answer */
    double epsilon; /* largest difference of a logit between a row alone and the row in a batch */
};
/* The first `per_task` questions of each task, 0: all. An arena without tokenizer has its prompts. */
enum sb_status sb_greedy_set_make(struct sb_greedy_set *out, struct sb_arena *arena,
                                  size_t per_task, size_t length, struct sb_error *err);
void sb_greedy_set_finish(struct sb_greedy_set *set);

struct sb_greedy {
    int64_t generations, tokens, equal;
    int64_t ties;      /* first difference where the two largest logits are equal */
    int64_t numerical; /* ... where they differ by less than twice epsilon */
    int64_t real;      /* anywhere else */
    int64_t steps, drafted, accepted;
    char note[256]; /* the first difference; "" when all are equal */
};
/* The plug-ins of `options` on every question. Deterministic. */
enum sb_status sb_greedy_run(struct sb_greedy *out, const struct sb_greedy_set *set,
                             const struct sb_session_options *options, const volatile int *stop,
                             struct sb_error *err);

#endif

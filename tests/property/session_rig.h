/* Sessions over toy models: what their tests share. Models, checkpoints and a datastore are made in a folder of
 * the test's own; every drafter has some ways to run; every step that generate() makes is checked. */
#ifndef SB_TESTS_SESSION_RIG_H
#define SB_TESTS_SESSION_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "harness/decode/session.h"
#include "tests/property/toy_model.h"

enum { V = 24, CONTEXT = 96, MOST = 128, EOS = 3 };

/* The target; models by name for the loader: "same", "near", "wide" and "narrow" vocabularies,
 * "short" context, "far" (an unrelated one), "other" (a vocabulary of another size). */
extern struct toy_model target, near, wide, narrow, brief, far, other;
int make_models(void **state); /* of a group of tests */
int destroy_models(void **state);
enum sb_status load(void *loader, const char *name, struct sb_model **model,
                    const struct sb_tokenizer **tokenizer, struct sb_error *err);

/* Several ways to run one drafter. A drafter that is not listed runs with its defaults. */
extern const char *const variants[]; /* [n_variants] */
extern const size_t n_variants;

struct setup {
    const char *drafter, *verifier, *policy;
    struct sb_sampling sampling;
    size_t max_context;
    bool ignore_eos;
};

enum sb_status open_session(struct sb_session **out, struct setup setup, struct sb_error *err);
struct sb_session *opened(struct setup setup); /* fails the test instead */

/* What the callbacks see, checked step by step. */
struct watch {
    int32_t steps, drafted, accepted, tokens, next_context;
    size_t streamed, allocations;
    sb_token stream[MOST];
    volatile int stop;
    int32_t stop_after; /* steps; 0: never */
    unsigned kinds;     /* that trees may have; 0: any */
    bool allocated;
};

/* watch: NULL when nothing is asked of it. */
struct sb_generation generate(struct sb_session *session, const sb_token *prompt, size_t n_prompt,
                              size_t budget, struct watch *watch);

struct prompt {
    sb_token id[40];
    size_t n;
};
enum { N_PROMPTS = 5 };
extern const struct prompt prompts[N_PROMPTS];

#endif

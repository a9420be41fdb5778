/* A session: draft -> verify -> accept -> commit, until the end token, the budget or a full cache.
 *
 * One session serves one arm: a target sequence, a drafter with its state, a verifier, a policy. */
#ifndef SB_DECODE_SESSION_H
#define SB_DECODE_SESSION_H

#include "harness/decode/drafter.h"
#include "harness/decode/policy.h"
#include "harness/decode/verifier.h"

struct sb_session;

struct sb_session_options {
    struct sb_model *target;
    const struct sb_tokenizer *tokenizer; /* the target's; may be NULL when working on ids */
    const struct sb_spec *drafter;        /* NULL: none */
    const struct sb_spec *verifier;       /* NULL: sb_verifier_default */
    const struct sb_spec *policy;         /* NULL: the drafter's default */
    /* Plug-ins that stand in no registry (what certify plants). The spec, if any, gives the parameters
     * alone; all checks are made as for the others. */
    const struct sb_drafter_ops *drafter_ops;
    const struct sb_verifier_ops *verifier_ops;
    struct sb_sampling sampling;
    size_t max_context; /* 0: the model's own, at most 4,096 */
    bool ignore_eos;
    enum sb_status (*load_model)(void *loader, const char *name, struct sb_model **model,
                                 const struct sb_tokenizer **tokenizer, struct sb_error *err);
    void *loader;
    enum sb_status (*uses)(void *loader, const char *path,
                           struct sb_error *err); /* as for drafters */
};

/* Checks names, parameters and lawfulness, allocates every buffer of the decode loop. */
enum sb_status sb_session_create(struct sb_session **out, const struct sb_session_options *options,
                                 struct sb_error *err);
void sb_session_destroy(struct sb_session *session);
const struct sb_drafter_ops *sb_session_drafter(const struct sb_session *session);
const struct sb_verifier_ops *sb_session_verifier(const struct sb_session *session);
const struct sb_policy_ops *sb_session_policy(const struct sb_session *session);
enum sb_guarantee sb_session_guarantee(const struct sb_session *session);
/* Tokens that end its generations; borrowed. Returns how many. */
size_t sb_session_eos(const struct sb_session *session, const sb_token **eos);

/* Does its drafter or policy carry over what it learned from prompt to prompt? Results then depend on
 * the order of prompts. */
bool sb_session_keeps_run(const struct sb_session *session);

/* One step, as stored (C 5). tree and decision are borrowed until the callback returns. */
struct sb_step {
    int32_t step_no; /* from 0 */
    int32_t context; /* committed tokens before the step, root included */
    int32_t drafted, auxiliary, depth;
    int32_t accepted; /* draft tokens accepted, before any cut by a stop or the budget */
    int32_t tokens;   /* tokens kept, final token included */
    bool bonus;       /* the final token was a bonus, not a correction */
    uint64_t draft_ns, verify_ns, accept_ns, commit_ns, observe_ns;
    const struct sb_tree *tree;
    const uint8_t *decision; /* [tree->n] enum sb_decision */
    const int32_t *path;     /* [n_path] accepted nodes, root first */
    int32_t n_path;
    const struct sb_rows
        *rows; /* the target's rows at the tree's nodes, as the verifier saw them */
};

enum sb_finish { SB_FINISH_LENGTH, SB_FINISH_EOS, SB_FINISH_CONTEXT, SB_FINISH_STOPPED };
const char *sb_finish_name(enum sb_finish finish); /* "length", "eos", "context", "stopped" */

struct sb_generation {
    struct sb_tokens
        tokens; /* what was generated: the prefill's token first, EOS included if hit */
    enum sb_finish finish;
    int32_t steps; /* target forwards over a draft; prefill is never a step */
    int32_t drafted, accepted, step_tokens;
    uint64_t prefill_ns; /* prompt forward, its token, and the drafter's begin */
    uint64_t begin_ns;   /* the drafter's begin alone: its own pass over the prompt */
    uint64_t decode_ns;  /* sum over the steps, callbacks left out */
};
void sb_generation_finish(struct sb_generation *generation);

struct sb_request {
    const sb_token *prompt;
    size_t n_prompt; /* at least 1 */
    size_t max_new_tokens;
    uint64_t rng_key;                                        /* from (seed, prompt, repeat) */
    void (*on_step)(void *self, const struct sb_step *step); /* optional */
    void (*on_tokens)(void *self, const sb_token *tokens, size_t n); /* optional; for streaming */
    void *self;
    const struct sb_document *documents; /* for drafters; NULL: none */
    size_t n_documents;
    uint64_t conversation; /* see struct sb_context; 0: not known */
    /* Draft nothing, and show nothing to the drafter and the policy: they learn nothing. */
    bool plain;
    const volatile int *stop; /* nonzero: finish the step at hand and return SB_FINISH_STOPPED */
};

/* Run one request from an empty sequence. The first token is drawn by the verifier's own law from
 * the prompt's last row. A prompt and its tokens never pass max_context positions together; a
 * prompt that is longer by itself is SB_EUSAGE. The caller owns *out (sb_generation_finish). */
enum sb_status sb_session_generate(struct sb_session *session, const struct sb_request *request,
                                   struct sb_generation *out, struct sb_error *err);

#endif

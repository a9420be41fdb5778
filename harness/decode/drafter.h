/* The drafter interface (methods A 1.4). One file per drafter, one line in drafters/registry.c. */
#ifndef SB_DECODE_DRAFTER_H
#define SB_DECODE_DRAFTER_H

#include "harness/core/error.h"
#include "harness/core/param.h"
#include "harness/core/rng.h"
#include "harness/decode/policy.h"
#include "harness/decode/sampling.h"
#include "harness/decode/taps.h"
#include "harness/decode/tree.h"
#include "harness/model/model.h"
#include "harness/model/tokenizer.h"

/* Rows of the drafter's own that a verifier wants in node.draft_row. */
enum sb_draft_rows {
    SB_DRAFT_ROWS_NONE,
    SB_DRAFT_ROWS_PARENTS, /* of every node with children */
    SB_DRAFT_ROWS_ALL,     /* of leaves too, which costs the drafter one more forward */
};

/* What its observe reads of the target's rows. Without a target (specbench replay) only drafters that read
 * none can run. */
enum sb_target_rows {
    SB_TARGET_ROWS_NONE,
    SB_TARGET_ROWS_ANY, /* of whatever nodes the step had */
    SB_TARGET_ROWS_OWN, /* of its own nodes, found by their place in its tree */
};

/* What a drafter may ask the harness for, at open. All borrowed for the drafter's lifetime. */
struct sb_drafter_env {
    struct sb_model *target;
    const struct sb_tokenizer *tokenizer; /* the target's; NULL with bare ids */
    struct sb_sampling sampling;
    const sb_token *eos; /* tokens that end a generation */
    size_t n_eos;
    size_t max_context; /* positions a sequence can reach */
    size_t n_vocab;
    const void *params;             /* the drafter's parameter struct, filled and checked */
    enum sb_draft_rows draft_rows;  /* what the verifier wants; a drafter without rows ignores it */
    const struct sb_policy *policy; /* never NULL; sb_policy_longest bounds its plans */
    /* Ask here for hidden states of the target (sb_tap_want); every context then has them. */
    struct sb_tap_plan *taps;
    /* Load a model by path or bundled name; the harness keeps it and frees it. */
    enum sb_status (*load_model)(void *loader, const char *name, struct sb_model **model,
                                 const struct sb_tokenizer **tokenizer, struct sb_error *err);
    void *loader;
    /* Told of every file that the drafter reads beside models: its content becomes part of what identifies
     * the run. NULL: nobody asks; call sb_drafter_uses. */
    enum sb_status (*uses)(void *loader, const char *path, struct sb_error *err);
};
static inline enum sb_status sb_drafter_uses(const struct sb_drafter_env *env, const char *path,
                                             struct sb_error *err)
{
    return env && env->uses ? env->uses(env->loader, path, err) : SB_OK;
}

/* A text that belongs to a prompt: a passage it is about, a text to copy from. */
struct sb_document {
    const sb_token *tokens;
    size_t n;
};

/* The state of a generation, as drafters see it before a step. */
struct sb_context {
    const sb_token *tokens; /* [n] committed, the root (tokens[n-1]) included */
    size_t n;
    size_t n_prompt;
    struct sb_dice dice;                 /* the drafter's own stream, at this position */
    const struct sb_policy *policy;      /* how long to draft; never NULL */
    const struct sb_document *documents; /* the prompt's own, where the data set has them */
    size_t n_documents;
    uint64_t conversation; /* the turns of one have the same, others another; 0: not known */
    /* Hidden states of the target, by the index that sb_tap_want gave: taps[i] is [n - 1, d_model], a
     * row for every committed token but the root, whose forward is still to come. */
    const float *const *taps;
};

/* The conversation of a question in a repeat of a run; never 0. */
static inline uint64_t sb_conversation_of(int64_t question_id, int repeat)
{
    return sb_rng_mix((uint64_t)question_id, (uint64_t)repeat) | 1;
}

/* What a step did, as drafters see it afterwards. Rows are the target's, before S. */
struct sb_outcome {
    const struct sb_tree *tree;
    const int32_t *path;         /* accepted nodes, root first: path[0] == 0 */
    int32_t n_path;              /* accepted draft tokens + 1 */
    sb_token final_token;        /* -1 when generation ended inside the path */
    const struct sb_seq *target; /* sb_seq_logits(target, node): any node but unread ones, rejected
                                    and auxiliary included */
    uint64_t draft_ns, verify_ns;
};

struct sb_drafter_ops {
    const char *name;              /* CLI, Lua and database name, kebab-case; file stem with '_' */
    const char *summary;           /* one line for `specbench list drafters` */
    const char *paper;             /* "Author Year, arXiv id or URL" */
    const struct sb_param *params; /* ends at a NULL name; NULL: none */
    size_t params_size;            /* bytes of the parameter struct */
    size_t state_size;             /* bytes; the harness allocates them zeroed, once per arm */
    unsigned kinds_greedy;         /* SB_KIND_BITs of its trees at temperature 0 ... */
    unsigned kinds_sampling;       /* ... and above; 0: the same */
    /* The kinds with these parameters (NULL: the defaults), when they decide; NULL: as said above. */
    unsigned (*kinds)(const void *params, const struct sb_sampling *sampling);
    enum sb_draft_rows draft_rows; /* what it can give to a verifier that asks */
    bool makes_trees;              /* may branch; false: chains only */
    /* Does it branch with these parameters (NULL: the defaults)? NULL: as makes_trees says. */
    bool (*branches)(const void *params);
    enum sb_target_rows target_rows;
    /* Does it read them with these parameters (NULL: the defaults)? NULL: as target_rows says. */
    enum sb_target_rows (*target_rows_with)(const void *params);
    /* Does what it learns outlive the conversation with these parameters? NULL: as a choice named
     * `scope` says, by the value `run`. */
    bool (*keeps_run)(const void *params);
    /* Is a node's source, sign apart, the length of the match it was copied from? */
    bool source_is_match;
    const char *default_policy; /* NULL: "constant" */
    enum sb_status (*open)(void *st, const struct sb_drafter_env *env, struct sb_error *err);
    /* A new prompt (or the next turn of a conversation). */
    enum sb_status (*begin)(void *st, const struct sb_context *ctx, struct sb_error *err);
    /* Grow the tree under node 0, within tree->cap and tree->max_depth; adding none is valid. */
    enum sb_status (*propose)(void *st, const struct sb_context *ctx, struct sb_tree *tree,
                              struct sb_error *err);
    /* ctx is the state after the step. */
    enum sb_status (*observe)(void *st, const struct sb_context *ctx,
                              const struct sb_outcome *outcome, struct sb_error *err);
    /* Optional: this drafter changes the target's law by design, so it is lossy with every verifier.
     * row[n_vocab] is S(logits) at `node`, one-hot at temperature 0; replace it by a law of its own, or
     * leave it. taps[i] is the node's row [d_model] of what sb_tap_want gave index i. Called once for
     * each row that a verifier asks for, before it sees it; the result may depend on nothing but these
     * and what begin, propose and observe have done: in which order rows are asked for is not said.
     * begin then comes before the prompt's last row is judged, with ctx->n == ctx->n_prompt. */
    void (*mix)(void *st, const struct sb_tree *tree, int32_t node, const float *const *taps,
                const float *logits, double *row);
    enum sb_status (*fork)(void *copy, const void *st, struct sb_error *err); /* optional */
    void (*cancel)(void *st);                                                 /* optional */
    void (*close)(void *st); /* optional, like begin and observe; accepts a zeroed state */
    /* Most draft nodes a step can have with these parameters; sizes buffers at open. */
    int32_t (*max_nodes)(const void *params, const struct sb_policy *policy);
};

extern const struct sb_drafter_ops *const sb_drafters[];        /* sorted by name, ends at NULL */
const struct sb_drafter_ops *sb_drafter_find(const char *name); /* NULL: none */

static inline bool sb_drafter_keeps_run(const struct sb_drafter_ops *ops, const void *params)
{
    return ops->keeps_run ? ops->keeps_run(params)
                          : sb_params_choice_is(params, ops->params, "scope", "run");
}
static inline enum sb_target_rows sb_drafter_target_rows(const struct sb_drafter_ops *ops,
                                                         const void *params)
{
    return ops->target_rows_with ? ops->target_rows_with(params) : ops->target_rows;
}

#endif
